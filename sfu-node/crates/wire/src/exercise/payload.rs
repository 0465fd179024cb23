//! What is in front of a codec's bytes: payload descriptors, and dependency descriptors, which build on earlier ones.

use super::Bytes;
use crate::codec::{Codec, dd, h264, vp8, vp9};
use crate::rtp;
use crate::svc::{Fields, Tag};

const CODECS: [Codec; 10] = [
    Codec::Opus,
    Codec::Red,
    Codec::Pcmu,
    Codec::Pcma,
    Codec::Vp8,
    Codec::H264,
    Codec::Vp9,
    Codec::Av1,
    Codec::H265,
    Codec::Rtx,
];
const MAX_DESCRIPTORS: usize = 16;

/// Payloads of every codec, then the same bytes as dependency descriptors of packets that follow one another.
pub fn payload(data: &[u8]) {
    for codec in CODECS {
        let _ = codec.starts_key_frame(data);
    }
    assert!(rtp::split_rtx(data).is_none_or(|(_, payload)| payload.len() + 2 == data.len()), "RTX");
    assert_eq!(h264::starts_key_frame(data), Codec::H264.starts_key_frame(data), "one answer");
    let tag = vp9::Descriptor::parse(data).and_then(|d| d.tag());
    assert!(tag.is_none_or(|t| t.spatial() < 8 && t.temporal() < 4), "layers of VP9");
    patched(data);

    let mut bytes = Bytes(data);
    let mut structure = None;
    for _ in 0..MAX_DESCRIPTORS {
        if bytes.is_empty() {
            break;
        }
        follow(&mut structure, bytes.take());
    }
}

/// Numbers of a VP8 payload may change, its shape not.
fn patched(data: &[u8]) {
    let Some(before) = vp8::Descriptor::parse(data) else { return };
    assert!(before.len < data.len(), "a descriptor ends before the payload");
    let mut copy = data.to_vec();
    vp8::patch(&mut copy, vp8::Offsets { picture_id: 0x7FFF, tl0_pic_idx: 255 });
    let after = vp8::Descriptor::parse(&copy).map(|d| (d.len, d.temporal_id, d.key_frame, copy.len()));
    assert_eq!(after, Some((before.len, before.temporal_id, before.key_frame, data.len())), "same shape");
    assert_eq!(copy.get(before.len..), data.get(before.len..), "same picture");
}

/// One packet's descriptor after others: its structure, or a frame of the last one.
fn follow(structure: &mut Option<dd::Structure>, descriptor: &[u8]) {
    if dd::is_attached(descriptor) {
        *structure = dd::Structure::parse(descriptor);
    }
    let Some(structure) = structure else { return };
    let layers = structure.spatial_layers();
    assert!((1..=64).contains(&layers), "spatial layers");
    let templates = (0..64).filter_map(|template| structure.frame(&[template, 0, 7]));
    for frame in templates.chain(structure.frame(descriptor)) {
        assert!(frame.spatial < layers, "layer of a frame");
        let tag = Tag::new(&Fields {
            spatial: frame.spatial,
            temporal: frame.temporal,
            ends: frame.ends,
            lifts: frame.lifts,
        });
        assert!(tag.spatial() < 16 && tag.temporal() < 4, "tag");
    }
}
