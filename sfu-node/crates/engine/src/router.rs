//! Packets of a room: from publishers and links to subscribers and links.

use crate::{
    arena::Key,
    context::Context,
    engine::CHUNK,
    hold::{Held, MAX_RUN, Place},
    outbox::{DropReason, Outbox, Path},
    receive::Ingest,
    room::Room,
    send::Exit,
    timers::Owner,
    track::{Continuity, LAYERS, SenderClock, Source, Track},
    voices::Voices,
};
use headwater_wire::{
    codec::{Codec, vp8},
    ext::{self, BlockIter, ExtKind},
    history::Stored,
    munge,
    relay::{self, Media},
    rtcp,
    rtp::RtpView,
    stun,
    svc::Tag,
};

/// RTCP packets looked at in one compound.
const MAX_RTCP: usize = 64;
/// Messages looked at in one relay datagram.
const MAX_MESSAGES: usize = 256;
/// Packets sent again for one relay NACK message.
const MAX_RELAY_NACK: usize = 256;

impl Room {
    pub fn on_stun(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        request: &stun::BindingRequest<'_>,
        path: Path,
    ) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let before = transport.ice.selected();
        let learned = transport.ice.on_request(cx.now, request, path, cx.out);
        if before.is_some() && transport.ice.selected() != before && transport.is_connected() {
            // The room must know over which relay a client comes, to help when that dies.
            cx.out.event(transport.state_event());
        }
        if let Some(old) = learned.evicted {
            cx.routes.forget_path(old, (cx.room, key));
        }
        if transport.ice.paths().contains(&path) {
            cx.routes.paths.insert(path, (cx.room, key));
            transport.seen(cx, path);
        }
        self.arm_transport(cx, key);
    }

    pub fn on_dtls(&mut self, cx: &mut Context<'_>, key: Key, datagram: &[u8]) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let before = transport.state;
        transport.on_dtls(cx, datagram);
        if transport.state != before {
            self.on_state(cx, key);
        }
        self.arm_transport(cx, key);
    }

    /// A transport came up: what it subscribes to needs key frames.
    pub fn on_state(&mut self, cx: &mut Context<'_>, key: Key) {
        let slots: Vec<usize> =
            self.transports.get(key).map(|t| t.senders.iter().map(|s| s.0).collect()).unwrap_or_default();
        for slot in slots {
            self.retarget_one(cx, crate::track::Subscriber { transport: key, slot });
        }
        self.send_key_requests(cx);
        self.send_demands(cx, false);
    }

    #[inline]
    pub fn on_rtp(&mut self, cx: &mut Context<'_>, key: Key, path: Path, data: &mut [u8]) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(opened) = transport.open_rtp(cx.now, path, data, cx.out) else { return };
        let Some(view) = data.get(..opened.len).and_then(RtpView::parse) else {
            cx.out.drop(DropReason::RtpMalformed);
            return;
        };
        let mut block = std::mem::take(cx.block);
        let ingest = transport.receiver.ingest(cx, &transport.id, &view, opened.index, &mut block);
        if let Some(at) = transport.receiver.deadline_us() {
            cx.timers.arm(&mut transport.armed, at, cx.room, Owner::Transport(key));
        }
        if let Some(ingest) = ingest {
            if let Some(level) = ingest.audio_level
                && let Some(track) = self.tracks.get_mut(ingest.track)
            {
                track.on_level(level, cx.now.us);
            }
            if ingest.media.codec == Codec::Red {
                self.restore(cx, key, view.ssrc(), &ingest);
            }
            let continuity = if ingest.restarted { Continuity::Restart } else { Continuity::Whole };
            self.accept(cx, ingest.track, &ingest.media, continuity);
        }
        *cx.block = block;
    }

    /// What was lost just before this packet, from the copies that it has: everybody gets it in its place, at once.
    #[inline(never)]
    fn restore(&mut self, cx: &mut Context<'_>, key: Key, ssrc: u32, ingest: &Ingest<'_>) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let restored = transport.receiver.restored(ssrc, &ingest.media, cx.now.us);
        for media in restored.iter().flatten() {
            self.accept(cx, ingest.track, media, Continuity::Whole);
        }
    }

    /// Take one packet of a track in; it is forwarded with the rest of its frame.
    #[inline]
    pub fn accept(&mut self, cx: &mut Context<'_>, key: Key, media: &Media<'_>, continuity: Continuity) {
        let restarted = continuity == Continuity::Restart;
        if restarted {
            // What waits goes by the old numbering.
            self.forward(cx, key, &mut |_| {});
        }
        let Some(track) = self.tracks.get_mut(key) else { return };
        let heard = !track.voice || is_heard(&mut self.voices, key, track, media, cx.now.us);
        let begins = std::mem::replace(&mut track.unheard, !heard) && heard;
        // Whoever hears it now must not miss what it never got: the marker says that speech begins (RFC 3551 §4.1).
        let media = &Media { marker: media.marker || begins, ..*media };
        let Some(accepted) = track.accept(cx.now.us, media, restarted) else { return };
        if begins || continuity == Continuity::Gap {
            self.close_gap(cx, key, media.spatial, accepted.sequence);
        }
        let Some(track) = self.tracks.get_mut(key) else { return };
        if !heard {
            cx.out.drop(DropReason::RtpUnheard);
        } else if !(track.subscribers.is_empty() && track.link_subscribers.is_empty()) {
            let held = Held {
                spatial: media.spatial,
                index: accepted.sequence,
                key_frame: media.key_frame,
                retransmission: media.retransmission,
                arrived_us: cx.arrived_us,
            };
            let complete = media.marker || !media.codec.is_video() || media.retransmission;
            let place = Place { complete, timestamp: media.timestamp };
            track.run.push(cx.holds, cx.now.us, (cx.room, key), held, place);
        }
        if restarted {
            self.resync_layer(key, media.spatial);
        }
        if accepted.changed {
            self.on_layers_changed(cx, key);
        }
    }

    /// Packets before this one were not sent on purpose: nobody is to see a gap.
    #[cold]
    fn close_gap(&mut self, cx: &mut Context<'_>, key: Key, spatial: u8, sequence: u64) {
        // What waits is from before the gap.
        self.forward(cx, key, &mut |_| {});
        let Some(track) = self.tracks.get(key) else { return };
        for subscriber in &track.subscribers {
            let transport = self.transports.get_mut(subscriber.transport);
            if let Some(sender) = transport.and_then(|t| t.senders.get_mut(subscriber.slot)) {
                sender.skip_to(spatial, sequence);
            }
        }
    }

    /// What a track holds, to everybody who gets its layer. `send` empties the outbox when it has grown large.
    pub fn forward(&mut self, cx: &mut Context<'_>, key: Key, send: &mut dyn FnMut(&mut Outbox)) {
        let Some(held) = self.tracks.get_mut(key).map(|t| t.run.take()).filter(|h| !h.is_empty()) else {
            return;
        };
        for part in held.chunks(MAX_RUN) {
            self.forward_run(cx, key, part, send);
        }
        if let Some(track) = self.tracks.get_mut(key) {
            track.run.reuse(held);
        }
    }

    fn forward_run(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        held: &[Held],
        send: &mut dyn FnMut(&mut Outbox),
    ) {
        let Some(track) = self.tracks.get(key) else { return };
        let mut run = [const { None }; MAX_RUN];
        for (slot, held) in run.iter_mut().zip(held) {
            *slot = Packet::new(track, held);
        }
        let run = &run[..held.len().min(MAX_RUN)];
        let mut switched = false;
        for subscriber in &track.subscribers {
            let Some(transport) = self.transports.get_mut(subscriber.transport) else { continue };
            let (Some(srtp), Some(path)) = (transport.srtp_out.as_mut(), transport.ice.selected()) else {
                continue;
            };
            let Some(sender) = transport.senders.get_mut(subscriber.slot) else { continue };
            let control = &mut transport.control;
            let mut exit = Exit { srtp, path, out: cx.out, control, now_us: cx.now.us };
            let mut changed = false;
            for packet in run.iter().flatten() {
                let source = packet.source();
                changed |= sender.forward(&packet.media, &source, packet.tag, track, cx.shared, &mut exit);
            }
            if changed {
                sender.announce(&transport.id, cx.out);
                switched = true;
            }
            if let Some(at) = transport.control.pacer_due_us() {
                cx.timers.arm(&mut transport.armed, at, cx.room, Owner::Transport(subscriber.transport));
            }
            if cx.out.queued_bytes() >= CHUNK {
                send(cx.out);
            }
        }
        for subscriber in &track.link_subscribers {
            if let Some(link) = self.links.get_mut(subscriber.link) {
                let wanted = |p: &&Packet<'_>| subscriber.resolved & (1u8 << p.media.spatial) != 0;
                let run = run.iter().flatten().filter(wanted).map(|p| &p.media);
                link.send_media(cx.now.us, subscriber.handle, run, cx.out);
            }
        }
        held.iter().for_each(|h| cx.out.forwarded(h.arrived_us));
        if switched && matches!(track.source, Source::Link(_)) {
            self.send_demands(cx, false);
        }
    }

    pub fn on_rtcp(&mut self, cx: &mut Context<'_>, key: Key, path: Path, data: &mut [u8]) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(len) = transport.open_rtcp(cx.now, path, data, cx.out) else { return };
        let Some(compound) = data.get(..len) else { return };
        let (mut wished, mut divide) = (false, false);
        for packet in rtcp::Packets::new(compound).take(MAX_RTCP) {
            match packet {
                rtcp::Packet::SenderReport { ssrc, info, reports } => {
                    self.on_sender_report(cx, key, ssrc, &info);
                    self.on_reports(cx, key, reports);
                }
                rtcp::Packet::ReceiverReport { reports, .. } => self.on_reports(cx, key, reports),
                rtcp::Packet::Nack { media, lost, .. } => self.on_nack(cx, key, media, lost),
                rtcp::Packet::Pli { media, .. } => {
                    wished = true;
                    self.on_key_wish(key, media);
                }
                rtcp::Packet::Fir { entries, .. } => {
                    wished = true;
                    entries.take(MAX_RTCP).for_each(|(ssrc, _)| self.on_key_wish(key, ssrc));
                }
                rtcp::Packet::TransportCc(feedback) => {
                    let control = self.transports.get_mut(key).map(|t| &mut t.control);
                    divide |= control.is_some_and(|c| c.on_feedback(cx.now.us, &feedback));
                }
                rtcp::Packet::Remb { bitrate, .. } => {
                    let control = self.transports.get_mut(key).map(|t| &mut t.control);
                    divide |= control.is_some_and(|c| c.on_remb(cx.now.us, bitrate));
                }
                _ => {}
            }
        }
        if divide {
            self.divide(cx, key);
        }
        if wished || divide {
            self.send_key_requests(cx);
        }
        self.arm_transport(cx, key);
    }

    fn on_reports(&mut self, cx: &mut Context<'_>, key: Key, reports: rtcp::Reports<'_>) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        for block in reports.take(MAX_RTCP) {
            transport.control.on_loss(cx.now.us, f64::from(block.fraction_lost) / 256.0);
            let rtt = transport.senders.by_ssrc(block.ssrc).and_then(|s| s.on_report(cx.now, &block));
            if let Some(rtt) = rtt {
                let old = transport.receiver.rtt_us;
                transport.receiver.rtt_us = Some(old.map_or(rtt, |old| (old * 7 + rtt) / 8));
            }
        }
    }

    fn on_sender_report(&mut self, cx: &mut Context<'_>, key: Key, ssrc: u32, info: &rtcp::SenderInfo) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some((track, spatial)) = transport.receiver.on_sender_report(ssrc, info, cx.now.us) else {
            return;
        };
        self.set_clock(cx, track, spatial, info.ntp, info.rtp_timestamp);
    }

    /// Keep the publisher's clock for sender reports here, and pass it on to the nodes that get the layer.
    fn set_clock(&mut self, cx: &mut Context<'_>, key: Key, spatial: u8, ntp: u64, rtp_timestamp: u32) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        track.set_clock(spatial, SenderClock { ntp, rtp_timestamp, at_us: cx.now.us });
        if usize::from(spatial) >= LAYERS {
            return;
        }
        for s in track.link_subscribers.iter().filter(|s| s.resolved & (1 << spatial) != 0) {
            if let Some(link) = self.links.get_mut(s.link) {
                link.send_clock(s.handle, spatial, ntp, rtp_timestamp, cx.out);
            }
        }
    }

    fn on_nack(&mut self, cx: &mut Context<'_>, key: Key, ssrc: u32, lost: rtcp::NackSeqs<'_>) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let (Some(srtp), Some(path)) = (transport.srtp_out.as_mut(), transport.ice.selected()) else {
            return;
        };
        let Some(sender) = transport.senders.by_ssrc(ssrc) else { return };
        let Some(track) = sender.track.and_then(|t| self.tracks.get(t)) else { return };
        let (control, now_us) = (&mut transport.control, cx.now.us);
        sender.on_nack(cx.now, lost, track, &mut Exit { srtp, path, out: cx.out, control, now_us });
    }

    /// PLI or FIR of a subscriber.
    fn on_key_wish(&mut self, key: Key, ssrc: u32) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(sender) = transport.senders.by_ssrc(ssrc) else { return };
        let Some(spatial) = sender.current.or(sender.target) else { return };
        if let Some(track) = sender.track.and_then(|t| self.tracks.get_mut(t)) {
            track.request_key_frame(spatial);
        }
    }

    /// One datagram of a relay link.
    pub fn on_relay(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) {
        let Some(link) = self.links.get_mut(key) else { return };
        let was_up = link.up;
        let Some(messages) = link.open(cx.now, data, cx.out) else { return };
        if !was_up {
            self.send_demands(cx, true);
        }
        for message in messages.take(MAX_MESSAGES) {
            self.on_relay_message(cx, key, message);
        }
        self.arm_link(cx, key);
    }

    fn on_relay_message(&mut self, cx: &mut Context<'_>, key: Key, message: relay::Message<'_>) {
        let Some(link) = self.links.get_mut(key) else { return };
        match message {
            relay::Message::Media(media) => {
                let only_loudest = self.voices.is_limited();
                if let Some(crossed) = link.on_media(cx.now, &media, only_loudest, cx.out) {
                    let (track, demanded) = (crossed.track, crossed.demanded);
                    let foreign = media.spatial < 8 && demanded & (1 << media.spatial) == 0;
                    if foreign
                        && let Some(t) = self.tracks.get_mut(track)
                        && t.supplant(cx.now.us, media.spatial, demanded)
                    {
                        self.on_layers_changed(cx, track);
                    }
                    self.accept(cx, track, &media, crossed.continuity);
                }
            }
            relay::Message::Demand(demand) => self.on_demand(cx, key, &demand),
            relay::Message::Nack { handle, spatial, lost } => {
                let Some(outgoing) = link.outgoing.get(&handle) else { return };
                let Some(track) = self.track_ids.get(&outgoing.track_id).and_then(|t| self.tracks.get(*t))
                else {
                    return;
                };
                for sequence in lost.iter().take(MAX_RELAY_NACK) {
                    match track.stored(spatial, sequence).and_then(|s| media_again(spatial, &s)) {
                        Some(media) => {
                            link.send_media(cx.now.us, handle, std::iter::once(&media), cx.out);
                        }
                        None => cx.out.drop(DropReason::NackUnknown),
                    }
                }
            }
            relay::Message::KeyFrameRequest { handle, spatial } => {
                let Some(outgoing) = link.outgoing.get(&handle) else { return };
                let track = self.track_ids.get(&outgoing.track_id).copied();
                if let Some(track) = track.and_then(|t| self.tracks.get_mut(t)) {
                    track.request_key_frame(spatial);
                }
                self.send_key_requests(cx);
            }
            relay::Message::Ping { id, sent_us } => link.send_pong(id, sent_us, cx.out),
            relay::Message::Pong { sent_us, .. } => link.on_pong(cx.now, sent_us),
            relay::Message::Report { received, expected } => link.on_report(received, expected),
            relay::Message::SenderClock { handle, spatial, ntp, rtp_timestamp } => {
                let track = link.incoming.get(&handle).map(|i| i.track);
                if let Some(track) = track {
                    self.set_clock(cx, track, spatial, ntp, rtp_timestamp);
                }
            }
        }
    }

    /// The peer says which layers of a track it wants; repeated every half second while it does.
    fn on_demand(&mut self, cx: &mut Context<'_>, link_key: Key, demand: &relay::Demand<'_>) {
        let Some(link) = self.links.get_mut(link_key) else { return };
        if !link.on_demand(demand, cx.now.us) {
            cx.out.drop(DropReason::RelayUnknownHandle);
            return;
        }
        let Some(track) = self.track_ids.get(demand.track_id).copied() else { return };
        self.supply(track, link_key, demand.handle);
        if demand.spatial_mask != 0
            && self.tracks.get(track).is_some_and(|t| matches!(t.source, Source::Link(_)))
        {
            self.send_demands(cx, false);
        }
    }
}

/// Is a microphone's packet among the loudest? One that does not tell its level always is.
fn is_heard(voices: &mut Voices<Key>, key: Key, track: &Track, media: &Media<'_>, now_us: u64) -> bool {
    if !voices.is_limited() {
        return true;
    }
    if track.is_late(media) {
        return !track.unheard;
    }
    let level = BlockIter::new(media.extensions).find(|e| e.0 == ExtKind::AudioLevel);
    level.and_then(|e| ext::audio_level(e.1)).is_none_or(|(_, level)| voices.hear(key, level, now_us))
}

/// A held packet with what its rewriting needs.
struct Packet<'a> {
    media: Media<'a>,
    index: u64,
    vp8: Option<vp8::Descriptor>,
    tag: Option<Tag>,
}

impl<'a> Packet<'a> {
    fn new(track: &'a Track, held: &Held) -> Option<Self> {
        let stored = track.stored(held.spatial, (held.index & 0xFFFF) as u16)?;
        let media = media_of(held.spatial, &stored, held.key_frame, held.retransmission)?;
        let vp8 = if media.codec == Codec::Vp8 { vp8::Descriptor::parse(media.payload) } else { None };
        Some(Self { media, index: held.index, vp8, tag: stored.tag })
    }

    fn source(&self) -> munge::Source<'_> {
        munge::Source {
            layer: self.media.spatial,
            sequence: self.index,
            timestamp: self.media.timestamp,
            vp8: self.vp8.as_ref(),
        }
    }
}

/// A stored packet as it crosses a link again.
fn media_again<'a>(spatial: u8, stored: &Stored<'a>) -> Option<Media<'a>> {
    let codec = Codec::from_number(stored.payload_type)?;
    let key_frame = codec.is_video() && codec.starts_key_frame(stored.payload);
    media_of(spatial, stored, key_frame, true)
}

fn media_of<'a>(
    spatial: u8,
    stored: &Stored<'a>,
    key_frame: bool,
    retransmission: bool,
) -> Option<Media<'a>> {
    Some(Media {
        handle: 0,
        spatial,
        codec: Codec::from_number(stored.payload_type)?,
        marker: stored.marker,
        key_frame,
        retransmission,
        sequence: stored.sequence,
        timestamp: stored.timestamp,
        extensions: stored.extensions,
        payload: stored.payload,
    })
}
