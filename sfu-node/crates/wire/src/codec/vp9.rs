//! VP9 payload descriptor (RFC 9628 §4.2): only what tells where a key frame starts.

use crate::bytes::u8_at;

/// The leading fields of a payload descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// P bit: depends on earlier pictures.
    pub inter_predicted: bool,
    /// B bit: first packet of a layer frame.
    pub start_of_frame: bool,
    /// E bit: last packet of a layer frame.
    pub end_of_frame: bool,
    /// Picture id, 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// (temporal id, spatial id).
    pub layer: Option<(u8, u8)>,
}

impl Descriptor {
    /// `None`: truncated.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let first = u8_at(payload, 0)?;
        let mut at = 1;
        let mut picture_id = None;
        if first & 0x80 != 0 {
            let high = u8_at(payload, at)?;
            let mut value = u16::from(high & 0x7F);
            at += 1;
            if high & 0x80 != 0 {
                value = value << 8 | u16::from(u8_at(payload, at)?);
                at += 1;
            }
            picture_id = Some(value);
        }
        let layer = if first & 0x20 != 0 {
            let byte = u8_at(payload, at)?;
            Some((byte >> 5, byte >> 1 & 0x07))
        } else {
            None
        };
        Some(Self {
            inter_predicted: first & 0x40 != 0,
            start_of_frame: first & 0x08 != 0,
            end_of_frame: first & 0x04 != 0,
            picture_id,
            layer,
        })
    }
}

/// First packet of a key picture: no inter prediction, begin of frame, spatial layer 0.
#[must_use]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    Descriptor::parse(payload).is_some_and(|d| {
        !d.inter_predicted && d.start_of_frame && d.layer.is_none_or(|(_, spatial)| spatial == 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let d = Descriptor::parse(&[0xA8, 0x81, 0x02, 0x24, 0]).unwrap();
        assert_eq!((d.picture_id, d.layer), (Some(0x102), Some((1, 2))));
        assert!(d.start_of_frame && !d.inter_predicted && !d.end_of_frame);
        assert_eq!(Descriptor::parse(&[0xA8, 0x81, 0x02]), None);
        assert_eq!(Descriptor::parse(&[]), None);
    }

    #[test]
    fn key_frames() {
        assert!(starts_key_frame(&[0x08, 0]));
        assert!(!starts_key_frame(&[0x48, 0]));
        assert!(!starts_key_frame(&[0x00, 0]));
        assert!(starts_key_frame(&[0x28, 0x00, 0]));
        assert!(!starts_key_frame(&[0x28, 0x02, 0]));
    }
}
