//! What the generator sends, and to how many.

use headwater_engine::api::Kind;

/// Publishers of one room that send alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stream {
    pub kind: Kind,
    /// How many publish this.
    pub publishers: usize,
    /// Of a forwarded packet on the wire, UDP payload.
    pub bytes: usize,
    /// Packets per second of each publisher.
    pub pps: u32,
    /// Packets of a frame, sent together.
    pub burst: u32,
}

/// One load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// For `--only` and the scoreboard.
    pub key: &'static str,
    pub name: &'static str,
    pub rooms: usize,
    pub streams: &'static [Stream],
    /// In each room.
    pub subscribers: usize,
    /// Publisher n is also subscriber n and does not get its own stream.
    pub meeting: bool,
    /// The subscribers are on a second node, behind a relay link.
    pub relay: bool,
}

const fn video(publishers: usize, bytes: usize, pps: u32, burst: u32) -> Stream {
    Stream { kind: Kind::Video, publishers, bytes, pps, burst }
}

const fn audio(publishers: usize, bytes: usize) -> Stream {
    Stream { kind: Kind::Audio, publishers, bytes, pps: 50, burst: 1 }
}

const ONE: Load = Load {
    key: "broadcast",
    name: "1 -> 50, 1200 B, 300 pps, frames of 10",
    rooms: 1,
    streams: &[video(1, 1200, 300, 10)],
    subscribers: 50,
    meeting: false,
    relay: false,
};

/// The loads of one table, in its order. The first is also driven to its limit.
pub const LOADS: [Load; 6] = [
    ONE,
    Load {
        key: "spaced",
        name: "1 -> 50, 1200 B, 300 pps, evenly spaced",
        streams: &[video(1, 1200, 300, 1)],
        ..ONE
    },
    Load {
        key: "rooms",
        name: "20 rooms of 5, all video, 1200 B, 150 pps, frames of 5",
        rooms: 20,
        streams: &[video(5, 1200, 150, 5)],
        subscribers: 5,
        meeting: true,
        relay: false,
    },
    Load {
        key: "ten",
        name: "10 -> 10, 1100 B, 150 pps, frames of 5",
        streams: &[video(10, 1100, 150, 5)],
        subscribers: 10,
        ..ONE
    },
    Load {
        key: "audio",
        name: "audio 5 -> 100, 92 B, 50 pps",
        streams: &[audio(5, 92)],
        subscribers: 100,
        ..ONE
    },
    Load {
        key: "relay",
        name: "relay link, 40 tracks, 1200 B, 300 pps, frames of 10",
        streams: &[video(40, 1200, 300, 10)],
        subscribers: 1,
        relay: true,
        ..ONE
    },
];

/// Loads that are held for minutes.
pub const HOLDS: [Load; 2] = [
    Load { key: "crowd", name: "1 -> 500, 1200 B, 300 pps, frames of 10", subscribers: 500, ..ONE },
    Load {
        key: "town",
        name: "100 participants: 25 tiles of 800 B, 60 pps, frames of 2, and 3 voices of 92 B, to each",
        streams: &[video(25, 800, 60, 2), audio(3, 92)],
        subscribers: 100,
        ..ONE
    },
];

impl Load {
    /// The load with this key.
    pub fn find(key: &str) -> Option<Self> {
        LOADS.iter().chain(&HOLDS).find(|l| l.key == key).copied()
    }

    /// Publishers in each room.
    pub fn publishers(&self) -> usize {
        self.streams.iter().map(|s| s.publishers).sum()
    }

    /// Of each publisher of a room, in their order.
    pub fn each(&self) -> impl Iterator<Item = Stream> + '_ {
        self.streams.iter().flat_map(|s| std::iter::repeat_n(*s, s.publishers))
    }

    /// Subscribers that get each packet.
    pub fn fan_out(&self) -> usize {
        self.subscribers - usize::from(self.meeting)
    }

    /// Whether `subscriber` of a room gets the stream of `publisher`.
    pub fn wants(&self, subscriber: usize, publisher: usize) -> bool {
        !(self.meeting && subscriber == publisher)
    }

    /// People: in a meeting each publishes and subscribes.
    pub fn participants(&self) -> usize {
        let others = if self.meeting { 0 } else { self.publishers() };
        self.rooms * (self.subscribers + others)
    }

    /// Frames per second of all publishers.
    pub fn frames(&self) -> u64 {
        self.each().map(|s| u64::from(s.pps / s.burst)).sum::<u64>() * self.rooms as u64
    }

    /// Size and datagrams in a message for the kernel's floor: those of the stream that most packets are of.
    pub fn typical(&self) -> (usize, usize) {
        let most = self.streams.iter().max_by_key(|s| s.pps as usize * s.publishers);
        most.map_or((1200, 1), |s| (s.bytes, s.burst as usize))
    }
}

/// Name of a client: "pub" or "sub", its room and its number there.
pub fn client(role: &str, room: usize, at: usize) -> String {
    format!("{role}{room}-{at}")
}

/// Name of a room.
pub fn room(at: usize) -> String {
    format!("room{at}")
}

/// SSRC of a publisher, the same in every room.
pub fn ssrc(publisher: usize) -> u32 {
    1000 + u32::try_from(publisher).unwrap_or(0)
}

pub fn payload_type(kind: Kind) -> u8 {
    if kind == Kind::Audio { 111 } else { 96 }
}

/// Header extensions that publishers send.
pub const MID: u8 = 1;
pub const TRANSPORT_CC: u8 = 3;
