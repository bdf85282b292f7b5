//! The locked shell around the log: hubs and subscriptions.

pub(crate) mod admission;
pub(crate) mod backplane;
pub(crate) mod catch_up;
pub(crate) mod commands;
pub(crate) mod config;
pub(crate) mod degraded;
pub(crate) mod drain;
pub(crate) mod elsewhere;
pub(crate) mod end;
pub(crate) mod ending;
pub(crate) mod exchange;
pub(crate) mod feed;
pub(crate) mod history;
#[expect(clippy::module_inception, reason = "it is the hub, on the floor named for it")]
pub(crate) mod hub;
pub(crate) mod later;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod look_back;
pub(crate) mod members;
#[cfg(feature = "metrics")]
pub(crate) mod metrics;
pub(crate) mod outage;
pub(crate) mod places;
pub(crate) mod presence;
pub(crate) mod receipt;
#[cfg(feature = "metrics")]
pub(crate) mod recorded;
pub(crate) mod shared;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod subscriber;
pub(crate) mod subscription;
pub(crate) mod telemetry;
pub(crate) mod watch;
