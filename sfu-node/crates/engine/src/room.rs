//! One room on this node: its transports, tracks and links, and what the room actor orders.

use crate::{
    api::{Command, CreateTransport, EventKind, Id, Kind, Layer, OpenRelay, ReceiveSection, SendSection},
    arena::{Arena, Key},
    context::Context,
    receive::MAX_SECTIONS,
    relay::{Link, MAX_TRACKS},
    send::MAX_SENDERS,
    timers::{Armed, Owner},
    track::{LAYERS, Source, Subscriber, Track},
    transport::Transport,
};
use std::collections::HashMap;

const MAX_LINKS: usize = 256;
const MAX_SNAPSHOT: usize = 4 << 20;

pub(crate) struct Room {
    pub id: Id,
    pub epoch: u64,
    pub controller: Id,
    pub lease_due_us: u64,
    pub armed: Armed,
    pub transports: Arena<Transport>,
    pub transport_ids: HashMap<Id, Key>,
    pub tracks: Arena<Track>,
    pub track_ids: HashMap<Id, Key>,
    pub links: Arena<Link>,
    pub link_ids: HashMap<Id, Key>,
    pub snapshot: Option<(u64, Vec<u8>)>,
    pub closed: bool,
    pub demand_due_us: u64,
    pub levels_due_us: u64,
    pub quality_due_us: u64,
}

impl Room {
    pub fn new(id: Id, controller: Id) -> Self {
        Self {
            id,
            epoch: 0,
            controller,
            lease_due_us: u64::MAX,
            armed: Armed::default(),
            transports: Arena::default(),
            transport_ids: HashMap::new(),
            tracks: Arena::default(),
            track_ids: HashMap::new(),
            links: Arena::default(),
            link_ids: HashMap::new(),
            snapshot: None,
            closed: false,
            demand_due_us: 0,
            levels_due_us: 0,
            quality_due_us: 0,
        }
    }

    /// Carry out commands in order; one result each.
    pub fn apply(&mut self, cx: &mut Context<'_>, commands: Vec<Command>) -> Vec<Result<(), String>> {
        let results = commands
            .into_iter()
            .map(|command| if self.closed { Err("room closed".into()) } else { self.command(cx, command) })
            .collect();
        if !self.closed {
            self.send_demands(cx, false);
            self.send_key_requests(cx);
            self.arm_room(cx);
        }
        results
    }

    fn command(&mut self, cx: &mut Context<'_>, command: Command) -> Result<(), String> {
        match command {
            Command::CreateTransport(spec) => self.create_transport(cx, spec),
            Command::SetRemote { transport_id, remote_fingerprint } => {
                let key = self.transport_key(&transport_id)?;
                let transport = self.transports.get_mut(key).ok_or("no such transport")?;
                let result = transport.set_remote(cx, &remote_fingerprint);
                self.arm_transport(cx, key);
                result
            }
            Command::RestartIce { transport_id, local_ufrag, local_pwd } => {
                self.restart_ice(cx, &transport_id, local_ufrag, &local_pwd)
            }
            Command::CloseTransport { transport_id } => {
                if let Some(key) = self.transport_ids.get(&transport_id).copied() {
                    self.close_transport(cx, key);
                }
                Ok(())
            }
            Command::ConfigureReceive { transport_id, sections } => {
                self.configure_receive(cx, &transport_id, sections)
            }
            Command::ConfigureSend { transport_id, sections } => self.configure_send(cx, &transport_id, sections),
            Command::UpdateSubscription { transport_id, track_id, max_spatial, paused } => {
                self.update_subscription(cx, &transport_id, &track_id, max_spatial, paused)
            }
            Command::SendData { transport_ids, label, payload, binary } => {
                self.send_data(cx, &transport_ids, &label, &payload, binary)
            }
            Command::OpenRelay(spec) => self.open_relay(cx, spec),
            Command::CloseRelay { link_id } => {
                self.close_relay(cx, &link_id);
                Ok(())
            }
            Command::AddRemoteTrack { track_id, kind, link_id, layers } => {
                self.add_remote_track(cx, track_id, kind, &link_id, &layers)
            }
            Command::RemoveRemoteTrack { track_id } => self.remove_remote_track(cx, &track_id),
            Command::RequestKeyFrame { track_id } => {
                let key = *self.track_ids.get(&track_id).ok_or("track_id: no such track")?;
                if let Some(track) = self.tracks.get_mut(key) {
                    let live = track.live();
                    (0..LAYERS as u8).filter(|l| live & (1 << l) != 0).for_each(|l| track.request_key_frame(l));
                }
                Ok(())
            }
            Command::CloseRoom => {
                self.close(cx, "closed by the controller");
                Ok(())
            }
            Command::PutSnapshot { version, blob } => self.put_snapshot(version, blob),
            Command::Invalid(error) => Err(error),
        }
    }

    fn transport_key(&self, id: &Id) -> Result<Key, String> {
        self.transport_ids.get(id).copied().ok_or_else(|| "transport_id: no such transport".into())
    }

    fn create_transport(&mut self, cx: &mut Context<'_>, spec: CreateTransport) -> Result<(), String> {
        if let Some(key) = self.transport_ids.get(&spec.transport_id) {
            let same = self
                .transports
                .get(*key)
                .is_some_and(|t| t.ice.ufrags().any(|u| u == spec.local_ufrag));
            return if same { Ok(()) } else { Err("transport_id: exists with other ICE credentials".into()) };
        }
        if cx.draining {
            return Err("node is draining: no new transports".into());
        }
        if *cx.transports >= cx.max_transports {
            return Err(format!("node is full: {} transports", cx.max_transports));
        }
        if cx.routes.ufrags.contains_key(&spec.local_ufrag) {
            return Err("local_ufrag: in use by another transport".into());
        }
        let (id, ufrag) = (spec.transport_id.clone(), spec.local_ufrag.clone());
        let transport = Transport::new(cx, spec)?;
        let key = self.transports.insert(transport);
        self.transport_ids.insert(id, key);
        cx.routes.ufrags.insert(ufrag, (cx.room, key));
        *cx.transports += 1;
        self.arm_transport(cx, key);
        Ok(())
    }

    fn restart_ice(
        &mut self,
        cx: &mut Context<'_>,
        transport_id: &Id,
        ufrag: String,
        password: &str,
    ) -> Result<(), String> {
        let key = self.transport_key(transport_id)?;
        if ufrag.len() < 4 || password.len() < 22 {
            return Err("local_ufrag needs 4 characters and local_pwd 22 (RFC 8445 §5.3)".into());
        }
        match cx.routes.ufrags.get(&ufrag) {
            Some(owner) if *owner == (cx.room, key) => return Ok(()),
            Some(_) => return Err("local_ufrag: in use by another transport".into()),
            None => {}
        }
        let transport = self.transports.get_mut(key).ok_or("no such transport")?;
        if let Some(old) = transport.ice.restart(ufrag.clone(), password) {
            cx.routes.ufrags.remove(&old);
        }
        cx.routes.ufrags.insert(ufrag, (cx.room, key));
        Ok(())
    }

    /// Remove a transport with its tracks and subscriptions.
    pub fn close_transport(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(mut transport) = self.transports.remove(key) else { return };
        transport.close(cx);
        for ufrag in transport.ice.ufrags() {
            cx.routes.ufrags.remove(ufrag);
        }
        for path in transport.ice.paths() {
            cx.routes.forget_path(*path, (cx.room, key));
        }
        self.transport_ids.remove(&transport.id);
        *cx.transports = cx.transports.saturating_sub(1);
        for (slot, sender) in transport.senders.iter() {
            if let Some(track) = sender.track.and_then(|t| self.tracks.get_mut(t)) {
                track.unsubscribe(Subscriber { transport: key, slot });
            }
        }
        for section in &transport.receiver.sections {
            if let Some(track) = section.track {
                self.end_track(cx, track);
            }
        }
    }

    fn configure_receive(
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
                continue;
            }
            if self.tracks.len() >= MAX_TRACKS {
                return Err(format!("too many tracks in the room (limit {MAX_TRACKS})"));
            }
            let track = Track::new(section.track_id.clone(), section.kind, Source::Transport(key), configured);
            let track = self.tracks.insert(track);
            self.track_ids.insert(section.track_id.clone(), track);
            born.push(track);
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
    pub fn end_track(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(track) = self.tracks.remove(key) else { return };
        self.track_ids.remove(&track.id);
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

    fn configure_send(
        &mut self,
        cx: &mut Context<'_>,
        transport_id: &Id,
        sections: Vec<SendSection>,
    ) -> Result<(), String> {
        let key = self.transport_key(transport_id)?;
        check_send(&sections)?;
        let transport = self.transports.get_mut(key).ok_or("no such transport")?;
        let changed = transport.senders.configure(sections, cx.shared);
        for (slot, before) in &changed {
            if let Some(track) = before.and_then(|t| self.tracks.get_mut(t)) {
                track.unsubscribe(Subscriber { transport: key, slot: *slot });
            }
        }
        for (slot, _) in changed {
            self.attach(Subscriber { transport: key, slot });
        }
        let slots: Vec<usize> =
            self.transports.get(key).map(|t| t.senders.iter().map(|s| s.0).collect()).unwrap_or_default();
        for slot in slots {
            self.retarget_one(cx, Subscriber { transport: key, slot });
        }
        self.arm_transport(cx, key);
        Ok(())
    }

    /// Connect a sender to its track, where both are there.
    fn attach(&mut self, subscriber: Subscriber) {
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
    fn attach_waiting(&mut self, cx: &mut Context<'_>, track: Key) {
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
        // Links whose demand came before the track get it with their next one, at most half a second later.
    }

    fn update_subscription(
        &mut self,
        cx: &mut Context<'_>,
        transport_id: &Id,
        track_id: &Id,
        max_spatial: u8,
        paused: bool,
    ) -> Result<(), String> {
        let key = self.transport_key(transport_id)?;
        let transport = self.transports.get_mut(key).ok_or("no such transport")?;
        let slot = transport.senders.iter().find(|(_, s)| s.section.track_id == *track_id).map(|(slot, _)| slot);
        let slot = slot.ok_or("track_id: not sent on this transport")?;
        if let Some(sender) = transport.senders.get_mut(slot) {
            sender.section.max_spatial = max_spatial;
            if paused && !sender.section.paused {
                sender.resync();
            }
            sender.section.paused = paused;
            sender.announce(&transport.id, cx.out);
        }
        self.retarget_one(cx, Subscriber { transport: key, slot });
        Ok(())
    }

    fn send_data(
        &mut self,
        cx: &mut Context<'_>,
        ids: &[Id],
        label: &str,
        payload: &[u8],
        binary: bool,
    ) -> Result<(), String> {
        let mut failed: Option<String> = None;
        for id in ids {
            let result = match self.transport_ids.get(id) {
                None => Err("no such transport"),
                Some(key) => {
                    let key = *key;
                    let sent = self.transports.get_mut(key).map(|t| t.send_data(cx, label, payload, binary));
                    self.arm_transport(cx, key);
                    sent.unwrap_or(Err("no such transport"))
                }
            };
            if let Err(reason) = result
                && failed.is_none()
            {
                failed = Some(format!("transport {id}: {reason}"));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn open_relay(&mut self, cx: &mut Context<'_>, spec: OpenRelay) -> Result<(), String> {
        let id = spec.link_id.clone();
        let existing = self.link_ids.get(&id).copied();
        if let Some(link) = existing.and_then(|k| self.links.get(k))
            && link.spec == spec
        {
            return Ok(());
        }
        match cx.routes.tokens.get(&spec.link_token) {
            Some((room, link)) if *room != cx.room || Some(*link) != existing => {
                return Err("link_token: in use by another link".into());
            }
            _ => {}
        }
        if existing.is_none() && self.links.len() >= MAX_LINKS {
            return Err(format!("too many links in the room (limit {MAX_LINKS})"));
        }
        let token = spec.link_token;
        let mut link = Link::new(spec, cx.shared, cx.now)?;
        let key = match existing {
            Some(key) => {
                // New keys or another address: tracks stay, under new handles.
                if let Some(old) = self.links.get_mut(key) {
                    cx.routes.tokens.remove(&old.spec.link_token);
                    for incoming in std::mem::take(&mut old.incoming).into_values() {
                        link.add_incoming(incoming.track, incoming.track_id);
                    }
                    link.armed = old.armed;
                    *old = link;
                }
                self.drop_link_subscribers(key);
                key
            }
            None => self.links.insert(link),
        };
        self.link_ids.insert(id, key);
        cx.routes.tokens.insert(token, (cx.room, key));
        self.arm_link(cx, key);
        Ok(())
    }

    fn drop_link_subscribers(&mut self, link: Key) {
        for (_, track) in self.tracks.iter_mut() {
            track.link_subscribers.retain(|s| s.link != link);
        }
    }

    fn close_relay(&mut self, cx: &mut Context<'_>, link_id: &Id) {
        let Some(key) = self.link_ids.remove(link_id) else { return };
        let Some(link) = self.links.remove(key) else { return };
        cx.routes.tokens.remove(&link.spec.link_token);
        self.drop_link_subscribers(key);
        for incoming in link.incoming.into_values() {
            self.end_track(cx, incoming.track);
        }
    }

    fn add_remote_track(
        &mut self,
        cx: &mut Context<'_>,
        track_id: Id,
        kind: Kind,
        link_id: &Id,
        layers: &[Layer],
    ) -> Result<(), String> {
        let link_key = *self.link_ids.get(link_id).ok_or("link_id: no such link")?;
        if track_id.is_empty() || track_id.len() > headwater_wire::relay::MAX_TRACK_ID {
            return Err("track_id: 1 to 128 bytes".into());
        }
        check_layers(layers)?;
        let configured = layer_mask(layers);
        let existing = self.track_ids.get(&track_id).copied();
        if let Some(key) = existing
            && let Some(track) = self.tracks.get_mut(key)
        {
            match track.source {
                Source::Transport(_) => return Err("track_id: published on this node".into()),
                Source::Link(old) if old == link_key => {
                    track.configured = configured;
                    return Ok(());
                }
                Source::Link(old) => {
                    track.source = Source::Link(link_key);
                    track.configured = configured;
                    if let Some(old) = self.links.get_mut(old) {
                        old.remove_incoming(key);
                    }
                    self.resync_track(key);
                }
            }
        }
        if existing.is_none() && self.tracks.len() >= MAX_TRACKS {
            return Err(format!("too many tracks in the room (limit {MAX_TRACKS})"));
        }
        let key = existing.unwrap_or_else(|| {
            let track = Track::new(track_id.clone(), kind, Source::Link(link_key), configured);
            self.tracks.insert(track)
        });
        self.track_ids.insert(track_id.clone(), key);
        if let Some(link) = self.links.get_mut(link_key) {
            link.add_incoming(key, track_id);
        }
        self.attach_waiting(cx, key);
        Ok(())
    }

    fn remove_remote_track(&mut self, cx: &mut Context<'_>, track_id: &Id) -> Result<(), String> {
        let Some(key) = self.track_ids.get(track_id).copied() else { return Ok(()) };
        match self.tracks.get(key).map(|t| t.source) {
            Some(Source::Transport(_)) => Err("track_id: published on this node".into()),
            _ => {
                self.end_track(cx, key);
                Ok(())
            }
        }
    }

    fn put_snapshot(&mut self, version: u64, blob: Vec<u8>) -> Result<(), String> {
        if blob.len() > MAX_SNAPSHOT {
            return Err(format!("blob: longer than {MAX_SNAPSHOT} bytes"));
        }
        if self.snapshot.as_ref().is_none_or(|(v, _)| version > *v) {
            self.snapshot = Some((version, blob));
        }
        Ok(())
    }

    /// End everything.
    pub fn close(&mut self, cx: &mut Context<'_>, reason: &'static str) {
        for key in self.transports.keys() {
            self.close_transport(cx, key);
        }
        let links: Vec<Id> = self.link_ids.keys().cloned().collect();
        for id in links {
            self.close_relay(cx, &id);
        }
        self.closed = true;
        cx.out.event(EventKind::RoomClosed { reason });
    }

    /// The state of everything, for a watcher that starts.
    pub fn emit_state(&self, cx: &mut Context<'_>) {
        for (_, transport) in self.transports.iter() {
            cx.out.event(transport.state_event());
            for (_, sender) in transport.senders.iter() {
                cx.out.event(sender.current_event(&transport.id));
            }
        }
        for (_, link) in self.links.iter() {
            cx.out.event(link.event());
        }
        for (_, track) in self.tracks.iter().filter(|(_, t)| matches!(t.source, Source::Transport(_))) {
            cx.out.event(track.event(false));
        }
    }

    pub fn arm_room(&mut self, cx: &mut Context<'_>) {
        let at = self.next_tick_us(cx.now.us);
        cx.timers.arm(&mut self.armed, at, cx.room, Owner::Room);
    }

    pub fn arm_transport(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(transport) = self.transports.get_mut(key) else { return };
        if let Some(at) = transport.deadline_us(cx) {
            cx.timers.arm(&mut transport.armed, at, cx.room, Owner::Transport(key));
        }
    }

    pub fn arm_link(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(link) = self.links.get_mut(key) {
            let at = link.deadline_us();
            cx.timers.arm(&mut link.armed, at, cx.room, Owner::Link(key));
        }
    }
}

fn layer_mask(layers: &[Layer]) -> u8 {
    layers.iter().fold(0, |m, l| m | 1u8.checked_shl(u32::from(l.spatial)).unwrap_or(0)) & 0b111
}

fn check_layers(layers: &[Layer]) -> Result<(), String> {
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
