//! The example `doctor`: `judgement` without a connection, and `broken` against proxies.

mod broken;
#[path = "../../../examples/doctor/checks/mod.rs"]
mod checks;
mod judgement;
