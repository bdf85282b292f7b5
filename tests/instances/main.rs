//! Commands to clients, presence, values and runs on several instances, over engines that are lists.
#![cfg(not(sse_hub_loom))]

mod commands;
mod latest;
#[path = "../support/order.rs"]
mod order;
mod presence;
mod returning;
mod run_model;
mod runs;
#[path = "../support/mod.rs"]
mod support;
