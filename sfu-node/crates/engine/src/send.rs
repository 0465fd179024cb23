//! A subscriber's side: one sender per m-line, with its rewriting, repair and sender reports.

use crate::{
    api::{CodecMap, EventKind, Id, Kind, SendSection},
    arena::Key,
    clock::Now,
    context::Shared,
    outbox::{Drop, Outbox, Path},
    track::{SenderClock, Track},
};
use headwater_wire::{
    codec::{Codec, vp8},
    ext::{BlockIter, ExtKind, ExtMap},
    history::Stored,
    munge::{Munger, Origin, Source},
    relay::Media,
    rtcp,
    rtp::{HeaderWriter, RtpHeader},
    srtp::Outbound,
};
use std::collections::HashMap;

/// Sections in one transport.
pub(crate) const MAX_SENDERS: usize = 1024;
const REPORT_US: u64 = 1_000_000;
/// Packets sent again for one subscriber and m-line in each interval.
const NACK_BUDGET: u32 = 200;
const NACK_BUDGET_US: u64 = 100_000;
/// Longest compound of sender reports, bytes before encryption.
const MAX_COMPOUND: usize = 1100;
const CNAME: &str = "headwater";

/// Where a sender's packets go.
pub(crate) struct Exit<'a> {
    pub srtp: &'a mut Outbound,
    pub path: Path,
    pub out: &'a mut Outbox,
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
    last_sr: Option<(u32, u64)>,
    announced: Option<u8>,
}

impl Sender {
    fn new(section: SendSection, shared: &Shared) -> Self {
        let mut sender = Self {
            track: None,
            current: None,
            target: None,
            ext: ExtMap::new(),
            chosen: None,
            munger: None,
            floor: 0,
            rtx_index: u64::from(shared.random_u32() & 0x7FFF),
            packets: 0,
            octets: 0,
            budget: (0, 0),
            remote: None,
            quality_prior: None,
            last_sr: None,
            announced: None,
            section,
        };
        sender.map_extensions();
        sender
    }

    fn map_extensions(&mut self) {
        self.ext = ExtMap::new();
        for e in &self.section.extensions {
            self.ext.set(e.id, e.extension);
        }
    }

    /// The same m-line with other settings.
    fn reconfigure(&mut self, section: SendSection) {
        let reshaped = section.mid != self.section.mid
            || section.codecs != self.section.codecs
            || section.extensions != self.section.extensions;
        let moved = section.track_id != self.section.track_id;
        self.section = section;
        if reshaped {
            self.map_extensions();
            self.chosen = None;
        }
        if moved {
            self.track = None;
        }
        if reshaped || moved {
            self.resync();
        }
    }

    /// What was sent so far cannot be rebuilt, and what comes next needs a key frame.
    pub fn resync(&mut self) {
        self.floor = self.munger.as_ref().and_then(Munger::highest_index).map_or(self.floor, |i| i + 1);
        self.current = None;
    }

    pub fn is_audio(&self) -> bool {
        self.section.kind == Kind::Audio
    }

    /// A key frame would let it start or change layer: which layer's.
    pub fn waits_for(&self) -> Option<u8> {
        if self.section.paused || self.is_audio() || self.current == self.target {
            return None;
        }
        self.target
    }

    /// Tell the room actor when the flowing layer changed.
    pub fn announce(&mut self, transport_id: &Id, out: &mut Outbox) {
        let flowing = if self.section.paused { None } else { self.current };
        if flowing != self.announced {
            self.announced = flowing;
            out.event(EventKind::Subscription {
                transport_id: transport_id.clone(),
                track_id: self.section.track_id.clone(),
                current_spatial: flowing.map_or(-1, i32::from),
            });
        }
    }

    pub fn current_event(&self, transport_id: &Id) -> EventKind {
        EventKind::Subscription {
            transport_id: transport_id.clone(),
            track_id: self.section.track_id.clone(),
            current_spatial: self.announced.map_or(-1, i32::from),
        }
    }

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
    #[inline]
    pub fn forward(
        &mut self,
        now: Now,
        media: &Media<'_>,
        source: &Source<'_>,
        shared: &Shared,
        exit: &mut Exit<'_>,
    ) -> bool {
        if self.section.paused {
            return false;
        }
        let flows = self.current == Some(media.spatial);
        if media.payload.is_empty() {
            if flows && let Some(munger) = &mut self.munger {
                munger.drop_packet(media.spatial, source.sequence);
            }
            return false;
        }
        if !flows && !self.may_start_with(media) {
            return false;
        }
        let Some(chosen) = self.choose(media.codec) else {
            exit.out.drop(Drop::CodecUnsupported);
            return false;
        };
        let munger = self.munger.get_or_insert_with(|| {
            let random = shared.random_u32();
            // The first number leaves room before the wrap (RFC 3711 §3.3.1).
            Munger::new((random & 0x3FFF) as u16, random, chosen.clock_rate)
        });
        let rewrite = if flows { munger.map(source, now.us) } else { Some(munger.switch(source, now.us)) };
        let Some(rewrite) = rewrite else {
            exit.out.drop(Drop::RtpDuplicate);
            return false;
        };
        self.current = Some(media.spatial);
        let header = RtpHeader {
            marker: media.marker,
            payload_type: chosen.payload_type,
            sequence: rewrite.sequence(),
            timestamp: rewrite.timestamp,
            ssrc: self.section.ssrc,
        };
        let shape = Shape { header, roc: rewrite.roc(), original: None, vp8: rewrite.vp8 };
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(media.payload.len() as u32);
        self.write(&shape, media.codec, media.extensions, media.payload, exit);
        !flows
    }

    /// Audio and the first layer start at once resp. at any key frame; later only the wanted layer takes over.
    fn may_start_with(&self, media: &Media<'_>) -> bool {
        if !media.codec.is_video() {
            return self.current.is_none() || self.target == Some(media.spatial);
        }
        let wanted = self.target == Some(media.spatial)
            || (self.current.is_none() && media.spatial <= self.section.max_spatial);
        media.key_frame && wanted
    }

    #[inline]
    fn write(&self, shape: &Shape, codec: Codec, extensions: &[u8], payload: &[u8], exit: &mut Exit<'_>) {
        let start = exit.out.arena.len();
        let arena = &mut exit.out.arena;
        let mut writer = HeaderWriter::begin(arena, &shape.header);
        if let Some(id) = self.ext.id_of(ExtKind::Mid) {
            writer.extension(id, self.section.mid.as_bytes());
        }
        for (kind, value) in BlockIter::new(extensions) {
            if let Some(id) = self.ext.id_of(kind) {
                writer.extension(id, value);
            }
        }
        writer.finish();
        if let Some(original) = shape.original {
            arena.extend_from_slice(&original.to_be_bytes());
        }
        let at = arena.len();
        arena.extend_from_slice(payload);
        if codec == Codec::Vp8
            && shape.vp8 != vp8::Offsets::default()
            && let Some(payload) = arena.get_mut(at..)
        {
            vp8::patch(payload, shape.vp8);
        }
        if exit.srtp.seal_rtp(arena, start, shape.roc).is_ok() {
            exit.out.finish(exit.path, start);
        } else {
            exit.out.arena.truncate(start);
            exit.out.drop(Drop::SealFailed);
        }
    }

    /// Send again what the subscriber lost.
    pub fn on_nack(&mut self, now: Now, lost: impl Iterator<Item = u16>, track: &Track, exit: &mut Exit<'_>) {
        if now.us.saturating_sub(self.budget.0) > NACK_BUDGET_US {
            self.budget = (now.us, NACK_BUDGET);
        }
        for sequence in lost {
            if self.budget.1 == 0 {
                exit.out.drop(Drop::NackBudget);
                return;
            }
            self.budget.1 -= 1;
            let origin = self.munger.as_ref().and_then(|m| m.origin(sequence));
            let origin = origin.filter(|o| o.index >= self.floor);
            let stored = origin.and_then(|o| Some((o, track.stored(o.layer, o.sequence)?)));
            match stored {
                Some((origin, stored)) => self.resend(&origin, &stored, exit),
                None => exit.out.drop(Drop::NackUnknown),
            }
        }
    }

    fn resend(&mut self, origin: &Origin, stored: &Stored<'_>, exit: &mut Exit<'_>) {
        let Some(codec) = Codec::from_number(stored.payload_type) else { return };
        let Some(chosen) = self.chosen.filter(|c| c.codec == codec) else { return };
        if stored.payload.is_empty() {
            return;
        }
        let sequence = origin.index as u16;
        let timestamp = stored.timestamp.wrapping_add(origin.timestamp_offset);
        let mut header = RtpHeader {
            marker: stored.marker,
            payload_type: chosen.payload_type,
            sequence,
            timestamp,
            ssrc: self.section.ssrc,
        };
        let shape = match chosen.rtx_payload_type {
            Some(payload_type) => {
                self.rtx_index += 1;
                header = RtpHeader {
                    payload_type,
                    sequence: self.rtx_index as u16,
                    ssrc: self.section.rtx_ssrc,
                    ..header
                };
                Shape { header, roc: (self.rtx_index >> 16) as u32, original: Some(sequence), vp8: origin.vp8 }
            }
            // Byte for byte what was sent: anything else would reuse a nonce.
            None => Shape { header, roc: (origin.index >> 16) as u32, original: None, vp8: origin.vp8 },
        };
        self.write(&shape, codec, stored.extensions, stored.payload, exit);
    }

    /// NTP and RTP time of this moment on the publisher's scales, so that its tracks stay in step.
    fn report_info(&self, now: Now, clock: Option<&SenderClock>) -> Option<rtcp::SenderInfo> {
        let munger = self.munger.as_ref()?;
        let chosen = self.chosen?;
        let ticks = |from_us: u64| {
            (now.us.saturating_sub(from_us).wrapping_mul(u64::from(chosen.clock_rate)) / 1_000_000) as u32
        };
        let (sent_timestamp, sent_us) = munger.last_timestamp()?;
        let offset = munger.highest_index().and_then(|i| munger.origin(i as u16)).map(|o| o.timestamp_offset);
        let (ntp, rtp_timestamp) = match (clock, offset) {
            (Some(clock), Some(offset)) => {
                let elapsed = now.us.saturating_sub(clock.at_us);
                let ntp = clock.ntp.wrapping_add(ntp_delta(elapsed));
                (ntp, clock.rtp_timestamp.wrapping_add(offset).wrapping_add(ticks(clock.at_us)))
            }
            _ => (rtcp::ntp_from_unix_us(now.unix_us), sent_timestamp.wrapping_add(ticks(sent_us))),
        };
        Some(rtcp::SenderInfo { ntp, rtp_timestamp, packets: self.packets, octets: self.octets })
    }

    /// A report block from the subscriber. Returns the round trip in µs, where it shows one.
    pub fn on_report(&mut self, now: Now, block: &rtcp::ReportBlock) -> Option<u64> {
        let first = self.munger.as_ref().and_then(Munger::highest_index)?;
        let _ = first;
        self.remote = Some((block.highest_sequence, block.cumulative_lost));
        let (sr, at) = self.last_sr?;
        if block.last_sr != sr {
            return None;
        }
        let delay = u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536;
        now.us.saturating_sub(at).checked_sub(delay)
    }

    /// (expected, lost) since the last call, as the subscriber saw it.
    pub fn take_loss(&mut self) -> (u64, u64) {
        let Some(remote) = self.remote else { return (0, 0) };
        let before = self.quality_prior.replace(remote);
        let Some(before) = before else { return (0, 0) };
        let expected = u64::from(remote.0.wrapping_sub(before.0).min(1 << 24));
        let lost = u64::try_from(remote.1.saturating_sub(before.1)).unwrap_or(0);
        (expected, lost.min(expected))
    }
}

struct Shape {
    header: RtpHeader,
    roc: u32,
    /// RTX: the sequence number that it repairs.
    original: Option<u16>,
    vp8: vp8::Offsets,
}

/// Microseconds as a 32.32 fixed-point difference.
fn ntp_delta(us: u64) -> u64 {
    (u128::from(us) * (1u128 << 32) / 1_000_000) as u64
}

/// All senders of one transport.
#[derive(Default)]
pub(crate) struct Senders {
    slots: Vec<Option<Sender>>,
    by_ssrc: HashMap<u32, usize>,
    report_due_us: Option<u64>,
}

impl Senders {
    /// SRTP is up.
    pub fn start(&mut self, now_us: u64) {
        self.report_due_us = Some(now_us + REPORT_US / 4);
    }

    /// Take over a whole set of sections; those with a known SSRC keep their numbering.
    /// Returns the slots whose track has to be found anew.
    pub fn configure(&mut self, sections: Vec<SendSection>, shared: &Shared) -> Vec<(usize, Option<Key>)> {
        let mut detached = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let stays = slot.as_ref().is_some_and(|s| sections.iter().any(|n| n.ssrc == s.section.ssrc));
            if !stays && let Some(sender) = slot.take() {
                detached.push((at, sender.track));
            }
        }
        for section in sections {
            let found = self.slots.iter_mut().enumerate().find_map(|(at, slot)| {
                slot.as_mut().filter(|s| s.section.ssrc == section.ssrc).map(|s| (at, s))
            });
            if let Some((at, sender)) = found {
                let before = sender.track;
                sender.reconfigure(section);
                if sender.track.is_none() {
                    detached.push((at, before));
                }
            } else {
                let sender = Some(Sender::new(section, shared));
                let at = match self.slots.iter().position(Option::is_none) {
                    Some(at) => {
                        self.slots[at] = sender;
                        at
                    }
                    None => {
                        self.slots.push(sender);
                        self.slots.len() - 1
                    }
                };
                detached.push((at, None));
            }
        }
        self.index();
        detached
    }

    fn index(&mut self) {
        self.by_ssrc.clear();
        for (at, slot) in self.slots.iter().enumerate() {
            let Some(sender) = slot else { continue };
            self.by_ssrc.insert(sender.section.ssrc, at);
            if sender.section.rtx_ssrc != 0 {
                self.by_ssrc.insert(sender.section.rtx_ssrc, at);
            }
        }
    }

    pub fn get(&self, at: usize) -> Option<&Sender> {
        self.slots.get(at)?.as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut Sender> {
        self.slots.get_mut(at)?.as_mut()
    }

    pub fn by_ssrc(&mut self, ssrc: u32) -> Option<&mut Sender> {
        let at = *self.by_ssrc.get(&ssrc)?;
        self.get_mut(at)
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &Sender)> {
        self.slots.iter().enumerate().filter_map(|(at, s)| Some((at, s.as_ref()?)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Sender)> {
        self.slots.iter_mut().enumerate().filter_map(|(at, s)| Some((at, s.as_mut()?)))
    }

    pub fn deadline_us(&self) -> Option<u64> {
        self.report_due_us.filter(|_| !self.by_ssrc.is_empty())
    }

    /// Due sender reports, one compound per call of `each`.
    pub fn poll_reports(
        &mut self,
        now: Now,
        clock_of: impl Fn(Key, u8) -> Option<SenderClock>,
        compound: &mut Vec<u8>,
        mut each: impl FnMut(&mut Vec<u8>),
    ) {
        if self.report_due_us.is_none_or(|t| t > now.us) {
            return;
        }
        self.report_due_us = Some(now.us + REPORT_US);
        compound.clear();
        for sender in self.slots.iter_mut().flatten().filter(|s| !s.section.paused) {
            let Some((track, layer)) = sender.track.zip(sender.current) else { continue };
            let clock = clock_of(track, layer);
            let Some(info) = sender.report_info(now, clock.as_ref()) else { continue };
            sender.last_sr = Some((rtcp::ntp_middle(info.ntp), now.us));
            rtcp::push_sender_report(compound, sender.section.ssrc, &info, &[]);
            rtcp::push_sdes_cname(compound, sender.section.ssrc, CNAME);
            if compound.len() > MAX_COMPOUND - 64 {
                each(compound);
                compound.clear();
            }
        }
        if !compound.is_empty() {
            each(compound);
            compound.clear();
        }
    }
}
