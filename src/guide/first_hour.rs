//! A first hour: five things to try in terminals, each with its commands.
//!
//! After this page you have seen an event on two tabs, a resume, several instances, the loss of
//! an instance, and an orderly end. You need Rust and `curl`; from the second part on, `redis-server`, and
//! this repository. Each part was walked through as it stands. Stop the servers of a part before
//! the next, because some listen on the same port.
//!
//! # A notification to one user, in two tabs
//!
//! `cargo new shop`, copy the `[dependencies]` and the program of the README into it, and run:
//!
//! ```text
//! cargo run &
//! curl --no-buffer http://127.0.0.1:3000/events          # A tab of user 42, in a terminal,
//! curl --no-buffer http://127.0.0.1:3000/events          # and another, in a second terminal.
//! curl --request POST http://127.0.0.1:3000/greet        # In a third.
//! ```
//!
//! Both tabs show `event: greeting`, with the same id.
//!
//! # Resume after a restart of the server
//!
//! The events must outlive the process, so Redis keeps them:
//!
//! ```text
//! redis-server --save "" &
//! cargo run --example cluster --features axum-serve,redis,tokio -- --port 3001
//! ```
//!
//! In a second terminal, read, and stop with ctrl-c. Note the last `id:`.
//!
//! ```text
//! curl --no-buffer http://127.0.0.1:3001/events
//! curl --data one http://127.0.0.1:3001/
//! ```
//!
//! Stop the server with ctrl-c, start the server again, and continue from the noted id:
//!
//! ```text
//! curl --data two http://127.0.0.1:3001/
//! curl --no-buffer --header "last-event-id: ID" http://127.0.0.1:3001/events
//! ```
//!
//! `hub:open` says `"resumed":true`, and `one` and `two` follow. A browser sends the header itself.
//!
//! # Two instances, and one is killed
//!
//! ```text
//! cargo run --example cluster --features axum-serve,redis,tokio -- --port 3001 & first=$!
//! cargo run --example cluster --features axum-serve,redis,tokio -- --port 3002 & second=$!
//! curl --no-buffer http://127.0.0.1:3001/events &
//! curl --data three http://127.0.0.1:3002/               # Arrives from the other instance.
//! kill -KILL $first                                      # The stream breaks off.
//! curl --data four http://127.0.0.1:3002/
//! curl --no-buffer --header "last-event-id: ID" http://127.0.0.1:3002/events
//! ```
//!
//! With the id of `three`, the stream continues on the other instance with `four`.
//!
//! # A rolling restart
//!
//! ```text
//! curl --no-buffer http://127.0.0.1:3002/events &
//! kill -TERM $second
//! ```
//!
//! The stream ends with `hub:end`, the reason `drained` and a `retry`, and the process exits in
//! order within about two seconds. Behind a load balancer, a browser now returns to another
//! instance: see [`shutdown`](super::shutdown).
//!
//! # Everything in a browser
//!
//! ```text
//! cargo run --example demo --features json,serve
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
