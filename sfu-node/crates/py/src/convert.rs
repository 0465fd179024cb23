//! Between protobuf messages and the engine's own types. Bad input becomes an error that names the field.

use crate::proto;
use headwater_engine::api::{
    Apply, Codec, CodecMap, Command, CreateTransport, DataChannel, Event, EventKind, Extension, ExtensionMap,
    Kind, Layer, OpenRelay, ReceiveSection, RoomHeld, SendSection, TransportState,
};
use std::time::Duration;

const DEFAULT_LEASE: Duration = Duration::from_secs(60);
/// Longest lease: a controller that is gone must not hold a room for ever.
const MAX_LEASE: Duration = Duration::from_secs(3600);

/// The whole request. A command that cannot be read becomes one that reports why.
pub fn apply(request: proto::ApplyRequest) -> Result<Apply, String> {
    if request.room_id.is_empty() || request.room_id.len() > 256 {
        return Err("room_id: 1 to 256 bytes".into());
    }
    let lease = match request.lease_ms {
        0 => DEFAULT_LEASE,
        ms => Duration::from_millis(ms.into()).min(MAX_LEASE),
    };
    Ok(Apply {
        room_id: request.room_id.into(),
        epoch: request.epoch,
        controller_id: request.controller_id.into(),
        lease,
        audio_top_n: request.audio_top_n,
        commands: request.commands.into_iter().map(command).collect(),
    })
}

/// One room of a RoomsResponse.
pub fn room_held(held: RoomHeld) -> proto::RoomHeld {
    proto::RoomHeld {
        room_id: held.room_id.to_string(),
        epoch: held.epoch,
        controller_id: held.controller_id.to_string(),
        snapshot_version: held.snapshot_version,
        snapshot: held.snapshot,
        lease_left_ms: u32::try_from(held.lease_left.as_millis()).unwrap_or(u32::MAX),
    }
}

fn command(command: proto::Command) -> Command {
    use proto::command::Command as C;
    let Some(command) = command.command else {
        return Command::Invalid("command: empty, or not known to this node".into());
    };
    let result = match command {
        C::CreateTransport(c) => create_transport(c),
        C::SetRemote(c) => Ok(Command::SetRemote {
            transport_id: c.transport_id.into(),
            remote_fingerprint: c.remote_fingerprint,
        }),
        C::AdoptDataChannels(c) => all(c.data_channels, "data_channels", data_channel).map(|data_channels| {
            Command::AdoptDataChannels { transport_id: c.transport_id.into(), data_channels }
        }),
        C::RestartIce(c) => Ok(Command::RestartIce {
            transport_id: c.transport_id.into(),
            local_ufrag: c.local_ufrag,
            local_pwd: c.local_pwd,
        }),
        C::CloseTransport(c) => Ok(Command::CloseTransport { transport_id: c.transport_id.into() }),
        C::ConfigureReceive(c) => all(c.sections, "sections", receive_section)
            .map(|sections| Command::ConfigureReceive { transport_id: c.transport_id.into(), sections }),
        C::ConfigureSend(c) => all(c.sections, "sections", send_section)
            .map(|sections| Command::ConfigureSend { transport_id: c.transport_id.into(), sections }),
        C::UpdateSubscription(c) => Ok(Command::UpdateSubscription {
            transport_id: c.transport_id.into(),
            track_id: c.track_id.into(),
            max_spatial: spatial(c.max_spatial),
            paused: c.paused,
            priority: c.priority,
        }),
        C::SendData(c) => Ok(Command::SendData {
            transport_ids: c.transport_ids.into_iter().map(Into::into).collect(),
            label: c.label,
            payload: c.payload,
            binary: c.binary,
        }),
        C::OpenRelay(c) => open_relay(c),
        C::CloseRelay(c) => Ok(Command::CloseRelay { link_id: c.link_id.into() }),
        C::AddRemoteTrack(c) => add_remote_track(c),
        C::RemoveRemoteTrack(c) => Ok(Command::RemoveRemoteTrack { track_id: c.track_id.into() }),
        C::RequestKeyFrame(c) => Ok(Command::RequestKeyFrame { track_id: c.track_id.into() }),
        C::CloseRoom(_) => Ok(Command::CloseRoom),
        C::PutSnapshot(c) => Ok(Command::PutSnapshot { version: c.version, blob: c.blob }),
    };
    result.unwrap_or_else(Command::Invalid)
}

/// Convert each item; an error gets its place in the list.
fn all<A, B>(items: Vec<A>, name: &str, each: impl Fn(A) -> Result<B, String>) -> Result<Vec<B>, String> {
    let place = |(i, item)| each(item).map_err(|e| format!("{name}[{i}].{e}"));
    items.into_iter().enumerate().map(place).collect()
}

/// Anything above the highest layer means the highest.
fn spatial(value: u32) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX).min(2)
}

fn create_transport(c: proto::CreateTransport) -> Result<Command, String> {
    if c.transport_id.is_empty() {
        return Err("transport_id: empty".into());
    }
    Ok(Command::CreateTransport(CreateTransport {
        transport_id: c.transport_id.into(),
        participant_id: c.participant_id.into(),
        local_ufrag: c.local_ufrag,
        local_pwd: c.local_pwd,
        remote_fingerprint: c.remote_fingerprint,
        data_channels: all(c.data_channels, "data_channels", data_channel)?,
        max_message_size: c.max_message_size,
    }))
}

fn data_channel(d: proto::DataChannel) -> Result<DataChannel, String> {
    let max_retransmits = match d.max_retransmits {
        n if n < 0 => None,
        n => Some(u16::try_from(n).map_err(|_| format!("max_retransmits: {n} is above 65535"))?),
    };
    let stream =
        u16::try_from(d.stream_id).map_err(|_| format!("stream_id: {} is above 65535", d.stream_id))?;
    Ok(DataChannel {
        label: d.label,
        ordered: d.ordered,
        max_retransmits,
        established: d.established.then_some(stream),
    })
}

fn kind(value: i32) -> Result<Kind, String> {
    match proto::Kind::try_from(value) {
        Ok(proto::Kind::Audio) => Ok(Kind::Audio),
        Ok(proto::Kind::Video) => Ok(Kind::Video),
        _ => Err(format!("kind: {value} is neither audio nor video")),
    }
}

fn codec_map(c: proto::CodecMap) -> Result<CodecMap, String> {
    let codec = u8::try_from(c.codec).ok().and_then(Codec::from_number);
    let codec = codec.ok_or_else(|| format!("codec: {} is not known", c.codec))?;
    if c.payload_type > 127 {
        return Err(format!("payload_type: {} is above 127", c.payload_type));
    }
    if c.clock_rate == 0 || c.clock_rate > 1_000_000 {
        return Err(format!("clock_rate: {} Hz is not between 1 and 1000000", c.clock_rate));
    }
    Ok(CodecMap {
        payload_type: c.payload_type as u8,
        codec,
        clock_rate: c.clock_rate,
        apt: u8::try_from(c.apt).unwrap_or(u8::MAX),
        nack: c.nack,
        pli: c.pli,
        transport_cc: c.transport_cc,
        fmtp: c.fmtp,
    })
}

/// Extensions that the node does not know are left out: they are not needed to forward.
fn extensions(items: Vec<proto::ExtensionMap>) -> Result<Vec<ExtensionMap>, String> {
    let mut known = Vec::new();
    for (i, e) in items.into_iter().enumerate() {
        let id = u8::try_from(e.id).ok().filter(|id| *id != 0 && *id != 15);
        let id = id.ok_or_else(|| format!("extensions[{i}].id: {} is not 1..=14 or 16..=255", e.id))?;
        if let Some(extension) = u8::try_from(e.extension).ok().and_then(Extension::from_number) {
            known.push(ExtensionMap { id, extension });
        }
    }
    Ok(known)
}

fn layer(l: proto::Layer) -> Result<Layer, String> {
    let spatial = u8::try_from(l.spatial).map_err(|_| format!("spatial: {} is not 0, 1 or 2", l.spatial))?;
    Ok(Layer { rid: l.rid, spatial, ssrc: l.ssrc, rtx_ssrc: l.rtx_ssrc })
}

fn receive_section(s: proto::ReceiveSection) -> Result<ReceiveSection, String> {
    Ok(ReceiveSection {
        mid: s.mid,
        kind: kind(s.kind)?,
        track_id: s.track_id.into(),
        codecs: all(s.codecs, "codecs", codec_map)?,
        extensions: extensions(s.extensions)?,
        layers: all(s.layers, "layers", layer)?,
        muted: s.muted,
        voice: s.voice,
    })
}

fn send_section(s: proto::SendSection) -> Result<SendSection, String> {
    Ok(SendSection {
        mid: s.mid,
        kind: kind(s.kind)?,
        track_id: s.track_id.into(),
        ssrc: s.ssrc,
        rtx_ssrc: s.rtx_ssrc,
        codecs: all(s.codecs, "codecs", codec_map)?,
        extensions: extensions(s.extensions)?,
        max_spatial: spatial(s.max_spatial),
        paused: s.paused,
        screen: s.screen,
        priority: s.priority,
    })
}

fn open_relay(c: proto::OpenRelay) -> Result<Command, String> {
    let key = |bytes: Vec<u8>, name: &str| {
        <[u8; 32]>::try_from(bytes).map_err(|b| format!("{name}: {} bytes instead of 32", b.len()))
    };
    if c.link_id.is_empty() {
        return Err("link_id: empty".into());
    }
    let peer_address =
        c.peer_address.parse().map_err(|_| format!("peer_address: {:.64} is not ip:port", c.peer_address))?;
    Ok(Command::OpenRelay(OpenRelay {
        link_id: c.link_id.into(),
        peer_node_id: c.peer_node_id,
        peer_address,
        tx_key: key(c.tx_key, "tx_key")?,
        rx_key: key(c.rx_key, "rx_key")?,
        link_token: c.link_token,
        peer_token: if c.peer_token == 0 { c.link_token } else { c.peer_token },
    }))
}

fn add_remote_track(c: proto::AddRemoteTrack) -> Result<Command, String> {
    Ok(Command::AddRemoteTrack {
        track_id: c.track_id.into(),
        kind: kind(c.kind)?,
        link_id: c.link_id.into(),
        layers: all(c.layers, "layers", layer)?,
        voice: c.voice,
    })
}

fn state(state: TransportState) -> proto::TransportState {
    match state {
        TransportState::New => proto::TransportState::TransportNew,
        TransportState::Connected => proto::TransportState::TransportConnected,
        TransportState::Disconnected => proto::TransportState::TransportDisconnected,
        TransportState::Failed => proto::TransportState::TransportFailed,
        TransportState::Closed => proto::TransportState::TransportClosed,
    }
}

/// One event for the wire.
pub fn event(event: Event) -> proto::Event {
    use proto::event::Event as E;
    let kind = match event.kind {
        EventKind::Transport { transport_id, state: s, reason, srtp_profile, remote_address } => {
            E::Transport(proto::TransportEvent {
                transport_id: transport_id.to_string(),
                state: state(s).into(),
                reason: reason.into(),
                srtp_profile: srtp_profile.into(),
                remote_address: remote_address.map(|a| a.to_string()).unwrap_or_default(),
            })
        }
        EventKind::Sources { transport_id, mid, layers } => E::Sources(proto::SourcesEvent {
            transport_id: transport_id.to_string(),
            mid,
            layers: layers
                .into_iter()
                .map(|l| proto::Layer {
                    rid: l.rid,
                    spatial: l.spatial.into(),
                    ssrc: l.ssrc,
                    rtx_ssrc: l.rtx_ssrc,
                })
                .collect(),
        }),
        EventKind::Track { track_id, live_spatial, codec, ended } => E::Track(proto::TrackEvent {
            track_id: track_id.to_string(),
            live_spatial: live_spatial.into_iter().map(u32::from).collect(),
            codec: codec.map_or(0, |c| c as i32),
            ended,
        }),
        EventKind::AudioLevels(levels) => {
            let level = |(id, level): (headwater_engine::api::Id, u8)| proto::AudioLevel {
                track_id: id.to_string(),
                level: level.into(),
            };
            E::AudioLevels(proto::AudioLevels { levels: levels.into_iter().map(level).collect() })
        }
        EventKind::Data { transport_id, label, payload, binary } => E::Data(proto::DataEvent {
            transport_id: transport_id.to_string(),
            label: label.to_string(),
            payload,
            binary,
            replayed: false,
        }),
        EventKind::Quality { participant_id, uplink_loss, downlink_loss, rtt_ms, downlink_bps } => {
            let participant_id = participant_id.to_string();
            E::Quality(proto::QualityEvent {
                participant_id,
                uplink_loss,
                downlink_loss,
                rtt_ms,
                downlink_bps,
            })
        }
        EventKind::Subscription { transport_id, track_id, current_spatial, limited } => {
            E::Subscription(proto::SubscriptionEvent {
                transport_id: transport_id.to_string(),
                track_id: track_id.to_string(),
                current_spatial,
                limited,
            })
        }
        EventKind::Relay { link_id, up, reason } => {
            E::Relay(proto::RelayEvent { link_id: link_id.to_string(), up, reason: reason.into() })
        }
        EventKind::RoomClosed { reason } => E::RoomClosed(proto::RoomClosed { reason: reason.into() }),
    };
    proto::Event { room_id: event.room_id.to_string(), event: Some(kind) }
}
