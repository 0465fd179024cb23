//! What the fuzz target of data channels does with one input: our end, another implementation of SCTP's, and a path
//! between them that loses and changes packets.

use super::*;
use headwater_wire::exercise::Bytes;

const MAX_STEPS: usize = 64;
const LABELS: [&str; 5] = ["_reliable", "_lossy", "x", "", "a label that is longer than the others"];
const PPIDS: [u32; 6] = [PPID_DCEP, PPID_STRING, PPID_BINARY, PPID_STRING_EMPTY, PPID_BINARY_EMPTY, 9];
/// Ports, verification tag and checksum.
const HEADER: usize = 12;

struct Pair {
    ours: DataChannels,
    peer: Box<dyn DcSctpSocket>,
    start: Instant,
    now: Instant,
    to_us: VecDeque<Vec<u8>>,
    to_peer: VecDeque<Vec<u8>>,
    /// The peer's last packet's.
    header: [u8; HEADER],
}

impl Pair {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let flags = bytes.byte();
        let start = Instant::now();
        let wanted = (0..flags & 3).map(|_| channel(bytes)).collect();
        let mut ours = DataChannels::new(wanted, if flags & 4 == 0 { 0 } else { 500 }, start);
        let mut peer = dcsctp::new_socket("peer", &Options { mtu: 1180, ..Options::default() });
        if flags & 8 == 0 {
            peer.connect();
        }
        ours.start(start);
        let (to_us, to_peer) = (VecDeque::new(), VecDeque::new());
        Self { ours, peer, start, now: start, to_us, to_peer, header: [0; HEADER] }
    }

    /// Collect what both have to send.
    fn collect(&mut self) {
        let limit = self.ours.max_message;
        let to_peer = &mut self.to_peer;
        self.ours.drain(self.now, |output| match output {
            DataOutput::Packet(packet) => to_peer.push_back(packet),
            DataOutput::Message { payload, .. } => assert!(payload.len() <= limit, "message bound"),
        });
        while let Some(event) = self.peer.poll_event() {
            if let SocketEvent::SendPacket(packet) = event {
                if let Some(header) = packet.first_chunk() {
                    self.header = *header;
                }
                self.to_us.push_back(packet);
            }
        }
        while self.peer.get_next_message().is_some() {}
        let ours = &self.ours;
        assert!(ours.channels.len() <= MAX_CHANNELS && ours.pending.len() <= MAX_PENDING, "bounds");
        let waits: usize = ours.pending.iter().map(|p| p.1.len()).sum();
        assert_eq!(waits, ours.pending_bytes, "bytes that wait");
    }

    /// All that is under way arrives, and what is answered to it.
    fn deliver(&mut self) {
        for _ in 0..8 {
            self.collect();
            if self.to_us.is_empty() && self.to_peer.is_empty() {
                break;
            }
            for packet in std::mem::take(&mut self.to_us) {
                self.ours.handle_packet(self.now, &packet);
            }
            for packet in std::mem::take(&mut self.to_peer) {
                self.peer.handle_input(&packet);
            }
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 12 {
            0 | 1 => self.deliver(),
            2 => {
                let (at, change) = (bytes.byte(), bytes.byte());
                let Some(mut packet) = self.to_us.pop_front() else { return };
                if let Some(byte) = packet.get_mut(HEADER + usize::from(at)) {
                    *byte ^= change;
                }
                seal(&mut packet);
                self.ours.handle_packet(self.now, &packet);
            }
            3 => {
                let lost = if bytes.chance() { &mut self.to_us } else { &mut self.to_peer };
                lost.pop_front();
            }
            4 => {
                let mut packet = self.header.to_vec();
                packet.extend_from_slice(bytes.take());
                seal(&mut packet);
                self.ours.handle_packet(self.now, &packet);
            }
            5 => self.ours.handle_packet(self.now, bytes.take()),
            6 => {
                let (stream, ppid) = (u16::from(bytes.byte() % 40), bytes.pick(&PPIDS).unwrap_or(0));
                self.say(stream, ppid, bytes.take().to_vec());
            }
            7 => {
                let stream = u16::from(bytes.byte());
                let label = bytes.pick(&LABELS).unwrap_or("");
                let mut open =
                    vec![DCEP_OPEN, bytes.byte(), 1, 0, 0, 0, 0, bytes.byte(), 0, label.len() as u8, 0, 0];
                open.extend_from_slice(label.as_bytes());
                self.say(stream, PPID_DCEP, open);
            }
            8 => {
                let label = bytes.pick(&LABELS).unwrap_or("");
                let binary = bytes.chance();
                self.ours.send(label, bytes.take(), binary).ok();
            }
            9 => {
                self.now += Duration::from_millis(u64::from(bytes.byte()) * 20);
                self.peer.advance_time(SocketTime::zero() + (self.now - self.start));
                assert!(self.ours.deadline().is_none_or(|t| t >= self.start), "deadline");
            }
            10 => {
                let streams: Vec<_> = bytes.take().iter().take(8).map(|s| StreamId((*s).into())).collect();
                self.peer.reset_streams(&streams).ok();
            }
            _ => {
                let wanted = channel(bytes);
                self.ours.adopt(vec![wanted]);
            }
        }
        self.collect();
    }

    fn say(&mut self, stream: u16, ppid: u32, payload: Vec<u8>) {
        if !payload.is_empty() {
            self.peer.send(Message::new(StreamId(stream), PpId(ppid), payload), &SendOptions::default()).ok();
        }
    }
}

fn channel(bytes: &mut Bytes<'_>) -> DataChannel {
    let flags = bytes.byte();
    DataChannel {
        label: bytes.pick(&LABELS).unwrap_or("").into(),
        ordered: flags & 1 != 0,
        max_retransmits: (flags & 2 != 0).then_some(u16::from(flags >> 4)),
        established: (flags & 4 != 0).then_some(u16::from(flags >> 3)),
    }
}

/// The checksum (CRC-32C, RFC 9260 §6.8), without which no packet is looked at.
fn seal(packet: &mut [u8]) {
    if let Some(field) = packet.get_mut(8..HEADER) {
        field.fill(0);
    }
    let step = |c: u32, _| if c & 1 == 0 { c >> 1 } else { c >> 1 ^ 0x82F6_3B78 };
    let sum = !packet.iter().fold(!0, |c, b| (0..8).fold(c ^ u32::from(*b), step));
    if let Some(field) = packet.get_mut(8..HEADER) {
        field.copy_from_slice(&sum.to_le_bytes());
    }
}

/// A script for both ends and what is between them.
pub fn data(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut pair = Pair::new(&mut bytes);
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        pair.step(&mut bytes);
    }
    pair.deliver();
}
