//! The data that the hub's locks guard: plain types with `&mut self` methods, apart from the code
//! that takes the locks.

pub(crate) mod ahead;
pub(crate) mod attendance;
pub(crate) mod backplane;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod deferred;
pub(crate) mod due;
pub(crate) mod encoder;
pub(crate) mod end;
pub(crate) mod extras;
pub(crate) mod health;
pub(crate) mod held;
pub(crate) mod inbox;
pub(crate) mod pacing;
pub(crate) mod receipt;
pub(crate) mod remote;
pub(crate) mod roster;
pub(crate) mod run;
pub(crate) mod seats;
pub(crate) mod settings;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod telemetry;
