//! Opus with copies of earlier frames (RFC 2198): what listeners get who take it, and those who do not.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use headwater_engine::api::*;
use headwater_sim::*;
use headwater_wire::{
    red::{Red, relabel},
    rtp::RtpHeader,
};
use std::collections::BTreeSet;

const SSRC: u32 = 100_000;
/// At a listener.
const SENT: u32 = 200_000;
/// Samples of a packet, 20 ms at 48 kHz.
const STEP: u32 = 960;
/// Numbers of RED and of Opus at the publisher; those of a listener are others.
const RED: u8 = 63;
const OPUS: u8 = 111;
const THEIR_RED: u8 = 102;
const THEIR_OPUS: u8 = 101;

/// The frame with this number, as the encoder made it.
fn frame(number: u32) -> Vec<u8> {
    let mut frame = vec![number as u8; 30 + (number % 7) as usize];
    frame[..4].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[..4].try_into().unwrap())
}

/// A frame with copies of so many before it.
fn redundant(number: u32, copies: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    let earlier = number.saturating_sub(copies)..number;
    for n in earlier.clone() {
        let bits = ((number - n) * STEP) << 10 | frame(n).len() as u32;
        payload.extend_from_slice(&(u32::from(0x80 | OPUS) << 24 | bits).to_be_bytes());
    }
    payload.push(OPUS);
    earlier.for_each(|n| payload.extend_from_slice(&frame(n)));
    payload.extend_from_slice(&frame(number));
    payload
}

/// A microphone, one listener who takes redundancy and one who does not, each on a node that may be the same.
struct Talk {
    w: World,
    publisher: usize,
    redundant: usize,
    plain: usize,
    copies: u32,
    sent: u32,
    level: u8,
}

impl Talk {
    fn new(nodes: usize, copies: u32, repair: bool) -> Self {
        let mut w = World::new(nodes);
        let publisher = w.client(0, "pub");
        w.connect(publisher);
        let mut section = receive("0", "T", &[SSRC], Kind::Audio);
        section.codecs.push(codec(RED, Codec::Red, OPUS));
        section.codecs.iter_mut().for_each(|c| c.nack = repair);
        w.apply(0, configure_receive("pub", vec![section]));
        if nodes > 1 {
            link(&mut w);
        }
        let listeners = ["redundant", "plain"].map(|name| {
            let listener = w.client(nodes - 1, name);
            w.connect(listener);
            w.clients[listener].repair = repair;
            let mut section = send_with_cc("0", "T", SENT, 0, Kind::Audio);
            if name == "redundant" {
                section.codecs.push(codec(THEIR_RED, Codec::Red, THEIR_OPUS));
            }
            w.apply(nodes - 1, configure_send(name, vec![section]));
            listener
        });
        w.run(700);
        let [redundant, plain] = listeners;
        Self { w, publisher, redundant, plain, copies, sent: 0, level: 30 }
    }

    fn say(&mut self, payload: &[u8], payload_type: u8, is_lost: bool) {
        let header = RtpHeader {
            marker: false,
            payload_type,
            sequence: 65_500u16.wrapping_add(self.sent as u16),
            timestamp: self.sent.wrapping_mul(STEP),
            ssrc: SSRC,
        };
        let level = [self.level];
        let packet = self.w.clients[self.publisher].rtp(header, &[(2, &level)], payload);
        if !is_lost {
            self.w.send(self.publisher, packet);
        }
        self.sent += 1;
        self.w.run(20);
    }

    fn frame(&mut self, is_lost: bool) {
        self.say(&redundant(self.sent, self.copies), RED, is_lost);
    }

    fn got(&self, listener: usize) -> Vec<&Got> {
        self.w.clients[listener].of_ssrc(SENT).collect()
    }

    /// Frames that the listener who takes redundancy could decode, in its packets or in later ones.
    fn decodable(&self) -> BTreeSet<u32> {
        let mut all = BTreeSet::new();
        for got in self.got(self.redundant) {
            if got.header.payload_type == THEIR_OPUS {
                all.insert(number(&got.payload));
                continue;
            }
            let red = Red::parse(&got.payload).expect("well-formed");
            all.insert(number(red.primary));
            all.extend(red.earlier().map(|e| number(e.payload)));
        }
        all
    }

    fn plain_frames(&self) -> BTreeSet<u32> {
        self.got(self.plain).iter().map(|g| number(&g.payload)).collect()
    }
}

fn link(w: &mut World) {
    w.link("L", 0, 1, 7);
    let track = Command::AddRemoteTrack {
        track_id: "T".into(),
        kind: Kind::Audio,
        link_id: "L".into(),
        layers: receive("0", "", &[1], Kind::Audio).layers,
        voice: true,
    };
    w.apply(1, track);
}

#[test]
fn one_listener_gets_the_packets_as_they_are_and_the_other_their_frames_to_the_bit() {
    for nodes in [1, 2] {
        let mut talk = Talk::new(nodes, 1, true);
        (0..200).for_each(|_| talk.frame(false));
        for (listener, payload_type) in [(talk.redundant, THEIR_RED), (talk.plain, THEIR_OPUS)] {
            let got = talk.got(listener);
            assert!(got.len() >= 199, "{nodes} nodes: {} packets", got.len());
            for (n, got) in (200 - got.len() as u32..).zip(got.iter()) {
                let mut expected = redundant(n, 1);
                relabel(&mut expected, THEIR_OPUS);
                let expected = if payload_type == THEIR_RED { expected } else { frame(n) };
                assert_eq!((&got.payload, got.header.payload_type), (&expected, payload_type), "frame {n}");
            }
            for pair in got.windows(2) {
                assert_eq!(pair[1].header.sequence, pair[0].header.sequence.wrapping_add(1));
                assert_eq!(pair[1].header.timestamp, pair[0].header.timestamp.wrapping_add(STEP));
            }
        }
        let mut codecs = talk.w.nodes[0].events.iter().filter_map(|e| match &e.kind {
            EventKind::Track { codec, .. } => *codec,
            _ => None,
        });
        assert!(codecs.all(|c| c == Codec::Opus), "what is within is told");
    }
}

#[test]
fn copies_make_the_gaps_of_a_lossy_path_smaller() {
    for seed in 0..5 {
        let mut talk = Talk::new(1, 1, false);
        (talk.w.rng, talk.w.client_loss) = (Rng(seed), 5);
        (0..1000).for_each(|_| talk.frame(false));
        let (with, without) = (1000 - talk.decodable().len(), 1000 - talk.plain_frames().len());
        assert!(
            without > 20,
            "seed {seed}: {without} of 1000 frames are lost on the way to the plain listener"
        );
        assert!(with * 4 < without, "seed {seed}: {with} frames lost with copies, {without} without");
    }
}

#[test]
fn lost_packets_are_asked_for_again_and_are_the_same_to_the_bit() {
    let mut talk = Talk::new(2, 1, true);
    (talk.w.client_loss, talk.w.node_loss) = (5, 5);
    (0..500).for_each(|_| talk.frame(false));
    talk.w.client_loss = 0;
    talk.w.run(500);
    assert!(talk.w.clients[talk.plain].nacks == 0 && talk.plain_frames().len() >= 495);
    for (listener, payload_type) in [(talk.redundant, THEIR_RED), (talk.plain, THEIR_OPUS)] {
        for got in talk.got(listener) {
            if got.header.payload_type == THEIR_RED {
                assert_eq!(Red::parse(&got.payload).unwrap().payload_type, payload_type - 1);
            } else {
                assert_eq!(got.payload, frame(number(&got.payload)));
            }
        }
    }
}

#[test]
fn what_the_uplink_lost_is_put_back_from_the_next_packet() {
    for copies in [1, 2] {
        let mut talk = Talk::new(2, copies, false);
        for n in 0..100 {
            talk.frame(n % 10 == 5 || (copies == 2 && n % 10 == 4));
        }
        assert_eq!(talk.plain_frames().len(), 100, "{copies} copies");
        assert_eq!(talk.decodable().len(), 100, "{copies} copies");
        for listener in [talk.redundant, talk.plain] {
            for (n, got) in (0..).zip(talk.got(listener)) {
                let own = match got.header.payload_type {
                    THEIR_RED => number(Red::parse(&got.payload).unwrap().primary),
                    _ => number(&got.payload),
                };
                assert_eq!(own, n, "in order");
                assert_eq!(got.header.timestamp, talk.got(listener)[0].header.timestamp + n * STEP);
            }
        }
        let codecs = talk.w.nodes[1].events.iter().filter(|e| matches!(e.kind, EventKind::Track { .. }));
        assert!(codecs.count() < 5, "plain packets among redundant ones are no news");
    }
    let mut talk = Talk::new(1, 1, false);
    (0..100).for_each(|n| talk.frame(matches!(n % 10, 4 | 5)));
    assert_eq!(talk.plain_frames().len(), 90, "of two in a row the second");
}

#[test]
fn a_microphone_that_is_not_heard_is_not_heard_by_its_copies() {
    let mut talk = Talk::new(1, 1, false);
    talk.w.nodes[0].audio_top_n = 1;
    let loud = talk.w.client(0, "loud");
    talk.w.connect(loud);
    talk.w.apply(0, configure_receive("loud", vec![receive("0", "L", &[SSRC + 1], Kind::Audio)]));
    talk.level = 70;
    for n in 0..100u16 {
        let header = RtpHeader {
            marker: false,
            payload_type: OPUS,
            sequence: n,
            timestamp: u32::from(n) * STEP,
            ssrc: SSRC + 1,
        };
        let packet = talk.w.clients[loud].rtp(header, &[(2, &[20])], &[1; 20]);
        talk.w.send(loud, packet);
        talk.frame(n % 5 == 4);
    }
    assert!(talk.got(talk.plain).len() <= 1, "{:?}", talk.got(talk.plain));
}

#[test]
fn padding_between_redundant_packets_leaves_no_hole() {
    for nodes in [1, 2] {
        let mut talk = Talk::new(nodes, 1, false);
        for n in 0..60 {
            if n % 5 == 3 {
                talk.say(&[], RED, false);
            } else {
                talk.frame(false);
            }
        }
        for listener in [talk.redundant, talk.plain] {
            let got = talk.got(listener);
            assert!((47..=48).contains(&got.len()), "{nodes} nodes: {} packets", got.len());
            for pair in got.windows(2) {
                assert_eq!(pair[1].header.sequence, pair[0].header.sequence.wrapping_add(1));
                assert!(pair[1].header.timestamp > pair[0].header.timestamp, "no frame twice");
            }
        }
        assert!(!drops(&talk.w.nodes[0], talk.w.now).contains_key("red_malformed"));
    }
}

#[test]
fn malformed_redundancy_is_dropped_and_counted() {
    let mut talk = Talk::new(1, 1, false);
    talk.frame(false);
    let good = redundant(1, 1);
    let mut foreign = good.clone();
    foreign[0] = 0x80 | 13;
    let empty = &good[..5 + frame(0).len()];
    let endless = [0xEF, 0, 0, 0].repeat(20);
    let bad = [&good[..20], &foreign, empty, &endless, &[OPUS]];
    for payload in bad {
        talk.say(payload, RED, false);
    }
    talk.frame(false);
    let plain: Vec<u32> = talk.got(talk.plain).iter().map(|g| number(&g.payload)).collect();
    assert_eq!(plain, [0, 5, 6], "the last has a copy of the one before it, which was none");
    let count = drops(&talk.w.nodes[0], talk.w.now)["red_malformed"];
    assert_eq!(count, bad.len() as u64);
}
