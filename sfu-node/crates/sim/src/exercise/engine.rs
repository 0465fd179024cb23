//! The whole engine: the input is a script of commands, checks, packets that clients and neighbours sealed with the
//! right keys, datagrams of any kind, and time. Nothing in it may end in a panic, which the engine would count, and
//! when all rooms are closed nothing of them may be left.

use super::{
    check,
    commands::{self, CLIENTS, VIDEO},
    media::{self, Peer},
    node,
};
use crate::{ROOM, addr};
use headwater_engine::{Engine, Outbox, Path, RouteKey, api::*};
use headwater_wire::{exercise::Bytes, relay::Sealer};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

const MAX_STEPS: usize = 200;
/// Datagrams of one step that clients look at.
const MAX_HEARD: usize = 64;

struct World {
    engine: Engine,
    out: Outbox,
    start: Instant,
    now: Instant,
    epoch: u64,
    audio_top_n: u32,
    peers: [Peer; CLIENTS.len()],
    sealers: [Sealer; 2],
    routes: HashSet<RouteKey>,
}

impl World {
    fn new() -> Option<Self> {
        let start = Instant::now();
        let mut engine = node(start);
        engine.watch_routes();
        Some(Self {
            engine,
            out: Outbox::default(),
            start,
            now: start,
            epoch: 2,
            audio_top_n: 0,
            peers: [(); CLIENTS.len()].map(|()| Peer::new()),
            sealers: [Sealer::new(&[2; 32], 100, 1, 1)?, Sealer::new(&[2; 32], 101, 1, 1)?],
            routes: HashSet::new(),
        })
    }

    fn path(client: usize) -> Path {
        Path { socket: 0, peer: addr(9000 + client as u16) }
    }

    fn apply(&mut self, room: &str, commands: Vec<Command>) {
        let (count, epoch) = (commands.len(), self.epoch);
        let request = commands::apply(room, epoch, self.audio_top_n, commands);
        match self.engine.apply(self.now, request, &mut self.out) {
            Ok(results) => assert_eq!(results.len(), count, "one result each"),
            Err(stale) => assert!(stale.current >= epoch, "stale"),
        }
    }

    fn datagram(&mut self, path: Path, mut datagram: Vec<u8>) {
        let unknown = self.engine.unknown_route(path, &datagram);
        assert!(unknown.is_none_or(|key| !self.routes.contains(&key)), "an unknown route is none of ours");
        self.engine.handle_datagram(self.now, self.now, path, &mut datagram, &mut self.out);
    }

    fn connect(&mut self, room: &str, client: usize, profile: u8) {
        let material = self.peers[client].agree(profile);
        let keys = (self.peers[client].profile, &material[..]);
        self.engine.exercise_keys(self.now, (room, CLIENTS[client]), keys, &mut self.out);
    }

    /// A call that runs: a publisher, two who watch it, a link to a neighbour.
    fn prelude(&mut self, shape: u8, bytes: &mut Bytes<'_>) {
        let video = VIDEO[usize::from(shape & 7) % VIDEO.len()];
        let layers = bytes.byte();
        self.audio_top_n = u32::from(layers >> 7);
        for (i, client) in CLIENTS.iter().enumerate().take(3) {
            let spec = commands::create(client, commands::fingerprint());
            self.apply(ROOM, vec![Command::CreateTransport(spec)]);
            self.datagram(Self::path(i), check(&commands::ufrag(client, 0), 1, true));
            self.connect(ROOM, i, shape >> 4);
        }
        let publish =
            |mid: &str, track: &str, kind| commands::publish(mid, track, video, kind, layers & 0x67);
        let sections = vec![publish("0", "V", Kind::Video), publish("1", "A", Kind::Audio)];
        self.apply(ROOM, vec![Command::ConfigureReceive { transport_id: "a".into(), sections }]);
        for (client, first) in [("b", 1u32), ("c", 5)] {
            let subscribe =
                |mid: &str, track: &str, kind, at| commands::subscribe(mid, track, video, kind, first + at);
            let sections = vec![subscribe("0", "V", Kind::Video, 0), subscribe("1", "A", Kind::Audio, 2)];
            self.apply(ROOM, vec![Command::ConfigureSend { transport_id: client.into(), sections }]);
        }
        self.apply(ROOM, vec![Command::OpenRelay(commands::link(0))]);
        self.settle();
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let client = |bytes: &mut Bytes<'_>| usize::from(bytes.byte()) % CLIENTS.len();
        match bytes.byte() % 16 {
            0 | 1 => {
                let (room, command) = (commands::room(bytes), commands::command(bytes));
                self.apply(room, vec![command]);
            }
            2 => {
                let (socket, port) = (bytes.byte() & 1, bytes.byte());
                let peer = addr(if port & 8 == 0 { 9000 } else { 7100 } + u16::from(port & 3));
                self.datagram(Path { socket, peer }, bytes.take().to_vec());
            }
            3 => {
                let n = bytes.byte() % 2;
                let datagram = media::neighbour(bytes, &mut self.sealers[usize::from(n)]);
                self.datagram(Path { socket: 0, peer: addr(7100 + u16::from(n)) }, datagram);
            }
            4 | 5 => self.pass(bytes.byte()),
            6..=10 => {
                let from = client(bytes);
                let packet = self.peers[from].rtp(bytes);
                self.datagram(Self::path(from), packet);
            }
            11 => {
                let from = client(bytes);
                let packet = self.peers[from].raw(bytes);
                self.datagram(Self::path(from), packet);
            }
            12 | 13 => {
                let from = client(bytes);
                let packet = self.peers[from].rtcp(bytes);
                self.datagram(Self::path(from), packet);
            }
            14 => {
                let (whose, from, flags) = (client(bytes), client(bytes), bytes.byte());
                let ufrag = commands::ufrag(CLIENTS[whose], flags & 3);
                self.datagram(Self::path(from), check(&ufrag, flags, flags & 4 == 0));
                if flags & 8 == 0 {
                    let room = commands::room(bytes);
                    self.connect(room, whose, flags >> 4);
                }
            }
            _ => self.other(bytes),
        }
        self.settle();
    }

    /// Milliseconds, or seconds for large numbers.
    fn pass(&mut self, n: u8) {
        let ms = if n < 200 { u64::from(n) } else { u64::from(n - 200) * 700 };
        self.now += Duration::from_millis(ms);
        self.engine.handle_timeout(self.now, &mut self.out);
    }

    /// What the agent and the other threads of a node ask.
    fn other(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 8 {
            0 => self.engine.resync(self.now, "c", &mut self.out),
            1 => self.engine.set_draining(bytes.chance()),
            2 => self.engine.set_elsewhere(usize::from(bytes.byte() % 4)),
            3 => {
                let path = Self::path(usize::from(bytes.byte() & 3));
                self.engine.forget_path(path);
            }
            4 => {
                let ids = if bytes.chance() { vec![ROOM.into()] } else { vec![] };
                assert!(self.engine.rooms_held(self.now, &ids, true).len() <= 2, "two rooms");
            }
            5 => self.epoch = self.epoch.wrapping_add_signed(i64::from(bytes.byte() as i8)),
            6 => self.audio_top_n = u32::from(bytes.byte() % 4),
            _ => {
                let report = self.engine.report(self.now, &self.out);
                assert!(report.connections as usize <= self.engine.transports(), "connections");
            }
        }
    }

    /// Frames that are whole go out, clients hear them, and the books are kept.
    fn settle(&mut self) {
        if self.engine.holds() {
            self.engine.forward(self.now, &mut self.out, &mut |_| {});
        }
        let now_us = (self.now - self.start).as_micros() as u64;
        for (path, datagram) in self.out.datagrams().take(MAX_HEARD) {
            if let Some(peer) = media::receiver(path).and_then(|i| self.peers.get_mut(i)) {
                peer.hear(datagram, now_us);
            }
        }
        self.out.clear();
        self.out.take_events();
        for (key, came) in self.engine.take_route_changes() {
            let told = if came { self.routes.insert(key) } else { self.routes.remove(&key) };
            assert!(told, "a route comes and goes once");
        }
        assert!(self.engine.transports() <= 4, "no more transports than allowed");
        assert!(self.engine.next_deadline().is_none_or(|t| t >= self.start), "deadline");
    }

    fn end(mut self) {
        self.epoch = u64::MAX;
        self.apply(ROOM, vec![Command::CloseRoom]);
        self.apply("other", vec![Command::CloseRoom]);
        self.settle();
        let report = self.engine.report(self.now, &self.out);
        assert!(!report.drops.contains_key("panic"), "a room ended in a panic");
        assert!(self.engine.is_empty() && self.engine.transports() == 0, "nothing is left");
        assert!(self.routes.is_empty(), "routes are left: {:?}", self.routes);
    }
}

/// The engine under the script that `data` is.
pub fn engine(data: &[u8]) {
    let mut bytes = Bytes(data);
    let Some(mut world) = World::new() else { return };
    let shape = bytes.byte();
    if shape & 8 == 0 {
        world.prelude(shape, &mut bytes);
    }
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        world.step(&mut bytes);
    }
    world.end();
}
