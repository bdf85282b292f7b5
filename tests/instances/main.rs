//! What is done to clients wherever they are, and who is online anywhere, over engines that are lists.
#![cfg(not(sse_hub_loom))]

mod commands;
mod presence;
#[path = "../support/mod.rs"]
mod support;
