//! A room with many subscribers, fed with packets that were made beforehand: for counting what a packet costs.

use super::*;

/// Frames have this many packets.
pub const FRAME: usize = 10;
const PAYLOAD: usize = 1150;

/// One publisher of video whose packets go to all subscribers, in a room that has other streams as well.
pub struct Crowd {
    pub world: World,
    publisher: usize,
    sequence: u16,
    timestamp: u32,
}

impl Crowd {
    /// `idle`: streams that every subscriber has besides the one that flows.
    pub fn new(subscribers: usize, idle: usize) -> Self {
        let mut world = World::with_capacity(1, 2000);
        let publisher = world.client(0, "pub");
        world.connect(publisher);
        let camera = receive("cam", "cam", &[77], Kind::Video);
        world.apply(0, configure_receive("pub", vec![camera]));
        let names: Vec<String> = (0..subscribers).map(|i| format!("sub{i}")).collect();
        let clients: Vec<usize> = names.iter().map(|n| world.client(0, n)).collect();
        clients.iter().for_each(|c| world.connect(*c));
        for (at, name) in (0u32..).zip(&names) {
            let others = (0..idle as u32).map(|i| {
                send(&format!("o{i}"), &format!("other{i}"), 100_000 + i * 1000 + at, 0, Kind::Video)
            });
            let first = send("cam", "cam", 5000 + at, 0, Kind::Video);
            world.apply(0, configure_send(name, others.chain([first]).collect()));
        }
        let mut crowd = Self { world, publisher, sequence: 1000, timestamp: 0 };
        let frames = crowd.frames(3);
        let want = subscribers * FRAME;
        assert!(frames.into_iter().all(|f| crowd.forward(f) == want), "each packet reaches everybody");
        crowd
    }

    /// Frames as datagrams of the publisher; the first begins with a key frame.
    pub fn frames(&mut self, count: usize) -> Vec<Vec<Vec<u8>>> {
        (0..count).map(|_| self.frame()).collect()
    }

    fn frame(&mut self) -> Vec<Vec<u8>> {
        self.timestamp += 3000;
        let packet = |i: usize| {
            let header = RtpHeader {
                marker: i + 1 == FRAME,
                payload_type: 96,
                sequence: self.sequence.wrapping_add(i as u16),
                timestamp: self.timestamp,
                ssrc: 77,
            };
            let key = self.timestamp == 3000 && i == 0;
            let mut payload = vec![if i == 0 { 0x10 } else { 0 }, u8::from(!key)];
            payload.resize(PAYLOAD, 0x5A);
            let transport_sequence = header.sequence.to_be_bytes();
            let extensions: [(u8, &[u8]); 2] = [(1, b"cam"), (3, &transport_sequence)];
            self.world.clients[self.publisher].rtp(header, &extensions, &payload)
        };
        let packets = (0..FRAME).map(packet).collect();
        self.sequence = self.sequence.wrapping_add(FRAME as u16);
        packets
    }

    /// What the node does with one frame: datagrams in, datagrams out, none kept. Returns how many came out.
    #[inline(never)]
    pub fn forward(&mut self, frame: Vec<Vec<u8>>) -> usize {
        let peer = self.world.clients[self.publisher].addr;
        let (now, node) = (self.world.now, &mut self.world.nodes[0]);
        let mut sent = 0;
        for mut datagram in frame {
            let path = Path { socket: 0, peer };
            node.engine.handle_datagram(now, now, path, &mut datagram, &mut node.out);
        }
        node.engine.forward(now, &mut node.out, &mut |out| {
            sent += out.len();
            out.clear();
        });
        sent += node.out.len();
        node.out.clear();
        node.out.take_arrivals().for_each(drop);
        self.world.now += Duration::from_millis(1);
        sent
    }
}
