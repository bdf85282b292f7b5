//! The hub's counters, in the `metrics` facade.

use std::iter;

use metrics::{Label, Unit, counter, gauge, histogram};
use metrics::{describe_counter, describe_gauge, describe_histogram};

use super::shared::Shared;
use crate::core::end::EndReason;
use crate::error::RefusedCause;
use crate::log::runs::RunState;
use crate::sync;

/// Records the counters. The recorder is foreign code: no lock may be held.
pub(super) fn record(shared: &Shared, labels: &[(&'static str, &str)]) {
    sync::assert_unlocked();
    describe();
    let stats = shared.stats();
    let label = |&(name, value): &(&'static str, &str)| Label::new(name, value.to_owned());
    let labels: Vec<Label> = labels.iter().map(label).collect();
    let with = |name, value| {
        let one = iter::once(Label::from_static_parts(name, value));
        labels.iter().cloned().chain(one).collect::<Vec<_>>()
    };

    gauge!("sse_hub_clients", labels.clone()).set(stats.clients as f64);
    gauge!("sse_hub_retained_events", labels.clone()).set(stats.retained as f64);
    gauge!("sse_hub_retained_bytes", labels.clone()).set(stats.retained_bytes as f64);
    gauge!("sse_hub_runs", labels.clone()).set(stats.runs as f64);
    gauge!("sse_hub_run_bytes", labels.clone()).set(stats.run_bytes as f64);
    counter!("sse_hub_published_total", labels.clone()).absolute(stats.published);
    counter!("sse_hub_delivered_total", labels.clone()).absolute(stats.delivered);
    counter!("sse_hub_bytes_total", labels.clone()).absolute(stats.delivered_bytes);
    counter!("sse_hub_lagged_total", labels.clone()).absolute(stats.lagged);
    counter!("sse_hub_gaps_total", labels.clone()).absolute(stats.gaps);
    if shared.config.backplane.is_some() {
        gauge!("sse_hub_degraded", labels.clone()).set(f64::from(u8::from(stats.degraded)));
        counter!("sse_hub_resets_total", labels.clone()).absolute(stats.resets);
        counter!("sse_hub_malformed_total", labels.clone()).absolute(stats.malformed);
        counter!("sse_hub_restored_total", labels.clone()).absolute(stats.restored);
    }
    for cause in RefusedCause::EACH {
        let labels = with("cause", cause.as_str());
        counter!("sse_hub_refused_total", labels).absolute(stats.refused(cause));
    }
    for &reason in EndReason::ALL {
        let labels = with("reason", reason.as_str());
        counter!("sse_hub_ended_total", labels).absolute(stats.ended(reason));
    }
    for &state in RunState::ALL.iter().filter(|&&state| state != RunState::Open) {
        let labels = with("state", state.as_str());
        counter!("sse_hub_ended_runs_total", labels).absolute(stats.ended_runs(state));
    }

    let delays = shared.recorded.lock().sample(stats.delays());
    let histogram = histogram!("sse_hub_delay_seconds", labels.clone());
    for (seconds, count) in delays {
        histogram.record_many(seconds, count);
    }
}

/// Describes the metrics in each call: a recorder may have been installed since the last.
fn describe() {
    let of = Unit::Count;
    describe_gauge!("sse_hub_clients", of, "Streams open now");
    describe_gauge!("sse_hub_retained_events", of, "Events retained");
    describe_gauge!("sse_hub_retained_bytes", Unit::Bytes, "Bytes retained");
    describe_gauge!("sse_hub_runs", of, "Runs open now");
    describe_gauge!("sse_hub_run_bytes", Unit::Bytes, "Bytes of the events of runs");
    describe_counter!("sse_hub_published_total", of, "Events published");
    describe_counter!("sse_hub_delivered_total", of, "Events delivered");
    describe_counter!("sse_hub_bytes_total", Unit::Bytes, "Bytes of delivered events");
    describe_counter!("sse_hub_lagged_total", of, "Streams that fell behind their window");
    describe_counter!("sse_hub_gaps_total", of, "Gaps reported to clients");
    describe_gauge!("sse_hub_degraded", of, "Whether the backplane cannot be reached");
    describe_counter!("sse_hub_resets_total", of, "Orders that were replaced");
    describe_counter!("sse_hub_malformed_total", of, "Malformed entries");
    describe_counter!("sse_hub_restored_total", of, "Older events read back");
    describe_counter!("sse_hub_refused_total", of, "Clients refused");
    describe_counter!("sse_hub_ended_total", of, "Streams ended");
    describe_counter!("sse_hub_ended_runs_total", of, "Runs ended");
    let delay = "Time from publish to read, sampled";
    describe_histogram!("sse_hub_delay_seconds", Unit::Seconds, delay);
}
