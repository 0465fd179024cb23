//! A publisher's side of a transport: which SSRC is which layer of which section, repair and feedback.

use crate::{
    api::{CodecMap, EventKind, Id, Kind, Layer, ReceiveSection},
    arena::Key,
    clock::Now,
    context::Context,
    hash::Keyed,
    outbox::{DropReason, Outbox},
    stats::ReceiveStats,
};
use headwater_wire::{
    codec::Codec,
    ext::{self, ExtKind, ExtMap},
    nack::{Arrival, GapTracker},
    red::Red,
    relay::Media,
    rtcp,
    rtp::{self, RtpView},
    twcc,
};
use std::collections::HashMap;

/// SSRCs learnt for one transport.
const MAX_STREAMS: usize = 256;
/// Times that a transport's room is told of sources it has learnt: each of them twice over.
const MAX_TOLD: usize = 2 * MAX_STREAMS;
/// Sections in one transport.
pub(crate) const MAX_SECTIONS: usize = 128;
const TWCC_INTERVAL_US: u64 = 60_000;
const FIRST_REPORT_US: u64 = 500_000;
const REPORT_US: u64 = 1_000_000;
/// Report blocks in one packet (5-bit count).
const MAX_BLOCKS: usize = 31;
/// Lost packets put back from the copies in one: libwebrtc sends one copy, two at most.
const MAX_RESTORED: usize = 2;
/// Round trip assumed until one was measured.
const DEFAULT_RTT_US: u64 = 60_000;

/// A section in the form that packets need.
pub(crate) struct Section {
    pub mid: String,
    pub kind: Kind,
    pub track: Option<Key>,
    pub layers: Vec<Layer>,
    pub muted: bool,
    codecs: Vec<CodecMap>,
}

impl Section {
    fn codec(&self, payload_type: u8) -> Option<&CodecMap> {
        self.codecs.iter().find(|c| c.payload_type == payload_type)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Media,
    Rtx,
}

struct Stream {
    section: usize,
    spatial: u8,
    role: Role,
    /// Latest SSRC of this layer: an older one is a source that was replaced.
    stats: ReceiveStats,
    gaps: GapTracker,
    nack: bool,
}

/// A packet on its way into a track.
pub(crate) struct Ingest<'a> {
    pub track: Key,
    pub media: Media<'a>,
    /// The layer's numbering started anew: another SSRC, or a jump.
    pub restarted: bool,
    pub audio_level: Option<u8>,
}

#[derive(Default)]
pub(crate) struct Receiver {
    /// How often the room has been told of new sources.
    told: usize,
    pub sections: Vec<Section>,
    streams: HashMap<u32, Stream, Keyed>,
    /// Newest media SSRC of (section, spatial).
    active: HashMap<(usize, u8), u32, Keyed>,
    ext: ExtMap,
    twcc: twcc::Recorder,
    twcc_due_us: Option<u64>,
    twcc_media: u32,
    report_due_us: Option<u64>,
    nack_due_us: Option<u64>,
    pub rtt_us: Option<u64>,
    lost: Vec<u16>,
}

impl Receiver {
    /// SRTP is up.
    pub fn start(&mut self, now_us: u64) {
        self.report_due_us = Some(now_us + FIRST_REPORT_US);
    }

    /// Take over a whole set of sections. Streams of sections that stay are kept.
    pub fn configure(&mut self, sections: Vec<ReceiveSection>, track_of: impl Fn(&str) -> Option<Key>) {
        let old = std::mem::take(&mut self.sections);
        self.ext = ExtMap::new();
        for s in &sections {
            s.extensions.iter().for_each(|e| self.ext.set(e.id, e.extension));
        }
        let moved: Vec<Option<usize>> =
            old.iter().map(|o| sections.iter().position(|s| s.mid == o.mid && s.kind == o.kind)).collect();
        self.sections = sections
            .into_iter()
            .map(|s| Section {
                track: track_of(&s.track_id),
                mid: s.mid,
                kind: s.kind,
                layers: s.layers,
                muted: s.muted,
                codecs: s.codecs,
            })
            .collect();
        self.streams.retain(|_, stream| match moved.get(stream.section).copied().flatten() {
            Some(at) => {
                stream.section = at;
                true
            }
            None => false,
        });
        let active = std::mem::take(&mut self.active);
        for ((section, spatial), ssrc) in active {
            if let Some(at) = moved.get(section).copied().flatten() {
                self.active.insert((at, spatial), ssrc);
            }
        }
    }

    /// The SSRC that now carries a layer of a section's track.
    pub fn media_ssrc(&self, track: Key, spatial: u8) -> Option<u32> {
        let section = self.sections.iter().position(|s| s.track == Some(track))?;
        self.active.get(&(section, spatial)).copied()
    }

    /// One decrypted packet of that transport with its SRTP index. `None`: nothing to forward.
    pub fn ingest<'a>(
        &mut self,
        cx: &mut Context<'_>,
        transport_id: &Id,
        view: &RtpView<'a>,
        index: u64,
        block: &'a mut Vec<u8>,
    ) -> Option<Ingest<'a>> {
        let (now, out) = (cx.now, &mut *cx.out);
        let header = view.header();
        let mut restarted = false;
        if !self.streams.contains_key(&header.ssrc) {
            restarted = self.learn(view, transport_id, out)?;
        }
        self.record_transport_sequence(now.us, cx.arrived_us, view);
        let stream = self.streams.get_mut(&header.ssrc)?;
        let section = self.sections.get(stream.section)?;
        let Some(codec) = section.codec(header.payload_type) else {
            out.drop(DropReason::RtpUnknownPayloadType);
            return None;
        };
        stream.stats.on_packet(index, header.timestamp, codec.clock_rate, now.us);
        let (codec, sequence, payload) = if codec.codec == Codec::Rtx {
            if view.payload().is_empty() {
                return None; // a probe
            }
            let (sequence, payload) = rtp::split_rtx(view.payload())?;
            (section.codec(codec.apt)?, sequence, payload)
        } else {
            (codec, header.sequence, view.payload())
        };
        let at = (stream.section, stream.spatial);
        // Without a payload it is padding, by which a sender without retransmissions probes (RFC 3550 §5.1).
        if codec.codec == Codec::Red && !payload.is_empty() && !is_sound(payload, codec.apt) {
            out.drop(DropReason::RedMalformed);
            return None;
        }
        let media_ssrc = if stream.role == Role::Rtx { *self.active.get(&at)? } else { header.ssrc };
        let source = self.streams.get_mut(&media_ssrc)?;
        source.nack = codec.nack;
        match source.gaps.on_packet(sequence, now.us) {
            Arrival::New | Arrival::Recovered => {}
            Arrival::Reset => restarted = true,
            Arrival::Duplicate | Arrival::TooOld => {
                out.drop(DropReason::RtpDuplicate);
                return None;
            }
        }
        if source.nack && source.gaps.missing() > 0 {
            let due = source.gaps.next_due_us();
            self.nack_due_us = earliest(self.nack_due_us, due);
        }
        if section.muted {
            out.drop(DropReason::RtpMuted);
            return None;
        }
        let track = section.track?;
        let audio_level = ext::find(view, &self.ext, ExtKind::AudioLevel).and_then(ext::audio_level);
        block.clear();
        ext::normalise(view, &self.ext, block);
        let media = Media {
            handle: 0,
            spatial: at.1,
            codec: codec.codec,
            marker: header.marker,
            key_frame: codec.codec.is_video() && codec.codec.starts_key_frame(payload),
            retransmission: false,
            sequence,
            timestamp: header.timestamp,
            extensions: block,
            payload,
        };
        Some(Ingest { track, media, restarted, audio_level: audio_level.map(|l| l.1) })
    }

    /// What lost packets carried, as far as this one has copies of it (RFC 2198), the oldest first: put back as plain
    /// packets under the numbers of those, with this one's audio level.
    pub fn restored<'a>(
        &mut self,
        ssrc: u32,
        media: &Media<'a>,
        now_us: u64,
    ) -> [Option<Media<'a>>; MAX_RESTORED] {
        let mut restored = [None; MAX_RESTORED];
        let (Some(stream), Some(red)) = (self.streams.get_mut(&ssrc), Red::parse(media.payload)) else {
            return restored;
        };
        let blocks = red.earlier();
        let skipped = blocks.len().saturating_sub(MAX_RESTORED);
        let before = (1..=blocks.len() as u16).rev().zip(blocks).skip(skipped);
        for (slot, (distance, block)) in restored.iter_mut().zip(before) {
            let sequence = media.sequence.wrapping_sub(distance);
            let is_copy = block.offset > 0 && !block.payload.is_empty();
            if !is_copy || !stream.gaps.is_missing(sequence) {
                continue;
            }
            stream.gaps.on_packet(sequence, now_us);
            *slot = Some(Media {
                codec: media.codec.carried(),
                marker: false,
                sequence,
                timestamp: media.timestamp.wrapping_sub(u32::from(block.offset)),
                extensions: ext::level_alone(media.extensions),
                payload: block.payload,
                ..*media
            });
        }
        restored
    }

    /// A sender report: returns the track and layer that it is about.
    pub fn on_sender_report(&mut self, ssrc: u32, info: &rtcp::SenderInfo, now_us: u64) -> Option<(Key, u8)> {
        let stream = self.streams.get_mut(&ssrc)?;
        stream.stats.on_sender_report(info.ntp, now_us);
        if stream.role == Role::Rtx {
            return None;
        }
        Some((self.sections.get(stream.section)?.track?, stream.spatial))
    }

    /// Find out which layer an unknown SSRC is. Returns whether it replaces another source.
    fn learn(&mut self, view: &RtpView<'_>, transport_id: &Id, out: &mut Outbox) -> Option<bool> {
        let ssrc = view.ssrc();
        let Some((section, spatial, role)) = self.identify(view) else {
            out.drop(DropReason::RtpUnknownSsrc);
            return None;
        };
        if self.streams.len() >= MAX_STREAMS {
            out.drop(DropReason::RtpTooManySsrcs);
            return None;
        }
        let stats = ReceiveStats::default();
        let stream = Stream { section, spatial, role, stats, gaps: GapTracker::new(), nack: false };
        self.streams.insert(ssrc, stream);
        if role == Role::Rtx {
            self.tell_learnt(section, transport_id, out);
            return Some(false);
        }
        if self.twcc_media == 0 {
            self.twcc_media = ssrc;
        }
        let replaced = self.active.insert((section, spatial), ssrc);
        if let Some(old) = replaced {
            self.streams.remove(&old);
        }
        self.tell_learnt(section, transport_id, out);
        Some(true)
    }

    /// A client that changes its SSRCs with each packet must not keep the room busy: it is told of some, and
    /// that client joins anew where it is moved.
    fn tell_learnt(&mut self, section: usize, transport_id: &Id, out: &mut Outbox) {
        if self.told < MAX_TOLD {
            self.told += 1;
            self.tell_sources(section, transport_id, out);
        }
    }

    /// The same for all sections, for a watcher that starts.
    pub fn tell_all_sources(&self, transport_id: &Id, out: &mut Outbox) {
        (0..self.sections.len())
            .filter(|at| self.streams.values().any(|s| s.section == *at))
            .for_each(|at| self.tell_sources(at, transport_id, out));
    }

    /// Tell the room actor the SSRCs of a section, as far as they are known.
    fn tell_sources(&self, section: usize, transport_id: &Id, out: &mut Outbox) {
        let Some(s) = self.sections.get(section) else { return };
        let ssrc_of = |spatial, role| {
            let mine = |x: &Stream| x.section == section && x.spatial == spatial && x.role == role;
            self.streams.iter().find(|(_, x)| mine(x)).map(|(ssrc, _)| *ssrc)
        };
        // What was declared stays known: a node that follows another hears of the layers one by one.
        let layers = s.layers.iter().map(|l| Layer {
            rid: l.rid.clone(),
            spatial: l.spatial,
            ssrc: ssrc_of(l.spatial, Role::Media).unwrap_or(l.ssrc),
            rtx_ssrc: ssrc_of(l.spatial, Role::Rtx).unwrap_or(l.rtx_ssrc),
        });
        out.event(EventKind::Sources {
            transport_id: transport_id.clone(),
            mid: s.mid.clone(),
            layers: layers.collect(),
        });
    }

    /// By signalled SSRC, by MID and RID (RFC 8843 §9.2, RFC 8852), at last by payload type.
    fn identify(&self, view: &RtpView<'_>) -> Option<(usize, u8, Role)> {
        let (ssrc, pt) = (view.ssrc(), view.payload_type());
        for (at, section) in self.sections.iter().enumerate() {
            for layer in &section.layers {
                if layer.ssrc == ssrc {
                    return Some((at, layer.spatial, Role::Media));
                }
                if layer.rtx_ssrc == ssrc {
                    return Some((at, layer.spatial, Role::Rtx));
                }
            }
        }
        let text = |kind| ext::find(view, &self.ext, kind).and_then(|v| std::str::from_utf8(v).ok());
        let (mid, rid, rrid) = (text(ExtKind::Mid), text(ExtKind::Rid), text(ExtKind::RepairedRid));
        let mut found = None;
        for (at, section) in self.sections.iter().enumerate() {
            let Some(codec) = section.codec(pt) else { continue };
            if mid.is_some_and(|m| m != section.mid) {
                continue;
            }
            let role = if codec.codec == Codec::Rtx { Role::Rtx } else { Role::Media };
            let name = if role == Role::Rtx { rrid.or(rid) } else { rid };
            let layer = match name {
                Some(name) => section.layers.iter().find(|l| l.rid == name),
                None if section.layers.len() == 1 => section.layers.first(),
                None => None,
            };
            let Some(layer) = layer else { continue };
            if found.is_some() {
                return None; // more than one section could be meant
            }
            found = Some((at, layer.spatial, role));
        }
        found
    }

    fn record_transport_sequence(&mut self, now_us: u64, arrived_us: u64, view: &RtpView<'_>) {
        let Some(&[a, b]) = ext::find(view, &self.ext, ExtKind::TransportCc) else { return };
        self.twcc.record(u16::from_be_bytes([a, b]), arrived_us);
        if self.twcc_due_us.is_none() {
            self.twcc_due_us = Some(now_us + TWCC_INTERVAL_US);
        }
    }

    pub fn deadline_us(&self) -> Option<u64> {
        [self.twcc_due_us, self.report_due_us, self.nack_due_us].into_iter().flatten().min()
    }

    /// Due feedback, appended to `compound` as plain RTCP packets; nothing is appended when nothing is due.
    /// Returns tracks and layers that lost packets for good: their decoders need a key frame.
    pub fn poll_feedback(&mut self, now: Now, sender: u32, compound: &mut Vec<u8>) -> Vec<(Key, u8)> {
        let due = |t: Option<u64>| t.is_some_and(|t| t <= now.us);
        let mut abandoned = Vec::new();
        let report = due(self.report_due_us);
        let (nack, transport) = (due(self.nack_due_us), due(self.twcc_due_us));
        if !(report || nack || transport) {
            return abandoned;
        }
        let start = compound.len();
        if report {
            self.report_due_us = Some(now.us + REPORT_US);
            self.push_reports(now, sender, compound);
        }
        if compound.len() == start {
            // A compound starts with a report (RFC 3550 §6.1), an empty one if need be.
            rtcp::push_receiver_report(compound, sender, &[]);
        }
        let empty = compound.len();
        if nack {
            self.push_nacks(now, sender, compound, &mut abandoned);
        }
        if transport {
            self.twcc_due_us = None;
            for _ in 0..8 {
                if !self.twcc.push_feedback(compound, sender, self.twcc_media) {
                    break;
                }
            }
            if self.twcc.is_pending() {
                self.twcc_due_us = Some(now.us + TWCC_INTERVAL_US);
            }
        }
        if compound.len() == empty && !report {
            compound.truncate(start);
        }
        abandoned
    }

    fn push_reports(&mut self, now: Now, sender: u32, compound: &mut Vec<u8>) {
        let mut blocks: Vec<rtcp::ReportBlock> = Vec::new();
        for (ssrc, stream) in self.streams.iter_mut().filter(|(_, s)| s.role == Role::Media) {
            if stream.stats.has_traffic() {
                blocks.push(stream.stats.report(*ssrc, now.us));
            }
        }
        for part in blocks.chunks(MAX_BLOCKS) {
            rtcp::push_receiver_report(compound, sender, part);
        }
    }

    fn push_nacks(&mut self, now: Now, sender: u32, compound: &mut Vec<u8>, abandoned: &mut Vec<(Key, u8)>) {
        self.nack_due_us = None;
        let rtt = self.rtt_us.unwrap_or(DEFAULT_RTT_US);
        for (ssrc, stream) in self.streams.iter_mut().filter(|(_, s)| s.nack && s.role == Role::Media) {
            self.lost.clear();
            stream.gaps.poll(now.us, rtt, &mut self.lost);
            if !self.lost.is_empty() {
                rtcp::push_nack(compound, sender, *ssrc, &self.lost);
            }
            if stream.gaps.take_abandoned() > 0
                && let Some(track) = self.sections.get(stream.section).and_then(|s| s.track)
            {
                abandoned.push((track, stream.spatial));
            }
            if stream.gaps.missing() > 0 {
                self.nack_due_us = earliest(self.nack_due_us, stream.gaps.next_due_us());
            }
        }
    }

    /// (expected, lost) packets since the last call.
    pub fn take_loss(&mut self) -> (u64, u64) {
        let mut sum = (0, 0);
        for stream in self.streams.values_mut().filter(|s| s.role == Role::Media) {
            let (expected, lost) = stream.stats.take_loss();
            sum = (sum.0 + expected, sum.1 + lost);
        }
        sum
    }
}

/// A redundant payload whose blocks are all of the one codec that was agreed to, with something in the last.
fn is_sound(payload: &[u8], payload_type: u8) -> bool {
    Red::parse(payload).is_some_and(|red| {
        let agreed =
            red.payload_type == payload_type && red.earlier().all(|b| b.payload_type == payload_type);
        agreed && !red.primary.is_empty()
    })
}

/// The earlier of two optional times.
pub(crate) fn earliest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    [a, b].into_iter().flatten().min()
}
