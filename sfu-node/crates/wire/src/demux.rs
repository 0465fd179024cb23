//! What a datagram on the media port is, by its first bytes (RFC 7983 §7, RFC 5761 §4).
//!
//! Relay envelopes use 0x60..=0x6F, a range that RFC 7983 leaves unassigned.

use crate::bytes::{u8_at, u16_at};

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

/// One DTLS record of a datagram (RFC 6347 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DtlsRecord<'a> {
    /// 20 change cipher spec, 21 alert, 22 handshake, 23 application data.
    pub content_type: u8,
    /// Key epoch; 0: in clear.
    pub epoch: u16,
    /// Body, encrypted from epoch 1 on.
    pub body: &'a [u8],
}

impl DtlsRecord<'_> {
    /// A ClientHello, the only record that may start a handshake (message type 1).
    #[must_use]
    pub fn is_client_hello(&self) -> bool {
        self.content_type == 22 && self.epoch == 0 && self.body.first() == Some(&1)
    }
}

/// The records of a datagram that [`classify`] called DTLS; ends at the first malformed one.
pub fn dtls_records(datagram: &[u8]) -> impl Iterator<Item = DtlsRecord<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (header, tail) = rest.split_at_checked(13)?;
        let content_type = u8_at(header, 0).filter(|t| (20..=63).contains(t))?;
        let (body, after) = tail.split_at_checked(usize::from(u16_at(header, 11)?))?;
        rest = after;
        Some(DtlsRecord { content_type, epoch: u16_at(header, 3)?, body })
    })
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

    #[test]
    fn dtls_records_share_a_datagram() {
        let hello = [22, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 9];
        let sealed = [23, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 7];
        let both = [&hello[..], &sealed].concat();
        let records: Vec<_> = dtls_records(&both).collect();
        assert_eq!(records.len(), 2);
        assert!(records[0].is_client_hello());
        assert_eq!(records[1], DtlsRecord { content_type: 23, epoch: 1, body: &[7] });
        assert_eq!(dtls_records(&both[..20]).count(), 1);
        assert_eq!(dtls_records(&[0; 40]).count(), 0);
    }
}
