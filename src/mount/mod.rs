//! Where streams meet HTTP. Each adapter is a page of code over `http`; `stream` is one's own stream,
//! which needs none of them. `watchdog` stands around the sockets.

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "http")]
pub(crate) mod http;
#[cfg(feature = "axum-serve")]
pub(crate) mod listener;
pub(crate) mod stream;
#[cfg(feature = "warp")]
pub(crate) mod warp;
#[cfg(feature = "watchdog")]
pub(crate) mod watchdog;
#[cfg(feature = "watchdog")]
pub(crate) mod watched;
