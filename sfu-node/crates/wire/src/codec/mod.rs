//! What forwarding needs to know of a codec: where a key frame starts.
#![allow(missing_docs, unused_variables)]
pub mod av1; pub mod h264; pub mod vp8; pub mod vp9;
/// Numbers are those of `headwater.node.v1.Codec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec { Opus = 1, Red = 2, Pcmu = 3, Pcma = 4, Vp8 = 10, H264 = 11, Vp9 = 12, Av1 = 13, H265 = 14, Rtx = 30 }
impl Codec {
    #[must_use] pub fn from_number(n: u8) -> Option<Self> { unimplemented!() }
    #[must_use] pub fn is_video(self) -> bool { unimplemented!() }
    /// The packet starts a key frame (first packet, so a switch may begin with it). Audio: always true.
    #[must_use] pub fn starts_key_frame(self, payload: &[u8]) -> bool { unimplemented!() }
}
