//! VP8 payload descriptor (RFC 7741 §4.2).
#![allow(missing_docs, unused_variables)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor { pub len: usize, pub start_of_partition: bool, pub partition: u8, pub picture_id: Option<PictureId>, pub tl0_pic_idx: Option<u8>, pub temporal_id: Option<u8>, pub layer_sync: bool, pub key_frame: bool }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId { pub value: u16, /// 15 bits, else 7.
    pub wide: bool, pub at: usize }
/// Added to picture-id and tl0picidx (wrapping within their widths).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets { pub picture_id: u16, pub tl0_pic_idx: u8 }
impl Descriptor { #[must_use] pub fn parse(payload: &[u8]) -> Option<Self> { unimplemented!() } }
/// Patches in place the descriptor at the start of `payload`.
pub fn patch(payload: &mut [u8], offsets: Offsets) { unimplemented!() }
