//! The hub: takes the locks around [`core`](crate::core), and is the public face.

pub(crate) mod admission;
pub(crate) mod apply;
pub(crate) mod builder;
pub(crate) mod crowd;
pub(crate) mod disconnect;
pub(crate) mod drain;
pub(crate) mod feed;
pub(crate) mod follow;
#[expect(clippy::module_inception, reason = "the hub, in the layer that is named after it")]
pub(crate) mod hub;
pub(crate) mod incoming;
pub(crate) mod joining;
#[cfg(feature = "metrics")]
pub(crate) mod metrics;
pub(crate) mod opening;
pub(crate) mod page;
pub(crate) mod parts;
pub(crate) mod presence;
pub(crate) mod reading;
pub(crate) mod returning;
pub(crate) mod run;
pub(crate) mod shared;
pub(crate) mod subscriber;
pub(crate) mod subscription;
pub(crate) mod topics;
#[cfg(feature = "serve")]
pub(crate) mod waking;
