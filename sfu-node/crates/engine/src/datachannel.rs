//! SCTP data channels over DTLS (RFC 8831), with DCEP (RFC 8832), on top of dcsctp.
//!
//! Sans-IO: SCTP packets in and out, messages in and out. Everything a peer can make grow is bounded.

use crate::api::DataChannel;
use dcsctp::api::{
    DcSctpSocket, Message, Options, PpId, SendOptions, SocketEvent, SocketState, SocketTime, StreamId,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(feature = "exercise")]
pub(crate) mod exercise;

/// What SCTP may hold for one peer in each direction, bytes.
const BUFFER: usize = 1 << 20;
/// Messages kept for a channel that is not open yet.
const MAX_PENDING: usize = 64;
const MAX_PENDING_BYTES: usize = 256 << 10;
/// Channels that one peer may open.
const MAX_CHANNELS: usize = 32;
const MAX_LABEL: usize = 128;
/// Default of RFC 8841 is 64 kB; browsers and libwebrtc use 256 kB.
const DEFAULT_MAX_MESSAGE: usize = 256 << 10;
/// Steps of one drain, so that no peer holds the loop.
const MAX_STEPS: usize = 512;

const PPID_DCEP: u32 = 50;
const PPID_STRING: u32 = 51;
const PPID_BINARY: u32 = 53;
const PPID_STRING_EMPTY: u32 = 56;
const PPID_BINARY_EMPTY: u32 = 57;
const DCEP_ACK: u8 = 2;
const DCEP_OPEN: u8 = 3;

struct Channel {
    label: Arc<str>,
    unordered: bool,
    max_retransmits: Option<u16>,
    lifetime: Option<Duration>,
    open: bool,
}

/// What came out of a drain.
pub(crate) enum DataOutput {
    /// An SCTP packet for the DTLS record layer.
    Packet(Vec<u8>),
    /// A whole message from the peer.
    Message { label: Arc<str>, payload: Vec<u8>, binary: bool },
}

/// The SCTP association of one transport.
pub(crate) struct DataChannels {
    socket: Option<Box<dyn DcSctpSocket>>,
    epoch: Instant,
    channels: HashMap<u16, Channel>,
    by_label: HashMap<Arc<str>, u16>,
    wanted: Vec<DataChannel>,
    pending: VecDeque<(Arc<str>, Vec<u8>, bool)>,
    pending_bytes: usize,
    max_message: usize,
    next_stream: u16,
    aborted: bool,
}

impl DataChannels {
    pub fn new(wanted: Vec<DataChannel>, max_message_size: u32, now: Instant) -> Self {
        let max_message = match max_message_size as usize {
            0 => DEFAULT_MAX_MESSAGE,
            n => n.min(BUFFER),
        };
        Self {
            socket: None,
            epoch: now,
            channels: HashMap::new(),
            by_label: HashMap::new(),
            wanted,
            pending: VecDeque::new(),
            pending_bytes: 0,
            max_message,
            next_stream: 1, // we are the DTLS server: odd streams (RFC 8832 §6)
            aborted: false,
        }
    }

    /// DTLS is up: accept the association, or start it when channels are to be opened.
    pub fn start(&mut self, now: Instant) {
        if self.socket.is_some() {
            return;
        }
        let options = Options {
            mtu: 1180,
            max_message_size: self.max_message,
            max_receiver_window_buffer_size: BUFFER.max(2 * self.max_message),
            max_send_buffer_size: BUFFER.max(2 * self.max_message),
            per_stream_send_queue_limit: BUFFER.max(2 * self.max_message),
            announced_maximum_incoming_streams: 1024,
            announced_maximum_outgoing_streams: 1024,
            delayed_ack_max_timeout: Duration::from_millis(20),
            rto_initial: Duration::from_millis(300),
            rto_min: Duration::from_millis(200),
            ..Options::default()
        };
        let mut socket = dcsctp::new_socket("headwater", &options);
        socket.advance_time(self.time(now));
        if !self.wanted.is_empty() {
            socket.connect();
        }
        self.socket = Some(socket);
        for wanted in std::mem::take(&mut self.wanted) {
            self.open(&wanted);
        }
        self.flush_pending();
    }

    /// Channels that the peer has open since a node before this one. Our INIT restarts its association
    /// (RFC 9260 §5.2.2), under which it keeps them.
    pub fn adopt(&mut self, channels: Vec<DataChannel>) {
        let Some(socket) = &mut self.socket else {
            self.wanted.extend(channels);
            return;
        };
        if !channels.is_empty() && socket.state() == SocketState::Closed {
            socket.connect();
        }
        for channel in channels {
            self.open(&channel);
        }
        self.flush_pending();
    }

    /// An SCTP packet from the DTLS record layer.
    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        let time = self.time(now);
        if let Some(socket) = &mut self.socket {
            socket.advance_time(time);
            socket.handle_input(packet);
        }
    }

    /// Queue a message on the channel with this label. The error names why it cannot be sent.
    pub fn send(&mut self, label: &str, payload: &[u8], binary: bool) -> Result<(), &'static str> {
        if payload.len() > self.max_message {
            return Err("message larger than max_message_size");
        }
        if self.aborted {
            return Err("SCTP association closed");
        }
        let open =
            self.by_label.get(label).copied().filter(|id| self.channels.get(id).is_some_and(|c| c.open));
        match open {
            Some(id) => self.send_on(id, payload, binary),
            None => self.queue(label, payload, binary),
        }
    }

    /// Next thing that came out, at most a bounded number of steps per call to [`Self::drain`].
    pub fn drain(&mut self, now: Instant, mut each: impl FnMut(DataOutput)) {
        let time = self.time(now);
        let Some(socket) = &mut self.socket else { return };
        socket.advance_time(time);
        for _ in 0..MAX_STEPS {
            let message = self.socket.as_mut().and_then(|s| s.get_next_message());
            let Some(message) = message else { break };
            if let Some(output) = self.on_message(message) {
                each(output);
            }
        }
        for _ in 0..MAX_STEPS {
            let event = self.socket.as_mut().and_then(|s| s.poll_event());
            match event {
                None => break,
                Some(SocketEvent::SendPacket(packet)) => each(DataOutput::Packet(packet)),
                Some(SocketEvent::OnIncomingStreamReset(streams)) => self.on_reset(&streams),
                Some(SocketEvent::OnAborted(..) | SocketEvent::OnClosed()) => self.aborted = true,
                Some(_) => {}
            }
        }
    }

    /// When [`Self::drain`] has to run next.
    pub fn deadline(&self) -> Option<Instant> {
        let socket = self.socket.as_ref()?;
        let timeout = socket.poll_timeout();
        if timeout == SocketTime::infinite_future() {
            return None;
        }
        self.epoch.checked_add(timeout - SocketTime::zero())
    }

    fn time(&self, now: Instant) -> SocketTime {
        SocketTime::zero() + now.saturating_duration_since(self.epoch)
    }

    fn open(&mut self, wanted: &DataChannel) {
        if self.channels.len() >= MAX_CHANNELS {
            return;
        }
        if let Some(id) = wanted.established {
            let channel = Channel {
                label: wanted.label.as_str().into(),
                unordered: !wanted.ordered,
                max_retransmits: wanted.max_retransmits,
                lifetime: None,
                open: true,
            };
            self.by_label.insert(channel.label.clone(), id);
            self.channels.insert(id, channel);
            return;
        }
        // Streams of adopted channels are taken.
        while self.channels.contains_key(&self.next_stream) {
            self.next_stream += 2;
        }
        let id = self.next_stream;
        self.next_stream += 2;
        let kind = match (wanted.ordered, wanted.max_retransmits) {
            (true, None) => 0x00,
            (false, None) => 0x80,
            (true, Some(_)) => 0x01,
            (false, Some(_)) => 0x81,
        };
        let label = &wanted.label.as_bytes()[..wanted.label.len().min(MAX_LABEL)];
        let mut m = vec![DCEP_OPEN, kind, 1, 0];
        m.extend_from_slice(&u32::from(wanted.max_retransmits.unwrap_or(0)).to_be_bytes());
        m.extend_from_slice(&(label.len() as u16).to_be_bytes());
        m.extend_from_slice(&[0, 0]);
        m.extend_from_slice(label);
        let channel = Channel {
            label: wanted.label.as_str().into(),
            unordered: !wanted.ordered,
            max_retransmits: wanted.max_retransmits,
            lifetime: None,
            // Data may follow the OPEN at once (RFC 8832 §6); the peer gets them in order on the stream
            // only for ordered channels, so others wait for the ACK.
            open: wanted.ordered,
        };
        self.by_label.insert(channel.label.clone(), id);
        self.channels.insert(id, channel);
        self.send_raw(id, PPID_DCEP, m, &SendOptions::default()).ok();
    }

    fn on_message(&mut self, message: Message) -> Option<DataOutput> {
        let id = message.stream_id.0;
        if message.ppid.0 == PPID_DCEP {
            self.on_dcep(id, &message.payload);
            return None;
        }
        let channel = self.channels.get_mut(&id)?;
        channel.open = true;
        let (payload, binary) = match message.ppid.0 {
            PPID_STRING => (message.payload, false),
            PPID_BINARY => (message.payload, true),
            PPID_STRING_EMPTY => (Vec::new(), false),
            PPID_BINARY_EMPTY => (Vec::new(), true),
            _ => return None,
        };
        (payload.len() <= self.max_message).then(|| DataOutput::Message {
            label: channel.label.clone(),
            payload,
            binary,
        })
    }

    fn on_dcep(&mut self, id: u16, m: &[u8]) {
        match m.first() {
            Some(&DCEP_ACK) => {
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.open = true;
                    self.flush_pending();
                }
            }
            Some(&DCEP_OPEN) => {
                if let Some(channel) = parse_open(m)
                    && (self.channels.len() < MAX_CHANNELS || self.channels.contains_key(&id))
                {
                    self.by_label.insert(channel.label.clone(), id);
                    self.channels.insert(id, channel);
                    self.send_raw(id, PPID_DCEP, vec![DCEP_ACK], &SendOptions::default()).ok();
                    self.flush_pending();
                }
            }
            _ => {}
        }
    }

    fn on_reset(&mut self, streams: &[StreamId]) {
        for stream in streams {
            if let Some(channel) = self.channels.remove(&stream.0)
                && self.by_label.get(&channel.label) == Some(&stream.0)
            {
                self.by_label.remove(&channel.label);
            }
        }
        if let Some(socket) = &mut self.socket {
            socket.reset_streams(streams).ok();
        }
    }

    fn queue(&mut self, label: &str, payload: &[u8], binary: bool) -> Result<(), &'static str> {
        if self.pending.len() >= MAX_PENDING || self.pending_bytes + payload.len() > MAX_PENDING_BYTES {
            return Err("data channel not open and its queue is full");
        }
        self.pending_bytes += payload.len();
        self.pending.push_back((label.into(), payload.to_vec(), binary));
        Ok(())
    }

    fn flush_pending(&mut self) {
        for (label, payload, binary) in std::mem::take(&mut self.pending) {
            let open = self.by_label.get(&label).copied();
            match open.filter(|id| self.channels.get(id).is_some_and(|c| c.open)) {
                Some(id) => {
                    self.pending_bytes -= payload.len();
                    self.send_on(id, &payload, binary).ok();
                }
                None => self.pending.push_back((label, payload, binary)),
            }
        }
    }

    fn send_on(&mut self, id: u16, payload: &[u8], binary: bool) -> Result<(), &'static str> {
        let Some(channel) = self.channels.get(&id) else { return Err("no such data channel") };
        let options = SendOptions {
            unordered: channel.unordered,
            lifetime: channel.lifetime,
            max_retransmissions: channel.max_retransmits,
            lifecycle_id: None,
        };
        let (ppid, payload) = match (payload.is_empty(), binary) {
            // SCTP carries no empty messages: one zero byte stands for them (RFC 8831 §6.6).
            (true, true) => (PPID_BINARY_EMPTY, vec![0]),
            (true, false) => (PPID_STRING_EMPTY, vec![0]),
            (false, true) => (PPID_BINARY, payload.to_vec()),
            (false, false) => (PPID_STRING, payload.to_vec()),
        };
        self.send_raw(id, ppid, payload, &options)
    }

    fn send_raw(
        &mut self,
        id: u16,
        ppid: u32,
        m: Vec<u8>,
        options: &SendOptions,
    ) -> Result<(), &'static str> {
        let Some(socket) = &mut self.socket else { return Err("SCTP is not up") };
        socket.send(Message::new(StreamId(id), PpId(ppid), m), options).map_err(|_| "SCTP send queue is full")
    }
}

/// DATA_CHANNEL_OPEN, RFC 8832 §5.1.
fn parse_open(m: &[u8]) -> Option<Channel> {
    if m.len() < 12 {
        return None;
    }
    let reliability = u32::from_be_bytes([m[4], m[5], m[6], m[7]]);
    let label_len = usize::from(u16::from_be_bytes([m[8], m[9]]));
    if label_len > MAX_LABEL {
        return None;
    }
    let label = std::str::from_utf8(m.get(12..12 + label_len)?).ok()?;
    let (max_retransmits, lifetime) = match m[1] & 0x7F {
        0 => (None, None),
        1 => (Some(reliability.min(u32::from(u16::MAX)) as u16), None),
        2 => (None, Some(Duration::from_millis(u64::from(reliability)))),
        _ => return None,
    };
    Some(Channel { label: label.into(), unordered: m[1] & 0x80 != 0, max_retransmits, lifetime, open: true })
}
