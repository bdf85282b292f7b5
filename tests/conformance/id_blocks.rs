//! Blocks that have an id and no event. By the standard, such a block sets the last event id, and
//! dispatches nothing. Some clients dispatch an event, so a hub sends no such block: a heartbeat with
//! a position is an event.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::chromium::{Browser, Shared};
use crate::clients::{Driver, Run};
use crate::in_process;
use crate::standard::Callback;

/// Two events, and a block with an id between them.
const STREAM: &str = "event: n\ndata: before\nid: 1-1\n\n\
                      id: 1-2\n\n\
                      event: n\ndata: after\nid: 1-3\n\n\
                      event: end\ndata: x\nid: 1-4\n\n";

/// The clients that dispatch an event for the block.
const DISPATCH: [&str; 3] = ["@microsoft/fetch-event-source", "httpx-sse", "sse-stream"];

/// Answers each request with the stream, and keeps the connection open.
async fn serve() -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = socket.read_u8().await else { break };
                head.push(byte);
            }
            let is_stream = head.starts_with(b"GET /events");
            let (kind, body) =
                if is_stream { ("text/event-stream", STREAM) } else { ("text/html", "<title>") };
            // Some clients wait for more bytes if the body has no chunks.
            let end = if is_stream { "" } else { "0\r\n\r\n" };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n\
                 {:x}\r\n{body}\r\n{end}",
                body.len(),
            );
            let _ = socket.write_all(answer.as_bytes()).await;
            if is_stream {
                open.push(socket);
            }
        }
    });
    (address, serving)
}

/// Returns how many events the client dispatches for the block.
async fn dispatched(name: &str, mut run: Run) -> usize {
    let callbacks = run.until("end").await.unwrap_or_else(|why| panic!("{name}: {why}"));
    let of_events = |callback: &&Callback| ["before", "after"].contains(&&*callback.data);
    assert_eq!(callbacks.iter().filter(of_events).count(), 2, "{callbacks:?}");
    callbacks.len() - 2
}

#[tokio::test]
async fn one_crate_dispatches_blocks_without_an_event() {
    let (address, serving) = serve().await;
    assert_eq!(dispatched("eventsource-stream", in_process::eventsource_stream(address)).await, 0);
    assert_eq!(dispatched("sse-stream", in_process::sse_stream(address)).await, 1);
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs node, python3 (tests/clients/install), chromium, chromedriver and curl"]
async fn some_clients_dispatch_blocks_without_an_event() {
    let (address, serving) = serve().await;
    let browser = Shared::new(Browser::start().await);
    let (node, python) = (Arc::new(Driver::node()), Arc::new(Driver::python()));
    let url = format!("http://{address}/events");
    let mut counts = BTreeMap::new();
    for name in ["eventsource", "eventsource-parser", "@microsoft/fetch-event-source", "undici"] {
        counts.insert(name, dispatched(name, node.run(name, &url)).await);
    }
    for name in ["httpx-sse", "sseclient-py", "requests-sse", "aiohttp-sse-client"] {
        counts.insert(name, dispatched(name, python.run(name, &url)).await);
    }
    counts.insert(
        "eventsource-stream",
        dispatched("eventsource-stream", in_process::eventsource_stream(address)).await,
    );
    counts.insert("sse-stream", dispatched("sse-stream", in_process::sse_stream(address)).await);
    counts.insert("curl", dispatched("curl", in_process::curl(address)).await);
    counts.insert("Chromium", dispatched("Chromium", browser.run(address).await).await);
    serving.abort();
    println!("events for a block with an id only: {counts:?}");
    let dispatch: Vec<_> =
        counts.iter().filter(|&(_, &count)| count > 0).map(|(&name, _)| name).collect();
    assert_eq!(dispatch, DISPATCH);
}
