//! One seed is one run: layer switches by the thousand, bad networks, hostile packets.
//!
//! `SWITCHES` and `SEEDS` (environment) make the runs longer than what gates.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use headwater_engine::{Path, api::*};
use headwater_sim::{layered::described, *};
use headwater_wire::{codec::dd, rtp::RtpHeader};
use std::collections::BTreeSet;

const SSRC: u32 = 500;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn payload(codec: Codec, frame: u32, key: bool, content: u32) -> Vec<u8> {
    match codec {
        Codec::H264 => {
            let mut p = vec![if key { 0x67 } else { 0x61 }, 0x42, 0, 0, 0, 0, 0, 0];
            p.extend_from_slice(&content.to_be_bytes());
            p
        }
        Codec::Vp9 => {
            let [hi, lo] = (frame as u16 & 0x7FFF).to_be_bytes();
            let mut p = vec![if key { 0x8C } else { 0xCC }, 0x80 | hi, lo, 0, 0, 0, 0, 0];
            p.extend_from_slice(&content.to_be_bytes());
            p
        }
        Codec::Av1 => {
            let mut p =
                if key { vec![0x18, 0x0A, 0, 0, 0, 0, 0, 0] } else { vec![0x10, 0x32, 0, 0, 0, 0, 0, 0] };
            p.extend_from_slice(&content.to_be_bytes());
            p
        }
        _ => vp8(frame as u16 & 0x7FFF, key, content),
    }
}

fn is_key(codec: Codec, payload: &[u8]) -> bool {
    codec.starts_key_frame(payload)
}

/// Errors of a decoder that gets these packets: a frame whose predecessor it does not have. Returns (switches, errors).
fn decode(got: &[Got], codec: Codec) -> (usize, usize) {
    let (mut last, mut switches, mut errors) = (None::<(u32, u16)>, 0, 0);
    // Numbers of frames in dependency descriptors go on over switches; other codecs have none.
    let mut frame = None;
    for g in got {
        let now = content(&g.payload);
        if let Some((before, sequence)) = last {
            let next = g.header.sequence == sequence.wrapping_add(1);
            let key = is_key(codec, &g.payload);
            let switched = now >> 16 != before >> 16;
            switches += usize::from(switched);
            let follows = now == before + 1;
            errors += usize::from(!next || (!follows && !key) || (switched && !key));
            errors += usize::from(dd::frame_number(&g.dependencies) != frame.map(|f: u16| f.wrapping_add(1)));
        } else {
            errors += usize::from(!is_key(codec, &g.payload));
        }
        last = Some((now, g.header.sequence));
        frame = dd::frame_number(&g.dependencies);
    }
    (switches, errors)
}

fn switch_layers(codec: Codec, wanted: u64) {
    let mut w = World::new(1);
    w.rng = Rng(7);
    let (alice, bob) = (w.client(0, "alice"), w.client(0, "bob"));
    w.connect(alice);
    w.connect(bob);
    let maps = |media, rtx| {
        vec![headwater_sim::codec(media, codec, 0), headwater_sim::codec(rtx, Codec::Rtx, media)]
    };
    let mut section = receive("0", "V", &[11, 12, 13], Kind::Video);
    section.codecs = maps(96, 97);
    if codec == Codec::Av1 {
        section.extensions.push(described());
    }
    w.apply(0, configure_receive("alice", vec![section]));
    let mut section = send("5", "V", SSRC, SSRC + 1, Kind::Video);
    section.codecs = maps(120, 121);
    if codec == Codec::Av1 {
        section.extensions.push(described());
    }
    w.apply(0, configure_send("bob", vec![section]));

    let (mut frames, mut max, mut switches) = ([0u32; 3], 2u8, 0u64);
    let mut sequences = [65_000u16, 10, 40_000];
    while switches < wanted {
        // Between the change and its key frame there may be any number of frames, or none.
        max = (max + 1 + (w.rng.draw() % 2) as u8) % 3;
        let command = Command::UpdateSubscription {
            transport_id: "bob".into(),
            track_id: "V".into(),
            max_spatial: max,
            paused: false,
            priority: 0,
        };
        w.apply(0, command);
        switches += 1;
        for _ in 0..4 + w.rng.draw() % 30 {
            for (i, ssrc) in (11u32..14).enumerate() {
                let asked = w.clients[alice].pli.iter().any(|(_, s)| *s == ssrc);
                w.clients[alice].pli.retain(|(_, s)| *s != ssrc);
                let key = frames[i] == 0 || asked;
                let header = RtpHeader {
                    marker: true,
                    payload_type: 96,
                    sequence: sequences[i],
                    timestamp: frames[i] * 3000 + ssrc * 999,
                    ssrc,
                };
                let body = payload(codec, frames[i], key, ssrc << 16 | frames[i] & 0xFFFF);
                // One frame after another of the only template; each stream counts from somewhere else.
                let [high, low] = (frames[i] as u16).wrapping_add([60_000, 9, 30_000][i]).to_be_bytes();
                let descriptor = [0xC0, high, low];
                let described = [(DEPENDENCIES, &descriptor[..])];
                let extensions = if codec == Codec::Av1 { &described[..] } else { &[] };
                let packet = w.clients[alice].rtp(header, extensions, &body);
                w.send(alice, packet);
                sequences[i] = sequences[i].wrapping_add(1);
                frames[i] += 1;
            }
            w.run(33);
        }
    }
    let got: Vec<Got> = w.clients[bob].of_ssrc(SSRC).cloned().collect();
    let (seen, errors) = decode(&got, codec);
    println!("{codec:?}: {seen} switches seen, {errors} errors, {} frames", got.len());
    assert_eq!(errors, 0);
    assert!(seen as u64 * 3 > wanted, "{seen} of {wanted} switches took effect before the next");
}

#[test]
fn a_switch_of_vp8_never_shows_a_broken_frame() {
    switch_layers(Codec::Vp8, number("SWITCHES", 1000));
}

#[test]
fn a_switch_of_h264_never_shows_a_broken_frame() {
    switch_layers(Codec::H264, number("SWITCHES", 1000));
}

#[test]
fn a_switch_of_vp9_never_shows_a_broken_frame() {
    switch_layers(Codec::Vp9, number("SWITCHES", 1000));
}

#[test]
fn a_switch_of_av1_never_shows_a_broken_frame() {
    switch_layers(Codec::Av1, number("SWITCHES", 1000));
}

#[test]
fn bad_networks_cost_little_and_break_nothing() {
    for seed in 0..number("SEEDS", 2) {
        for (loss, jitter_ms, duplicate, burst, least) in
            [(1, 5, 1, 0, 99), (5, 20, 2, 0, 98), (20, 0, 0, 0, 85), (0, 0, 0, 8, 98), (0, 60, 10, 0, 99)]
        {
            let mut w = World::new(1);
            let (alice, bob) = (w.client(0, "alice"), w.client(0, "bob"));
            w.connect(alice);
            w.connect(bob);
            w.apply(0, configure_receive("alice", vec![receive("0", "V", &[11], Kind::Video)]));
            w.apply(0, configure_send("bob", vec![send_with_cc("5", "V", SSRC, SSRC + 1, Kind::Video)]));
            let mut camera = Camera::new(11, 65_400);
            w.rng = Rng(seed);
            let mut film = |w: &mut World, count: usize| {
                for _ in 0..count {
                    let asked = !w.clients[alice].pli.is_empty();
                    w.clients[alice].pli.clear();
                    camera.frame(w, alice, camera.frames == 0 || asked);
                    w.run(33);
                }
            };
            film(&mut w, 5);
            (w.client_loss, w.jitter_ms, w.duplicate, w.burst) = (loss, jitter_ms, duplicate, burst);
            film(&mut w, 300);
            (w.client_loss, w.jitter_ms, w.duplicate, w.burst) = (0, 0, 0, 0);
            film(&mut w, 10);
            w.run(500);
            let mut seen: BTreeSet<u32> = w.clients[bob].of_ssrc(SSRC).map(|g| content(&g.payload)).collect();
            let again = w.clients[bob].of_ssrc(SSRC + 1).filter(|g| g.payload.len() > 14);
            seen.extend(again.map(|g| content(&g.payload[2..])));
            let share = seen.len() * 100 / 315;
            println!("seed {seed} loss {loss} jitter {jitter_ms} dup {duplicate} burst {burst}: {share} %");
            assert!(share >= least, "seed {seed}, loss {loss}: {share} % of the frames");
            let drops = drops(&w.nodes[0], w.now);
            assert!(!drops.contains_key("srtp_auth") && !drops.contains_key("panic"), "{drops:?}");
        }
    }
}

#[test]
fn a_replayed_packet_is_forwarded_once() {
    let mut w = World::new(1);
    let (alice, bob) = (w.client(0, "alice"), w.client(0, "bob"));
    w.connect(alice);
    w.connect(bob);
    w.apply(0, configure_receive("alice", vec![receive("0", "V", &[11], Kind::Video)]));
    w.apply(0, configure_send("bob", vec![send("5", "V", SSRC, 0, Kind::Video)]));
    let header = RtpHeader { marker: true, payload_type: 96, sequence: 5, timestamp: 9, ssrc: 11 };
    let packet = w.clients[alice].rtp(header, &[], &vp8(1, true, 1));
    let from = w.clients[alice].addr;
    for _ in 0..1000 {
        let n = &mut w.nodes[0];
        let path = Path { socket: 0, peer: from };
        n.engine.handle_datagram(w.now, w.now, path, &mut packet.clone(), &mut n.out);
    }
    w.run(50);
    assert_eq!(w.clients[bob].got.len(), 1);
    assert_eq!(drops(&w.nodes[0], w.now).get("srtp_replay"), Some(&999));
}

#[test]
fn strangers_get_no_more_bytes_than_they_send() {
    let mut w = World::new(1);
    let alice = w.client(0, "alice");
    let stranger = addr(9998);
    let hello: Vec<u8> = std::iter::repeat_n(0x16, 200).collect();
    let mut sent = 0;
    let kinds: [Vec<u8>; 5] = [hello, vec![0; 20], vec![0x80; 100], vec![0x61; 60], vec![0xFF; 1200]];
    // The engine has the transport, but nobody has passed its connectivity check yet.
    for round in 0..2_000usize {
        let mut datagram = kinds[round % kinds.len()].clone();
        sent += datagram.len();
        let n = &mut w.nodes[0];
        let path = Path { socket: 0, peer: stranger };
        n.engine.handle_datagram(w.now, w.now, path, &mut datagram, &mut n.out);
    }
    let answered: usize =
        w.nodes[0].out.datagrams().filter(|(p, _)| p.peer == stranger).map(|(_, d)| d.len()).sum();
    assert!(answered <= sent, "{answered} bytes for {sent}");
    assert_eq!(answered, 0, "none of these was a question");
    w.connect(alice);
}

#[test]
fn a_client_hello_from_elsewhere_does_not_take_the_transport() {
    let mut w = World::new(1);
    // Mallory knows the node's address and is quicker, but not the ICE password.
    let alice = w.client(0, "alice");
    let mallory = w.client(0, "mallory");
    let hello = w.clients[mallory].client_hello(w.now);
    assert!(!hello.is_empty());
    for datagram in hello {
        let n = &mut w.nodes[0];
        let path = Path { socket: 0, peer: addr(9997) };
        n.engine.handle_datagram(w.now, w.now, path, &mut datagram.clone(), &mut n.out);
    }
    assert!(w.nodes[0].out.datagrams().all(|(p, _)| p.peer != addr(9997)));
    assert_eq!(drops(&w.nodes[0], w.now).get("unknown_path").copied().unwrap_or(0), 1);
    w.connect(alice);
    assert_eq!(w.nodes[0].states("alice"), [TransportState::Connected]);
}
