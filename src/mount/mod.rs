//! Where streams meet HTTP. Each adapter is a page of code over `http`; `stream` is one's own stream,
//! which needs none of them.

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "http")]
pub(crate) mod http;
pub(crate) mod stream;
#[cfg(feature = "warp")]
pub(crate) mod warp;
