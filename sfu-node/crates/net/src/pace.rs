//! When to sleep although datagrams may come: what a network card's interrupt moderation is for, done here.
//!
//! To be woken by each packet of a frame, or by each of thousands of frames a second, costs more than the packets do.
//! So the rest of a frame is awaited asleep, and where frames come thick the loop turns at a fixed pace. Where little
//! comes, the first packet wakes it at once.

use std::time::{Duration, Instant};

/// First sleep while the rest of a frame is awaited, doubled with each more.
const NAP: Duration = Duration::from_micros(60);
/// From one turn to the next where frames come thick. A turn that takes longer is followed by the next at once.
const TURN: Duration = Duration::from_micros(400);
/// Frames come thick when turns that brought something are on average no farther apart than this.
const THICK_US: u64 = 800;
/// An interval that long says no more than that it was long.
const MAX_INTERVAL_US: u64 = 20_000;

/// The loop's pace.
pub struct Pace {
    nap: Duration,
    /// When the last turn began, and the last that brought something.
    turned: Instant,
    fruitful: Instant,
    /// Smoothed time between turns that brought something.
    interval_us: u64,
}

impl Pace {
    /// Nothing came yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { nap: NAP, turned: now, fruitful: now, interval_us: MAX_INTERVAL_US }
    }

    /// How long to sleep before looking again; `None`: wait for the next datagram. `holds`: the rest of a frame is
    /// awaited.
    pub fn nap(&mut self, now: Instant, holds: bool) -> Option<Duration> {
        if self.interval_us < THICK_US {
            let left = (self.turned + TURN).checked_duration_since(now)?;
            return Some(left).filter(|l| !l.is_zero());
        }
        if !holds {
            self.nap = NAP;
            return None;
        }
        let nap = self.nap;
        self.nap *= 2;
        Some(nap)
    }

    /// A turn began at `now`; something `came`.
    pub fn turn(&mut self, now: Instant, came: bool) {
        self.turned = now;
        let interval = now.saturating_duration_since(self.fruitful).as_micros();
        let interval = u64::try_from(interval).unwrap_or(u64::MAX).min(MAX_INTERVAL_US);
        if came {
            self.fruitful = now;
            self.interval_us = (self.interval_us * 7 + interval) / 8;
        } else {
            // Silence counts as soon as it is longer than what was usual.
            self.interval_us = self.interval_us.max(interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn a_frame_is_awaited_asleep_and_ever_longer() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.nap(now, false), None);
        let naps: Vec<_> = (0..3).map(|_| pace.nap(now, true)).collect();
        assert_eq!(naps, [Some(us(60)), Some(us(120)), Some(us(240))]);
        assert_eq!((pace.nap(now, false), pace.nap(now, true)), (None, Some(us(60))));
    }

    #[test]
    fn where_frames_come_thick_turns_have_a_pace_and_silence_ends_it() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..60 {
            now += us(300);
            pace.turn(now, true);
        }
        assert_eq!(pace.nap(now + us(100), false), Some(us(300)));
        assert_eq!(pace.nap(now + us(500), false), None, "the turn itself took longer");
        now += us(900);
        pace.turn(now, false);
        assert_eq!(pace.nap(now, false), None, "the next one wakes us");
    }

    #[test]
    fn few_frames_are_not_kept_waiting() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..100 {
            now += us(4_000);
            pace.turn(now, true);
            assert_eq!(pace.nap(now, false), None);
        }
    }
}
