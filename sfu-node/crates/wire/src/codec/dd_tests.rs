use super::*;

/// Bytes of a row of bits; spaces are left out.
fn bytes(bits: &str) -> Vec<u8> {
    let bits: Vec<u8> = bits.bytes().filter(|b| *b != b' ').map(|b| b - b'0').collect();
    bits.chunks(8).map(|c| (0..8).fold(0, |v, i| v << 1 | c.get(i).copied().unwrap_or(0))).collect()
}

fn mandatory(begins: bool, ends: bool, template: u8, number: u16) -> String {
    format!("{}{}{template:06b}{number:016b}", u8::from(begins), u8::from(ends))
}

/// Two spatial by two temporal layers, the upper spatial one dependent on the lower in key pictures alone.
fn l2t2_key(offset: u8) -> String {
    let indications = "10101010 10100000 00010000 00001010 00001010 00000001";
    // One bit says that a difference follows, less one in four bits.
    let differences = "0 1 0011 0 1 0001 0 1 0000 0 1 0011 0 1 0001 0";
    // Two chains (non-symmetric below 5), each target's chain, then a difference for each template and chain.
    let chains = format!("10 0 0 1 1 {}", "0000".repeat(12));
    let sizes = format!("1 {:016b}{:016b}{:016b}{:016b}", 319, 179, 639, 359);
    format!("{offset:06b} 00011 00 01 10 00 01 11 {indications} {differences} {chains} {sizes}")
}

fn attached(offset: u8, template: u8, number: u16, rest: &str) -> Vec<u8> {
    bytes(&format!("{} 10000 {} {rest}", mandatory(true, false, template, number), l2t2_key(offset)))
}

#[test]
fn a_structure_and_its_frames() {
    let first = attached(3, 3, 7, "");
    assert!(is_attached(&first));
    let s = Structure::parse(&first).unwrap();
    assert_eq!((s.spatial_layers(), s.len, s.targets), (2, 6, 4));
    assert_eq!(s.target_layers[..4], [(0, 0), (0, 1), (1, 0), (1, 1)]);
    assert!(s.end <= first.len() * 8 && s.end + 8 > first.len() * 8);
    let frame = |template: u8| {
        let f = s.frame(&bytes(&mandatory(true, true, template + 3, 9))).unwrap();
        assert!(f.ends);
        (f.spatial, f.temporal, f.lifts)
    };
    assert_eq!(frame(0), (0, 0, true));
    assert_eq!(frame(1), (0, 0, true));
    assert_eq!(frame(2), (0, 1, true), "nothing above it");
    assert_eq!(frame(3), (1, 0, true));
    assert_eq!(frame(4), (1, 0, true));
    assert_eq!(frame(5), (1, 1, true));
    assert!(!s.frame(&first).unwrap().ends);
    assert_eq!(s.frame(&bytes(&mandatory(true, true, 9, 9))), None, "no such template");
    assert_eq!(s.frame(&bytes(&mandatory(true, true, 2, 9))), None, "before the first");
}

#[test]
fn ids_go_round() {
    let s = Structure::parse(&attached(62, 62, 7, "")).unwrap();
    let f = s.frame(&bytes(&mandatory(true, true, 1, 9))).unwrap();
    assert_eq!((f.spatial, f.temporal), (1, 0));
}

#[test]
fn a_packet_may_differ_from_its_template() {
    let s = Structure::parse(&attached(0, 0, 7, "")).unwrap();
    // Active targets, then indications, then a difference.
    let custom = "01110 1111 10010000 01 0100 00";
    let f = s.frame(&bytes(&format!("{} {custom}", mandatory(true, true, 1, 9)))).unwrap();
    assert!(!f.lifts, "its target with the higher rate is but discardable");
    assert_eq!(s.frame(&bytes(&format!("{} 00100", mandatory(true, true, 1, 9)))), None, "cut off");
    // Behind an attached structure as well.
    let mut first = attached(0, 0, 7, "10110000");
    first[3] |= 0b0010_0000;
    let s = Structure::parse(&first).unwrap();
    assert!(!s.frame(&first).unwrap().lifts);
}

#[test]
fn hostile_descriptors_are_refused() {
    let whole = attached(0, 0, 7, "");
    let s = Structure::parse(&whole).unwrap();
    for n in 0..whole.len() {
        assert!(Structure::parse(&whole[..n]).is_none(), "{n}");
        let _ = s.frame(&whole[..n]);
        for bit in 0..8 {
            let mut mutant = whole.clone();
            mutant[n] ^= 1 << bit;
            if let Some(other) = Structure::parse(&mutant) {
                let _ = other.frame(&mutant);
                assert!((1..=64).contains(&other.spatial_layers()));
            }
        }
    }
    // Templates without end.
    assert!(
        Structure::parse(&[0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            .is_none()
    );
    assert!(Structure::parse(&[0xFF; 255]).is_none());
}

fn edit(structure: Option<&Structure>, spatial: u8, temporal: u8) -> Edit<'_> {
    Edit { offset: 10, limit: Limit { spatial, temporal }, structure }
}

#[test]
fn a_subscriber_is_told_which_targets_it_gets() {
    let rest = "1 0110"; // what may follow the structure stays behind what is put in
    let first = attached(3, 3, 65_530, rest);
    let s = Structure::parse(&first).unwrap();
    // Targets from the lowest bit on: (0, 0), (0, 1), (1, 0), (1, 1).
    for (spatial, temporal, targets) in [(0, 0, "0001"), (0, 3, "0011"), (1, 0, "0101"), (1, 3, "1111")] {
        let told = edit(None, spatial, temporal).apply(&first);
        let wanted = format!("{} 11000 {} {targets} {rest}", mandatory(true, false, 3, 4), l2t2_key(3));
        let (told, wanted) = (told.as_slice(), bytes(&wanted));
        assert_eq!(told[..wanted.len()], wanted);
        assert!(told[wanted.len()..].iter().all(|b| *b == 0) && told.len() <= wanted.len() + 1);
        assert_eq!(Structure::parse(told).unwrap().end, s.end);
        // A frame that begins, without anything but its number, and one with a difference of its own.
        for (own, flags) in [("", "01000"), ("00010 01 0100 00", "01010")] {
            let tail = own.get(5..).unwrap_or("");
            let plain = bytes(&format!("{} {own}", mandatory(true, true, 5, 9)));
            let wanted = bytes(&format!("{} {flags} {targets} {tail}", mandatory(true, true, 5, 19)));
            let told = edit(Some(&s), spatial, temporal).apply(&plain);
            assert_eq!(told.as_slice()[..wanted.len()], wanted);
        }
    }
}

#[test]
fn nothing_but_the_number_is_told_where_nothing_is_held_back() {
    let first = attached(3, 3, 7, "");
    let s = Structure::parse(&first).unwrap();
    let whole = Edit { limit: Limit::ALL, ..edit(Some(&s), 0, 0) };
    assert_eq!(whole.apply(&first).as_slice(), attached(3, 3, 17, ""));
    let number = |begins, template| bytes(&mandatory(begins, true, template, 9));
    let renumbered = |begins, template| bytes(&mandatory(begins, true, template, 19));
    assert_eq!(edit(Some(&s), 0, 0).apply(&number(false, 4)).as_slice(), renumbered(false, 4), "goes on");
    assert_eq!(edit(None, 0, 0).apply(&number(true, 4)).as_slice(), renumbered(true, 4));
    assert_eq!(edit(Some(&s), 0, 0).apply(&number(true, 40)).as_slice(), renumbered(true, 40), "of another");
    for short in [&[][..], &[0x80], &[0x80, 1]] {
        assert_eq!(edit(Some(&s), 0, 0).apply(short).as_slice(), short);
    }
    assert_eq!(edit(Some(&s), 0, 0).apply(&[0xFF; 255]).as_slice().len(), 255);
}

#[test]
fn targets_that_the_source_left_out_stay_out() {
    let mut s = Structure::parse(&attached(0, 0, 7, "")).unwrap();
    let tells = |targets: &str| bytes(&format!("{} 01000 {targets}", mandatory(true, true, 1, 9)));
    s.on_targets(&tells("0111"));
    let plain = bytes(&mandatory(true, true, 1, 9));
    let told = |s: &Structure, d: &[u8]| edit(Some(s), 1, 0).apply(d).as_slice()[3];
    assert_eq!(told(&s, &plain), 0b0100_0010, "0101 of four, the last bit in the next byte");
    assert_eq!(edit(Some(&s), 1, 3).apply(&plain).as_slice()[3..], [0b0100_0011, 0b1000_0000]);
    assert_eq!(edit(Some(&s), 1, 3).apply(&tells("0001")).as_slice()[3..], [0b0100_0000, 0b1000_0000]);
}
