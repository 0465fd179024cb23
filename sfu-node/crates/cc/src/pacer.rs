//! Spreads bursts towards one receiver: a leaky bucket that holds names of packets, not packets.
//!
//! Audio never waits. Video waits only while the bucket is full, is let go in bursts of a few milliseconds so that
//! the kernel still gets batches, and no longer than [`MAX_WAIT_US`]: the rate goes up before that.

use std::collections::VecDeque;

/// Paced at this many times the estimate: bursts are spread, the mean is the allocator's business.
const FACTOR: f64 = 2.5;
/// What goes at once.
const BURST_US: f64 = 5_000.0;
/// … and at least so many bytes.
const MIN_BURST: f64 = 3_600.0;
/// Nothing waits longer.
const MAX_WAIT_US: f64 = 250_000.0;
/// Names held; past it packets are dropped.
const MAX_QUEUE: usize = 2048;

/// A packet that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The caller's number of the stream.
    pub stream: u32,
    /// Sequence number that it was given.
    pub sequence: u16,
    /// Bytes on the wire.
    pub size: u16,
    /// Since when.
    pub at_us: u64,
}

/// The bucket of one receiver.
#[derive(Debug, Default)]
pub struct Pacer {
    /// bit/s; 0: not paced.
    rate: f64,
    /// Bytes sent ahead of the rate.
    debt: f64,
    at_us: u64,
    queue: VecDeque<Queued>,
    queued: f64,
    holding: bool,
}

impl Pacer {
    /// The estimate in force; `None` or one far above `sending_bps` lets everything through.
    pub fn set_estimate(&mut self, now_us: u64, estimate: Option<u64>, sending_bps: u64) {
        self.leak(now_us);
        self.rate = match estimate {
            Some(bps) if bps < sending_bps.saturating_mul(4) || !self.queue.is_empty() => bps as f64 * FACTOR,
            _ => 0.0,
        };
        self.debt = self.debt.min(self.most());
    }

    /// Whether video waits whatever its rate.
    pub fn set_holding(&mut self, now_us: u64, holding: bool) {
        self.leak(now_us);
        self.holding = holding;
    }

    fn rate_now(&self) -> f64 {
        self.rate.max(self.queued * 8e6 / MAX_WAIT_US)
    }

    fn leak(&mut self, now_us: u64) {
        let elapsed = now_us.saturating_sub(self.at_us) as f64;
        self.at_us = now_us;
        self.debt = (self.debt - elapsed * self.rate_now() / 8e6).max(0.0);
    }

    /// What went ahead of the rate (audio, what is sent again) keeps the rest waiting no longer than anything waits.
    fn spend(&mut self, bytes: f64) {
        self.debt = (self.debt + bytes).min(self.most());
    }

    fn most(&self) -> f64 {
        (self.rate_now() * MAX_WAIT_US / 8e6).max(2.0 * MIN_BURST)
    }

    fn burst(&self) -> f64 {
        (self.rate_now() * BURST_US / 8e6).max(MIN_BURST)
    }

    /// May a packet go now? Where it may, it counts as sent.
    #[inline]
    pub fn admit(&mut self, now_us: u64, size: usize, urgent: bool) -> bool {
        if self.rate == 0.0 && self.queue.is_empty() && !self.holding {
            return true;
        }
        self.leak(now_us);
        if !urgent && (self.holding || !self.queue.is_empty() || self.debt > self.burst()) {
            return false;
        }
        self.spend(size as f64);
        true
    }

    /// Hold a packet's name. `false`: there are too many.
    pub fn hold(&mut self, packet: Queued) -> bool {
        if self.queue.len() >= MAX_QUEUE {
            return false;
        }
        self.queued += f64::from(packet.size);
        self.queue.push_back(packet);
        true
    }

    /// The next packet whose time has come.
    pub fn release(&mut self, now_us: u64) -> Option<Queued> {
        self.leak(now_us);
        if self.holding || (self.rate > 0.0 && self.debt > self.burst()) {
            return None;
        }
        let packet = self.queue.pop_front()?;
        self.queued -= f64::from(packet.size);
        self.spend(f64::from(packet.size));
        Some(packet)
    }

    /// When [`Self::release`] has something.
    #[must_use]
    pub fn due_us(&self) -> Option<u64> {
        if self.holding || self.queue.is_empty() {
            return None;
        }
        let rate = self.rate_now();
        if rate == 0.0 || self.debt <= 0.0 {
            return Some(self.at_us);
        }
        // Wake when the bucket is empty: then a whole burst goes at once.
        Some(self.at_us + (self.debt * 8e6 / rate) as u64 + 1)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.queued as u64
    }

    /// Forget what waits of one stream.
    pub fn forget(&mut self, stream: u32) {
        self.queue.retain(|q| q.stream != stream);
        self.queued = self.queue.iter().map(|q| f64::from(q.size)).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u16, at_us: u64) -> Queued {
        Queued { stream: 0, sequence, size: 1200, at_us }
    }

    #[test]
    fn a_burst_is_spread_in_order_and_audio_goes_first() {
        let mut p = Pacer::default();
        p.set_estimate(0, Some(1_000_000), 1_000_000);
        let mut held = Vec::new();
        for i in 0..40u16 {
            if !p.admit(0, 1200, false) {
                assert!(p.hold(packet(i, 0)));
                held.push(i);
            }
        }
        assert!(held.len() > 30, "{}", held.len());
        assert!(p.admit(0, 120, true), "audio");
        let (mut now, mut out, mut wakes) = (0, Vec::new(), 0);
        while let Some(at) = p.due_us() {
            now = now.max(at);
            wakes += 1;
            while let Some(q) = p.release(now) {
                out.push((q.sequence, now));
            }
        }
        assert_eq!(out.iter().map(|o| o.0).collect::<Vec<_>>(), held);
        // 40 × 1200 bytes at 2.5 Mbit/s are 154 ms.
        assert!((100_000..170_000).contains(&now), "{now}");
        assert!(wakes < 20, "bursts, not single packets: {wakes}");
    }

    #[test]
    fn nothing_waits_for_ever_and_the_queue_is_bounded() {
        let mut p = Pacer::default();
        p.set_estimate(0, Some(30_000), 3_000_000);
        p.admit(0, 60_000, true);
        let mut now = 0;
        let mut longest = 0;
        for i in 0..3000u64 {
            now = i * 1_000;
            p.hold(packet(0, now));
            while let Some(q) = p.release(now) {
                longest = longest.max(now - q.at_us);
            }
        }
        assert!(longest < 600_000, "{longest}");
        for _ in 0..MAX_QUEUE {
            p.hold(packet(0, now));
        }
        assert!(!p.hold(packet(0, now)));
        p.forget(0);
        assert_eq!((p.due_us(), p.queued_bytes()), (None, 0));
    }

    #[test]
    fn a_debt_made_when_the_path_was_wide_is_not_paid_at_the_rate_of_a_narrow_one() {
        let mut p = Pacer::default();
        p.set_estimate(0, Some(5_000_000), 5_000_000);
        p.admit(0, 150_000, true);
        p.set_estimate(10_000, Some(100_000), 100_000);
        assert!(p.hold(packet(0, 10_000)));
        assert!(p.due_us().unwrap() < 300_000, "{:?}", p.due_us());
    }

    #[test]
    fn what_is_held_waits_for_the_end_of_it_and_audio_does_not() {
        let mut p = Pacer::default();
        p.set_estimate(0, None, 0);
        p.set_holding(0, true);
        assert!(p.admit(1_000, 100, true) && !p.admit(1_000, 1200, false));
        assert!(p.hold(packet(0, 1_000)));
        assert_eq!((p.due_us(), p.release(200_000)), (None, None));
        p.set_holding(200_000, false);
        assert!(!p.admit(200_000, 1200, false), "in order");
        assert!(p.due_us().is_some());
        assert_eq!(p.release(210_000).map(|q| q.sequence), Some(0));
    }

    #[test]
    fn a_wide_path_is_not_paced() {
        let mut p = Pacer::default();
        for estimate in [None, Some(10_000_000)] {
            p.set_estimate(0, estimate, 1_000_000);
            assert!((0..1000).all(|_| p.admit(0, 1200, false)));
        }
    }
}
