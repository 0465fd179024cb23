//! Node to node envelope, version 1.
#![allow(missing_docs, unused_variables)]
use crate::codec::Codec;
pub const HEADER: usize = 20;
pub const TAG: usize = 16;
/// Shortest datagram that can be one.
pub const MIN_DATAGRAM: usize = HEADER + TAG;
/// Longest datagram a link sends.
pub const MAX_DATAGRAM: usize = 1452;
pub const MAX_TRACK_ID: usize = 128;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media<'a> { pub handle: u32, pub spatial: u8, pub codec: Codec, pub marker: bool, /// First packet of a key frame.
    pub key_frame: bool, /// Answer to a NACK.
    pub retransmission: bool, pub sequence: u16, pub timestamp: u32, /// Normalised block ([`crate::ext`]).
    pub extensions: &'a [u8], pub payload: &'a [u8] }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand<'a> { pub handle: u32, /// Bit n: spatial layer n is wanted. 0: nothing any more.
    pub spatial_mask: u8, pub track_id: &'a str }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Media(Media<'a>),
    Demand(Demand<'a>),
    Nack { handle: u32, spatial: u8, lost: Seqs<'a> },
    KeyFrameRequest { handle: u32, spatial: u8 },
    Ping { id: u32, sent_us: u64 },
    Pong { id: u32, sent_us: u64 },
    /// Datagrams received and expected since the link opened, on the sender's counter.
    Report { received: u64, expected: u64 },
    /// The source's last sender report: lip sync over hops.
    SenderClock { handle: u32, spatial: u8, ntp: u64, rtp_timestamp: u32 },
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seqs<'a>(&'a [u8]);
impl<'a> Seqs<'a> { pub fn iter(&self) -> impl Iterator<Item = u16> + 'a { unimplemented!() as std::vec::IntoIter<u16> } }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayError { Malformed, Version, Token, Epoch, Authentication, Replayed, TooLarge }
/// Link token of an envelope, before anything is checked: finds the link.
#[must_use] pub fn token(datagram: &[u8]) -> Option<u32> { unimplemented!() }
pub struct Sealer(());
impl Sealer {
    /// `first_counter` must be above any used before with this key: pass Unix microseconds.
    #[must_use] pub fn new(key: &[u8; 32], token: u32, epoch: u32, first_counter: u64) -> Option<Self> { unimplemented!() }
    /// Starts a datagram at the end of `arena`.
    pub fn begin<'a>(&'a mut self, arena: &'a mut Vec<u8>) -> Datagram<'a> { unimplemented!() }
}
/// One datagram under construction: push messages, then seal. Dropping it leaves the arena as it was.
pub struct Datagram<'a>(std::marker::PhantomData<&'a ()>);
impl Datagram<'_> {
    /// Err(TooLarge): does not fit behind what is there; seal and begin another.
    pub fn media(&mut self, m: &Media<'_>) -> Result<(), RelayError> { unimplemented!() }
    pub fn demand(&mut self, d: &Demand<'_>) -> Result<(), RelayError> { unimplemented!() }
    /// Writes as many as fit, returns how many.
    pub fn nack(&mut self, handle: u32, spatial: u8, lost: &[u16]) -> usize { unimplemented!() }
    pub fn key_frame_request(&mut self, handle: u32, spatial: u8) -> Result<(), RelayError> { unimplemented!() }
    pub fn ping(&mut self, id: u32, sent_us: u64) -> Result<(), RelayError> { unimplemented!() }
    pub fn pong(&mut self, id: u32, sent_us: u64) -> Result<(), RelayError> { unimplemented!() }
    pub fn report(&mut self, received: u64, expected: u64) -> Result<(), RelayError> { unimplemented!() }
    pub fn sender_clock(&mut self, handle: u32, spatial: u8, ntp: u64, rtp_timestamp: u32) -> Result<(), RelayError> { unimplemented!() }
    #[must_use] pub fn is_empty(&self) -> bool { unimplemented!() }
    /// Encrypts; the datagram is `arena[start..]`, its length is returned.
    pub fn seal(self) -> Result<usize, RelayError> { unimplemented!() }
}
pub struct Opener(());
impl Opener {
    #[must_use] pub fn new(key: &[u8; 32], token: u32, epoch: u32) -> Option<Self> { unimplemented!() }
    /// Authenticates and decrypts in place, checks the replay window.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<Messages<'a>, RelayError> { unimplemented!() }
    /// (received, expected) datagrams so far, for [`Message::Report`].
    #[must_use] pub fn counts(&self) -> (u64, u64) { unimplemented!() }
}
/// Messages of a decrypted datagram; ends at the first malformed one, skips unknown types.
#[derive(Clone, Debug)] pub struct Messages<'a>(&'a [u8]);
impl<'a> Iterator for Messages<'a> { type Item = Message<'a>; fn next(&mut self) -> Option<Message<'a>> { unimplemented!() } }
