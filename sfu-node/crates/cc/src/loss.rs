//! The rate from losses, for paths whose queue is too short to show in the delay (draft-ietf-rmcat-gcc-02 §6),
//! with one addition: loss that goes on whatever is sent, while no queue builds up, belongs to the path.

/// Loss is judged over at least this long and this many packets.
const WINDOW_US: u64 = 400_000;
const MIN_PACKETS: u32 = 20;
/// After this long without overuse the mean loss seen is taken for the path's own …
const LEARN_US: u64 = 3_000_000;
/// … up to this much.
const MAX_INHERENT: f64 = 0.08;
const LOW: f64 = 0.02;
const HIGH: f64 = 0.10;

#[derive(Debug)]
pub(crate) struct LossControl {
    pub bps: f64,
    start_us: Option<u64>,
    received: u32,
    lost: u32,
    /// Smoothed, for reports.
    share: f64,
    inherent: f64,
    /// (packets, lost) since learning began.
    learnt: (u32, u32),
    learn_us: Option<u64>,
}

impl LossControl {
    pub fn new() -> Self {
        Self {
            bps: f64::MAX,
            start_us: None,
            received: 0,
            lost: 0,
            share: 0.0,
            inherent: 0.0,
            learnt: (0, 0),
            learn_us: None,
        }
    }

    pub fn share(&self) -> f64 {
        self.share
    }

    /// What a feedback packet said. `rate`: the estimate in force, `queue`: the delay shows a queue.
    pub fn on_feedback(&mut self, now_us: u64, received: u32, lost: u32, rate: f64, queue: bool) {
        self.received += received;
        self.lost += lost;
        let start = *self.start_us.get_or_insert(now_us);
        let total = self.received + self.lost;
        if total < MIN_PACKETS || now_us.saturating_sub(start) < WINDOW_US {
            return;
        }
        let share = f64::from(self.lost) / f64::from(total);
        let elapsed = (now_us.saturating_sub(start) as f64 / 1e6).min(2.0);
        let lost = self.lost;
        (self.start_us, self.received, self.lost) = (Some(now_us), 0, 0);
        self.share += (share - self.share) * 0.3;
        self.learn(now_us, (total, lost), queue);
        self.judge(share, elapsed, rate);
    }

    /// A share of losses told otherwise (receiver reports).
    pub fn on_report(&mut self, share: f64, elapsed_s: f64, rate: f64) {
        self.share += (share - self.share) * 0.3;
        self.judge(share, elapsed_s, rate);
    }

    fn learn(&mut self, now_us: u64, (total, lost): (u32, u32), queue: bool) {
        if queue {
            self.learn_us = None;
        }
        let since = *self.learn_us.get_or_insert_with(|| {
            self.learnt = (0, 0);
            now_us
        });
        self.learnt = (self.learnt.0 + total, self.learnt.1 + lost);
        if now_us.saturating_sub(since) >= LEARN_US {
            self.inherent = (f64::from(self.learnt.1) / f64::from(self.learnt.0.max(1))).min(MAX_INHERENT);
            self.learn_us = None;
        }
    }

    fn judge(&mut self, share: f64, elapsed_s: f64, rate: f64) {
        let excess = (share - self.inherent).max(0.0);
        if excess <= LOW {
            if self.bps < f64::MAX {
                self.bps *= 1.0 + 0.10 * elapsed_s;
                if self.bps > 2.0 * rate {
                    self.bps = f64::MAX;
                }
            }
        } else if excess > HIGH {
            self.bps = self.bps.min(rate) * (1.0 - 0.5 * excess);
        } else {
            self.bps = self.bps.min(rate);
        }
    }

    /// A probe showed that this much gets through.
    pub fn raise(&mut self, bps: f64) {
        if self.bps < bps {
            self.bps = bps;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(c: &mut LossControl, from_s: u64, seconds: u64, lost_per_100: u32, rate: f64) {
        for i in 0..seconds * 2 {
            let now = from_s * 1_000_000 + i * 500_000;
            let rate = rate.min(c.bps);
            c.on_feedback(now, 100 - lost_per_100, lost_per_100, rate, false);
        }
    }

    #[test]
    fn heavy_loss_lowers_and_none_raises() {
        let mut c = LossControl::new();
        run(&mut c, 0, 5, 30, 1e6);
        let low = c.bps;
        assert!(low < 400_000.0, "{low}");
        run(&mut c, 5, 5, 0, 1e6);
        assert!(c.bps > 1.3 * low);
    }

    #[test]
    fn loss_that_belongs_to_the_path_does_not_hold_the_rate_down() {
        let mut c = LossControl::new();
        run(&mut c, 0, 2, 5, 1e6);
        assert!((c.bps - 1e6).abs() < 1.0, "held at first");
        run(&mut c, 2, 20, 5, 1e6);
        assert!(c.bps > 1.5e6, "{}", c.bps);
        run(&mut c, 22, 3, 25, 2e6);
        assert!(c.bps < 1.6e6, "more than usual still counts: {}", c.bps);
    }
}
