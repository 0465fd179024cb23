//! What each subscriber's estimate leaves for each of its streams, and what goes out by the pacer's clock.

use crate::{
    api::Kind,
    arena::Key,
    context::Context,
    room::Room,
    send::{Exit, Sender},
    track::Subscriber,
};
use headwater_cc::{Allocator, Choice, Class, Stream};
use headwater_wire::svc::Limit;

/// Audio with headers, bit/s: little enough not to be measured.
const AUDIO_BPS: u32 = 60_000;
/// Packets let go in one go; the rest follows at once.
const MAX_RELEASE: usize = 256;
/// Probe packets in one go.
const MAX_PROBE: u32 = 64;

impl Room {
    /// Divide the estimate of one transport over its streams and carry it out.
    pub fn divide(&mut self, cx: &mut Context<'_>, key: Key) {
        let now = cx.now.us;
        let Some(transport) = self.transports.get_mut(key) else { return };
        let budget = transport.control.budget(now);
        let mut streams: Vec<Stream> = Vec::new();
        for (slot, sender) in transport.senders.iter().filter(|(_, s)| !s.section.paused) {
            let Some(track) = sender.track.and_then(|t| self.tracks.get(t)) else { continue };
            let section = &sender.section;
            let class = match section.kind {
                Kind::Audio => Class::Audio,
                Kind::Video if section.screen => Class::Screen,
                Kind::Video => Class::Camera,
            };
            let rank = section.priority.saturating_mul(8) + u32::from(section.max_spatial);
            let mut stream = Stream::new(slot, class, rank, sender.memory);
            if section.kind == Kind::Audio {
                stream.add(Choice { id: 0, bps: AUDIO_BPS });
            } else {
                for (limit, bps) in track.choices(section.max_spatial.min(sender.reach(track))) {
                    stream.add(Choice { id: limit.rank(), bps });
                }
            }
            streams.push(stream);
        }
        Allocator::divide(now, budget, &mut streams);
        transport.control.set_wanted(streams.iter().map(Stream::wanted_bps).sum());
        let mut changed = Vec::new();
        for stream in &streams {
            let Some(sender) = transport.senders.get_mut(stream.key) else { continue };
            sender.memory = stream.memory;
            let allowed = match (budget, stream.chosen()) {
                (None, _) => Some(Limit::ALL),
                // Nothing is known to flow yet: let it begin.
                (Some(_), None) if stream.wanted_bps() == 0 => Some(Limit::ALL),
                (Some(_), chosen) => chosen.map(|c| Limit::from_rank(c.id)),
            };
            if sender.allow(allowed) {
                changed.push((stream.key, sender.section.ssrc, allowed.is_none()));
            }
        }
        for (slot, ssrc, paused) in changed {
            if paused && let Some(transport) = self.transports.get_mut(key) {
                transport.control.forget(ssrc);
            }
            self.retarget_one(cx, Subscriber { transport: key, slot });
        }
    }

    /// Divisions that are due by the clock.
    pub fn divide_due(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.us;
        for key in self.transports.keys() {
            let Some(transport) = self.transports.get_mut(key) else { continue };
            if !transport.control.division_due(now) {
                continue;
            }
            transport.control.on_tick(now);
            self.divide(cx, key);
            self.arm_transport(cx, key);
        }
    }

    /// Let go what waited, and probe.
    pub fn pace(&mut self, cx: &mut Context<'_>, key: Key) {
        let now_us = cx.now.us;
        let Some(transport) = self.transports.get_mut(key) else { return };
        let (Some(srtp), Some(path)) = (transport.srtp_out.as_mut(), transport.ice.selected()) else {
            return;
        };
        let control = &mut transport.control;
        let mut exit = Exit { srtp, path, out: cx.out, control, now_us };
        for _ in 0..MAX_RELEASE {
            let Some(held) = exit.control.release(now_us) else { break };
            let Some(sender) = transport.senders.by_ssrc(held.stream) else { continue };
            let Some(track) = sender.track.and_then(|t| self.tracks.get(t)) else { continue };
            sender.release(held.sequence, track, &mut exit);
        }
        let Some(probe) = exit.control.probe(now_us).filter(|p| p.bytes > 0) else { return };
        let slot = |flows: bool| {
            let fits = |s: &Sender| s.can_pad() && s.track.is_some() && (s.current.is_some() || !flows);
            transport.senders.iter().find(|(_, s)| fits(s)).map(|(slot, _)| slot)
        };
        let Some(sender) = slot(true).or_else(|| slot(false)).and_then(|s| transport.senders.get_mut(s))
        else {
            return;
        };
        let Some(track) = sender.track.and_then(|t| self.tracks.get(t)) else { return };
        let mut left = probe.bytes;
        for salt in 0..MAX_PROBE {
            let sent = sender.pad(probe.packet.min(left.max(200)), salt, track, &mut exit);
            left = left.saturating_sub(sent);
            if sent == 0 || left == 0 {
                break;
            }
        }
    }

    /// What was negotiated for a transport's streams has changed.
    pub fn configure_control(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        let transport_cc = transport.senders.iter().any(|(_, s)| s.takes_transport_cc());
        let can_pad = transport.senders.iter().any(|(_, s)| s.can_pad());
        transport.control.configure(transport_cc, can_pad);
        self.divide(cx, key);
    }
}
