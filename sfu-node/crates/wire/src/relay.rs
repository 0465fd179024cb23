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

use crate::bytes::{u8_at, u16_at, u32_at, u64_at};
use crate::codec::Codec;
use crate::ext;
use aws_lc_rs::aead;

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
/// Most messages read from one datagram.
const MAX_MESSAGES: usize = 256;
const WINDOW: u64 = 1024;
const WORDS: usize = 16;

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

/// Send direction of a link.
pub struct Sealer {
    key: aead::LessSafeKey,
    token: u32,
    epoch: u32,
    counter: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("token", &self.token).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Sealer {
    /// `first_counter` has to be above any used before with this key and epoch: pass Unix microseconds.
    #[must_use]
    pub fn new(key: &[u8; 32], token: u32, epoch: u32, first_counter: u64) -> Option<Self> {
        Some(Self { key: gcm_key(key)?, token, epoch, counter: first_counter })
    }

    /// Starts a datagram at the end of `arena`.
    pub fn begin<'a>(&'a mut self, arena: &'a mut Vec<u8>) -> Datagram<'a> {
        let start = arena.len();
        arena.extend_from_slice(&[VERSION, 0, 0, 0]);
        arena.extend_from_slice(&self.token.to_be_bytes());
        arena.extend_from_slice(&self.epoch.to_be_bytes());
        arena.extend_from_slice(&self.counter.to_be_bytes());
        Datagram { sealer: self, arena, start, sealed: false }
    }
}

/// One datagram under construction: write messages, then [`Datagram::seal`]. Dropped unsealed, it leaves the
/// arena as it was.
#[derive(Debug)]
pub struct Datagram<'a> {
    sealer: &'a mut Sealer,
    arena: &'a mut Vec<u8>,
    start: usize,
    sealed: bool,
}

impl Datagram<'_> {
    /// Bytes of message body that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        (MAX_DATAGRAM - TAG - MESSAGE_HEADER).saturating_sub(self.arena.len() - self.start)
    }

    /// Nothing is in it yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.arena.len() == self.start + HEADER
    }

    /// A single message larger than a datagram is written alone: the network may fragment it.
    fn begin(&mut self, kind: u8, body: usize) -> Result<&mut Vec<u8>, RelayError> {
        if body > self.room() && !(self.is_empty() && kind == kind::MEDIA) {
            return Err(RelayError::TooLarge);
        }
        let len = u16::try_from(body).map_err(|_| RelayError::TooLarge)?;
        self.arena.push(kind);
        self.arena.extend_from_slice(&len.to_be_bytes());
        Ok(self.arena)
    }

    /// A packet.
    ///
    /// # Errors
    /// [`RelayError::TooLarge`]: seal this datagram and begin another. [`RelayError::Malformed`]: layer above
    /// 3 or extension block above 512 bytes.
    pub fn media(&mut self, m: &Media<'_>) -> Result<(), RelayError> {
        if m.spatial > flag::LAYER || m.extensions.len() > ext::MAX_BLOCK {
            return Err(RelayError::Malformed);
        }
        let block = u16::try_from(m.extensions.len()).map_err(|_| RelayError::Malformed)?;
        let out = self.begin(kind::MEDIA, MEDIA_HEADER + m.extensions.len() + m.payload.len())?;
        let mut flags = m.spatial;
        for (on, bit) in
            [(m.marker, flag::MARKER), (m.key_frame, flag::KEY_FRAME), (m.retransmission, flag::RETRANSMISSION)]
        {
            flags |= if on { bit } else { 0 };
        }
        out.extend_from_slice(&m.handle.to_be_bytes());
        out.extend_from_slice(&[flags, m.codec as u8]);
        out.extend_from_slice(&m.sequence.to_be_bytes());
        out.extend_from_slice(&m.timestamp.to_be_bytes());
        out.extend_from_slice(&block.to_be_bytes());
        out.extend_from_slice(m.extensions);
        out.extend_from_slice(m.payload);
        Ok(())
    }

    /// What we want of a track.
    ///
    /// # Errors
    /// [`RelayError::TooLarge`], or [`RelayError::Malformed`] for an empty or overlong track id.
    pub fn demand(&mut self, d: &Demand<'_>) -> Result<(), RelayError> {
        if d.track_id.is_empty() || d.track_id.len() > MAX_TRACK_ID {
            return Err(RelayError::Malformed);
        }
        let out = self.begin(kind::DEMAND, 5 + d.track_id.len())?;
        out.extend_from_slice(&d.handle.to_be_bytes());
        out.push(d.spatial_mask);
        out.extend_from_slice(d.track_id.as_bytes());
        Ok(())
    }

    /// Writes as many of `lost` as fit, and returns how many.
    pub fn nack(&mut self, handle: u32, spatial: u8, lost: &[u16]) -> usize {
        let count = lost.len().min(MAX_NACK).min(self.room().saturating_sub(5) / 2);
        let Some(lost) = lost.get(..count).filter(|l| !l.is_empty()) else { return 0 };
        let Ok(out) = self.begin(kind::NACK, 5 + 2 * count) else { return 0 };
        out.extend_from_slice(&handle.to_be_bytes());
        out.push(spatial);
        for seq in lost {
            out.extend_from_slice(&seq.to_be_bytes());
        }
        count
    }

    /// Asks for a key frame.
    ///
    /// # Errors
    /// [`RelayError::TooLarge`].
    pub fn key_frame_request(&mut self, handle: u32, spatial: u8) -> Result<(), RelayError> {
        let out = self.begin(kind::KEY_FRAME, 5)?;
        out.extend_from_slice(&handle.to_be_bytes());
        out.push(spatial);
        Ok(())
    }

    fn pair(&mut self, kind: u8, id: u32, sent_us: u64) -> Result<(), RelayError> {
        let out = self.begin(kind, 12)?;
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&sent_us.to_be_bytes());
        Ok(())
    }

    /// Round-trip probe.
    ///
    /// # Errors
    /// [`RelayError::TooLarge`].
    pub fn ping(&mut self, id: u32, sent_us: u64) -> Result<(), RelayError> {
        self.pair(kind::PING, id, sent_us)
    }

    /// Answer to a ping: its own fields.
    ///
    /// # Errors
    /// [`RelayError::TooLarge`].
    pub fn pong(&mut self, id: u32, sent_us: u64) -> Result<(), RelayError> {
        self.pair(kind::PONG, id, sent_us)
    }

    /// Counts of [`Opener::counts`].
    ///
    /// # Errors
    /// [`RelayError::TooLarge`].
    pub fn report(&mut self, received: u64, expected: u64) -> Result<(), RelayError> {
        let out = self.begin(kind::REPORT, 16)?;
        out.extend_from_slice(&received.to_be_bytes());
        out.extend_from_slice(&expected.to_be_bytes());
        Ok(())
    }

    /// The source's last sender report.
    ///
    /// # Errors
    /// [`RelayError::TooLarge`].
    pub fn sender_clock(
        &mut self,
        handle: u32,
        spatial: u8,
        ntp: u64,
        rtp_timestamp: u32,
    ) -> Result<(), RelayError> {
        let out = self.begin(kind::SENDER_CLOCK, 17)?;
        out.extend_from_slice(&handle.to_be_bytes());
        out.push(spatial);
        out.extend_from_slice(&ntp.to_be_bytes());
        out.extend_from_slice(&rtp_timestamp.to_be_bytes());
        Ok(())
    }

    /// Encrypts what was written; the datagram is the arena's last bytes, their count is returned.
    ///
    /// # Errors
    /// [`RelayError::Malformed`]: nothing was written, or the cryptography library refused. The arena is then
    /// as it was before [`Sealer::begin`].
    pub fn seal(mut self) -> Result<usize, RelayError> {
        if self.is_empty() {
            return Err(RelayError::Malformed);
        }
        let datagram = self.arena.get_mut(self.start..).ok_or(RelayError::Malformed)?;
        let (header, body) = datagram.split_at_mut_checked(HEADER).ok_or(RelayError::Malformed)?;
        let nonce = nonce(header).ok_or(RelayError::Malformed)?;
        // The nonce is used up even if sealing fails.
        self.sealer.counter += 1;
        let tag = self
            .sealer
            .key
            .seal_in_place_separate_tag(nonce, aead::Aad::from(&*header), body)
            .map_err(|_| RelayError::Malformed)?;
        self.arena.extend_from_slice(tag.as_ref());
        self.sealed = true;
        Ok(self.arena.len() - self.start)
    }
}

impl Drop for Datagram<'_> {
    fn drop(&mut self) {
        if !self.sealed {
            self.arena.truncate(self.start);
        }
    }
}

/// Receive direction of a link.
pub struct Opener {
    key: aead::LessSafeKey,
    token: u32,
    epoch: u32,
    first: Option<u64>,
    highest: u64,
    /// Ring of `WINDOW` bits: counter modulo `WINDOW`.
    seen: [u64; WORDS],
    received: u64,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("token", &self.token).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Opener {
    /// For datagrams of `token` and `epoch` under `key`.
    #[must_use]
    pub fn new(key: &[u8; 32], token: u32, epoch: u32) -> Option<Self> {
        let key = gcm_key(key)?;
        Some(Self { key, token, epoch, first: None, highest: 0, seen: [0; WORDS], received: 0 })
    }

    /// Authenticates and decrypts in place, then checks for replays.
    ///
    /// # Errors
    /// [`RelayError`]; no state has changed.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<Messages<'a>, RelayError> {
        let malformed = RelayError::Malformed;
        if datagram.len() < MIN_DATAGRAM {
            return Err(malformed);
        }
        let (header, body) = datagram.split_at_mut_checked(HEADER).ok_or(malformed)?;
        if u8_at(header, 0) != Some(VERSION) {
            return Err(RelayError::Version);
        }
        if u32_at(header, 4) != Some(self.token) {
            return Err(RelayError::Token);
        }
        if u32_at(header, 8) != Some(self.epoch) {
            return Err(RelayError::Epoch);
        }
        let counter = u64_at(header, 12).ok_or(malformed)?;
        if self.is_replay(counter) {
            return Err(RelayError::Replayed);
        }
        let nonce = nonce(header).ok_or(malformed)?;
        let plain = self
            .key
            .open_in_place(nonce, aead::Aad::from(&*header), body)
            .map_err(|_| RelayError::Authentication)?;
        self.commit(counter);
        Ok(Messages::new(plain))
    }

    fn bit(counter: u64) -> (usize, u64) {
        let at = counter % WINDOW;
        (usize::try_from(at / 64).unwrap_or(0), 1 << (at % 64))
    }

    fn is_replay(&self, counter: u64) -> bool {
        if self.first.is_none() || counter > self.highest {
            return false;
        }
        let (word, mask) = Self::bit(counter);
        self.highest - counter >= WINDOW || self.seen.get(word).is_none_or(|w| w & mask != 0)
    }

    fn commit(&mut self, counter: u64) {
        self.received += 1;
        if self.first.is_none() {
            (self.first, self.highest) = (Some(counter), counter);
        }
        if counter > self.highest {
            // Clear what the window moves over.
            for c in self.highest + 1..=counter.min(self.highest.saturating_add(WINDOW)) {
                let (word, mask) = Self::bit(c);
                if let Some(w) = self.seen.get_mut(word) {
                    *w &= !mask;
                }
            }
            self.highest = counter;
        }
        self.first = self.first.map(|f| f.min(counter));
        let (word, mask) = Self::bit(counter);
        if let Some(w) = self.seen.get_mut(word) {
            *w |= mask;
        }
    }

    /// Datagrams (received, expected) so far. They differ by what is lost or under way.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.received, self.first.map_or(0, |f| (self.highest - f).saturating_add(1)))
    }
}

/// Messages of a decrypted datagram; ends at the first malformed one, skips unknown types.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Messages<'a> {
    /// Reads decrypted bytes; [`Opener::open`] does so.
    #[must_use]
    pub fn new(plain: &'a [u8]) -> Self {
        Self { rest: plain, left: MAX_MESSAGES }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        loop {
            self.left = self.left.checked_sub(1)?;
            let (head, tail) = self.rest.split_at_checked(MESSAGE_HEADER)?;
            let (body, rest) = tail.split_at_checked(usize::from(u16_at(head, 1)?))?;
            self.rest = rest;
            match u8_at(head, 0)? {
                kind @ 1..=8 => return parse_message(kind, body),
                _ => {}
            }
        }
    }
}

fn parse_message(kind: u8, body: &[u8]) -> Option<Message<'_>> {
    Some(match kind {
        kind::MEDIA => Message::Media(parse_media(body)?),
        kind::DEMAND => {
            let track_id = std::str::from_utf8(body.get(5..)?).ok()?;
            if track_id.is_empty() || track_id.len() > MAX_TRACK_ID {
                return None;
            }
            Message::Demand(Demand { handle: u32_at(body, 0)?, spatial_mask: u8_at(body, 4)?, track_id })
        }
        kind::NACK => {
            Message::Nack { handle: u32_at(body, 0)?, spatial: u8_at(body, 4)?, lost: Seqs(body.get(5..)?) }
        }
        kind::KEY_FRAME => Message::KeyFrameRequest { handle: u32_at(body, 0)?, spatial: u8_at(body, 4)? },
        kind::PING => Message::Ping { id: u32_at(body, 0)?, sent_us: u64_at(body, 4)? },
        kind::PONG => Message::Pong { id: u32_at(body, 0)?, sent_us: u64_at(body, 4)? },
        kind::REPORT => Message::Report { received: u64_at(body, 0)?, expected: u64_at(body, 8)? },
        _ => Message::SenderClock {
            handle: u32_at(body, 0)?,
            spatial: u8_at(body, 4)?,
            ntp: u64_at(body, 5)?,
            rtp_timestamp: u32_at(body, 13)?,
        },
    })
}

fn parse_media(body: &[u8]) -> Option<Media<'_>> {
    let flags = u8_at(body, 4)?;
    let block = usize::from(u16_at(body, 12)?);
    let (extensions, payload) = body.get(MEDIA_HEADER..)?.split_at_checked(block)?;
    if block > ext::MAX_BLOCK {
        return None;
    }
    Some(Media {
        handle: u32_at(body, 0)?,
        spatial: flags & flag::LAYER,
        codec: Codec::from_number(u8_at(body, 5)?)?,
        marker: flags & flag::MARKER != 0,
        key_frame: flags & flag::KEY_FRAME != 0,
        retransmission: flags & flag::RETRANSMISSION != 0,
        sequence: u16_at(body, 6)?,
        timestamp: u32_at(body, 8)?,
        extensions,
        payload,
    })
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
