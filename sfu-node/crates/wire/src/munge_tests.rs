use super::*;
use crate::codec::vp8::{Descriptor, PictureId};

fn src(layer: u8, sequence: u64, timestamp: u32) -> Source<'static> {
    Source { layer, sequence, timestamp, vp8: None }
}

fn munger() -> Munger {
    Munger::new(65_534, 1000, 90_000)
}

#[test]
fn continuous_over_a_switch_and_the_wrap() {
    let mut m = munger();
    assert_eq!(m.map(&src(0, 500, 7), 0), None);
    assert_eq!(m.highest_index(), None);
    let a = m.switch(&src(0, 0x1_0000 + 500, 7), 0);
    assert_eq!((a.sequence(), a.roc(), a.timestamp), (65_534, 0, 1000));
    let b = m.map(&src(0, 0x1_0000 + 501, 7 + 3000), 33_333).unwrap();
    assert_eq!((b.sequence(), b.roc(), b.timestamp), (65_535, 0, 4000));
    let c = m.switch(&src(2, 0x1_0000 + 9, 0xFFFF_0000), 66_666);
    assert_eq!((c.sequence(), c.roc()), (0, 1));
    assert!((2999..=3000).contains(&(c.timestamp - 4000)), "{}", c.timestamp);
    assert_eq!(m.layer(), Some(2));
    // The old layer is over.
    assert_eq!(m.map(&src(0, 0x1_0000 + 502, 7 + 3000), 0), None);
    assert_eq!(m.map(&src(1, 77, 0), 0), None);
    assert_eq!(m.highest_index(), Some(0x1_0000));
}

#[test]
fn losses_stay_gaps_and_late_packets_fill_them() {
    let mut m = munger();
    m.switch(&src(0, 100, 0), 0);
    let late = m.map(&src(0, 103, 0), 0).unwrap();
    assert_eq!(late.index, 65_537);
    assert_eq!(m.map(&src(0, 101, 0), 0).unwrap().index, 65_535);
    assert_eq!(m.highest_index(), Some(65_537));
    // From before the first packet.
    assert_eq!(m.map(&src(0, 99, 0), 0), None);
}

#[test]
fn dropped_packets_close_up() {
    let mut m = munger();
    m.switch(&src(0, 100, 0), 0);
    for s in 101..150 {
        m.drop_packet(0, s);
    }
    assert!(m.segments.len() <= 2);
    assert_eq!(m.map(&src(0, 150, 0), 0).unwrap().index, 65_535);
    assert_eq!(m.map(&src(0, 120, 0), 0), None);
    // Dropped behind a later packet: the gap stays, the numbers do not move.
    m.map(&src(0, 153, 0), 0).unwrap();
    m.drop_packet(0, 151);
    assert_eq!(m.map(&src(0, 154, 0), 0).unwrap().index, 65_539);
    // A packet lost before the padding keeps its number.
    m.drop_packet(0, 156);
    assert_eq!(m.map(&src(0, 157, 0), 0).unwrap().index, 65_541);
    assert_eq!(m.map(&src(0, 155, 0), 0).unwrap().index, 65_540);
}

#[test]
fn no_number_is_given_twice_whatever_comes_again() {
    let mut m = munger();
    m.switch(&src(0, 1000, 0), 0);
    let given: Vec<u64> = (1001..1200).map(|s| m.map(&src(0, s, 0), 0).unwrap().index).collect();
    assert!((1001..1200).all(|s| m.map(&src(0, s, 0), 0).is_none()), "a packet that comes again");
    // Another source on the same m-line, whose numbers lie among those of the first.
    let next = m.switch(&src(0, 1100, 0), 0).index;
    assert!(next > given[given.len() - 1]);
    assert_eq!(m.map(&src(0, 1099, 0), 0), None, "it would have the number of a packet of the first source");
    // Where numbers have closed up further back, those before do not overlap with them.
    let mut m = munger();
    m.switch(&src(0, 0, 0), 0);
    m.drop_packet(0, 2);
    m.map(&src(0, 3, 0), 0).unwrap();
    m.skip_to(0, 5);
    let mut given: Vec<u64> = [5, 6].map(|s| m.map(&src(0, s, 0), 0).unwrap().index).to_vec();
    given.extend(m.map(&src(0, 1, 0), 0).map(|r| r.index));
    given.sort_unstable();
    assert!(given.windows(2).all(|w| w[0] < w[1]), "{given:?}");
    // Too late to tell.
    m.map(&src(0, 7000, 0), 0).unwrap();
    assert_eq!(m.map(&src(0, 7000 - MAX_LATE - 1, 0), 0), None);
    assert!(m.map(&src(0, 7000 - MAX_LATE + 1, 0), 0).is_some());
}

#[test]
fn limits_hold_from_a_packet_on_and_late_ones_go_by_theirs() {
    let (low, high) = (Limit { spatial: 0, temporal: 3 }, Limit { spatial: 2, temporal: 3 });
    let mut m = munger();
    m.switch(&src(0, 100, 0), 0);
    m.set_limit(0, 100, low);
    assert_eq!(m.segments.len(), 1);
    let limit = |m: &mut Munger, s| m.map(&src(0, s, 0), 0).map(|r| (r.index, m.limit_at(0, s)));
    assert_eq!(limit(&mut m, 101), Some((65_535, low)));
    m.drop_packet(0, 102);
    // 103 is lost; from 104 on all is forwarded.
    assert!(m.is_next(0, 104) && !m.is_next(0, 101) && !m.is_next(1, 104));
    m.set_limit(0, 104, high);
    m.set_limit(0, 104, high);
    assert_eq!(limit(&mut m, 104), Some((65_537, high)));
    assert!(!m.is_next(0, 103));
    assert_eq!(limit(&mut m, 103), Some((65_536, low)), "late");
    assert_eq!(limit(&mut m, 102), None, "dropped");
    let origin = |m: &Munger, i: u64| m.origin((i & 0xFFFF) as u16).map(|o| (o.sequence, o.limit));
    assert_eq!(origin(&m, 65_536), Some((103, low)));
    assert_eq!(origin(&m, 65_537), Some((104, high)));
    // Dropped right where the limit changes.
    m.set_limit(0, 105, low);
    m.drop_packet(0, 105);
    assert_eq!(limit(&mut m, 106), Some((65_538, low)));
}

#[test]
fn origin_is_the_inverse_of_what_was_sent() {
    let mut m = munger();
    let mut x = 1u32;
    let mut sent = Vec::new();
    let mut next = [1000u64, 70_000, 130_000];
    let mut layer = 0usize;
    m.switch(&src(0, next[0], 0), 0);
    sent.push((0u8, next[0], 65_534u64));
    for i in 0..2000u64 {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match x >> 28 {
            0 if i % 3 == 0 => {
                layer = (layer + 1) % 3;
                next[layer] += 40;
                let r = m.switch(&src(layer as u8, next[layer], i as u32), i * 1000);
                sent.push((layer as u8, next[layer], r.index));
            }
            1 | 2 => {
                next[layer] += 1;
                m.drop_packet(layer as u8, next[layer]);
            }
            n => {
                next[layer] += u64::from(n) % 3 + 1;
                let r = m.map(&src(layer as u8, next[layer], i as u32), i * 1000).unwrap();
                sent.push((layer as u8, next[layer], r.index));
            }
        }
        assert!(m.segments.len() <= MAX_SEGMENTS);
        for (layer, source, index) in sent.iter().rev().take(20) {
            let o = m.origin((*index & 0xFFFF) as u16).unwrap();
            assert_eq!((o.layer, o.sequence, o.index), (*layer, *source, *index));
        }
    }
    assert!(sent.windows(2).all(|w| w[0].2 < w[1].2));
    assert_eq!(m.origin((m.next_index & 0xFFFF) as u16), None);
}

#[test]
fn a_number_from_before_the_memory_has_no_origin() {
    let mut m = munger();
    assert_eq!(m.origin(65_534), None);
    m.switch(&src(0, 1, 0), 0);
    assert!(m.origin(65_534).is_some());
    assert_eq!(m.origin(65_533), None);
    assert_eq!(m.origin(0), None);
    m.map(&src(0, 1 + 20_000, 0), 0).unwrap();
    assert_eq!(m.origin(65_534), None);
    assert_eq!(m.map(&src(0, 2, 0), 0), None);
}

#[test]
fn vp8_ids_go_on_over_a_switch() {
    let d = |pid: u16, tl0: u8| Descriptor {
        len: 6,
        start_of_partition: true,
        partition: 0,
        picture_id: Some(PictureId { value: pid, wide: true, at: 2 }),
        tl0_pic_idx: Some(tl0),
        tl0_at: 4,
        temporal_id: Some(0),
        layer_sync: false,
        key_frame: true,
    };
    let mut m = munger();
    let with = |layer, sequence, d| Source { layer, sequence, timestamp: 0, vp8: Some(d) };
    let (a, b, c) = (d(0x7FFE, 255), d(0x7FFF, 0), d(5, 9));
    assert_eq!(m.switch(&with(0, 10, &a), 0).vp8, vp8::Offsets::default());
    m.map(&with(0, 11, &b), 0).unwrap();
    let r = m.switch(&with(1, 20, &c), 0);
    assert_eq!(5u16.wrapping_add(r.vp8.picture_id) & 0x7FFF, 0);
    assert_eq!(9u8.wrapping_add(r.vp8.tl0_pic_idx), 1);
    // NACKs on either side of the switch are rebuilt with the offsets of their time.
    assert_eq!(m.origin(65_535).unwrap().vp8, vp8::Offsets::default());
    assert_eq!(m.origin(0).unwrap().vp8, r.vp8);
}

#[test]
fn what_was_not_sent_on_purpose_leaves_no_gap_and_takes_its_time() {
    let mut m = munger();
    m.switch(&src(0, 100, 0), 0);
    let before = m.map(&src(0, 102, 2 * 960), 20_000).unwrap();
    m.skip_to(0, 103);
    assert_eq!(m.segments.len(), 1, "nothing is missing");
    m.skip_to(1, 400);
    m.skip_to(0, 400);
    let after = m.map(&src(0, 400, 300 * 960), 6_000_000).unwrap();
    assert_eq!(after.index, before.index + 1);
    assert_eq!(after.timestamp, before.timestamp + 298 * 960);
    assert_eq!(m.map(&src(0, 399, 299 * 960), 6_000_000), None, "late, and never to be sent");
    assert_eq!(m.map(&src(0, 101, 960), 6_000_000).unwrap().index, before.index - 1, "repaired");
    let origins = [before, after].map(|r| m.origin(r.sequence()).unwrap().sequence);
    assert_eq!(origins, [102, 400]);
}
