//! Commands, events and reports: the engine's contract with the agent, free of protobuf.
//!
//! The meaning of every field is that of `headwater.node.v1`; ids are opaque strings.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

pub use headwater_wire::{codec::Codec, ext::ExtKind as Extension};

/// An opaque identifier made by the caller, shared cheaply.
pub type Id = Arc<str>;

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Audio,
    Video,
}

/// A negotiated payload type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecMap {
    /// RTP payload type, 0..=127.
    pub payload_type: u8,
    /// What it carries.
    pub codec: Codec,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// RTX: the payload type that it repairs. RED: that of its blocks.
    pub apt: u8,
    /// Generic NACK (RFC 4585) was negotiated.
    pub nack: bool,
    /// PLI (RFC 4585) was negotiated.
    pub pli: bool,
    /// Transport-wide feedback was negotiated.
    pub transport_cc: bool,
    /// Format parameters, compared but never read.
    pub fmtp: String,
}

/// A negotiated header extension id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionMap {
    /// Local identifier, 1..=255.
    pub id: u8,
    /// What it means.
    pub extension: Extension,
}

/// One simulcast layer; `spatial` 0 is the smallest picture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// RTP stream id (RFC 8851), empty without simulcast.
    pub rid: String,
    /// 0..=2.
    pub spatial: u8,
    /// Signalled SSRC, 0 when unknown.
    pub ssrc: u32,
    /// Signalled SSRC of the RTX stream, 0 when unknown.
    pub rtx_ssrc: u32,
}

/// A publisher's m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiveSection {
    /// Media identification tag (RFC 5888).
    pub mid: String,
    /// Audio or video.
    pub kind: Kind,
    /// Empty until the gateway has matched it.
    pub track_id: Id,
    /// Payload types that may come.
    pub codecs: Vec<CodecMap>,
    /// Header extensions that may come.
    pub extensions: Vec<ExtensionMap>,
    /// One entry without simulcast.
    pub layers: Vec<Layer>,
    /// Packets are dropped at ingress; state is kept.
    pub muted: bool,
    /// A microphone: where only the loudest are heard, it is one of those that compete.
    pub voice: bool,
}

/// A subscriber's m-line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendSection {
    /// Media identification tag of the subscriber's m-line.
    pub mid: String,
    /// Audio or video.
    pub kind: Kind,
    /// The track that it shows.
    pub track_id: Id,
    /// SSRC that is sent.
    pub ssrc: u32,
    /// 0: NACKs are answered on the media SSRC.
    pub rtx_ssrc: u32,
    /// Payload types that the subscriber accepts.
    pub codecs: Vec<CodecMap>,
    /// Header extensions that the subscriber accepts.
    pub extensions: Vec<ExtensionMap>,
    /// Highest layer wanted.
    pub max_spatial: u8,
    /// Nothing is sent while set.
    pub paused: bool,
    /// A screen share: served before cameras.
    pub screen: bool,
    /// Within its class, higher is served earlier.
    pub priority: u32,
}

/// A data channel that the node opens once SCTP is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataChannel {
    /// DCEP label (RFC 8832).
    pub label: String,
    /// In-order delivery.
    pub ordered: bool,
    /// `None`: reliable.
    pub max_retransmits: Option<u16>,
    /// The peer has it since a node before this one, on this SCTP stream.
    pub established: Option<u16>,
}

/// A new transport (one client peer connection).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct CreateTransport {
    pub transport_id: Id,
    pub participant_id: Id,
    pub local_ufrag: String,
    pub local_pwd: String,
    pub remote_fingerprint: String,
    pub data_channels: Vec<DataChannel>,
    pub max_message_size: u32,
}

/// One side of a relay link between two nodes.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct OpenRelay {
    pub link_id: Id,
    pub peer_node_id: String,
    pub peer_address: SocketAddr,
    pub tx_key: [u8; 32],
    pub rx_key: [u8; 32],
    pub link_token: u32,
    /// What the peer knows the link by: another number where both ends are on one node.
    pub peer_token: u32,
}

/// What a room actor may ask for.
#[derive(Clone)]
#[allow(missing_docs)]
pub enum Command {
    CreateTransport(CreateTransport),
    SetRemote {
        transport_id: Id,
        remote_fingerprint: String,
    },
    AdoptDataChannels {
        transport_id: Id,
        data_channels: Vec<DataChannel>,
    },
    RestartIce {
        transport_id: Id,
        local_ufrag: String,
        local_pwd: String,
    },
    CloseTransport {
        transport_id: Id,
    },
    ConfigureReceive {
        transport_id: Id,
        sections: Vec<ReceiveSection>,
    },
    ConfigureSend {
        transport_id: Id,
        sections: Vec<SendSection>,
    },
    UpdateSubscription {
        transport_id: Id,
        track_id: Id,
        max_spatial: u8,
        paused: bool,
        priority: u32,
    },
    SendData {
        transport_ids: Vec<Id>,
        label: String,
        payload: Vec<u8>,
        binary: bool,
    },
    OpenRelay(OpenRelay),
    CloseRelay {
        link_id: Id,
    },
    AddRemoteTrack {
        track_id: Id,
        kind: Kind,
        link_id: Id,
        layers: Vec<Layer>,
        voice: bool,
    },
    RemoveRemoteTrack {
        track_id: Id,
    },
    RequestKeyFrame {
        track_id: Id,
    },
    CloseRoom,
    PutSnapshot {
        version: u64,
        blob: Vec<u8>,
    },
    /// Not understood by the converter: reported as this command's own error.
    Invalid(String),
}

/// Commands of one room, carried out in order.
#[derive(Clone)]
pub struct Apply {
    /// The room.
    pub room_id: Id,
    /// Refused when lower than one already seen, or the same of a controller with a greater id.
    pub epoch: u64,
    /// Who gets the room's events.
    pub controller_id: Id,
    /// Time until the room is closed unless renewed.
    pub lease: Duration,
    /// So many of the room's microphones are forwarded, the loudest; 0: all.
    pub audio_top_n: u32,
    /// In order; may be empty.
    pub commands: Vec<Command>,
}

/// The request's epoch is older than one that the node has seen. Of two controllers with one epoch, the one with the
/// greater id has it: each node comes to the same verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleEpoch {
    /// The newest epoch seen for this room.
    pub current: u64,
}

/// State of a client transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TransportState {
    New,
    Connected,
    Disconnected,
    Failed,
    Closed,
}

/// What the engine tells a room actor.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum EventKind {
    Transport {
        transport_id: Id,
        state: TransportState,
        reason: &'static str,
        srtp_profile: &'static str,
        remote_address: Option<SocketAddr>,
    },
    Track {
        track_id: Id,
        live_spatial: Vec<u8>,
        codec: Option<Codec>,
        ended: bool,
    },
    Sources {
        transport_id: Id,
        mid: String,
        layers: Vec<Layer>,
    },
    AudioLevels(Vec<(Id, u8)>),
    Data {
        transport_id: Id,
        label: Arc<str>,
        payload: Vec<u8>,
        binary: bool,
    },
    Quality {
        participant_id: Id,
        uplink_loss: f32,
        downlink_loss: f32,
        rtt_ms: f32,
        /// What the paths towards the participant carry, as estimated, bit/s; 0: not known.
        downlink_bps: u64,
    },
    Subscription {
        transport_id: Id,
        track_id: Id,
        current_spatial: i32,
        /// Paused for want of bandwidth.
        limited: bool,
    },
    Relay {
        link_id: Id,
        up: bool,
        reason: &'static str,
    },
    RoomClosed {
        reason: &'static str,
    },
}

/// An event with its addressee.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The room's controller at the time of the event.
    pub controller_id: Id,
    /// The room.
    pub room_id: Id,
    /// What happened.
    pub kind: EventKind,
}

/// What a successor of a room's controller needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RoomHeld {
    pub room_id: Id,
    pub epoch: u64,
    pub controller_id: Id,
    /// 0: there is none.
    pub snapshot_version: u64,
    /// Empty unless asked for.
    pub snapshot: Vec<u8>,
    pub lease_left: Duration,
}

/// One room in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RoomReport {
    pub room_id: Id,
    pub epoch: u64,
    pub controller_id: Id,
    pub snapshot_version: u64,
    pub participants: u32,
    pub published_tracks: u32,
}

/// One relay link in a report; bytes are cumulative.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct LinkReport {
    pub link_id: Id,
    pub room_id: Id,
    pub peer_node_id: String,
    pub up: bool,
    pub tx_bytes: u64,
    pub rx_bytes: u64,
    pub rtt_ms: f64,
    /// Share of the peer's packets lost over the last seconds, 0..=1.
    pub loss: f64,
    pub tx_tracks: u32,
    pub rx_tracks: u32,
    /// Since anything authentic came from the peer, or since the link was opened.
    pub silent_ms: u32,
}

/// Cumulative figures; the caller turns them into rates.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Report {
    pub connections: u32,
    pub participants: u32,
    pub transports_created: u64,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub rooms: Vec<RoomReport>,
    pub links: Vec<LinkReport>,
    /// By reason.
    pub drops: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Add the figures of another engine of the same node.
    pub fn absorb(&mut self, other: Self) {
        self.connections += other.connections;
        self.participants += other.participants;
        self.transports_created += other.transports_created;
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.rooms.extend(other.rooms);
        self.links.extend(other.links);
        for (reason, count) in other.drops {
            *self.drops.entry(reason).or_default() += count;
        }
    }
}
