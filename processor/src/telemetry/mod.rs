//! What other machines are told of this one, where an operator wants it: figures to DogStatsD, spans to OpenTelemetry.
//!
//! ```text
//! figures ─ every 10 s ─▶ DogStatsD: UDP, nobody waits for it
//! a pipeline's end ─▶ (a queue, bounded) ─▶ its events ─▶ spans ─▶ OTLP over HTTP, JSON
//! ```
//!
//! Neither is in anybody's way: what cannot be told is dropped, and counted.

pub mod otlp;
pub mod statsd;

use navvy_protocol::processor::trace::TraceParent;

/// The trace of a submission: what came with it, if that is one, or a new one.
pub fn trace_of(given: Option<&str>) -> TraceParent {
    given.and_then(TraceParent::read).unwrap_or_else(|| {
        let mut random = [0; 24];
        random[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        random[16..].copy_from_slice(&uuid::Uuid::new_v4().as_bytes()[..8]);
        TraceParent::begin(random)
    })
}
