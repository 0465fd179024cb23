//! A subscriber's side: one sender per m-line, and the rewriting of what it forwards.

mod described;
mod redundant;
mod repair;
mod report;

use crate::{
    api::{CodecMap, EventKind, Id, Kind, SendSection},
    arena::Key,
    context::Shared,
    control::Control,
    layers::{Layers, Place},
    outbox::{DropReason, Outbox, Path},
    senders::Used,
    track::Track,
};
use headwater_cc::{Queued, alloc::Memory};
use headwater_wire::{
    codec::{Codec, dd, vp8},
    ext::{BlockIter, ExtKind, ExtMap},
    munge::{Munger, Rewrite, Source},
    relay::Media,
    rtp::{HeaderWriter, RtpHeader},
    srtp::Outbound,
    svc::{Limit, Tag},
};

/// Header, extensions and tag of a packet, about, bytes.
const OVERHEAD: usize = 45;
/// Transport-wide numbers kept where there is no RTX.
const AUDIO_NUMBERS: usize = 128;
const VIDEO_NUMBERS: usize = 512;

/// Where a sender's packets go.
pub(crate) struct Exit<'a> {
    pub srtp: &'a mut Outbound,
    pub path: Path,
    pub out: &'a mut Outbox,
    pub control: &'a mut Control,
    pub now_us: u64,
}

#[derive(Clone, Copy)]
struct Chosen {
    codec: Codec,
    payload_type: u8,
    rtx_payload_type: Option<u8>,
    clock_rate: u32,
}

pub(crate) struct Sender {
    pub section: SendSection,
    pub track: Option<Key>,
    /// Layer that flows now.
    pub current: Option<u8>,
    /// Layer that should flow.
    pub target: Option<u8>,
    /// What the estimate leaves for it: the highest layers, `None`: nothing.
    pub allowed: Option<Limit>,
    /// Where the stream has layers within itself: those that flow.
    pub layers: Layers,
    /// What the division remembers of it.
    pub memory: Memory,
    ext: ExtMap,
    chosen: Option<Chosen>,
    munger: Option<Munger>,
    /// NACKs below this index are not answered: those packets had another source or shape.
    floor: u64,
    rtx_index: u64,
    packets: u32,
    octets: u32,
    budget: (u64, u32),
    /// (expected, lost) as the subscriber reports, cumulative at the last quality report.
    remote: Option<(u32, i32)>,
    quality_prior: Option<(u32, i32)>,
    /// Middle NTP of the last sender report, and when it went.
    pub last_sr: Option<(u32, u64)>,
    announced: (Option<u8>, bool),
    /// Without RTX a packet sent again has to be the same to the last bit: transport-wide numbers by sequence number.
    numbers: Vec<(u16, u16)>,
}

impl Sender {
    pub fn new(section: SendSection, shared: &Shared, used: &mut Used) -> Self {
        let munger = used.mungers.remove(&section.ssrc);
        let rtx_index = used.rtx.remove(&section.rtx_ssrc);
        let mut sender = Self {
            track: None,
            current: None,
            target: None,
            allowed: Some(Limit::ALL),
            layers: Layers::default(),
            memory: Memory::default(),
            ext: ExtMap::new(),
            chosen: None,
            munger,
            floor: 0,
            rtx_index: rtx_index.unwrap_or_else(|| u64::from(shared.random_u32() & 0x7FFF)),
            packets: 0,
            octets: 0,
            budget: (0, 0),
            remote: None,
            quality_prior: None,
            last_sr: None,
            announced: (None, false),
            numbers: Vec::new(),
            section,
        };
        sender.map_extensions();
        sender.resync();
        sender
    }

    /// Keep the numbering: the same SSRC may come back, and under the same keys no number may be used twice.
    pub fn retire(self, used: &mut Used) {
        if let Some(munger) = self.munger {
            used.mungers.insert(self.section.ssrc, munger);
        }
        if self.section.rtx_ssrc != 0 {
            used.rtx.insert(self.section.rtx_ssrc, self.rtx_index);
        }
    }

    fn map_extensions(&mut self) {
        self.ext = ExtMap::new();
        for e in &self.section.extensions {
            self.ext.set(e.id, e.extension);
        }
        self.numbers.clear();
        if self.takes_transport_cc() && self.section.rtx_ssrc == 0 {
            self.numbers.resize(if self.is_audio() { AUDIO_NUMBERS } else { VIDEO_NUMBERS }, (0, 0));
        }
    }

    /// The same m-line with other settings.
    pub fn reconfigure(&mut self, section: SendSection, shared: &Shared, used: &mut Used) {
        if section.rtx_ssrc != self.section.rtx_ssrc {
            if self.section.rtx_ssrc != 0 {
                used.rtx.insert(self.section.rtx_ssrc, self.rtx_index);
            }
            let index = used.rtx.remove(&section.rtx_ssrc);
            self.rtx_index = index.unwrap_or_else(|| u64::from(shared.random_u32() & 0x7FFF));
            self.chosen = None;
        }
        let reshaped = section.mid != self.section.mid
            || section.codecs != self.section.codecs
            || section.extensions != self.section.extensions;
        let repair = section.rtx_ssrc != self.section.rtx_ssrc;
        let moved = section.track_id != self.section.track_id;
        // What is missed meanwhile leaves no gap: one of 32768 numbers or more would cost the receiver its count of
        // wraps (RFC 3711 §3.3.1).
        let pauses = section.paused && !self.section.paused;
        self.section = section;
        if reshaped || repair {
            self.map_extensions();
            self.chosen = None;
        }
        if moved {
            self.track = None;
        }
        if reshaped || repair || moved || pauses {
            self.resync();
        }
    }

    /// What was sent so far cannot be rebuilt, and what comes next needs a key frame.
    pub fn resync(&mut self) {
        self.forget();
        self.current = None;
    }

    /// What was sent so far cannot be rebuilt.
    pub fn forget(&mut self) {
        self.floor = self.munger.as_ref().and_then(Munger::highest_index).map_or(self.floor, |i| i + 1);
    }

    /// Packets of a layer before this one are not going to be sent.
    pub fn skip_to(&mut self, spatial: u8, sequence: u64) {
        if let Some(munger) = self.munger.as_mut().filter(|_| self.current == Some(spatial)) {
            munger.skip_to(spatial, sequence);
        }
    }

    pub fn is_audio(&self) -> bool {
        self.section.kind == Kind::Audio
    }

    /// The subscriber wants transport-wide sequence numbers on this m-line.
    pub fn takes_transport_cc(&self) -> bool {
        self.ext.id_of(ExtKind::TransportCc).is_some()
    }

    /// Nothing is to flow: by the client's wish, or for want of bandwidth.
    pub fn is_paused(&self) -> bool {
        self.section.paused || self.allowed.is_none()
    }

    /// Paused for want of bandwidth alone.
    pub fn is_limited(&self) -> bool {
        !self.section.paused && self.allowed.is_none()
    }

    /// Highest layer that may flow.
    pub fn max_spatial(&self) -> u8 {
        self.section.max_spatial.min(self.allowed.map_or(0, |l| l.spatial))
    }

    /// Highest temporal layer that may flow.
    pub fn max_temporal(&self) -> u8 {
        self.allowed.map_or(0, |l| l.temporal)
    }

    /// The division gave it this much. True: that is news.
    pub fn allow(&mut self, allowed: Option<Limit>) -> bool {
        let before = std::mem::replace(&mut self.allowed, allowed);
        if allowed.is_none() && before.is_some() {
            self.resync();
        }
        before != allowed
    }

    /// A key frame would let it start or change layer: which layer's.
    pub fn waits_for(&self) -> Option<u8> {
        let there = self.current == self.target && !self.layers.waits();
        if self.is_paused() || self.is_audio() || there {
            return None;
        }
        self.target
    }

    /// Tell the room actor when the flowing layer changed.
    pub fn announce(&mut self, transport_id: &Id, out: &mut Outbox) {
        let spatial = self.current.map(|c| self.layers.spatial().unwrap_or(c));
        let flowing = if self.is_paused() { None } else { spatial };
        let state = (flowing, self.is_limited());
        if state != self.announced {
            self.announced = state;
            out.event(self.current_event(transport_id));
        }
    }

    pub fn current_event(&self, transport_id: &Id) -> EventKind {
        EventKind::Subscription {
            transport_id: transport_id.clone(),
            track_id: self.section.track_id.clone(),
            current_spatial: self.announced.0.map_or(-1, i32::from),
            limited: self.announced.1,
        }
    }

    #[inline(always)]
    fn choose(&mut self, codec: Codec) -> Option<Chosen> {
        if self.chosen.is_none_or(|c| c.codec != codec) {
            let map: &CodecMap = self.section.codecs.iter().find(|c| c.codec == codec)?;
            let rtx = self.section.codecs.iter().find(|c| c.codec == Codec::Rtx && c.apt == map.payload_type);
            self.chosen = Some(Chosen {
                codec,
                payload_type: map.payload_type,
                rtx_payload_type: rtx.map(|r| r.payload_type).filter(|_| self.section.rtx_ssrc != 0),
                clock_rate: map.clock_rate,
            });
        }
        self.chosen
    }

    /// Forward one packet of its track, if it is one of the layer that this subscriber gets.
    /// True: the flowing layer changed.
    #[inline(always)]
    pub fn forward(
        &mut self,
        media: &Media<'_>,
        source: &Source<'_>,
        tag: Option<Tag>,
        track: &Track,
        shared: &Shared,
        exit: &mut Exit<'_>,
    ) -> bool {
        if self.is_paused() {
            return false;
        }
        let flows = self.current == Some(media.spatial);
        if media.payload.is_empty() {
            if flows && let Some(munger) = &mut self.munger {
                munger.drop_packet(media.spatial, source.sequence);
            }
            return false;
        }
        if !flows && !self.may_start_with(media, tag) {
            return false;
        }
        let Some(chosen) = self.choose(media.codec) else {
            if media.codec == Codec::Red {
                return self.forward_plain(media, source, track, shared, exit);
            }
            exit.out.drop(DropReason::CodecUnsupported);
            return false;
        };
        let munger = self.munger.get_or_insert_with(|| {
            let random = shared.random_u32();
            // The first number leaves room before the wrap (RFC 3711 §3.3.1).
            Munger::new((random & 0x3FFF) as u16, random, chosen.clock_rate)
        });
        let (rewrite, marker, changed) = if let Some(tag) = tag {
            let (place, changed) = self.layers.place(munger, media, source, tag, flows, exit.now_us);
            match place {
                Place::Goes(rewrite, marker) => (rewrite, marker, changed),
                Place::Dropped => return changed,
                Place::Late(rewrite) => {
                    self.fill(&rewrite, chosen, exit);
                    return changed;
                }
            }
        } else if flows {
            (munger.map(source, exit.now_us), media.marker, false)
        } else {
            (Some(munger.switch(source, exit.now_us)), media.marker, true)
        };
        let Some(rewrite) = rewrite else {
            exit.out.drop(DropReason::RtpDuplicate);
            return false;
        };
        self.current = Some(media.spatial);
        if media.codec == Codec::Av1 {
            self.number_frame(media, rewrite.index, !flows);
        }
        let size = media.payload.len() + OVERHEAD;
        // What may have to be sent again bit by bit cannot wait: it would have to be built anew.
        if chosen.rtx_payload_type.is_some() && !exit.control.admit(exit.now_us, size, false) {
            let held = Queued {
                stream: self.section.ssrc,
                sequence: rewrite.sequence(),
                size: size as u16,
                at_us: exit.now_us,
            };
            if !exit.control.hold(held) {
                exit.out.drop(DropReason::PacerFull);
            }
            return changed;
        }
        if chosen.rtx_payload_type.is_none() {
            exit.control.admit(exit.now_us, size, true);
        }
        let header = RtpHeader {
            marker,
            payload_type: chosen.payload_type,
            sequence: rewrite.sequence(),
            timestamp: rewrite.timestamp,
            ssrc: self.section.ssrc,
        };
        let frames = if media.codec == Codec::Av1 { self.frames(rewrite.index, track) } else { None };
        let shape = Shape { vp8: rewrite.vp8, frames: frames.as_ref(), ..Shape::new(header, rewrite.roc()) };
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(media.payload.len() as u32);
        self.write(&shape, media.codec, media.extensions, media.payload, exit);
        changed
    }

    /// A packet that came late is of a layer that did not flow in its place: padding takes the number that was kept
    /// for it, so that the subscriber misses nothing.
    #[cold]
    fn fill(&mut self, rewrite: &Rewrite, chosen: Chosen, exit: &mut Exit<'_>) {
        let header = RtpHeader {
            marker: false,
            payload_type: chosen.payload_type,
            sequence: rewrite.sequence(),
            timestamp: rewrite.timestamp,
            ssrc: self.section.ssrc,
        };
        exit.control.admit(exit.now_us, OVERHEAD, true);
        let shape = Shape { padding: 1, ..Shape::new(header, rewrite.roc()) };
        self.packets = self.packets.wrapping_add(1);
        self.write(&shape, chosen.codec, &[], &[], exit);
    }

    /// Audio and the first layer start at once resp. at any key frame; later only the wanted layer takes over.
    fn may_start_with(&self, media: &Media<'_>, tag: Option<Tag>) -> bool {
        if !media.codec.is_video() {
            return self.current.is_none() || self.target == Some(media.spatial);
        }
        let wanted = self.target == Some(media.spatial)
            || (self.current.is_none() && media.spatial <= self.max_spatial());
        media.key_frame && wanted && tag.is_none_or(|tag| tag.spatial() == 0)
    }

    #[inline]
    fn write(
        &mut self,
        shape: &Shape<'_>,
        codec: Codec,
        extensions: &[u8],
        payload: &[u8],
        exit: &mut Exit<'_>,
    ) {
        let start = exit.out.arena.len();
        let number =
            self.ext.id_of(ExtKind::TransportCc).zip(shape.number.or_else(|| exit.control.sequence()));
        let arena = &mut exit.out.arena;
        let mut writer = HeaderWriter::begin(arena, &shape.header);
        if let Some((id, number)) = number {
            writer.extension(id, &number.to_be_bytes());
        }
        if let Some(id) = self.ext.id_of(ExtKind::Mid) {
            writer.extension(id, self.section.mid.as_bytes());
        }
        for (kind, value) in BlockIter::new(extensions) {
            let Some(id) = self.ext.id_of(kind) else { continue };
            match shape.frames {
                Some(edit) if kind == ExtKind::DependencyDescriptor => describe(&mut writer, id, edit, value),
                _ => writer.extension(id, value),
            }
        }
        writer.finish();
        if let Some(original) = shape.original {
            arena.extend_from_slice(&original.to_be_bytes());
        }
        let at = arena.len();
        arena.extend_from_slice(payload);
        match codec {
            Codec::Vp8 if shape.vp8 != vp8::Offsets::default() => {
                if let Some(payload) = arena.get_mut(at..) {
                    vp8::patch(payload, shape.vp8);
                }
            }
            Codec::Red => self.relabel(arena, at),
            _ => {}
        }
        if shape.padding > 0 {
            arena.resize(arena.len() + usize::from(shape.padding) - 1, 0);
            arena.push(shape.padding);
            if let Some(first) = arena.get_mut(start) {
                *first |= 0x20;
            }
        }
        if exit.srtp.seal_rtp(arena, start, shape.roc).is_ok() {
            if let Some((_, number)) = number.filter(|_| shape.number.is_none()) {
                exit.control.sent(exit.now_us, exit.out.arena.len() - start, shape.probe);
                if !self.numbers.is_empty() {
                    let at = usize::from(shape.header.sequence) % self.numbers.len();
                    if let Some(slot) = self.numbers.get_mut(at) {
                        *slot = (shape.header.sequence, number);
                    }
                }
            }
            if number.is_none() {
                exit.control.sent_unnumbered(exit.now_us, exit.out.arena.len() - start);
            }
            exit.out.finish(exit.path, start);
        } else {
            exit.out.arena.truncate(start);
            exit.out.drop(DropReason::SealFailed);
        }
    }
}

#[cold]
#[inline(never)]
fn describe(writer: &mut HeaderWriter<'_>, id: u8, edit: &dd::Edit<'_>, descriptor: &[u8]) {
    writer.extension(id, edit.apply(descriptor).as_slice());
}

struct Shape<'a> {
    header: RtpHeader,
    roc: u32,
    /// RTX: the sequence number that it repairs.
    original: Option<u16>,
    vp8: vp8::Offsets,
    /// AV1: what becomes of its dependency descriptor.
    frames: Option<&'a dd::Edit<'a>>,
    /// Transport-wide number of a packet that goes out again.
    number: Option<u16>,
    /// Bytes of padding.
    padding: u8,
    /// Sent for the estimate alone.
    probe: bool,
}

impl Shape<'_> {
    fn new(header: RtpHeader, roc: u32) -> Self {
        Self {
            header,
            roc,
            original: None,
            vp8: vp8::Offsets::default(),
            frames: None,
            number: None,
            padding: 0,
            probe: false,
        }
    }
}
