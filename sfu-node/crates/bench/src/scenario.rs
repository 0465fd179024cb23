//! One load: publishers, subscribers, packet shape and rate; run against a node in this process.

use crate::{
    client::{Client, Credentials, Identity},
    sys,
};
use headwater_engine::api::{
    Apply, Codec, CodecMap, Command, CreateTransport, Extension, ExtensionMap, Id, Kind, Layer, OpenRelay,
    ReceiveSection, SendSection,
};
use headwater_net::Handle;
use headwater_wire::rtp::{HeaderWriter, RtpHeader, RtpView};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Bytes that a forwarded packet has besides its payload: header, MID extension, GCM tag.
const OVERHEAD: usize = 12 + 8 + 16;
/// Where the send time stands in a payload: behind the VP8 descriptor and frame header.
const TIME_AT: usize = 4;
/// One packet in this many is decrypted by its receiver, for the latency and as proof that it is intact.
const SAMPLE: u16 = 16;
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const COLLECT_EVERY: Duration = Duration::from_millis(1);
const DRAIN_FOR: Duration = Duration::from_millis(300);
const MID: u8 = 1;
const TRANSPORT_CC: u8 = 3;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub name: &'static str,
    pub publishers: usize,
    pub subscribers: usize,
    /// Of a forwarded packet on the wire, UDP payload.
    pub bytes: usize,
    /// Packets per second of each publisher.
    pub pps: u32,
    /// Packets of a frame, sent together.
    pub burst: u32,
    pub kind: Kind,
    /// The subscribers are on a second node, behind a relay link.
    pub relay: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub published: u64,
    pub expected: u64,
    pub received: u64,
    pub damaged: u64,
    pub cpu: Duration,
    pub kernel_share: f64,
    pub wall: Duration,
    pub latency_us: Vec<f64>,
    pub profile: &'static str,
    pub drops: String,
}

impl Outcome {
    /// Share of expected packets that did not arrive.
    pub fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.expected.max(1) as f64
    }

    /// CPU of the media thread per packet that arrived, µs.
    pub fn micros_per_packet(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.received.max(1) as f64
    }

    /// Latency at a share of the samples, µs.
    pub fn percentile(&self, share: f64) -> f64 {
        let last = self.latency_us.len().saturating_sub(1);
        self.latency_us.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }
}

/// A node with a room full of connected clients.
pub struct Room {
    node: Handle,
    /// The subscribers' node, when it is another one.
    far: Option<Handle>,
    server: SocketAddr,
    load: Load,
    publishers: Vec<Publisher>,
    subscribers: Vec<Client>,
    media: sys::Thread,
    receiver: sys::Receiver,
}

struct Publisher {
    client: Client,
    index: u64,
    timestamp: u32,
    packets: u64,
}

impl Room {
    /// Starts a node on core 0, moves this thread to core 1 (and starts a second node there), and connects
    /// everybody. Nobody is subscribed yet.
    pub fn open(load: Load, identity: &Identity, cores: usize) -> Result<Self, String> {
        let pin = |core| cores > 1 && sys::pin(core);
        pin(0);
        let node = start()?;
        let media = sys::Thread::newest("media").ok_or("the node has no thread named media")?;
        pin(1);
        let far = if load.relay { Some(start()?) } else { None };
        let server = address(&node)?;
        let edge = far.as_ref().unwrap_or(&node);
        let (publishers, subscribers) = (names("pub", load.publishers), names("sub", load.subscribers));
        apply(&node, publishers.iter().map(|n| create(n, identity)).collect())?;
        apply(edge, subscribers.iter().map(|n| create(n, identity)).collect())?;
        let connect = |to, name: &String| Client::connect(to, &credentials(name), identity);
        let edge_address = address(edge)?;
        let room = Self {
            publishers: publishers
                .iter()
                .map(|n| Ok(Publisher { client: connect(server, n)?, index: 0, timestamp: 0, packets: 0 }))
                .collect::<Result<_, String>>()?,
            subscribers: subscribers.iter().map(|n| connect(edge_address, n)).collect::<Result<_, _>>()?,
            node,
            far,
            server,
            load,
            media,
            receiver: sys::Receiver::new(),
        };
        let receive = publishers.iter().enumerate().map(|(i, n)| Command::ConfigureReceive {
            transport_id: id(n),
            sections: vec![receive_section(&load, i)],
        });
        apply(&room.node, receive.collect())?;
        room.link()?;
        Ok(room)
    }

    /// Opens the link between the two nodes, if there are two.
    fn link(&self) -> Result<(), String> {
        let Some(far) = &self.far else { return Ok(()) };
        let keys = [[0x11; 32], [0x22; 32]];
        let end = |peer: &Handle, tx: usize| -> Result<Command, String> {
            Ok(Command::OpenRelay(OpenRelay {
                link_id: id("link"),
                peer_node_id: "peer".into(),
                peer_address: address(peer)?,
                tx_key: keys[tx],
                rx_key: keys[1 - tx],
                link_token: 77,
            }))
        };
        apply(&self.node, vec![end(far, 0)?])?;
        let tracks = (0..self.load.publishers).map(|i| Command::AddRemoteTrack {
            track_id: id(&format!("track{i}")),
            kind: self.load.kind,
            link_id: id("link"),
            layers: receive_section(&self.load, i).layers,
        });
        apply(far, std::iter::once(end(&self.node, 1)?).chain(tracks).collect())
    }

    /// Subscribes everybody to everything.
    pub fn subscribe(&mut self) -> Result<(), String> {
        let load = self.load;
        let send = names("sub", load.subscribers).into_iter().map(|n| Command::ConfigureSend {
            transport_id: id(&n),
            sections: (0..load.publishers).map(|i| send_section(&load, i)).collect(),
        });
        apply(self.far.as_ref().unwrap_or(&self.node), send.collect())?;
        self.drain(DRAIN_FOR, &mut Outcome::default());
        Ok(())
    }

    /// Addresses of the subscribers' sockets, for the kernel floor.
    pub fn subscribers(&self) -> Vec<SocketAddr> {
        self.subscribers.iter().filter_map(|c| c.socket.local_addr().ok()).collect()
    }

    /// Throws away what waits in the subscribers' sockets.
    pub fn discard(&mut self) {
        for client in &self.subscribers {
            while self.receiver.receive(&client.socket, |_, _| {}) > 0 {}
        }
    }

    /// Sends at `pps` per publisher for `time` and measures.
    pub fn run(&mut self, pps: u32, time: Duration) -> Result<Outcome, String> {
        let mut warm = Outcome::default();
        self.send_for(pps, time / 5, &mut warm);
        self.drain(DRAIN_FOR, &mut warm);
        let mut outcome = Outcome::default();
        let (cpu, ticks, start) = (self.media.cpu(), self.media.ticks(), Instant::now());
        self.send_for(pps, time, &mut outcome);
        self.drain(DRAIN_FOR, &mut outcome);
        outcome.cpu = self.media.cpu().saturating_sub(cpu);
        let after = self.media.ticks();
        let (user, kernel) = ((after.0 - ticks.0) as f64, (after.1 - ticks.1) as f64);
        outcome.kernel_share = kernel / (user + kernel).max(1.0);
        outcome.wall = start.elapsed();
        outcome.expected = outcome.published * self.load.subscribers as u64;
        outcome.latency_us.sort_by(f64::total_cmp);
        outcome.profile = self.subscribers.first().map_or("", |c| c.profile.name());
        let drops = self.node.snapshot().map_err(|e| e.to_string())?.report.drops;
        outcome.drops = drops.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
        Ok(outcome)
    }

    fn send_for(&mut self, pps: u32, time: Duration, outcome: &mut Outcome) {
        let start = Instant::now();
        let frame_every = Duration::from_secs_f64(f64::from(self.load.burst) / f64::from(pps));
        let step = frame_every / u32::try_from(self.publishers.len()).unwrap_or(1).max(1);
        let (mut next, mut turn) = (start, 0);
        let mut keep_alive = start + KEEP_ALIVE;
        while start.elapsed() < time {
            let now = Instant::now();
            if now >= next {
                outcome.published += self.send_frame(turn);
                turn = (turn + 1) % self.publishers.len();
                next += step;
                // After a pause of this process: go on from here, do not send what was missed at once.
                if next + Duration::from_millis(50) < now {
                    next = now;
                }
            }
            if now >= keep_alive {
                keep_alive = now + KEEP_ALIVE;
                self.keep_alive();
            }
            self.collect(next.saturating_duration_since(Instant::now()), outcome);
        }
    }

    fn keep_alive(&mut self) {
        self.publishers.iter_mut().for_each(|p| p.client.keep_alive());
        self.subscribers.iter_mut().for_each(Client::keep_alive);
        // Events would fill up otherwise.
        for node in std::iter::once(&self.node).chain(&self.far) {
            while !node.drain(1024).is_empty() {}
        }
    }

    /// One frame of one publisher; returns its packets.
    fn send_frame(&mut self, turn: usize) -> u64 {
        let (load, server) = (self.load, self.server);
        let Some(publisher) = self.publishers.get_mut(turn) else { return 0 };
        let ticks = if load.kind == Kind::Audio { 960 } else { 3000 };
        publisher.timestamp = publisher.timestamp.wrapping_add(ticks);
        let key_frame = publisher.packets.is_multiple_of(300);
        let mut sent = 0;
        for i in 0..load.burst {
            let packet = publisher.packet(&load, turn, i, key_frame);
            sent += u64::from(publisher.client.socket.send_to(&packet, server).is_ok());
        }
        sent
    }

    fn drain(&mut self, time: Duration, outcome: &mut Outcome) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.collect(Duration::from_millis(5), outcome);
        }
    }

    /// Sleeps, at most `timeout`, then takes what has come.
    ///
    /// Nobody waits on the sockets meanwhile: waking a waiter would be charged to the media thread, and the
    /// clients of a real node are on other machines. Receive times are the kernel's, so nothing is lost by it.
    fn collect(&mut self, timeout: Duration, outcome: &mut Outcome) {
        std::thread::sleep(timeout.min(COLLECT_EVERY));
        for publisher in &self.publishers {
            // Its feedback.
            self.receiver.receive(&publisher.client.socket, |_, _| {});
        }
        for client in &mut self.subscribers {
            let inbound = &mut client.inbound;
            self.receiver.receive(&client.socket, |data, at_ns| {
                let [first, second, _, low, ..] = *data else { return };
                // Not STUN, DTLS or RTCP.
                if !(128..=191).contains(&first) || (192..=223).contains(&second) {
                    return;
                }
                outcome.received += 1;
                if u16::from(low) % SAMPLE == 0 {
                    sample(inbound, data, at_ns, outcome);
                }
            });
        }
    }
}

fn sample(inbound: &mut headwater_wire::srtp::Inbound, data: &mut [u8], at_ns: i64, outcome: &mut Outcome) {
    let sent = inbound.open_rtp(data).ok().and_then(|o| {
        let payload = RtpView::parse(data.get(..o.len)?)?.payload();
        Some(i64::from_be_bytes(payload.get(TIME_AT..TIME_AT + 8)?.try_into().ok()?))
    });
    match sent {
        Some(sent) => outcome.latency_us.push((at_ns - sent) as f64 / 1e3),
        None => outcome.damaged += 1,
    }
}

impl Publisher {
    fn packet(&mut self, load: &Load, turn: usize, at: u32, key_frame: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(1500);
        let header = RtpHeader {
            marker: at + 1 == load.burst,
            payload_type: payload_type(load.kind),
            sequence: (self.index & 0xFFFF) as u16,
            timestamp: self.timestamp,
            ssrc: ssrc(turn),
        };
        let mut writer = HeaderWriter::begin(&mut out, &header);
        writer.extension(MID, b"0");
        writer.extension(TRANSPORT_CC, &header.sequence.to_be_bytes());
        writer.finish();
        let start = out.len();
        // VP8: start of partition 0 in the first packet; the frame header's low bit is clear in a key frame.
        let first = at == 0;
        out.extend_from_slice(&[if first { 0x10 } else { 0 }, u8::from(!(key_frame && first)), 0, 0]);
        out.extend_from_slice(&sys::wall_ns().to_be_bytes());
        out.resize(start + load.bytes.saturating_sub(OVERHEAD).max(TIME_AT + 8), 0x5A);
        // The roll-over counter follows the index.
        let sealed = self.client.outbound.seal_rtp(&mut out, 0, (self.index >> 16) as u32);
        debug_assert!(sealed.is_ok());
        self.index += 1;
        self.packets += 1;
        out
    }
}

fn start() -> Result<Handle, String> {
    Handle::start(&[([127, 0, 0, 1], 0).into()], 10_000, 7).map_err(|e| e.to_string())
}

fn address(node: &Handle) -> Result<SocketAddr, String> {
    node.addresses().first().copied().ok_or_else(|| "the node has no address".into())
}

fn names(role: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{role}{i}")).collect()
}

fn id(name: &str) -> Id {
    Id::from(name)
}

fn ssrc(publisher: usize) -> u32 {
    1000 + u32::try_from(publisher).unwrap_or(0)
}

fn payload_type(kind: Kind) -> u8 {
    if kind == Kind::Audio { 111 } else { 96 }
}

fn credentials(name: &str) -> Credentials {
    Credentials { ufrag: format!("ufrag{name}"), password: format!("password-of-transport-{name}") }
}

fn create(name: &str, identity: &Identity) -> Command {
    let c = credentials(name);
    Command::CreateTransport(CreateTransport {
        transport_id: id(name),
        participant_id: id(name),
        local_ufrag: c.ufrag,
        local_pwd: c.password,
        remote_fingerprint: identity.fingerprint(),
        data_channels: Vec::new(),
        max_message_size: 0,
    })
}

fn codecs(kind: Kind) -> Vec<CodecMap> {
    let (codec, clock_rate) = if kind == Kind::Audio { (Codec::Opus, 48_000) } else { (Codec::Vp8, 90_000) };
    let payload_type = payload_type(kind);
    let (nack, pli) = (kind == Kind::Video, kind == Kind::Video);
    vec![CodecMap {
        payload_type,
        codec,
        clock_rate,
        apt: 0,
        nack,
        pli,
        transport_cc: true,
        fmtp: String::new(),
    }]
}

fn receive_section(load: &Load, publisher: usize) -> ReceiveSection {
    ReceiveSection {
        mid: "0".into(),
        kind: load.kind,
        track_id: id(&format!("track{publisher}")),
        codecs: codecs(load.kind),
        extensions: vec![
            ExtensionMap { id: MID, extension: Extension::Mid },
            ExtensionMap { id: TRANSPORT_CC, extension: Extension::TransportCc },
        ],
        layers: vec![Layer { rid: String::new(), spatial: 0, ssrc: ssrc(publisher), rtx_ssrc: 0 }],
        muted: false,
    }
}

fn send_section(load: &Load, publisher: usize) -> SendSection {
    SendSection {
        mid: "0".into(),
        kind: load.kind,
        track_id: id(&format!("track{publisher}")),
        ssrc: 50_000 + ssrc(publisher),
        rtx_ssrc: 0,
        codecs: codecs(load.kind),
        extensions: vec![ExtensionMap { id: MID, extension: Extension::Mid }],
        max_spatial: 2,
        paused: false,
    }
}

fn apply(node: &Handle, commands: Vec<Command>) -> Result<(), String> {
    let request = Apply {
        room_id: id("bench"),
        epoch: 1,
        controller_id: id("bench"),
        lease: Duration::from_secs(600),
        commands,
    };
    let results =
        node.apply(request).map_err(|e| e.to_string())?.map_err(|e| format!("stale epoch: {e:?}"))?;
    results.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that is published arrives intact: ICE, DTLS, SRTP, forwarding and, if asked, a relay link.
    fn arrives(relay: bool) {
        let load = Load {
            name: "test",
            publishers: 2,
            subscribers: 3,
            bytes: 600,
            pps: 200,
            burst: 4,
            kind: Kind::Video,
            relay,
        };
        let identity = Identity::new().unwrap();
        let mut room = Room::open(load, &identity, 1).unwrap();
        room.subscribe().unwrap();
        let outcome = room.run(load.pps, Duration::from_millis(1500)).unwrap();
        assert!(outcome.published > 100, "{outcome:?}");
        assert_eq!((outcome.received, outcome.damaged), (outcome.expected, 0), "{}", outcome.drops);
        assert!(!outcome.latency_us.is_empty());
    }

    #[test]
    fn everything_arrives_from_one_node() {
        arrives(false);
    }

    #[test]
    fn everything_arrives_over_a_relay_link() {
        arrives(true);
    }
}
