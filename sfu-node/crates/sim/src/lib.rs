//! A small world on a virtual clock: engines, fake clients with real DTLS and SRTP, a network with delay and loss.
#![allow(
    clippy::type_complexity,
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use headwater_dtls::{Dtls, Output, SrtpProfile, certificate};
use headwater_engine::{Config, Engine, Outbox, Path, api::*};
use headwater_wire::{
    demux::{PacketKind, classify},
    nack::GapTracker,
    rtcp,
    rtp::{HeaderWriter, RtpHeader, RtpView},
    srtp::{self, Inbound, Outbound, Profile, Role},
    stun, twcc,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

pub mod crowd;
pub mod exercise;
pub mod layered;
mod link;
mod nonces;
pub mod rsa;

pub const ROOM: &str = "room";
const PWD: &str = "0123456789abcdef0123456789abcdef";
const DELAY: Duration = Duration::from_millis(5);

pub fn addr(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Splitmix64: the same numbers in each run.
pub struct Rng(pub u64);

impl Rng {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.draw() % 100 < percent
    }
}

/// Extension id under which subscribers of [`send_with_cc`] get transport-wide numbers.
pub const TRANSPORT_CC: u8 = 3;
/// Id of the dependency descriptor's extension.
pub const DEPENDENCIES: u8 = 9;

/// A bottleneck towards one client: FIFO with a bounded queue.
#[derive(Clone, Copy, Debug)]
pub struct Downlink {
    pub bps: u64,
    pub queue_ms: u64,
    free_us: u64,
    pub dropped: usize,
}

impl Downlink {
    pub fn new(bps: u64, queue_ms: u64) -> Self {
        Self { bps, queue_ms, free_us: 0, dropped: 0 }
    }

    /// How long a packet takes through it; `None`: the queue is full.
    fn take(&mut self, now_us: u64, size: usize) -> Option<u64> {
        let start = self.free_us.max(now_us);
        if start - now_us > self.queue_ms * 1000 {
            self.dropped += 1;
            return None;
        }
        self.free_us = start + size as u64 * 8_000_000 / self.bps;
        Some(self.free_us - now_us)
    }
}

pub struct Node {
    pub engine: Engine,
    pub out: Outbox,
    pub addr: SocketAddr,
    pub events: Vec<Event>,
    pub epoch: u64,
    pub audio_top_n: u32,
}

impl Node {
    pub fn states(&self, id: &str) -> Vec<TransportState> {
        let state = |e: &Event| match &e.kind {
            EventKind::Transport { transport_id, state, .. } if &**transport_id == id => Some(*state),
            _ => None,
        };
        self.events.iter().filter_map(state).collect()
    }

    pub fn closed(&self) -> Option<&'static str> {
        self.events.iter().find_map(|e| match e.kind {
            EventKind::RoomClosed { reason } => Some(reason),
            _ => None,
        })
    }
}

#[derive(Clone, Debug)]
pub struct Got {
    pub at_ms: u64,
    pub header: RtpHeader,
    pub payload: Vec<u8>,
    /// Its dependency descriptor, where that was negotiated.
    pub dependencies: Vec<u8>,
}

/// A client with one transport.
pub struct Client {
    pub name: String,
    pub addr: SocketAddr,
    pub node: usize,
    dtls: Dtls,
    inbound: Option<Inbound>,
    outbound: Option<Outbound>,
    sequences: HashMap<u32, u64>,
    /// Sent packets by (ssrc, index), for NACK answers.
    sent: HashMap<(u32, u16), Vec<u8>>,
    pub got: Vec<Got>,
    pub pli: Vec<(u64, u32)>,
    pub nacks: usize,
    pub sender_reports: Vec<(u32, rtcp::SenderInfo)>,
    pub reports: Vec<rtcp::ReportBlock>,
    /// In order, so that a seed gives the same run.
    gaps: BTreeMap<u32, GapTracker>,
    nonces: nonces::Nonces,
    pub repair: bool,
    pub silent: bool,
    /// Its process does not run until then: what comes waits, and nothing goes.
    pub stalled_until: Option<Instant>,
    /// What its path carries towards it.
    pub downlink: Option<Downlink>,
    /// Transport-wide feedback, where the packets have numbers under [`TRANSPORT_CC`].
    arrivals: twcc::Recorder,
    feedback_due: u64,
    next_check: Instant,
    transaction: u64,
}

impl Client {
    pub fn connected(&self) -> bool {
        self.outbound.is_some()
    }

    pub fn of_ssrc(&self, ssrc: u32) -> impl Iterator<Item = &Got> {
        self.got.iter().filter(move |g| g.header.ssrc == ssrc)
    }

    /// The first flight of the client's DTLS handshake, not sent.
    pub fn client_hello(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut net = Vec::new();
        self.dtls.handle_timeout(now).ok();
        self.drain(&mut net, self.addr);
        net.into_iter().map(|(_, _, d)| d).collect()
    }

    fn drain(&mut self, net: &mut Vec<(SocketAddr, SocketAddr, Vec<u8>)>, to: SocketAddr) {
        let mut buffer = vec![0; 2048];
        for _ in 0..256 {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(p) => net.push((self.addr, to, p.to_vec())),
                Output::BufferTooSmall { needed } => buffer.resize(needed, 0),
                Output::KeyingMaterial(material, profile) => {
                    let profile = match profile {
                        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
                        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
                        _ => Profile::Aes128CmSha1_80,
                    };
                    let (inbound, outbound) = srtp::sessions(profile, &material, Role::Client).unwrap();
                    (self.inbound, self.outbound) = (Some(inbound), Some(outbound));
                    self.nonces = nonces::Nonces::default();
                }
                Output::Timeout(_) => return,
                _ => {}
            }
        }
        panic!("DTLS never finishes");
    }

    /// Seal an RTP packet and give it back as a datagram.
    pub fn rtp(&mut self, header: RtpHeader, extensions: &[(u8, &[u8])], payload: &[u8]) -> Vec<u8> {
        let last = self.sequences.get(&header.ssrc).copied().unwrap_or(u64::from(header.sequence));
        let index = headwater_wire::seq::extend_near(last, header.sequence);
        self.sequences.insert(header.ssrc, index.max(last));
        let mut packet = Vec::new();
        let mut writer = HeaderWriter::begin(&mut packet, &header);
        extensions.iter().for_each(|(id, v)| writer.extension(*id, v));
        writer.finish();
        packet.extend_from_slice(payload);
        self.outbound.as_ref().unwrap().seal_rtp(&mut packet, 0, (index >> 16) as u32).unwrap();
        self.sent.insert((header.ssrc, header.sequence), packet.clone());
        packet
    }

    pub fn rtcp(&mut self, mut compound: Vec<u8>) -> Vec<u8> {
        self.outbound.as_mut().unwrap().seal_rtcp(&mut compound, 0).unwrap();
        compound
    }

    fn on_rtcp(
        &mut self,
        at_ms: u64,
        compound: &[u8],
        to: SocketAddr,
        net: &mut Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    ) {
        for packet in rtcp::Packets::new(compound) {
            match packet {
                rtcp::Packet::Nack { media, lost, .. } => {
                    self.nacks += 1;
                    for sequence in lost {
                        if let Some(p) = self.sent.get(&(media, sequence)) {
                            net.push((self.addr, to, p.clone()));
                        }
                    }
                }
                rtcp::Packet::Pli { media, .. } => self.pli.push((at_ms, media)),
                rtcp::Packet::SenderReport { ssrc, info, .. } => self.sender_reports.push((ssrc, info)),
                rtcp::Packet::ReceiverReport { reports, .. } => self.reports.extend(reports),
                _ => {}
            }
        }
    }
}

pub struct World {
    pub base: Instant,
    pub now: Instant,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    pub rng: Rng,
    /// Loss in percent between clients and nodes, media only after the handshake.
    pub client_loss: u64,
    /// Delay between clients and nodes varies by up to so much, which reorders.
    pub jitter_ms: u64,
    /// Percent of packets that come twice.
    pub duplicate: u64,
    /// Packets lost in a row, once in 500 packets or so.
    pub burst: u64,
    burst_left: u64,
    /// Loss in percent between nodes.
    pub node_loss: u64,
    queue: BinaryHeap<Reverse<(Instant, u64, SocketAddr, SocketAddr, Vec<u8>)>>,
    order: u64,
    /// Datagrams from node to node.
    pub crossed: usize,
}

impl World {
    pub fn new(nodes: usize) -> Self {
        Self::with_capacity(nodes, 16)
    }

    /// Nodes that take this many transports each.
    pub fn with_capacity(nodes: usize, max_connections: usize) -> Self {
        let base = Instant::now();
        let unix = Duration::from_secs(1_800_000_000);
        let nodes = (0..nodes)
            .map(|i| {
                let addr = addr(7000 + i as u16);
                let config = Config { sockets: vec![addr], max_connections, seed: i as u64 };
                let engine = Engine::new(config, base, unix).unwrap();
                Node { engine, out: Outbox::default(), addr, events: Vec::new(), epoch: 1, audio_top_n: 0 }
            })
            .collect();
        Self {
            base,
            now: base,
            nodes,
            clients: Vec::new(),
            rng: Rng(1),
            client_loss: 0,
            node_loss: 0,
            jitter_ms: 0,
            duplicate: 0,
            burst: 0,
            burst_left: 0,
            queue: BinaryHeap::new(),
            order: 0,
            crossed: 0,
        }
    }

    pub fn us(&self) -> u64 {
        (self.now - self.base).as_micros() as u64
    }

    pub fn ms(&self) -> u64 {
        (self.now - self.base).as_millis() as u64
    }

    pub fn try_apply(
        &mut self,
        node: usize,
        commands: Vec<Command>,
    ) -> Result<Vec<Result<(), String>>, StaleEpoch> {
        let n = &mut self.nodes[node];
        let request = Apply {
            room_id: ROOM.into(),
            epoch: n.epoch,
            controller_id: "ctl".into(),
            lease: Duration::from_secs(60),
            audio_top_n: n.audio_top_n,
            commands,
        };
        let results = n.engine.apply(self.now, request, &mut n.out);
        n.events.extend(n.out.take_events());
        results
    }

    pub fn apply(&mut self, node: usize, command: Command) {
        assert_eq!(self.try_apply(node, vec![command]).unwrap(), [Ok(())]);
    }

    /// A client and its transport `name` on a node, not yet connected.
    pub fn client(&mut self, node: usize, name: &str) -> usize {
        static CERTIFICATE: OnceLock<headwater_dtls::DtlsCertificate> = OnceLock::new();
        let certificate =
            CERTIFICATE.get_or_init(|| certificate::generate_self_signed_certificate().unwrap());
        let fingerprint = certificate::format_fingerprint(&certificate.fingerprint());
        self.client_with(node, name, certificate.clone(), &fingerprint)
    }

    pub fn client_with(
        &mut self,
        node: usize,
        name: &str,
        certificate: headwater_dtls::DtlsCertificate,
        fingerprint: &str,
    ) -> usize {
        self.client_on(node, name, certificate, fingerprint, Arc::new(headwater_dtls::Config::default()))
    }

    /// As [`Self::client_with`], with DTLS settings of its own.
    pub fn client_on(
        &mut self,
        node: usize,
        name: &str,
        certificate: headwater_dtls::DtlsCertificate,
        fingerprint: &str,
        settings: Arc<headwater_dtls::Config>,
    ) -> usize {
        let spec = CreateTransport {
            transport_id: name.into(),
            participant_id: name.into(),
            local_ufrag: format!("ufrag-{name}"),
            local_pwd: PWD.into(),
            remote_fingerprint: fingerprint.into(),
            data_channels: vec![],
            max_message_size: 0,
        };
        self.apply(node, Command::CreateTransport(spec));
        let mut dtls = Dtls::new_12(settings, certificate, self.now);
        dtls.set_active(true);
        dtls.handle_timeout(self.now).unwrap();
        self.clients.push(Client {
            name: name.into(),
            addr: addr(9000 + self.clients.len() as u16),
            node,
            dtls,
            inbound: None,
            nonces: nonces::Nonces::default(),
            outbound: None,
            sequences: HashMap::new(),
            sent: HashMap::new(),
            got: Vec::new(),
            pli: Vec::new(),
            nacks: 0,
            sender_reports: Vec::new(),
            reports: Vec::new(),
            gaps: BTreeMap::new(),
            repair: true,
            silent: false,
            stalled_until: None,
            downlink: None,
            arrivals: twcc::Recorder::new(),
            feedback_due: 0,
            next_check: self.now,
            transaction: 0,
        });
        self.clients.len() - 1
    }

    pub fn send(&mut self, client: usize, datagram: Vec<u8>) {
        let from = self.clients[client].addr;
        let to = self.nodes[self.clients[client].node].addr;
        self.post(from, to, datagram);
    }

    pub fn post(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        let between_nodes = from.port() < 9000 && to.port() < 9000;
        let media = datagram.first().is_some_and(|b| *b >= 64);
        let loss = if between_nodes { self.node_loss } else { self.client_loss };
        self.crossed += usize::from(between_nodes);
        if media && self.rng.chance(loss) {
            return;
        }
        let (now_us, mut at) = (self.us(), self.now + DELAY);
        if media && !between_nodes {
            if self.burst_left > 0 {
                self.burst_left -= 1;
                return;
            }
            if self.burst > 0 && self.rng.draw().is_multiple_of(500) {
                self.burst_left = self.burst;
            }
            at += Duration::from_micros(self.rng.draw() % (self.jitter_ms * 1000 + 1));
            if self.rng.chance(self.duplicate) {
                self.order += 1;
                self.queue.push(Reverse((at + DELAY, self.order, from, to, datagram.clone())));
            }
        }
        if let Some(client) = self.clients.iter_mut().find(|c| c.addr == to) {
            if let Some(downlink) = client.downlink.as_mut() {
                let Some(wait) = downlink.take(now_us, datagram.len()) else { return };
                at += Duration::from_micros(wait);
            }
            at = at.max(client.stalled_until.unwrap_or(at));
        }
        self.order += 1;
        self.queue.push(Reverse((at, self.order, from, to, datagram)));
    }

    /// Let `ms` milliseconds pass.
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += Duration::from_millis(1);
            self.deliver();
            self.tick_clients();
            for i in 0..self.nodes.len() {
                let n = &mut self.nodes[i];
                n.engine.handle_timeout(self.now, &mut n.out);
            }
            self.collect();
        }
    }

    /// Run until `done` or fail after `ms`.
    pub fn until(&mut self, ms: u64, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..ms {
            if done(self) {
                return;
            }
            self.run(1);
        }
        panic!("not within {ms} ms: {what}");
    }

    pub fn connect(&mut self, client: usize) {
        self.until(5000, "connected", |w| w.clients[client].connected());
        self.run(20);
    }

    fn collect(&mut self) {
        for i in 0..self.nodes.len() {
            let n = &mut self.nodes[i];
            n.events.extend(n.out.take_events());
            let from = n.addr;
            let all: Vec<(SocketAddr, Vec<u8>)> =
                n.out.datagrams().map(|(p, d)| (p.peer, d.to_vec())).collect();
            n.out.clear();
            for (to, datagram) in all {
                self.post(from, to, datagram);
            }
        }
    }

    fn deliver(&mut self) {
        while self.queue.peek().is_some_and(|e| e.0.0 <= self.now) {
            let Reverse((_, _, from, to, mut datagram)) = self.queue.pop().unwrap();
            if let Some(n) = self.nodes.iter_mut().find(|n| n.addr == to) {
                let path = Path { socket: 0, peer: from };
                n.engine.handle_datagram(self.now, self.now, path, &mut datagram, &mut n.out);
            } else if let Some(i) = self.clients.iter().position(|c| c.addr == to) {
                self.on_client_datagram(i, from, datagram);
            }
        }
        self.collect();
    }

    fn on_client_datagram(&mut self, i: usize, from: SocketAddr, mut datagram: Vec<u8>) {
        let (at_ms, arrived_us) = (self.ms(), self.us());
        let mut net = Vec::new();
        let c = &mut self.clients[i];
        match classify(&datagram) {
            PacketKind::Dtls => {
                c.dtls.handle_timeout(self.now).ok();
                c.dtls.handle_packet(&datagram).ok();
                c.drain(&mut net, from);
            }
            PacketKind::Rtp => {
                if c.inbound.is_some() {
                    c.nonces.check(&datagram);
                }
                if let Some(inbound) = &mut c.inbound
                    && let Ok(opened) = inbound.open_rtp(&mut datagram)
                {
                    let view = RtpView::parse(&datagram[..opened.len]).unwrap();
                    if let Some((_, &[a, b])) = view.extensions().find(|e| e.0 == TRANSPORT_CC) {
                        c.arrivals.record(u16::from_be_bytes([a, b]), arrived_us);
                    }
                    let gaps = c.gaps.entry(view.ssrc()).or_default();
                    gaps.on_packet(view.sequence(), at_ms * 1000);
                    let dependencies =
                        view.extensions().find(|e| e.0 == DEPENDENCIES).map_or(&[][..], |e| e.1);
                    c.got.push(Got {
                        at_ms,
                        header: view.header(),
                        payload: view.payload().to_vec(),
                        dependencies: dependencies.to_vec(),
                    });
                }
            }
            PacketKind::Rtcp => {
                if let Some(inbound) = &mut c.inbound
                    && let Ok(len) = inbound.open_rtcp(&mut datagram)
                {
                    c.on_rtcp(at_ms, &datagram[..len], from, &mut net);
                }
            }
            _ => {}
        }
        for (from, to, d) in net {
            self.post(from, to, d);
        }
    }

    fn tick_clients(&mut self) {
        let at_us = self.ms() * 1000;
        let mut net = Vec::new();
        for c in &mut self.clients {
            let to = self.nodes[c.node].addr;
            if c.silent || c.stalled_until.is_some_and(|until| self.now < until) {
                continue;
            }
            if c.next_check <= self.now {
                c.next_check = self.now + Duration::from_millis(2500);
                c.transaction += 1;
                let mut id = [0; 12];
                id[..8].copy_from_slice(&c.transaction.to_be_bytes());
                let username = format!("ufrag-{}:remote", c.name);
                let fields = stun::RequestFields {
                    username: &username,
                    priority: 1,
                    tie_breaker: 1,
                    use_candidate: true,
                };
                let mut request = Vec::new();
                stun::write_request(&id, &fields, &stun::IceKey::new(PWD), &mut request);
                net.push((c.addr, to, request));
            }
            if !c.connected() && at_us.is_multiple_of(50_000) {
                c.dtls.handle_timeout(self.now).ok();
                c.drain(&mut net, to);
            }
            if c.connected() && c.arrivals.is_pending() && c.feedback_due <= at_us {
                c.feedback_due = at_us + 60_000;
                let mut compound = Vec::new();
                while c.arrivals.push_feedback(&mut compound, 1, 2) {}
                let packet = c.rtcp(compound);
                net.push((c.addr, to, packet));
            }
            if c.repair && c.connected() {
                let mut lost = Vec::new();
                let mut compound = Vec::new();
                for (ssrc, gaps) in &mut c.gaps {
                    lost.clear();
                    gaps.poll(at_us, 20_000, &mut lost);
                    if !lost.is_empty() {
                        rtcp::push_nack(&mut compound, 1, *ssrc, &lost);
                    }
                }
                if !compound.is_empty() {
                    let packet = c.rtcp(compound);
                    net.push((c.addr, to, packet));
                }
            }
        }
        for (from, to, d) in net {
            self.post(from, to, d);
        }
    }
}

pub fn codec(payload_type: u8, codec: Codec, apt: u8) -> CodecMap {
    let clock_rate = if matches!(codec, Codec::Opus | Codec::Red) { 48_000 } else { 90_000 };
    CodecMap {
        payload_type,
        codec,
        clock_rate,
        apt,
        nack: true,
        pli: true,
        transport_cc: true,
        fmtp: String::new(),
    }
}

/// A publisher's section for VP8 with these layers' SSRCs, or for Opus with one.
pub fn receive(mid: &str, track: &str, ssrcs: &[u32], kind: Kind) -> ReceiveSection {
    let layers = (0u8..).zip(ssrcs).map(|(spatial, ssrc)| Layer { spatial, ssrc: *ssrc, ..Layer::default() });
    let codecs = match kind {
        Kind::Audio => vec![codec(111, Codec::Opus, 0)],
        Kind::Video => vec![codec(96, Codec::Vp8, 0), codec(97, Codec::Rtx, 96)],
    };
    ReceiveSection {
        mid: mid.into(),
        kind,
        track_id: track.into(),
        codecs,
        extensions: vec![
            ExtensionMap { id: 1, extension: Extension::Mid },
            ExtensionMap { id: 2, extension: Extension::AudioLevel },
            ExtensionMap { id: 3, extension: Extension::TransportCc },
        ],
        layers: layers.collect(),
        muted: false,
        voice: kind == Kind::Audio,
    }
}

/// A subscriber's section; other numbers than the publisher's on purpose.
pub fn send(mid: &str, track: &str, ssrc: u32, rtx_ssrc: u32, kind: Kind) -> SendSection {
    let codecs = match kind {
        Kind::Audio => vec![codec(101, Codec::Opus, 0)],
        Kind::Video => vec![codec(120, Codec::Vp8, 0), codec(121, Codec::Rtx, 120)],
    };
    SendSection {
        mid: mid.into(),
        kind,
        track_id: track.into(),
        ssrc,
        rtx_ssrc,
        codecs,
        extensions: vec![ExtensionMap { id: 7, extension: Extension::Mid }],
        max_spatial: 2,
        paused: false,
        screen: false,
        priority: 0,
    }
}

/// As [`send`], with transport-wide sequence numbers.
pub fn send_with_cc(mid: &str, track: &str, ssrc: u32, rtx_ssrc: u32, kind: Kind) -> SendSection {
    let mut section = send(mid, track, ssrc, rtx_ssrc, kind);
    section.extensions.push(ExtensionMap { id: TRANSPORT_CC, extension: Extension::TransportCc });
    section
}

pub fn configure_receive(transport: &str, sections: Vec<ReceiveSection>) -> Command {
    Command::ConfigureReceive { transport_id: transport.into(), sections }
}

pub fn configure_send(transport: &str, sections: Vec<SendSection>) -> Command {
    Command::ConfigureSend { transport_id: transport.into(), sections }
}

/// One VP8 packet: whole frame, 15-bit picture id, the frame's number as its content.
pub fn vp8(picture: u16, key: bool, content: u32) -> Vec<u8> {
    let [hi, lo] = picture.to_be_bytes();
    let mut p = vec![0x90, 0xC0, 0x80 | hi, lo, (picture & 0xFF) as u8, if key { 0x10 } else { 0x11 }, 0, 0];
    p.extend_from_slice(&content.to_be_bytes());
    p.resize(200, 7);
    p
}

/// Content number of a packet made by [`vp8`].
pub fn content(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[8..12].try_into().unwrap())
}

/// Picture id of a packet made by [`vp8`].
pub fn picture_id(payload: &[u8]) -> u16 {
    u16::from_be_bytes([payload[2] & 0x7F, payload[3]])
}

/// A source of frames for one layer.
pub struct Camera {
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub picture: u16,
    pub frames: u32,
}

impl Camera {
    pub fn new(ssrc: u32, sequence: u16) -> Self {
        Self { ssrc, sequence, timestamp: ssrc.wrapping_mul(77), picture: 100, frames: 0 }
    }

    pub fn frame(&mut self, world: &mut World, client: usize, key: bool) {
        let header = RtpHeader {
            marker: true,
            payload_type: 96,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        let content = self.ssrc << 16 | self.frames;
        let packet = world.clients[client].rtp(header, &[], &vp8(self.picture & 0x7FFF, key, content));
        world.send(client, packet);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(3000);
        self.picture = self.picture.wrapping_add(1);
        self.frames += 1;
    }
}

pub fn drops(node: &Node, now: Instant) -> BTreeMap<&'static str, u64> {
    node.engine.report(now, &node.out).drops
}
