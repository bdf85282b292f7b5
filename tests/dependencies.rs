//! What comes with the crate, and what does not: a library that knows no runtime must not bring one.
//!
//! Asked of `cargo tree`, which reads the lock file and takes no lock of the build directory, so that it can be asked
//! while a build is under way. It speaks of the system that this is run on.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Command;

/// What every user of the crate gets.
const ALWAYS: [&str; 12] = [
    "bytes",
    "futures-core",
    "getrandom",
    "itoa",
    "memchr",
    "parking_lot",
    "pin-project-lite",
    "slab",
    "smallvec",
    "thiserror",
    "tracing",
    "wide",
];

/// What a server or a runtime is made of. None of it is for a library to choose.
const SERVERS: [&str; 11] = [
    "actix-web",
    "async-io",
    "async-std",
    "axum",
    "futures-executor",
    "hyper",
    "hyper-util",
    "mio",
    "smol",
    "tokio",
    "tower",
];

#[test]
fn each_feature_adds_what_it_is_for_and_the_default_adds_nothing() {
    let features: [(&str, &[&str]); 11] = [
        ("default", &[]),
        ("json", &["serde", "serde_json"]),
        ("tokio", &["tokio"]),
        ("http", &["http", "http-body"]),
        ("axum", &["axum-core", "http", "http-body"]),
        ("warp", &["http", "http-body", "warp"]),
        ("watchdog", &["socket2", "tokio"]),
        ("axum-serve", &["axum", "axum-core", "http", "http-body", "socket2", "tokio"]),
        ("metrics", &["metrics"]),
        ("redis", &["redis", "tokio"]),
        ("redis-tls", &["redis", "rustls", "tokio"]),
    ];
    for (feature, adds) in features {
        let expected: BTreeSet<_> = ALWAYS.iter().chain(adds).copied().map(str::to_owned).collect();
        assert_eq!(direct(feature), expected, "with {feature}");
    }
}

#[test]
fn no_feature_but_those_of_tokio_and_warp_brings_a_runtime_or_a_server() {
    // That it is found where it is.
    assert!(tree("tokio").contains_key("tokio"));

    let tree = tree("json,http,metrics");
    assert!(tree.contains_key("http-body"), "{tree:?}");
    assert_eq!(servers_in(&tree), [""; 0]);
}

#[test]
fn an_adapter_brings_its_framework_and_not_the_server() {
    let axum = tree("axum");
    assert!(axum.contains_key("axum-core"), "{axum:?}");
    assert_eq!(servers_in(&axum), [""; 0]);

    // It knows tokio's traits of connections, and opens none.
    let watchdog = tree("watchdog");
    assert_eq!(servers_in(&watchdog), ["tokio"]);
    assert!(!watchdog["tokio"].contains("net"), "{watchdog:?}");

    // warp itself has tokio's types in its face, but whether it serves is left to who uses it.
    let warp = tree("warp");
    assert!(warp.contains_key("warp"), "{warp:?}");
    assert_eq!(servers_in(&warp), ["tokio"]);
    let tokio = &warp["tokio"];
    for feature in ["net", "rt", "rt-multi-thread"] {
        assert!(!tokio.contains(feature), "{feature} of {tokio:?}");
    }
}

#[test]
fn tls_builds_without_more_than_a_compiler_of_c() {
    assert!(!tree("redis").contains_key("rustls"));
    let tree = tree("redis-tls");
    assert!(tree.contains_key("ring"), "{tree:?}");
    // Which take cmake, or are the system's.
    for other in ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl-sys"] {
        assert!(!tree.contains_key(other), "{other}");
    }
}

#[test]
fn tokios_timer_brings_what_a_timer_takes_of_it() {
    let tokio = &tree("tokio")["tokio"];
    assert_eq!(tokio, &["rt", "time"].map(str::to_owned).into());
}

fn servers_in(tree: &Packages) -> Vec<&str> {
    SERVERS.into_iter().filter(|&name| tree.contains_key(name)).collect()
}

/// Packages by their names, with the features that they have.
type Packages = BTreeMap<String, BTreeSet<String>>;

/// Everything that the crate brings with these features.
fn tree(features: &str) -> Packages {
    cargo_tree(features, &[])
}

/// What it names itself.
fn direct(features: &str) -> BTreeSet<String> {
    let mut packages = cargo_tree(features, &["--depth", "1"]);
    packages.remove(env!("CARGO_PKG_NAME")).expect("the crate itself is the root");
    packages.into_keys().collect()
}

fn cargo_tree(features: &str, more: &[&str]) -> Packages {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--no-default-features"])
        .args(["--prefix", "none", "--format", "{p}|{f}", "--features", features])
        .args(more)
        .output()
        .expect("cargo can be run: it runs this test");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {errors}");
    let mut packages = Packages::new();
    for line in str::from_utf8(&output.stdout).unwrap().lines() {
        let (package, features) = line.split_once('|').expect("as the format says");
        let name = package.split(' ').next().unwrap_or_default();
        // Where it was printed before, a mark follows.
        let features = features.split(' ').next().unwrap_or_default();
        let features = features.split(',').filter(|feature| !feature.is_empty());
        packages.entry(name.to_owned()).or_default().extend(features.map(str::to_owned));
    }
    packages
}
