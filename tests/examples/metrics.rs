//! The example that Prometheus observes: the dashboard and the alerts name exported metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

use crate::client::{Request, Response};
use crate::server::{DEADLINE, Server};

/// The values of each label, for each name of a sample.
type Samples = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// A metric in an expression, with the values that its matchers name.
#[derive(Debug, PartialEq, Eq)]
struct Selector {
    metric: String,
    values: Vec<(String, String)>,
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/metrics").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

fn scrape(server: &Server) -> String {
    let response = server.get("/metrics").send();
    assert_eq!(response.status, 200);
    response.text()
}

/// Parses the text form of a scrape.
fn samples(scrape: &str) -> Samples {
    let mut samples = Samples::new();
    for line in scrape.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, _value) = line.rsplit_once(' ').expect("a sample has a value");
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        let known = samples.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
            let (label, value) = label.split_once("=\"").expect("a label has a value");
            known.entry(label.into()).or_default().insert(value.trim_end_matches('"').into());
        }
    }
    samples
}

/// Returns the hub's metrics in an expression of PromQL, with their matchers. The values of `=~`
/// must be alternatives without other signs of a regular expression, or a variable of Grafana.
fn selectors(expression: &str) -> Vec<Selector> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let (mut found, mut rest) = (Vec::new(), expression);
    while let Some(start) = rest.find(|letter: char| is_word(letter) || letter == '"') {
        rest = &rest[start..];
        if let Some(text) = rest.strip_prefix('"') {
            rest = text.split_once('"').expect("a text ends").1;
            continue;
        }
        let (word, after) = rest.split_at(rest.find(|it| !is_word(it)).unwrap_or(rest.len()));
        rest = after;
        if !word.starts_with("sse_hub_") {
            continue;
        }
        let mut values = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            let (matchers, after) = inner.split_once('}').expect("the matchers end");
            rest = after;
            for matcher in matchers.split(',') {
                let (label, value) = matcher.split_once('=').expect("a matcher");
                let value = value.trim_start_matches('~').trim_matches('"');
                if !value.starts_with('$') {
                    values
                        .extend(value.split('|').map(|value| (label.trim().into(), value.into())));
                }
            }
        }
        found.push(Selector { metric: word.into(), values });
    }
    found
}

/// Returns title and expression of each query of the dashboard.
fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(move |it| (title.to_owned(), it["expr"].as_str().unwrap().to_owned()))
    });
    queries.collect()
}

fn yaml(name: &str) -> Yaml {
    YamlLoader::load_from_str(&read(name)).unwrap().remove(0)
}

/// Returns name and expression of each alert.
fn alerts() -> Vec<(String, String)> {
    let rules = yaml("alerts.yml");
    let groups = rules["groups"].as_vec().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_vec().unwrap());
    let text = |value: &Yaml| value.as_str().unwrap().to_owned();
    rules.map(|rule| (text(&rule["alert"]), text(&rule["expr"]))).collect()
}

/// Two programs: a hub without a backplane, under load, and a hub with a Redis out of reach, which
/// has the metrics of a backplane.
struct Servers {
    alone: Server,
    with_backplane: Server,
    streams: Vec<Response>,
}

impl Servers {
    fn start() -> Self {
        let alone = Server::start("metrics");
        let unreachable = [("REDIS_URL", "redis://127.0.0.1:9")];
        let with_backplane = Server::start_with("metrics", &unreachable);
        Self { alone, with_backplane, streams: Vec::new() }
    }

    /// Connects some clients, and publishes until each has read `events` events.
    fn load(&mut self, events: usize) {
        let connect = |_| self.alone.get("/events?topic=orders").send().opened().0;
        self.streams.extend((0..5).map(connect));
        let too_long = format!("/events?topic={}", "x".repeat(300));
        assert_eq!(self.alone.get(&too_long).send().status, 400);
        for _ in 0..events {
            assert_eq!(self.alone.post("/topics/orders").body("shipped").status, 204);
            for stream in &mut self.streams {
                assert_eq!(stream.frame().data, "shipped");
            }
        }
        self.streams.truncate(3);
    }

    fn samples(&self) -> Samples {
        let mut samples = samples(&scrape(&self.alone));
        for (name, labels) in self::samples(&scrape(&self.with_backplane)) {
            let known = samples.entry(name).or_default();
            for (label, values) in labels {
                known.entry(label).or_default().extend(values);
            }
        }
        samples
    }
}

#[test]
fn selectors_of_an_expression_are_found() {
    let expression = r#"sum by (job, sse) (rate(sse_hub_a_total{cause=~"x|y-z", job=~"$job"}[5m]))
        / on (le) sse_hub_b offset 5m > 0.5 and label_replace(up, "sse_hub_c", "sse_hub_d", "", "")"#;
    let value = |value: &str| ("cause".to_owned(), value.to_owned());
    let expected = [
        Selector { metric: "sse_hub_a_total".into(), values: vec![value("x"), value("y-z")] },
        Selector { metric: "sse_hub_b".into(), values: Vec::new() },
    ];
    assert_eq!(selectors(expression), expected);
}

/// A panel or an alert on a metric or a value that does not exist is silent for ever.
#[test]
fn dashboard_and_alerts_name_exported_metrics() {
    let mut servers = Servers::start();
    servers.load(20);
    let samples = servers.samples();
    let (panels, alerts) = (panels(), alerts());
    assert!(panels.len() > 15 && alerts.len() > 10, "{} {}", panels.len(), alerts.len());
    for (name, expression) in panels.iter().chain(&alerts) {
        let selectors = selectors(expression);
        assert!(!selectors.is_empty(), "{name} has no metric of a hub: {expression}");
        for Selector { metric, values } in selectors {
            let labels = samples.get(&metric).unwrap_or_else(|| panic!("{name}: no {metric}"));
            for (label, value) in values {
                let known = labels.get(&label).unwrap_or_else(|| panic!("{name}: no {label}"));
                assert!(known.contains(&value), "{name}: {label} is not {value}: {known:?}");
            }
        }
    }
    // All metrics are on the dashboard.
    let shown: BTreeSet<String> =
        panels.iter().flat_map(|(_, it)| selectors(it)).map(|it| it.metric).collect();
    let is_shown = |name: &String| {
        let family = name.trim_end_matches("_sum").trim_end_matches("_count");
        shown.contains(name) || shown.contains(&format!("{family}_bucket"))
    };
    let exported = samples.keys().filter(|name| name.starts_with("sse_hub_"));
    let missing: Vec<_> = exported.filter(|name| !is_shown(name)).collect();
    assert!(missing.is_empty(), "not on the dashboard: {missing:?}");
}

#[test]
fn scrape_counts_the_load() {
    let mut servers = Servers::start();
    servers.load(20);
    let scrape = scrape(&servers.alone);
    let value = |name: &str| {
        let line = scrape.lines().find(|line| line.starts_with(&format!("{name}{{")));
        let value = line.unwrap_or_else(|| panic!("no {name}: {scrape}")).rsplit(' ').next();
        value.unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(value("sse_hub_published_total"), 20.0);
    assert_eq!(value("sse_hub_delivered_total"), 100.0);
    assert_eq!(value("sse_hub_retained_events"), 20.0);
    assert!(value("sse_hub_delay_seconds_count") >= 5.0, "the first read of each stream");
    // The buckets are those of the hub: nothing is above the last.
    assert!(scrape.contains("sse_hub_delay_seconds_bucket{hub=\"example\",le=\"0.000256\"}"));
    assert!(scrape.contains("# HELP sse_hub_clients Streams open now"));
}

/// Runs promtool in the folder of the example.
fn promtool(arguments: &[&str]) {
    let Output { status, stdout, stderr } =
        Command::new("promtool").args(arguments).current_dir(file("")).output().unwrap();
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success(), "promtool {arguments:?}: {text}");
    println!("{text}");
}

#[test]
#[ignore = "needs promtool"]
fn rules_are_valid_and_fire() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
    // promtool does not say which alerts have no test.
    let tests = yaml("alerts_test.yml");
    let tests = tests["tests"].as_vec().unwrap().iter();
    let cases = tests.filter_map(|test| test["alert_rule_test"].as_vec()).flatten();
    let fired: BTreeSet<_> = cases.map(|case| case["alertname"].as_str().unwrap()).collect();
    let alerts = alerts();
    assert_eq!(fired, alerts.iter().map(|(name, _)| name.as_str()).collect());
}

/// A Prometheus that reads the example. Dropping the value kills the process.
struct Prometheus {
    process: Child,
    address: std::net::SocketAddr,
    _data: tempfile::TempDir,
}

impl Prometheus {
    fn start(targets: &[&Server]) -> Self {
        let data = tempfile::tempdir().unwrap();
        // The configuration of the example, with other targets and a shorter interval.
        let targets: Vec<_> = targets.iter().map(|server| server.address.to_string()).collect();
        let config = read("prometheus.yml")
            .replace("127.0.0.1:3009", &targets.join(","))
            .replace("interval: 5s", "interval: 1s")
            .replace("alerts.yml", file("alerts.yml").to_str().unwrap());
        let path = data.path().join("prometheus.yml");
        std::fs::write(&path, config).unwrap();
        // Prometheus does not say which port it took for port 0.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("data").display()))
            .arg(format!("--web.listen-address={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed");
        Self { process, address: port, _data: data }
    }

    /// Returns how many series the expression has now, or `None` if Prometheus does not answer yet.
    fn count(&self, expression: &str) -> Option<usize> {
        // The client panics if nobody listens.
        std::net::TcpStream::connect(self.address).ok()?;
        let query = expression.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let path = format!("/api/v1/query?query={query}");
        let response = Request::new(self.address, "GET", &path).send();
        if response.status == 503 {
            return None;
        }
        let answer = response.json();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        Some(answer["data"]["result"].as_array().unwrap().len())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Unlike the names alone, this finds a wrong function, label or unit.
#[test]
#[ignore = "needs prometheus"]
fn every_panel_has_data_under_load() {
    let mut servers = Servers::start();
    let prometheus = Prometheus::start(&[&servers.alone, &servers.with_backplane]);
    let mut empty: Vec<(String, String)> = panels();
    for (_, expression) in &mut empty {
        // As Grafana does.
        *expression = expression
            .replace("$__rate_interval", "10s")
            .replace("$job", ".*")
            .replace("$instance", ".*");
    }
    let deadline = Instant::now() + DEADLINE;
    while !empty.is_empty() {
        assert!(Instant::now() < deadline, "no data: {empty:#?}");
        servers.load(5);
        empty.retain(|(_, expression)| prometheus.count(expression).is_none_or(|count| count == 0));
    }
    // The alert of the unreachable backplane is pending, and fires after its minute.
    let pending = r#"ALERTS{alertname="SseHubDegraded"}"#;
    while prometheus.count(pending) != Some(1) {
        assert!(Instant::now() < deadline, "no alert");
        servers.load(1);
    }
}
