//! The other side: publishers and subscribers on core 1, driven by lines on standard input.

use crate::{
    client::{Client, Credentials, Identity, credentials},
    floor,
    load::{self, Load, MID, Stream, TRANSPORT_CC, client, payload_type},
    sys,
};
use headwater_engine::api::Kind;
use headwater_wire::{
    rtcp,
    rtp::{HeaderWriter, RtpHeader, RtpView},
};
use std::{
    io::BufRead,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Bytes that a forwarded packet has besides its payload: header, MID extension, GCM tag.
const OVERHEAD: usize = 12 + 8 + 16;
/// Where the send time stands in a payload: behind the VP8 descriptor and frame header.
const TIME_AT: usize = 4;
/// One packet in this many is decrypted by its receiver, for the latency and as proof that it is intact.
const SAMPLE: u16 = 16;
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const COLLECT_EVERY: Duration = Duration::from_millis(1);
/// Nothing came for this long: all that was sent has arrived or is lost.
const QUIET: Duration = Duration::from_millis(300);
/// … but it is not waited for longer than this.
const MAX_DRAIN: Duration = Duration::from_secs(10);
/// A pause of this process longer than this is not made up for by sending faster.
const PAUSE: Duration = Duration::from_millis(50);

/// What came of one run, as this side saw it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub published: u64,
    pub expected: u64,
    pub received: u64,
    pub damaged: u64,
    pub latency_us: Vec<f64>,
}

impl Outcome {
    fn percentile(&self, share: f64) -> f64 {
        let last = self.latency_us.len().saturating_sub(1);
        self.latency_us.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
    }
}

struct Publisher {
    client: Client,
    stream: Stream,
    ssrc: u32,
    fan_out: u64,
    index: u64,
    timestamp: u32,
    /// Its frames' place in the time between two frames, 0 to 1.
    phase: f64,
    next: Instant,
}

/// Everybody of a load.
pub struct Crowd {
    load: Load,
    publishers: Vec<Publisher>,
    subscribers: Vec<Client>,
    receiver: sys::Receiver,
    keep_alive: Instant,
}

/// Entry of the child process: answers each line with one line, until standard input ends.
pub fn serve(load: Load, cores: usize) -> Result<(), String> {
    if cores > 1 {
        sys::pin(1);
    }
    let identity = Identity::new()?;
    say(&identity.fingerprint());
    let mut lines = std::io::stdin().lock().lines();
    let mut crowd: Option<Crowd> = None;
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let parse = |i: usize| -> Result<u64, String> {
            words.get(i).and_then(|w| w.parse().ok()).ok_or_else(|| format!("bad line: {line}"))
        };
        match (words.first().copied(), &mut crowd) {
            (Some("connect"), _) => {
                let to = |i: usize| words.get(i).and_then(|w| w.parse().ok()).ok_or("no address");
                crowd = Some(Crowd::connect(load, to(1)?, to(2)?, &identity)?);
                say("connected");
            }
            // One at a time, to a server that has its own idea of credentials: publishers first, room by room.
            (Some("join"), crowd) => {
                let word = |i: usize| words.get(i).copied().ok_or_else(|| format!("bad line: {line}"));
                let server = word(1)?.parse().map_err(|_| format!("bad line: {line}"))?;
                let to = Credentials { ufrag: word(2)?.into(), password: word(3)?.into() };
                crowd.get_or_insert_with(|| Crowd::new(load)).join(server, &to, &identity)?;
                say("joined");
            }
            (Some("run"), Some(crowd)) => {
                let o = crowd.run(parse(1)? as f64 / 1000.0, Duration::from_millis(parse(2)?));
                let p = [0.5, 0.99, 1.0].map(|s| format!("{:.1}", o.percentile(s))).join(" ");
                let profile = crowd.subscribers.first().map_or("", |c| c.profile.name());
                let counts =
                    [o.published, o.expected, o.received, o.damaged].map(|n| n.to_string()).join(" ");
                say(&format!("{counts} {p} {profile}"));
            }
            (Some("floor"), Some(crowd)) => {
                let (bytes, segments) = (parse(1)? as usize, parse(2)? as usize);
                let [closed, paced] = floor::measure(crowd, bytes, segments, parse(3)? as f64, cores)?;
                say(&format!("{closed} {paced}"));
            }
            _ => return Err(format!("bad line: {line}")),
        }
    }
    Ok(())
}

fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout();
    // A parent that went away ends the input as well.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

impl Crowd {
    fn connect(
        load: Load,
        server: SocketAddr,
        edge: SocketAddr,
        identity: &Identity,
    ) -> Result<Self, String> {
        let mut crowd = Self::new(load);
        for room in 0..load.rooms {
            for i in 0..load.publishers() {
                crowd.join(server, &credentials(&client("pub", room, i)), identity)?;
            }
        }
        for room in 0..load.rooms {
            for i in 0..load.subscribers {
                crowd.join(edge, &credentials(&client("sub", room, i)), identity)?;
            }
        }
        Ok(crowd)
    }

    fn new(load: Load) -> Self {
        let (receiver, keep_alive) = (sys::Receiver::new(), Instant::now());
        Self { load, publishers: Vec::new(), subscribers: Vec::new(), receiver, keep_alive }
    }

    /// The next one: all publishers first, then all subscribers.
    fn join(&mut self, server: SocketAddr, to: &Credentials, identity: &Identity) -> Result<(), String> {
        let client = Client::connect(server, to, identity)?;
        let (at, in_room) = (self.publishers.len(), self.load.publishers());
        if at == in_room * self.load.rooms {
            self.subscribers.push(client);
            return Ok(());
        }
        let stream = self.load.each().nth(at % in_room).ok_or("a load without publishers")?;
        self.publishers.push(Publisher {
            client,
            stream,
            ssrc: load::ssrc(at % in_room),
            fan_out: self.load.fan_out() as u64,
            index: 0,
            timestamp: 0,
            phase: phase(at),
            next: Instant::now(),
        });
        Ok(())
    }

    /// Addresses of the subscribers' sockets, for the kernel's floor.
    pub fn subscribers(&self) -> Vec<SocketAddr> {
        self.subscribers.iter().filter_map(|c| c.socket.local_addr().ok()).collect()
    }

    /// Subscribers that get each packet.
    pub fn fan_out(&self) -> usize {
        self.load.fan_out()
    }

    /// Throws away what waits in the subscribers' sockets.
    pub fn discard(&mut self) {
        for client in &self.subscribers {
            while self.receiver.receive(&client.socket, |_, _| {}) > 0 {}
        }
    }

    /// Sends at `scale` times the load's rates for `time`. Ends when all of it has come that ever will: what is still
    /// on its way would be counted in the next run, which could then have received more than was sent in it.
    fn run(&mut self, scale: f64, time: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        self.send_for(scale, time, &mut outcome);
        self.drain(&mut outcome);
        outcome.latency_us.sort_by(f64::total_cmp);
        outcome
    }

    fn send_for(&mut self, scale: f64, time: Duration, outcome: &mut Outcome) {
        let start = Instant::now();
        let every = |s: Stream| Duration::from_secs_f64(f64::from(s.burst) / f64::from(s.pps) / scale);
        for p in &mut self.publishers {
            p.next = start + every(p.stream).mul_f64(p.phase);
        }
        while start.elapsed() < time {
            let mut soonest = Instant::now() + COLLECT_EVERY;
            for p in &mut self.publishers {
                let now = Instant::now();
                if now >= p.next {
                    let sent = p.send_frame();
                    outcome.published += sent;
                    outcome.expected += sent * p.fan_out;
                    p.next += every(p.stream);
                    if p.next + PAUSE < now {
                        p.next = now;
                    }
                }
                soonest = soonest.min(p.next);
            }
            if Instant::now() >= self.keep_alive {
                self.keep_alive = Instant::now() + KEEP_ALIVE;
                self.keep_alive();
            }
            self.collect(soonest.saturating_duration_since(Instant::now()), outcome);
        }
    }

    /// Consent, and a receiver report of each subscriber, once a second as clients do.
    fn keep_alive(&mut self) {
        self.publishers.iter_mut().for_each(|p| p.client.keep_alive());
        let blocks: Vec<rtcp::ReportBlock> = (0..self.load.publishers().min(31))
            .map(|i| rtcp::ReportBlock {
                ssrc: 50_000 + load::ssrc(i),
                fraction_lost: 0,
                cumulative_lost: 0,
                highest_sequence: 0,
                jitter: 0,
                last_sr: 0,
                delay_since_last_sr: 0,
            })
            .collect();
        for client in &mut self.subscribers {
            client.keep_alive();
            let mut report = Vec::new();
            rtcp::push_receiver_report(&mut report, 1, &blocks);
            client.send_rtcp(report);
        }
    }

    fn drain(&mut self, outcome: &mut Outcome) {
        let start = Instant::now();
        let mut last = start;
        while last.elapsed() < QUIET && start.elapsed() < MAX_DRAIN {
            let before = outcome.received;
            self.collect(COLLECT_EVERY, outcome);
            if outcome.received > before {
                last = Instant::now();
            }
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

/// Of that publisher: the same in each run (splitmix64).
fn phase(at: usize) -> f64 {
    let state = (at as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(7);
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z >> 11) as f64 / (1u64 << 53) as f64
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
    /// One frame; returns its packets.
    fn send_frame(&mut self) -> u64 {
        let ticks = if self.stream.kind == Kind::Audio { 960 } else { 3000 };
        self.timestamp = self.timestamp.wrapping_add(ticks);
        let key_frame = self.index % 300 < u64::from(self.stream.burst);
        // Encrypted first, then sent: a client's network card sends faster than its processor encrypts.
        let packets: Vec<Vec<u8>> = (0..self.stream.burst).map(|i| self.packet(i, key_frame)).collect();
        packets.iter().map(|p| u64::from(self.client.send(p))).sum()
    }

    fn packet(&mut self, at: u32, key_frame: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(1500);
        let header = RtpHeader {
            marker: at + 1 == self.stream.burst,
            payload_type: payload_type(self.stream.kind),
            sequence: (self.index & 0xFFFF) as u16,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
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
        out.resize(start + self.stream.bytes.saturating_sub(OVERHEAD).max(TIME_AT + 8), 0x5A);
        // The roll-over counter follows the index.
        let sealed = self.client.outbound.seal_rtp(&mut out, 0, (self.index >> 16) as u32);
        debug_assert!(sealed.is_ok());
        self.index += 1;
        out
    }
}
