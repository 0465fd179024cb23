//! RTCP: an iterator over compound packets, and builders (RFC 3550 §6, RFC 4585 §6, RFC 5104 §4.3,
//! draft-alvestrand-rmcat-remb-03, RFC 5506 reduced size).
//!
//! Builders append one packet to a buffer, so that a compound packet is made by calling several.

use crate::bytes::{array_at, u8_at, u16_at, u24_at, u32_at, u64_at};
use crate::twcc::Feedback;

/// Most packets read from one compound packet.
const MAX_PACKETS: usize = 64;
/// Five-bit counts (RFC 3550 §6.4.1).
const MAX_COUNT: usize = 31;
/// Most sequence numbers read from one NACK, and most FCI entries written.
const MAX_NACKED: usize = 1024;

/// Packet types.
mod kind {
    pub const SR: u8 = 200;
    pub const RR: u8 = 201;
    pub const SDES: u8 = 202;
    pub const BYE: u8 = 203;
    pub const RTPFB: u8 = 205;
    pub const PSFB: u8 = 206;
}

/// Sender part of a sender report (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// NTP timestamp, 32.32 fixed point, seconds since 1900.
    pub ntp: u64,
    /// The same instant in RTP time.
    pub rtp_timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload octets sent.
    pub octets: u32,
}

/// Report block (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// Source that is reported on.
    pub ssrc: u32,
    /// Loss since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Signed 24 bits: duplicates may make it negative.
    pub cumulative_lost: i32,
    /// Extended highest sequence number received.
    pub highest_sequence: u32,
    /// Interarrival jitter in RTP time units.
    pub jitter: u32,
    /// Middle 32 bits of the last SR's NTP timestamp; 0: none.
    pub last_sr: u32,
    /// Since that SR arrived, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// One packet of a compound packet.
#[derive(Clone, Debug)]
pub enum Packet<'a> {
    /// SR.
    SenderReport {
        /// Sender.
        ssrc: u32,
        /// Sender part.
        info: SenderInfo,
        /// What it received.
        reports: Reports<'a>,
    },
    /// RR.
    ReceiverReport {
        /// Sender of the report.
        ssrc: u32,
        /// What it received.
        reports: Reports<'a>,
    },
    /// SDES chunks, unread.
    SourceDescription(&'a [u8]),
    /// BYE.
    Bye(U32s<'a>),
    /// Generic NACK (RFC 4585 §6.2.1).
    Nack {
        /// Sender of the feedback.
        sender: u32,
        /// Media source.
        media: u32,
        /// Lost sequence numbers.
        lost: NackSeqs<'a>,
    },
    /// Picture loss (RFC 4585 §6.3.1).
    Pli {
        /// Sender of the feedback.
        sender: u32,
        /// Media source.
        media: u32,
    },
    /// Full intra request (RFC 5104 §4.3.1).
    Fir {
        /// Sender of the feedback.
        sender: u32,
        /// Media sources.
        entries: FirEntries<'a>,
    },
    /// Transport-wide feedback.
    TransportCc(Feedback<'a>),
    /// Receiver's estimated maximum bitrate.
    Remb {
        /// Sender of the feedback.
        sender: u32,
        /// Bits per second.
        bitrate: u64,
        /// Sources that it applies to.
        ssrcs: U32s<'a>,
    },
    /// Well-formed, of no interest.
    Unknown {
        /// RTCP packet type.
        payload_type: u8,
        /// Count or format field.
        format: u8,
    },
}

/// Report blocks.
#[derive(Clone, Debug)]
pub struct Reports<'a>(&'a [u8]);

impl Iterator for Reports<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (b, rest) = self.0.split_at_checked(24)?;
        self.0 = rest;
        // Sign-extend 24 bits.
        let lost = (u24_at(b, 5)? << 8).cast_signed() >> 8;
        Some(ReportBlock {
            ssrc: u32_at(b, 0)?,
            fraction_lost: u8_at(b, 4)?,
            cumulative_lost: lost,
            highest_sequence: u32_at(b, 8)?,
            jitter: u32_at(b, 12)?,
            last_sr: u32_at(b, 16)?,
            delay_since_last_sr: u32_at(b, 20)?,
        })
    }
}

/// A list of SSRCs.
#[derive(Clone, Debug)]
pub struct U32s<'a>(&'a [u8]);

impl Iterator for U32s<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (b, rest) = self.0.split_at_checked(4)?;
        self.0 = rest;
        u32_at(b, 0)
    }
}

/// Lost sequence numbers, bitmasks expanded; at most 1024.
#[derive(Clone, Debug)]
pub struct NackSeqs<'a> {
    rest: &'a [u8],
    base: u16,
    mask: u16,
    left: usize,
}

impl Iterator for NackSeqs<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        if self.mask != 0 {
            let bit = self.mask.trailing_zeros();
            self.mask &= self.mask - 1;
            // bit < 16.
            return Some(self.base.wrapping_add(1).wrapping_add(u16::try_from(bit).unwrap_or(0)));
        }
        let (entry, rest) = self.rest.split_at_checked(4)?;
        (self.rest, self.base, self.mask) = (rest, u16_at(entry, 0)?, u16_at(entry, 2)?);
        Some(self.base)
    }
}

/// FIR entries: (media SSRC, command sequence number).
#[derive(Clone, Debug)]
pub struct FirEntries<'a>(&'a [u8]);

impl Iterator for FirEntries<'_> {
    type Item = (u32, u8);

    fn next(&mut self) -> Option<(u32, u8)> {
        let (b, rest) = self.0.split_at_checked(8)?;
        self.0 = rest;
        Some((u32_at(b, 0)?, u8_at(b, 4)?))
    }
}

/// Iterates over a decrypted compound (or reduced-size) packet; ends at the first malformed one.
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Packets<'a> {
    /// Reads `compound`.
    #[must_use]
    pub fn new(compound: &'a [u8]) -> Self {
        Self { rest: compound, left: MAX_PACKETS }
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        self.left = self.left.checked_sub(1)?;
        let [first, payload_type, l0, l1, ..] = *self.rest else { return None };
        if first >> 6 != 2 {
            return None;
        }
        let len = 4 * (usize::from(u16::from_be_bytes([l0, l1])) + 1);
        let (packet, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        let mut body = packet.get(4..)?;
        if first & 0x20 != 0 {
            let padding = usize::from(*body.last()?);
            if padding == 0 {
                return None;
            }
            body = body.get(..body.len().checked_sub(padding)?)?;
        }
        parse_one(payload_type, first & 0x1F, body)
    }
}

fn parse_one(payload_type: u8, format: u8, body: &[u8]) -> Option<Packet<'_>> {
    let count = usize::from(format);
    Some(match (payload_type, format) {
        (kind::SR, _) => Packet::SenderReport {
            ssrc: u32_at(body, 0)?,
            info: SenderInfo {
                ntp: u64_at(body, 4)?,
                rtp_timestamp: u32_at(body, 12)?,
                packets: u32_at(body, 16)?,
                octets: u32_at(body, 20)?,
            },
            reports: Reports(body.get(24..24 + 24 * count)?),
        },
        (kind::RR, _) => {
            Packet::ReceiverReport { ssrc: u32_at(body, 0)?, reports: Reports(body.get(4..4 + 24 * count)?) }
        }
        (kind::SDES, _) => Packet::SourceDescription(body),
        (kind::BYE, _) => Packet::Bye(U32s(body.get(..4 * count)?)),
        (kind::RTPFB, 1) => Packet::Nack {
            sender: u32_at(body, 0)?,
            media: u32_at(body, 4)?,
            lost: NackSeqs { rest: body.get(8..)?, base: 0, mask: 0, left: MAX_NACKED },
        },
        (kind::RTPFB, 15) => Packet::TransportCc(Feedback::parse(body)?),
        (kind::PSFB, 1) => Packet::Pli { sender: u32_at(body, 0)?, media: u32_at(body, 4)? },
        (kind::PSFB, 4) => Packet::Fir { sender: u32_at(body, 0)?, entries: FirEntries(body.get(8..)?) },
        (kind::PSFB, 15) if array_at(body, 8) == Some(*b"REMB") => parse_remb(body)?,
        _ => Packet::Unknown { payload_type, format },
    })
}

fn parse_remb(body: &[u8]) -> Option<Packet<'_>> {
    let count = usize::from(u8_at(body, 12)?);
    let word = u24_at(body, 13)?;
    // 6-bit exponent, 18-bit mantissa; what would not fit saturates.
    let (exponent, mantissa) = (word >> 18, u64::from(word & 0x3_FFFF));
    let bitrate = if exponent > mantissa.leading_zeros() { u64::MAX } else { mantissa << exponent };
    Some(Packet::Remb { sender: u32_at(body, 0)?, bitrate, ssrcs: U32s(body.get(16..16 + 4 * count)?) })
}

/// Writes the common header, lets `body` append, sets the length, pads to a word.
pub(crate) fn push_packet(out: &mut Vec<u8>, format: u8, payload_type: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0x80 | format & 0x1F, payload_type, 0, 0]);
    body(out);
    while !(out.len() - start).is_multiple_of(4) {
        out.push(0);
    }
    let words = u16::try_from((out.len() - start) / 4 - 1).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(start + 2..start + 4) {
        field.copy_from_slice(&words.to_be_bytes());
    }
}

fn push_u32s(out: &mut Vec<u8>, values: &[u32]) {
    for v in values {
        out.extend_from_slice(&v.to_be_bytes());
    }
}

fn count_of(n: usize) -> u8 {
    u8::try_from(n.min(MAX_COUNT)).unwrap_or(31)
}

fn push_report(out: &mut Vec<u8>, r: &ReportBlock) {
    let lost = r.cumulative_lost.clamp(-0x80_0000, 0x7F_FFFF).cast_unsigned() & 0xFF_FFFF;
    push_u32s(
        out,
        &[
            r.ssrc,
            u32::from(r.fraction_lost) << 24 | lost,
            r.highest_sequence,
            r.jitter,
            r.last_sr,
            r.delay_since_last_sr,
        ],
    );
}

/// SR with up to 31 report blocks; more are left out.
pub fn push_sender_report(out: &mut Vec<u8>, ssrc: u32, info: &SenderInfo, reports: &[ReportBlock]) {
    push_packet(out, count_of(reports.len()), kind::SR, |out| {
        push_u32s(out, &[ssrc]);
        out.extend_from_slice(&info.ntp.to_be_bytes());
        push_u32s(out, &[info.rtp_timestamp, info.packets, info.octets]);
        reports.iter().take(MAX_COUNT).for_each(|r| push_report(out, r));
    });
}

/// RR with up to 31 report blocks; more are left out.
pub fn push_receiver_report(out: &mut Vec<u8>, ssrc: u32, reports: &[ReportBlock]) {
    push_packet(out, count_of(reports.len()), kind::RR, |out| {
        push_u32s(out, &[ssrc]);
        reports.iter().take(MAX_COUNT).for_each(|r| push_report(out, r));
    });
}

/// SDES with one CNAME (RFC 3550 §6.5.1), cut at 255 bytes.
pub fn push_sdes_cname(out: &mut Vec<u8>, ssrc: u32, cname: &str) {
    let name = cname.as_bytes();
    let name = name.get(..name.len().min(255)).unwrap_or(&[]);
    push_packet(out, 1, kind::SDES, |out| {
        push_u32s(out, &[ssrc]);
        out.extend_from_slice(&[1, u8::try_from(name.len()).unwrap_or(0)]);
        out.extend_from_slice(name);
        // At least one zero octet ends the chunk; push_packet pads to the word.
        out.push(0);
    });
}

/// BYE for up to 31 sources.
pub fn push_bye(out: &mut Vec<u8>, ssrcs: &[u32]) {
    let ssrcs = ssrcs.get(..ssrcs.len().min(MAX_COUNT)).unwrap_or(&[]);
    push_packet(out, count_of(ssrcs.len()), kind::BYE, |out| push_u32s(out, ssrcs));
}

/// Generic NACK. Ascending (wrap-aware) order packs best; at most 1024 entries. Nothing for an empty list.
pub fn push_nack(out: &mut Vec<u8>, sender: u32, media: u32, lost: &[u16]) {
    if lost.is_empty() {
        return;
    }
    push_packet(out, 1, kind::RTPFB, |out| {
        push_u32s(out, &[sender, media]);
        let mut lost = lost.iter().copied().peekable();
        let mut entries = 0;
        while let Some(base) = lost.next().filter(|_| entries < MAX_NACKED) {
            let mut mask = 0u16;
            while let Some(bit) =
                lost.peek().and_then(|s| s.wrapping_sub(base).checked_sub(1)).filter(|b| *b < 16)
            {
                mask |= 1 << bit;
                lost.next();
            }
            out.extend_from_slice(&base.to_be_bytes());
            out.extend_from_slice(&mask.to_be_bytes());
            entries += 1;
        }
    });
}

/// PLI.
pub fn push_pli(out: &mut Vec<u8>, sender: u32, media: u32) {
    push_packet(out, 1, kind::PSFB, |out| push_u32s(out, &[sender, media]));
}

/// FIR for one source; `sequence` goes up by one for each new request.
pub fn push_fir(out: &mut Vec<u8>, sender: u32, media: u32, sequence: u8) {
    push_packet(out, 4, kind::PSFB, |out| push_u32s(out, &[sender, 0, media, u32::from(sequence) << 24]));
}

/// REMB; `bitrate` in bits per second, rounded down to 18 significant bits, for up to 255 sources.
pub fn push_remb(out: &mut Vec<u8>, sender: u32, bitrate: u64, ssrcs: &[u32]) {
    let ssrcs = ssrcs.get(..ssrcs.len().min(255)).unwrap_or(&[]);
    let exponent = (u64::BITS - bitrate.leading_zeros()).saturating_sub(18);
    let mantissa = u32::try_from(bitrate >> exponent).unwrap_or(0x3_FFFF);
    let count = u32::try_from(ssrcs.len()).unwrap_or(0);
    push_packet(out, 15, kind::PSFB, |out| {
        push_u32s(out, &[sender, 0]);
        out.extend_from_slice(b"REMB");
        push_u32s(out, &[count << 24 | exponent << 18 | mantissa]);
        push_u32s(out, ssrcs);
    });
}

/// NTP timestamp (RFC 3550 §4) of a Unix time in microseconds.
#[must_use]
pub fn ntp_from_unix_us(unix_us: u64) -> u64 {
    const SECONDS_1900_TO_1970: u64 = 2_208_988_800;
    let seconds = (unix_us / 1_000_000).wrapping_add(SECONDS_1900_TO_1970);
    let fraction = ((unix_us % 1_000_000) << 32) / 1_000_000;
    seconds << 32 | fraction
}

/// Middle 32 bits of an NTP timestamp, as in LSR: 1/65536 s.
#[must_use]
pub fn ntp_middle(ntp: u64) -> u32 {
    u32::try_from(ntp >> 16 & 0xFFFF_FFFF).unwrap_or(0)
}

/// Round trip in microseconds from a report block that arrived at NTP time `now` (RFC 3550 §6.4.1).
///
/// `None`: the peer has seen no SR, or its figures make the round trip negative or above 60 s.
#[must_use]
pub fn rtt_us(now: u64, block: &ReportBlock) -> Option<u64> {
    if block.last_sr == 0 {
        return None;
    }
    let units = ntp_middle(now).wrapping_sub(block.last_sr).wrapping_sub(block.delay_since_last_sr);
    (units < 60 << 16).then(|| (u64::from(units) * 1_000_000) >> 16)
}

#[cfg(test)]
#[path = "rtcp_tests.rs"]
mod tests;
