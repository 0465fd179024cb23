//! The rate from what the queue does: additive or multiplicative increase, multiplicative decrease
//! (draft-ietf-rmcat-gcc-02 §5.5).

use crate::delay::Usage;

/// Decrease to this share of what arrives.
const BETA: f64 = 0.85;
/// Multiplicative increase per second.
const ETA: f64 = 1.08;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hold,
    Increase,
    Decrease,
}

/// Where the path saturated last: mean and deviation of what arrived at decreases, kbit/s.
#[derive(Clone, Copy, Debug, Default)]
struct Capacity {
    mean: Option<f64>,
    /// Normalised by the mean.
    variance: f64,
}

impl Capacity {
    fn on_overuse(&mut self, kbps: f64) {
        let Some(mean) = self.mean else {
            self.mean = Some(kbps);
            self.variance = 0.4;
            return;
        };
        let mean = 0.95 * mean + 0.05 * kbps;
        let error = mean - kbps;
        self.variance = (0.95 * self.variance + 0.05 * error * error / mean.max(1.0)).clamp(0.4, 2.5);
        self.mean = Some(mean);
    }

    fn bounds(&self) -> Option<(f64, f64)> {
        let mean = self.mean?;
        let deviation = 3.0 * (self.variance * mean).sqrt();
        Some((mean - deviation, mean + deviation))
    }
}

#[derive(Debug)]
pub(crate) struct RateControl {
    pub bps: f64,
    state: State,
    capacity: Capacity,
    changed_us: Option<u64>,
    decreased_us: Option<u64>,
}

impl RateControl {
    pub fn new(bps: u64) -> Self {
        let capacity = Capacity::default();
        Self { bps: bps as f64, state: State::Hold, capacity, changed_us: None, decreased_us: None }
    }

    /// A probe showed this much.
    pub fn set(&mut self, now_us: u64, bps: u64) {
        self.bps = bps as f64;
        self.changed_us = Some(now_us);
        if self.capacity.bounds().is_some_and(|(_, upper)| self.bps / 1000.0 > upper) {
            self.capacity = Capacity::default();
        }
    }

    /// What is added per second near the capacity: a packet per response time, bit/s².
    fn additive(&self, rtt_us: u64) -> f64 {
        let response_s = (rtt_us + 100_000) as f64 / 1e6;
        let frame_bits = self.bps / 30.0;
        let packets = (frame_bits / (8.0 * 1200.0)).ceil().max(1.0);
        (frame_bits / packets / response_s).max(4000.0)
    }

    /// New state of the queue. Returns true when the rate was decreased.
    pub fn update(
        &mut self,
        now_us: u64,
        usage: Usage,
        acked: Option<u64>,
        rtt_us: u64,
        application_limited: bool,
    ) -> bool {
        self.state = match (usage, self.state) {
            (Usage::Over, _) => State::Decrease,
            (Usage::Under, _) => State::Hold,
            (Usage::Normal, State::Hold) => {
                self.changed_us = Some(now_us);
                State::Increase
            }
            (Usage::Normal, state) => state,
        };
        match self.state {
            State::Hold => false,
            State::Increase => {
                self.increase(now_us, acked, rtt_us, application_limited);
                false
            }
            State::Decrease => self.decrease(now_us, acked, rtt_us),
        }
    }

    fn increase(&mut self, now_us: u64, acked: Option<u64>, rtt_us: u64, application_limited: bool) {
        let elapsed = self.changed_us.map_or(0.0, |t| (now_us.saturating_sub(t) as f64 / 1e6).min(1.0));
        self.changed_us = Some(now_us);
        let kbps = acked.map(|a| a as f64 / 1000.0);
        if let (Some(kbps), Some((_, upper))) = (kbps, self.capacity.bounds())
            && kbps > upper
        {
            self.capacity = Capacity::default();
        }
        // What does not fill the path cannot show how wide it is: that takes probes.
        if application_limited {
            return;
        }
        let next = if self.capacity.mean.is_some() {
            self.bps + self.additive(rtt_us) * elapsed
        } else {
            self.bps + (self.bps * (ETA.powf(elapsed) - 1.0)).max(1000.0 * elapsed)
        };
        let ceiling = acked.map_or(f64::MAX, |a| 1.5 * a as f64 + 10_000.0);
        if next <= ceiling {
            self.bps = next;
        } else {
            self.bps = self.bps.max(ceiling.min(next));
        }
    }

    fn decrease(&mut self, now_us: u64, acked: Option<u64>, rtt_us: u64) -> bool {
        self.state = State::Hold;
        // Once per response time, unless what arrives is far below the rate.
        let recent =
            self.decreased_us.is_some_and(|t| now_us.saturating_sub(t) < rtt_us.clamp(10_000, 200_000));
        let far = acked.is_some_and(|a| (a as f64) < self.bps / 2.0);
        if recent && !far {
            return false;
        }
        let Some(acked) = acked else {
            self.bps *= BETA;
            self.decreased_us = Some(now_us);
            self.changed_us = Some(now_us);
            return true;
        };
        let kbps = acked as f64 / 1000.0;
        let mut next = BETA * acked as f64;
        if next > self.bps
            && let Some(mean) = self.capacity.mean
        {
            next = BETA * mean * 1000.0;
        }
        if self.capacity.bounds().is_some_and(|(lower, _)| kbps < lower) {
            self.capacity = Capacity::default();
        }
        self.capacity.on_overuse(kbps);
        let lower = next < self.bps;
        self.bps = self.bps.min(next);
        self.decreased_us = Some(now_us);
        self.changed_us = Some(now_us);
        lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_by_eight_per_cent_a_second_and_falls_to_a_share_of_what_arrives() {
        let mut r = RateControl::new(1_000_000);
        for i in 0..=100u64 {
            r.update(i * 100_000, Usage::Normal, Some(10_000_000), 50_000, false);
        }
        let grown = r.bps / 1e6;
        assert!((2.0..2.3).contains(&grown), "1.08^10 is 2.16: {grown}");
        assert!(r.update(10_100_000, Usage::Over, Some(600_000), 50_000, false));
        assert!((r.bps - 510_000.0).abs() < 1.0);
    }

    #[test]
    fn without_traffic_it_does_not_grow() {
        let mut r = RateControl::new(1_000_000);
        for i in 0..100u64 {
            r.update(i * 100_000, Usage::Normal, Some(100_000), 50_000, true);
        }
        assert!((r.bps - 1_000_000.0).abs() < 1.0);
        for i in 100..200u64 {
            r.update(i * 100_000, Usage::Normal, Some(100_000), 50_000, false);
        }
        assert!((r.bps - 1_000_000.0).abs() < 1.0, "1.5 times what arrives is below");
    }
}
