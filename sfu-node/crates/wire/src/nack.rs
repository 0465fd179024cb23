//! Receive-side loss repair: which sequence numbers to ask for again, and when (RFC 4585 §6.2.1).

use crate::seq::{SeqExtender, distance};
use std::collections::VecDeque;

/// Missing packets tracked at once; beyond that the oldest are given up.
const MAX_MISSING: usize = 512;
/// A jump larger than this is a restart of the source, not a gap.
const MAX_JUMP: u64 = 3000;
/// Packets behind the newest that duplicates are recognised in.
const HISTORY: u64 = 1024;
const MAX_TRIES: u8 = 10;
/// A packet older than this is of no use to any jitter buffer.
const MAX_AGE_US: u64 = 1_000_000;
/// Reordering is more common than loss: a fresh gap waits this long before its first NACK.
const FIRST_DELAY_US: u64 = 5_000;
const MIN_RETRY_US: u64 = 20_000;
const MAX_RETRY_US: u64 = 250_000;

/// What the arrival of a packet meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// In order or ahead.
    New,
    /// Filled a gap, by retransmission or reordering.
    Recovered,
    /// Seen before.
    Duplicate,
    /// Too far behind to tell or to matter.
    TooOld,
    /// The source jumped: all state was reset.
    Reset,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    at: u64,
    since_us: u64,
    due_us: u64,
    tries: u8,
}

/// Gap tracker of one source.
#[derive(Debug, Default)]
pub struct GapTracker {
    extender: SeqExtender,
    /// First number since the start or the last reset.
    first: u64,
    /// Ascending.
    missing: VecDeque<Missing>,
    next_due_us: Option<u64>,
    abandoned: u32,
    jumped: Option<u16>,
}

impl GapTracker {
    /// A tracker that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the arrival of `seq`, as the media stream counts (for RTX: the original number).
    pub fn on_packet(&mut self, seq: u16, now_us: u64) -> Arrival {
        let Some(highest) = self.extender.highest() else {
            self.first = self.extender.extend(seq);
            return Arrival::New;
        };
        let at = self.extender.peek(seq);
        if at.abs_diff(highest) > MAX_JUMP {
            return self.on_jump(seq);
        }
        self.jumped = None;
        if at > highest {
            self.extender.extend(seq);
            self.open_gap(highest + 1, at, now_us);
            return Arrival::New;
        }
        if let Ok(index) = self.missing.binary_search_by_key(&at, |m| m.at) {
            self.missing.remove(index);
            self.refresh_due();
            return Arrival::Recovered;
        }
        if at < self.first {
            // Reordered around the very start: it was never tracked, and it is still wanted.
            let recent = self.first - at < HISTORY;
            if recent {
                self.open_gap(at + 1, self.first, now_us);
                self.missing.make_contiguous().sort_unstable_by_key(|m| m.at);
                self.first = at;
            }
            return if recent { Arrival::Recovered } else { Arrival::TooOld };
        }
        if highest - at < HISTORY { Arrival::Duplicate } else { Arrival::TooOld }
    }

    /// Two packets in a row from elsewhere are a restart; a single one may be a stray (RFC 3550 §A.1).
    fn on_jump(&mut self, seq: u16) -> Arrival {
        let confirmed = self.jumped.is_some_and(|j| (1..=16).contains(&distance(j, seq)));
        if !confirmed {
            self.jumped = Some(seq);
            return Arrival::TooOld;
        }
        let abandoned = self.abandoned + u32::try_from(self.missing.len()).unwrap_or(0);
        *self = Self { abandoned, ..Self::default() };
        self.first = self.extender.extend(seq);
        Arrival::Reset
    }

    fn open_gap(&mut self, from: u64, to: u64, now_us: u64) {
        let due_us = now_us + FIRST_DELAY_US;
        for at in from..to {
            if self.missing.len() == MAX_MISSING {
                self.missing.pop_front();
                self.abandoned = self.abandoned.saturating_add(1);
            }
            self.missing.push_back(Missing { at, since_us: now_us, due_us, tries: 0 });
        }
        if from < to {
            self.next_due_us = Some(self.next_due_us.map_or(due_us, |d| d.min(due_us)));
        }
    }

    /// Appends the numbers due now, ascending. Each is asked for again after about one round trip
    /// (20..=250 ms), at most 10 times and for at most 1 s.
    pub fn poll(&mut self, now_us: u64, rtt_us: u64, out: &mut Vec<u16>) {
        if self.next_due_us.is_none_or(|due| due > now_us) {
            return;
        }
        let retry = (rtt_us + rtt_us / 4).clamp(MIN_RETRY_US, MAX_RETRY_US);
        let before = self.missing.len();
        self.missing.retain_mut(|m| {
            if m.due_us > now_us {
                return true;
            }
            if m.tries >= MAX_TRIES || now_us.saturating_sub(m.since_us) > MAX_AGE_US {
                return false;
            }
            #[expect(clippy::cast_possible_truncation, reason = "low 16 bits are the point")]
            out.push(m.at as u16);
            m.tries += 1;
            m.due_us = now_us + retry;
            true
        });
        let given_up = u32::try_from(before - self.missing.len()).unwrap_or(0);
        self.abandoned = self.abandoned.saturating_add(given_up);
        self.refresh_due();
    }

    fn refresh_due(&mut self) {
        self.next_due_us = self.missing.iter().map(|m| m.due_us).min();
    }

    /// When [`GapTracker::poll`] has something to do next.
    #[must_use]
    pub fn next_due_us(&self) -> Option<u64> {
        self.next_due_us
    }

    /// Packets given up since last asked: a video decoder then needs a key frame.
    pub fn take_abandoned(&mut self) -> u32 {
        std::mem::take(&mut self.abandoned)
    }

    /// It has not come, and is still waited for.
    #[must_use]
    pub fn is_missing(&self, seq: u16) -> bool {
        !self.missing.is_empty()
            && self.missing.binary_search_by_key(&self.extender.peek(seq), |m| m.at).is_ok()
    }

    /// Packets missing now.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Highest extended sequence number seen.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.extender.highest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(t: &mut GapTracker, now_us: u64) -> Vec<u16> {
        let mut out = Vec::new();
        t.poll(now_us, 50_000, &mut out);
        out
    }

    #[test]
    fn a_gap_is_asked_for_until_it_is_filled() {
        let mut t = GapTracker::new();
        for s in [65_533u16, 65_534, 2] {
            assert_eq!(t.on_packet(s, 0), Arrival::New);
        }
        assert!(due(&mut t, 4_999).is_empty());
        assert_eq!(t.next_due_us(), Some(5_000));
        assert_eq!(due(&mut t, 5_000), [65_535, 0, 1]);
        assert!(due(&mut t, 6_000).is_empty());
        assert_eq!(t.on_packet(0, 7_000), Arrival::Recovered);
        assert_eq!(t.on_packet(0, 7_000), Arrival::Duplicate);
        assert_eq!(due(&mut t, 5_000 + 62_500), [65_535, 1]);
        assert_eq!(t.on_packet(65_535, 0), Arrival::Recovered);
        assert_eq!(t.on_packet(1, 0), Arrival::Recovered);
        assert_eq!((t.missing(), t.next_due_us(), t.take_abandoned()), (0, None, 0));
    }

    #[test]
    fn reordering_within_the_first_delay_causes_no_nack() {
        let mut t = GapTracker::new();
        for (s, at) in [(1u16, 0), (3, 1_000), (2, 3_000), (4, 4_000)] {
            t.on_packet(s, at);
        }
        assert!(due(&mut t, 10_000).is_empty());
    }

    #[test]
    fn gives_up_after_its_tries_or_its_age() {
        let mut t = GapTracker::new();
        t.on_packet(1, 0);
        t.on_packet(3, 0);
        let mut asked = 0;
        for ms in 0..3_000 {
            asked += due(&mut t, ms * 1_000).len();
        }
        assert_eq!(asked, usize::from(MAX_TRIES));
        assert_eq!((t.missing(), t.take_abandoned(), t.take_abandoned()), (0, 1, 0));
        let mut t = GapTracker::new();
        t.on_packet(1, 0);
        t.on_packet(3, 0);
        assert!(due(&mut t, 2_000_000).is_empty());
        assert_eq!(t.take_abandoned(), 1);
    }

    #[test]
    fn many_losses_stay_bounded() {
        let mut t = GapTracker::new();
        t.on_packet(0, 0);
        t.on_packet(2_900, 0);
        assert_eq!(t.missing(), MAX_MISSING);
        assert_eq!(t.take_abandoned() as usize, 2_899 - MAX_MISSING);
        let asked = due(&mut t, 10_000);
        assert_eq!((asked.len(), asked[0], asked[511]), (512, 2_388, 2_899));
    }

    #[test]
    fn a_restart_needs_two_packets_a_stray_changes_nothing() {
        let mut t = GapTracker::new();
        t.on_packet(100, 0);
        assert_eq!(t.on_packet(40_000, 0), Arrival::TooOld);
        assert_eq!(t.on_packet(101, 0), Arrival::New);
        assert_eq!(t.missing(), 0);
        t.on_packet(103, 0);
        assert_eq!(t.on_packet(40_000, 0), Arrival::TooOld);
        assert_eq!(t.on_packet(40_001, 0), Arrival::Reset);
        assert_eq!(t.on_packet(40_002, 0), Arrival::New);
        assert_eq!((t.missing(), t.take_abandoned()), (0, 1));
    }

    #[test]
    fn packets_from_before_the_first_are_wanted_once() {
        let mut t = GapTracker::new();
        assert_eq!(t.on_packet(5, 0), Arrival::New);
        assert_eq!(t.on_packet(2, 0), Arrival::Recovered);
        assert_eq!(t.missing(), 2);
        assert_eq!(t.on_packet(2, 0), Arrival::Duplicate);
        assert_eq!(t.on_packet(3, 0), Arrival::Recovered);
        assert_eq!(due(&mut t, 5_000), [4]);
    }

    #[test]
    fn any_input_keeps_the_invariants() {
        let mut t = GapTracker::new();
        let mut x = 7u32;
        let mut out = Vec::new();
        for i in 0..50_000u64 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let seq = if i % 50 == 0 { (x >> 16) as u16 } else { (i as u16).wrapping_add((x >> 29) as u16) };
            t.on_packet(seq, i * 500);
            out.clear();
            t.poll(i * 500, 30_000, &mut out);
            assert!(t.missing() <= MAX_MISSING && out.len() <= MAX_MISSING);
            assert!(t.missing.iter().zip(t.missing.iter().skip(1)).all(|(a, b)| a.at < b.at));
        }
    }
}
