//! Shutting down: end a process without a lost event, and update instances one after the other.
//!
//! A graceful shutdown of a server waits for its open responses, and streams do not end by
//! themselves. So end the streams first: [`Hub::drain`](crate::Hub::drain) ends them over a period,
//! each with a reconnect delay of its own, and the clients return to another instance, or to the
//! next process, without a storm.
//!
#![cfg_attr(all(feature = "axum-serve", feature = "tokio"), doc = "```no_run")]
#![cfg_attr(not(all(feature = "axum-serve", feature = "tokio")), doc = "```ignore")]
//! use std::time::Duration;
//! use axum::Router;
//! use sse_hub::Hub;
//! use tokio::net::TcpListener;
//! use tokio::signal::unix::{SignalKind, signal};
//! use tokio::time::sleep;
//!
//! async fn serve(listener: TcpListener, app: Router, hub: Hub) -> std::io::Result<()> {
//!     // Registered before the first client comes. Containers and systemd send SIGTERM.
//!     let mut term = signal(SignalKind::terminate())?;
//!     let (begin_grace, grace_begins) = tokio::sync::oneshot::channel::<()>();
//!     let drained = async move {
//!         term.recv().await;
//!         hub.drain(Duration::from_secs(10)).await;
//!         hub.close();
//!         let _ = begin_grace.send(());
//!     };
//!     // A connection that never completes its request must not hold up the end.
//!     let overdue = async {
//!         let _ = grace_begins.await;
//!         sleep(Duration::from_secs(5)).await;
//!     };
//!     tokio::select! {
//!         served = axum::serve(listener, app).with_graceful_shutdown(drained) => served,
//!         () = overdue => Ok(()),
//!     }
//! }
//! ```
//!
//! [`serve`](mod@crate::serve#shutting-down) drains the hubs itself and needs only the signal. The
//! examples `axum`, `warp`, `actix` and `hyper_smol` all end in order.
//!
//! # Behind a load balancer
//!
//! 1. Fail the readiness check, and wait until the load balancer has noticed: longer than the
//!    period of its checks times the failures that it needs.
//! 2. [Drain](crate::Hub::drain) the hub. A client that still reaches this instance gets a
//!    [refusal](super::limits#refusals), which ends its HTTP/1.1 connection, so that the next
//!    request goes to another instance.
//! 3. [Close](crate::Hub::close) the hub, and let the server finish. Bound the time of this step.
//! 4. With a [backplane](super::instances), wait for its future: unsent events leave the process.
//!
//! | step | time |
//! |---|---|
//! | readiness | two or three periods of the check |
//! | drain | the clients, divided by the new streams for each second that the other instances bear |
//! | after the drain | five seconds |
//! | the whole | less than `terminationGracePeriodSeconds` of Kubernetes or `TimeoutStopSec` of systemd |
//!
//! # A rolling update
//!
//! Replace the instances one at a time: start the new, wait until it is ready, then stop the old
//! with SIGTERM. Over Redis the clients resume on any instance: nothing is lost, and nothing is
//! repeated. Old and new versions of this crate may run side by side.
//!
//! # A single process
//!
//! Without a backplane the log dies with the process. Clients return to the next process with ids
//! of the past, get `hub:gap`, and fetch the state again. A [snapshot](super::snapshots) in the
//! stream heals that gap without a request.
//!
//! # Limits
//!
//! - A client that does not read gets no goodbye: the drain forgets such clients at its end.
//! - A process that is killed (`SIGKILL`) sends nothing. Clients notice the closed connection, and
//!   return after their last `retry`: all within 0.75 to 1.25 of it.
//! - `drain` covers one instance. To end the streams of a user everywhere, use
//!   [`disconnect`](crate::Hub::disconnect).
