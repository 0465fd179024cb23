//! The inputs that fuzzing of the parsers begins with are what our own writers make. `headwater-sim` replays them.
//!
//! `HEADWATER_WRITE_SEEDS=1 cargo test -p headwater-wire --test corpus` writes the seeds anew.

#![allow(clippy::unwrap_used, reason = "a test")]

use headwater_wire::codec::Codec;
use headwater_wire::rtcp::{self, ReportBlock, SenderInfo};
use headwater_wire::rtp::{HeaderWriter, RtpHeader};
use headwater_wire::{relay, stun, twcc};
use std::path::PathBuf;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn stun_packets() -> Vec<Vec<u8>> {
    let key = stun::IceKey::new("fuzzfuzzfuzzfuzzfuzzfuzz");
    let tx = *b"0123456789ab";
    let fields =
        stun::RequestFields { username: "ours:theirs", priority: 9, tie_breaker: 7, use_candidate: true };
    let mut all = vec![Vec::new(); 4];
    stun::write_request(&tx, &fields, &key, &mut all[0]);
    stun::write_success(&tx, "192.0.2.1:7".parse().unwrap(), &key, &mut all[1]);
    stun::write_success(&tx, "[2001:db8::1]:7".parse().unwrap(), &key, &mut all[2]);
    stun::write_refusal(&tx, &stun::Refusal::UnknownAttributes(vec![0x31]), Some(&key), &mut all[3]);
    all
}

fn rtp_packet(extensions: &[(u8, &[u8])], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let h = RtpHeader { marker: true, payload_type: 96, sequence: 65_535, timestamp: 1, ssrc: 2 };
    let mut w = HeaderWriter::begin(&mut out, &h);
    for (id, value) in extensions {
        w.extension(*id, value);
    }
    w.finish();
    out.extend_from_slice(payload);
    out
}

/// A dependency descriptor with the structure of two spatial by two temporal layers.
const L2T2_KEY: [u8; 32] = [
    0x83, 0x00, 0x07, 0x80, 0x63, 0x18, 0x7A, 0xAA, 0x01, 0x00, 0xA0, 0xA0, 0x14, 0xD1, 0x41, 0x34, 0x51,
    0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x4F, 0xC0, 0x2C, 0xC0, 0x9F, 0xC0, 0x59, 0xC0,
];

fn rtp_packets() -> Vec<Vec<u8>> {
    let mut padded = rtp_packet(&[], &[1, 2, 0, 0, 3]);
    padded[0] |= 0x20;
    vec![
        rtp_packet(&[(1, b"0"), (2, b"q"), (5, &[0, 1]), (4, &[0x85])], b"opus"),
        rtp_packet(&[(9, &[1; 60]), (7, &[2])], &[0x90, 0xF0, 0x92, 0x34, 0x56, 0x60, 0x9C, 0, 0]),
        rtp_packet(&[], &[0x78, 0, 2, 0x06, 1, 0, 2, 0x67, 1]),
        rtp_packet(&[], &[0xA8, 0x81, 0x02, 0x20, 0, 0, 0]),
        rtp_packet(&[], &[0x00, 0x02, 0x0A, 0x01, 0x32]),
        padded,
        rtp_packet(&[], &[0xAA, 0x81, 0x02, 0x10, 7, 0x58, 1, 64]),
        rtp_packet(&[(9, &L2T2_KEY)], &[0x18, 0x0A, 1]),
    ]
}

fn redundant_payloads() -> Vec<Vec<u8>> {
    let frame = |byte: u8, len: usize| vec![byte; len];
    let one = [&[0x80 | 111, 0x0F, 0x00, 40, 111][..], &frame(1, 40), &frame(2, 50)].concat();
    let two =
        [&[0xEF, 0x1E, 0x01, 0x04, 0xEF, 0x0F, 0x00, 3, 111][..], &frame(1, 263), &frame(2, 4)].concat();
    vec![vec![111, 7, 7], one, two, [0xEF, 0xFF, 0xFC, 0].repeat(8)]
}

fn rtcp_packets() -> Vec<Vec<u8>> {
    let block = ReportBlock { ssrc: 1, fraction_lost: 2, cumulative_lost: -3, ..ReportBlock::default() };
    let mut all = vec![Vec::new(); 4];
    rtcp::push_sender_report(&mut all[0], 5, &SenderInfo::default(), &[block]);
    rtcp::push_sdes_cname(&mut all[0], 5, "headwater");
    rtcp::push_bye(&mut all[0], &[5]);
    rtcp::push_receiver_report(&mut all[1], 5, &[block, block]);
    rtcp::push_nack(&mut all[1], 1, 2, &[65_534, 65_535, 3, 100]);
    rtcp::push_pli(&mut all[2], 1, 2);
    rtcp::push_fir(&mut all[2], 1, 2, 3);
    rtcp::push_remb(&mut all[2], 1, 5_000_000, &[1, 2]);
    let mut recorder = twcc::Recorder::new();
    for i in 0..40u16 {
        if i % 7 != 3 {
            recorder.record(
                65_530u16.wrapping_add(i),
                1_000_000 + u64::from(i) * if i > 20 { 90_000 } else { 900 },
            );
        }
    }
    while recorder.push_feedback(&mut all[3], 1, 2) {}
    all
}

fn dtls_packets() -> Vec<Vec<u8>> {
    let record = |kind: u8, minor: u8, epoch: u8, body: &[u8]| {
        let mut r = vec![kind, 0xFE, minor, 0, epoch, 0, 0, 0, 0, 0, 1, 0, body.len() as u8];
        r.extend_from_slice(body);
        r
    };
    vec![
        record(22, 0xFF, 0, &[1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0xFE, 0xFD]),
        [record(20, 0xFD, 0, &[1]), record(22, 0xFD, 1, &[7; 40]), record(23, 0xFD, 1, &[9; 30])].concat(),
        record(21, 0xFD, 1, &[1; 24]),
    ]
}

fn relay_packets() -> Vec<Vec<u8>> {
    let mut tx = relay::Sealer::new(&[0x42; 32], 1, 1, 1).unwrap();
    let mut sealed = Vec::new();
    let mut d = tx.begin(&mut sealed);
    d.ping(1, 2).unwrap();
    d.seal().unwrap();
    // Messages as they are before encryption, which is what the target reads its input as.
    let message = |kind: u8, body: &[u8]| [&[kind, 0, body.len() as u8][..], body].concat();
    let mut media = vec![0, 0, 0, 9, 0x32, Codec::Vp8 as u8, 0xFF, 0xFF, 0, 0, 0, 1, 0, 3, 4, 1, 0x85];
    media.extend_from_slice(b"payload");
    vec![
        sealed,
        [message(1, &media), message(2, b"\0\0\0\x09\x05TR_abc"), message(4, &[0, 0, 0, 9, 1])].concat(),
        [message(3, &[0, 0, 0, 9, 1, 0xFF, 0xFF, 0, 0]), message(5, &[1; 12]), message(6, &[2; 12])].concat(),
        [message(7, &[3; 16]), message(8, &[4; 17]), message(99, &[5; 3])].concat(),
    ]
}

#[test]
fn committed_seeds_are_what_the_writers_make() {
    let demux = [
        &stun_packets()[..1],
        &rtp_packets()[..1],
        &rtcp_packets()[..1],
        &relay_packets()[..1],
        &dtls_packets(),
    ];
    let sets = [
        ("stun", stun_packets()),
        ("rtp", rtp_packets()),
        ("rtcp", rtcp_packets()),
        ("dtls_demux", demux.concat()),
        ("relay", relay_packets()),
        ("redundant", redundant_payloads()),
    ];
    let write = std::env::var_os("HEADWATER_WRITE_SEEDS").is_some();
    for (target, packets) in sets {
        for (i, packet) in packets.iter().enumerate() {
            let path = corpus(target).join(format!("seed-{i}"));
            if write {
                std::fs::create_dir_all(corpus(target)).unwrap();
                std::fs::write(&path, packet).unwrap();
            }
            assert_eq!(&std::fs::read(&path).unwrap(), packet, "{}", path.display());
        }
    }
}
