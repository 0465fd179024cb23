//! One room on this node: its transports, tracks and links, and what the room actor orders.

use crate::{
    api::{Command, CreateTransport, EventKind, Id},
    arena::{Arena, Key},
    context::Context,
    relay::Link,
    timers::{Armed, Owner},
    track::{LAYERS, Source, Subscriber, Track},
    transport::Transport,
    voices::Voices,
};
use std::collections::HashMap;

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
    pub voices: Voices<Key>,
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
            voices: Voices::default(),
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
            Command::AdoptDataChannels { transport_id, data_channels } => {
                let key = self.transport_key(&transport_id)?;
                let transport = self.transports.get_mut(key).ok_or("no such transport")?;
                transport.adopt_channels(cx, data_channels);
                self.arm_transport(cx, key);
                Ok(())
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
            Command::ConfigureSend { transport_id, sections } => {
                self.configure_send(cx, &transport_id, sections)
            }
            Command::UpdateSubscription { transport_id, track_id, max_spatial, paused, priority } => {
                self.update_subscription(cx, &transport_id, &track_id, (max_spatial, priority), paused)
            }
            Command::SendData { transport_ids, label, payload, binary } => {
                self.send_data(cx, &transport_ids, &label, &payload, binary)
            }
            Command::OpenRelay(spec) => self.open_relay(cx, spec),
            Command::CloseRelay { link_id } => {
                self.close_relay(cx, &link_id);
                Ok(())
            }
            Command::AddRemoteTrack { track_id, kind, link_id, layers, voice } => {
                self.add_remote_track(cx, track_id, (kind, voice), &link_id, &layers)
            }
            Command::RemoveRemoteTrack { track_id } => self.remove_remote_track(cx, &track_id),
            Command::RequestKeyFrame { track_id } => {
                let key = *self.track_ids.get(&track_id).ok_or("track_id: no such track")?;
                if let Some(track) = self.tracks.get_mut(key) {
                    let live = track.live();
                    (0..LAYERS as u8)
                        .filter(|l| live & (1 << l) != 0)
                        .for_each(|l| track.request_key_frame(l));
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

    pub fn transport_key(&self, id: &Id) -> Result<Key, String> {
        self.transport_ids.get(id).copied().ok_or_else(|| "transport_id: no such transport".into())
    }

    fn create_transport(&mut self, cx: &mut Context<'_>, spec: CreateTransport) -> Result<(), String> {
        if let Some(key) = self.transport_ids.get(&spec.transport_id) {
            let same =
                self.transports.get(*key).is_some_and(|t| t.ice.ufrags().any(|u| u == spec.local_ufrag));
            return if same { Ok(()) } else { Err("transport_id: exists with other ICE credentials".into()) };
        }
        if cx.draining {
            return Err("node is draining: no new transports".into());
        }
        if *cx.transports >= cx.max_transports {
            return Err(format!("node is full: {} transports", cx.max_transports));
        }
        if cx.routes.ufrags.get(&spec.local_ufrag).is_some() {
            return Err("local_ufrag: in use by another transport".into());
        }
        let (id, ufrag) = (spec.transport_id.clone(), spec.local_ufrag.clone());
        let transport = Transport::new(cx, spec)?;
        let key = self.transports.insert(transport);
        self.transport_ids.insert(id, key);
        cx.routes.ufrags.insert(ufrag, (cx.room, key));
        *cx.transports += 1;
        *cx.transports_created += 1;
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
            Some(owner) if owner == (cx.room, key) => return Ok(()),
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
            transport.receiver.tell_all_sources(&transport.id, cx.out);
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
