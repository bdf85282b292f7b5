//! A guide for builders and operators: a page for each task.
//!
//! Each page begins with the result for you, then says how, then the limits. All Rust snippets are
//! compiled, and the configurations of proxies are tested. The types have the details of each setting.
//!
//! | to | read |
//! |---|---|
//! | see a hub at work, in terminals | [`first_hour`] |
//! | open streams in your server | [`mounting`] |
//! | reach a tab, a user, a session, a topic, or a combination | [`targeting`] |
//! | send JSON that the page knows the type of | [`typed_events`] |
//! | lose nothing across reconnects, and notice losses | [`resuming`] |
//! | send the state, and then its changes | [`snapshots`] |
//! | let pages join and leave topics | [`rooms`] |
//! | send an answer or a job that outlives the request | [`runs`] |
//! | know the cost of a client that does not read | [`slow_clients`] |
//! | bound clients and memory | [`limits`] |
//! | know the owner of a stream, also for pages of other origins | [`authentication`] |
//! | stand behind nginx, Caddy, HAProxy or Apache | [`proxies`] |
//! | end a process, and update several | [`shutdown`] |
//! | run several instances, and know the ceiling | [`instances`] |
//! | receive events in a page | [`browser`] |
//! | observe a service, and be called before its users complain | [`production`] |
//! | test your own code | [`testing`] |
//! | know the numbers that ids reveal | [`ids`] |
//! | replace axum's `Sse`, a broadcast of your own, or Mercure | [`migrating`] |
//! | find the cause of a symptom | [`troubleshooting`] |
//! | see whole features | [`cookbook`] |
//!
//! [`design`](crate::design) says how the crate is built, and why.
// Without some features, links to their items have no target.
#![cfg_attr(
    not(all(
        feature = "metrics",
        feature = "redis",
        feature = "serve",
        feature = "testing",
        feature = "warp"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

pub mod authentication;
pub mod browser;
pub mod cookbook;
pub mod first_hour;
pub mod ids;
pub mod instances;
pub mod limits;
pub mod migrating;
pub mod mounting;
pub mod production;
pub mod proxies;
pub mod resuming;
pub mod rooms;
pub mod runs;
pub mod shutdown;
pub mod slow_clients;
pub mod snapshots;
pub mod targeting;
pub mod testing;
pub mod troubleshooting;
pub mod typed_events;
