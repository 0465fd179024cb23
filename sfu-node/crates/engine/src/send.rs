//! A subscriber's side: one sender per m-line, with its rewriting, repair and sender reports.

use crate::{
    api::{CodecMap, EventKind, Id, Kind, SendSection},
    arena::Key,
    clock::Now,
    context::Shared,
    outbox::{DropReason, Outbox, Path},
    senders::Used,
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

/// Packets sent again for one subscriber and m-line in each interval.
const NACK_BUDGET: u32 = 200;
const NACK_BUDGET_US: u64 = 100_000;

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
    pub last_sr: Option<(u32, u64)>,
    announced: Option<u8>,
}

impl Sender {
    pub fn new(section: SendSection, shared: &Shared, used: &mut Used) -> Self {
        let munger = used.mungers.remove(&section.ssrc);
        let rtx_index = used.rtx.remove(&section.rtx_ssrc);
        let mut sender = Self {
            track: None,
            current: None,
            target: None,
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
            announced: None,
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
            exit.out.drop(DropReason::CodecUnsupported);
            return false;
        };
        let munger = self.munger.get_or_insert_with(|| {
            let random = shared.random_u32();
            // The first number leaves room before the wrap (RFC 3711 §3.3.1).
            Munger::new((random & 0x3FFF) as u16, random, chosen.clock_rate)
        });
        let rewrite = if flows { munger.map(source, now.us) } else { Some(munger.switch(source, now.us)) };
        let Some(rewrite) = rewrite else {
            exit.out.drop(DropReason::RtpDuplicate);
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
            exit.out.drop(DropReason::SealFailed);
        }
    }

    /// Send again what the subscriber lost.
    pub fn on_nack(&mut self, now: Now, lost: impl Iterator<Item = u16>, track: &Track, exit: &mut Exit<'_>) {
        if now.us.saturating_sub(self.budget.0) > NACK_BUDGET_US {
            self.budget = (now.us, NACK_BUDGET);
        }
        for sequence in lost {
            if self.budget.1 == 0 {
                exit.out.drop(DropReason::NackBudget);
                return;
            }
            self.budget.1 -= 1;
            let origin = self.munger.as_ref().and_then(|m| m.origin(sequence));
            let origin = origin.filter(|o| o.index >= self.floor);
            let stored = origin.and_then(|o| Some((o, track.stored(o.layer, o.sequence)?)));
            match stored {
                Some((origin, stored)) => self.resend(&origin, &stored, exit),
                None => exit.out.drop(DropReason::NackUnknown),
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
                Shape {
                    header,
                    roc: (self.rtx_index >> 16) as u32,
                    original: Some(sequence),
                    vp8: origin.vp8,
                }
            }
            // Byte for byte what was sent: anything else would reuse a nonce.
            None => Shape { header, roc: (origin.index >> 16) as u32, original: None, vp8: origin.vp8 },
        };
        self.write(&shape, codec, stored.extensions, stored.payload, exit);
    }

    /// NTP and RTP time of this moment on the publisher's scales, so that its tracks stay in step.
    pub fn report_info(&self, now: Now, clock: Option<&SenderClock>) -> Option<rtcp::SenderInfo> {
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
