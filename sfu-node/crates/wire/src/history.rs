//! Recent packets of one source layer, for NACK answers: one ring of bytes, bounded, no allocation per packet.
#![allow(missing_docs, unused_variables)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> { pub sequence: u16, pub timestamp: u32, pub marker: bool, pub payload_type: u8, /// Normalised block ([`crate::ext`]).
    pub extensions: &'a [u8], pub payload: &'a [u8], pub arrival_us: u64 }
#[derive(Debug)]
pub struct History(());
impl History {
    /// `max_packets` is rounded up to a power of two; the byte ring is allocated with the first packet.
    #[must_use] pub fn new(max_packets: usize, max_bytes: usize) -> Self { unimplemented!() }
    pub fn insert(&mut self, packet: &Stored<'_>) { unimplemented!() }
    #[must_use] pub fn get(&self, sequence: u16) -> Option<Stored<'_>> { unimplemented!() }
    pub fn clear(&mut self) { unimplemented!() }
}
