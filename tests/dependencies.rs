//! The dependencies of each feature. A library without a runtime must not depend on a runtime.
//!
//! Runs `cargo tree`, which reads the lock file and does not lock the build directory, so the test
//! can run during a build. The result holds for the current platform.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Command;

/// Dependencies of every user of the crate.
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

/// Crates of servers and runtimes. The application must choose these, not a library.
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
fn each_feature_adds_only_its_dependencies() {
    let features: [(&str, &[&str]); 14] = [
        ("default", &["serde", "serde_json"]),
        ("json", &["serde", "serde_json"]),
        ("tokio", &["tokio"]),
        ("hyper", &["hyper"]),
        ("http", &["http", "http-body"]),
        ("axum", &["axum-core", "http", "http-body"]),
        ("warp", &["http", "http-body", "warp"]),
        ("watchdog", &["socket2", "tokio"]),
        ("axum-serve", &["axum", "axum-core", "http", "http-body", "socket2", "tokio"]),
        (
            "serve",
            &[
                "axum",
                "axum-core",
                "http",
                "http-body",
                "hyper",
                "hyper-util",
                "socket2",
                "tokio",
                "tower-service",
            ],
        ),
        ("metrics", &["metrics"]),
        ("redis", &["redis", "tokio"]),
        ("redis-tls", &["redis", "rustls", "tokio"]),
        ("testing", &[]),
    ];
    for (feature, adds) in features {
        let expected: BTreeSet<_> = ALWAYS.iter().chain(adds).copied().map(str::to_owned).collect();
        assert_eq!(direct(feature), expected, "with {feature}");
    }
}

#[test]
fn only_tokio_and_warp_features_bring_a_runtime() {
    // Prove that the search finds a runtime.
    assert!(tree("tokio").contains_key("tokio"));

    let tree = tree("json,http,metrics");
    assert!(tree.contains_key("http-body"), "{tree:?}");
    assert_eq!(servers_in(&tree), [""; 0]);
}

#[test]
fn adapter_does_not_bring_the_server() {
    let axum = tree("axum");
    assert!(axum.contains_key("axum-core"), "{axum:?}");
    assert_eq!(servers_in(&axum), [""; 0]);

    // The adapter uses tokio's I/O traits and opens no connection.
    let watchdog = tree("watchdog");
    assert_eq!(servers_in(&watchdog), ["tokio"]);
    assert!(!watchdog["tokio"].contains("net"), "{watchdog:?}");

    // The timer of hyper is a trait. hyper itself uses a channel of tokio, and no runtime.
    let hyper = tree("hyper");
    assert_eq!(servers_in(&hyper), ["hyper", "tokio"]);
    for feature in ["client", "http1", "http2", "server"] {
        assert!(!hyper["hyper"].contains(feature), "{feature} of {hyper:?}");
    }
    assert!(!hyper["tokio"].contains("rt"), "{hyper:?}");

    // warp's public API contains tokio types, but the application decides whether warp serves.
    let warp = tree("warp");
    assert!(warp.contains_key("warp"), "{warp:?}");
    assert_eq!(servers_in(&warp), ["tokio"]);
    let tokio = &warp["tokio"];
    for feature in ["net", "rt", "rt-multi-thread"] {
        assert!(!tokio.contains(feature), "{feature} of {tokio:?}");
    }
}

#[test]
fn tls_needs_only_a_c_compiler() {
    assert!(!tree("redis").contains_key("rustls"));
    let tree = tree("redis-tls");
    assert!(tree.contains_key("ring"), "{tree:?}");
    // These crates need cmake or a system library.
    for other in ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl-sys"] {
        assert!(!tree.contains_key(other), "{other}");
    }
}

#[test]
fn tokio_timer_needs_only_tokio_time() {
    let tokio = &tree("tokio")["tokio"];
    assert_eq!(tokio, &["rt", "time"].map(str::to_owned).into());
}

fn servers_in(tree: &Packages) -> Vec<&str> {
    SERVERS.into_iter().filter(|&name| tree.contains_key(name)).collect()
}

/// Package names with their enabled features.
type Packages = BTreeMap<String, BTreeSet<String>>;

/// Returns all packages that the crate depends on with these features.
fn tree(features: &str) -> Packages {
    cargo_tree(features, &[])
}

/// Returns the direct dependencies.
fn direct(features: &str) -> BTreeSet<String> {
    let mut packages = cargo_tree(features, &["--depth", "1"]);
    packages.remove(env!("CARGO_PKG_NAME")).expect("the crate itself must be the root");
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
        .expect("cargo must be runnable, as cargo runs this test");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {errors}");
    let mut packages = Packages::new();
    for line in str::from_utf8(&output.stdout).unwrap().lines() {
        let (package, features) =
            line.split_once('|').expect("cargo tree must follow the given format");
        let name = package.split(' ').next().unwrap_or_default();
        // A mark follows a package that was printed before.
        let features = features.split(' ').next().unwrap_or_default();
        let features = features.split(',').filter(|feature| !feature.is_empty());
        packages.entry(name.to_owned()).or_default().extend(features.map(str::to_owned));
    }
    packages
}
