//! The whole node: rooms, and how datagrams and deadlines find them.

use crate::{
    api::{Apply, Id, Report, StaleEpoch},
    arena::{Arena, Key},
    client_certificate,
    clock::{Clock, Now},
    context::{Context, Shared},
    hold::Holds,
    outbox::{DropReason, Outbox, Path},
    receive::earliest,
    room::Room,
    routes::{RouteKey, Routes},
    timers::{Owner, Timers},
};
use headwater_dtls::certificate;
use headwater_wire::{
    demux::{PacketKind, classify},
    relay, stun,
};
use std::{
    cell::Cell,
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(feature = "exercise")]
mod exercise;

const MAX_ROOMS: usize = 20_000;
/// Epochs of closed rooms that are remembered.
const MAX_EPOCHS: usize = 20_000;
/// Deadlines handled in one call, so that packets are not kept waiting.
const MAX_TIMERS: usize = 4096;

/// Bytes after which [`Engine::forward`] has them sent.
pub(crate) const CHUNK: usize = 128 << 10;

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Local addresses, in the order of [`Path::socket`].
    pub sockets: Vec<SocketAddr>,
    /// Client transports that the node takes.
    pub max_connections: usize,
    /// For SSRCs and first sequence numbers.
    pub seed: u64,
}

/// A node's certificate and how it shakes hands: one, whatever the number of its engines. The library tries all its
/// cryptography before it takes settings, which costs some milliseconds.
#[derive(Clone)]
pub struct Certificate {
    own: headwater_dtls::DtlsCertificate,
    settings: Arc<headwater_dtls::Config>,
}

impl Certificate {
    /// A fresh one.
    ///
    /// # Errors
    /// When the cryptography library refuses, or the DTLS library its settings.
    pub fn generate() -> Result<Self, String> {
        let own = certificate::generate_self_signed_certificate().map_err(|e| e.to_string())?;
        // No cookie: a check with the right password came from the address before (RFC 8445 §7.3).
        let settings = headwater_dtls::Config::builder()
            .use_server_cookie(false)
            .with_crypto_provider(client_certificate::provider())
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self { own, settings: Arc::new(settings) })
    }
}

/// The media engine of one node: packets, commands and the time in; packets, events and the next deadline out.
pub struct Engine {
    pub(crate) shared: Shared,
    pub(crate) rooms: Arena<Room>,
    pub(crate) room_ids: HashMap<Id, Key>,
    routes: Routes,
    timers: Timers,
    holds: Holds,
    arrived_us: u64,
    buffer: Vec<u8>,
    block: Vec<u8>,
    epochs: HashMap<Id, (u64, Id)>,
    epoch_order: VecDeque<Id>,
    transports: usize,
    transports_created: u64,
    max_transports: usize,
    /// Transports of other engines of the node.
    elsewhere: usize,
    draining: bool,
    rx_packets: u64,
    rx_bytes: u64,
}

impl Engine {
    /// An engine at time `now`, which is `unix` after 1970.
    ///
    /// # Errors
    /// When no certificate could be made.
    pub fn new(config: Config, now: Instant, unix: Duration) -> Result<Self, String> {
        Ok(Self::with_certificate(config, Certificate::generate()?, now, unix))
    }

    /// As [`Self::new`], with the certificate of the node.
    #[must_use]
    pub fn with_certificate(config: Config, certificate: Certificate, now: Instant, unix: Duration) -> Self {
        Self {
            shared: Shared {
                clock: Clock::new(now, unix),
                certificate: certificate.own,
                dtls: certificate.settings,
                sockets: config.sockets,
                seed: Cell::new(config.seed),
            },
            rooms: Arena::default(),
            room_ids: HashMap::new(),
            routes: Routes::default(),
            timers: Timers::default(),
            holds: Holds::default(),
            arrived_us: 0,
            buffer: vec![0; 2048],
            block: Vec::with_capacity(512),
            epochs: HashMap::new(),
            epoch_order: VecDeque::new(),
            transports: 0,
            transports_created: 0,
            max_transports: config.max_connections,
            elsewhere: 0,
            draining: false,
            rx_packets: 0,
            rx_bytes: 0,
        }
    }

    /// "sha-256 AB:CD…" of the node's certificate (RFC 8122).
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let hash = self.shared.certificate.fingerprint();
        format!("sha-256 {}", certificate::format_fingerprint(&hash).to_uppercase())
    }

    /// Cordon, or return to service. What is there goes on.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Cordoned.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Run one step of a room. A panic in it costs that room and nothing else.
    fn in_room<R>(
        &mut self,
        now: Now,
        key: Key,
        out: &mut Outbox,
        step: impl FnOnce(&mut Room, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let room = self.rooms.get_mut(key)?;
        let mark = out.mark();
        let mut cx = Context {
            now,
            room: key,
            shared: &self.shared,
            out,
            routes: &mut self.routes,
            timers: &mut self.timers,
            holds: &mut self.holds,
            arrived_us: self.arrived_us,
            buffer: &mut self.buffer,
            block: &mut self.block,
            transports: &mut self.transports,
            transports_created: &mut self.transports_created,
            max_transports: self.max_transports.saturating_sub(self.elsewhere),
            draining: self.draining,
        };
        let result = catch_unwind(AssertUnwindSafe(|| step(room, &mut cx)));
        if let Ok(result) = result {
            if !out.pending.is_empty() {
                out.address_pending(&room.controller, &room.id);
            }
            if room.closed {
                self.forget(key);
            }
            Some(result)
        } else {
            out.rewind(mark);
            out.drop(DropReason::Panic);
            out.event(crate::api::EventKind::RoomClosed { reason: "internal error" });
            out.address_pending(&room.controller, &room.id);
            self.transports = self.transports.saturating_sub(room.transports.len());
            self.routes.forget_room(key);
            self.buffer.resize(2048, 0);
            self.forget(key);
            None
        }
    }

    fn forget(&mut self, key: Key) {
        let Some(room) = self.rooms.remove(key) else { return };
        self.room_ids.remove(&room.id);
        if self.epochs.insert(room.id.clone(), (room.epoch, room.controller)).is_none() {
            self.epoch_order.push_back(room.id);
        }
        while self.epoch_order.len() > MAX_EPOCHS {
            if let Some(old) = self.epoch_order.pop_front() {
                self.epochs.remove(&old);
            }
        }
    }

    /// Carry out commands for one room and renew its lease. One result per command, an error as text.
    ///
    /// # Errors
    /// [`StaleEpoch`] when a newer controller was here.
    pub fn apply(
        &mut self,
        now: Instant,
        request: Apply,
        out: &mut Outbox,
    ) -> Result<Vec<Result<(), String>>, StaleEpoch> {
        let now = self.shared.clock.at(now);
        let existing = self.room_ids.get(&request.room_id).copied();
        let current = existing
            .and_then(|k| self.rooms.get(k))
            .map(|r| (r.epoch, &r.controller))
            .or_else(|| self.epochs.get(&request.room_id).map(|(epoch, controller)| (*epoch, controller)));
        if let Some(current) = current.filter(|c| (request.epoch, &request.controller_id) < *c) {
            return Err(StaleEpoch { current: current.0 });
        }
        if existing.is_none() && self.rooms.len() >= MAX_ROOMS {
            return Ok(request.commands.iter().map(|_| Err(format!("node has {MAX_ROOMS} rooms"))).collect());
        }
        let key = existing.unwrap_or_else(|| {
            let room = Room::new(request.room_id.clone(), request.controller_id.clone());
            let key = self.rooms.insert(room);
            self.room_ids.insert(request.room_id.clone(), key);
            key
        });
        let count = request.commands.len();
        let results = self.in_room(now, key, out, |room, cx| {
            room.epoch = request.epoch;
            let adopted = existing.is_some() && room.controller != request.controller_id;
            room.controller = request.controller_id;
            let lease = u64::try_from(request.lease.as_micros()).unwrap_or(u64::MAX);
            room.lease_due_us = now.us.saturating_add(lease);
            room.voices.set_limit(request.audio_top_n as usize, now.us);
            let results = room.apply(cx, request.commands);
            if adopted && !room.closed {
                room.emit_state(cx); // its new controller knows only what a snapshot told it
            }
            results
        });
        Ok(results.unwrap_or_else(|| vec![Err("internal error: room closed".into()); count]))
    }

    /// Emit the state of all rooms of one controller: its watch starts anew.
    pub fn resync(&mut self, now: Instant, controller_id: &str, out: &mut Outbox) {
        let now = self.shared.clock.at(now);
        let keys: Vec<Key> =
            self.rooms.iter().filter(|(_, r)| &*r.controller == controller_id).map(|(k, _)| k).collect();
        for key in keys {
            self.in_room(now, key, out, |room, cx| room.emit_state(cx));
        }
    }

    /// One datagram, decrypted in place. Nothing in it can do more than be counted as a drop.
    ///
    /// `arrived`: when the kernel had it, at most `now`. Publishers estimate their bandwidth from the spacing of
    /// these times, which a busy loop would flatten.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        arrived: Instant,
        path: Path,
        data: &mut [u8],
        out: &mut Outbox,
    ) {
        let now = self.shared.clock.at(now);
        self.arrived_us = self.shared.clock.us(arrived).min(now.us);
        self.rx_packets += 1;
        self.rx_bytes += data.len() as u64;
        let kind = classify(data);
        match kind {
            PacketKind::Stun => self.on_stun(now, path, data, out),
            PacketKind::Relay => {
                let route = relay::token(data).and_then(|t| self.routes.tokens.get(&t));
                let Some((room, link)) = route else { return out.drop(DropReason::RelayUnknownToken) };
                self.in_room(now, room, out, |room, cx| room.on_relay(cx, link, data));
            }
            PacketKind::Unknown => out.drop(DropReason::UnknownKind),
            PacketKind::Dtls | PacketKind::Rtp | PacketKind::Rtcp => {
                let Some((room, transport)) = self.routes.paths.get(&path) else {
                    return out.drop(DropReason::UnknownPath);
                };
                self.in_room(now, room, out, |room, cx| match kind {
                    PacketKind::Rtp => room.on_rtp(cx, transport, path, data),
                    PacketKind::Rtcp => room.on_rtcp(cx, transport, path, data),
                    _ => room.on_dtls(cx, transport, data),
                });
            }
        }
    }

    fn on_stun(&mut self, now: Now, path: Path, data: &[u8], out: &mut Outbox) {
        let request = match stun::parse(data) {
            Ok(stun::Message::BindingRequest(request)) => request,
            // Responses and indications mean nothing to an agent that never asks.
            Ok(_) => return,
            Err(_) => return out.drop(DropReason::StunMalformed),
        };
        let local = request.ufrags().map_or("", |u| u.0);
        let Some((room, transport)) = self.routes.ufrags.get(local) else {
            return out.drop(DropReason::StunUnknownUfrag);
        };
        self.in_room(now, room, out, |room, cx| room.on_stun(cx, transport, &request, path));
    }

    /// Keep track of routes, for [`Self::take_route_changes`].
    pub fn watch_routes(&mut self) {
        self.routes.watch();
    }

    /// Routes that came (true) or went since the last call.
    pub fn take_route_changes(&mut self) -> Vec<(RouteKey, bool)> {
        self.routes.take_changes()
    }

    /// What a datagram goes by, where that is not known here: another engine may have it.
    #[must_use]
    pub fn unknown_route(&self, path: Path, data: &[u8]) -> Option<RouteKey> {
        match classify(data) {
            PacketKind::Unknown => None,
            PacketKind::Stun => match stun::parse(data) {
                Ok(stun::Message::BindingRequest(request)) => {
                    let local = request.ufrags()?.0;
                    self.routes.ufrags.get(local).is_none().then(|| RouteKey::Ufrag(local.to_owned()))
                }
                _ => None,
            },
            PacketKind::Relay => {
                let token = relay::token(data)?;
                self.routes.tokens.get(&token).is_none().then_some(RouteKey::Token(token))
            }
            _ => self.routes.paths.get(&path).is_none().then_some(RouteKey::Path(path)),
        }
    }

    /// The client behind `path` is another engine's now.
    pub fn forget_path(&mut self, path: Path) {
        self.routes.paths.remove(&path);
    }

    /// How many transports other engines of the node have, against its limit.
    pub fn set_elsewhere(&mut self, transports: usize) {
        self.elsewhere = transports;
    }

    /// Transports here.
    #[must_use]
    pub fn transports(&self) -> usize {
        self.transports
    }

    /// Microseconds since the engine was made: the scale of [`Outbox::take_arrivals`].
    #[must_use]
    pub fn micros(&self, at: Instant) -> u64 {
        self.shared.clock.us(at)
    }

    /// When [`Self::handle_timeout`] is due. `None`: nothing waits.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        earliest(self.timers.next(), self.holds.next()).map(|us| self.shared.clock.instant(us))
    }

    /// Packets wait for the rest of their frame.
    pub fn holds(&mut self) -> bool {
        while let Some((due, room, track)) = self.holds.front() {
            let track = self.rooms.get(room).and_then(|r| r.tracks.get(track));
            if track.is_some_and(|t| t.run.is_due(due)) {
                return true;
            }
            // It went out before its time, or is gone.
            self.holds.skip();
        }
        false
    }

    /// Forward what waits and is complete, or waited long enough. `send` empties the outbox; it is called whenever
    /// that has grown to some [`CHUNK`] bytes, so that they are still in the processor's cache, and never at the end.
    pub fn forward(&mut self, now: Instant, out: &mut Outbox, send: &mut dyn FnMut(&mut Outbox)) {
        let now = self.shared.clock.at(now);
        while let Some((due, room, track)) = self.holds.pop_due(now.us) {
            self.in_room(now, room, out, |room, cx| {
                if room.tracks.get(track).is_some_and(|t| t.run.is_due(due)) {
                    room.forward(cx, track, send);
                }
            });
        }
        while let Some((room, track)) = self.holds.pop_ready() {
            self.in_room(now, room, out, |room, cx| room.forward(cx, track, send));
        }
    }

    /// Everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        self.forward(now, out, &mut |_| {});
        let now = self.shared.clock.at(now);
        for _ in 0..MAX_TIMERS {
            let Some((at, key, owner)) = self.timers.pop_due(now.us) else { return };
            self.in_room(now, key, out, |room, cx| match owner {
                Owner::Room => {
                    if room.armed.fire(at) {
                        room.on_timer(cx);
                    }
                }
                Owner::Transport(transport) => {
                    let fired = room.transports.get_mut(transport).is_some_and(|t| t.armed.fire(at));
                    if fired {
                        room.on_transport_timer(cx, transport);
                    }
                }
                Owner::Link(link) => {
                    if room.links.get_mut(link).is_some_and(|l| l.armed.fire(at)) {
                        room.on_link_timer(cx, link);
                    }
                }
            });
        }
    }

    /// No room is here.
    pub fn is_empty(&self) -> bool {
        self.rooms.len() == 0
    }

    /// Figures of the node so far.
    #[must_use]
    pub fn report(&self, now: Instant, out: &Outbox) -> Report {
        let now_us = self.shared.clock.us(now);
        let (tx_packets, tx_bytes) = out.totals();
        let mut report = Report {
            transports_created: self.transports_created,
            rx_packets: self.rx_packets,
            rx_bytes: self.rx_bytes,
            tx_packets,
            tx_bytes,
            drops: out.drop_counts(),
            ..Report::default()
        };
        for (_, room) in self.rooms.iter() {
            let figures = room.report();
            report.connections += room.connections();
            report.participants += figures.participants;
            report.rooms.push(figures);
            report.links.extend(room.links.iter().map(|(_, link)| link.report(&room.id, now_us)));
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Command, CreateTransport, EventKind};

    fn apply(engine: &mut Engine, now: Instant, room: &str, out: &mut Outbox) {
        let spec = CreateTransport {
            transport_id: "t".into(),
            participant_id: "p".into(),
            local_ufrag: format!("ufrag-{room}"),
            local_pwd: "x".repeat(24),
            remote_fingerprint: String::new(),
            data_channels: vec![],
            max_message_size: 0,
        };
        let request = Apply {
            room_id: room.into(),
            epoch: 3,
            controller_id: "c".into(),
            lease: Duration::from_secs(60),
            audio_top_n: 0,
            commands: vec![Command::CreateTransport(spec)],
        };
        assert_eq!(engine.apply(now, request, out), Ok(vec![Ok(())]));
    }

    #[test]
    fn a_panic_costs_one_room() {
        let now = Instant::now();
        let config = Config { sockets: vec![([127, 0, 0, 1], 1).into()], max_connections: 2, seed: 1 };
        let mut engine = Engine::new(config, now, Duration::ZERO).unwrap();
        let mut out = Outbox::default();
        apply(&mut engine, now, "bad", &mut out);
        apply(&mut engine, now, "good", &mut out);
        let key = engine.room_ids["bad"];
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let at = engine.shared.clock.at(now);
        let result: Option<()> = engine.in_room(at, key, &mut out, |_, _| panic!("on purpose"));
        std::panic::set_hook(hook);
        assert_eq!(result, None);
        let events = out.take_events();
        let closed: Vec<&str> = events
            .iter()
            .filter(|e| matches!(e.kind, EventKind::RoomClosed { reason: "internal error" }))
            .map(|e| &*e.room_id)
            .collect();
        assert_eq!(closed, ["bad"]);
        let report = engine.report(now, &out);
        assert_eq!(report.rooms.iter().map(|r| &*r.room_id).collect::<Vec<_>>(), ["good"]);
        assert_eq!(report.drops["panic"], 1);
        assert_eq!(engine.routes.ufrags.keys().collect::<Vec<_>>(), ["ufrag-good"]);
        // Its place is free again, and its epoch is still known.
        apply(&mut engine, now, "bad", &mut out);
    }
}
