use super::*;

fn block(ssrc: u32) -> ReportBlock {
    ReportBlock {
        ssrc,
        fraction_lost: 12,
        cumulative_lost: -3,
        highest_sequence: 0x0001_FFFF,
        jitter: 77,
        last_sr: 0xAABB_CCDD,
        delay_since_last_sr: 65_536,
    }
}

fn info() -> SenderInfo {
    SenderInfo { ntp: 0x0102_0304_0506_0708, rtp_timestamp: 9, packets: 10, octets: 11 }
}

fn one(b: &[u8]) -> Packet<'_> {
    let mut all: Vec<_> = Packets::new(b).collect();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

#[test]
fn reports_round_trip() {
    let mut b = Vec::new();
    push_sender_report(&mut b, 5, &info(), &[block(1), block(2)]);
    let Packet::SenderReport { ssrc: 5, info: got, reports } = one(&b) else { panic!() };
    assert_eq!(got, info());
    assert_eq!(reports.collect::<Vec<_>>(), [block(1), block(2)]);

    let mut b = Vec::new();
    push_receiver_report(&mut b, 6, &[block(3)]);
    let Packet::ReceiverReport { ssrc: 6, reports } = one(&b) else { panic!() };
    assert_eq!(reports.collect::<Vec<_>>(), [block(3)]);
}

#[test]
fn counts_are_bounded() {
    let mut b = Vec::new();
    push_receiver_report(&mut b, 6, &[block(3); 40]);
    let Packet::ReceiverReport { reports, .. } = one(&b) else { panic!() };
    assert_eq!(reports.count(), 31);
    let mut b = Vec::new();
    push_bye(&mut b, &[7; 40]);
    let Packet::Bye(list) = one(&b) else { panic!() };
    assert_eq!(list.count(), 31);
}

#[test]
fn cumulative_loss_is_signed_24_bit() {
    for lost in [0, 1, -1, 0x7F_FFFF, -0x80_0000] {
        let mut b = Vec::new();
        push_receiver_report(&mut b, 1, &[ReportBlock { cumulative_lost: lost, ..block(1) }]);
        let Packet::ReceiverReport { mut reports, .. } = one(&b) else { panic!() };
        let got = reports.next().unwrap();
        assert_eq!((got.cumulative_lost, got.fraction_lost), (lost, 12));
    }
}

#[test]
fn nack_packs_and_expands_over_the_wrap() {
    let lost: Vec<u16> = vec![65_530, 65_531, 65_535, 0, 10, 11, 400];
    let mut b = Vec::new();
    push_nack(&mut b, 1, 2, &lost);
    assert_eq!(b.len(), 12 + 4 * 3);
    let Packet::Nack { sender: 1, media: 2, lost: got } = one(&b) else { panic!() };
    assert_eq!(got.collect::<Vec<_>>(), lost);
    let mut none = Vec::new();
    push_nack(&mut none, 1, 2, &[]);
    assert!(none.is_empty());
}

#[test]
fn nack_expansion_is_bounded() {
    let mut b = Vec::new();
    let lost: Vec<u16> = (0..5000).map(|i| i * 3).collect();
    push_nack(&mut b, 1, 2, &lost);
    let Packet::Nack { lost: got, .. } = one(&b) else { panic!() };
    assert_eq!(got.count(), MAX_NACKED);
}

#[test]
fn requests_round_trip() {
    let mut b = Vec::new();
    push_pli(&mut b, 1, 2);
    push_fir(&mut b, 3, 4, 9);
    push_remb(&mut b, 5, 5_000_001, &[8, 9]);
    push_sdes_cname(&mut b, 1, "headwater");
    push_bye(&mut b, &[1]);
    let mut it = Packets::new(&b);
    assert!(matches!(it.next(), Some(Packet::Pli { sender: 1, media: 2 })));
    let Some(Packet::Fir { sender: 3, entries }) = it.next() else { panic!() };
    assert_eq!(entries.collect::<Vec<_>>(), [(4, 9)]);
    let Some(Packet::Remb { sender: 5, bitrate, ssrcs }) = it.next() else { panic!() };
    assert!(bitrate <= 5_000_001 && bitrate > 4_999_900, "{bitrate}");
    assert_eq!(ssrcs.collect::<Vec<_>>(), [8, 9]);
    assert!(matches!(it.next(), Some(Packet::SourceDescription(_))));
    assert!(matches!(it.next(), Some(Packet::Bye(_))));
    assert!(it.next().is_none());
}

#[test]
fn remb_extremes_do_not_overflow() {
    for rate in [0, 1, 0x3_FFFF, 0x4_0000, u64::MAX] {
        let mut b = Vec::new();
        push_remb(&mut b, 1, rate, &[]);
        let Packet::Remb { bitrate, .. } = one(&b) else { panic!() };
        assert!(bitrate <= rate && rate - bitrate <= rate >> 17, "{rate} {bitrate}");
    }
    let mut b = Vec::new();
    push_remb(&mut b, 1, 1, &[]);
    (b[17], b[18], b[19]) = (0xFF, 0xFF, 0xFF);
    let Packet::Remb { bitrate, .. } = one(&b) else { panic!() };
    assert_eq!(bitrate, u64::MAX);
}

#[test]
fn padding_and_malformed_packets() {
    let mut b = Vec::new();
    push_pli(&mut b, 1, 2);
    b[0] |= 0x20;
    b[3] += 1;
    b.extend_from_slice(&[0, 0, 0, 4]);
    assert!(matches!(one(&b), Packet::Pli { sender: 1, media: 2 }));
    *b.last_mut().unwrap() = 0;
    assert_eq!(Packets::new(&b).count(), 0);
    *b.last_mut().unwrap() = 200;
    assert_eq!(Packets::new(&b).count(), 0);
    // A count above what is there.
    let mut rr = Vec::new();
    push_receiver_report(&mut rr, 1, &[block(1)]);
    rr[0] = 0x82;
    assert_eq!(Packets::new(&rr).count(), 0);
    assert_eq!(Packets::new(&[0x80, 204, 0, 0]).count(), 1);
    assert_eq!(Packets::new(&[0x80, 204, 0, 0].repeat(1000)).count(), MAX_PACKETS);
}

#[test]
fn truncations_are_safe() {
    let mut b = Vec::new();
    push_sender_report(&mut b, 5, &info(), &[block(1)]);
    push_nack(&mut b, 1, 2, &[1, 2, 3]);
    push_remb(&mut b, 5, 5_000_001, &[8, 9]);
    for n in 0..b.len() {
        let count = Packets::new(&b[..n]).count();
        assert!(count < 3);
    }
}

#[test]
fn time() {
    assert_eq!(ntp_from_unix_us(0) >> 32, 2_208_988_800);
    assert_eq!(ntp_from_unix_us(500_000) & 0xFFFF_FFFF, 1 << 31);
    let now = ntp_from_unix_us(1_700_000_000_000_000);
    let sr = ntp_middle(now);
    let b = ReportBlock { last_sr: sr.wrapping_sub(65_536), delay_since_last_sr: 32_768, ..block(1) };
    assert_eq!(rtt_us(now, &b), Some(500_000));
    assert_eq!(rtt_us(now, &ReportBlock { last_sr: 0, ..b }), None);
    assert_eq!(rtt_us(now, &ReportBlock { delay_since_last_sr: 70_000, ..b }), None);
}

#[test]
fn agrees_with_another_implementation() {
    use rtcp_types::{Compound, Packet as Theirs};
    let mut b = Vec::new();
    push_sender_report(&mut b, 5, &info(), &[block(1)]);
    push_sdes_cname(&mut b, 5, "headwater-node-1");
    push_nack(&mut b, 1, 2, &[65_534, 65_535, 3, 100]);
    push_pli(&mut b, 1, 2);
    push_fir(&mut b, 1, 2, 3);
    push_bye(&mut b, &[5]);
    let mut kinds = Vec::new();
    for p in Compound::parse(&b).unwrap() {
        match p.unwrap() {
            Theirs::Sr(sr) => {
                assert_eq!((sr.ssrc(), sr.ntp_timestamp(), sr.octet_count()), (5, info().ntp, 11));
                let r = sr.report_blocks().next().unwrap();
                assert_eq!((r.fraction_lost(), r.interarrival_jitter()), (12, 77));
                kinds.push("sr");
            }
            Theirs::Sdes(s) => {
                let chunk = s.chunks().next().unwrap();
                assert_eq!(chunk.items().next().unwrap().get_value_string().unwrap(), "headwater-node-1");
                kinds.push("sdes");
            }
            Theirs::TransportFeedback(f) => {
                let n = f.parse_fci::<rtcp_types::Nack>().unwrap();
                assert_eq!(n.entries().collect::<Vec<_>>(), [65_534, 65_535, 3, 100]);
                kinds.push("nack");
            }
            Theirs::PayloadFeedback(f) if f.parse_fci::<rtcp_types::Pli>().is_ok() => kinds.push("pli"),
            Theirs::PayloadFeedback(f) => {
                let fir = f.parse_fci::<rtcp_types::Fir>().unwrap();
                let e = fir.entries().next().unwrap();
                assert_eq!((e.ssrc(), e.sequence()), (2, 3));
                kinds.push("fir");
            }
            Theirs::Bye(_) => kinds.push("bye"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(kinds, ["sr", "sdes", "nack", "pli", "fir", "bye"]);
}
