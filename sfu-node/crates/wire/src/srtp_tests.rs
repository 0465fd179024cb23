use super::*;
use crate::rtp::{HeaderWriter, RtpHeader};

const PROFILES: [Profile; 3] = [Profile::Aes128CmSha1_80, Profile::AeadAes128Gcm, Profile::AeadAes256Gcm];

fn hex(s: &str) -> Vec<u8> {
    let digits: Vec<u8> = s.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap()).collect()
}

/// A client and a server with the same material.
fn pair(profile: Profile) -> ((Inbound, Outbound), (Inbound, Outbound)) {
    let material: Vec<u8> = (0..profile.material_len()).map(|i| (i * 7 + 1) as u8).collect();
    (sessions(profile, &material, Role::Client).unwrap(), sessions(profile, &material, Role::Server).unwrap())
}

fn packet(seq: u16, ssrc: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let h = RtpHeader { marker: false, payload_type: 96, sequence: seq, timestamp: 77, ssrc };
    let mut w = HeaderWriter::begin(&mut out, &h);
    w.extension(3, &[1, 2]);
    w.finish();
    out.extend_from_slice(b"the payload of a packet");
    out
}

fn sealed(tx: &Outbound, index: u64, ssrc: u32) -> Vec<u8> {
    let mut arena = vec![0xEE; 5];
    arena.extend(packet(index as u16, ssrc));
    tx.seal_rtp(&mut arena, 5, (index >> 16) as u32).unwrap();
    assert_eq!(arena[..5], [0xEE; 5]);
    arena.split_off(5)
}

fn single(rtp: Cipher, rtcp: Cipher) -> Ciphers {
    Ciphers { rtp, rtcp }
}

#[test]
fn rfc3711_appendix_b2_keystream() {
    let key = counter_key(&hex("2B7E151628AED2A6ABF7158809CF4F3C")).unwrap();
    let salt: [u8; 14] = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
    let mut data = [0; 48];
    counter_mode(&key, cm_iv(&salt, 0, 0), &mut data).unwrap();
    assert_eq!(
        data[..],
        hex(
            "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0"
        )
    );
}

#[test]
fn rfc3711_appendix_b3_key_derivation() {
    let master = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
    let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
    let get = |label, len| {
        let mut out = vec![0; len];
        derive(&master, &salt, label, &mut out).unwrap();
        out
    };
    assert_eq!(get(0, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(get(2, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(get(1, 20), hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
}

#[test]
fn aes_cm_packet_vectors() {
    // The reference vectors of the RFC 3711 authors' own implementation, same master key as B.3.
    let ciphers = Ciphers::derive(
        Profile::Aes128CmSha1_80,
        &hex("E1F97A0D3E018BE0D64FA32C06DE4139"),
        &hex("0EC675AD498AFEEBB6960B3AABE6"),
    );
    let mut tx = Outbound { profile: Profile::Aes128CmSha1_80, ciphers: ciphers.unwrap(), rtcp_index: 0 };
    let mut p = hex("800f1234decafbadcafebabe");
    p.extend([0xAB; 16]);
    tx.seal_rtp(&mut p, 0, 0).unwrap();
    assert_eq!(p, hex("800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb"));
    let mut p = hex("81c8000bcafebabe");
    p.extend([0xAB; 16]);
    tx.seal_rtcp(&mut p, 0).unwrap();
    assert_eq!(p, hex("81c8000bcafebabe 7128035be487b9bdbef89041f977a5a8 80000001 993e08cd54d6c1230798"));
}

#[test]
fn rfc7714_section_16_rtp_vectors() {
    let salt: [u8; 12] = hex("517569642070726f2071756f").try_into().unwrap();
    let plain = hex("8040f17b8041f8d35501a0b2 47616c6c69612065737420
         6f6d6e69732064697669736120696e207061727465732074726573");
    let cases = [
        (
            Profile::AeadAes128Gcm,
            16u8,
            "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            Profile::AeadAes256Gcm,
            32,
            "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ];
    for (profile, key_len, want) in cases {
        let key: Vec<u8> = (0..key_len).collect();
        let make = || single(Cipher::gcm(&key, salt).unwrap(), Cipher::gcm(&key, salt).unwrap());
        let tx = Outbound { profile, ciphers: make(), rtcp_index: 0 };
        let mut p = plain.clone();
        tx.seal_rtp(&mut p, 0, 0).unwrap();
        assert_eq!(p[12..], hex(want));
        let mut rx = Inbound { ciphers: make(), sources: vec![], recent: 0 };
        assert_eq!(rx.open_rtp(&mut p), Ok(OpenedRtp { len: plain.len(), index: 0xF17B }));
        assert_eq!(p[..plain.len()], plain);
    }
}

#[test]
fn round_trips_in_both_directions() {
    for profile in PROFILES {
        let ((mut client_rx, mut client_tx), (mut server_rx, mut server_tx)) = pair(profile);
        for (rx, tx) in [(&mut server_rx, &mut client_tx), (&mut client_rx, &mut server_tx)] {
            let mut p = sealed(tx, 9, 5);
            assert_eq!(p.len(), packet(9, 5).len() + tx.rtp_overhead());
            let o = rx.open_rtp(&mut p).unwrap();
            assert_eq!((&p[..o.len], o.index), (&packet(9, 5)[..], 9));

            let mut rtcp = Vec::new();
            crate::rtcp::push_pli(&mut rtcp, 1, 2);
            let plain = rtcp.clone();
            tx.seal_rtcp(&mut rtcp, 0).unwrap();
            assert_eq!(rtcp.len(), plain.len() + profile.rtcp_overhead());
            let n = rx.open_rtcp(&mut rtcp).unwrap();
            assert_eq!(rtcp[..n], plain);
        }
    }
}

#[test]
fn key_material_length_is_checked() {
    for profile in PROFILES {
        for n in [0, 1, profile.material_len() - 1, profile.material_len() + 1, 200] {
            assert_eq!(sessions(profile, &vec![1; n], Role::Server).err(), Some(SrtpError::KeyLength));
        }
        assert_eq!(Profile::from_id(profile as u16), Some(profile));
    }
    assert_eq!(Profile::from_id(2), None);
}

#[test]
fn replays_and_old_packets_are_refused_late_ones_accepted() {
    for profile in PROFILES {
        let ((_, tx), (mut rx, _)) = pair(profile);
        for i in [100u64, 102, 300, 250] {
            rx.open_rtp(&mut sealed(&tx, i, 5)).unwrap();
        }
        for i in [300u64, 250, 172, 100, 0] {
            assert_eq!(rx.open_rtp(&mut sealed(&tx, i, 5)), Err(SrtpError::Replayed), "{i}");
        }
        assert!(rx.open_rtp(&mut sealed(&tx, 173, 5)).is_ok());
        // Another source has its own window.
        assert!(rx.open_rtp(&mut sealed(&tx, 300, 6)).is_ok());
    }
}

#[test]
fn the_roll_over_counter_follows_loss_and_reordering() {
    let ((_, tx), (mut rx, _)) = pair(Profile::AeadAes256Gcm);
    let mut expected = Vec::new();
    let mut i = 65_000u64;
    while i < 65_000 + 5 * 65_536 {
        expected.push(i);
        i += 20_000;
    }
    for (n, i) in expected.iter().enumerate() {
        assert_eq!(rx.open_rtp(&mut sealed(&tx, *i, 5)).unwrap().index, *i);
        if n > 0 {
            assert_eq!(rx.open_rtp(&mut sealed(&tx, *i - 3, 5)).unwrap().index, *i - 3);
        }
    }
    // Reordered around the very wrap.
    let ((_, tx), (mut rx, _)) = pair(Profile::Aes128CmSha1_80);
    for i in [65_534u64, 65_537, 65_535, 65_536, 65_538] {
        assert_eq!(rx.open_rtp(&mut sealed(&tx, i, 5)).unwrap().index, i);
    }
}

#[test]
fn forged_and_truncated_packets_change_nothing() {
    for profile in PROFILES {
        let ((_, mut tx), (mut rx, _)) = pair(profile);
        rx.open_rtp(&mut sealed(&tx, 1, 5)).unwrap();
        let good = sealed(&tx, 2, 5);
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x40;
            assert!(rx.open_rtp(&mut bad).is_err(), "byte {i}");
            assert!(rx.open_rtp(&mut good[..i].to_vec()).is_err(), "length {i}");
        }
        assert_eq!(rx.sources.len(), 1);
        assert!(rx.open_rtp(&mut good.clone()).is_ok());

        let mut rtcp = vec![0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        tx.seal_rtcp(&mut rtcp, 0).unwrap();
        for i in 0..rtcp.len() {
            let mut bad = rtcp.clone();
            bad[i] ^= 0x40;
            assert!(rx.open_rtcp(&mut bad).is_err(), "byte {i}");
            assert!(rx.open_rtcp(&mut rtcp[..i].to_vec()).is_err(), "length {i}");
        }
        assert!(rx.open_rtcp(&mut rtcp.clone()).is_ok());
        assert_eq!(rx.open_rtcp(&mut rtcp.clone()), Err(SrtpError::Replayed));
    }
}

#[test]
fn sources_are_bounded_and_can_be_forgotten() {
    let ((_, tx), (mut rx, _)) = pair(Profile::AeadAes128Gcm);
    for ssrc in 0..MAX_SOURCES as u32 {
        rx.open_rtp(&mut sealed(&tx, 1, ssrc)).unwrap();
    }
    assert_eq!(rx.open_rtp(&mut sealed(&tx, 1, 9999)), Err(SrtpError::TooManySources));
    assert!(rx.open_rtp(&mut sealed(&tx, 2, 3)).is_ok());
    rx.forget_source(3);
    assert!(rx.open_rtp(&mut sealed(&tx, 1, 9999)).is_ok());
}

#[test]
fn sealing_garbage_is_an_error() {
    let ((_, mut tx), _) = pair(Profile::AeadAes128Gcm);
    assert_eq!(tx.seal_rtp(&mut vec![0; 40], 0, 0), Err(SrtpError::Malformed));
    assert_eq!(tx.seal_rtp(&mut vec![0x80; 40], 50, 0), Err(SrtpError::Malformed));
    assert_eq!(tx.seal_rtcp(&mut vec![0x80; 4], 0), Err(SrtpError::Malformed));
    tx.rtcp_index = RTCP_INDEX_MAX;
    assert_eq!(tx.seal_rtcp(&mut vec![0x80; 16], 0), Err(SrtpError::Crypto));
}
