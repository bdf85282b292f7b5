//! What a hub has counted, into the `metrics` facade.

use std::iter;

use metrics::{Label, Unit, counter, gauge, histogram};
use metrics::{describe_counter, describe_gauge, describe_histogram};

use super::end::EndReason;
use super::hub::Hub;
use crate::error::RefusedCause;

/// # Metrics
impl Hub {
    /// Records what [`stats`](Self::stats) says into the recorder of the [`metrics`] crate. Feature `metrics`.
    ///
    /// To be called when metrics are collected: in the handler that a scraper asks, or every few seconds for an exporter
    /// that pushes.
    ///
    /// ```
    /// # fn render() -> String { String::new() }
    /// # let hub = sse_hub::Hub::builder(sse_hub::ManualTimer::new()).build().unwrap();
    /// // GET /metrics
    /// hub.record_metrics(&[]);
    /// let page = render(); // Of `metrics-exporter-prometheus`, for one.
    /// ```
    ///
    /// A hub does not record as it goes, and on purpose: a recorder is foreign code, which is not to run for each
    /// delivery and not near a lock, and what nobody scrapes costs nothing.
    ///
    /// `labels` are added to each, to tell several hubs of one program apart; always the same for one hub.
    ///
    /// | name | kind | labels | what |
    /// |---|---|---|---|
    /// | `sse_hub_clients` | gauge | | streams open now |
    /// | `sse_hub_retained_events` | gauge | | events retained |
    /// | `sse_hub_retained_bytes` | gauge | | what those count towards [`Retain::bytes`](crate::Retain::bytes) |
    /// | `sse_hub_published_total` | counter | | events published |
    /// | `sse_hub_delivered_total` | counter | | events read by streams, once for each stream |
    /// | `sse_hub_bytes_total` | counter | | bytes of those |
    /// | `sse_hub_lagged_total` | counter | | streams that fell behind their window |
    /// | `sse_hub_gaps_total` | counter | | gaps told to clients |
    /// | `sse_hub_degraded` | gauge | | with a backplane: 1 while it cannot be reached |
    /// | `sse_hub_resets_total` | counter | | with a backplane: histories that were lost |
    /// | `sse_hub_malformed_total` | counter | | with a backplane: entries that were no events |
    /// | `sse_hub_restored_total` | counter | | with a backplane: events brought back from before what was retained |
    /// | `sse_hub_refused_total` | counter | `cause` | clients refused, by [`RefusedCause::as_str`] |
    /// | `sse_hub_ended_total` | counter | `reason` | streams ended, by [`EndReason::as_str`] |
    /// | `sse_hub_delay_seconds` | histogram | | from being published to being read by a stream |
    ///
    /// Delays are rounded up to a power of two microseconds. They are a sample: one read in sixteen is measured, and of
    /// what was measured since the call before at most 4096 are recorded, in proportion, so that a late call is not a long
    /// one.
    pub fn record_metrics(&self, labels: &[(&'static str, &str)]) {
        describe();
        let stats = self.stats();
        let label = |&(name, value): &(&'static str, &str)| Label::new(name, value.to_owned());
        let labels: Vec<Label> = labels.iter().map(label).collect();
        let with = |name, value| {
            let one = iter::once(Label::from_static_parts(name, value));
            labels.iter().cloned().chain(one).collect::<Vec<_>>()
        };

        gauge!("sse_hub_clients", labels.clone()).set(stats.clients as f64);
        gauge!("sse_hub_retained_events", labels.clone()).set(stats.retained as f64);
        gauge!("sse_hub_retained_bytes", labels.clone()).set(stats.retained_bytes as f64);
        counter!("sse_hub_published_total", labels.clone()).absolute(stats.published);
        counter!("sse_hub_delivered_total", labels.clone()).absolute(stats.delivered);
        counter!("sse_hub_bytes_total", labels.clone()).absolute(stats.bytes);
        counter!("sse_hub_lagged_total", labels.clone()).absolute(stats.lagged);
        counter!("sse_hub_gaps_total", labels.clone()).absolute(stats.gaps);
        if self.shared().config.backplane.is_some() {
            gauge!("sse_hub_degraded", labels.clone()).set(f64::from(u8::from(stats.degraded)));
            counter!("sse_hub_resets_total", labels.clone()).absolute(stats.resets);
            counter!("sse_hub_malformed_total", labels.clone()).absolute(stats.malformed);
            counter!("sse_hub_restored_total", labels.clone()).absolute(stats.restored);
        }
        for cause in RefusedCause::EACH {
            let labels = with("cause", cause.as_str());
            counter!("sse_hub_refused_total", labels).absolute(stats.refused(cause));
        }
        for reason in EndReason::ALL {
            let labels = with("reason", reason.as_str());
            counter!("sse_hub_ended_total", labels).absolute(stats.ended(reason));
        }

        let delays = self.shared().recorded.lock().sample(stats.delays());
        let histogram = histogram!("sse_hub_delay_seconds", labels.clone());
        for (seconds, count) in delays {
            histogram.record_many(seconds, count);
        }
    }
}

/// Each time: a recorder may have been installed since the last.
fn describe() {
    let of = Unit::Count;
    describe_gauge!("sse_hub_clients", of, "Streams open now");
    describe_gauge!("sse_hub_retained_events", of, "Events retained");
    describe_gauge!("sse_hub_retained_bytes", Unit::Bytes, "Bytes retained");
    describe_counter!("sse_hub_published_total", of, "Events published");
    describe_counter!("sse_hub_delivered_total", of, "Events read by streams");
    describe_counter!("sse_hub_bytes_total", Unit::Bytes, "Bytes of events read by streams");
    describe_counter!("sse_hub_lagged_total", of, "Streams that fell behind their window");
    describe_counter!("sse_hub_gaps_total", of, "Gaps told to clients");
    describe_gauge!("sse_hub_degraded", of, "Whether the backplane cannot be reached");
    describe_counter!("sse_hub_resets_total", of, "Histories that were lost");
    describe_counter!("sse_hub_malformed_total", of, "Entries that were no events");
    describe_counter!("sse_hub_restored_total", of, "Events from before what was retained");
    describe_counter!("sse_hub_refused_total", of, "Clients refused");
    describe_counter!("sse_hub_ended_total", of, "Streams ended");
    let delay = "Time from being published to being read by a stream, sampled";
    describe_histogram!("sse_hub_delay_seconds", Unit::Seconds, delay);
}
