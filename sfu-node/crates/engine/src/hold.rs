//! Packets between arrival and forwarding.
//!
//! A frame goes out as one run: all its packets for one subscriber are encrypted side by side and leave in one
//! message, which costs the kernel a fraction of one message each. A decoder shows nothing before the frame's last
//! packet, so the wait for that packet costs no picture time; it is bounded all the same, and a source that spaces
//! its packets is not waited for.

use crate::arena::Key;
use std::collections::VecDeque;

/// Packets forwarded in one go.
pub(crate) const MAX_RUN: usize = 32;
/// Longest wait for the rest of a frame, from its first packet.
const HOLD_US: u64 = 1_000;
/// A source whose packets of one frame come farther apart than this is not waited for.
const BURST_GAP_US: u64 = 250;

/// A packet that waits; its content is in the layer's history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub spatial: u8,
    /// Extended sequence number in the layer's numbering.
    pub index: u64,
    pub key_frame: bool,
    pub retransmission: bool,
    pub arrived_us: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Queued {
    #[default]
    No,
    /// Waits for the rest of a frame until this time.
    Until(u64),
    Ready,
}

/// What one track holds.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub packets: Vec<Held>,
    queued: Queued,
    /// Of the newest packet: (timestamp, when it came).
    newest: Option<(u32, u64)>,
    /// Smoothed time between packets of one frame.
    gap_us: u64,
}

/// What [`Run::push`] knows of a packet's place in its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The wait for more would be vain: audio, a frame's last packet, a repaired one.
    pub complete: bool,
    pub timestamp: u32,
}

/// All tracks that hold packets.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    /// Every wait is equally long, so the front is due first.
    waiting: VecDeque<(u64, Key, Key)>,
    ready: VecDeque<(Key, Key)>,
}

impl Run {
    /// Add a packet of track `track` in `room`.
    #[inline]
    pub fn push(
        &mut self,
        holds: &mut Holds,
        now_us: u64,
        (room, track): (Key, Key),
        held: Held,
        place: Place,
    ) {
        if let Some((timestamp, at)) = self.newest
            && timestamp == place.timestamp
        {
            let gap = held.arrived_us.saturating_sub(at).min(10 * BURST_GAP_US);
            self.gap_us = (self.gap_us * 3 + gap) / 4;
        }
        self.newest = Some((place.timestamp, held.arrived_us));
        self.packets.push(held);
        let full = self.packets.len() >= MAX_RUN;
        if place.complete || full || self.gap_us > BURST_GAP_US {
            if self.queued != Queued::Ready {
                self.queued = Queued::Ready;
                holds.ready.push_back((room, track));
            }
        } else if self.queued == Queued::No {
            let due = now_us + HOLD_US;
            self.queued = Queued::Until(due);
            holds.waiting.push_back((due, room, track));
        }
    }

    /// The packets go out now.
    pub fn take(&mut self) -> Vec<Held> {
        self.queued = Queued::No;
        std::mem::take(&mut self.packets)
    }

    /// Give the list back, so that the next run needs no memory.
    pub fn reuse(&mut self, mut packets: Vec<Held>) {
        packets.clear();
        if self.packets.is_empty() {
            self.packets = packets;
        }
    }

    /// The wait that ends at `due` is the one in force.
    pub fn is_due(&self, due: u64) -> bool {
        self.queued == Queued::Until(due)
    }
}

impl Holds {
    /// A track whose packets go out now.
    pub fn pop_ready(&mut self) -> Option<(Key, Key)> {
        self.ready.pop_front()
    }

    /// A wait that ended: (end, room, track).
    pub fn pop_due(&mut self, now_us: u64) -> Option<(u64, Key, Key)> {
        self.waiting.front().filter(|w| w.0 <= now_us)?;
        self.waiting.pop_front()
    }

    /// The wait that ends first, maybe of a track that waits no more: (end, room, track).
    pub fn front(&self) -> Option<(u64, Key, Key)> {
        self.waiting.front().copied()
    }

    /// Forget the wait that ends first.
    pub fn skip(&mut self) {
        self.waiting.pop_front();
    }

    /// When something has to go out; 0: now.
    pub fn next(&self) -> Option<u64> {
        if self.ready.is_empty() { self.waiting.front().map(|w| w.0) } else { Some(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;

    fn held(index: u64, arrived_us: u64) -> Held {
        Held { spatial: 0, index, key_frame: false, retransmission: false, arrived_us }
    }

    fn keys() -> (Key, Key) {
        let mut a = Arena::default();
        (a.insert(()), a.insert(()))
    }

    /// Frames of four packets, `gap` apart. Returns how many packets each release had.
    fn releases(gap: u64, frames: u32) -> Vec<usize> {
        let (mut run, mut holds, keys) = (Run::default(), Holds::default(), keys());
        let (mut now, mut got) = (0, Vec::new());
        for frame in 0..frames {
            now += 33_000;
            for i in 0..4 {
                now += gap;
                while let Some((due, ..)) = holds.pop_due(now) {
                    if run.is_due(due) {
                        got.push(run.take().len());
                    }
                }
                let place = Place { complete: i == 3, timestamp: frame };
                run.push(&mut holds, now, keys, held(u64::from(frame * 4 + i), now), place);
                while holds.pop_ready().is_some() {
                    got.push(run.take().len());
                }
            }
        }
        got
    }

    #[test]
    fn a_frame_sent_at_once_goes_out_at_once() {
        assert_eq!(releases(20, 5), [4; 5]);
    }

    #[test]
    fn a_source_that_spaces_its_packets_is_not_waited_for() {
        let got = releases(3_000, 20);
        assert_eq!(got.len(), 80, "{got:?}");
    }

    #[test]
    fn a_frame_without_an_end_waits_for_a_millisecond_and_no_longer() {
        let (mut run, mut holds, keys) = (Run::default(), Holds::default(), keys());
        let open = Place { complete: false, timestamp: 7 };
        run.push(&mut holds, 5_000, keys, held(1, 5_000), open);
        run.push(&mut holds, 5_100, keys, held(2, 5_100), open);
        assert_eq!(holds.next(), Some(6_000));
        assert_eq!(holds.pop_due(5_999), None);
        let (due, ..) = holds.pop_due(6_000).unwrap();
        assert!(run.is_due(due));
        assert_eq!(run.take().len(), 2);
        assert!(!run.is_due(due));
        assert_eq!(holds.next(), None);
    }

    #[test]
    fn a_run_has_a_bound() {
        let (mut run, mut holds, keys) = (Run::default(), Holds::default(), keys());
        let open = Place { complete: false, timestamp: 7 };
        for i in 0..MAX_RUN as u64 {
            assert_eq!(holds.pop_ready(), None);
            run.push(&mut holds, 0, keys, held(i, 0), open);
        }
        assert_eq!(holds.pop_ready(), Some(keys));
    }
}
