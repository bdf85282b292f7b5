//! Which parts of the backplane are in trouble, and telling the hub: when that changes, and again once it has lasted.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::backplane::Feed;

/// One of the two without which events are held up, each with a connection of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Reader,
    Outbox,
}

#[derive(Debug, Default)]
pub(crate) struct Troubles {
    known: Mutex<Known>,
    turned: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// Of each part, why it is in trouble, if it is.
    causes: [Option<Box<str>>; 2],
    said: Option<bool>,
}

impl Troubles {
    /// A part is in trouble, or no longer. Costs next to nothing while all is well.
    pub(crate) fn tell(&self, feed: &Feed, part: Part, trouble: Option<&str>) {
        let has_turned = {
            let mut known = self.known.lock();
            known.causes[part as usize] = trouble.map(Box::from);
            let is_troubled = known.causes.iter().any(Option::is_some);
            known.said.replace(is_troubled) != Some(is_troubled)
        };
        if has_turned {
            self.say(feed);
            self.turned.notify_one();
        }
    }

    /// Says again what was said, once it can have lasted: it is then that clients are told.
    pub(crate) async fn say_again(&self, feed: &Feed) {
        const LASTS: Duration = Duration::from_secs(1);
        loop {
            self.turned.notified().await;
            tokio::time::sleep(LASTS).await;
            self.say(feed);
        }
    }

    fn say(&self, feed: &Feed) {
        let cause = self.known.lock().causes.iter().flatten().next().cloned();
        feed.degraded(cause.as_deref());
    }
}
