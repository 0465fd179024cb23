//! Packets of a room: from publishers and links to subscribers and links.

use crate::{
    arena::Key,
    context::Context,
    outbox::{DropReason, Path},
    room::Room,
    send::Exit,
    timers::Owner,
    track::{LAYERS, LinkSubscriber, SenderClock, Source},
};
use headwater_wire::{
    codec::{Codec, vp8},
    munge,
    relay::{self, Media},
    rtcp,
    rtp::RtpView,
    stun,
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
        let learned = transport.ice.on_request(cx.now, request, path, cx.out);
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
    pub fn on_rtp(&mut self, cx: &mut Context<'_>, key: Key, path: Path, arrived_us: u64, data: &mut [u8]) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(opened) = transport.open_rtp(cx.now, path, data, cx.out) else { return };
        let Some(view) = data.get(..opened.len).and_then(RtpView::parse) else {
            cx.out.drop(DropReason::RtpMalformed);
            return;
        };
        let mut block = std::mem::take(cx.block);
        let ingest = transport.receiver.ingest(cx.now, arrived_us, &view, opened.index, &mut block, cx.out);
        if let Some(at) = transport.receiver.deadline_us() {
            cx.timers.arm(&mut transport.armed, at, cx.room, Owner::Transport(key));
        }
        if let Some(ingest) = ingest {
            if let Some(level) = ingest.audio_level
                && let Some(track) = self.tracks.get_mut(ingest.track)
            {
                track.on_level(level, cx.now.us);
            }
            self.forward(cx, ingest.track, &ingest.media, ingest.restarted);
        }
        *cx.block = block;
    }

    /// One packet of a track to everybody who gets its layer.
    #[inline]
    pub fn forward(&mut self, cx: &mut Context<'_>, key: Key, media: &Media<'_>, restarted: bool) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        let Some(accepted) = track.accept(cx.now.us, media, restarted) else { return };
        if restarted {
            self.resync_layer(key, media.spatial);
        }
        if accepted.changed {
            self.on_layers_changed(cx, key);
        }
        let descriptor = match media.codec {
            Codec::Vp8 => vp8::Descriptor::parse(media.payload),
            _ => None,
        };
        let source = munge::Source {
            layer: media.spatial,
            sequence: accepted.sequence,
            timestamp: media.timestamp,
            vp8: descriptor.as_ref(),
        };
        let Some(track) = self.tracks.get_mut(key) else { return };
        let mut switched = false;
        for subscriber in &track.subscribers {
            let Some(transport) = self.transports.get_mut(subscriber.transport) else { continue };
            let (Some(srtp), Some(path)) = (transport.srtp_out.as_mut(), transport.ice.selected()) else {
                continue;
            };
            let Some(sender) = transport.senders.get_mut(subscriber.slot) else { continue };
            let mut exit = Exit { srtp, path, out: cx.out };
            if sender.forward(cx.now, media, &source, cx.shared, &mut exit) {
                sender.announce(&transport.id, cx.out);
                switched = true;
            }
        }
        let bit = 1u8 << media.spatial;
        for subscriber in track.link_subscribers.iter().filter(|s| s.resolved & bit != 0) {
            if let Some(link) = self.links.get_mut(subscriber.link) {
                link.send_media(cx.now.us, subscriber.handle, media, cx.out);
            }
        }
        if switched && matches!(track.source, Source::Link(_)) {
            self.send_demands(cx, false);
        }
    }

    pub fn on_rtcp(&mut self, cx: &mut Context<'_>, key: Key, path: Path, data: &mut [u8]) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let Some(len) = transport.open_rtcp(cx.now, path, data, cx.out) else { return };
        let Some(compound) = data.get(..len) else { return };
        let mut wished = false;
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
                _ => {}
            }
        }
        if wished {
            self.send_key_requests(cx);
        }
    }

    fn on_reports(&mut self, cx: &mut Context<'_>, key: Key, reports: rtcp::Reports<'_>) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        for block in reports.take(MAX_RTCP) {
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
        sender.on_nack(cx.now, lost, track, &mut Exit { srtp, path, out: cx.out });
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
                if let Some((track, restarted, demanded)) = link.on_media(cx.now, &media, cx.out) {
                    let foreign = media.spatial < 8 && demanded & (1 << media.spatial) == 0;
                    if foreign
                        && let Some(t) = self.tracks.get_mut(track)
                        && t.supplant(cx.now.us, media.spatial, demanded)
                    {
                        self.on_layers_changed(cx, track);
                    }
                    self.forward(cx, track, &media, restarted);
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
                    match track.stored(spatial, sequence).and_then(|s| media_of(spatial, &s)) {
                        Some(media) => link.send_media(cx.now.us, handle, &media, cx.out),
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
        let mask = demand.spatial_mask & 0b111;
        let track = self.track_ids.get(demand.track_id).copied();
        let Some(track) = track.and_then(|t| self.tracks.get_mut(t)) else { return };
        // Never back to where it comes from.
        if mask == 0 || track.source == Source::Link(link_key) {
            track.link_subscribers.retain(|s| s.link != link_key || s.handle != demand.handle);
            link.outgoing.remove(&demand.handle);
            return;
        }
        if !link.outgoing.contains_key(&demand.handle) {
            if link.outgoing.len() >= crate::relay::MAX_TRACKS {
                cx.out.drop(DropReason::RelayUnknownHandle);
                return;
            }
            let outgoing = crate::relay::Outgoing { track_id: track.id.clone(), last_us: None };
            link.outgoing.insert(demand.handle, outgoing);
        }
        let expires_us = cx.now.us + crate::relay::DEMAND_US;
        let position = track.link_subscribers.iter().position(|s| s.link == link_key);
        match position.and_then(|at| track.link_subscribers.get_mut(at)) {
            // One handle per link: the newest, so that a track crosses a link once.
            Some(s) => {
                if s.handle != demand.handle {
                    link.outgoing.remove(&s.handle);
                }
                (s.handle, s.mask, s.expires_us) = (demand.handle, mask, expires_us);
            }
            None => {
                let (link, handle) = (link_key, demand.handle);
                track.link_subscribers.push(LinkSubscriber { link, handle, mask, resolved: 0, expires_us });
            }
        }
        track.resolve_links();
        if matches!(track.source, Source::Link(_)) {
            self.send_demands(cx, false);
        }
    }
}

/// A stored packet as it crosses a link again.
fn media_of<'a>(spatial: u8, stored: &headwater_wire::history::Stored<'a>) -> Option<Media<'a>> {
    let codec = Codec::from_number(stored.payload_type)?;
    Some(Media {
        handle: 0,
        spatial,
        codec,
        marker: stored.marker,
        key_frame: codec.is_video() && codec.starts_key_frame(stored.payload),
        retransmission: true,
        sequence: stored.sequence,
        timestamp: stored.timestamp,
        extensions: stored.extensions,
        payload: stored.payload,
    })
}
