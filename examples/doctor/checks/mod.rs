//! The checks of the doctor: [`probe`] makes the requests and notes the facts, and [`judge`]
//! decides without a connection. [`advice`] has the words and the lines to change, and [`report`]
//! the layout.

pub(crate) mod advice;
pub(crate) mod connection;
pub(crate) mod judge;
pub(crate) mod probe;
pub(crate) mod report;
pub(crate) mod stream;
