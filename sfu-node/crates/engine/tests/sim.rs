//! Rooms on a virtual clock: forwarding, repair, layers, relay links, leases, hostile input.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use headwater_engine::api::*;
use headwater_sim::*;
use headwater_wire::{rtcp, rtp::RtpHeader};
use std::collections::BTreeSet;

const SSRC: u32 = 500;
const RTX: u32 = 501;

/// A publisher and a subscriber of one VP8 track on one node.
fn pair(layers: &[u32], rtx: u32) -> (World, usize, usize) {
    let mut w = World::new(1);
    let (alice, bob) = (w.client(0, "alice"), w.client(0, "bob"));
    w.connect(alice);
    w.connect(bob);
    w.apply(0, configure_receive("alice", vec![receive("0", "V", layers, Kind::Video)]));
    w.apply(0, configure_send("bob", vec![send("5", "V", SSRC, rtx, Kind::Video)]));
    (w, alice, bob)
}

/// Sends `count` frames at 30 a second; each PLI is answered by a key frame.
fn film(w: &mut World, alice: usize, cameras: &mut [Camera], count: usize) {
    for _ in 0..count {
        for camera in cameras.iter_mut() {
            let asked = w.clients[alice].pli.iter().any(|(_, ssrc)| *ssrc == camera.ssrc);
            w.clients[alice].pli.retain(|(_, ssrc)| *ssrc != camera.ssrc);
            camera.frame(w, alice, camera.frames == 0 || asked);
        }
        w.run(33);
    }
}

fn contents(w: &World, client: usize, ssrc: u32) -> Vec<u32> {
    w.clients[client].of_ssrc(ssrc).map(|g| content(&g.payload)).collect()
}

#[test]
fn a_packet_is_rewritten_for_its_subscriber() {
    let (mut w, alice, bob) = pair(&[11], 0);
    let mut camera = Camera::new(11, 65_530);
    film(&mut w, alice, std::slice::from_mut(&mut camera), 20);
    w.run(50);
    let got: Vec<_> = w.clients[bob].got.clone();
    assert_eq!(got.len(), 20);
    assert!(got.iter().all(|g| g.header.ssrc == SSRC && g.header.payload_type == 120));
    for pair in got.windows(2) {
        assert_eq!(pair[1].header.sequence, pair[0].header.sequence.wrapping_add(1));
        assert_eq!(pair[1].header.timestamp.wrapping_sub(pair[0].header.timestamp), 3000);
    }
    let report = w.nodes[0].engine.report(w.now, &w.nodes[0].out);
    assert_eq!((report.connections, report.participants, report.rooms[0].published_tracks), (2, 2, 1));
}

#[test]
fn loss_on_both_sides_is_repaired_with_and_without_rtx() {
    for rtx in [0, RTX] {
        let (mut w, alice, bob) = pair(&[11], rtx);
        let mut camera = Camera::new(11, 65_400);
        film(&mut w, alice, std::slice::from_mut(&mut camera), 5);
        w.client_loss = 8;
        film(&mut w, alice, std::slice::from_mut(&mut camera), 300);
        w.client_loss = 0;
        film(&mut w, alice, std::slice::from_mut(&mut camera), 10);
        w.run(500);
        let mut seen: BTreeSet<u32> = contents(&w, bob, SSRC).into_iter().collect();
        if rtx != 0 {
            let repaired: Vec<_> = w.clients[bob].of_ssrc(rtx).collect();
            assert!(repaired.len() > 5, "RTX was used");
            assert!(repaired.iter().all(|g| g.header.payload_type == 121));
            seen.extend(repaired.iter().map(|g| content(&g.payload[2..])));
        }
        assert!(w.clients[alice].nacks > 5, "the node asked its publisher");
        assert!(seen.len() >= 313, "rtx {rtx}: {} of 315 frames", seen.len());
        let drops = drops(&w.nodes[0], w.now);
        assert!(!drops.contains_key("srtp_auth"), "{drops:?}");
    }
}

#[test]
fn layers_switch_at_key_frames_without_a_seam() {
    let (mut w, alice, bob) = pair(&[11, 12, 13], 0);
    let mut cameras = [Camera::new(11, 100), Camera::new(12, 40_000), Camera::new(13, 65_500)];
    film(&mut w, alice, &mut cameras, 30);
    for max_spatial in [0, 2, 1, 0, 2] {
        w.apply(
            0,
            Command::UpdateSubscription {
                transport_id: "bob".into(),
                track_id: "V".into(),
                max_spatial,
                paused: false,
                priority: 0,
            },
        );
        film(&mut w, alice, &mut cameras, 40);
        let last = *contents(&w, bob, SSRC).last().unwrap();
        assert_eq!(last >> 16, 11 + u32::from(max_spatial), "the layer that was asked for");
    }
    let got: Vec<_> = w.clients[bob].got.clone();
    for (a, b) in got.iter().zip(&got[1..]) {
        assert_eq!(b.header.sequence, a.header.sequence.wrapping_add(1));
        assert_eq!(picture_id(&b.payload), (picture_id(&a.payload) + 1) & 0x7FFF);
        let step = b.header.timestamp.wrapping_sub(a.header.timestamp);
        assert!((1..9000).contains(&step), "timestamp step {step}");
        if content(&a.payload) >> 16 != content(&b.payload) >> 16 {
            assert_eq!(b.payload[5] & 1, 0, "a layer starts with a key frame");
        }
    }
    let flowing: Vec<i32> = w.nodes[0]
        .events
        .iter()
        .filter_map(|e| match e.kind {
            EventKind::Subscription { current_spatial, .. } => Some(current_spatial),
            _ => None,
        })
        .collect();
    assert_eq!(flowing.last(), Some(&2));
}

#[test]
fn a_layer_that_stops_is_replaced_by_the_best_one_left() {
    let (mut w, alice, bob) = pair(&[11, 12, 13], 0);
    let mut cameras = [Camera::new(11, 1), Camera::new(12, 1), Camera::new(13, 1)];
    film(&mut w, alice, &mut cameras, 40);
    assert_eq!(contents(&w, bob, SSRC).last().unwrap() >> 16, 13);
    film(&mut w, alice, &mut cameras[..2], 90);
    assert_eq!(contents(&w, bob, SSRC).last().unwrap() >> 16, 12);
    assert!(longest_gap(&w, bob) <= 450, "{} ms", longest_gap(&w, bob));
    let live = w.nodes[0].events.iter().rev().find_map(|e| match &e.kind {
        EventKind::Track { live_spatial, .. } => Some(live_spatial.clone()),
        _ => None,
    });
    assert_eq!(live, Some(vec![0, 1]));
}

#[test]
fn key_frame_requests_of_many_are_merged() {
    let (mut w, alice, _) = pair(&[11], 0);
    let mut camera = Camera::new(11, 1);
    camera.frame(&mut w, alice, true);
    w.run(600);
    w.clients[alice].pli.clear();
    for _ in 0..30 {
        let bob = 1;
        let mut compound = Vec::new();
        rtcp::push_pli(&mut compound, 1, SSRC);
        let packet = w.clients[bob].rtcp(compound);
        w.send(bob, packet);
        camera.frame(&mut w, alice, false);
        w.run(100);
    }
    let asked = w.clients[alice].pli.len();
    assert!((5..=7).contains(&asked), "{asked} requests in 3 s");
}

#[test]
fn reports_reach_both_ends() {
    let (mut w, alice, bob) = pair(&[11], 0);
    let mut camera = Camera::new(11, 1);
    let ntp = 0xE000_0000_0000_0000u64;
    for i in 0..90 {
        if i == 10 {
            let info = rtcp::SenderInfo { ntp, rtp_timestamp: camera.timestamp, packets: 10, octets: 10 };
            let mut compound = Vec::new();
            rtcp::push_sender_report(&mut compound, 11, &info, &[]);
            let packet = w.clients[alice].rtcp(compound);
            w.send(alice, packet);
        }
        film(&mut w, alice, std::slice::from_mut(&mut camera), 1);
    }
    let block = w.clients[alice].reports.last().unwrap();
    assert_eq!((block.ssrc, block.cumulative_lost, block.last_sr), (11, 0, (ntp >> 16) as u32));
    let (ssrc, info) = *w.clients[bob].sender_reports.last().unwrap();
    assert_eq!(ssrc, SSRC);
    assert!(info.packets > 50);
    // The publisher's clock goes through: seconds since its report, on its own scale.
    let seconds = (info.ntp - ntp) as f64 / 2f64.powi(32);
    assert!((1.0..4.0).contains(&seconds), "{seconds}");
    let last = w.clients[bob].of_ssrc(SSRC).last().unwrap().header.timestamp;
    let ahead = last.wrapping_sub(info.rtp_timestamp) as i32;
    assert!(ahead.abs() < 2 * 90_000, "RTP time of the report is near the media: {ahead}");
}

/// Longest time without a packet, ms.
fn longest_gap(w: &World, client: usize) -> u64 {
    let got = &w.clients[client].got;
    got.iter().zip(&got[1..]).map(|(a, b)| b.at_ms - a.at_ms).max().unwrap()
}

/// Two nodes with a link; alice publishes on 0, bob subscribes on 1.
fn across(layers: &[u32]) -> (World, usize, usize) {
    let mut w = World::new(2);
    let (alice, bob) = (w.client(0, "alice"), w.client(1, "bob"));
    w.connect(alice);
    w.connect(bob);
    w.apply(0, configure_receive("alice", vec![receive("0", "V", layers, Kind::Video)]));
    w.link("L", 0, 1, 99);
    let sections = receive("0", "V", layers, Kind::Video).layers;
    let track_id: Id = "V".into();
    w.apply(
        1,
        Command::AddRemoteTrack {
            track_id,
            kind: Kind::Video,
            link_id: "L".into(),
            layers: sections,
            voice: false,
        },
    );
    w.run(300);
    (w, alice, bob)
}

#[test]
fn a_link_carries_what_is_wanted_and_repairs_loss() {
    let (mut w, alice, bob) = across(&[11, 12, 13]);
    let mut cameras = [Camera::new(11, 1), Camera::new(12, 1), Camera::new(13, 1)];
    let idle = w.crossed;
    film(&mut w, alice, &mut cameras, 30);
    assert!(w.crossed - idle < 30, "no media without demand: {}", w.crossed - idle);
    w.apply(1, configure_send("bob", vec![send("5", "V", SSRC, 0, Kind::Video)]));
    film(&mut w, alice, &mut cameras, 30);
    assert_eq!(contents(&w, bob, SSRC).last().unwrap() >> 16, 13);
    let before = w.crossed;
    w.node_loss = 10;
    film(&mut w, alice, &mut cameras, 300);
    w.node_loss = 0;
    film(&mut w, alice, &mut cameras, 10);
    w.run(500);
    assert!(w.crossed - before < 310 * 3 / 2, "one layer crosses, not three: {}", w.crossed - before);
    let seen: BTreeSet<u32> = contents(&w, bob, SSRC).into_iter().filter(|c| c >> 16 == 13).collect();
    let span = *seen.last().unwrap() - *seen.first().unwrap() + 1;
    assert!(span >= 310 && seen.len() as u32 >= span - 2, "{} of {span}", seen.len());
    let report = w.nodes[1].engine.report(w.now, &w.nodes[1].out);
    let link = &report.links[0];
    assert!(link.up && (8.0..80.0).contains(&link.rtt_ms), "{link:?}");
    assert_eq!((link.rx_tracks, link.tx_tracks), (1, 0));
}

#[test]
fn a_layer_that_stops_is_replaced_across_a_link() {
    let (mut w, alice, bob) = across(&[11, 12, 13]);
    let mut cameras = [Camera::new(11, 1), Camera::new(12, 1), Camera::new(13, 1)];
    w.apply(1, configure_send("bob", vec![send("5", "V", SSRC, 0, Kind::Video)]));
    film(&mut w, alice, &mut cameras, 60);
    assert_eq!(contents(&w, bob, SSRC).last().unwrap() >> 16, 13);
    film(&mut w, alice, &mut cameras[..2], 60);
    assert_eq!(contents(&w, bob, SSRC).last().unwrap() >> 16, 12);
    assert!(longest_gap(&w, bob) <= 500, "{} ms", longest_gap(&w, bob));
    film(&mut w, alice, &mut cameras, 60);
    assert_eq!(contents(&w, bob, SSRC).last().unwrap() >> 16, 13, "and back");
}

#[test]
fn a_demand_that_is_not_repeated_lapses() {
    let (mut w, alice, _) = across(&[11]);
    let mut camera = Camera::new(11, 1);
    w.apply(1, configure_send("bob", vec![send("5", "V", SSRC, 0, Kind::Video)]));
    film(&mut w, alice, std::slice::from_mut(&mut camera), 30);
    assert_eq!(w.nodes[0].engine.report(w.now, &w.nodes[0].out).links[0].tx_tracks, 1);
    // Node 1 is gone without a word.
    w.node_loss = 100;
    film(&mut w, alice, std::slice::from_mut(&mut camera), 100);
    let before = w.crossed;
    film(&mut w, alice, std::slice::from_mut(&mut camera), 60);
    assert!(w.crossed - before < 40, "only pings, both ways: {}", w.crossed - before);
    let down = w.nodes[0].events.iter().rev().find_map(|e| match e.kind {
        EventKind::Relay { up, .. } => Some(up),
        _ => None,
    });
    assert_eq!(down, Some(false));
}

#[test]
fn what_was_asked_for_before_it_came_flows_from_its_first_frame_on() {
    for head_start in [20, 120, 220, 320, 420] {
        let (mut w, alice, bob) = across(&[11]);
        w.apply(1, configure_send("bob", vec![send("5", "V", SSRC, 0, Kind::Video)]));
        // The publisher leaves this node, and comes back after the other one has asked for the track again.
        w.apply(0, configure_receive("alice", vec![]));
        w.apply(1, Command::RemoveRemoteTrack { track_id: "V".into() });
        w.run(700);
        let layers = receive("0", "V", &[11], Kind::Video).layers;
        let (track_id, link_id): (Id, Id) = ("V".into(), "L".into());
        w.apply(1, Command::AddRemoteTrack { track_id, kind: Kind::Video, link_id, layers, voice: false });
        w.run(head_start);
        w.apply(0, configure_receive("alice", vec![receive("0", "V", &[11], Kind::Video)]));
        let mut camera = Camera::new(11, 1);
        film(&mut w, alice, std::slice::from_mut(&mut camera), 2);
        w.run(40);
        assert_eq!(contents(&w, bob, SSRC).len(), 2, "asked for {head_start} ms before");
    }
}

#[test]
fn a_lease_that_is_not_renewed_closes_the_room() {
    let (mut w, _, _) = pair(&[11], 0);
    w.run(59_000);
    assert_eq!(w.nodes[0].closed(), None);
    assert_eq!(w.try_apply(0, vec![]), Ok(vec![]));
    w.run(59_000);
    assert_eq!(w.nodes[0].closed(), None, "renewed");
    w.run(2_000);
    assert_eq!(w.nodes[0].closed(), Some("lease expired"));
    let report = w.nodes[0].engine.report(w.now, &w.nodes[0].out);
    assert_eq!((report.rooms.len(), report.connections), (0, 0));
    w.nodes[0].epoch = 0;
    assert_eq!(w.try_apply(0, vec![]), Err(StaleEpoch { current: 1 }), "remembered after the end");
}

#[test]
fn an_older_epoch_is_refused_and_changes_nothing() {
    let (mut w, _, _) = pair(&[11], 0);
    w.nodes[0].epoch = 7;
    w.try_apply(0, vec![]).unwrap();
    w.nodes[0].epoch = 6;
    assert_eq!(w.try_apply(0, vec![Command::CloseRoom]), Err(StaleEpoch { current: 7 }));
    assert_eq!(w.nodes[0].closed(), None);
}

#[test]
fn a_full_or_draining_node_takes_no_more_but_goes_on() {
    let (mut w, alice, bob) = pair(&[11], 0);
    let spec = |name: &str| {
        Command::CreateTransport(CreateTransport {
            transport_id: name.into(),
            participant_id: name.into(),
            local_ufrag: format!("ufrag-{name}"),
            local_pwd: "x".repeat(24),
            remote_fingerprint: String::new(),
            data_channels: vec![],
            max_message_size: 0,
        })
    };
    w.nodes[0].engine.set_draining(true);
    let refused = w.try_apply(0, vec![spec("late")]).unwrap();
    assert!(refused[0].as_ref().unwrap_err().contains("draining"));
    w.nodes[0].engine.set_draining(false);
    let results = w.try_apply(0, (0..20).map(|i| spec(&format!("many{i}"))).collect()).unwrap();
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 14, "16 with the two that are there");
    assert!(results[19].as_ref().unwrap_err().contains("full"));
    let mut camera = Camera::new(11, 1);
    film(&mut w, alice, std::slice::from_mut(&mut camera), 20);
    assert!(w.clients[bob].got.len() >= 19);
}

#[test]
fn keys_wait_for_the_fingerprint_and_a_wrong_one_fails() {
    let mut w = World::new(1);
    let certificate = headwater_dtls::certificate::generate_self_signed_certificate().unwrap();
    let right = headwater_dtls::certificate::format_fingerprint(&certificate.fingerprint());
    let late = w.client_with(0, "late", certificate.clone(), "");
    let wrong = w.client_with(0, "wrong", certificate, &["00"; 32].join(":"));
    w.connect(late);
    w.run(1000);
    assert!(!w.clients[wrong].connected(), "the handshake is not even finished");
    assert_eq!(w.nodes[0].states("late"), []);
    assert_eq!(w.nodes[0].states("wrong"), [TransportState::Failed]);
    w.apply(0, Command::SetRemote { transport_id: "late".into(), remote_fingerprint: right });
    assert_eq!(w.nodes[0].states("late"), [TransportState::Connected]);
}

#[test]
fn a_silent_client_is_away_then_gone() {
    let (mut w, alice, _) = pair(&[11], 0);
    w.clients[alice].silent = true;
    w.run(13_000);
    assert_eq!(w.nodes[0].states("alice").last(), Some(&TransportState::Disconnected));
    w.clients[alice].silent = false;
    w.run(100);
    assert_eq!(w.nodes[0].states("alice").last(), Some(&TransportState::Connected));
    w.clients[alice].silent = true;
    w.run(33_000);
    assert_eq!(w.nodes[0].states("alice").last(), Some(&TransportState::Failed));
    assert_eq!(w.nodes[0].states("bob"), [TransportState::Connected], "nobody else noticed");
}

#[test]
fn a_client_that_moves_is_followed() {
    let (mut w, alice, bob) = pair(&[11], 0);
    let mut camera = Camera::new(11, 1);
    film(&mut w, alice, std::slice::from_mut(&mut camera), 10);
    w.clients[bob].addr = addr(9500);
    film(&mut w, alice, std::slice::from_mut(&mut camera), 90);
    let before = w.clients[bob].got.len();
    film(&mut w, alice, std::slice::from_mut(&mut camera), 10);
    assert_eq!(w.clients[bob].got.len(), before + 10);
    let address = |e: &Event| match &e.kind {
        EventKind::Transport { transport_id, remote_address, .. } if &**transport_id == "bob" => {
            *remote_address
        }
        _ => None,
    };
    let told: Vec<_> = w.nodes[0].events.iter().filter_map(address).collect();
    assert_eq!(told.last(), Some(&addr(9500)), "the room knows over which relay a client comes: {told:?}");
    assert_eq!(told.len(), 2, "told once for each address");
}

#[test]
fn garbage_never_panics_nor_disturbs_a_room() {
    let (mut w, alice, bob) = pair(&[11], RTX);
    let mut camera = Camera::new(11, 1);
    film(&mut w, alice, std::slice::from_mut(&mut camera), 5);
    let mut samples: Vec<Vec<u8>> = vec![vec![], vec![0x60; 80], vec![22, 0xFE, 0xFD, 0, 0], vec![0x80; 40]];
    for i in 0..40 {
        let header = RtpHeader {
            ssrc: 11 + i % 3,
            sequence: 900 + i as u16,
            payload_type: 96,
            ..RtpHeader::default()
        };
        samples.push(w.clients[alice].rtp(header, &[(1, b"0"), (3, &[0, 1])], &vp8(1, true, 1)));
        let mut compound = Vec::new();
        rtcp::push_nack(&mut compound, 1, SSRC, &[1, 2, 3]);
        samples.push(w.clients[bob].rtcp(compound));
    }
    let addresses = [w.clients[alice].addr, w.clients[bob].addr, addr(9999), w.nodes[0].addr];
    for round in 0..20_000usize {
        let mut datagram = samples[round % samples.len()].clone();
        for _ in 0..w.rng.draw() % 4 {
            if !datagram.is_empty() {
                let at = w.rng.draw() as usize % datagram.len();
                datagram[at] = w.rng.draw() as u8;
            }
        }
        let cut = w.rng.draw() as usize % (datagram.len() + 1);
        if w.rng.chance(20) {
            datagram.truncate(cut);
        }
        let from = addresses[w.rng.draw() as usize % addresses.len()];
        let n = &mut w.nodes[0];
        let path = headwater_engine::Path { socket: 0, peer: from };
        n.engine.handle_datagram(w.now, w.now, path, &mut datagram, &mut n.out);
        if round % 500 == 0 {
            w.run(1);
        }
    }
    w.run(100);
    assert!(!drops(&w.nodes[0], w.now).contains_key("panic"));
    assert_eq!(w.nodes[0].states("alice"), [TransportState::Connected]);
    assert_eq!(w.nodes[0].states("bob"), [TransportState::Connected]);
    // A decrypted key frame of an unknown layer is no reason to stop.
    w.clients[bob].got.clear();
    camera.sequence = 1000;
    film(&mut w, alice, std::slice::from_mut(&mut camera), 60);
    assert!(w.clients[bob].got.len() >= 50, "{} packets after the flood", w.clients[bob].got.len());
}

#[test]
fn what_one_client_may_hold_is_bounded() {
    let (mut w, alice, _) = pair(&[11], 0);
    for ssrc in 0..2000u32 {
        let header = RtpHeader { ssrc: 10_000 + ssrc, payload_type: 96, ..RtpHeader::default() };
        let packet = w.clients[alice].rtp(header, &[(1, b"0")], &vp8(1, true, 1));
        w.send(alice, packet);
        if ssrc % 100 == 0 {
            w.run(1);
        }
    }
    w.run(100);
    let sections = (0..200).map(|i| receive(&i.to_string(), &format!("T{i}"), &[i], Kind::Video)).collect();
    let refused = w.try_apply(0, vec![configure_receive("alice", sections)]).unwrap();
    assert!(refused[0].as_ref().unwrap_err().starts_with("sections"));
    assert_eq!(w.nodes[0].states("alice"), [TransportState::Connected]);
}

#[test]
fn an_ssrc_that_comes_back_goes_on_counting() {
    let (mut w, alice, bob) = pair(&[11], RTX);
    let mut camera = Camera::new(11, 1);
    film(&mut w, alice, std::slice::from_mut(&mut camera), 10);
    let last = w.clients[bob].of_ssrc(SSRC).last().unwrap().header.sequence;
    w.apply(0, configure_send("bob", vec![]));
    film(&mut w, alice, std::slice::from_mut(&mut camera), 10);
    w.clients[bob].got.clear();
    w.apply(0, configure_send("bob", vec![send("6", "V", SSRC, RTX, Kind::Video)]));
    film(&mut w, alice, std::slice::from_mut(&mut camera), 30);
    let next = w.clients[bob].of_ssrc(SSRC).next().expect("video again").header.sequence;
    assert_eq!(next, last.wrapping_add(1), "a number used twice under one key would give the key away");
    let swapped = w.try_apply(
        0,
        vec![configure_send("bob", vec![]), configure_send("bob", vec![send("6", "V", RTX, 0, Kind::Video)])],
    );
    assert!(swapped.unwrap()[1].as_ref().unwrap_err().contains("in turn"));
}

#[test]
fn ssrcs_of_two_m_lines_are_not_exchanged() {
    let (mut w, ..) = pair(&[11], RTX);
    let lines = |pairs: [(u32, u32); 2]| {
        let line = |(mid, (ssrc, rtx))| send(mid, "V", ssrc, rtx, Kind::Video);
        configure_send("bob", ["5", "6"].into_iter().zip(pairs).map(line).collect())
    };
    w.apply(0, lines([(SSRC, RTX), (700, 701)]));
    for exchanged in [[(SSRC, 701), (700, RTX)], [(RTX, 0), (700, 701)], [(SSRC, 700), (702, 0)]] {
        let refused = w.try_apply(0, vec![lines(exchanged)]).unwrap();
        assert!(refused[0].as_ref().unwrap_err().contains("another use"), "{exchanged:?}");
    }
    w.apply(0, lines([(SSRC, 0), (700, 701)]));
}

/// A microphone on alice's node and its listener; `say` sends one packet of it.
fn microphone() -> (World, usize, impl Fn(&mut World, u32, u16)) {
    let mut w = World::new(1);
    let (alice, bob) = (w.client(0, "alice"), w.client(0, "bob"));
    w.connect(alice);
    w.connect(bob);
    w.apply(0, configure_receive("alice", vec![receive("0", "A", &[11], Kind::Audio)]));
    w.apply(0, configure_send("bob", vec![send_with_cc("5", "A", SSRC, 0, Kind::Audio)]));
    let say = move |w: &mut World, ssrc: u32, sequence: u16| {
        let timestamp = u32::from(sequence) * 960;
        let header = RtpHeader { marker: false, payload_type: 111, sequence, timestamp, ssrc };
        let packet =
            w.clients[alice].rtp(header, &[], &[ssrc.to_be_bytes(), timestamp.to_be_bytes()].concat());
        w.send(alice, packet);
        w.run(1);
    };
    (w, bob, say)
}

#[test]
fn a_late_packet_of_a_new_source_gets_no_number_of_the_old_one() {
    // Each client of the simulation watches that no two packets have one number.
    let (mut w, bob, say) = microphone();
    (1000..1200).for_each(|n| say(&mut w, 11, n));
    [1100, 1099, 1101].into_iter().for_each(|n| say(&mut w, 12, n));
    w.run(100);
    assert_eq!(w.clients[bob].of_ssrc(SSRC).count(), 202);
}

#[test]
fn who_paused_for_long_hears_what_comes_then() {
    let (mut w, bob, say) = microphone();
    let pause = |w: &mut World, paused| {
        let line = SendSection { paused, ..send_with_cc("5", "A", SSRC, 0, Kind::Audio) };
        w.apply(0, configure_send("bob", vec![line]));
    };
    (0..50).for_each(|n| say(&mut w, 11, n));
    pause(&mut w, true);
    (50..40_000).for_each(|n| say(&mut w, 11, n));
    pause(&mut w, false);
    (40_000..40_050).for_each(|n| say(&mut w, 11, n));
    w.run(100);
    let heard: Vec<u16> = w.clients[bob].of_ssrc(SSRC).map(|g| g.header.sequence).collect();
    assert_eq!(heard.len(), 100);
    assert!(heard.windows(2).all(|n| n[1] == n[0].wrapping_add(1)), "without a gap");
}

#[test]
fn mute_stops_a_track_at_the_door_and_unmute_starts_with_a_key_frame() {
    let (mut w, alice, bob) = pair(&[11], 0);
    let mut camera = Camera::new(11, 1);
    film(&mut w, alice, std::slice::from_mut(&mut camera), 20);
    let mut section = receive("0", "V", &[11], Kind::Video);
    section.muted = true;
    w.apply(0, configure_receive("alice", vec![section]));
    w.run(50);
    w.clients[bob].got.clear();
    film(&mut w, alice, std::slice::from_mut(&mut camera), 60);
    assert_eq!(w.clients[bob].got.len(), 0);
    w.apply(0, configure_receive("alice", vec![receive("0", "V", &[11], Kind::Video)]));
    film(&mut w, alice, std::slice::from_mut(&mut camera), 60);
    let got = &w.clients[bob].got;
    assert!(got.len() > 30, "{}", got.len());
    assert_eq!(got[0].payload[5] & 1, 0, "a key frame first");
}

/// How often the engine asks to be woken within `ms`, where nothing comes but time.
fn wakes(w: &mut World, ms: u64) -> usize {
    let end = w.now + std::time::Duration::from_millis(ms);
    let node = &mut w.nodes[0];
    let mut count = 0;
    while let Some(at) = node.engine.next_deadline().filter(|at| *at <= end) {
        w.now = w.now.max(at);
        node.engine.handle_timeout(w.now, &mut node.out);
        node.out.clear();
        count += 1;
        assert!(count < 1_000, "it asks for {:?} and gets no further", at - w.base);
        if at < w.now {
            w.now += std::time::Duration::from_micros(50); // a turn of the loop
        }
    }
    w.now = end;
    count
}

#[test]
fn a_client_that_has_failed_keeps_no_processor_busy() {
    let (mut w, alice, bob) = pair(&[11], 0);
    w.clients[alice].silent = true;
    w.clients[bob].silent = true;
    wakes(&mut w, 40_000);
    assert_eq!(w.nodes[0].engine.next_deadline().map(|at| at > w.now), Some(true));
    let count = wakes(&mut w, 2_000);
    assert!(count < 100, "{count} times in two seconds");
}

#[test]
fn the_room_hears_which_ssrc_carries_which_layer_so_that_the_next_node_knows() {
    let mut w = World::new(2);
    let alice = w.client(0, "alice");
    w.connect(alice);
    let mut section = receive("0", "V", &[0, 0], Kind::Video);
    section.extensions.push(ExtensionMap { id: 4, extension: Extension::Rid });
    for (layer, rid) in section.layers.iter_mut().zip(["q", "h"]) {
        layer.rid = rid.into();
    }
    w.apply(0, configure_receive("alice", vec![section.clone()]));
    for (ssrc, rid) in [(11, b"q"), (12, b"h")] {
        let header = RtpHeader { marker: true, payload_type: 96, sequence: 1, ssrc, ..RtpHeader::default() };
        let packet = w.clients[alice].rtp(header, &[(1, b"0"), (4, rid)], &vp8(1, true, 1));
        w.send(alice, packet);
        w.run(20);
    }
    let told = w.nodes[0].events.iter().rev().find_map(|e| match &e.kind {
        EventKind::Sources { transport_id, mid, layers } => {
            Some((transport_id.clone(), mid.clone(), layers.clone()))
        }
        _ => None,
    });
    let (transport, mid, layers) = told.expect("told");
    assert_eq!((&*transport, mid.as_str()), ("alice", "0"));
    let named: Vec<_> = layers.iter().map(|l| (l.rid.as_str(), l.spatial, l.ssrc)).collect();
    assert_eq!(named, [("q", 0, 11), ("h", 1, 12)]);
    // Clients name layers in their first packets only: the next node gets packets without.
    let moved = w.client(1, "moved");
    w.connect(moved);
    w.apply(1, configure_receive("moved", vec![ReceiveSection { layers, ..section }]));
    let mut cameras = [Camera::new(11, 500), Camera::new(12, 600)];
    film(&mut w, moved, &mut cameras[..1], 2);
    let told = w.nodes[1].events.iter().rev().find_map(|e| match &e.kind {
        EventKind::Sources { layers, .. } => Some(layers.iter().map(|l| l.ssrc).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(told, Some(vec![11, 12]), "a layer that has not come yet is not forgotten");
    film(&mut w, moved, &mut cameras, 5);
    let live = w.nodes[1].events.iter().rev().find_map(|e| match &e.kind {
        EventKind::Track { live_spatial, .. } => Some(live_spatial.clone()),
        _ => None,
    });
    assert_eq!(live, Some(vec![0, 1]));
}

#[test]
fn a_client_that_changes_its_ssrc_with_each_packet_does_not_keep_the_room_busy() {
    let mut w = World::new(1);
    let alice = w.client(0, "alice");
    w.connect(alice);
    let mut section = receive("0", "V", &[0], Kind::Video);
    section.extensions.push(ExtensionMap { id: 4, extension: Extension::Rid });
    section.layers[0].rid = "q".into();
    w.apply(0, configure_receive("alice", vec![section]));
    for ssrc in 1_000..3_000 {
        let header = RtpHeader { marker: true, payload_type: 96, sequence: 1, ssrc, ..RtpHeader::default() };
        let packet = w.clients[alice].rtp(header, &[(1, b"0"), (4, b"q")], &vp8(1, true, 1));
        w.send(alice, packet);
        w.run(1);
    }
    let told = w.nodes[0].events.iter().filter(|e| matches!(e.kind, EventKind::Sources { .. })).count();
    assert!((2..=512).contains(&told), "{told}");
}
