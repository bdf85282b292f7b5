//! What a task that shares something with other instances does after each attempt.

use redis::{RedisError, RedisResult};

use crate::redis::connect::back_off::BackOff;
use crate::redis::connect::link::{Failure, Link};
use crate::redis::health::{News, Outage};

/// The health of a task that shares something with other instances. Events are not held up by a
/// failure, so the hub is not degraded: the log has a warning, at most once a minute.
#[derive(Debug)]
pub(crate) struct SyncHealth {
    outage: Outage,
    back_off: BackOff,
    of: &'static str,
}

impl SyncHealth {
    pub(crate) fn new(of: &'static str) -> Self {
        Self { outage: Outage::default(), back_off: BackOff::default(), of }
    }

    /// Returns the result of an attempt over this link. After a failure, returns `None` when the
    /// task must try again: at once if only the connection was lost; otherwise the failure is
    /// reported, and this function waits.
    pub(crate) async fn settle<T>(
        &mut self,
        link: &mut Link,
        attempt: RedisResult<T>,
    ) -> Option<T> {
        match attempt {
            Ok(result) => {
                self.report(None);
                self.back_off.reset();
                Some(result)
            }
            Err(error) => {
                if link.failed(&error) == Failure::Report {
                    self.report(Some(&error));
                    self.back_off.wait().await;
                }
                None
            }
        }
    }

    fn report(&mut self, trouble: Option<&RedisError>) {
        let of = self.of;
        match (self.outage.report(trouble.is_some()), trouble) {
            (Some(News::Begins), Some(cause)) => {
                tracing::warn!(target: "sse_hub", %cause, "{of} sync failed");
            }
            (Some(News::Ends), _) => {
                tracing::info!(target: "sse_hub", "{of} sync resumed");
            }
            _ => {}
        }
    }
}
