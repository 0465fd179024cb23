//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1):
//! a recorder of arrivals with a feedback builder, and a parser.

use crate::bytes::{u8_at, u16_at, u24_at, u32_at};
use crate::rtcp;
use crate::seq::SeqExtender;
use std::collections::VecDeque;

/// Most sequence numbers that one feedback packet covers.
const MAX_STATUSES: usize = 512;
/// Widest span of unreported sequence numbers kept; older ones are forgotten.
const MAX_SPAN: u64 = 2048;
/// So many in a row from far behind are a sender that restarted its numbering.
const MAX_STALE: u8 = 16;
/// Delta unit.
const TICK_US: i64 = 250;
/// Reference time unit, 256 ticks.
const REFERENCE_US: i64 = 64_000;

/// Arrival times of a receiver's packets, by transport-wide sequence number.
#[derive(Debug, Default)]
pub struct Recorder {
    extender: SeqExtender,
    /// Arrival of sequence number `base + index`, in µs; `None`: not arrived.
    window: VecDeque<Option<u64>>,
    base: u64,
    feedback_count: u8,
    /// Numbers in a row that were behind everything.
    stale: u8,
}

impl Recorder {
    /// An empty recorder; it allocates with the first packet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that transport-wide sequence number `seq` arrived. The first arrival of a number counts;
    /// one that is behind all that is unreported is ignored.
    pub fn record(&mut self, seq: u16, now_us: u64) {
        let at = self.extender.extend(seq);
        if self.window.is_empty() && at >= self.base {
            // Numbers missing since the last feedback are reported as lost, within reason.
            if self.base == 0 || at - self.base >= MAX_SPAN {
                self.base = at;
            }
        }
        let Some(offset) = at.checked_sub(self.base) else { return self.on_stale(seq, at, now_us) };
        self.stale = 0;
        if offset >= MAX_SPAN {
            self.forget_before(at + 1 - MAX_SPAN);
        }
        let Ok(index) = usize::try_from(at.saturating_sub(self.base)) else { return };
        if index >= self.window.len() {
            self.window.resize(index + 1, None);
        }
        if let Some(slot) = self.window.get_mut(index) {
            slot.get_or_insert(now_us);
        }
    }

    /// Behind everything unreported: late, or the sender has started anew.
    fn on_stale(&mut self, seq: u16, at: u64, now_us: u64) {
        if self.base - at < MAX_SPAN {
            return;
        }
        self.stale += 1;
        if self.stale == MAX_STALE {
            *self = Self { feedback_count: self.feedback_count, ..Self::default() };
            self.record(seq, now_us);
        }
    }

    fn forget_before(&mut self, base: u64) {
        while self.base < base && self.window.pop_front().is_some() {
            self.base += 1;
        }
        self.base = base;
    }

    /// Something has arrived that was not reported yet.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.window.is_empty()
    }

    /// Appends one RTCP feedback packet (205/15) about what arrived since the last one.
    ///
    /// `false`: nothing left to report. One call covers at most 512 numbers: call until `false`.
    /// `media` is any media SSRC of the transport.
    pub fn push_feedback(&mut self, out: &mut Vec<u8>, sender: u32, media: u32) -> bool {
        // A packet that brought nothing but losses would have no reference: skip leading losses only
        // where even the limit of one packet holds no arrival.
        let Some(first) = self.window.iter().position(Option::is_some) else {
            return false;
        };
        if first >= MAX_STATUSES {
            self.window.drain(..first);
            self.base += first as u64;
        }
        let Some(Some(first_us)) = self.window.iter().find(|a| a.is_some()) else { return false };
        let reference = i64::try_from(*first_us).unwrap_or(0) / REFERENCE_US;
        let (symbols, deltas) = self.encode(reference * REFERENCE_US);
        let count = u16::try_from(symbols.len()).unwrap_or(0);
        let [base_hi, base_lo, ..] = (self.base << 48).to_be_bytes();
        let [_, _, _, _, _, r0, r1, r2] = reference.to_be_bytes();
        let feedback_count = self.feedback_count;
        rtcp::push_packet(out, 15, 205, |out| {
            out.extend_from_slice(&sender.to_be_bytes());
            out.extend_from_slice(&media.to_be_bytes());
            out.extend_from_slice(&[base_hi, base_lo]);
            out.extend_from_slice(&count.to_be_bytes());
            out.extend_from_slice(&[r0, r1, r2, feedback_count]);
            push_chunks(out, &symbols);
            out.extend_from_slice(&deltas);
        });
        self.feedback_count = self.feedback_count.wrapping_add(1);
        self.window.drain(..symbols.len());
        self.base += symbols.len() as u64;
        true
    }

    /// Status symbols and deltas from the window's start, up to the limit or to a delta that 16 bits
    /// cannot hold.
    fn encode(&self, reference_us: i64) -> (Vec<u8>, Vec<u8>) {
        let mut symbols = Vec::with_capacity(self.window.len().min(MAX_STATUSES));
        let mut deltas = Vec::with_capacity(symbols.capacity());
        let mut last = reference_us;
        let mut arrived = 0;
        for arrival in self.window.iter().take(MAX_STATUSES) {
            let Some(arrival) = arrival else {
                symbols.push(0);
                continue;
            };
            let ticks = (i64::try_from(*arrival).unwrap_or(0) - last).div_euclid(TICK_US);
            last += ticks * TICK_US;
            if let Ok(small) = u8::try_from(ticks) {
                symbols.push(1);
                deltas.push(small);
            } else if let Ok(large) = i16::try_from(ticks) {
                symbols.push(2);
                deltas.extend_from_slice(&large.to_be_bytes());
            } else {
                break;
            }
            arrived = symbols.len();
        }
        // Trailing losses belong to the next packet: they may just be late.
        symbols.truncate(arrived);
        (symbols, deltas)
    }
}

/// Run-length chunks for 7 equal symbols or more, two-bit vectors of 7 otherwise.
fn push_chunks(out: &mut Vec<u8>, symbols: &[u8]) {
    let mut rest = symbols;
    while let Some(&first) = rest.first() {
        let run = rest.iter().take_while(|s| **s == first).count();
        let taken = if run >= 7 {
            let word = u16::from(first) << 13 | u16::try_from(run).unwrap_or(0x1FFF);
            out.extend_from_slice(&word.to_be_bytes());
            run
        } else {
            let word =
                rest.iter().take(7).enumerate().fold(0xC000, |w, (i, s)| w | u16::from(*s) << (12 - 2 * i));
            out.extend_from_slice(&word.to_be_bytes());
            rest.len().min(7)
        };
        rest = rest.get(taken..).unwrap_or(&[]);
    }
}

/// A parsed feedback packet.
#[derive(Clone, Debug)]
pub struct Feedback<'a> {
    /// Sender of the feedback.
    pub sender: u32,
    /// Media source.
    pub media: u32,
    /// First sequence number covered.
    pub base: u16,
    /// Sequence numbers covered; one that lists more than 8192 is refused.
    pub count: u16,
    /// Reference time in µs on the receiver's clock, modulo 2^24 × 64 ms, signed.
    pub reference_us: i64,
    /// Number of the feedback packet.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// Parses the body after the common RTCP header. Checks that chunks cover `count`.
    pub(crate) fn parse(body: &'a [u8]) -> Option<Self> {
        let count = u16_at(body, 10).filter(|c| *c <= 8192)?;
        let fci = body.get(16..)?;
        let mut covered = 0;
        let mut at = 0;
        while covered < usize::from(count) {
            covered += Chunk::read(u16_at(fci, at)?).len();
            at += 2;
        }
        let (chunks, deltas) = fci.split_at_checked(at)?;
        Some(Self {
            sender: u32_at(body, 0)?,
            media: u32_at(body, 4)?,
            base: u16_at(body, 8)?,
            count,
            reference_us: i64::from((u24_at(body, 12)? << 8).cast_signed() >> 8) * REFERENCE_US,
            feedback_count: u8_at(body, 15)?,
            chunks,
            deltas,
        })
    }

    /// (sequence number, arrival in µs on the receiver's clock; `None`: not arrived). Ends early where
    /// deltas are missing.
    #[must_use]
    pub fn statuses(&self) -> Statuses<'a> {
        Statuses {
            chunks: self.chunks,
            chunk: Chunk { word: 0, left: 0 },
            deltas: self.deltas,
            seq: self.base,
            left: self.count,
            time_us: self.reference_us,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    word: u16,
    left: u16,
}

impl Chunk {
    fn read(word: u16) -> Self {
        let left = match word >> 14 {
            0 | 1 => word & 0x1FFF,
            2 => 14,
            _ => 7,
        };
        Self { word, left }
    }

    fn len(self) -> usize {
        usize::from(self.left)
    }

    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        Some(match self.word >> 14 {
            0 | 1 => self.word >> 13 & 3,
            2 => self.word >> self.left & 1,
            _ => self.word >> (2 * self.left) & 3,
        })
    }
}

/// Iterator of [`Feedback::statuses`].
#[derive(Clone, Debug)]
pub struct Statuses<'a> {
    chunks: &'a [u8],
    chunk: Chunk,
    deltas: &'a [u8],
    seq: u16,
    left: u16,
    time_us: i64,
}

impl Iterator for Statuses<'_> {
    type Item = (u16, Option<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let symbol = loop {
            if let Some(s) = self.chunk.next() {
                break s;
            }
            // A run of length 0 covers nothing: the loop ends with the chunks.
            self.chunk = Chunk::read(u16_at(self.chunks, 0)?);
            self.chunks = self.chunks.get(2..)?;
        };
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        let (ticks, used) = match symbol {
            1 => (i64::from(u8_at(self.deltas, 0)?), 1),
            2 => (i64::from(u16_at(self.deltas, 0)?.cast_signed()), 2),
            _ => return Some((seq, None)),
        };
        self.deltas = self.deltas.get(used..)?;
        self.time_us += ticks * TICK_US;
        Some((seq, Some(self.time_us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::{Packet, Packets};

    fn statuses(b: &[u8]) -> Vec<(u16, Option<i64>)> {
        let Some(Packet::TransportCc(f)) = Packets::new(b).next() else { panic!("no feedback in {b:02x?}") };
        f.statuses().collect()
    }

    fn feedback(r: &mut Recorder) -> Vec<(u16, Option<i64>)> {
        let mut out = Vec::new();
        assert!(r.push_feedback(&mut out, 1, 2));
        assert_eq!(out.len() % 4, 0);
        statuses(&out)
    }

    #[test]
    fn arrivals_losses_and_reordering_over_the_wrap() {
        let mut r = Recorder::new();
        for (seq, t) in
            [(65_534, 1_000_000), (65_535, 1_001_000), (2, 1_003_000), (0, 1_002_000), (3, 1_500_000)]
        {
            r.record(seq, t);
        }
        let got = feedback(&mut r);
        let want = [
            (65_534, 1_000_000),
            (65_535, 1_001_000),
            (0, 1_002_000),
            (1, 0),
            (2, 1_003_000),
            (3, 1_500_000),
        ];
        assert_eq!(got.len(), want.len());
        for ((seq, t), (want_seq, want_t)) in got.iter().zip(want) {
            assert_eq!(*seq, want_seq);
            match t {
                None => assert_eq!(want_t, 0),
                Some(t) => assert!((t - want_t).abs() <= TICK_US, "{t} {want_t}"),
            }
        }
        assert!(!r.is_pending());
        assert!(!r.push_feedback(&mut Vec::new(), 1, 2));
    }

    #[test]
    fn a_loss_between_feedbacks_is_reported_by_the_next() {
        let mut r = Recorder::new();
        r.record(10, 1000);
        feedback(&mut r);
        r.record(13, 2000);
        let got = feedback(&mut r);
        assert_eq!(
            got.iter().map(|s| (s.0, s.1.is_some())).collect::<Vec<_>>(),
            [(11, false), (12, false), (13, true)]
        );
        // Too late: reported as lost already.
        r.record(11, 3000);
        assert!(!r.is_pending());
    }

    #[test]
    fn long_runs_are_split_and_complete() {
        let mut r = Recorder::new();
        for i in 0..1300u64 {
            if i % 100 != 7 {
                r.record((60_000 + i) as u16, 5_000_000 + i * 700);
            }
        }
        let mut all = Vec::new();
        let mut out = Vec::new();
        while r.push_feedback(&mut out, 1, 2) {
            all.extend(statuses(&out));
            out.clear();
        }
        assert_eq!(all.len(), 1300);
        for (i, (seq, t)) in all.iter().enumerate() {
            assert_eq!(*seq, (60_000 + i) as u16);
            assert_eq!(t.is_none(), i % 100 == 7);
            if let Some(t) = t {
                assert!((t - (5_000_000 + i as i64 * 700)).abs() <= TICK_US);
            }
        }
    }

    #[test]
    fn a_sender_that_restarts_its_numbers_is_followed() {
        let mut r = Recorder::new();
        r.record(30_000, 1_000_000);
        feedback(&mut r);
        for i in 0..40u16 {
            r.record(10_000 + i, 2_000_000);
        }
        let got = feedback(&mut r);
        assert_eq!((got.first().map(|s| s.0), got.len()), (Some(10_015), 25));
        // A few strays change nothing.
        for i in 0..10u16 {
            r.record(60_000 + i, 2_000_000);
        }
        r.record(10_040, 2_000_000);
        assert_eq!(feedback(&mut r), [(10_040, Some(2_000_000))]);
    }

    #[test]
    fn a_pause_longer_than_a_delta_starts_a_new_packet() {
        let mut r = Recorder::new();
        r.record(1, 1_000_000);
        r.record(2, 60_000_000);
        assert_eq!(feedback(&mut r).len(), 1);
        let second = feedback(&mut r);
        assert_eq!(second.len(), 1);
        assert!((second[0].1.unwrap() - 60_000_000).abs() <= TICK_US);
    }

    #[test]
    fn a_clock_beyond_the_reference_range_wraps() {
        let mut r = Recorder::new();
        let t = (1u64 << 24) * 64_000 + 128_000;
        r.record(1, t);
        assert_eq!(feedback(&mut r)[0].1, Some(128_000));
    }

    #[test]
    fn memory_is_bounded_whatever_arrives() {
        let mut r = Recorder::new();
        let mut x = 1u32;
        for i in 0..100_000u64 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            r.record((x >> 16) as u16, i * 13);
            assert!(r.window.len() as u64 <= MAX_SPAN);
            if i % 97 == 0 {
                let mut out = Vec::new();
                for _ in 0..16 {
                    if !r.push_feedback(&mut out, 1, 2) {
                        break;
                    }
                    assert!(!statuses(&out).is_empty());
                    out.clear();
                }
            }
        }
    }

    #[test]
    fn every_symbol_form_parses() {
        // One-bit vector 0b10_1…: 14 symbols, of which the first and third arrived.
        let mut b = vec![
            0x8F,
            205,
            0,
            6,
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            2,
            0,
            9,
            0,
            3,
            0,
            0,
            1,
            5,
            0b1010_1000,
            0,
            4,
            8,
            0,
            0,
            0,
            0,
        ];
        let got = statuses(&b);
        assert_eq!(got, [(9, Some(65_000)), (10, None), (11, Some(67_000))]);
        // Statuses that no chunk covers.
        b.truncate(20);
        b[3] = 4;
        assert!(Packets::new(&b).next().is_none());
        // Negative delta.
        let b = [0x8F, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 9, 0, 1, 0, 0, 1, 5, 0x40, 1, 0xFF, 0xFF];
        assert_eq!(statuses(&b), [(9, Some(64_000 - 250))]);
    }
}
