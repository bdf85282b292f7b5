//! The README's program, with its `[dependencies]` lines, as a new user copies both, and the first
//! part of the guide's page `first_hour`, which runs the program.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The limit for steps that take milliseconds on an idle machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// The doctest of the README has the features and the dependencies of the tests. This test has only
/// the lines that the README gives.
#[test]
#[ignore = "builds a crate with all its dependencies"]
fn program_builds_and_reaches_both_tabs_of_a_user() {
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
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(program.contains("\"127.0.0.1:3000\""), "the page `first_hour` names the port");
    let program = program.replace("127.0.0.1:3000", &free.to_string());
    fs::write(package.join("src/main.rs"), program).unwrap();
    // With the versions of the tests, which are downloaded already.
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).unwrap();

    let built = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", package.join("target"))
        .env("RUSTFLAGS", "-D warnings")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let _running = Killed(Command::new(package.join("target/debug/readme")).spawn().unwrap());
    let begun = Instant::now();
    while TcpStream::connect(free).is_err() {
        assert!(begun.elapsed() < DEADLINE, "the program must listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let request = |head: &str| {
        let mut socket = TcpStream::connect(free).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(format!("{head} HTTP/1.1\r\nhost: {free}\r\n\r\n").as_bytes()).unwrap();
        BufReader::new(socket).lines().map(Result::unwrap)
    };
    let mut tabs = [request("GET /events"), request("GET /events")];
    for tab in &mut tabs {
        assert!(tab.any(|line| line == "event: hub:open"));
    }
    assert_eq!(request("POST /greet").next().as_deref(), Some("HTTP/1.1 200 OK"));
    let ids = tabs.map(|mut tab| {
        assert!(tab.any(|line| line == "event: greeting"));
        tab.find(|line| line.starts_with("id: "))
    });
    assert!(ids[0].is_some() && ids[0] == ids[1], "{ids:?}");
}

/// Kills the process when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the first code block of a language.
fn first_block<'a>(text: &'a str, language: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("the README has the block");
    rest.split_once("```").expect("the block ends").0
}
