//! Node to node envelope, version 1: one UDP datagram, sealed with AES-256-GCM, that carries one or more
//! messages. All numbers are big-endian.
//!
//! ```text
//! envelope   0  u8   0x61: 0x60 | version
//!            1  u8   0
//!            2  u16  0
//!            4  u32  link token: finds the link at the receiver
//!            8  u32  epoch of the room that opened the link  ┐ together the
//!           12  u64  counter                                 ┘ GCM nonce
//!           20  …    messages, encrypted; bytes 0..20 are authenticated with them
//!            …  16   GCM tag
//!
//! message    0  u8   type
//!            1  u16  length of the body
//!            3  …    body
//!
//! 1 MEDIA            u32 handle, u8 layer and flags, u8 codec, u16 sequence, u32 timestamp,
//!                    u16 length of the extension block, block, payload
//!                    flags: 0x03 layer, 0x10 marker, 0x20 first of a key frame, 0x40 retransmission
//! 2 DEMAND           u32 handle, u8 layer mask, track id (UTF-8, 1..=128 bytes)
//! 3 NACK             u32 handle, u8 layer, u16 sequence, …  (1..=256)
//! 4 KEY_FRAME        u32 handle, u8 layer
//! 5 PING, 6 PONG     u32 id, u64 sender's clock in µs, echoed
//! 7 REPORT           u64 datagrams received, u64 expected
//! 8 SENDER_CLOCK     u32 handle, u8 layer, u64 NTP time, u32 RTP timestamp
//! ```
//!
//! The receiver of a track chooses its `handle` and announces it with DEMAND. Each direction has its own key.
//! The counter never repeats under a key: it starts at a time that the caller passes and goes up by one per
//! datagram, so that even a restarted sender that is given old keys does not reuse a nonce. Unknown message
//! types are skipped, so that later versions may add some.

mod open;
mod seal;

pub use open::{Messages, Opener};
pub use seal::{Datagram, Sealer};

use crate::bytes::{u16_at, u32_at};
use crate::codec::Codec;
use ring::aead;

/// Envelope header.
pub const HEADER: usize = 20;
/// GCM tag.
pub const TAG: usize = 16;
/// Shortest datagram that can be an envelope.
pub const MIN_DATAGRAM: usize = HEADER + TAG;
/// Longest datagram that a link sends: fits an Ethernet frame with IPv6 headers.
pub const MAX_DATAGRAM: usize = 1452;
/// Longest track id.
pub const MAX_TRACK_ID: usize = 128;
/// Most sequence numbers in one NACK.
pub const MAX_NACK: usize = 256;

const VERSION: u8 = 0x61;
const MESSAGE_HEADER: usize = 3;
const MEDIA_HEADER: usize = 14;

mod kind {
    pub const MEDIA: u8 = 1;
    pub const DEMAND: u8 = 2;
    pub const NACK: u8 = 3;
    pub const KEY_FRAME: u8 = 4;
    pub const PING: u8 = 5;
    pub const PONG: u8 = 6;
    pub const REPORT: u8 = 7;
    pub const SENDER_CLOCK: u8 = 8;
}

mod flag {
    pub const LAYER: u8 = 0x03;
    pub const MARKER: u8 = 0x10;
    pub const KEY_FRAME: u8 = 0x20;
    pub const RETRANSMISSION: u8 = 0x40;
}

/// One RTP packet of a track, decrypted, with extensions by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media<'a> {
    /// The receiver's number for the track.
    pub handle: u32,
    /// Spatial layer, 0..=3.
    pub spatial: u8,
    /// What the payload is.
    pub codec: Codec,
    /// RTP marker.
    pub marker: bool,
    /// First packet of a key frame.
    pub key_frame: bool,
    /// Answer to a NACK.
    pub retransmission: bool,
    /// The source's sequence number.
    pub sequence: u16,
    /// The source's timestamp.
    pub timestamp: u32,
    /// Normalised block ([`crate::ext`]), at most 512 bytes.
    pub extensions: &'a [u8],
    /// Payload without padding.
    pub payload: &'a [u8],
}

/// What the receiving side wants of a track. Repeated; lapses when it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand<'a> {
    /// The receiver's number for the track.
    pub handle: u32,
    /// Bit n: spatial layer n. 0: nothing any more.
    pub spatial_mask: u8,
    /// The track.
    pub track_id: &'a str,
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A packet.
    Media(Media<'a>),
    /// What the peer wants.
    Demand(Demand<'a>),
    /// Packets that the peer misses.
    Nack {
        /// Track.
        handle: u32,
        /// Layer.
        spatial: u8,
        /// The source's sequence numbers.
        lost: Seqs<'a>,
    },
    /// The peer wants a key frame.
    KeyFrameRequest {
        /// Track.
        handle: u32,
        /// Layer.
        spatial: u8,
    },
    /// Answer with [`Message::Pong`] and the same fields.
    Ping {
        /// Number of the ping.
        id: u32,
        /// The sender's clock.
        sent_us: u64,
    },
    /// Answer to our ping.
    Pong {
        /// Number of the ping.
        id: u32,
        /// Our clock when it was sent.
        sent_us: u64,
    },
    /// The peer's count of our datagrams since the link opened.
    Report {
        /// Received.
        received: u64,
        /// Span of our counters that it has seen.
        expected: u64,
    },
    /// The source's last sender report, for lip sync over hops.
    SenderClock {
        /// Track.
        handle: u32,
        /// Layer.
        spatial: u8,
        /// NTP timestamp.
        ntp: u64,
        /// The same instant in the layer's RTP time.
        rtp_timestamp: u32,
    },
}

/// Sequence numbers of a NACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seqs<'a>(&'a [u8]);

impl<'a> Seqs<'a> {
    /// The numbers, at most 256.
    pub fn iter(&self) -> impl Iterator<Item = u16> + 'a {
        self.0.chunks_exact(2).take(MAX_NACK).filter_map(|c| u16_at(c, 0))
    }
}

/// Why a datagram was not opened, or a message not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayError {
    /// Too short, or a field out of range.
    Malformed,
    /// Not version 1.
    Version,
    /// Of another link.
    Token,
    /// Of another epoch.
    Epoch,
    /// The tag is wrong.
    Authentication,
    /// Seen before, or older than the replay window.
    Replayed,
    /// Does not fit behind what the datagram holds already.
    TooLarge,
}

/// Link token of an envelope, before anything is verified.
#[must_use]
pub fn token(datagram: &[u8]) -> Option<u32> {
    u32_at(datagram, 4).filter(|_| datagram.len() >= MIN_DATAGRAM)
}

fn gcm_key(key: &[u8; 32]) -> Option<aead::LessSafeKey> {
    aead::UnboundKey::new(&aead::AES_256_GCM, key).ok().map(aead::LessSafeKey::new)
}

fn nonce(header: &[u8]) -> Option<aead::Nonce> {
    Some(aead::Nonce::assume_unique_for_key(header.get(8..HEADER)?.try_into().ok()?))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
