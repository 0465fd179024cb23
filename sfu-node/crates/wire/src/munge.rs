//! Per-subscriber rewrite: sequence, timestamp and VP8 picture-id continuity over layer switches, drops and padding.
#![allow(missing_docs, unused_variables)]
use crate::codec::vp8;
/// One source packet as the munger sees it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> { pub layer: u8, /// Extended by the source ([`crate::seq::SeqExtender`]).
    pub sequence: u64, pub timestamp: u32, pub vp8: Option<&'a vp8::Descriptor> }
/// How to rewrite it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite { /// ROC << 16 | sequence to send.
    pub index: u64, pub timestamp: u32, /// For [`vp8::patch`].
    pub vp8: vp8::Offsets }
impl Rewrite { #[must_use] pub fn sequence(&self) -> u16 { self.index as u16 } #[must_use] pub fn roc(&self) -> u32 { (self.index >> 16) as u32 } }
/// Where a sent packet came from: look it up in the layer's history, rewrite its timestamp with `timestamp_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin { pub layer: u8, pub sequence: u16, /// ROC << 16 | sequence it was sent with.
    pub index: u64, /// Add to the source's timestamp (wrapping).
    pub timestamp_offset: u32, pub vp8: vp8::Offsets }
#[derive(Debug)]
pub struct Munger(());
impl Munger {
    /// Random first values (RFC 3550 §5.1) come from the caller. `clock_rate` in Hz.
    #[must_use] pub fn new(first_sequence: u16, first_timestamp: u32, clock_rate: u32) -> Self { unimplemented!() }
    /// Layer now forwarded.
    #[must_use] pub fn layer(&self) -> Option<u8> { unimplemented!() }
    /// Makes `source` (first packet of a key frame) the start of what is forwarded; the output goes on without a gap.
    pub fn switch(&mut self, source: &Source<'_>, now_us: u64) -> Rewrite { unimplemented!() }
    /// None: not forwardable (another layer, or dropped, or too old).
    pub fn map(&mut self, source: &Source<'_>, now_us: u64) -> Option<Rewrite> { unimplemented!() }
    /// The packet (padding only, or thinned out) is not forwarded: later ones close up.
    pub fn drop_packet(&mut self, layer: u8, sequence: u64) { unimplemented!() }
    /// For a NACK of `sequence` as the subscriber saw it.
    #[must_use] pub fn origin(&self, sequence: u16) -> Option<Origin> { unimplemented!() }
    /// Highest index sent.
    #[must_use] pub fn highest_index(&self) -> Option<u64> { unimplemented!() }
    /// Last (timestamp, now_us) sent, for sender reports.
    #[must_use] pub fn last_timestamp(&self) -> Option<(u32, u64)> { unimplemented!() }
}
