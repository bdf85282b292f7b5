//! Where streams meet HTTP. Each adapter is a page of code over `http`.

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "http")]
pub(crate) mod http;
