//! RTP packets (RFC 3550 §5.1) and header extensions (RFC 8285): a zero-copy view and a header writer.

use crate::bytes::{u8_at, u16_at, u32_at};

/// Fixed header length without CSRCs and extensions.
pub const MIN_HEADER: usize = 12;
/// One-byte form profile (RFC 8285 §4.2).
const ONE_BYTE: u16 = 0xBEDE;
/// Two-byte form profile, without the 4 application bits (RFC 8285 §4.3).
const TWO_BYTE: u16 = 0x1000;
/// Most extension bytes that the writer makes.
const MAX_EXT_BYTES: usize = 1024;

/// The fields of a fixed header that an SFU rewrites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtpHeader {
    /// Marker bit: the last packet of a frame for video.
    pub marker: bool,
    /// Payload type, 0..=127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in units of the payload's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

/// Length of header, CSRCs and extension. Works on encrypted packets too: none of it is encrypted.
#[inline]
#[must_use]
pub fn header_len(packet: &[u8]) -> Option<usize> {
    let first = u8_at(packet, 0)?;
    if first >> 6 != 2 || packet.len() < MIN_HEADER {
        return None;
    }
    let mut len = MIN_HEADER + 4 * usize::from(first & 0x0F);
    if first & 0x10 != 0 {
        len += 4 + 4 * usize::from(u16_at(packet, len + 2)?);
    }
    (len <= packet.len()).then_some(len)
}

/// A parsed, decrypted packet that borrows its bytes.
#[derive(Clone, Copy, Debug)]
pub struct RtpView<'a> {
    raw: &'a [u8],
    header: RtpHeader,
    header_len: usize,
    padding: usize,
}

impl<'a> RtpView<'a> {
    /// Parses a decrypted packet. `None`: not version 2, truncated, or padding longer than the payload.
    #[inline]
    #[must_use]
    pub fn parse(raw: &'a [u8]) -> Option<Self> {
        let header_len = header_len(raw)?;
        let (first, second) = (u8_at(raw, 0)?, u8_at(raw, 1)?);
        let header = RtpHeader {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7F,
            sequence: u16_at(raw, 2)?,
            timestamp: u32_at(raw, 4)?,
            ssrc: u32_at(raw, 8)?,
        };
        let mut padding = 0;
        if first & 0x20 != 0 {
            padding = usize::from(*raw.last()?);
            if padding == 0 || padding > raw.len() - header_len {
                return None;
            }
        }
        Some(Self { raw, header, header_len, padding })
    }

    /// The fixed header's fields.
    #[inline]
    #[must_use]
    pub fn header(&self) -> RtpHeader {
        self.header
    }

    /// Length of header, CSRCs and extension.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Marker bit.
    #[inline]
    #[must_use]
    pub fn marker(&self) -> bool {
        self.header.marker
    }

    /// Payload type, 0..=127.
    #[inline]
    #[must_use]
    pub fn payload_type(&self) -> u8 {
        self.header.payload_type
    }

    /// Sequence number.
    #[inline]
    #[must_use]
    pub fn sequence(&self) -> u16 {
        self.header.sequence
    }

    /// Timestamp.
    #[inline]
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        self.header.timestamp
    }

    /// Synchronisation source.
    #[inline]
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        self.header.ssrc
    }

    /// Payload without padding.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.raw.get(self.header_len..self.raw.len() - self.padding).unwrap_or(&[])
    }

    /// Padding bytes, the count byte included.
    #[inline]
    #[must_use]
    pub fn padding_len(&self) -> usize {
        self.padding
    }

    /// Nothing but padding: a bandwidth probe, to be dropped.
    #[inline]
    #[must_use]
    pub fn is_padding_only(&self) -> bool {
        self.header_len + self.padding == self.raw.len()
    }

    /// The whole packet.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Header extensions as (id, value), one-byte and two-byte form.
    #[inline]
    #[must_use]
    pub fn extensions(&self) -> ExtIter<'a> {
        let empty = ExtIter { rest: &[], two_byte: false };
        let Some(first) = u8_at(self.raw, 0) else { return empty };
        if first & 0x10 == 0 {
            return empty;
        }
        let at = MIN_HEADER + 4 * usize::from(first & 0x0F);
        let (Some(profile), Some(rest)) = (u16_at(self.raw, at), self.raw.get(at + 4..self.header_len))
        else {
            return empty;
        };
        if profile == ONE_BYTE {
            ExtIter { rest, two_byte: false }
        } else if profile & 0xFFF0 == TWO_BYTE {
            ExtIter { rest, two_byte: true }
        } else {
            empty
        }
    }
}

/// Iterator over header extensions; ends at the first malformed one.
#[derive(Clone, Debug)]
pub struct ExtIter<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> Iterator for ExtIter<'a> {
    type Item = (u8, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&head, tail) = self.rest.split_first()?;
            if head == 0 {
                self.rest = tail;
                continue;
            }
            let (id, len, tail) = if self.two_byte {
                let (&len, tail) = tail.split_first()?;
                (head, usize::from(len), tail)
            } else {
                // Id 15 ends processing (RFC 8285 §4.2).
                if head >> 4 == 15 {
                    self.rest = &[];
                    return None;
                }
                (head >> 4, usize::from(head & 0x0F) + 1, tail)
            };
            // A one-byte element with id 0 and a length is padding with garbage: skip its data.
            let Some((value, rest)) = tail.split_at_checked(len) else {
                self.rest = &[];
                return None;
            };
            self.rest = rest;
            if id != 0 {
                return Some((id, value));
            }
        }
    }
}

/// Appends an RTP header with extensions to a buffer; the payload follows after [`HeaderWriter::finish`].
///
/// Starts in the one-byte form and converts itself when an id above 14, an empty value or one longer than
/// 16 bytes comes.
#[derive(Debug)]
pub struct HeaderWriter<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    two_byte: bool,
}

impl<'a> HeaderWriter<'a> {
    /// Writes the fixed header at the end of `out`.
    #[inline]
    pub fn begin(out: &'a mut Vec<u8>, header: &RtpHeader) -> Self {
        let start = out.len();
        let [s0, s1] = header.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = header.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = header.ssrc.to_be_bytes();
        let second = u8::from(header.marker) << 7 | header.payload_type & 0x7F;
        out.extend_from_slice(&[0x80, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]);
        Self { out, start, two_byte: false }
    }

    /// Adds one extension. Ignored: id 0 or 15, a value above 255 bytes, or more than 1 KiB in all.
    #[inline]
    pub fn extension(&mut self, id: u8, value: &[u8]) {
        let Ok(len) = u8::try_from(value.len()) else { return };
        if id == 0 || id == 15 || self.out.len() - self.start + value.len() > MAX_EXT_BYTES {
            return;
        }
        if self.out.len() == self.start + MIN_HEADER {
            self.out.extend_from_slice(&[0xBE, 0xDE, 0, 0]);
        }
        if !self.two_byte && (id > 14 || len == 0 || len > 16) {
            self.convert();
        }
        if self.two_byte {
            self.out.extend_from_slice(&[id, len]);
        } else {
            self.out.push(id << 4 | (len - 1));
        }
        self.out.extend_from_slice(value);
    }

    /// Rewrites what is there so far in the two-byte form.
    #[cold]
    fn convert(&mut self) {
        let body = self.start + MIN_HEADER + 4;
        let old = self.out.split_off(body.min(self.out.len()));
        for (id, value) in (ExtIter { rest: &old, two_byte: false }) {
            // At most 16 bytes in the one-byte form.
            self.out.extend_from_slice(&[id, u8::try_from(value.len()).unwrap_or(0)]);
            self.out.extend_from_slice(value);
        }
        if let Some(profile) = self.out.get_mut(self.start + MIN_HEADER..self.start + MIN_HEADER + 2) {
            profile.copy_from_slice(&TWO_BYTE.to_be_bytes());
        }
        self.two_byte = true;
    }

    /// Pads the extension to whole words and sets its length. Returns the header's length in bytes.
    #[inline]
    pub fn finish(self) -> usize {
        let body = self.start + MIN_HEADER + 4;
        if self.out.len() >= body {
            while !(self.out.len() - body).is_multiple_of(4) {
                self.out.push(0);
            }
            // The bound of `extension` keeps this far below u16::MAX.
            let words = u16::try_from((self.out.len() - body) / 4).unwrap_or(u16::MAX);
            if let Some(len) = self.out.get_mut(body - 2..body) {
                len.copy_from_slice(&words.to_be_bytes());
            }
            if let Some(first) = self.out.get_mut(self.start) {
                *first |= 0x10;
            }
        }
        self.out.len() - self.start
    }
}

/// Splits an RTX payload (RFC 4588 §4) into the original sequence number and payload.
#[inline]
#[must_use]
pub fn split_rtx(payload: &[u8]) -> Option<(u16, &[u8])> {
    Some((u16_at(payload, 0)?, payload.get(2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RtpHeader {
        RtpHeader {
            marker: true,
            payload_type: 96,
            sequence: 0xFFFE,
            timestamp: 0x0102_0304,
            ssrc: 0xDEAD_BEEF,
        }
    }

    fn build(exts: &[(u8, &[u8])], payload: &[u8]) -> Vec<u8> {
        let mut out = vec![7; 3];
        let mut w = HeaderWriter::begin(&mut out, &header());
        for (id, v) in exts {
            w.extension(*id, v);
        }
        let n = w.finish();
        assert_eq!(n, out.len() - 3);
        out.extend_from_slice(payload);
        out.split_off(3)
    }

    #[test]
    fn round_trip_without_extensions() {
        let p = build(&[], b"hello");
        let v = RtpView::parse(&p).unwrap();
        assert_eq!(v.header(), header());
        assert_eq!((v.header_len(), v.payload(), v.padding_len()), (12, &b"hello"[..], 0));
        assert_eq!(v.extensions().count(), 0);
        assert!(!v.is_padding_only());
    }

    #[test]
    fn one_byte_form() {
        let p = build(&[(3, &[0, 1]), (14, b"0123456789abcdef"), (1, b"x")], b"pp");
        assert_eq!(&p[12..14], [0xBE, 0xDE]);
        let v = RtpView::parse(&p).unwrap();
        let got: Vec<_> = v.extensions().collect();
        assert_eq!(got, [(3, &[0, 1][..]), (14, &b"0123456789abcdef"[..]), (1, &b"x"[..])]);
        assert_eq!(v.payload(), b"pp");
        assert_eq!(v.header_len() % 4, 0);
    }

    #[test]
    fn converts_to_the_two_byte_form_when_needed() {
        for big in [(20u8, &b"v"[..]), (2, &[5; 40][..]), (2, &[][..])] {
            let p = build(&[(3, &[0, 1]), big, (1, b"x")], b"pp");
            assert_eq!(&p[12..14], [0x10, 0x00]);
            let v = RtpView::parse(&p).unwrap();
            let got: Vec<_> = v.extensions().collect();
            assert_eq!(got, [(3, &[0, 1][..]), big, (1, &b"x"[..])]);
            assert_eq!(v.payload(), b"pp");
        }
    }

    #[test]
    fn reserved_ids_and_oversize_values_are_left_out() {
        let p = build(&[(0, b"a"), (15, b"b"), (4, &[0; 300])], b"");
        assert_eq!(RtpView::parse(&p).unwrap().header_len(), 12);
        let many: Vec<(u8, &[u8])> = (0..40).map(|_| (16, &[1u8; 200][..])).collect();
        assert!(build(&many, b"").len() <= MAX_EXT_BYTES + 300);
    }

    #[test]
    fn padding() {
        let mut p = build(&[], &[9, 9, 0, 0, 3]);
        p[0] |= 0x20;
        let v = RtpView::parse(&p).unwrap();
        assert_eq!((v.payload(), v.padding_len()), (&[9, 9][..], 3));
        let mut p = build(&[], &[0, 0, 3]);
        p[0] |= 0x20;
        assert!(RtpView::parse(&p).unwrap().is_padding_only());
        for bad in [0, 4, 255] {
            let mut p = build(&[], &[0, 0, bad]);
            p[0] |= 0x20;
            assert!(RtpView::parse(&p).is_none(), "padding {bad}");
        }
    }

    #[test]
    fn every_truncation_is_refused_or_safe() {
        let mut p = build(&[(3, &[0, 1]), (1, b"x")], b"");
        p[0] |= 2;
        for n in 0..p.len() {
            if let Some(v) = RtpView::parse(&p[..n]) {
                assert_eq!(
                    v.extensions().count() + v.payload().len() - v.payload().len(),
                    v.extensions().count()
                );
            }
        }
        assert!(RtpView::parse(&[]).is_none());
        assert!(RtpView::parse(&[0x40; 20]).is_none());
    }

    #[test]
    fn csrcs_shift_the_extension() {
        let plain = build(&[(3, &[0, 1])], b"pp");
        let mut p = plain[..12].to_vec();
        p[0] |= 2;
        p.extend_from_slice(&[1; 8]);
        p.extend_from_slice(&plain[12..]);
        let v = RtpView::parse(&p).unwrap();
        assert_eq!(v.extensions().collect::<Vec<_>>(), [(3, &[0, 1][..])]);
        assert_eq!(v.payload(), b"pp");
    }

    #[test]
    fn malformed_elements_end_the_iteration() {
        // Element claims 16 bytes, 3 are there; id 15 stops.
        let mut p = vec![0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xBE, 0xDE, 0, 1, 0x3F, 1, 2, 3];
        assert_eq!(RtpView::parse(&p).unwrap().extensions().count(), 0);
        p[16] = 0xF0;
        assert_eq!(RtpView::parse(&p).unwrap().extensions().count(), 0);
        p[12..14].copy_from_slice(&[0xAB, 0xCD]);
        assert_eq!(RtpView::parse(&p).unwrap().extensions().count(), 0);
    }

    #[test]
    fn rtx() {
        assert_eq!(split_rtx(&[1, 2, 3]), Some((0x0102, &[3][..])));
        assert_eq!(split_rtx(&[1]), None);
    }
}
