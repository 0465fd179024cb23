//! A stream that holds several spatial layers (VP9 and AV1 SVC): which of them flow, and what each takes.

use crate::track::{LAYERS, OVERHEAD, UNKNOWN_BPS, select};
use headwater_wire::{
    codec::{Codec, dd, vp9},
    ext::{BlockIter, ExtKind},
    relay::Media,
    svc::{Fields, Limit, TEMPORAL, Tag},
};

/// A layer that was not in so many pictures does not flow.
const MISSED_PICTURES: u32 = 16;

/// The layers of one stream.
pub(crate) struct Scalable {
    /// AV1: what the descriptors of later packets refer to.
    structure: Option<Box<dd::Structure>>,
    /// Timestamp of the newest picture, and how many there were.
    timestamp: u32,
    pictures: u32,
    /// Picture in which each spatial layer was last; 0: never.
    seen: [u32; LAYERS],
    /// Bytes since the last measurement, and smoothed rates, bit/s.
    bytes: [[u64; TEMPORAL]; LAYERS],
    bps: [[f64; TEMPORAL]; LAYERS],
}

impl Scalable {
    fn new() -> Box<Self> {
        Box::new(Self {
            structure: None,
            timestamp: 0,
            pictures: 0,
            seen: [0; LAYERS],
            bytes: [[0; TEMPORAL]; LAYERS],
            bps: [[0.0; TEMPORAL]; LAYERS],
        })
    }

    /// The packet's place among the layers of `slot`'s stream, which is made when the stream shows more than one
    /// spatial layer. `None`: it does not, or the packet does not tell.
    #[inline(never)]
    pub fn look(slot: &mut Option<Box<Self>>, media: &Media<'_>) -> Option<Tag> {
        match media.codec {
            Codec::Vp9 => look_vp9(slot, media),
            Codec::Av1 => look_av1(slot, media),
            _ => {
                *slot = None;
                None
            }
        }
    }

    /// AV1: what descriptors of the newest packets refer to.
    pub fn structure(&self) -> Option<&dd::Structure> {
        self.structure.as_deref()
    }

    /// Spatial layers that flow, as a bit mask.
    pub fn mask(&self) -> u8 {
        let flows = |seen: &u32| *seen > 0 && self.pictures - *seen < MISSED_PICTURES;
        (0u8..).zip(&self.seen).filter(|(_, seen)| flows(seen)).fold(0, |m, (i, _)| m | 1 << i)
    }

    /// The stream says that its next pictures have so many layers.
    fn announce(&mut self, timestamp: u32, layers: u8) {
        self.enter(timestamp);
        self.seen.iter_mut().take(usize::from(layers)).for_each(|seen| *seen = self.pictures);
    }

    /// Account for a packet.
    pub fn account(&mut self, media: &Media<'_>, tag: Tag) {
        self.enter(media.timestamp);
        let (spatial, temporal) = (usize::from(tag.spatial()), usize::from(tag.temporal()));
        if let Some(seen) = self.seen.get_mut(spatial).filter(|_| media.timestamp == self.timestamp) {
            *seen = self.pictures;
        }
        if let Some(bytes) = self.bytes.get_mut(spatial).and_then(|t| t.get_mut(temporal)) {
            *bytes += (media.payload.len() + OVERHEAD) as u64;
        }
    }

    /// A packet with this timestamp, maybe the first of a picture that is newer than all.
    fn enter(&mut self, timestamp: u32) {
        let ahead = timestamp.wrapping_sub(self.timestamp);
        if self.pictures == 0 || (ahead != 0 && ahead < 1 << 31) {
            (self.timestamp, self.pictures) = (timestamp, self.pictures + 1);
        }
    }

    /// Work out the rates from what came in `elapsed_us`; `gain` as for a whole stream.
    pub fn measure(&mut self, elapsed_us: u64, gain: f64) {
        let mask = self.mask();
        for (at, (bytes, bps)) in self.bytes.iter_mut().zip(&mut self.bps).enumerate() {
            for (bytes, bps) in bytes.iter_mut().zip(bps) {
                let sample = std::mem::take(bytes) as f64 * 8e6 / elapsed_us as f64;
                // A layer that stands still keeps its last rate: that is what it takes when it comes back.
                if mask & (1 << at) != 0 && sample + *bps > 0.0 {
                    *bps += (sample - *bps) * if *bps == 0.0 { 1.0 } else { gain };
                }
            }
        }
    }

    /// What a subscriber who wants at most spatial layer `max` could get, the least first, with what it takes.
    pub fn choices(&self, max: u8) -> [Option<(Limit, u32)>; LAYERS + 1] {
        let mut all = [None; LAYERS + 1];
        let mask = self.mask();
        let highest = select(mask, max);
        let choice = |limit| (limit, self.bps(limit));
        let layers = (0..LAYERS as u8).filter(|l| mask & (1 << l) != 0 && Some(*l) <= highest);
        // Half or a quarter of the pictures is better than none; with more than that, the picture comes first.
        let fewer = layers.clone().take(1).map(|l| Limit { temporal: 0, ..Limit::whole(l) });
        let limits = fewer.map(choice).filter(|c| c.1 > 0).chain(layers.map(Limit::whole).map(choice));
        all.iter_mut().zip(limits).for_each(|(slot, choice)| *slot = Some(choice));
        all
    }

    /// What the layers up to `limit` take, bit/s.
    fn bps(&self, limit: Limit) -> u32 {
        let mask = self.mask();
        let layers = (0u8..).zip(self.bps.iter().zip(UNKNOWN_BPS));
        let flowing = layers.filter(|(l, _)| *l <= limit.spatial && mask & (1 << l) != 0);
        let sum: f64 = flowing
            .map(|(_, (bps, unknown))| {
                let whole: f64 = bps.iter().sum();
                let part: f64 = bps.iter().take(usize::from(limit.temporal).saturating_add(1)).sum();
                if whole > 0.0 { part } else { f64::from(unknown) }
            })
            .sum();
        sum as u32
    }
}

fn look_vp9(slot: &mut Option<Box<Scalable>>, media: &Media<'_>) -> Option<Tag> {
    let descriptor = vp9::Descriptor::parse(media.payload)?;
    let tag = descriptor.tag()?;
    let layers = descriptor.spatial_layers.unwrap_or(0);
    if layers == 1 {
        *slot = None;
    }
    if slot.is_none() && (tag.spatial() > 0 || layers > 1) {
        *slot = Some(Scalable::new());
    }
    let scalable = slot.as_mut()?;
    if layers > 1 {
        scalable.announce(media.timestamp, layers);
    }
    Some(tag)
}

fn look_av1(slot: &mut Option<Box<Scalable>>, media: &Media<'_>) -> Option<Tag> {
    let kind = ExtKind::DependencyDescriptor;
    let (_, descriptor) = BlockIter::new(media.extensions).find(|e| e.0 == kind)?;
    if dd::is_attached(descriptor) {
        let structure = dd::Structure::parse(descriptor)?;
        let layers = structure.spatial_layers();
        if layers == 1 {
            *slot = None;
        } else if slot.is_none() {
            *slot = Some(Scalable::new());
        }
        let scalable = slot.as_mut()?;
        match &mut scalable.structure {
            Some(known) => **known = structure,
            none => *none = Some(Box::new(structure)),
        }
        scalable.announce(media.timestamp, layers);
    }
    let structure = slot.as_mut()?.structure.as_mut()?;
    let frame = structure.frame(descriptor)?;
    structure.on_targets(descriptor);
    Some(Tag::new(&Fields {
        spatial: frame.spatial,
        temporal: frame.temporal,
        ends: frame.ends,
        lifts: frame.lifts,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(timestamp: u32, payload: &[u8]) -> Media<'_> {
        Media {
            handle: 0,
            spatial: 0,
            codec: Codec::Vp9,
            marker: false,
            key_frame: false,
            retransmission: false,
            sequence: 1,
            timestamp,
            extensions: &[],
            payload,
        }
    }

    /// VP9, flexible: predicted or not, temporal and spatial layer.
    fn vp9(predicted: bool, temporal: u8, spatial: u8) -> [u8; 100] {
        let mut p = [0; 100];
        p[0] = if predicted { 0x78 } else { 0x38 };
        p[1] = temporal << 5 | spatial << 1;
        p[2] = 2; // one reference
        p
    }

    fn picture(slot: &mut Option<Box<Scalable>>, timestamp: u32, temporal: u8, layers: u8) -> bool {
        let mask = |slot: &Option<Box<Scalable>>| slot.as_ref().map_or(0, |s| s.mask());
        let before = mask(slot);
        for spatial in 0..layers {
            let payload = vp9(timestamp > 0, temporal, spatial);
            let media = media(timestamp, &payload);
            if let Some(tag) = Scalable::look(slot, &media) {
                slot.as_mut().unwrap().account(&media, tag);
            }
        }
        mask(slot) != before
    }

    #[test]
    fn one_spatial_layer_is_not_scalable() {
        let mut slot = None;
        for i in 0..20 {
            assert!(!picture(&mut slot, i, (i % 2) as u8, 1));
        }
        assert!(slot.is_none());
        assert!(picture(&mut slot, 20, 0, 2));
        assert_eq!(slot.unwrap().mask(), 0b10, "the base layer's packet came before anything told");
    }

    #[test]
    fn a_structure_tells_before_the_layers_come() {
        let mut slot = None;
        let key = |layers: u8| [0x3A, 0, (layers - 1) << 5];
        assert!(Scalable::look(&mut slot, &media(5, &key(3))).is_some());
        assert_eq!(slot.as_ref().unwrap().mask(), 0b111);
        assert_eq!(Scalable::look(&mut slot, &media(6, &key(1))), None);
        assert!(slot.is_none(), "the client sends one layer now");
    }

    #[test]
    fn layers_come_and_go() {
        let mut slot = None;
        picture(&mut slot, 0, 0, 3);
        assert!(picture(&mut slot, 1, 0, 3));
        assert_eq!(slot.as_ref().unwrap().mask(), 0b111);
        let changes: Vec<u32> = (2..40).filter(|i| picture(&mut slot, *i, 0, 2)).collect();
        assert_eq!((changes, slot.as_ref().unwrap().mask()), (vec![17], 0b011));
        assert!(picture(&mut slot, 41, 0, 3));
        // An older picture's packet tells nothing.
        assert!(!picture(&mut slot, 3, 0, 3));
    }

    #[test]
    fn each_layer_has_its_rate() {
        let mut slot = None;
        for i in 0..41 {
            picture(&mut slot, i, (i % 2) as u8, 3);
        }
        let scalable = slot.as_mut().unwrap();
        scalable.measure(1_000_000, 0.1);
        let limit = |spatial, temporal| Limit { spatial, temporal };
        let packet = 145 * 8;
        let all = [(limit(0, 0), 20 * packet), (limit(0, 3), 40 * packet), (limit(1, 3), 81 * packet)];
        assert_eq!(scalable.choices(1), [Some(all[0]), Some(all[1]), Some(all[2]), None]);
        assert_eq!(scalable.choices(9)[3], Some((limit(2, 3), 122 * packet)));
        assert_eq!(scalable.bps(Limit::ALL), 122 * packet);
    }

    #[test]
    fn hostile_packets_are_no_layers() {
        let mut slot = None;
        for n in 0..3 {
            assert_eq!(Scalable::look(&mut slot, &media(0, &[0xFF, 0xFF, 0xFF][..n])), None);
        }
        let high = [0x38, 0x0E, 0];
        let m = media(0, &high);
        let tag = Scalable::look(&mut slot, &m).unwrap();
        slot.as_mut().unwrap().account(&m, tag);
        assert_eq!(slot.unwrap().mask(), 0, "layer 7 is none of ours");
    }
}
