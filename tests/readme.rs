//! The README's program, with its `[dependencies]` lines, as a new user copies both.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The doctest of the README has the features and the dependencies of the tests. This test has only
/// the lines that the README gives.
#[test]
#[ignore = "builds a crate with all its dependencies"]
fn program_builds_with_the_given_dependencies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let dependencies = first_block(&readme, "toml");
    assert!(dependencies.starts_with("[dependencies]\n"), "{dependencies}");
    let program = first_block(&readme, "rust,no_run");
    assert!(program.contains("async fn main()"), "{program}");

    // In the target folder, so that the next run reuses the built dependencies.
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme");
    fs::create_dir_all(package.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"readme\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n{dependencies}\n\
         [patch.crates-io]\nsse-hub = {{ path = {root:?} }}\n\n[workspace]\n"
    );
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    fs::write(package.join("src/main.rs"), program).unwrap();
    // With the versions of the tests, which are downloaded already.
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).unwrap();

    let checked = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", package.join("target"))
        .env("RUSTFLAGS", "-D warnings")
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Returns the first code block of a language.
fn first_block<'a>(text: &'a str, language: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("the README has the block");
    rest.split_once("```").expect("the block ends").0
}
