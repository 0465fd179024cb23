//! What the fuzz targets do with one input; `tests/corpus.rs` replays their seeds through the same functions.
//!
//! Each runs a parser to its end and checks what must hold for any input: nothing panics, iterators are
//! bounded, views lie within the input, and what was parsed survives being written and parsed again.

mod bytes;
mod payload;
mod srtp;

pub use bytes::Bytes;
pub use payload::payload;
pub use srtp::srtp;

use crate::codec::{vp8, vp9};
use crate::demux::{PacketKind, classify};
use crate::ext::{BlockIter, ExtKind, ExtMap};
use crate::history::{History, Stored};
use crate::munge::{Munger, Source};
use crate::red::{self, Earlier, Red};
use crate::rtcp::{self, Packet, Packets};
use crate::rtp::{HeaderWriter, RtpView};
use crate::stun::{IceKey, Message, Refusal};
use crate::svc::Limit;
use crate::{ext, nack, relay, stun, twcc};
use aws_lc_rs::hmac;

const PASSWORD: &str = "fuzzfuzzfuzzfuzzfuzzfuzz";

/// Redundant payloads: the parts make the whole, and relabelled ones differ in their types alone.
pub fn redundant(data: &[u8]) {
    let mut relabelled = data.to_vec();
    red::relabel(&mut relabelled, 96);
    let Some(red) = Red::parse(data) else { return };
    let earlier: usize = red.earlier().map(|e| e.payload.len()).sum();
    let headers = red.earlier().len() * 4 + 1;
    assert!(red.earlier().len() <= red::MAX_EARLIER, "blocks");
    assert_eq!(headers + earlier + red.primary.len(), data.len(), "parts make the whole");
    let after = Red::parse(&relabelled);
    assert!(
        after.is_some_and(|a| {
            a.primary == red.primary
                && a.earlier().eq(red.earlier().map(|e| Earlier { payload_type: 96, ..e }))
        }),
        "types alone"
    );
}

/// STUN: parse, check, answer, and parse the answer; then the same as if the peer had signed it.
pub fn stun(data: &[u8]) {
    let key = IceKey::new(PASSWORD);
    answer(data, &key);
    if data.len() >= 20 && data.len() < 1400 && data.len().is_multiple_of(4) {
        let mut signed = data.to_vec();
        let [high, low] = (data.len() as u16 + 24 - 20).to_be_bytes();
        signed[..8].copy_from_slice(&[0, 1, high, low, 0x21, 0x12, 0xA4, 0x42]);
        let sha1 = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, PASSWORD.as_bytes());
        let tag = hmac::sign(&sha1, &signed);
        signed.extend_from_slice(&[0, 8, 0, 20]);
        signed.extend_from_slice(tag.as_ref());
        answer(&signed, &key);
    }
}

fn answer(data: &[u8], key: &IceKey) {
    let Ok(Message::BindingRequest(request)) = stun::parse(data) else { return };
    let mut out = Vec::new();
    match request.check(key) {
        Ok(()) => {
            let from = ([192, 0, 2, 1], 9).into();
            stun::write_success(&request.transaction_id, from, key, &mut out);
            let answer = stun::parse(&out);
            assert!(
                matches!(answer, Ok(Message::BindingSuccess { mapped: Some(a), .. }) if a == from),
                "own success response"
            );
        }
        Err(refusal) => {
            let key = (refusal != Refusal::BadRequest).then_some(key);
            stun::write_refusal(&request.transaction_id, &refusal, key, &mut out);
            assert!(matches!(stun::parse(&out), Ok(Message::BindingError { .. })), "own error response");
        }
    }
    let fields = stun::RequestFields {
        username: request.username,
        priority: request.priority.unwrap_or(1),
        tie_breaker: request.controlling.unwrap_or(2),
        use_candidate: request.use_candidate,
    };
    stun::write_request(&request.transaction_id, &fields, key, &mut out);
    let Ok(Message::BindingRequest(again)) = stun::parse(&out) else { panic!("own request") };
    assert_eq!(again.ufrags(), request.ufrags(), "ufrags");
    assert!(again.username.is_empty() || again.check(key).is_ok(), "own request is whole");
}

fn all_extensions() -> ExtMap {
    let mut map = ExtMap::new();
    for kind in ExtKind::ALL {
        map.set(kind as u8, kind);
    }
    map
}

/// RTP: view, extensions, and the forwarding path: normalise, store, rewrite, write.
pub fn rtp(data: &[u8]) {
    let Some(view) = RtpView::parse(data) else { return };
    assert!(
        view.header_len() + view.payload().len() + view.padding_len() == data.len(),
        "parts make the whole"
    );
    let map = all_extensions();
    for kind in ExtKind::ALL {
        let value = ext::find(&view, &map, kind);
        assert!(value.is_none_or(|v| v.len() <= 255), "value of an extension");
        let _ = value.and_then(ext::audio_level);
    }
    let mut block = Vec::new();
    ext::normalise(&view, &map, &mut block);
    assert!(block.len() <= ext::MAX_BLOCK, "block bound");
    forward(&view, &block);
}

/// Stores the packet, rewrites it over a switch, writes it and parses it again.
fn forward(view: &RtpView<'_>, block: &[u8]) {
    let mut history = History::new(16, 4096);
    let h = view.header();
    history.insert(&Stored {
        sequence: h.sequence,
        timestamp: h.timestamp,
        marker: h.marker,
        payload_type: h.payload_type,
        extensions: block,
        payload: view.payload(),
        tag: vp9::Descriptor::parse(view.payload()).and_then(|d| d.tag()),
        arrival_us: 0,
    });
    let stored = history.get(h.sequence).map_or(0, |s| s.payload.len());
    assert!(stored == view.payload().len() || view.payload().len() + block.len() > 4096, "history keeps it");
    let descriptor = vp8::Descriptor::parse(view.payload());
    let mut munger = Munger::new(h.sequence, h.timestamp, 90_000);
    let source = Source {
        layer: 0,
        sequence: 0x1_0000 + u64::from(h.sequence),
        timestamp: h.timestamp,
        vp8: descriptor.as_ref(),
    };
    munger.switch(&source, 0);
    munger.set_limit(0, source.sequence, Limit { spatial: 1, temporal: 1 });
    assert!(munger.is_next(0, source.sequence + 1) && !munger.is_next(0, source.sequence), "order");
    let next = Source { layer: 1, ..source };
    let rewrite = munger.switch(&next, 20_000);
    assert_eq!(munger.origin(rewrite.sequence()).map(|o| o.index), Some(rewrite.index), "origin inverts");

    let mut out = Vec::new();
    let mut writer = HeaderWriter::begin(&mut out, &h);
    for (kind, value) in BlockIter::new(block) {
        writer.extension(kind as u8, value);
    }
    let header_len = writer.finish();
    out.extend_from_slice(view.payload());
    if let Some(payload) = out.get_mut(header_len..) {
        vp8::patch(payload, rewrite.vp8);
    }
    let again = RtpView::parse(&out);
    assert_eq!(again.map(|v| (v.header(), v.payload().len())), Some((h, view.payload().len())), "own packet");
}

/// RTCP: every packet and every iterator; NACKs and feedback are written and parsed again.
pub fn rtcp(data: &[u8]) {
    for packet in Packets::new(data) {
        match packet {
            Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => {
                for block in reports {
                    let _ = rtcp::rtt_us(rtcp::ntp_from_unix_us(1_700_000_000_000_000), &block);
                    let mut out = Vec::new();
                    rtcp::push_receiver_report(&mut out, 1, &[block]);
                    let again = Packets::new(&out).next();
                    let Some(Packet::ReceiverReport { mut reports, .. }) = again else {
                        panic!("own report")
                    };
                    assert_eq!(reports.next(), Some(block), "report block");
                }
            }
            Packet::Nack { lost, .. } => renack(&lost.collect::<Vec<_>>()),
            Packet::TransportCc(feedback) => {
                assert!(feedback.statuses().count() <= usize::from(feedback.count), "status bound");
                refeed(feedback.statuses().take(256));
            }
            Packet::Fir { entries, .. } => assert!(entries.count() <= data.len(), "entry bound"),
            Packet::Remb { ssrcs, .. } | Packet::Bye(ssrcs) => assert!(ssrcs.count() <= 255, "source bound"),
            Packet::SourceDescription(_) | Packet::Pli { .. } | Packet::Unknown { .. } => {}
        }
    }
}

fn renack(lost: &[u16]) {
    assert!(lost.len() <= 1024, "NACK bound");
    let mut out = Vec::new();
    rtcp::push_nack(&mut out, 1, 2, lost);
    if lost.is_empty() {
        return;
    }
    let Some(Packet::Nack { lost: again, .. }) = Packets::new(&out).next() else { panic!("own NACK") };
    // Numbers out of order or repeated come back sorted within a bitmask.
    let set = |seqs: &mut dyn Iterator<Item = u16>| seqs.collect::<std::collections::BTreeSet<u16>>();
    assert_eq!(set(&mut again.into_iter()), set(&mut lost.iter().copied()), "NACK survives");
    let mut tracker = nack::GapTracker::new();
    let mut due = Vec::new();
    for (i, seq) in lost.iter().take(4).enumerate() {
        let _ = tracker.on_packet(*seq, i as u64 * 1000);
        tracker.poll(i as u64 * 7000, 40_000, &mut due);
        assert!(due.len() <= 512, "due bound");
        due.clear();
    }
}

fn refeed(statuses: impl Iterator<Item = (u16, Option<i64>)>) {
    let mut recorder = twcc::Recorder::new();
    for (seq, at) in statuses {
        if let Some(at) = at.and_then(|t| u64::try_from(t).ok()) {
            recorder.record(seq, at);
        }
    }
    let mut out = Vec::new();
    // Arrival times may lie further apart than a delta: one packet each at worst.
    for _ in 0..=256 {
        out.clear();
        if !recorder.push_feedback(&mut out, 1, 2) {
            return;
        }
        let again = Packets::new(&out).next();
        assert!(
            matches!(again, Some(Packet::TransportCc(f)) if f.statuses().last().is_some()),
            "own feedback"
        );
    }
    panic!("feedback never ends");
}

/// First-byte demultiplexing and DTLS record framing: what is called DTLS has a record header, and each
/// parser survives being handed any kind.
pub fn dtls_demux(data: &[u8]) {
    let kind = classify(data);
    if kind == PacketKind::Dtls {
        assert!(data.len() > 13, "a record header");
        assert!(crate::demux::dtls_records(data).count() <= data.len() / 13, "record bound");
    }
    match kind {
        PacketKind::Stun => stun(data),
        PacketKind::Rtp => rtp(data),
        PacketKind::Rtcp => rtcp(data),
        PacketKind::Relay => relay(data),
        PacketKind::Dtls | PacketKind::Unknown => {
            for record in crate::demux::dtls_records(data) {
                assert!(record.body.len() <= data.len(), "within the datagram");
            }
        }
    }
}

/// Relay: the sealed envelope, and the same bytes as decrypted messages, which are written and read again.
pub fn relay(data: &[u8]) {
    let key = [0x42; 32];
    let _ = relay::token(data);
    let Some(mut opener) = relay::Opener::new(&[0x43; 32], relay::token(data).unwrap_or(0), 1) else {
        return;
    };
    assert!(opener.open(&mut data.to_vec()).is_err(), "forged envelope");

    let messages: Vec<_> = relay::Messages::new(data).collect();
    assert!(messages.len() <= 256, "message bound");
    for message in &messages {
        let (Some(mut tx), Some(mut rx)) =
            (relay::Sealer::new(&key, 1, 1, 7), relay::Opener::new(&key, 1, 1))
        else {
            return;
        };
        let mut out = Vec::new();
        let mut datagram = tx.begin(&mut out);
        if write(&mut datagram, message) {
            assert!(datagram.seal().is_ok(), "seal");
            let Ok(mut again) = rx.open(&mut out) else { panic!("own envelope") };
            let again = again.next();
            if let (relay::Message::Nack { lost: a, .. }, Some(relay::Message::Nack { lost: b, .. })) =
                (message, again)
            {
                assert!(b.iter().eq(a.iter()), "NACK survives");
            } else {
                assert_eq!(again.as_ref(), Some(message), "message survives");
            }
            assert!(rx.open(&mut out).is_err(), "replay");
        }
    }
}

fn write(d: &mut relay::Datagram<'_>, message: &relay::Message<'_>) -> bool {
    use relay::Message as M;
    match *message {
        M::Media(m) => {
            let _ = BlockIter::new(m.extensions).count();
            let _ = m.codec.starts_key_frame(m.payload);
            d.media(&m).is_ok()
        }
        M::Demand(m) => d.demand(&m).is_ok(),
        M::Nack { handle, spatial, lost } => {
            let lost: Vec<u16> = lost.iter().collect();
            !lost.is_empty() && d.nack(handle, spatial, &lost) == lost.len()
        }
        M::KeyFrameRequest { handle, spatial } => d.key_frame_request(handle, spatial).is_ok(),
        M::Ping { id, sent_us } => d.ping(id, sent_us).is_ok(),
        M::Pong { id, sent_us } => d.pong(id, sent_us).is_ok(),
        M::Report { received, expected } => d.report(received, expected).is_ok(),
        M::SenderClock { handle, spatial, ntp, rtp_timestamp } => {
            d.sender_clock(handle, spatial, ntp, rtp_timestamp).is_ok()
        }
    }
}
