//! What a datagram on the media port is, by its first bytes (RFC 7983 §7, RFC 5761 §4).
//!
//! Relay envelopes use 0x60..=0x6F, a range that RFC 7983 leaves unassigned.

/// The protocol that a datagram claims to be. Nothing is authenticated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// STUN with the RFC 8489 magic cookie.
    Stun,
    /// A DTLS record (RFC 6347): first byte 20..=63 and a DTLS version.
    Dtls,
    /// SRTP.
    Rtp,
    /// SRTCP: second byte 192..=223.
    Rtcp,
    /// Node to node envelope ([`crate::relay`]).
    Relay,
    /// Anything else: drop and count.
    Unknown,
}

/// Classifies one datagram.
#[must_use]
pub fn classify(datagram: &[u8]) -> PacketKind {
    match *datagram {
        [0..=3, _, _, _, 0x21, 0x12, 0xA4, 0x42, ..] if datagram.len() >= 20 => PacketKind::Stun,
        // Versions on the wire: 1.0 = FEFF (first ClientHello), 1.2 = FEFD. 13 bytes is a record header.
        [20..=63, 0xFE, 0xFD | 0xFF, ..] if datagram.len() > 13 => PacketKind::Dtls,
        [0x60..=0x6F, ..] if datagram.len() >= crate::relay::MIN_DATAGRAM => PacketKind::Relay,
        [128..=191, 192..=223, ..] if datagram.len() >= 8 => PacketKind::Rtcp,
        [128..=191, ..] if datagram.len() >= 12 => PacketKind::Rtp,
        _ => PacketKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(head: &[u8]) -> Vec<u8> {
        let mut v = head.to_vec();
        v.resize(64, 0);
        v
    }

    #[test]
    fn each_protocol_by_its_first_bytes() {
        assert_eq!(classify(&padded(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42])), PacketKind::Stun);
        assert_eq!(classify(&padded(&[22, 0xFE, 0xFD])), PacketKind::Dtls);
        assert_eq!(classify(&padded(&[22, 0xFE, 0xFF])), PacketKind::Dtls);
        assert_eq!(classify(&padded(&[0x61])), PacketKind::Relay);
        assert_eq!(classify(&padded(&[0x80, 200])), PacketKind::Rtcp);
        assert_eq!(classify(&padded(&[0x80, 96])), PacketKind::Rtp);
        assert_eq!(classify(&padded(&[0x90, 0x80 | 96])), PacketKind::Rtp);
    }

    #[test]
    fn wrong_cookie_short_and_empty_are_unknown() {
        assert_eq!(classify(&padded(&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x43])), PacketKind::Unknown);
        assert_eq!(classify(&[]), PacketKind::Unknown);
        assert_eq!(classify(&[0x80, 96, 0]), PacketKind::Unknown);
        assert_eq!(classify(&[22, 0xFE, 0xFD]), PacketKind::Unknown);
        assert_eq!(classify(&padded(&[22, 3, 3])), PacketKind::Unknown);
        assert_eq!(classify(&[0x61; 8]), PacketKind::Unknown);
    }
}
