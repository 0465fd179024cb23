//! What publishers send and subscribers get: the room actor's declarations turned into tracks and senders.

use crate::{
    api::{Id, Layer, ReceiveSection, SendSection},
    arena::Key,
    context::Context,
    receive::MAX_SECTIONS,
    relay::MAX_TRACKS,
    room::Room,
    senders::MAX_SENDERS,
    track::{LAYERS, Source, Subscriber, Track},
};

impl Room {
    pub(crate) fn configure_receive(
        &mut self,
        cx: &mut Context<'_>,
        transport_id: &Id,
        sections: Vec<ReceiveSection>,
    ) -> Result<(), String> {
        let key = self.transport_key(transport_id)?;
        check_receive(&sections)?;
        for section in sections.iter().filter(|s| !s.track_id.is_empty()) {
            if let Some(track) = self.track_ids.get(&section.track_id).and_then(|k| self.tracks.get(*k))
                && track.source != Source::Transport(key)
            {
                return Err(format!("track_id {}: already comes from elsewhere", section.track_id));
            }
        }
        let transport = self.transports.get_mut(key).ok_or("no such transport")?;
        let before: Vec<(Key, bool)> =
            transport.receiver.sections.iter().filter_map(|s| Some((s.track?, s.muted))).collect();
        let mut born = Vec::new();
        for section in sections.iter().filter(|s| !s.track_id.is_empty()) {
            let configured = layer_mask(&section.layers);
            if let Some(track) = self.track_ids.get(&section.track_id).and_then(|k| self.tracks.get_mut(*k)) {
                track.configured = configured;
                track.voice = section.voice;
                continue;
            }
            if self.tracks.len() >= MAX_TRACKS {
                return Err(format!("too many tracks in the room (limit {MAX_TRACKS})"));
            }
            let mut track =
                Track::new(section.track_id.clone(), section.kind, Source::Transport(key), configured);
            track.voice = section.voice;
            let track = self.tracks.insert(track);
            self.track_ids.insert(section.track_id.clone(), track);
            born.push(track);
        }
        for section in sections.iter().filter(|s| s.muted || !s.voice) {
            if let Some(track) = self.track_ids.get(&section.track_id) {
                self.voices.leave(*track);
            }
        }
        let ids = &self.track_ids;
        transport.receiver.configure(sections, |id| ids.get(id).copied());
        let after: Vec<(Key, bool)> =
            transport.receiver.sections.iter().filter_map(|s| Some((s.track?, s.muted))).collect();
        for (track, was_muted) in before {
            match after.iter().find(|a| a.0 == track) {
                None => self.end_track(cx, track),
                // The decoder has to start anew after what was dropped.
                Some((_, false)) if was_muted => self.resync_track(track),
                Some(_) => {}
            }
        }
        for track in born {
            self.attach_waiting(cx, track);
        }
        Ok(())
    }

    /// Take a track away: subscribers keep their m-line and wait for another source.
    pub(crate) fn end_track(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(track) = self.tracks.remove(key) else { return };
        self.track_ids.remove(&track.id);
        self.voices.leave(key);
        for subscriber in &track.subscribers {
            if let Some(transport) = self.transports.get_mut(subscriber.transport)
                && let Some(sender) = transport.senders.get_mut(subscriber.slot)
            {
                sender.track = None;
                sender.resync();
                sender.announce(&transport.id, cx.out);
            }
        }
        match track.source {
            Source::Link(link) => {
                if let Some(link) = self.links.get_mut(link) {
                    link.remove_incoming(key);
                }
            }
            Source::Transport(_) => cx.out.event(track.event(true)),
        }
    }

    pub(crate) fn configure_send(
        &mut self,
        cx: &mut Context<'_>,
        transport_id: &Id,
        sections: Vec<SendSection>,
    ) -> Result<(), String> {
        let key = self.transport_key(transport_id)?;
        check_send(&sections)?;
        let transport = self.transports.get_mut(key).ok_or("no such transport")?;
        let changed = transport.senders.configure(sections, cx.shared)?;
        for (slot, before) in &changed {
            if let Some(track) = before.and_then(|t| self.tracks.get_mut(t)) {
                track.unsubscribe(Subscriber { transport: key, slot: *slot });
            }
        }
        for (slot, _) in changed {
            self.attach(Subscriber { transport: key, slot });
        }
        self.configure_control(cx, key);
        let slots: Vec<usize> =
            self.transports.get(key).map(|t| t.senders.iter().map(|s| s.0).collect()).unwrap_or_default();
        for slot in slots {
            self.retarget_one(cx, Subscriber { transport: key, slot });
        }
        self.arm_transport(cx, key);
        Ok(())
    }

    /// Connect a sender to its track, where both are there.
    pub(crate) fn attach(&mut self, subscriber: Subscriber) {
        let Some(transport) = self.transports.get_mut(subscriber.transport) else { return };
        let Some(sender) = transport.senders.get_mut(subscriber.slot) else { return };
        let Some(track_key) = self.track_ids.get(&sender.section.track_id) else { return };
        let Some(track) = self.tracks.get_mut(*track_key) else { return };
        sender.track = Some(*track_key);
        if !track.subscribers.contains(&subscriber) {
            track.subscribers.push(subscriber);
        }
    }

    /// A track came: connect those who already want it.
    pub(crate) fn attach_waiting(&mut self, cx: &mut Context<'_>, track: Key) {
        let Some(id) = self.tracks.get(track).map(|t| t.id.clone()) else { return };
        let mut waiting = Vec::new();
        for (transport, t) in self.transports.iter() {
            let slots = t.senders.iter().filter(|(_, s)| s.track.is_none() && s.section.track_id == id);
            waiting.extend(slots.map(|(slot, _)| Subscriber { transport, slot }));
        }
        for subscriber in waiting {
            self.attach(subscriber);
            self.retarget_one(cx, subscriber);
        }
        self.supply_waiting(track);
    }

    pub(crate) fn update_subscription(
        &mut self,
        cx: &mut Context<'_>,
        transport_id: &Id,
        track_id: &Id,
        (max_spatial, priority): (u8, u32),
        paused: bool,
    ) -> Result<(), String> {
        let key = self.transport_key(transport_id)?;
        let transport = self.transports.get_mut(key).ok_or("no such transport")?;
        let slot =
            transport.senders.iter().find(|(_, s)| s.section.track_id == *track_id).map(|(slot, _)| slot);
        let slot = slot.ok_or("track_id: not sent on this transport")?;
        if let Some(sender) = transport.senders.get_mut(slot) {
            sender.section.max_spatial = max_spatial;
            sender.section.priority = priority;
            if paused && !sender.section.paused {
                sender.resync();
            }
            sender.section.paused = paused;
            sender.announce(&transport.id, cx.out);
        }
        self.divide(cx, key);
        self.retarget_one(cx, Subscriber { transport: key, slot });
        Ok(())
    }
}

pub(crate) fn layer_mask(layers: &[Layer]) -> u8 {
    layers.iter().fold(0, |m, l| m | 1u8.checked_shl(u32::from(l.spatial)).unwrap_or(0)) & 0b111
}

pub(crate) fn check_layers(layers: &[Layer]) -> Result<(), String> {
    for (at, layer) in layers.iter().enumerate() {
        if usize::from(layer.spatial) >= LAYERS {
            return Err(format!("layers[{at}].spatial: {} is not 0, 1 or 2", layer.spatial));
        }
        if layers[..at].iter().any(|l| l.spatial == layer.spatial) {
            return Err(format!("layers[{at}].spatial: {} twice", layer.spatial));
        }
    }
    Ok(())
}

fn check_receive(sections: &[ReceiveSection]) -> Result<(), String> {
    if sections.len() > MAX_SECTIONS {
        return Err(format!("sections: {} are more than {MAX_SECTIONS}", sections.len()));
    }
    for (at, section) in sections.iter().enumerate() {
        check_layers(&section.layers).map_err(|e| format!("sections[{at}].{e}"))?;
        if section.layers.is_empty() {
            return Err(format!("sections[{at}].layers: empty; give one layer without simulcast"));
        }
        if section.track_id.len() > headwater_wire::relay::MAX_TRACK_ID {
            return Err(format!("sections[{at}].track_id: longer than 128 bytes"));
        }
        let twice = |s: &ReceiveSection| !s.track_id.is_empty() && s.track_id == section.track_id;
        if sections[..at].iter().any(|s| s.mid == section.mid || twice(s)) {
            return Err(format!("sections[{at}]: mid or track_id twice"));
        }
    }
    Ok(())
}

fn check_send(sections: &[SendSection]) -> Result<(), String> {
    if sections.len() > MAX_SENDERS {
        return Err(format!("sections: {} are more than {MAX_SENDERS}", sections.len()));
    }
    let mut seen = std::collections::HashSet::new();
    for (at, section) in sections.iter().enumerate() {
        if section.ssrc == 0 {
            return Err(format!("sections[{at}].ssrc: 0 is not an SSRC"));
        }
        let rtx_twice = section.rtx_ssrc != 0 && !seen.insert(section.rtx_ssrc);
        if !seen.insert(section.ssrc) || rtx_twice {
            return Err(format!("sections[{at}].ssrc: used twice on the transport"));
        }
    }
    Ok(())
}
