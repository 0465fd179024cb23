//! AV1 payload (RTP payload format for AV1 v1.0 §4.4): only what tells where a key frame starts.

const SEQUENCE_HEADER: u8 = 1;

/// First packet of a coded video sequence.
///
/// The aggregation header's N bit says so and must be set there; encoders that leave it out still put a
/// sequence header OBU first.
#[must_use]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    let [aggregation, rest @ ..] = payload else { return false };
    let continues = aggregation & 0x80 != 0;
    if continues || rest.is_empty() {
        return false;
    }
    if aggregation & 0x08 != 0 {
        return true;
    }
    // W = 1: the only element has no length field.
    let element = if aggregation >> 4 & 3 == 1 { Some(rest) } else { skip_leb128(rest) };
    element.and_then(<[u8]>::first).is_some_and(|obu| obu >> 3 & 0x0F == SEQUENCE_HEADER)
}

/// What follows a LEB128 number of at most 8 bytes (AV1 specification §4.10.5).
fn skip_leb128(bytes: &[u8]) -> Option<&[u8]> {
    let len = bytes.iter().take(8).position(|b| b & 0x80 == 0)? + 1;
    bytes.get(len..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_n_bit() {
        assert!(starts_key_frame(&[0x08, 1, 0x0A]));
        assert!(!starts_key_frame(&[0x88, 1, 0x0A]));
        assert!(!starts_key_frame(&[0x08]));
        assert!(!starts_key_frame(&[]));
    }

    #[test]
    fn a_sequence_header_first() {
        assert!(starts_key_frame(&[0x10, 0x0A, 0]));
        assert!(starts_key_frame(&[0x20, 0x02, 0x0A, 0]));
        assert!(starts_key_frame(&[0x00, 0x82, 0x01, 0x0A]));
        assert!(!starts_key_frame(&[0x10, 0x32, 0]));
        assert!(!starts_key_frame(&[0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x0A]));
        assert!(!starts_key_frame(&[0x00, 0x80]));
    }
}
