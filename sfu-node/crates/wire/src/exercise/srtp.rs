//! SRTP: what no key made must be refused, what the peer sealed must come out as it was, once.

use super::Bytes;
use crate::rtp;
use crate::srtp::{self, Inbound, Outbound, Profile, Role, SrtpError};
use std::cell::RefCell;

const PROFILES: [Profile; 3] = [Profile::Aes128CmSha1_80, Profile::AeadAes128Gcm, Profile::AeadAes256Gcm];
const MAX_PACKETS: usize = 32;

thread_local! {
    /// The node's and its peer's ends of each profile. Made once: key derivation costs more than all the rest.
    static ENDS: RefCell<Vec<(Inbound, Outbound)>> = RefCell::new(
        PROFILES
            .into_iter()
            .filter_map(|profile| {
                let material = vec![0x42; profile.material_len()];
                let ours = srtp::sessions(profile, &material, Role::Server).ok()?;
                let theirs = srtp::sessions(profile, &material, Role::Client).ok()?;
                Some((ours.0, theirs.1))
            })
            .collect(),
    );
}

/// The whole input as a forged packet, then as packets that the peer seals and the network may spoil.
pub fn srtp(data: &[u8]) {
    ENDS.with_borrow_mut(|ends| {
        assert_eq!(ends.len(), PROFILES.len(), "all ciphers");
        for (inbound, _) in ends.iter_mut() {
            assert!(inbound.open_rtp(&mut data.to_vec()).is_err(), "forged RTP");
            assert!(inbound.open_rtcp(&mut data.to_vec()).is_err(), "forged RTCP");
        }
        let mut bytes = Bytes(data);
        if let Some((inbound, outbound)) = ends.get_mut(usize::from(bytes.byte()) % PROFILES.len()) {
            let mut sources = Vec::new();
            for _ in 0..MAX_PACKETS {
                if bytes.is_empty() {
                    break;
                }
                sources.extend(exchange(&mut bytes, inbound, outbound));
            }
            sources.into_iter().for_each(|ssrc| inbound.forget_source(ssrc));
        }
    });
}

/// One packet from one end to the other. Returns its source.
fn exchange(bytes: &mut Bytes<'_>, inbound: &mut Inbound, outbound: &mut Outbound) -> Option<u32> {
    let (flags, roc, spoil) = (bytes.byte(), u32::from(bytes.byte() & 1), bytes.byte());
    let plain = bytes.take();
    let mut packet = plain.to_vec();
    let is_rtp = flags & 1 == 0;
    let sealed =
        if is_rtp { outbound.seal_rtp(&mut packet, 0, roc) } else { outbound.seal_rtcp(&mut packet, 0) };
    if sealed.is_err() {
        assert!(plain.len() < 8 || is_rtp && rtp::header_len(plain).is_none(), "sealed");
        return None;
    }
    let at = if is_rtp { 8 } else { 4 };
    let ssrc = u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?);
    let mut open = |mut packet: Vec<u8>| {
        let len = if is_rtp {
            inbound.open_rtp(&mut packet).map(|o| o.len)
        } else {
            inbound.open_rtcp(&mut packet)
        };
        len.map(|len| packet.get(..len) == Some(plain))
    };
    if flags & 2 != 0 && spoil != 0 {
        let at = usize::from(flags >> 2) * packet.len() / 64;
        if let Some(byte) = packet.get_mut(at) {
            *byte ^= spoil;
            assert!(open(packet).is_err(), "spoilt");
            return Some(ssrc);
        }
    }
    match open(packet.clone()) {
        Ok(same) => {
            assert!(same, "comes out as it was");
            assert_eq!(open(packet), Err(SrtpError::Replayed), "twice");
        }
        // A rollover that the receiver could not guess, a number it has seen, or one source too many.
        Err(error) => assert!(error != SrtpError::Malformed, "own packet"),
    }
    Some(ssrc)
}
