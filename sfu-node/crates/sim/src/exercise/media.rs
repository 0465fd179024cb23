//! What clients and neighbours send once they have keys.

use super::commands::{EXTENSIONS, VIDEO};
use crate::vp8;
use headwater_engine::{
    Path,
    api::{Codec, Extension},
};
use headwater_wire::{
    demux::{PacketKind, classify},
    exercise::Bytes,
    relay::{self, Media, Sealer},
    rtcp::{self, ReportBlock, SenderInfo},
    rtp::{HeaderWriter, RtpHeader, RtpView},
    srtp::{self, Outbound, Profile, Role},
    twcc,
};

/// SSRCs that a client sends: three layers, their retransmissions, a microphone, one that nobody signalled.
const SOURCES: usize = 8;
const FIRST_SSRC: u32 = 10;
const PROFILES: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmSha1_80];
const PAYLOAD_TYPES: [u8; 6] = [96, 97, 98, 111, 63, 127];

/// A dependency descriptor with the structure of two spatial by two temporal layers.
const L2T2_KEY: [u8; 32] = [
    0x83, 0x00, 0x07, 0x80, 0x63, 0x18, 0x7A, 0xAA, 0x01, 0x00, 0xA0, 0xA0, 0x14, 0xD1, 0x41, 0x34, 0x51,
    0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x4F, 0xC0, 0x2C, 0xC0, 0x9F, 0xC0, 0x59, 0xC0,
];
/// VP9: a key picture with three spatial layers, and a picture of the second.
const VP9_KEY: [u8; 10] = [0xAA, 0x81, 0x02, 0x10, 7, 0x58, 1, 64, 0, 9];
const VP9_UPPER: [u8; 8] = [0xE4, 0x81, 0x03, 0x52, 8, 1, 1, 9];

/// A client's end of SRTP, and what it heard.
pub struct Peer {
    pub profile: Profile,
    outbound: Option<Outbound>,
    sequences: [u64; SOURCES],
    timestamps: [u32; SOURCES],
    transport_sequence: u16,
    /// The last packet of each SSRC.
    heard: Vec<(u32, u16)>,
    arrivals: twcc::Recorder,
}

impl Peer {
    pub fn new() -> Self {
        Self {
            profile: PROFILES[0],
            outbound: None,
            sequences: [65_520; SOURCES],
            timestamps: [0; SOURCES],
            transport_sequence: 65_500,
            heard: Vec::new(),
            arrivals: twcc::Recorder::new(),
        }
    }

    /// Both ends agree on keys. Returns their material.
    pub fn agree(&mut self, profile: u8) -> Vec<u8> {
        self.profile = PROFILES[usize::from(profile) % PROFILES.len()];
        let material = vec![0x42; self.profile.material_len()];
        self.outbound = srtp::sessions(self.profile, &material, Role::Client).ok().map(|s| s.1);
        material
    }

    /// A datagram came from the node.
    pub fn hear(&mut self, datagram: &[u8], now_us: u64) {
        if classify(datagram) != PacketKind::Rtp {
            return;
        }
        let Some(view) = RtpView::parse(datagram) else { return };
        let heard = (view.ssrc(), view.sequence());
        if let Some(slot) = self.heard.iter_mut().find(|h| h.0 == heard.0) {
            *slot = heard;
        } else if self.heard.len() < 16 {
            self.heard.push(heard);
        }
        if let Some((_, &[a, b])) = view.extensions().find(|e| e.0 == crate::TRANSPORT_CC) {
            self.arrivals.record(u16::from_be_bytes([a, b]), now_us);
        }
    }

    /// An RTP packet.
    pub fn rtp(&mut self, bytes: &mut Bytes<'_>) -> Vec<u8> {
        let flags = bytes.byte();
        let source = usize::from(bytes.byte()) % SOURCES;
        let step = i64::from(bytes.byte() as i8) << if flags & 2 == 0 { 0 } else { 8 };
        let step = if flags & 4 == 0 { 1 } else { step };
        let index = self.sequences[source].wrapping_add_signed(step) & 0xFFFF_FFFF_FFFF;
        self.sequences[source] = index;
        if flags & 8 != 0 {
            self.timestamps[source] = self.timestamps[source].wrapping_add(u32::from(bytes.byte()) * 3000);
        }
        let header = RtpHeader {
            marker: flags & 1 != 0,
            payload_type: bytes.pick(&PAYLOAD_TYPES).unwrap_or(96),
            sequence: index as u16,
            timestamp: self.timestamps[source],
            ssrc: FIRST_SSRC + source as u32,
        };
        let mut packet = Vec::new();
        let mut writer = HeaderWriter::begin(&mut packet, &header);
        if flags & 16 != 0 {
            self.extensions(bytes, &mut writer);
        }
        writer.finish();
        payload(bytes, index, &mut packet);
        if flags & 32 != 0 {
            packet[0] ^= 0x20; // padding, as the last byte has it
        }
        self.seal(packet, (index >> 16) as u32)
    }

    fn extensions(&mut self, bytes: &mut Bytes<'_>, writer: &mut HeaderWriter<'_>) {
        let mask = bytes.pair();
        for (bit, (id, extension)) in EXTENSIONS.into_iter().enumerate() {
            if mask & (1 << bit) == 0 {
                continue;
            }
            let value = bytes.byte();
            match extension {
                _ if mask & 0x8000 != 0 => writer.extension(id, bytes.take()),
                Extension::TransportCc => {
                    self.transport_sequence = self.transport_sequence.wrapping_add(u16::from(value % 8));
                    writer.extension(id, &self.transport_sequence.to_be_bytes());
                }
                Extension::Mid => writer.extension(id, &[b'0' + value % 3]),
                Extension::Rid | Extension::RepairedRid => {
                    writer.extension(id, &[b"qhfx"[usize::from(value % 4)]]);
                }
                Extension::DependencyDescriptor if value & 0x80 != 0 => writer.extension(id, &L2T2_KEY),
                Extension::DependencyDescriptor => writer.extension(id, &[value, 0, value]),
                Extension::AbsSendTime => writer.extension(id, &[value; 3]),
                _ => writer.extension(id, &[value]),
            }
        }
    }

    /// Anything at all behind an RTP or RTCP header, with the right tag.
    pub fn raw(&mut self, bytes: &mut Bytes<'_>) -> Vec<u8> {
        let mut packet = bytes.take().to_vec();
        if packet.get(1).is_some_and(|b| (192..224).contains(b)) {
            return self.seal_rtcp(packet);
        }
        if let Some(first) = packet.first_mut() {
            *first = *first & 0x3F | 0x80;
        }
        self.seal(packet, 0)
    }

    /// An RTCP compound about what the client heard, and about what it did not.
    pub fn rtcp(&mut self, bytes: &mut Bytes<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..=bytes.byte() % 4 {
            let (ssrc, last) = if bytes.chance() {
                (u32::from(bytes.byte() % 32), bytes.pair())
            } else {
                bytes.pick(&self.heard).unwrap_or((1, 0))
            };
            match bytes.byte() % 9 {
                0 | 1 => {
                    let back = |b: &u8| last.wrapping_sub(u16::from(*b));
                    let lost: Vec<u16> = bytes.take().iter().map(back).collect();
                    rtcp::push_nack(&mut out, 9, ssrc, &lost);
                }
                2 => rtcp::push_pli(&mut out, 9, ssrc),
                3 => rtcp::push_fir(&mut out, 9, ssrc, bytes.byte()),
                4 => {
                    let bitrate = u64::from(bytes.byte()) << (bytes.byte() % 56);
                    rtcp::push_remb(&mut out, 9, bitrate, &[ssrc]);
                }
                5 => {
                    let block = ReportBlock {
                        ssrc,
                        fraction_lost: bytes.byte(),
                        cumulative_lost: i32::from(bytes.byte() as i8),
                        last_sr: u32::from(bytes.pair()) << 8,
                        ..ReportBlock::default()
                    };
                    rtcp::push_receiver_report(&mut out, 9, &[block]);
                }
                6 => {
                    self.arrivals.push_feedback(&mut out, 9, ssrc);
                }
                7 => {
                    let info = SenderInfo {
                        ntp: u64::from(bytes.pair()) << 48,
                        rtp_timestamp: u32::from(bytes.pair()) << 16,
                        ..SenderInfo::default()
                    };
                    rtcp::push_sender_report(&mut out, FIRST_SSRC + ssrc % SOURCES as u32, &info, &[]);
                }
                _ => rtcp::push_bye(&mut out, &[FIRST_SSRC + ssrc % SOURCES as u32]),
            }
        }
        self.seal_rtcp(out)
    }

    fn seal(&mut self, mut packet: Vec<u8>, roc: u32) -> Vec<u8> {
        if let Some(outbound) = &self.outbound {
            outbound.seal_rtp(&mut packet, 0, roc).ok();
        }
        packet
    }

    fn seal_rtcp(&mut self, mut compound: Vec<u8>) -> Vec<u8> {
        if let Some(outbound) = &mut self.outbound {
            outbound.seal_rtcp(&mut compound, 0).ok();
        }
        compound
    }
}

fn payload(bytes: &mut Bytes<'_>, index: u64, packet: &mut Vec<u8>) {
    match bytes.byte() % 8 {
        0 => packet.extend_from_slice(&vp8(index as u16 & 0x7FFF, true, 1)),
        1 => packet.extend_from_slice(&vp8(index as u16 & 0x7FFF, false, 2)),
        2 => packet.extend_from_slice(&VP9_KEY),
        3 => {
            let at = packet.len();
            packet.extend_from_slice(&VP9_UPPER);
            packet[at + 3] = bytes.byte();
        }
        4 => packet.extend_from_slice(&[0x18, 0x0A, 1, 9, 9]),
        5 => {
            let original = index.wrapping_sub(u64::from(bytes.byte())) as u16;
            packet.extend_from_slice(&original.to_be_bytes());
            packet.extend_from_slice(bytes.take());
        }
        _ => packet.extend_from_slice(bytes.take()),
    }
}

/// Who sent what: the datagrams that leave the node, by the address of a client.
pub fn receiver(path: Path) -> Option<usize> {
    usize::from(path.peer.port()).checked_sub(9000)
}

/// A datagram from the neighbour at the other end of a link.
pub fn neighbour(bytes: &mut Bytes<'_>, sealer: &mut Sealer) -> Vec<u8> {
    let mut out = Vec::new();
    let mut datagram = sealer.begin(&mut out);
    for _ in 0..bytes.byte() % 8 {
        let handle = u32::from(bytes.byte() % 4);
        let spatial = bytes.byte() % 4;
        let done = match bytes.byte() % 10 {
            0 => {
                let track_id = bytes.pick(&["V", "A", "W", "R"]).unwrap_or("V");
                datagram.demand(&relay::Demand { handle, spatial_mask: bytes.byte(), track_id })
            }
            1 => {
                let lost: Vec<u16> =
                    bytes.take().iter().map(|b| 65_500u16.wrapping_add((*b).into())).collect();
                datagram.nack(handle, spatial, &lost);
                Ok(())
            }
            2 => datagram.key_frame_request(handle, spatial),
            3 => datagram.sender_clock(handle, spatial, u64::from(bytes.byte()) << 40, 7),
            4 => datagram.ping(u32::from(bytes.byte()), u64::from(bytes.byte()) << 50),
            5 => datagram.pong(u32::from(bytes.byte()), u64::from(bytes.byte()) << 50),
            6 => datagram.report(u64::from(bytes.byte()) << 56, u64::from(bytes.byte()) << 40),
            _ => {
                let flags = bytes.byte();
                datagram.media(&Media {
                    handle,
                    spatial,
                    codec: bytes.pick(&VIDEO).unwrap_or(Codec::Opus),
                    marker: flags & 1 != 0,
                    key_frame: flags & 2 != 0,
                    retransmission: flags & 4 != 0,
                    sequence: u16::from(bytes.byte()) << (flags >> 5),
                    timestamp: u32::from(bytes.byte()) << 20,
                    extensions: if flags & 8 != 0 { bytes.take() } else { &[] },
                    payload: bytes.take(),
                })
            }
        };
        if done.is_err() {
            break;
        }
    }
    if datagram.seal().is_err() {
        out.clear();
    }
    out
}
