//! VP9 payload descriptor (RFC 9628 §4.2): where a key frame starts, and which layer a packet belongs to.

use crate::bytes::u8_at;
use crate::svc::{Fields, Tag};

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
    /// Layer indices, if there.
    pub layer: Option<Layer>,
    /// Spatial layers of the stream, where the scalability structure is there (key pictures).
    pub spatial_layers: Option<u8>,
}

/// Layer indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// TID.
    pub temporal: u8,
    /// SID.
    pub spatial: u8,
    /// U bit: switching up point.
    pub switching_up: bool,
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
            at += 1;
            Some(Layer { temporal: byte >> 5, spatial: byte >> 1 & 0x07, switching_up: byte & 0x10 != 0 })
        } else {
            None
        };
        Some(Self {
            inter_predicted: first & 0x40 != 0,
            start_of_frame: first & 0x08 != 0,
            end_of_frame: first & 0x04 != 0,
            picture_id,
            layer,
            spatial_layers: if first & 0x02 != 0 { spatial_layers(payload, at, first) } else { None },
        })
    }

    /// The packet's place among the layers of its stream. `None`: the stream does not tell.
    #[must_use]
    pub fn tag(&self) -> Option<Tag> {
        let layer = self.layer?;
        Some(Tag::new(&Fields {
            spatial: layer.spatial,
            temporal: layer.temporal,
            ends: self.end_of_frame,
            lifts: layer.switching_up,
        }))
    }
}

/// N_S + 1 of the scalability structure behind the layer indices, which end before `at`.
fn spatial_layers(payload: &[u8], mut at: usize, first: u8) -> Option<u8> {
    let flexible = first & 0x10 != 0;
    if first & 0x20 != 0 && !flexible {
        at += 1; // TL0PICIDX
    }
    if first & 0x40 != 0 && flexible {
        // Reference indices, at most three: the last has N clear.
        let indices = payload.get(at..)?;
        at += indices.iter().take(3).position(|b| b & 1 == 0)? + 1;
    }
    u8_at(payload, at).map(|b| (b >> 5) + 1)
}

/// First packet of a key picture: no inter prediction, begin of frame, spatial layer 0.
#[must_use]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    Descriptor::parse(payload)
        .is_some_and(|d| !d.inter_predicted && d.start_of_frame && d.layer.is_none_or(|l| l.spatial == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let d = Descriptor::parse(&[0xA8, 0x81, 0x02, 0x24, 0]).unwrap();
        let layer = Layer { temporal: 1, spatial: 2, switching_up: false };
        assert_eq!((d.picture_id, d.layer), (Some(0x102), Some(layer)));
        assert!(d.start_of_frame && !d.inter_predicted && !d.end_of_frame);
        assert_eq!(Descriptor::parse(&[0xA8, 0x81, 0x02]), None);
        assert_eq!(Descriptor::parse(&[]), None);
    }

    #[test]
    fn layers_and_their_structure() {
        // Key picture, base layer, not flexible: TL0PICIDX, then three spatial layers with their sizes.
        let d = Descriptor::parse(&[0xAA, 0x81, 0x02, 0x10, 7, 0x58, 1, 64]).unwrap();
        assert_eq!(d.spatial_layers, Some(3));
        let tag = d.tag().unwrap();
        assert_eq!((tag.spatial(), tag.temporal()), (0, 0));
        assert!(!tag.ends() && tag.lifts());
        // Flexible, predicted, two references.
        let d = Descriptor::parse(&[0xF6, 0x05, 0x53, 0x03, 0x04, 0x20, 1]).unwrap();
        assert_eq!((d.picture_id, d.spatial_layers), (Some(5), Some(2)));
        let tag = d.tag().unwrap();
        assert_eq!((tag.spatial(), tag.temporal()), (1, 2));
        assert!(tag.ends() && tag.lifts());
        assert_eq!(
            Descriptor::parse(&[0xF6, 0x05, 0x53, 0x03, 0x05, 0x07, 0x07]).unwrap().spatial_layers,
            None
        );
        assert_eq!(Descriptor::parse(&[0x08, 0]).unwrap().tag(), None);
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
