//! Events for clients that come back, and the number of reads that Redis served for them.

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

/// Returns how often ranges of the stream were read, plus a constant.
///
/// Reads are scripts, as is each batch that is published. So between two calls events must be
/// published one by one, and nothing else must run scripts.
pub(crate) fn reads(server: &Server) -> i64 {
    let stats: String = server.run("INFO commandstats");
    let line = "cmdstat_evalsha:calls=";
    let calls = stats.lines().find_map(|stat| stat.strip_prefix(line)?.split(',').next());
    let scripts: i64 = calls.map_or(0, |calls| calls.parse().unwrap());
    scripts - server.run::<i64>("XLEN {sse-hub}:events")
}
