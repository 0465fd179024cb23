//! What a room does by the clock, and the upkeep of layers, demands and key-frame requests.

use crate::{
    api::EventKind,
    arena::Key,
    context::Context,
    room::Room,
    track::{Source, Subscriber},
    transport::Transport,
};
use headwater_wire::rtcp;
use std::collections::HashMap;

/// Upkeep while media flows.
const TICK_US: u64 = 100_000;
const DEMAND_EVERY_US: u64 = 500_000;
const LEVELS_EVERY_US: u64 = 300_000;
const QUALITY_EVERY_US: u64 = 5_000_000;

impl Room {
    /// When [`Self::on_timer`] has to run next.
    pub fn next_tick_us(&self, now_us: u64) -> u64 {
        let busy = self.tracks.len() > 0 || self.links.len() > 0;
        if busy { self.lease_due_us.min(now_us + TICK_US) } else { self.lease_due_us }
    }

    pub fn on_timer(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.us;
        if now >= self.lease_due_us {
            self.close(cx, "lease expired");
            return;
        }
        for key in self.tracks.keys() {
            if let Some(track) = self.tracks.get_mut(key) {
                track.measure(now);
            }
            if self.tracks.get_mut(key).is_some_and(|t| t.age(now)) {
                self.on_layers_changed(cx, key);
            }
        }
        self.divide_due(cx);
        self.ask_for_waiting();
        if now >= self.demand_due_us {
            self.demand_due_us = now + DEMAND_EVERY_US;
            self.lapse_demands(now);
            self.send_demands(cx, true);
        }
        if now >= self.levels_due_us {
            self.levels_due_us = now + LEVELS_EVERY_US;
            self.emit_levels(cx);
        }
        if now >= self.quality_due_us {
            self.quality_due_us = now + QUALITY_EVERY_US;
            self.emit_quality(cx);
        }
        self.send_key_requests(cx);
        self.arm_room(cx);
    }

    pub fn on_transport_timer(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        transport.on_timer(cx);
        if let (Some(srtp), Some(path)) = (transport.srtp_out.as_mut(), transport.ice.selected()) {
            let start = cx.out.arena.len();
            let abandoned = transport.receiver.poll_feedback(cx.now, transport.ssrc, &mut cx.out.arena);
            if cx.out.arena.len() > start {
                Transport::finish_rtcp(srtp, path, cx.out, start);
            }
            let tracks = &self.tracks;
            let clock_of = |track, layer| tracks.get(track)?.clock(layer);
            let mut compound = Vec::new();
            transport.senders.poll_reports(cx.now, clock_of, &mut compound, |compound| {
                let start = cx.out.arena.len();
                cx.out.arena.extend_from_slice(compound);
                Transport::finish_rtcp(srtp, path, cx.out, start);
            });
            self.on_abandoned(cx, abandoned);
        }
        self.pace(cx, key);
        self.arm_transport(cx, key);
    }

    pub fn on_link_timer(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        let abandoned = link.on_timer(cx.now, cx.out);
        self.on_abandoned(cx, abandoned);
        self.arm_link(cx, key);
    }

    /// Packets are lost for good: decoders of these layers need a key frame.
    fn on_abandoned(&mut self, cx: &mut Context<'_>, abandoned: Vec<(Key, u8)>) {
        if abandoned.is_empty() {
            return;
        }
        for (track, spatial) in abandoned {
            if let Some(track) = self.tracks.get_mut(track) {
                track.request_key_frame(spatial);
            }
        }
        self.send_key_requests(cx);
    }

    /// A layer came or went: choose anew for everybody.
    pub fn on_layers_changed(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        track.resolve_links();
        if matches!(track.source, Source::Transport(_)) {
            cx.out.event(track.event(false));
        }
        for subscriber in track.subscribers.clone() {
            self.retarget_one(cx, subscriber);
        }
    }

    /// Choose the layer of one subscriber, and ask for a key frame where that is another one.
    pub fn retarget_one(&mut self, cx: &mut Context<'_>, subscriber: Subscriber) {
        let Some(transport) = self.transports.get_mut(subscriber.transport) else { return };
        let Some(sender) = transport.senders.get_mut(subscriber.slot) else { return };
        let Some(track) = sender.track.and_then(|t| self.tracks.get_mut(t)) else { return };
        sender.target = if sender.is_paused() { None } else { track.select(sender.max_spatial()) };
        let reach = sender.max_spatial().min(sender.reach(track));
        sender.layers.aim(track.within(reach, sender.max_temporal()));
        if let Some(wanted) = sender.waits_for()
            && transport.srtp_out.is_some()
        {
            track.request_key_frame(wanted);
        }
        sender.announce(&transport.id, cx.out);
    }

    /// Everybody who still waits for a key frame asks again; the track spaces the requests.
    fn ask_for_waiting(&mut self) {
        for (_, transport) in self.transports.iter().filter(|(_, t)| t.srtp_out.is_some()) {
            for (_, sender) in transport.senders.iter() {
                let Some(wanted) = sender.waits_for() else { continue };
                if let Some(track) = sender.track.and_then(|t| self.tracks.get_mut(t)) {
                    track.request_key_frame(wanted);
                }
            }
        }
    }

    /// The layer's numbering started anew: what was sent cannot be rebuilt, and video waits for a key frame.
    pub fn resync_layer(&mut self, key: Key, spatial: u8) {
        let Some(track) = self.tracks.get(key) else { return };
        for subscriber in &track.subscribers {
            let transport = self.transports.get_mut(subscriber.transport);
            if let Some(sender) = transport.and_then(|t| t.senders.get_mut(subscriber.slot)) {
                if sender.current.is_none_or(|c| c == spatial) {
                    sender.resync();
                } else {
                    sender.forget();
                }
            }
        }
    }

    /// As [`Self::resync_layer`] for all layers.
    pub fn resync_track(&mut self, key: Key) {
        for spatial in 0..crate::track::LAYERS as u8 {
            self.resync_layer(key, spatial);
        }
    }

    /// Key frames that are due to be asked for, from the publisher or over the link.
    pub fn send_key_requests(&mut self, cx: &mut Context<'_>) {
        for (key, track) in self.tracks.iter_mut() {
            for spatial in track.take_key_requests(cx.now.us) {
                match track.source {
                    Source::Transport(transport) => {
                        if let Some(transport) = self.transports.get_mut(transport) {
                            send_pli(cx, transport, key, spatial);
                        }
                    }
                    Source::Link(link) => {
                        if let Some(link) = self.links.get_mut(link) {
                            link.send_key_frame_request(key, spatial, cx.out);
                        }
                    }
                }
            }
        }
    }

    fn lapse_demands(&mut self, now_us: u64) {
        for (_, link) in self.links.iter_mut() {
            link.outgoing.retain(|_, asked| asked.expires_us > now_us);
        }
        for (_, track) in self.tracks.iter_mut() {
            track.link_subscribers.retain(|s| s.expires_us > now_us);
        }
    }

    /// Tell neighbours which layers of their tracks somebody here, or behind here, wants.
    pub fn send_demands(&mut self, cx: &mut Context<'_>, all: bool) {
        if self.links.len() == 0 {
            return;
        }
        let (tracks, transports) = (&self.tracks, &self.transports);
        let wanted = |key: Key| -> u8 {
            let Some(track) = tracks.get(key) else { return 0 };
            let mut mask = track.link_subscribers.iter().fold(0, |m, s| m | s.mask);
            for subscriber in &track.subscribers {
                let Some(transport) = transports.get(subscriber.transport) else { continue };
                let Some(sender) = transport.senders.get(subscriber.slot) else { continue };
                if sender.section.paused || transport.srtp_out.is_none() {
                    continue;
                }
                mask |= 1 << track.select_configured(sender.max_spatial());
                mask |= sender.current.map_or(0, |c| 1 << c.min(2));
            }
            mask
        };
        for (_, link) in self.links.iter_mut() {
            link.send_demands(wanted, all, cx.out);
        }
    }

    fn emit_levels(&mut self, cx: &mut Context<'_>) {
        let mut levels = Vec::new();
        for (_, track) in self.tracks.iter_mut().filter(|(_, t)| matches!(t.source, Source::Transport(_))) {
            if let Some(level) = track.take_level(cx.now.us) {
                levels.push((track.id.clone(), level));
            }
        }
        if !levels.is_empty() {
            cx.out.event(EventKind::AudioLevels(levels));
        }
    }

    fn emit_quality(&mut self, cx: &mut Context<'_>) {
        #[derive(Default)]
        struct Sum {
            up: (u64, u64),
            down: (u64, u64),
            rtt_us: u64,
            bps: u64,
        }
        let mut sums: HashMap<crate::api::Id, Sum> = HashMap::new();
        for (_, transport) in self.transports.iter_mut().filter(|(_, t)| t.is_connected()) {
            let sum = sums.entry(transport.participant.clone()).or_default();
            let up = transport.receiver.take_loss();
            sum.up = (sum.up.0 + up.0, sum.up.1 + up.1);
            for (_, sender) in transport.senders.iter_mut() {
                let down = sender.take_loss();
                sum.down = (sum.down.0 + down.0, sum.down.1 + down.1);
            }
            sum.bps += transport.control.estimate_bps(cx.now.us);
            sum.rtt_us = sum.rtt_us.max(transport.receiver.rtt_us.unwrap_or(0));
        }
        let share =
            |(expected, lost): (u64, u64)| if expected == 0 { 0.0 } else { lost as f32 / expected as f32 };
        for (participant_id, sum) in sums {
            if sum.up.0 + sum.down.0 > 0 {
                let (uplink_loss, downlink_loss) = (share(sum.up), share(sum.down));
                let rtt_ms = sum.rtt_us as f32 / 1000.0;
                cx.out.event(EventKind::Quality {
                    participant_id,
                    uplink_loss,
                    downlink_loss,
                    rtt_ms,
                    downlink_bps: sum.bps,
                });
            }
        }
    }
}

fn send_pli(cx: &mut Context<'_>, transport: &mut Transport, track: Key, spatial: u8) {
    let Some(media) = transport.receiver.media_ssrc(track, spatial) else { return };
    let (Some(srtp), Some(path)) = (transport.srtp_out.as_mut(), transport.ice.selected()) else { return };
    let start = cx.out.arena.len();
    rtcp::push_receiver_report(&mut cx.out.arena, transport.ssrc, &[]);
    rtcp::push_pli(&mut cx.out.arena, transport.ssrc, media);
    Transport::finish_rtcp(srtp, path, cx.out, start);
}
