//! Per-subscriber rewriting: one continuous stream of sequence numbers, timestamps and VP8 picture ids over
//! layer switches, dropped packets and padding.
//!
//! The state is a short list of *segments*, runs of source packets with constant offsets. The same list
//! answers the reverse question, which source packet a NACKed number was, so nothing is written per packet.

use crate::codec::vp8;
use crate::frames::FrameNumbers;
use crate::seq::extend_near;
use crate::svc::Limit;
use std::collections::VecDeque;

/// Segments remembered. NACKs for packets from before the oldest go unanswered.
const MAX_SEGMENTS: usize = 128;
/// A packet that comes more numbers late is not forwarded: who misses it asks for it.
const MAX_LATE: u64 = 512;
/// Numbers below the newest that a NACK may name.
const MAX_BACK: u64 = 16_384;
/// A source switch advances the timestamp at most this far.
const MAX_PAUSE_US: u64 = 10_000_000;

/// One source packet, as far as rewriting needs it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Which layer (or other source) it belongs to.
    pub layer: u8,
    /// Extended by the layer's [`crate::seq::SeqExtender`].
    pub sequence: u64,
    /// The layer's timestamp.
    pub timestamp: u32,
    /// VP8 only.
    pub vp8: Option<&'a vp8::Descriptor>,
}

/// How to rewrite a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// ROC << 16 | sequence.
    pub index: u64,
    /// Timestamp to send.
    pub timestamp: u32,
    /// For [`vp8::patch`].
    pub vp8: vp8::Offsets,
}

impl Rewrite {
    /// Sequence number to send.
    #[inline]
    #[must_use]
    pub fn sequence(&self) -> u16 {
        (self.index & 0xFFFF) as u16
    }

    /// Roll-over counter for [`crate::srtp::Outbound::seal_rtp`].
    #[inline]
    #[must_use]
    pub fn roc(&self) -> u32 {
        (self.index >> 16 & 0xFFFF_FFFF) as u32
    }
}

/// Where a sent packet came from. With it and the layer's [`crate::history::History`] the packet is rebuilt
/// exactly as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Layer whose history has it.
    pub layer: u8,
    /// Extended sequence number at the source.
    pub sequence: u64,
    /// ROC << 16 | sequence it was sent with.
    pub index: u64,
    /// Add (wrapping) to the source's timestamp.
    pub timestamp_offset: u32,
    /// For [`vp8::patch`].
    pub vp8: vp8::Offsets,
    /// How much of a scalable stream was forwarded there. A number may be that of a packet beyond it, which was lost
    /// and came late: that one was not sent.
    pub limit: Limit,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    layer: u8,
    /// First source sequence number, extended.
    source: u64,
    /// Index that it is sent with.
    index: u64,
    timestamp_offset: u32,
    vp8: vp8::Offsets,
    limit: Limit,
}

impl Segment {
    /// Index for a source number at or after the segment's start.
    fn index_of(&self, sequence: u64) -> Option<u64> {
        Some(self.index + sequence.checked_sub(self.source)?)
    }
}

/// Rewriting state of one subscriber stream.
#[derive(Debug)]
pub struct Munger {
    segments: VecDeque<Segment>,
    clock_rate: u32,
    next_index: u64,
    /// Which of the newest indexes were used, by index modulo their count.
    used: [u64; (MAX_LATE / 64) as usize],
    /// Newest (timestamp sent, when).
    last: Option<(u32, u64)>,
    first_timestamp: u32,
    picture_id: Option<u16>,
    tl0_pic_idx: Option<u8>,
    /// Of streams with dependency descriptors.
    pub frames: FrameNumbers,
}

impl Munger {
    /// `first_sequence` and `first_timestamp` should be random (RFC 3550 §5.1); a sequence below 32768
    /// keeps early reordering away from the first wrap. `clock_rate` in Hz.
    #[must_use]
    pub fn new(first_sequence: u16, first_timestamp: u32, clock_rate: u32) -> Self {
        Self {
            segments: VecDeque::new(),
            clock_rate,
            next_index: u64::from(first_sequence),
            used: [0; (MAX_LATE / 64) as usize],
            last: None,
            first_timestamp,
            picture_id: None,
            tl0_pic_idx: None,
            frames: FrameNumbers::default(),
        }
    }

    /// The layer that is forwarded now.
    #[must_use]
    pub fn layer(&self) -> Option<u8> {
        self.segments.back().map(|s| s.layer)
    }

    /// Makes `source`, the first packet of a key frame, the next packet to send. What is sent goes on
    /// without a gap; the timestamp advances by the time since the last packet.
    pub fn switch(&mut self, source: &Source<'_>, now_us: u64) -> Rewrite {
        let timestamp = match self.last {
            None => self.first_timestamp,
            Some((last, at_us)) => {
                let pause = now_us.saturating_sub(at_us).min(MAX_PAUSE_US);
                let ticks = u32::try_from(pause * u64::from(self.clock_rate) / 1_000_000).unwrap_or(0);
                // Two frames must not share a timestamp.
                last.wrapping_add(ticks.max(1))
            }
        };
        let segment = Segment {
            layer: source.layer,
            source: source.sequence,
            index: self.next_index,
            timestamp_offset: timestamp.wrapping_sub(source.timestamp),
            vp8: self.vp8_offsets(source.vp8),
            limit: Limit::ALL,
        };
        self.push(segment);
        self.take(segment.index);
        self.sent(&segment, source, segment.index, now_us)
    }

    /// Offsets under which the descriptor's ids follow the last ones sent.
    fn vp8_offsets(&self, descriptor: Option<&vp8::Descriptor>) -> vp8::Offsets {
        let Some(d) = descriptor else { return vp8::Offsets::default() };
        let picture_id = match (self.picture_id, d.picture_id) {
            (Some(last), Some(now)) => last.wrapping_add(1).wrapping_sub(now.value) & 0x7FFF,
            _ => 0,
        };
        let tl0_pic_idx = match (self.tl0_pic_idx, d.tl0_pic_idx) {
            (Some(last), Some(now)) => last.wrapping_add(1).wrapping_sub(now),
            _ => 0,
        };
        vp8::Offsets { picture_id, tl0_pic_idx }
    }

    fn push(&mut self, segment: Segment) {
        if self.segments.len() == MAX_SEGMENTS {
            self.segments.pop_front();
        }
        self.segments.push_back(segment);
    }

    /// Notes that an index is used. False: it is, or is too old to tell. Under the same keys none may be used twice
    /// (RFC 3711 §9.1), whatever the numbers at the source do.
    #[inline]
    fn take(&mut self, index: u64) -> bool {
        let slot = |index: u64| ((index / 64 % (MAX_LATE / 64)) as usize, 1u64 << (index % 64));
        if index < self.next_index {
            let (word, bit) = slot(index);
            if index + MAX_LATE < self.next_index || self.used[word] & bit != 0 {
                return false;
            }
        } else if index > self.next_index {
            for skipped in self.next_index.max(index.saturating_sub(MAX_LATE))..index {
                let (word, bit) = slot(skipped);
                self.used[word] &= !bit;
            }
        }
        let (word, bit) = slot(index);
        self.used[word] |= bit;
        true
    }

    fn sent(&mut self, segment: &Segment, source: &Source<'_>, index: u64, now_us: u64) -> Rewrite {
        let timestamp = source.timestamp.wrapping_add(segment.timestamp_offset);
        if index >= self.next_index {
            self.next_index = index + 1;
            self.last = Some((timestamp, now_us));
            if let Some(d) = source.vp8 {
                self.picture_id = d.picture_id.map(|p| p.value.wrapping_add(segment.vp8.picture_id) & 0x7FFF);
                self.tl0_pic_idx = d.tl0_pic_idx.map(|t| t.wrapping_add(segment.vp8.tl0_pic_idx));
            }
        }
        Rewrite { index, timestamp, vp8: segment.vp8 }
    }

    /// Rewrites a packet of the forwarded layer, late ones included. `None`: not to be forwarded (another
    /// layer, dropped before, or too old).
    #[inline]
    pub fn map(&mut self, source: &Source<'_>, now_us: u64) -> Option<Rewrite> {
        let segment = *self.segments.back()?;
        if segment.layer == source.layer
            && let Some(index) = segment.index_of(source.sequence)
        {
            return self.take(index).then(|| self.sent(&segment, source, index, now_us));
        }
        self.map_late(source, now_us)
    }

    /// A packet from before the newest segment.
    #[cold]
    fn map_late(&mut self, source: &Source<'_>, now_us: u64) -> Option<Rewrite> {
        let mut end = u64::MAX;
        let mut found = None;
        for segment in self.segments.iter().rev() {
            if segment.layer == source.layer
                && let Some(index) = segment.index_of(source.sequence)
            {
                // At or past the next segment's start: it was dropped, or came after a switch away.
                found = Some((*segment, index)).filter(|_| index < end);
                break;
            }
            // A later segment may begin further back, where numbers have closed up.
            end = end.min(segment.index);
        }
        let (segment, index) = found?;
        self.take(index).then(|| self.sent(&segment, source, index, now_us))
    }

    /// The packet (padding only, or thinned out) is not forwarded: the numbers behind it close up. One that
    /// comes after a later packet was sent leaves its gap.
    pub fn drop_packet(&mut self, layer: u8, sequence: u64) {
        let Some(segment) = self.segments.back().copied().filter(|s| s.layer == layer) else { return };
        let Some(index) = segment.index_of(sequence).filter(|i| *i >= self.next_index) else { return };
        let next = Segment { source: sequence + 1, index, ..segment };
        // A run of dropped packets moves one segment on instead of adding many.
        match self.segments.back_mut().filter(|s| s.source == sequence) {
            Some(last) => *last = next,
            None => self.push(next),
        }
    }

    /// The packet comes after all of the forwarded layer that were sent or dropped.
    #[must_use]
    pub fn is_next(&self, layer: u8, sequence: u64) -> bool {
        let segment = self.segments.back().filter(|s| s.layer == layer);
        segment.and_then(|s| s.index_of(sequence)).is_some_and(|index| index >= self.next_index)
    }

    /// How much of a scalable stream is forwarded in the place of this packet.
    #[must_use]
    pub fn limit_at(&self, layer: u8, sequence: u64) -> Limit {
        let segment = self.segments.iter().rev().find(|s| s.layer == layer && s.source <= sequence);
        segment.map_or(Limit::ALL, |s| s.limit)
    }

    /// From this packet on, the newest sent or the next, another part of the scalable stream is forwarded.
    pub fn set_limit(&mut self, layer: u8, sequence: u64, limit: Limit) {
        let Some(segment) = self.segments.back().copied().filter(|s| s.layer == layer) else { return };
        let Some(index) = segment.index_of(sequence).filter(|_| segment.limit != limit) else { return };
        match self.segments.back_mut().filter(|s| s.source == sequence) {
            Some(last) => last.limit = limit,
            None => self.push(Segment { source: sequence, index, limit, ..segment }),
        }
    }

    /// Packets of the layer before `sequence` that were not sent are not going to be: the numbers close up, and the
    /// timestamps go on at the source's pace.
    pub fn skip_to(&mut self, layer: u8, sequence: u64) {
        let Some(segment) = self.segments.back().copied().filter(|s| s.layer == layer) else { return };
        if segment.index_of(sequence).is_some_and(|index| index > self.next_index) {
            self.push(Segment { source: sequence, index: self.next_index, ..segment });
        }
    }

    /// The source of a number that the subscriber has NACKed.
    #[must_use]
    pub fn origin(&self, sequence: u16) -> Option<Origin> {
        let newest = self.next_index.checked_sub(1)?;
        let index = extend_near(newest, sequence);
        if index > newest || index + MAX_BACK <= newest {
            return None;
        }
        let segment = self.segments.iter().rev().find(|s| s.index <= index)?;
        Some(Origin {
            layer: segment.layer,
            sequence: segment.source + (index - segment.index),
            index,
            timestamp_offset: segment.timestamp_offset,
            vp8: segment.vp8,
            limit: segment.limit,
        })
    }

    /// Highest index sent.
    #[must_use]
    pub fn highest_index(&self) -> Option<u64> {
        self.last.and(self.next_index.checked_sub(1))
    }

    /// Newest (timestamp sent, when it was sent), for sender reports.
    #[must_use]
    pub fn last_timestamp(&self) -> Option<(u32, u64)> {
        self.last
    }

    /// What is added (wrapping) to the timestamps of the layer that is forwarded now.
    #[must_use]
    pub fn timestamp_offset(&self) -> Option<u32> {
        self.segments.back().map(|s| s.timestamp_offset)
    }
}

#[cfg(test)]
#[path = "munge_tests.rs"]
mod tests;
