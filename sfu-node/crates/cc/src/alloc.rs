//! Divides an estimate over the streams of one receiver: audio first, then screen shares, then cameras by the size
//! and priority that the client asked for. Whoever has least is raised first, so that all show something before one
//! shows everything; what fits nowhere is paused, the least relevant first.

use std::cmp::Reverse;

/// Choices of one stream: three spatial by three temporal layers.
pub const MAX_CHOICES: usize = 9;
/// A step up has to fit with this much to spare; one that flows may exceed its share by as much.
pub const MARGIN: f64 = 1.12;
const KEEP: f64 = 0.9;
/// After a step down a stream goes up again no sooner; doubled each time that a step up does not last.
const FIRST_HOLD_US: u64 = 2_000_000;
/// … and after a pause of what had lasted, which nobody overlooks.
const FIRST_PAUSE_US: u64 = 500_000;
const MAX_HOLD_US: u64 = 16_000_000;
/// A step up that lasts this long was right.
const PROVEN_US: u64 = 5_000_000;

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[allow(missing_docs)]
pub enum Class {
    Audio,
    Screen,
    #[default]
    Camera,
}

/// One way to send a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The caller's name for it; a higher one is better.
    pub id: u8,
    /// What it takes.
    pub bps: u32,
}

/// What is remembered of a stream from one division to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    chosen: Option<u8>,
    known: bool,
    raised_us: u64,
    hold_until_us: u64,
    hold_us: u64,
}

impl Memory {
    /// Chosen last.
    #[must_use]
    pub fn chosen(&self) -> Option<u8> {
        self.chosen
    }
}

/// One stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream {
    /// The caller's number.
    pub key: usize,
    /// What it is.
    pub class: Class,
    /// Higher: served earlier within its class.
    pub rank: u32,
    /// From the last division.
    pub memory: Memory,
    choices: [Choice; MAX_CHOICES],
    len: usize,
    /// Result: index into the choices.
    at: Option<usize>,
}

impl Stream {
    /// A stream without choices: add them from the lowest up.
    #[must_use]
    pub fn new(key: usize, class: Class, rank: u32, memory: Memory) -> Self {
        Self { key, class, rank, memory, ..Self::default() }
    }

    /// Add a choice that is better, and takes more, than those before.
    pub fn add(&mut self, choice: Choice) {
        let floor = self.len.checked_sub(1).and_then(|i| self.choices.get(i)).map_or(0, |c| c.bps);
        if let Some(slot) = self.choices.get_mut(self.len) {
            *slot = Choice { bps: choice.bps.max(floor), ..choice };
            self.len += 1;
        }
    }

    fn choices(&self) -> &[Choice] {
        self.choices.get(..self.len).unwrap_or(&[])
    }

    /// What the best choice takes.
    #[must_use]
    pub fn wanted_bps(&self) -> u64 {
        self.choices().last().map_or(0, |c| u64::from(c.bps))
    }

    /// What was chosen; `None`: paused.
    #[must_use]
    pub fn chosen(&self) -> Option<Choice> {
        self.at.and_then(|i| self.choices().get(i)).copied()
    }

    fn flows(&self, index: usize) -> bool {
        let id = self.choices().get(index).map(|c| c.id);
        self.memory.chosen.is_some() && id <= self.memory.chosen
    }

    /// Budget that has to be left for going to `index`, and what it then takes.
    fn price(&self, now_us: u64, index: usize) -> Option<(f64, f64)> {
        let bps = |i: usize| self.choices().get(i).map(|c| f64::from(c.bps));
        let to = bps(index)?;
        let from = self.at.and_then(bps).unwrap_or(0.0);
        let takes = to - from;
        if self.flows(index) {
            return Some((to * KEEP - from, takes));
        }
        if !self.memory.known {
            return Some((takes, takes));
        }
        (now_us >= self.memory.hold_until_us).then_some((to * MARGIN - from, takes))
    }

    fn remember(&mut self, now_us: u64) {
        let chosen = self.chosen().map(|c| c.id);
        let m = &mut self.memory;
        let there = |id: u8, all: &[Choice]| all.iter().any(|c| c.id == id);
        let was = m.chosen.filter(|id| there(*id, self.choices.get(..self.len).unwrap_or(&[])));
        if chosen < was {
            let failed = now_us.saturating_sub(m.raised_us) < PROVEN_US;
            m.hold_us = match chosen {
                _ if failed && m.raised_us > 0 => (m.hold_us * 2).clamp(FIRST_HOLD_US, MAX_HOLD_US),
                None => FIRST_PAUSE_US,
                Some(_) => FIRST_HOLD_US,
            };
            m.hold_until_us = now_us + m.hold_us;
        } else if chosen > m.chosen && m.known {
            m.raised_us = now_us;
        }
        m.chosen = chosen;
        m.known = true;
    }
}

/// Divides; keeps nothing itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

impl Allocator {
    /// Choose for each stream within `budget_bps`; `None`: no limit is known. The order of `streams` changes.
    pub fn divide(now_us: u64, budget_bps: Option<u64>, streams: &mut [Stream]) {
        for s in streams.iter_mut() {
            s.at = None;
        }
        // Of equals the one that flows comes first: what comes back must not send away what has just come back.
        streams.sort_unstable_by_key(|s| (s.class, Reverse(s.rank), s.memory.chosen.is_none(), s.key));
        match budget_bps {
            None => streams.iter_mut().for_each(|s| s.at = s.len.checked_sub(1)),
            Some(budget) => Self::fill(now_us, budget as f64, streams),
        }
        for s in streams.iter_mut() {
            s.remember(now_us);
        }
    }

    fn fill(now_us: u64, mut left: f64, streams: &mut [Stream]) {
        let raise = |s: &mut Stream, left: &mut f64, needs_room: bool| {
            let index = s.at.map_or(0, |i| i + 1);
            let Some((price, takes)) = s.price(now_us, index) else { return false };
            if needs_room && price > *left {
                return false;
            }
            s.at = Some(index);
            *left -= takes;
            true
        };
        for s in streams.iter_mut().filter(|s| s.class == Class::Audio) {
            while raise(s, &mut left, false) {}
        }
        for s in streams.iter_mut().filter(|s| s.class != Class::Audio) {
            raise(s, &mut left, true);
        }
        for s in streams.iter_mut().filter(|s| s.class == Class::Screen && s.at.is_some()) {
            while raise(s, &mut left, true) {}
        }
        for _ in 1..MAX_CHOICES {
            let mut raised = false;
            for s in streams.iter_mut().filter(|s| s.class == Class::Camera && s.at.is_some()) {
                raised |= raise(s, &mut left, true);
            }
            if !raised {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(key: usize, rank: u32, memory: Memory) -> Stream {
        let mut s = Stream::new(key, Class::Camera, rank, memory);
        for (id, bps) in [(0, 150_000), (1, 500_000), (2, 1_700_000)] {
            s.add(Choice { id, bps });
        }
        s
    }

    fn audio(key: usize) -> Stream {
        let mut s = Stream::new(key, Class::Audio, 0, Memory::default());
        s.add(Choice { id: 0, bps: 40_000 });
        s
    }

    fn chosen(streams: &mut [Stream]) -> Vec<Option<u8>> {
        streams.sort_by_key(|s| s.key);
        streams.iter().map(|s| s.chosen().map(|c| c.id)).collect()
    }

    #[test]
    fn audio_then_screen_then_cameras_by_rank() {
        let mut screen = Stream::new(1, Class::Screen, 0, Memory::default());
        screen.add(Choice { id: 0, bps: 200_000 });
        screen.add(Choice { id: 1, bps: 1_200_000 });
        let d = Memory::default();
        let all = [audio(0), screen, camera(2, 2, d), camera(3, 1, d), camera(4, 1, d)];
        let at = |bps: u64| {
            let mut s = all;
            Allocator::divide(0, Some(bps), &mut s);
            chosen(&mut s)
        };
        assert_eq!(at(10_000), [Some(0), None, None, None, None], "audio is never paused");
        assert_eq!(at(300_000), [Some(0), Some(0), None, None, None]);
        assert_eq!(at(400_000), [Some(0), Some(0), Some(0), None, None], "the least relevant are paused");
        assert_eq!(at(1_700_000), [Some(0), Some(1), Some(0), Some(0), Some(0)]);
        assert_eq!(at(2_100_000), [Some(0), Some(1), Some(1), Some(0), Some(0)]);
        assert_eq!(at(2_800_000), [Some(0), Some(1), Some(1), Some(1), Some(1)]);
        assert_eq!(at(4_000_000), [Some(0), Some(1), Some(2), Some(1), Some(1)]);
        let mut s = all;
        Allocator::divide(0, None, &mut s);
        assert_eq!(chosen(&mut s), [Some(0), Some(1), Some(2), Some(2), Some(2)]);
    }

    #[test]
    fn an_estimate_around_a_step_does_not_flap() {
        let mut s = [camera(0, 0, Memory::default())];
        let (mut changes, mut last) = (0, None);
        for i in 0..600u64 {
            let budget = if i % 2 == 0 { 480_000 } else { 530_000 };
            Allocator::divide(i * 100_000, Some(budget), &mut s);
            let now = s[0].chosen().map(|c| c.id);
            changes += usize::from(i > 0 && now != last);
            last = now;
        }
        assert!(changes <= 1, "{changes}");
    }

    #[test]
    fn a_step_up_that_fails_is_tried_less_and_less() {
        let mut s = [camera(0, 0, Memory::default())];
        let mut ups = Vec::new();
        let mut last = Some(0);
        Allocator::divide(0, Some(300_000), &mut s);
        for i in 1..1200u64 {
            // The wider path is a mirage: each step up ends a second later.
            let lasts = ups.last().is_none_or(|t| i - t < 10);
            let budget = if s[0].chosen().is_some_and(|c| c.id == 1) && !lasts { 300_000 } else { 600_000 };
            Allocator::divide(i * 100_000, Some(budget), &mut s);
            let now = s[0].chosen().map(|c| c.id);
            if now > last {
                ups.push(i);
            }
            last = now;
        }
        let gaps: Vec<u64> = ups.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(gaps.len() >= 4 && gaps.is_sorted() && *gaps.last().unwrap() >= 160, "{gaps:?}");
    }

    #[test]
    fn a_layer_that_ends_is_not_a_failure() {
        let mut s = [camera(0, 0, Memory::default())];
        Allocator::divide(1, Some(3_000_000), &mut s);
        let mut less = Stream::new(0, Class::Camera, 0, s[0].memory);
        less.add(Choice { id: 0, bps: 150_000 });
        let mut s = [less];
        Allocator::divide(2, Some(3_000_000), &mut s);
        let mut s = [camera(0, 0, s[0].memory)];
        Allocator::divide(3, Some(3_000_000), &mut s);
        assert_eq!(s[0].chosen().map(|c| c.id), Some(2));
    }
}
