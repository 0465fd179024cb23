//! Commands of every kind, with ids that meet often and numbers of all sizes.

use super::PASSWORD;
use crate::{ROOM, addr, codec, receive, send};
use headwater_engine::api::*;
use headwater_wire::exercise::Bytes;
use std::time::Duration;

/// Publisher, subscriber, both, and one more.
pub const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];
/// Video, audio, tracks of other nodes.
const TRACKS: [&str; 5] = ["V", "A", "W", "R", ""];
pub const LINKS: [&str; 2] = ["l0", "l1"];
const MIDS: [&str; 4] = ["0", "1", "2", ""];
const LABELS: [&str; 3] = ["_reliable", "_lossy", ""];
const RIDS: [&str; 4] = ["q", "h", "f", ""];
pub const VIDEO: [Codec; 6] = [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::H265, Codec::Red];
const ROOMS: [&str; 4] = [ROOM, ROOM, ROOM, "other"];

/// The extensions that clients negotiate, by id.
pub const EXTENSIONS: [(u8, Extension); 10] = [
    (1, Extension::Mid),
    (2, Extension::AudioLevel),
    (3, Extension::TransportCc),
    (4, Extension::Rid),
    (5, Extension::RepairedRid),
    (6, Extension::DependencyDescriptor),
    (7, Extension::PlayoutDelay),
    (8, Extension::AbsSendTime),
    (9, Extension::VideoOrientation),
    (10, Extension::AbsCaptureTime),
];

fn id(bytes: &mut Bytes<'_>, all: &[&str]) -> Id {
    bytes.pick(all).unwrap_or("").into()
}

pub fn room(bytes: &mut Bytes<'_>) -> &'static str {
    bytes.pick(&ROOMS).unwrap_or(ROOM)
}

/// A request to the room `room_id`.
pub fn apply(room_id: &str, epoch: u64, audio_top_n: u32, commands: Vec<Command>) -> Apply {
    let controller_id = if epoch & 1 == 0 { "c" } else { "d" };
    Apply {
        room_id: room_id.into(),
        epoch,
        controller_id: controller_id.into(),
        lease: Duration::from_secs(60),
        audio_top_n,
        commands,
    }
}

pub fn ufrag(client: &str, generation: u8) -> String {
    format!("ufrag-{client}{generation}")
}

/// SSRCs follow from the first: layers, then their retransmissions.
fn layers(first: u32, bits: u8) -> Vec<Layer> {
    let layer = |spatial: u8| Layer {
        rid: if bits & 0x40 == 0 { String::new() } else { RIDS[usize::from(spatial & 3)].into() },
        spatial,
        ssrc: if bits & 0x80 == 0 { first + u32::from(spatial) } else { 0 },
        rtx_ssrc: if bits & 0x20 == 0 { first + 3 + u32::from(spatial) } else { 0 },
    };
    (0..4).filter(|l| bits & (1 << l) != 0).map(layer).collect()
}

fn codecs(video: Codec, kind: Kind, offset: u8) -> Vec<CodecMap> {
    match kind {
        Kind::Audio => vec![codec(111 - offset, Codec::Opus, 0), codec(63, Codec::Red, 0)],
        Kind::Video => vec![
            codec(96 + offset, video, 0),
            codec(97 + offset, Codec::Rtx, 96 + offset),
            codec(98 + offset, Codec::Vp8, 0),
        ],
    }
}

fn extensions(mask: u16) -> Vec<ExtensionMap> {
    let known = (0..).zip(EXTENSIONS).filter(|(bit, _)| mask & (1 << bit) == 0);
    known.map(|(_, (id, extension))| ExtensionMap { id, extension }).collect()
}

pub fn publish(mid: &str, track: &str, video: Codec, kind: Kind, layer_bits: u8) -> ReceiveSection {
    let mut section = receive(mid, track, &[], kind);
    section.layers = layers(if kind == Kind::Video { 10 } else { 16 }, layer_bits);
    section.codecs = codecs(video, kind, 0);
    section.extensions = extensions(0);
    section
}

pub fn subscribe(mid: &str, track: &str, video: Codec, kind: Kind, first: u32) -> SendSection {
    let mut section = send(mid, track, first, first + 1, kind);
    section.codecs = codecs(video, kind, 10);
    section.extensions = extensions(0);
    section
}

fn receive_section(bytes: &mut Bytes<'_>) -> ReceiveSection {
    let flags = bytes.byte();
    let kind = if flags & 1 == 0 { Kind::Video } else { Kind::Audio };
    let video = bytes.pick(&VIDEO).unwrap_or(Codec::Vp8);
    let mut section = publish(bytes.pick(&MIDS).unwrap_or(""), "", video, kind, bytes.byte());
    section.track_id = id(bytes, &TRACKS);
    section.muted = flags & 2 != 0;
    section.voice = flags & 4 != 0;
    if flags & 8 != 0 {
        section.extensions = extensions(bytes.pair());
    }
    section
}

fn send_section(bytes: &mut Bytes<'_>) -> SendSection {
    let flags = bytes.byte();
    let kind = if flags & 1 == 0 { Kind::Video } else { Kind::Audio };
    let video = bytes.pick(&VIDEO).unwrap_or(Codec::Vp8);
    let first = u32::from(bytes.byte() % 16);
    let mut section = subscribe(bytes.pick(&MIDS).unwrap_or(""), "", video, kind, first);
    section.track_id = id(bytes, &TRACKS);
    section.paused = flags & 2 != 0;
    section.screen = flags & 4 != 0;
    if flags & 8 != 0 {
        section.rtx_ssrc = 0;
    }
    if flags & 16 != 0 {
        section.extensions = extensions(bytes.pair());
    }
    section.max_spatial = flags >> 6;
    section.priority = u32::from(flags);
    section
}

fn data_channels(bytes: &mut Bytes<'_>) -> Vec<DataChannel> {
    let flags = bytes.byte();
    let channel = |label: &str| DataChannel {
        label: label.into(),
        ordered: flags & 1 != 0,
        max_retransmits: (flags & 2 != 0).then_some(0),
        established: (flags & 4 != 0).then_some(u16::from(flags)),
    };
    LABELS.iter().take(usize::from(flags >> 6)).map(|l| channel(l)).collect()
}

/// A transport of `client`, its own or anybody's certificate.
pub fn create(client: &str, remote_fingerprint: String) -> CreateTransport {
    CreateTransport {
        transport_id: client.into(),
        participant_id: client.into(),
        local_ufrag: ufrag(client, 0),
        local_pwd: PASSWORD.into(),
        remote_fingerprint,
        data_channels: vec![],
        max_message_size: 0,
    }
}

/// The certificate that `Engine::exercise_keys` takes the client's for.
pub fn fingerprint() -> String {
    ["AB"; 32].join(":")
}

pub fn link(n: u8) -> OpenRelay {
    OpenRelay {
        link_id: LINKS[usize::from(n % 2)].into(),
        peer_node_id: "peer".into(),
        peer_address: addr(7100 + u16::from(n)),
        tx_key: [1; 32],
        rx_key: [2; 32],
        link_token: 100 + u32::from(n),
        peer_token: 100 + u32::from(n),
    }
}

/// Any command.
pub fn command(bytes: &mut Bytes<'_>) -> Command {
    let transport_id = id(bytes, &CLIENTS);
    match bytes.byte() % 19 {
        0 => {
            let flags = bytes.byte();
            let remote = if flags & 1 == 0 { fingerprint() } else { String::new() };
            let mut spec = create(&transport_id, remote);
            spec.data_channels = data_channels(bytes);
            Command::CreateTransport(spec)
        }
        1 => Command::CloseTransport { transport_id },
        2 => {
            let remote_fingerprint = match bytes.byte() % 4 {
                0 => ["CD"; 32].join(":"),
                1 => String::from_utf8_lossy(bytes.take()).into_owned(),
                _ => fingerprint(),
            };
            Command::SetRemote { transport_id, remote_fingerprint }
        }
        3 | 4 => {
            let sections = (0..bytes.byte() % 4).map(|_| receive_section(bytes)).collect();
            Command::ConfigureReceive { transport_id, sections }
        }
        5 | 6 => {
            let sections = (0..bytes.byte() % 4).map(|_| send_section(bytes)).collect();
            Command::ConfigureSend { transport_id, sections }
        }
        7 => Command::UpdateSubscription {
            transport_id,
            track_id: id(bytes, &TRACKS),
            max_spatial: bytes.byte() % 4,
            paused: bytes.chance(),
            priority: u32::from(bytes.byte()),
        },
        8 => Command::OpenRelay(link(bytes.byte() % 3)),
        9 => Command::CloseRelay { link_id: id(bytes, &LINKS) },
        10 | 11 => Command::AddRemoteTrack {
            track_id: id(bytes, &TRACKS),
            kind: if bytes.chance() { Kind::Audio } else { Kind::Video },
            link_id: id(bytes, &LINKS),
            layers: layers(20, bytes.byte()),
            voice: bytes.chance(),
        },
        12 => Command::RemoveRemoteTrack { track_id: id(bytes, &TRACKS) },
        13 => Command::RequestKeyFrame { track_id: id(bytes, &TRACKS) },
        14 => Command::SendData {
            transport_ids: vec![transport_id, id(bytes, &CLIENTS)],
            label: bytes.pick(&LABELS).unwrap_or("").into(),
            binary: bytes.chance(),
            payload: bytes.take().to_vec(),
        },
        15 => {
            let local_ufrag = ufrag(&transport_id, bytes.byte() % 4);
            Command::RestartIce { transport_id, local_ufrag, local_pwd: PASSWORD.into() }
        }
        16 => Command::AdoptDataChannels { transport_id, data_channels: data_channels(bytes) },
        17 => Command::PutSnapshot { version: u64::from(bytes.byte()), blob: bytes.take().to_vec() },
        _ if bytes.byte().is_multiple_of(8) => Command::CloseRoom,
        _ => Command::Invalid("not understood".into()),
    }
}
