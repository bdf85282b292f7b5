//! Commands to clients and presence on several instances, over engines that are lists.
#![cfg(not(sse_hub_loom))]

mod commands;
mod presence;
mod returning;
#[path = "../support/mod.rs"]
mod support;
