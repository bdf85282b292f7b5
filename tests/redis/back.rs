//! Events to come back to, and what Redis was asked for them.

use sse_hub::{Audience, Event, EventId, HubBuilder};
use tokio::time::timeout;

use crate::load::Instance;
use crate::server::{DEADLINE, Server};

/// Publishes events `1`, `2`... and returns their ids.
pub(crate) async fn publish(instance: &Instance, events: usize, topics: usize) -> Vec<EventId> {
    let mut waiting = Vec::new();
    let mut ids = Vec::new();
    for number in 1..=events {
        let audience = match topics {
            0 => Audience::all(),
            topics => Audience::topic((number % topics).to_string()),
        };
        let event = Event::new("n").data(number.to_string());
        waiting.push(instance.hub.publish_confirmed(audience, event).unwrap());
        if waiting.len() == 1_000 || number == events {
            for confirmation in waiting.drain(..) {
                ids.push(timeout(DEADLINE, confirmation).await.expect("in time").unwrap());
            }
        }
    }
    ids
}

pub(crate) async fn ready(url: &str, set: impl FnOnce(HubBuilder) -> HubBuilder) -> Instance {
    let instance = Instance::with(url, |redis| redis, set);
    timeout(DEADLINE, instance.backplane.ready()).await.expect("Redis answers");
    instance
}

/// How often ranges of the stream were read.
pub(crate) fn reads(server: &Server) -> u64 {
    calls(server, "xrevrange") + calls(server, "xrange")
}

fn calls(server: &Server, command: &str) -> u64 {
    let stats: String = server.run("INFO commandstats");
    let line = format!("cmdstat_{command}:calls=");
    let calls = stats.lines().find_map(|stat| stat.strip_prefix(&line)?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}
