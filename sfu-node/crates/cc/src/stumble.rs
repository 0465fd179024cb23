//! Has a path that just became slow become narrow, or was it late for a moment?
//!
//! A queue grows when a path is filled beyond what it carries, but also while a radio, a hypervisor or the receiver's
//! own processor is away for some hundred milliseconds. Pausing a picture costs a key frame and a second; a picture that
//! waits at the sender costs neither. So where nothing had been held back and the queue begins to grow, video waits for
//! a moment, and the last packet that went out before tells: it came as promptly as ever, or it had to queue.

/// Video waits no longer for the answer.
const HOLD_US: u64 = 300_000;
/// So much later than the promptest packet of the last while is still prompt.
const PROMPT_US: i64 = 120_000;
/// A path that is late more often than [`MAX_HOLDS`] in this time, or that was narrow, is not given the benefit of the
/// doubt.
const WINDOW_US: u64 = 10_000_000;
const MAX_HOLDS: u32 = 3;
/// The promptest packet is of the last one to two of these, since clocks drift.
const FLOOR_US: u64 = 10_000_000;

#[derive(Clone, Copy, Debug)]
struct Hold {
    since_us: u64,
    /// The rate to go back to, bit/s.
    bps: f64,
    /// When the last packet before it went out.
    last_sent_us: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Stumble {
    hold: Option<Hold>,
    /// Holds since `window_us`.
    holds: u32,
    window_us: u64,
    narrow_us: Option<u64>,
    /// Least (arrival − sending) of this and of the last span, µs of two clocks.
    floor: (Option<i64>, Option<i64>),
    floor_us: u64,
}

impl Stumble {
    /// The queue began to grow at a rate of `bps` that held nothing back; the last packet went out at `last_sent_us`.
    pub fn begin(&mut self, now_us: u64, bps: f64, last_sent_us: u64) {
        if now_us.saturating_sub(self.window_us) >= WINDOW_US {
            (self.window_us, self.holds) = (now_us, 0);
        }
        let narrow = self.narrow_us.is_some_and(|t| now_us.saturating_sub(t) < WINDOW_US);
        if self.hold.is_none() && !narrow && self.holds < MAX_HOLDS {
            self.holds += 1;
            self.hold = Some(Hold { since_us: now_us, bps, last_sent_us });
        }
    }

    /// The rate that streams are still divided by while video waits.
    pub fn rate(&self, now_us: u64) -> Option<f64> {
        self.hold.filter(|h| now_us.saturating_sub(h.since_us) < HOLD_US).map(|h| h.bps)
    }

    pub fn is_active(&self) -> bool {
        self.hold.is_some()
    }

    /// A packet arrived. Returns the rate to go back to where the path turns out to be as wide as before.
    pub fn on_arrival(&mut self, now_us: u64, sent_us: u64, arrival_us: i64) -> Option<f64> {
        let late = arrival_us - i64::try_from(sent_us).unwrap_or(i64::MAX);
        if now_us.saturating_sub(self.floor_us) >= FLOOR_US {
            (self.floor_us, self.floor) = (now_us, (None, self.floor.0));
        }
        let floor = self.floor.0.map_or(late, |f| f.min(late));
        self.floor.0 = Some(floor);
        let hold = self.hold.filter(|h| sent_us >= h.last_sent_us)?;
        self.hold = None;
        let prompt = late - self.floor.1.map_or(floor, |f| f.min(floor)) <= PROMPT_US;
        if prompt && now_us.saturating_sub(hold.since_us) < HOLD_US {
            return Some(hold.bps);
        }
        self.narrow_us = Some(now_us);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prompt packets for a while, then a hold: what becomes of it when the last packet comes `late_us` late?
    fn judged(late_us: i64, after_us: u64) -> (Option<f64>, Stumble) {
        let mut s = Stumble::default();
        for i in 0..100u64 {
            assert_eq!(s.on_arrival(i * 10_000, i * 10_000, i as i64 * 10_000 + 5_000_000), None);
        }
        s.begin(1_000_000, 7e5, 995_000);
        assert_eq!(s.on_arrival(1_010_000, 900_000, 5_000_000 + 1_005_000), None, "one of before");
        let at = 1_000_000 + after_us;
        (s.on_arrival(at, 995_000, 995_000 + 5_000_000 + late_us), s)
    }

    #[test]
    fn what_comes_promptly_shows_the_path_it_was() {
        assert_eq!(judged(20_000, 50_000).0, Some(7e5));
        assert_eq!(judged(20_000, 400_000).0, None, "nobody waits that long");
        let (rate, mut s) = judged(150_000, 150_000);
        assert_eq!(rate, None, "it had to queue");
        s.begin(2_000_000, 7e5, 2_000_000);
        assert_eq!(s.rate(2_000_001), None, "narrow lately");
        s.begin(12_000_000, 7e5, 12_000_000);
        assert_eq!((s.rate(12_000_001), s.rate(12_400_000)), (Some(7e5), None));
    }

    #[test]
    fn a_path_that_is_late_again_and_again_is_narrow() {
        let mut s = Stumble::default();
        let mut held = 0;
        for i in 0..10u64 {
            let now = i * 500_000;
            s.begin(now, 7e5, now);
            held += u32::from(s.rate(now).is_some());
            s.on_arrival(now + 20_000, now, now as i64);
        }
        assert_eq!(held, MAX_HOLDS);
        s.begin(20_000_000, 7e5, 20_000_000);
        assert!(s.rate(20_000_000).is_some());
    }
}
