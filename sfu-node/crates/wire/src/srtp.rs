//! SRTP and SRTCP (RFC 3711, RFC 7714).
#![allow(missing_docs, unused_variables)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Profile { Aes128CmSha1_80 = 1, AeadAes128Gcm = 7, AeadAes256Gcm = 8 }
impl Profile {
    #[must_use] pub fn from_id(id: u16) -> Option<Self> { unimplemented!() }
    /// IANA name, as in `srtp_profile` of the node's events.
    #[must_use] pub fn name(self) -> &'static str { unimplemented!() }
    /// Length of the DTLS exporter output (RFC 5764 §4.2).
    #[must_use] pub fn material_len(self) -> usize { unimplemented!() }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrtpError { Malformed, Authentication, Replayed, TooManySources, KeyLength, Crypto }
/// Which end of the DTLS handshake we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role { Client, Server }
/// Receive direction.
pub struct Inbound(());
/// Send direction.
pub struct Outbound(());
/// Both directions from the DTLS exporter's output. Lengths are checked.
pub fn sessions(profile: Profile, material: &[u8], role: Role) -> Result<(Inbound, Outbound), SrtpError> { unimplemented!() }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedRtp { /// Length of the decrypted packet: `&packet[..len]`.
    pub len: usize, /// ROC << 16 | sequence.
    pub index: u64 }
impl Inbound {
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<OpenedRtp, SrtpError> { unimplemented!() }
    /// Length of the decrypted compound packet.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> { unimplemented!() }
    pub fn forget_source(&mut self, ssrc: u32) { unimplemented!() }
}
impl Outbound {
    /// Encrypts the packet at `arena[start..]` in place and appends the tag. `roc`: upper bits of the sender's packet index.
    /// The same (ssrc, roc, sequence) must never be sealed twice with different bytes: with GCM that gives the key away.
    /// So a NACK answered on the media SSRC (no RTX) must rebuild the packet byte for byte: no transport-cc or abs-send-time there.
    pub fn seal_rtp(&self, arena: &mut Vec<u8>, start: usize, roc: u32) -> Result<(), SrtpError> { unimplemented!() }
    pub fn seal_rtcp(&mut self, arena: &mut Vec<u8>, start: usize) -> Result<(), SrtpError> { unimplemented!() }
    /// Bytes that `seal_rtp` adds.
    #[must_use] pub fn rtp_overhead(&self) -> usize { unimplemented!() }
}
