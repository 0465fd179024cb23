//! One stream with several layers: each subscriber gets those that it can have, and can decode all that it gets.
//!
//! `SWITCHES` (environment) makes the runs longer than what gates.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use headwater_engine::api::*;
use headwater_sim::{
    layered::{Decoder, Layered, Truth},
    *,
};

const SSRC: u32 = 500;
const RTX: u32 = 501;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Alice publishes, Bob subscribes.
fn world(codec: Codec, rtx: u32, with_cc: bool) -> (World, Layered, [usize; 2]) {
    let mut w = World::new(1);
    let (alice, bob) = (w.client(0, "alice"), w.client(0, "bob"));
    w.connect(alice);
    w.connect(bob);
    let camera = Layered::new(codec, 11);
    w.apply(0, configure_receive("alice", vec![camera.section()]));
    let section = if with_cc { send_with_cc } else { send };
    w.apply(0, configure_send("bob", vec![camera.wanted(section("5", "V", SSRC, rtx, Kind::Video))]));
    (w, camera, [alice, bob])
}

fn want(w: &mut World, node: usize, who: &str, max_spatial: u8) {
    let command = Command::UpdateSubscription {
        transport_id: who.into(),
        track_id: "V".into(),
        max_spatial,
        paused: false,
        priority: 0,
    };
    w.apply(node, command);
}

fn film(w: &mut World, camera: &mut Layered, alice: usize, count: u64) {
    for _ in 0..count {
        camera.picture(w, alice);
        w.run(33);
    }
}

fn switch_layers(codec: Codec, wanted: u64) {
    let (mut w, mut camera, [alice, bob]) = world(codec, RTX, false);
    w.rng = Rng(7);
    let mut max = 2u8;
    for _ in 0..wanted {
        max = (max + 1 + (w.rng.draw() % 2) as u8) % 3;
        want(&mut w, 0, "bob", max);
        let count = 4 + w.rng.draw() % 30;
        film(&mut w, &mut camera, alice, count);
    }
    let decoder = Decoder::all(w.clients[bob].of_ssrc(SSRC));
    let seen = decoder.switches();
    println!("{codec:?}: {seen} switches seen in {} pictures", decoder.shown.len());
    let described = w.clients[bob].of_ssrc(SSRC).filter(|g| !g.dependencies.is_empty()).count();
    assert_eq!(described > 0, codec == Codec::Av1, "each goes through what a client gets");
    assert!(decoder.errors.is_empty(), "{:?}", &decoder.errors[..decoder.errors.len().min(5)]);
    assert_eq!(decoder.silent(), 0);
    assert!(decoder.rates.contains(&2), "whole frame rate");
    assert!(seen as u64 * 3 > wanted, "{seen} of {wanted} switches took effect before the next");
    assert_eq!(w.nodes[0].engine.report(w.now, &w.nodes[0].out).drops.get("panic"), None);
}

#[test]
fn a_switch_of_a_vp9_layer_never_shows_a_broken_frame() {
    switch_layers(Codec::Vp9, number("SWITCHES", 1000));
}

#[test]
fn a_switch_of_an_av1_layer_never_shows_a_broken_frame() {
    switch_layers(Codec::Av1, number("SWITCHES", 1000));
}

#[test]
fn av1_without_descriptors_is_the_lowest_layer_alone() {
    let (mut w, mut camera, [alice, bob]) = world(Codec::Av1, RTX, true);
    let carol = w.client(0, "carol");
    w.connect(carol);
    let mut section = camera.wanted(send_with_cc("5", "V", SSRC, RTX, Kind::Video));
    section.extensions.retain(|e| e.extension != Extension::DependencyDescriptor);
    w.apply(0, configure_send("carol", vec![section]));
    film(&mut w, &mut camera, alice, 90);
    let decode = |client: usize| Decoder::all(w.clients[client].of_ssrc(SSRC));
    let (with, without) = (decode(bob), decode(carol));
    assert!(with.errors.is_empty() && without.errors.is_empty(), "{:?} {:?}", with.errors, without.errors);
    assert!(with.shown.len() > 80 && with.shown.ends_with(&[2; 50]), "{:?}", with.shown);
    assert!(without.shown.len() > 80 && without.shown.iter().all(|l| *l == 0), "{:?}", without.shown);
    assert!(w.clients[carol].got.iter().all(|g| g.dependencies.is_empty()));
}

#[test]
fn each_subscriber_gets_its_own_layer_and_is_told() {
    for codec in [Codec::Vp9, Codec::Av1] {
        let (mut w, mut camera, [alice, bob]) = world(codec, RTX, false);
        let carol = w.client(0, "carol");
        w.connect(carol);
        let mut section = camera.wanted(send("5", "V", SSRC, 0, Kind::Video));
        section.max_spatial = 0;
        w.apply(0, configure_send("carol", vec![section]));
        film(&mut w, &mut camera, alice, 60);
        want(&mut w, 0, "bob", 1);
        film(&mut w, &mut camera, alice, 60);
        let layers = |w: &World, client: usize| {
            let decoder = Decoder::all(w.clients[client].of_ssrc(SSRC));
            assert!(decoder.errors.is_empty(), "{codec:?}: {:?}", decoder.errors);
            decoder.shown
        };
        let bobs = layers(&w, bob);
        assert!(bobs.len() > 115 && bobs[..50].iter().all(|l| *l == 2), "{codec:?} {bobs:?}");
        assert!(bobs[62..].iter().all(|l| *l == 1), "{codec:?} {bobs:?}");
        let carols = layers(&w, carol);
        assert!(carols.len() > 115 && carols[1..].iter().all(|l| *l == 0), "{codec:?} {carols:?}");
        let told: Vec<i32> = w.nodes[0]
            .events
            .iter()
            .filter_map(|e| match &e.kind {
                EventKind::Subscription { transport_id, current_spatial, .. } if &**transport_id == "bob" => {
                    Some(*current_spatial)
                }
                _ => None,
            })
            .collect();
        assert!(told.ends_with(&[2, 1]), "{told:?}");
        assert!(w.clients[alice].pli.is_empty(), "nobody waits for a key frame");
    }
}

#[test]
fn what_is_lost_and_comes_late_goes_by_the_layers_of_its_time() {
    for (codec, rtx) in [(Codec::Vp9, RTX), (Codec::Vp9, 0), (Codec::Av1, RTX)] {
        let (mut w, mut camera, [alice, bob]) = world(codec, rtx, false);
        want(&mut w, 0, "bob", 0);
        film(&mut w, &mut camera, alice, 30);
        (w.client_loss, w.jitter_ms, w.duplicate) = (5, 20, 2);
        let before = w.clients[bob].got.len();
        film(&mut w, &mut camera, alice, 200);
        (w.client_loss, w.jitter_ms, w.duplicate) = (0, 0, 0);
        film(&mut w, &mut camera, alice, 10);
        w.run(500);
        let got = &w.clients[bob].got[before..];
        // Lost on the way from Alice: those of layers that Bob does not get must not look like his own losses.
        let repaired = |g: &Got| u16::from_be_bytes([g.payload[0], g.payload[1]]);
        let mut numbers: Vec<u16> =
            got.iter().filter(|g| g.header.ssrc == SSRC).map(|g| g.header.sequence).collect();
        numbers.extend(got.iter().filter(|g| g.header.ssrc == RTX && g.payload.len() > 2).map(repaired));
        let first = numbers[0].wrapping_sub(100);
        let mut numbers: Vec<u16> = numbers.into_iter().map(|n| n.wrapping_sub(first)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let span = usize::from(numbers[numbers.len() - 1] - numbers[0]) + 1;
        assert!((span - numbers.len()) * 25 < span, "{codec:?}, RTX {rtx}: {} of {span}", numbers.len());
        let late = got.iter().filter(|g| g.payload.len() > 20);
        let truths: Vec<Truth> = late.map(|g| Truth::read(&g.payload)).collect();
        assert!(truths.iter().all(|t| t.spatial == 0), "{codec:?}: a layer that nobody asked for");
        let mut pictures: Vec<u32> = truths.iter().map(|t| t.picture).collect();
        pictures.sort_unstable();
        pictures.dedup();
        assert!(pictures.len() > 190, "{codec:?}, RTX {rtx}: {} of 210 pictures", pictures.len());
    }
}

#[test]
fn a_narrow_path_gets_fewer_layers_and_a_wide_one_all() {
    let (mut w, mut camera, [alice, bob]) = world(Codec::Vp9, RTX, true);
    camera.sizes = [500, 1_500, 6_000]; // 120, 360 and 1440 kbit/s
    let shown = |w: &World, from: usize| -> Vec<u8> {
        let got = w.clients[bob].of_ssrc(SSRC).skip(from);
        let tops = got.filter(|g| g.header.marker).map(|g| Truth::read(&g.payload).spatial);
        tops.collect()
    };
    let count = |w: &World| w.clients[bob].of_ssrc(SSRC).count();
    w.clients[bob].downlink = Some(Downlink::new(5_000_000, 300));
    film(&mut w, &mut camera, alice, 600);
    let wide = shown(&w, 0);
    assert!(wide[wide.len() - 60..].iter().all(|l| *l == 2), "{wide:?}");
    w.clients[bob].downlink = Some(Downlink::new(800_000, 300));
    film(&mut w, &mut camera, alice, 300);
    let from = count(&w);
    film(&mut w, &mut camera, alice, 150);
    let narrow = shown(&w, from);
    assert!(narrow.len() > 100, "{} pictures in 5 s", narrow.len());
    let high = narrow.iter().filter(|l| **l == 2).count();
    assert!(high * 10 < narrow.len(), "{high} of {} pictures whole on a narrow path", narrow.len());
    w.clients[bob].downlink = Some(Downlink::new(5_000_000, 300));
    film(&mut w, &mut camera, alice, 750);
    let again = shown(&w, from);
    assert!(again[again.len() - 60..].iter().all(|l| *l == 2), "{again:?}");
}

#[test]
fn a_link_carries_the_stream_and_each_side_chooses() {
    for codec in [Codec::Vp9, Codec::Av1] {
        let mut w = World::new(2);
        let (alice, bob) = (w.client(0, "alice"), w.client(1, "bob"));
        w.connect(alice);
        w.connect(bob);
        w.link("L", 0, 1, 99);
        let mut camera = Layered::new(codec, 11);
        w.apply(0, configure_receive("alice", vec![camera.section()]));
        let track = Command::AddRemoteTrack {
            track_id: "V".into(),
            kind: Kind::Video,
            link_id: "L".into(),
            layers: vec![Layer::default()],
            voice: false,
        };
        w.apply(1, track);
        w.apply(1, configure_send("bob", vec![camera.wanted(send("5", "V", SSRC, 0, Kind::Video))]));
        w.run(300);
        for max in [2, 0, 2] {
            want(&mut w, 1, "bob", max);
            film(&mut w, &mut camera, alice, 40);
        }
        let decoder = Decoder::all(w.clients[bob].of_ssrc(SSRC));
        assert!(decoder.errors.is_empty(), "{codec:?}: {:?}", decoder.errors);
        let mut steps = decoder.shown;
        steps.dedup();
        assert_eq!(steps, [2, 0, 2], "{codec:?}");
    }
}
