//! Figures at one moment, of one media thread and of all.

use crate::{
    egress::Sent,
    latency::{Percentiles, percentiles},
};
use headwater_engine::api::Report;
use std::time::Instant;

/// Figures of the whole engine.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Snapshot {
    pub at: Instant,
    pub report: Report,
    pub latency: Percentiles,
    pub sent: Sent,
    pub draining: bool,
    /// The fullest of the bounded queues, 0 to 100.
    pub buffer_percent: f64,
}

/// Figures of one media thread.
pub struct Part {
    pub at: Instant,
    pub report: Report,
    /// Histogram of forwarding latency.
    pub window: Vec<u32>,
    pub sent: Sent,
    pub draining: bool,
    pub buffer_percent: f64,
}

/// All threads' figures as one; `None` of none.
pub fn merge(parts: Vec<Part>) -> Option<Snapshot> {
    let mut parts = parts.into_iter();
    let mut sum = parts.next()?;
    for part in parts {
        sum.report.absorb(part.report);
        sum.window.iter_mut().zip(part.window).for_each(|(a, b)| *a += b);
        sum.sent.absorb(&part.sent);
        sum.draining |= part.draining;
        sum.buffer_percent = sum.buffer_percent.max(part.buffer_percent);
    }
    Some(Snapshot {
        at: sum.at,
        report: sum.report,
        latency: percentiles(&sum.window),
        sent: sum.sent,
        draining: sum.draining,
        buffer_percent: sum.buffer_percent,
    })
}
