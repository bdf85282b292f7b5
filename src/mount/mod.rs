//! Where streams meet HTTP. Each adapter is a page of code over `http`. `event_stream` is a stream
//! without a hub, and needs none of them.

#[cfg(feature = "axum")]
mod axum;
pub(crate) mod event_stream;
#[cfg(feature = "http")]
pub(crate) mod http;
#[cfg(feature = "http")]
pub(crate) mod topics;
#[cfg(feature = "warp")]
pub(crate) mod warp;
