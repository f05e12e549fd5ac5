//! What this process has done since it began, counted for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug)]
pub struct Counter {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// What is counted.
    pub help: &'static str,
    value: AtomicU64,
}

impl Counter {
    const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, value: AtomicU64::new(0) }
    }

    /// One more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.value.fetch_add(more, Ordering::Relaxed);
    }

    /// How many by now.
    pub fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// Pipelines that were taken.
pub static PIPELINES: Counter = Counter::new("navvy_pipelines_total", "Pipelines that were taken.");
/// Tasks that were handed out.
pub static CLAIMS: Counter = Counter::new("navvy_claims_total", "Tasks that were handed out.");
/// Tasks that ended by their agent's report.
pub static ENDS: Counter = Counter::new("navvy_task_ends_total", "Tasks whose agents reported an end.");
/// Tasks whose agents were not heard of any more.
pub static LOST: Counter = Counter::new("navvy_leases_lost_total", "Tasks whose agents were not heard of any more.");
/// Segments of logs that became durable.
pub static SEGMENTS: Counter = Counter::new("navvy_segments_total", "Segments of logs that became durable.");
/// Their bytes, before compression.
pub static SEGMENT_BYTES: Counter =
    Counter::new("navvy_segment_bytes_total", "Bytes of logs that became durable, before compression.");
/// Bytes that came live.
pub static LIVE_BYTES: Counter = Counter::new("navvy_live_bytes_total", "Bytes of logs that came live.");
/// URLs that were signed.
pub static GRANTS: Counter =
    Counter::new("navvy_grants_total", "URLs that were signed, each for one object and one verb.");
/// Calls that failed by the processor's fault, its database's or its store's.
pub static ERRORS: Counter =
    Counter::new("navvy_errors_total", "Calls that failed by the fault of the processor, its database or its store.");

/// Pipelines whose spans did not reach the collector.
pub static SPANS_LOST: Counter =
    Counter::new("navvy_spans_lost_total", "Pipelines whose spans did not reach the collector, or not all of them.");

/// All of them.
pub static ALL: [&Counter; 10] =
    [&PIPELINES, &CLAIMS, &ENDS, &LOST, &SEGMENTS, &SEGMENT_BYTES, &LIVE_BYTES, &GRANTS, &ERRORS, &SPANS_LOST];
