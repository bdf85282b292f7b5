//! Commands to clients, presence and values on several instances, over engines that are lists.
#![cfg(not(sse_hub_loom))]

mod commands;
mod latest;
#[path = "../support/order.rs"]
mod order;
mod presence;
#[path = "../support/mod.rs"]
mod support;
