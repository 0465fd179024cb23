//! Rooms where only the loudest microphones are heard: what listeners get, on one node and over links.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use headwater_engine::api::*;
use headwater_sim::*;
use headwater_wire::rtp::RtpHeader;
use std::collections::{BTreeMap, BTreeSet};

const NOISE: u8 = 70;
const SPEECH: u8 = 30;
/// Samples of a packet, 20 ms at 48 kHz.
const STEP: u32 = 960;
/// SSRC of microphone i at its publisher, and at a listener.
const SSRC: u32 = 100_000;
const SENT: u32 = 200_000;

/// A microphone: `level` None where its packets tell none.
struct Mic {
    client: usize,
    ssrc: u32,
    sequence: u16,
    packets: u32,
    level: Option<u8>,
}

impl Mic {
    fn speak(&mut self, w: &mut World) {
        let header = RtpHeader {
            marker: false,
            payload_type: 111,
            sequence: self.sequence,
            timestamp: self.packets.wrapping_mul(STEP).wrapping_add(self.ssrc),
            ssrc: self.ssrc,
        };
        let mut payload = vec![0; 40];
        payload[..4].copy_from_slice(&self.packets.to_be_bytes());
        let level = self.level.map(|l| [l]);
        let extensions: Vec<(u8, &[u8])> = level.iter().map(|l| (2, &l[..])).collect();
        let packet = w.clients[self.client].rtp(header, &extensions, &payload);
        w.send(self.client, packet);
        self.sequence = self.sequence.wrapping_add(1);
        self.packets += 1;
    }
}

/// A room over `nodes` nodes, each linked with the next one, with microphones and one listener on each.
struct Meeting {
    w: World,
    mics: Vec<Mic>,
    listeners: Vec<usize>,
}

impl Meeting {
    fn new(nodes: usize, mics_each: usize, top: u32) -> Self {
        let mut w = World::with_capacity(nodes, 200);
        w.nodes.iter_mut().for_each(|n| n.audio_top_n = top);
        let mut mics = Vec::new();
        for i in 0..nodes * mics_each {
            let (node, name) = (i % nodes, format!("m{i}"));
            let client = w.client(node, &name);
            w.connect(client);
            let ssrc = SSRC + i as u32;
            w.apply(node, configure_receive(&name, vec![receive("0", &track(i), &[ssrc], Kind::Audio)]));
            mics.push(Mic { client, ssrc, sequence: 65_400, packets: 0, level: Some(NOISE) });
        }
        for pair in 1..nodes {
            link(&mut w, pair - 1, pair);
        }
        for i in 0..mics.len() {
            for node in (0..nodes).filter(|n| *n != i % nodes) {
                let from = if node < i % nodes { node + 1 } else { node };
                let command = Command::AddRemoteTrack {
                    track_id: track(i).into(),
                    kind: Kind::Audio,
                    link_id: format!("L{from}").into(),
                    layers: receive("0", "", &[1], Kind::Audio).layers,
                    voice: true,
                };
                w.apply(node, command);
            }
        }
        let mut meeting = Self { w, mics, listeners: Vec::new() };
        for node in 0..nodes {
            let name = format!("listener{node}");
            let client = meeting.w.client(node, &name);
            meeting.w.connect(client);
            let sections = (0..meeting.mics.len())
                .map(|i| send(&format!("{i}"), &track(i), SENT + i as u32, 0, Kind::Audio))
                .collect();
            meeting.w.apply(node, configure_send(&name, sections));
            meeting.listeners.push(client);
        }
        meeting.w.run(500);
        meeting
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            for mic in &mut self.mics {
                mic.speak(&mut self.w);
            }
            self.w.run(20);
        }
    }

    /// Packets of each microphone that a listener got between two times.
    fn got(&self, listener: usize, from_ms: u64) -> BTreeMap<usize, usize> {
        let mut count = BTreeMap::new();
        for got in self.w.clients[self.listeners[listener]].got.iter().filter(|g| g.at_ms > from_ms) {
            *count.entry((got.header.ssrc - SENT) as usize).or_default() += 1;
        }
        count
    }

    /// No listener sees a hole in a stream's numbers, and its timestamps keep the microphone's time.
    fn assert_seamless(&self) {
        for listener in &self.listeners {
            let mut streams: BTreeMap<u32, Vec<&Got>> = BTreeMap::new();
            for got in &self.w.clients[*listener].got {
                streams.entry(got.header.ssrc).or_default().push(got);
            }
            for (ssrc, got) in streams {
                for pair in got.windows(2) {
                    let [a, b] = [pair[0], pair[1]];
                    assert_eq!(b.header.sequence, a.header.sequence.wrapping_add(1), "stream {ssrc}");
                    let packets = number(b) - number(a);
                    assert_eq!(b.header.timestamp.wrapping_sub(a.header.timestamp), packets * STEP);
                    assert_eq!(b.header.marker, packets > 1, "marked where speech begins");
                }
            }
        }
    }
}

fn track(i: usize) -> String {
    format!("T{i}")
}

fn number(got: &Got) -> u32 {
    u32::from_be_bytes(got.payload[..4].try_into().unwrap())
}

fn link(w: &mut World, a: usize, b: usize) {
    w.link(&format!("L{b}"), a, b, 90 + b as u32);
}

#[test]
fn of_a_hundred_who_send_three_are_forwarded() {
    let mut m = Meeting::new(1, 100, 3);
    for i in [7, 42, 91] {
        m.mics[i].level = Some(SPEECH);
    }
    m.run(1000);
    let from = m.w.ms();
    m.run(1000);
    m.w.run(20);
    assert_eq!(m.got(0, from), BTreeMap::from([(7, 50), (42, 50), (91, 50)]));
    // Another one speaks up: heard from its first word on, and the streams stay three.
    m.mics[42].level = Some(NOISE);
    m.run(400);
    let (from, first) = (m.w.ms(), m.mics[15].packets);
    m.mics[15].level = Some(SPEECH);
    m.run(1000);
    m.w.run(20);
    assert_eq!(m.got(0, from), BTreeMap::from([(7, 50), (15, 50), (91, 50)]));
    let begin = m.w.clients[m.listeners[0]].of_ssrc(SENT + 15).next().unwrap();
    assert_eq!(number(begin), first);
    m.assert_seamless();
    assert_eq!(drops(&m.w.nodes[0], m.w.now).get("nack_unknown"), None);
}

#[test]
fn a_stream_that_comes_and_goes_has_no_seams() {
    let mut m = Meeting::new(1, 4, 2);
    let mut rng = Rng(7);
    for _ in 0..60 {
        for mic in &mut m.mics {
            mic.level = Some(if rng.chance(40) { SPEECH + (rng.draw() % 9) as u8 } else { NOISE });
        }
        m.run(20 * (1 + rng.draw() % 90));
    }
    m.w.run(50);
    let begins = m.w.clients[m.listeners[0]].got.iter().filter(|g| g.header.marker).count();
    assert!(begins > 20, "{begins} times somebody came back");
    m.assert_seamless();
}

#[test]
fn what_is_no_microphone_tells_no_level_or_is_not_limited_always_passes() {
    let mut m = Meeting::new(1, 5, 1);
    let mut screen = receive("0", &track(3), &[SSRC + 3], Kind::Audio);
    screen.voice = false;
    m.w.apply(0, configure_receive("m3", vec![screen]));
    m.mics[0].level = Some(SPEECH);
    m.mics[3].level = Some(127);
    m.mics[4].level = None;
    m.run(100);
    let from = m.w.ms();
    m.run(1000);
    m.w.run(20);
    assert_eq!(m.got(0, from), BTreeMap::from([(0, 50), (3, 50), (4, 50)]));
    m.w.nodes[0].audio_top_n = 0;
    m.w.try_apply(0, vec![]).unwrap();
    let from = m.w.ms();
    m.run(1000);
    m.w.run(20);
    assert_eq!(m.got(0, from), (0..5).map(|i| (i, 50)).collect());
    m.assert_seamless();
}

#[test]
fn a_muted_microphone_gives_its_place_up_at_once() {
    let mut m = Meeting::new(1, 2, 1);
    m.mics[0].level = Some(SPEECH);
    m.run(500);
    let mut muted = receive("0", &track(0), &[SSRC], Kind::Audio);
    muted.muted = true;
    m.w.apply(0, configure_receive("m0", vec![muted]));
    let from = m.w.ms();
    m.run(200);
    m.w.run(20);
    assert_eq!(m.got(0, from), BTreeMap::from([(1, 10)]));
}

#[test]
fn over_links_the_loudest_of_all_nodes_are_heard_everywhere_and_no_other_crosses() {
    let mut m = Meeting::new(3, 4, 2);
    for speakers in [[0, 2], [1, 4], [5, 8], [0, 3], [9, 10]] {
        for (i, mic) in m.mics.iter_mut().enumerate() {
            mic.level = Some(if speakers.contains(&i) { SPEECH } else { NOISE });
        }
        m.run(1500);
        let (from, crossed) = (m.w.ms(), m.w.crossed);
        m.run(1000);
        m.w.run(40);
        for listener in 0..3 {
            assert_eq!(m.got(listener, from), speakers.map(|i| (i, 50)).into(), "listener {listener}");
        }
        // Each of the two crosses two links, and there are pings, reports and demands.
        assert!(m.w.crossed - crossed < 200 + 60, "{}", m.w.crossed - crossed);
    }
    m.assert_seamless();
}

#[test]
fn loss_on_a_link_is_repaired_and_what_was_not_sent_is_not_asked_for() {
    let mut m = Meeting::new(2, 3, 1);
    let mut rng = Rng(3);
    m.w.node_loss = 5;
    for turn in 0..60 {
        for (i, mic) in m.mics.iter_mut().enumerate() {
            mic.level = Some(if i == turn % 6 { SPEECH } else { NOISE });
        }
        m.run(20 * (40 + rng.draw() % 60));
    }
    m.w.node_loss = 0;
    m.run(1000);
    m.w.run(500);
    for listener in &m.listeners {
        let mut streams: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for got in &m.w.clients[*listener].got {
            let numbers = streams.entry(got.header.ssrc).or_default();
            let near = numbers.last().copied().unwrap_or(1 << 20);
            numbers.insert(headwater_wire::seq::extend_near(near, got.header.sequence));
        }
        for (ssrc, numbers) in streams {
            let span = numbers.last().unwrap() - numbers.first().unwrap() + 1;
            let holes = span - numbers.len() as u64;
            assert!(holes * 100 <= span, "stream {ssrc}: {holes} holes of {span}");
        }
    }
}
