//! Receive-side loss repair: which sequence numbers to ask for again, and when (RFC 4585 §6.2.1).
#![allow(missing_docs, unused_variables)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival { /// In order or ahead.
    New, /// Filled a gap.
    Recovered, Duplicate, /// Too far behind to matter.
    TooOld, /// The source jumped: state was reset.
    Reset }
#[derive(Debug, Default)]
pub struct GapTracker(());
impl GapTracker {
    #[must_use] pub fn new() -> Self { Self::default() }
    /// `seq` as carried by the media stream (for RTX: the original number).
    pub fn on_packet(&mut self, seq: u16, now_us: u64) -> Arrival { unimplemented!() }
    /// Appends the numbers due now, ascending; each is retried after about one RTT, ≤ 10 times, ≤ 1 s.
    pub fn poll(&mut self, now_us: u64, rtt_us: u64, out: &mut Vec<u16>) { unimplemented!() }
    /// When `poll` has something to do next.
    #[must_use] pub fn next_due_us(&self) -> Option<u64> { unimplemented!() }
    /// Gaps given up since last asked: a decoder may need a key frame.
    pub fn take_abandoned(&mut self) -> u32 { unimplemented!() }
    #[must_use] pub fn missing(&self) -> usize { unimplemented!() }
}
