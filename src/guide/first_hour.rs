//! A first hour: six things to see in a terminal, each with its commands.
//!
//! | part | you see |
//! |---|---|
//! | [1](#1-a-notification-to-one-user-in-two-tabs) | an event on both tabs of a user |
//! | [2](#2-resume-after-a-restart-of-the-server) | a client that continues after a restart, without loss or repeats |
//! | [3](#3-two-instances-and-one-is-killed) | two instances as one hub, and a client that moves to the other |
//! | [4](#4-a-rolling-restart) | an orderly end at SIGTERM, and the next instance |
//! | [5](#5-an-answer-that-survives-a-reload) | an answer, read again from its beginning while it is written |
//! | [6](#6-the-dashboard) | all of this as metrics, in Prometheus |
//!
//! You need a clone of this repository, Rust, `bash` and `curl`, from the second part on
//! `redis-server`, and at the end `prometheus` (Debian: `apt-get install redis-server prometheus`).
//! Begin in the folder of the clone, and build everything once, which takes some minutes:
//!
//! ```sh
//! cargo build --all-features --examples
//! ```
//!
//! All commands work in one terminal. A line with `&` leaves a program in the background, and its
//! output appears between your commands. Type a block line by line, and wait after each server for
//! `listening on`. Parts 2, 3 and 4 belong together. If a port is in use, choose another in all
//! lines.
//!
//! # 1. A notification to one user, in two tabs
//!
//! Create a package beside the clone. The last command depends on the clone itself, so that the part
//! works with unreleased versions, too. If your clone is not in the folder `sse-hub`, change that
//! path:
//!
//! ```text
//! cargo new ../shop && cd ../shop
//! cargo add axum tokio --features tokio/macros,tokio/rt-multi-thread
//! cargo add sse-hub --path ../sse-hub --features axum-serve,tokio
//! ```
//!
//! Copy the program of the README into `src/main.rs`. Then start the program, open two tabs of user
//! 42, and send to the user:
//!
//! ```text
//! cargo run &
//! curl -sN 127.0.0.1:3000/events &
//! curl -sN 127.0.0.1:3000/events &
//! curl -s --request POST 127.0.0.1:3000/greet
//! ```
//!
//! Both tabs print `event: greeting`, with the same id. `kill $(jobs -p)` ends the programs, and
//! `cd -` returns to the clone.
//!
//! # 2. Resume after a restart of the server
//!
//! The events must outlive the process, so Redis keeps them. Start a Redis and a server, and
//! listen:
//!
//! ```sh
//! redis-server --port 6379 --save "" --loglevel warning &
//! cargo run --all-features --example cluster -- --port 3001 & first=$!
//! curl -sN 127.0.0.1:3001/events &
//! ```
//!
//! Publish. The server answers with the id of the event, and the stream shows the same id. A
//! browser remembers the id of the last event itself; here, the shell does:
//!
//! ```sh
//! id=$(curl -s --data one 127.0.0.1:3001)
//! ```
//!
//! End the server, start the server again, publish while the client is away, and return:
//!
//! ```sh
//! kill -TERM $first; wait $first
//! cargo run --all-features --example cluster -- --port 3001 & first=$!
//! curl -s --data two 127.0.0.1:3001
//! curl -sN --header "last-event-id: $id" 127.0.0.1:3001/events &
//! ```
//!
//! `hub:open` says `"resumed":true`, and `two` follows. `one` is not repeated.
//!
//! # 3. Two instances, and one is killed
//!
//! Start a second instance. An event that is posted there reaches the client of the first:
//!
//! ```sh
//! cargo run --all-features --example cluster -- --port 3002 & second=$!
//! id=$(curl -s --data three 127.0.0.1:3002)
//! ```
//!
//! Kill the first, which breaks off its streams. Publish, and let the client return to the second:
//!
//! ```sh
//! kill -KILL $first
//! curl -s --data four 127.0.0.1:3002
//! curl -sN --header "last-event-id: $id" 127.0.0.1:3002/events &
//! ```
//!
//! The stream continues on the second instance with `four`.
//!
//! # 4. A rolling restart
//!
//! First start the new instance, then end the old with SIGTERM:
//!
//! ```sh
//! cargo run --all-features --example cluster -- --port 3001 & first=$!
//! id=$(curl -s --data five 127.0.0.1:3002)
//! kill -TERM $second; wait $second
//! curl -s --data six 127.0.0.1:3001
//! curl -sN --header "last-event-id: $id" 127.0.0.1:3001/events &
//! ```
//!
//! The stream of the old instance shows `five`, and ends with `hub:end`, the reason `drained` and a
//! `retry`, the delay after which this client must return. The process exits within about two
//! seconds. On the new instance, the client continues with `six`. Behind a load balancer, a browser
//! does this without code: see [`shutdown`](super::shutdown). End the part:
//!
//! ```sh
//! kill $(jobs -p); wait
//! ```
//!
//! # 5. An answer that survives a reload
//!
//! Ask, read the answer for a second, as a page that is then reloaded, and read again:
//!
//! ```sh
//! cargo run --all-features --example answer -- --port 3006 & server=$!
//! name=$(curl -s --request POST "127.0.0.1:3006/ask?question=How+are+you")
//! curl -sN --max-time 1 127.0.0.1:3006/answers/$name
//! curl -sN 127.0.0.1:3006/answers/$name
//! ```
//!
//! The first stream breaks off in the middle of the answer. The second has the whole answer, from
//! the beginning to `hub:end`, although the request that asked is over. In a browser: open
//! `http://127.0.0.1:3006`, ask, and reload while the text grows. Then end the server:
//!
//! ```sh
//! kill $server; wait $server
//! ```
//!
//! # 6. The dashboard
//!
//! Start a server with metrics, a Prometheus that reads them every five seconds, two clients, and a
//! minute of load:
//!
//! ```sh
//! cargo run --all-features --example metrics -- --port 3009 &
//! prometheus --config.file=examples/metrics/prometheus.yml --storage.tsdb.path=$(mktemp -d) --web.listen-address=127.0.0.1:9090 --log.level=warn &
//! curl -sN '127.0.0.1:3009/events?topic=orders' > /dev/null &
//! curl -sN '127.0.0.1:3009/events?topic=orders' > /dev/null &
//! for n in $(seq 300); do curl -s --data shipped 127.0.0.1:3009/topics/orders; sleep 0.2; done &
//! ```
//!
//! Open `http://127.0.0.1:9090/alerts` for the alerts, and for the clients and their deliveries
//!
//! ```text
//! http://127.0.0.1:9090/graph?g0.expr=sse_hub_clients&g0.tab=0&g0.range_input=5m&g1.expr=rate(sse_hub_delivered_total[30s])&g1.tab=0&g1.range_input=5m
//! ```
//!
//! End a client (`kill %3`), and the line of the clients falls. In Grafana, import
//! `examples/metrics/dashboard.json`, with this Prometheus as the data source.
//! [`production`](super::production) explains each metric. End the part:
//!
//! ```sh
//! kill $(jobs -p); wait
//! ```
//!
//! # Everything in a browser
//!
//! ```text
//! cargo run --all-features --example demo
//! ```
//!
//! Open the printed address in two tabs. The page publishes to a tab, a user, a session or all,
//! misses events on purpose, stalls, floods and drains the hub, and shows the state of the client.
//!
//! # From here
//!
//! 1. [Mount](super::mounting) the hub in your server, and [authenticate](super::authentication)
//!    its clients.
//! 2. Choose [audiences](super::targeting) and [types](super::typed_events).
//! 3. Handle `hub:gap` in the [page](super::browser), with a [snapshot](super::snapshots) if the
//!    page shows state.
//! 4. Put the service behind a [proxy](super::proxies), and go through the
//!    [list](super::production) for the first day.
