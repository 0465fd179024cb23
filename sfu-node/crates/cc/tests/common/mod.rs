//! A path with one bottleneck, and senders over it.
#![allow(dead_code, missing_docs)]

use std::collections::VecDeque;

/// Splitmix64: the same numbers in each run.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// FIFO bottleneck with a bounded queue, then a fixed delay with jitter, then random loss.
pub struct Path {
    pub bps: u64,
    pub queue_ms: u64,
    pub delay_us: u64,
    pub jitter_us: u64,
    pub loss: f64,
    pub rng: Rng,
    free_us: u64,
    last_out: u64,
}

impl Path {
    pub fn new(bps: u64, seed: u64) -> Self {
        Self {
            bps,
            queue_ms: 400,
            delay_us: 20_000,
            jitter_us: 0,
            loss: 0.0,
            rng: Rng(seed),
            free_us: 0,
            last_out: 0,
        }
    }

    /// When a packet sent at `now` arrives; `None`: lost.
    pub fn send(&mut self, now: u64, size: usize) -> Option<u64> {
        let start = self.free_us.max(now);
        if start - now > self.queue_ms * 1000 {
            return None;
        }
        self.free_us = start + size as u64 * 8_000_000 / self.bps;
        let jitter = (self.rng.unit() * self.jitter_us as f64) as u64;
        let out = (self.free_us + self.delay_us + jitter).max(self.last_out);
        self.last_out = out;
        (self.rng.unit() >= self.loss).then_some(out)
    }

    pub fn queue_us(&self, now: u64) -> u64 {
        self.free_us.saturating_sub(now)
    }
}

/// Packets in order: number, and arrival in microseconds where it came.
pub type Arrivals = Vec<(u16, Option<u64>)>;

/// What a receiver would report, on its way back.
#[derive(Default)]
pub struct Feedback {
    pub waiting: Arrivals,
    pub on_the_way: VecDeque<(u64, Arrivals)>,
    /// The receiver's process is not running.
    pub silent: bool,
}

impl Feedback {
    pub const INTERVAL_US: u64 = 60_000;

    /// Collect what has arrived by now, in the order of sending; `delay`: of the way back.
    pub fn collect(&mut self, now: u64, delay: u64) {
        if self.silent {
            return;
        }
        let newest = self.waiting.iter().rposition(|(_, a)| a.is_some_and(|a| a <= now));
        let Some(newest) = newest else { return };
        let batch: Vec<_> = self.waiting.drain(..=newest).collect();
        self.on_the_way.push_back((now + delay, batch));
    }

    pub fn due(&mut self, now: u64) -> Option<Arrivals> {
        (self.on_the_way.front()?.0 <= now).then(|| self.on_the_way.pop_front())?.map(|b| b.1)
    }
}
