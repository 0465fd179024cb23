//! RTCP (RFC 3550 §6, RFC 4585, RFC 5104, REMB, transport-cc).
#![allow(missing_docs, unused_variables)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo { pub ntp: u64, pub rtp_timestamp: u32, pub packets: u32, pub octets: u32 }
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock { pub ssrc: u32, pub fraction_lost: u8, pub cumulative_lost: i32, pub highest_sequence: u32, pub jitter: u32, pub last_sr: u32, pub delay_since_last_sr: u32 }
#[derive(Clone, Debug)]
pub enum Packet<'a> {
    SenderReport { ssrc: u32, info: SenderInfo, reports: Reports<'a> },
    ReceiverReport { ssrc: u32, reports: Reports<'a> },
    SourceDescription(&'a [u8]),
    Bye(U32s<'a>),
    Nack { sender: u32, media: u32, lost: NackSeqs<'a> },
    Pli { sender: u32, media: u32 },
    Fir { sender: u32, entries: FirEntries<'a> },
    TransportCc(crate::twcc::Feedback<'a>),
    Remb { sender: u32, bitrate: u64, ssrcs: U32s<'a> },
    Unknown { payload_type: u8, format: u8 },
}
#[derive(Clone, Debug)] pub struct Reports<'a>(&'a [u8]);
impl Iterator for Reports<'_> { type Item = ReportBlock; fn next(&mut self) -> Option<ReportBlock> { unimplemented!() } }
#[derive(Clone, Debug)] pub struct U32s<'a>(&'a [u8]);
impl Iterator for U32s<'_> { type Item = u32; fn next(&mut self) -> Option<u32> { unimplemented!() } }
/// Sequence numbers reported lost, blp expanded.
#[derive(Clone, Debug)] pub struct NackSeqs<'a>(&'a [u8]);
impl Iterator for NackSeqs<'_> { type Item = u16; fn next(&mut self) -> Option<u16> { unimplemented!() } }
/// (media ssrc, command sequence number)
#[derive(Clone, Debug)] pub struct FirEntries<'a>(&'a [u8]);
impl Iterator for FirEntries<'_> { type Item = (u32, u8); fn next(&mut self) -> Option<(u32, u8)> { unimplemented!() } }
/// Iterates over a decrypted compound (or reduced-size) packet; ends at the first malformed one.
#[derive(Clone, Debug)] pub struct Packets<'a>(&'a [u8]);
impl<'a> Packets<'a> { #[must_use] pub fn new(compound: &'a [u8]) -> Self { Self(compound) } }
impl<'a> Iterator for Packets<'a> { type Item = Packet<'a>; fn next(&mut self) -> Option<Packet<'a>> { unimplemented!() } }
pub fn push_sender_report(out: &mut Vec<u8>, ssrc: u32, info: &SenderInfo, reports: &[ReportBlock]) { unimplemented!() }
pub fn push_receiver_report(out: &mut Vec<u8>, ssrc: u32, reports: &[ReportBlock]) { unimplemented!() }
pub fn push_sdes_cname(out: &mut Vec<u8>, ssrc: u32, cname: &str) { unimplemented!() }
pub fn push_bye(out: &mut Vec<u8>, ssrcs: &[u32]) { unimplemented!() }
/// `lost` in ascending (wrap-aware) order packs best.
pub fn push_nack(out: &mut Vec<u8>, sender: u32, media: u32, lost: &[u16]) { unimplemented!() }
pub fn push_pli(out: &mut Vec<u8>, sender: u32, media: u32) { unimplemented!() }
pub fn push_fir(out: &mut Vec<u8>, sender: u32, media: u32, sequence: u8) { unimplemented!() }
pub fn push_remb(out: &mut Vec<u8>, sender: u32, bitrate: u64, ssrcs: &[u32]) { unimplemented!() }
/// NTP timestamp (RFC 3550 §4) of a Unix time in microseconds.
#[must_use] pub fn ntp_from_unix_us(unix_us: u64) -> u64 { unimplemented!() }
/// Middle 32 bits, as in LSR and DLSR.
#[must_use] pub fn ntp_middle(ntp: u64) -> u32 { (ntp >> 16) as u32 }
/// Round trip in microseconds from a report block received at NTP time `now`. None: no SR was seen.
#[must_use] pub fn rtt_us(now: u64, block: &ReportBlock) -> Option<u64> { unimplemented!() }
