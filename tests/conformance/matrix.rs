//! Every client against every adapter.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;

use crate::chromium::{Browser, Shared};
use crate::clients::{Driver, Run};
use crate::scenarios::Scenario;
use crate::servers::Adapter;
use crate::{faults, in_process};

#[derive(Clone)]
struct Client {
    name: &'static str,
    by: By,
}

#[derive(Clone)]
enum By {
    Itself(fn(SocketAddr) -> Run),
    Driver(Arc<Driver>),
    Browser(Shared),
}

impl Client {
    async fn connect(&self, address: SocketAddr) -> Run {
        match &self.by {
            By::Itself(run) => run(address),
            By::Driver(driver) => driver.run(self.name, &format!("http://{address}/events")),
            By::Browser(browser) => browser.run(address).await,
        }
    }
}

const CRATES: [Client; 2] = [
    Client { name: "eventsource-stream", by: By::Itself(in_process::eventsource_stream) },
    Client { name: "sse-stream", by: By::Itself(in_process::sse_stream) },
];

#[tokio::test]
async fn crates_get_all_events_from_every_adapter() {
    hold(CRATES.into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node, python3 (tests/clients/install), chromium, chromedriver and curl"]
async fn every_client_works_with_every_adapter() {
    let browser = Shared::new(Browser::start().await);
    let (node, python) = (Arc::new(Driver::node()), Arc::new(Driver::python()));
    let npm = ["eventsource", "eventsource-parser", "@microsoft/fetch-event-source", "undici"];
    let pypi = ["httpx-sse", "sseclient-py", "requests-sse", "aiohttp-sse-client"];

    let mut clients = vec![Client { name: "Chromium", by: By::Browser(browser) }];
    clients.extend(npm.map(|name| Client { name, by: By::Driver(Arc::clone(&node)) }));
    clients.extend(pypi.map(|name| Client { name, by: By::Driver(Arc::clone(&python)) }));
    clients.extend(CRATES);
    clients.push(Client { name: "curl", by: By::Itself(in_process::curl) });
    hold(clients).await;
}

/// Runs all scenarios for all clients, and prints a table of the results.
async fn hold(clients: Vec<Client>) {
    let runs = clients.iter().flat_map(|client| {
        Adapter::ALL.map(|adapter| {
            let client = client.clone();
            async move {
                let mut failures = Vec::new();
                for scenario in Scenario::ALL {
                    let client = client.clone();
                    let faults: Vec<_> = faults::of(client.name).collect();
                    // Each run is a separate task, so that a panic does not hide the other results.
                    let put_through = tokio::spawn(async move {
                        let connect = async |address| client.connect(address).await;
                        scenario.put_through(adapter, connect, &faults).await
                    });
                    let outcome = put_through.await.unwrap_or_else(|error| Err(error.to_string()));
                    failures.extend(outcome.err().map(|why| format!("{scenario:?}: {why}")));
                }
                failures
            }
        })
    });
    // A few at a time, so that they do not slow each other down.
    let outcomes: Vec<_> = stream::iter(runs).buffered(4).collect().await;

    let mut table = String::new();
    let mut failed = false;
    table.push_str(
        "all: gets the whole corpus, in whatever pieces; no heartbeat calls it back; after a cut at any byte it has all once\n\
         but: so, but for what is its own fault\n\n",
    );
    writeln!(table, "{:<32}{:<12}{:<12}{:<12}{:<12}", "", "axum", "warp", "hyper", "direct")
        .unwrap();
    for (client, outcomes) in clients.iter().zip(outcomes.chunks(Adapter::ALL.len())) {
        let listed = if faults::of(client.name).next().is_some() { "but" } else { "all" };
        write!(table, "{:<32}", client.name).unwrap();
        for failures in outcomes {
            write!(table, "{:<12}", if failures.is_empty() { listed } else { "FAILS" }).unwrap();
        }
        writeln!(table).unwrap();
        for (adapter, failures) in Adapter::ALL.iter().zip(outcomes) {
            for failure in failures {
                failed = true;
                writeln!(table, "    {adapter:?} {failure}").unwrap();
            }
        }
        for fault in faults::of(client.name) {
            writeln!(table, "    but {}", fault.cause).unwrap();
        }
    }
    // Written past the capture of the test's output, so that the table is visible on success too.
    std::io::stdout().write_all(format!("\n{table}\n").as_bytes()).unwrap();
    assert!(!failed, "clients failed, see the table above");
}
