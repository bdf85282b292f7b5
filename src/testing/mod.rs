//! A kit for tests of an application that uses a hub.
//!
//! | to test | use |
//! |---|---|
//! | the events of a stream or of a response | [`Reader`], [`Frame`] |
//! | a lost connection, a restart | [`Reader::cut`], [`Reader::reconnect`] |
//! | a client that does not read | a [`Reader`] that the test does not call |
//! | heartbeats, deadlines, grace periods | [`ManualTimer`](crate::ManualTimer) |
//! | several instances, and their faults | [`Instances`], [`Instance`] |
//!
//! The kit needs no runtime and no network. [`guide::testing`](crate::guide::testing) has a test
//! for each row. The kit panics if an expectation fails, as `assert!` does: the message has the
//! last frames of the stream.

mod frame;
mod instances;
mod order;
mod reader;

pub use frame::Frame;
pub use instances::{Instance, Instances, Older};
pub use reader::Reader;
