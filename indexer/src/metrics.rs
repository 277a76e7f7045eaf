//! Prometheus text format 0.0.4, written from what the service knows anyway.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::api::{Api, Readiness};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident = $metric:literal;)*) => {
        /// Counters of this process since it started.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[doc = $doc])* pub $name: AtomicU64,)* }

        impl Counters {
            fn render(&self, out: &mut String) {
                $(metric(out, $metric, "counter", concat!($($doc),*).trim(), self.$name.load(Relaxed));)*
            }
        }
    };
}

counters! {
    /// Blocks applied to the mirror.
    blocks_applied = "cohort_indexer_blocks_applied_total";
    /// Events applied to the mirror.
    events_applied = "cohort_indexer_events_applied_total";
    /// Reorganisations that took blocks back.
    rewinds = "cohort_indexer_rewinds_total";
    /// Attempts to follow that failed.
    failures = "cohort_indexer_follow_failures_total";
    /// JSON-RPC calls that failed.
    rpc_failures = "cohort_indexer_rpc_failures_total";
    /// Blocks whose logs bloom promised logs that a range did not have, read again by hash.
    blocks_reread = "cohort_indexer_blocks_reread_total";
    /// Blocks of which an endpoint told, without proof, what they have of ours.
    blocks_unproved = "cohort_indexer_blocks_unproved_total";
    /// Ranges discarded because their parts contradict each other.
    contradictions = "cohort_indexer_contradictions_total";
    /// HTTP requests answered.
    requests = "cohort_indexer_http_requests_total";
    /// HTTP requests answered with a server error.
    request_failures = "cohort_indexer_http_failures_total";
    /// Release decisions answered.
    decisions = "cohort_indexer_release_decisions_total";
    /// Events sent to streams.
    streamed = "cohort_indexer_streamed_events_total";
}

impl Counters {
    /// Adds to one of them.
    pub fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Relaxed);
    }
}

fn metric(out: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

/// All metrics.
pub(crate) fn render(readiness: &Readiness, api: &Api) -> String {
    let mut out = String::new();
    let mut gauge = |name, help, value: Option<u64>| {
        if let Some(value) = value {
            metric(&mut out, name, "gauge", help, value);
        }
    };
    gauge(
        "cohort_indexer_ready",
        "1 while the mirror keeps up with the chain.",
        Some(readiness.ready.into()),
    );
    gauge("cohort_indexer_head", "Height of the newest mirrored block.", readiness.head);
    gauge(
        "cohort_indexer_chain_head",
        "Height of the newest block that the chain showed.",
        readiness.chain_head,
    );
    gauge("cohort_indexer_lag_blocks", "Blocks that the mirror is behind.", readiness.lag_blocks);
    gauge(
        "cohort_indexer_lag_seconds",
        "Seconds since the mirror held the newest block.",
        readiness.lag_seconds,
    );
    gauge(
        "cohort_indexer_heads_by_websocket",
        "1 while new blocks are noticed over WebSocket.",
        Some((readiness.heads_by == "websocket").into()),
    );
    gauge("cohort_indexer_streams", "Open event streams.", Some(api.open_streams()));
    api.counters.render(&mut out);
    out
}
