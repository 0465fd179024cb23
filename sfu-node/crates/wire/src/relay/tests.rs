use super::*;
use crate::bytes::u64_at;

const KEY: [u8; 32] = [7; 32];

fn link() -> (Sealer, Opener) {
    (Sealer::new(&KEY, 0xAABB_CCDD, 3, 1_000_000).unwrap(), Opener::new(&KEY, 0xAABB_CCDD, 3).unwrap())
}

fn media<'a>(payload: &'a [u8], extensions: &'a [u8]) -> Media<'a> {
    Media {
        handle: 9,
        spatial: 2,
        codec: Codec::Vp8,
        marker: true,
        key_frame: true,
        retransmission: false,
        sequence: 65_535,
        timestamp: 0xFFFF_FFF0,
        extensions,
        payload,
    }
}

fn ping(tx: &mut Sealer) -> Vec<u8> {
    let mut b = Vec::new();
    let mut d = tx.begin(&mut b);
    d.ping(1, 2).unwrap();
    d.seal().unwrap();
    b
}

#[test]
fn all_messages_share_a_datagram() {
    let (mut tx, mut rx) = link();
    let mut arena = vec![0xEE; 7];
    let mut d = tx.begin(&mut arena);
    let m = media(b"payload", &[4, 1, 9]);
    let demand = Demand { handle: 9, spatial_mask: 0b101, track_id: "TR_abc" };
    d.media(&m).unwrap();
    d.demand(&demand).unwrap();
    assert_eq!(d.nack(9, 1, &[65_535, 0, 7]), 3);
    d.key_frame_request(9, 1).unwrap();
    d.ping(1, 2).unwrap();
    d.pong(3, 4).unwrap();
    d.report(5, 6).unwrap();
    d.sender_clock(9, 2, 0x0102_0304_0506_0708, 10).unwrap();
    let n = d.seal().unwrap();
    assert_eq!((arena[..7].to_vec(), arena.len()), (vec![0xEE; 7], 7 + n));
    let mut datagram = arena.split_off(7);
    assert_eq!(token(&datagram), Some(0xAABB_CCDD));
    let got: Vec<_> = rx.open(&mut datagram).unwrap().collect();
    assert_eq!(got[0], Message::Media(m));
    assert_eq!(got[1], Message::Demand(demand));
    let Message::Nack { handle: 9, spatial: 1, lost } = got[2] else { panic!() };
    assert_eq!(lost.iter().collect::<Vec<_>>(), [65_535, 0, 7]);
    assert_eq!(
        got[3..],
        [
            Message::KeyFrameRequest { handle: 9, spatial: 1 },
            Message::Ping { id: 1, sent_us: 2 },
            Message::Pong { id: 3, sent_us: 4 },
            Message::Report { received: 5, expected: 6 },
            Message::SenderClock { handle: 9, spatial: 2, ntp: 0x0102_0304_0506_0708, rtp_timestamp: 10 },
        ]
    );
}

#[test]
fn replays_reordering_and_loss() {
    let (mut tx, mut rx) = link();
    let all: Vec<Vec<u8>> = (0..2000).map(|_| ping(&mut tx)).collect();
    assert!(rx.open(&mut all[5].clone()).is_ok());
    assert_eq!(rx.open(&mut all[5].clone()).err(), Some(RelayError::Replayed));
    assert!(rx.open(&mut all[3].clone()).is_ok());
    assert_eq!(rx.open(&mut all[3].clone()).err(), Some(RelayError::Replayed));
    assert_eq!(rx.counts(), (2, 3));
    assert!(rx.open(&mut all[1500].clone()).is_ok());
    assert_eq!(rx.open(&mut all[476].clone()).err(), Some(RelayError::Replayed));
    assert!(rx.open(&mut all[477].clone()).is_ok());
    assert_eq!(rx.open(&mut all[477].clone()).err(), Some(RelayError::Replayed));
    for datagram in &all[1501..1999] {
        assert!(rx.open(&mut datagram.clone()).is_ok());
    }
    assert_eq!(rx.counts(), (4 + 498, 1996));
}

#[test]
fn the_wrong_key_token_epoch_or_version_is_refused() {
    let (mut tx, mut rx) = link();
    let good = ping(&mut tx);
    let refused = |rx: &mut Opener| rx.open(&mut good.clone()).err();
    assert_eq!(
        refused(&mut Opener::new(&[8; 32], 0xAABB_CCDD, 3).unwrap()),
        Some(RelayError::Authentication)
    );
    assert_eq!(refused(&mut Opener::new(&KEY, 1, 3).unwrap()), Some(RelayError::Token));
    assert_eq!(refused(&mut Opener::new(&KEY, 0xAABB_CCDD, 4).unwrap()), Some(RelayError::Epoch));
    let mut other = good.clone();
    other[0] = 0x62;
    assert_eq!(rx.open(&mut other).err(), Some(RelayError::Version));
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1;
        assert!(rx.open(&mut bad).is_err(), "byte {i}");
        assert!(rx.open(&mut good[..i].to_vec()).is_err(), "length {i}");
    }
    assert_eq!(rx.counts(), (0, 0));
    assert!(rx.open(&mut good.clone()).is_ok());
}

#[test]
fn datagrams_are_bounded() {
    let (mut tx, mut rx) = link();
    let mut arena = Vec::new();
    let mut d = tx.begin(&mut arena);
    let payload = [0; 700];
    d.media(&media(&payload, &[])).unwrap();
    assert_eq!(d.media(&media(&payload, &[])), Err(RelayError::TooLarge));
    let lost: Vec<u16> = (0..1000).collect();
    assert_eq!(d.nack(1, 0, &lost), MAX_NACK);
    let fits = d.nack(1, 0, &lost[256..]);
    assert!(fits < MAX_NACK);
    assert_eq!(d.nack(1, 0, &[]), 0);
    let n = d.seal().unwrap();
    assert!(n <= MAX_DATAGRAM, "{n}");
    assert_eq!(rx.open(&mut arena).unwrap().count(), if fits == 0 { 2 } else { 3 });

    // A packet that is too large for any datagram goes alone rather than being lost.
    let big = [1; 1500];
    let mut arena = Vec::new();
    let mut d = tx.begin(&mut arena);
    d.media(&media(&big, &[])).unwrap();
    d.seal().unwrap();
    assert_eq!(rx.open(&mut arena).unwrap().count(), 1);
}

#[test]
fn bad_fields_are_not_written_and_unsealed_datagrams_leave_no_trace() {
    let (mut tx, _) = link();
    let mut arena = vec![1, 2, 3];
    let mut d = tx.begin(&mut arena);
    assert_eq!(d.media(&Media { spatial: 4, ..media(b"", &[]) }), Err(RelayError::Malformed));
    assert_eq!(d.media(&media(b"", &[0; 513])), Err(RelayError::Malformed));
    let long = "x".repeat(129);
    for track_id in ["", &long] {
        assert_eq!(d.demand(&Demand { handle: 1, spatial_mask: 1, track_id }), Err(RelayError::Malformed));
    }
    assert!(d.is_empty());
    assert_eq!(d.seal(), Err(RelayError::Malformed));
    assert_eq!(arena, [1, 2, 3]);
    tx.begin(&mut arena).ping(1, 1).unwrap();
    assert_eq!(arena, [1, 2, 3]);
}

#[test]
fn no_counter_is_used_twice() {
    let (mut tx, _) = link();
    let counters: Vec<u64> = (0..5).map(|_| u64_at(&ping(&mut tx), 12).unwrap()).collect();
    assert_eq!(counters, [1_000_000, 1_000_001, 1_000_002, 1_000_003, 1_000_004]);
}

#[test]
fn unknown_types_are_skipped_and_malformed_messages_end_the_datagram() {
    let ok = [5, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2];
    let joined = [&[99u8, 0, 2, 7, 7][..], &ok].concat();
    assert_eq!(Messages::new(&joined).collect::<Vec<_>>(), [Message::Ping { id: 1, sent_us: 2 }]);
    for bad in [&[5u8, 0, 3, 1, 2, 3][..], &[2, 0, 5, 0, 0, 0, 1, 1], &[1, 0, 1, 0], &[5, 0xFF, 0xFF, 0]] {
        assert_eq!(Messages::new(&[bad, &ok].concat()).count(), 0, "{bad:?}");
    }
    assert_eq!(Messages::new(&[99, 0, 0].repeat(10_000)).count(), 0);
    // Codec 0 does not exist.
    let mut m = vec![1, 0, 14];
    m.extend([0; 14]);
    assert_eq!(Messages::new(&m).count(), 0);
}
