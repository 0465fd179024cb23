//! Congestion control towards one receiver, without sockets, clocks or media: what was sent and what the receiver
//! says in, a rate, probes and the division of the rate over streams out.
//!
//! The estimator follows draft-ietf-rmcat-gcc-02: a delay gradient (trendline over packet groups, adaptive
//! threshold), a loss controller and an additive/multiplicative rate controller, fed by transport-wide feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01). Times are µs on any monotonic clock of the caller, rates
//! bit/s, sizes bytes on the wire. Nothing is allocated once the rings have their size.
#![forbid(unsafe_code)]

pub mod alloc;
mod delay;
pub mod estimator;
mod history;
mod loss;
pub mod pacer;
mod probe;
mod rate;
mod stumble;
mod throughput;

pub use alloc::{Allocator, Choice, Class, Stream};
pub use estimator::{Config, Estimator, Sent};
pub use pacer::{Pacer, Queued};
pub use probe::Probe;
