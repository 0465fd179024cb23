//! VP8 payload descriptor (RFC 7741 §4.2): parse and patch.

use crate::bytes::u8_at;

/// Picture id and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    /// 7 or 15 bits.
    pub value: u16,
    /// 15 bits.
    pub wide: bool,
    /// Offset in the payload.
    pub at: usize,
}

/// A payload descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Length of the descriptor.
    pub len: usize,
    /// S bit.
    pub start_of_partition: bool,
    /// PID: partition index.
    pub partition: u8,
    /// Picture id, if there.
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX, if there.
    pub tl0_pic_idx: Option<u8>,
    /// Offset of TL0PICIDX, if there.
    pub(crate) tl0_at: usize,
    /// TID, if there.
    pub temporal_id: Option<u8>,
    /// Y bit: depends on the base layer only.
    pub layer_sync: bool,
    /// First packet of a key frame: the frame header's P bit is clear.
    pub key_frame: bool,
}

/// Added to picture id and TL0PICIDX, wrapping within their widths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// For the picture id.
    pub picture_id: u16,
    /// For TL0PICIDX.
    pub tl0_pic_idx: u8,
}

impl Descriptor {
    /// `None`: truncated, or nothing behind the descriptor.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = u8_at(payload, 0)?;
        let (start_of_partition, partition) = (first & 0x10 != 0, first & 0x07);
        let mut at = 1;
        let (mut picture_id, mut tl0_pic_idx, mut tl0_at) = (None, None, 0);
        let (mut temporal_id, mut layer_sync) = (None, false);
        if first & 0x80 != 0 {
            let flags = u8_at(payload, at)?;
            at += 1;
            if flags & 0x80 != 0 {
                let high = u8_at(payload, at)?;
                let wide = high & 0x80 != 0;
                let mut value = u16::from(high & 0x7F);
                if wide {
                    value = value << 8 | u16::from(u8_at(payload, at + 1)?);
                }
                picture_id = Some(PictureId { value, wide, at });
                at += 1 + usize::from(wide);
            }
            if flags & 0x40 != 0 {
                (tl0_pic_idx, tl0_at) = (Some(u8_at(payload, at)?), at);
                at += 1;
            }
            if flags & 0x30 != 0 {
                let byte = u8_at(payload, at)?;
                if flags & 0x20 != 0 {
                    temporal_id = Some(byte >> 6);
                    layer_sync = byte & 0x20 != 0;
                }
                at += 1;
            }
        }
        let frame = u8_at(payload, at)?;
        let key_frame = start_of_partition && partition == 0 && frame & 1 == 0;
        Some(Self {
            len: at,
            start_of_partition,
            partition,
            picture_id,
            tl0_pic_idx,
            tl0_at,
            temporal_id,
            layer_sync,
            key_frame,
        })
    }
}

/// First packet of a key frame.
#[must_use]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    Descriptor::parse(payload).is_some_and(|d| d.key_frame)
}

/// Patches the descriptor at the start of `payload`; leaves anything else alone.
#[inline]
pub fn patch(payload: &mut [u8], offsets: Offsets) {
    if offsets == Offsets::default() {
        return;
    }
    let Some(d) = Descriptor::parse(payload) else { return };
    if let Some(id) = d.picture_id {
        let value = id.value.wrapping_add(offsets.picture_id);
        let [high, low] = value.to_be_bytes();
        match payload.get_mut(id.at..) {
            Some([a, b, ..]) if id.wide => (*a, *b) = (high | 0x80, low),
            Some([a, ..]) => *a = low & 0x7F,
            _ => {}
        }
    }
    if let Some(value) = d.tl0_pic_idx
        && let Some(slot) = payload.get_mut(d.tl0_at)
    {
        *slot = value.wrapping_add(offsets.tl0_pic_idx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_descriptor() {
        let d = Descriptor::parse(&[0x10, 0x00]).unwrap();
        assert_eq!((d.len, d.key_frame, d.picture_id, d.tl0_pic_idx), (1, true, None, None));
        assert!(!starts_key_frame(&[0x10, 0x01]));
        assert!(!starts_key_frame(&[0x00, 0x00]));
        assert!(!starts_key_frame(&[0x11, 0x00]));
        assert_eq!(Descriptor::parse(&[0x10]), None);
        assert_eq!(Descriptor::parse(&[]), None);
    }

    #[test]
    fn all_fields() {
        let p = [0x90, 0xF0, 0x92, 0x34, 0x56, 0x60, 0x9C];
        let d = Descriptor::parse(&p).unwrap();
        assert_eq!(d.len, 6);
        assert_eq!(d.picture_id, Some(PictureId { value: 0x1234, wide: true, at: 2 }));
        assert_eq!((d.tl0_pic_idx, d.temporal_id, d.layer_sync), (Some(0x56), Some(1), true));
        assert!(d.key_frame);
        for n in 0..p.len() {
            assert_eq!(Descriptor::parse(&p[..n]), None);
        }
    }

    #[test]
    fn patching_wraps_within_the_width() {
        let mut p = [0x90, 0xC0, 0xFF, 0xFE, 0xFF, 0x01, 0xAA];
        patch(&mut p, Offsets { picture_id: 3, tl0_pic_idx: 2 });
        assert_eq!(p, [0x90, 0xC0, 0x80, 0x01, 0x01, 0x01, 0xAA]);
        let mut narrow = [0x90, 0x80, 0x7F, 0x01];
        patch(&mut narrow, Offsets { picture_id: 2, tl0_pic_idx: 0 });
        assert_eq!(narrow, [0x90, 0x80, 0x01, 0x01]);
        let mut none = [0x10, 0x01, 0x02];
        patch(&mut none, Offsets { picture_id: 2, tl0_pic_idx: 7 });
        assert_eq!(none, [0x10, 0x01, 0x02]);
    }
}
