//! A publisher whose one stream holds three spatial by three temporal layers (L3T3_KEY), and a decoder that notices
//! what it should have got.

use super::*;
use headwater_wire::codec::{Codec, dd};
use std::collections::{BTreeMap, BTreeSet};

/// Spatial layers of the stream.
pub const SPATIAL: u8 = 3;
/// Temporal layer of each picture after a key picture.
const PATTERN: [u8; 4] = [0, 2, 1, 2];
/// Frames are told apart by what stands at the end of each payload.
const TRUTH: usize = 9;

/// A frame: picture, spatial layer.
type Frame = (u32, u8);

/// What a packet really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truth {
    pub picture: u32,
    pub spatial: u8,
    /// Pictures since the key picture, modulo the pattern; 255: it is the key picture.
    pub phase: u8,
    pub sticky: bool,
    pub index: u8,
    pub count: u8,
}

impl Truth {
    fn bytes(self) -> [u8; TRUTH] {
        let p = self.picture.to_be_bytes();
        let sticky = u8::from(self.sticky);
        [p[0], p[1], p[2], p[3], self.spatial, self.phase, sticky, self.index, self.count]
    }

    pub fn read(payload: &[u8]) -> Self {
        let b = &payload[payload.len() - TRUTH..];
        Self {
            picture: u32::from_be_bytes(b[..4].try_into().unwrap()),
            spatial: b[4],
            phase: b[5],
            sticky: b[6] != 0,
            index: b[7],
            count: b[8],
        }
    }

    pub fn key(&self) -> bool {
        self.phase == 255
    }

    pub fn temporal(&self) -> u8 {
        if self.key() { 0 } else { PATTERN[usize::from(self.phase)] }
    }

    /// Frames that this one is made from.
    fn needs(&self) -> Vec<Frame> {
        if self.key() {
            return self.spatial.checked_sub(1).map(|s| (self.picture, s)).into_iter().collect();
        }
        let back = |pictures: u32| (self.picture - pictures, self.spatial);
        let mut needs = vec![match self.temporal() {
            0 => back(4),
            1 => back(2),
            _ => back(1),
        }];
        // Without switching points: also from the last frame of the same temporal layer.
        if self.sticky && self.phase == 3 {
            needs.push(back(2));
        }
        needs
    }
}

/// The publisher.
pub struct Layered {
    codec: Codec,
    pub ssrc: u32,
    sequence: u16,
    picture: u32,
    since_key: u32,
    frame_number: u16,
    sticky: bool,
    /// Bytes of a frame of each spatial layer; frames have a packet per 1000 of them.
    pub sizes: [usize; 3],
    /// Layers that it sends.
    pub active: u8,
}

impl Layered {
    pub fn new(codec: Codec, ssrc: u32) -> Self {
        let sizes = [200, 400, 2100];
        Self {
            codec,
            ssrc,
            sequence: 65_000,
            picture: 0,
            since_key: 0,
            frame_number: 65_500,
            sticky: false,
            sizes,
            active: SPATIAL,
        }
    }

    /// The publisher's section.
    pub fn section(&self) -> ReceiveSection {
        let mut section = receive("0", "V", &[self.ssrc], Kind::Video);
        section.codecs = vec![codec(96, self.codec, 0), codec(97, Codec::Rtx, 96)];
        section.extensions.push(described());
        section
    }

    /// A subscriber's section, as given but for the codecs, and for AV1 with the dependency descriptor.
    pub fn wanted(&self, mut section: SendSection) -> SendSection {
        section.codecs = vec![codec(120, self.codec, 0), codec(121, Codec::Rtx, 120)];
        if self.codec == Codec::Av1 {
            section.extensions.push(described());
        }
        section
    }

    /// Send one picture; a key picture if one was asked for.
    pub fn picture(&mut self, world: &mut World, client: usize) {
        let asked = world.clients[client].pli.iter().any(|(_, s)| *s == self.ssrc);
        world.clients[client].pli.clear();
        let key = self.picture == 0 || asked;
        if key {
            self.since_key = 0;
            self.sticky = world.rng.chance(50);
        }
        let phase = if key { 255 } else { (self.since_key % 4) as u8 };
        for spatial in 0..self.active {
            let size = self.sizes[usize::from(spatial)] * if key { 3 } else { 1 };
            let count = size.div_ceil(1000).clamp(1, 30) as u8;
            for index in 0..count {
                let truth =
                    Truth { picture: self.picture, spatial, phase, sticky: self.sticky, index, count };
                let header = RtpHeader {
                    marker: spatial + 1 == self.active && index + 1 == count,
                    payload_type: 96,
                    sequence: self.sequence,
                    timestamp: self.picture.wrapping_mul(3000).wrapping_add(0xFFFF_0000),
                    ssrc: self.ssrc,
                };
                let mut payload = self.header(&truth);
                payload.resize((size / usize::from(count)).max(40), 7);
                payload.extend_from_slice(&truth.bytes());
                let descriptor = self.descriptor(&truth);
                let described = [(DEPENDENCIES, descriptor.as_slice())];
                let extensions = if self.codec == Codec::Av1 { &described[..] } else { &[] };
                let packet = world.clients[client].rtp(header, extensions, &payload);
                world.send(client, packet);
                self.sequence = self.sequence.wrapping_add(1);
            }
            self.frame_number = self.frame_number.wrapping_add(1);
        }
        self.picture += 1;
        self.since_key += 1;
    }

    fn header(&self, t: &Truth) -> Vec<u8> {
        let (begins, ends) = (t.index == 0, t.index + 1 == t.count);
        let base_key = t.key() && t.spatial == 0 && begins;
        if self.codec == Codec::Av1 {
            return match (begins, base_key) {
                (false, _) => vec![0x90, 0x32],
                (true, true) => vec![0x18, 0x0A],
                (true, false) => vec![0x10, 0x32],
            };
        }
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let [hi, lo] = (self.picture as u16 & 0x7FFF).to_be_bytes();
        // Flexible mode: picture id, layer indices, references, structure.
        let first = 0xB0 | bit(!t.key(), 0x40) | bit(begins, 8) | bit(ends, 4) | bit(base_key, 2);
        let up = !t.sticky || t.temporal() == 2;
        let inter = t.key() && t.spatial > 0;
        let layer = t.temporal() << 5 | bit(up, 0x10) | t.spatial << 1 | u8::from(inter);
        let mut payload = vec![first, 0x80 | hi, lo, layer];
        if !t.key() {
            payload.push([4, 1, 2, 1][usize::from(t.phase)] << 1);
        }
        if base_key {
            payload.push((self.active - 1) << 5);
        }
        payload
    }

    /// AV1: which of the structure's templates the frame follows, and the structure where a key picture begins.
    fn descriptor(&self, t: &Truth) -> Vec<u8> {
        let (begins, ends) = (t.index == 0, t.index + 1 == t.count);
        let variant = if t.key() { 0 } else { t.temporal() + 1 };
        let template = t.spatial * 4 + variant;
        let mut bits = format!("{}{}", u8::from(begins), u8::from(ends));
        bits += &format!("{template:06b}{:016b}", self.frame_number);
        let custom = t.sticky && !t.key() && t.temporal() < 2;
        if t.key() && t.spatial == 0 && begins {
            bits += "10000";
            bits += &structure();
        } else if custom {
            // Not a switching point: what would be one is but required.
            bits += "00100";
            for target in 0..9u8 {
                let own = target / 3 == t.spatial && target % 3 >= t.temporal();
                bits += if own { "11" } else { "00" };
            }
        }
        pack(&bits)
    }
}

/// How the dependency descriptor is negotiated.
pub fn described() -> ExtensionMap {
    ExtensionMap { id: DEPENDENCIES, extension: Extension::DependencyDescriptor }
}

fn pack(bits: &str) -> Vec<u8> {
    let bits = bits.as_bytes();
    bits.chunks(8).map(|c| (0..8).fold(0, |v, i| v << 1 | c.get(i).map_or(0, |b| b - b'0'))).collect()
}

/// L3T3_KEY: for each spatial layer a template of key pictures and one for each temporal layer.
fn structure() -> String {
    let mut bits = format!("{:06b}{:05b}", 0, 8);
    for spatial in 0..SPATIAL {
        bits += "000101";
        bits += if spatial + 1 == SPATIAL { "11" } else { "10" };
    }
    let all = || (0..SPATIAL).flat_map(|s| [(s, true, 0), (s, false, 0), (s, false, 1), (s, false, 2)]);
    for (spatial, key, temporal) in all() {
        for target in 0..9u8 {
            let (s, t) = (target / 3, target % 3);
            bits += match (key, s == spatial, t.cmp(&temporal)) {
                (true, _, _) if s >= spatial => "10",
                (false, true, std::cmp::Ordering::Greater) => "10",
                (false, true, std::cmp::Ordering::Equal) => {
                    if temporal == 0 {
                        "10"
                    } else {
                        "01"
                    }
                }
                _ => "00",
            };
        }
    }
    for (spatial, key, temporal) in all() {
        bits += match (spatial, key, temporal) {
            (0, true, _) => "0",
            (_, true, _) => "100000",
            (_, false, 0) => "110110",
            (_, false, 1) => "101010",
            _ => "100100",
        };
    }
    bits += "011"; // three chains, non-symmetric below 10
    bits += "000101010111111"; // the chain of each target, non-symmetric below 3
    bits + &"0000".repeat(12 * 3) + "0"
}

/// Decodes what a subscriber got, and counts what it cannot.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Frames without what they are made from, gaps, packets out of place, markers that are missing or wrong.
    pub errors: Vec<String>,
    /// Highest spatial layer of each picture shown.
    pub shown: Vec<u8>,
    /// Temporal layer of each picture shown.
    pub rates: Vec<u8>,
    decoded: BTreeSet<Frame>,
    last: Option<(RtpHeader, Truth)>,
    descriptors: Descriptors,
}

/// What the dependency descriptors said, where the subscriber gets them.
#[derive(Debug, Default)]
struct Descriptors {
    structure: Option<dd::Structure>,
    /// The number of each frame.
    numbers: BTreeMap<Frame, u16>,
    newest: Option<u16>,
    /// (spatial, temporal) of the highest target that is told to be sent, since the picture began.
    told: Option<(u8, u8)>,
    /// Layer frames that begin without telling it.
    silent: usize,
}

impl Descriptors {
    /// What is wrong with a packet's.
    fn look(&mut self, descriptor: &[u8], truth: &Truth) -> Option<String> {
        if let Some(structure) = dd::Structure::parse(descriptor) {
            self.structure = Some(structure);
            self.told = None; // what it is sent with stands behind it, and is not read here
        } else if dd::is_attached(descriptor) {
            return Some("structure".into());
        }
        let Some(frame) = self.structure.as_ref().and_then(|s| s.frame(descriptor)) else {
            return Some("no structure for it".into());
        };
        let last = truth.index + 1 == truth.count;
        if (frame.spatial, frame.temporal, frame.ends) != (truth.spatial, truth.temporal(), last) {
            return Some(format!("{frame:?}"));
        }
        let number = dd::frame_number(descriptor).unwrap();
        let known = *self.numbers.entry((truth.picture, truth.spatial)).or_insert(number);
        if known != number || self.newest.is_some_and(|n| number.wrapping_sub(n) >= 1 << 15) {
            return Some(format!("number {number} after {:?}", self.newest));
        }
        self.newest = Some(number);
        // As the structure's templates say.
        let distance = if truth.key() { 1 } else { [12, 6, 3][usize::from(truth.temporal())] };
        let made_of = truth.needs().first().and_then(|f| self.numbers.get(f));
        if made_of.is_some_and(|made_of| number.wrapping_sub(*made_of) != distance) {
            return Some(format!("number {number}, made of {made_of:?}"));
        }
        while self.numbers.len() > 64 {
            self.numbers.pop_first();
        }
        // Mandatory fields, five flags, a bit for each of nine targets, the highest first.
        if descriptor.len() > 3 && !dd::is_attached(descriptor) && descriptor[3] & 0x40 != 0 {
            let bit = |at: u8| descriptor[usize::from(3 + (5 + at) / 8)] >> (7 - (5 + at) % 8) & 1 == 1;
            let sent = (0..9u8).rev().filter(|target| bit(8 - target));
            self.told = sent.map(|t| (t / 3, t % 3)).max();
        } else if truth.index == 0 && !dd::is_attached(descriptor) {
            self.silent += 1;
        }
        None
    }
}

impl Decoder {
    /// All packets of one stream, in the order of their numbers, none lost.
    pub fn all<'a>(packets: impl Iterator<Item = &'a Got>) -> Self {
        let mut decoder = Self::default();
        packets.for_each(|p| decoder.packet(p));
        decoder
    }

    fn error(&mut self, what: &str, truth: &Truth) {
        self.errors.push(format!("{what}: {truth:?}"));
    }

    fn packet(&mut self, got: &Got) {
        let (header, truth) = (got.header, Truth::read(&got.payload));
        if let Some((before, was)) = self.last {
            let same = was.picture == truth.picture;
            if header.sequence != before.sequence.wrapping_add(1) {
                self.error("gap", &truth);
            }
            if before.marker == same {
                self.error("marker", &was);
            }
            if (before.timestamp == header.timestamp) != same {
                self.error("timestamp", &truth);
            }
            let follows = same && was.spatial == truth.spatial && truth.index == was.index + 1;
            if !follows && (truth.index != 0 || was.index + 1 != was.count) {
                self.error("torn frame", &truth);
            }
            if !same {
                self.show(&was);
            }
        }
        if !got.dependencies.is_empty()
            && let Some(what) = self.descriptors.look(&got.dependencies, &truth)
        {
            self.error(&what, &truth);
        }
        if truth.index + 1 == truth.count {
            if let Some(missing) = truth.needs().into_iter().find(|f| !self.decoded.contains(f)) {
                self.error(&format!("needs {missing:?}"), &truth);
            } else {
                self.decoded.insert((truth.picture, truth.spatial));
            }
            while self.decoded.len() > 64 {
                self.decoded.pop_first();
            }
        }
        self.last = Some((header, truth));
    }

    fn show(&mut self, truth: &Truth) {
        if let Some((spatial, temporal)) = self.descriptors.told
            && (spatial != truth.spatial || temporal < truth.temporal())
        {
            self.error(&format!("told of layers {spatial}, {temporal}"), truth);
        }
        self.shown.push(truth.spatial);
        self.rates.push(truth.temporal());
    }

    /// Layer frames of which nothing told which targets are sent.
    pub fn silent(&self) -> usize {
        self.descriptors.silent
    }

    /// How often the highest layer changed from one picture to the next.
    pub fn switches(&self) -> usize {
        self.shown.windows(2).filter(|w| w[0] != w[1]).count()
    }
}
