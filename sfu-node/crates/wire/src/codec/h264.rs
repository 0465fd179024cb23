//! H.264 payload (RFC 6184 §5): only what tells where a key frame starts.

use crate::bytes::{u8_at, u16_at};

const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// Aggregated units looked at.
const MAX_UNITS: usize = 16;

/// The packet holds a sequence parameter set, or starts an IDR slice that may come without one.
///
/// Encoders send SPS and PPS ahead of the IDR, alone or in a STAP-A; then the SPS is where a switch has to
/// begin.
#[must_use]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    match payload {
        [first, ..] if first & 0x1F == STAP_A => stap_has_start(payload),
        // Start bit of the FU header, and the fragmented unit's type.
        [first, fu, ..] if first & 0x1F == FU_A => fu & 0x80 != 0 && fu & 0x1F == IDR,
        [first, ..] => is_start(first & 0x1F),
        [] => false,
    }
}

fn is_start(kind: u8) -> bool {
    kind == SPS || kind == IDR
}

fn stap_has_start(payload: &[u8]) -> bool {
    let mut at = 1;
    for _ in 0..MAX_UNITS {
        let (Some(len), Some(header)) = (u16_at(payload, at), u8_at(payload, at + 2)) else { return false };
        if is_start(header & 0x1F) {
            return true;
        }
        at += 2 + usize::from(len);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_units() {
        assert!(starts_key_frame(&[0x67, 1]));
        assert!(starts_key_frame(&[0x65, 1]));
        for kind in [0x61, 0x68, 0x06, 0x41] {
            assert!(!starts_key_frame(&[kind, 1]), "{kind:x}");
        }
        assert!(!starts_key_frame(&[]));
    }

    #[test]
    fn aggregated() {
        assert!(starts_key_frame(&[0x78, 0, 2, 0x67, 1, 0, 1, 0x68]));
        assert!(starts_key_frame(&[0x78, 0, 2, 0x06, 1, 0, 1, 0x67]));
        assert!(!starts_key_frame(&[0x78, 0, 2, 0x06, 1, 0, 1, 0x68]));
        assert!(!starts_key_frame(&[0x78, 0, 9, 0x06]));
        assert!(!starts_key_frame(&[0x78]));
        assert!(!starts_key_frame(&[&[0x78u8][..], &[0; 60]].concat()));
    }

    #[test]
    fn fragmented() {
        assert!(starts_key_frame(&[0x7C, 0x85, 0]));
        assert!(!starts_key_frame(&[0x7C, 0x05, 0]));
        assert!(!starts_key_frame(&[0x7C, 0x81, 0]));
        assert!(!starts_key_frame(&[0x7C]));
    }
}
