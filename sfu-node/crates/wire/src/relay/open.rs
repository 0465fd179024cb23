//! Reading datagrams.

use super::*;
use crate::bytes::{u8_at, u64_at};
use crate::ext;

/// Most messages read from one datagram.
const MAX_MESSAGES: usize = 256;
/// Datagrams that may be this far behind the newest.
const WINDOW: u64 = 1024;
const WORDS: usize = 16;

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
        f.debug_struct("Opener")
            .field("token", &self.token)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
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
            let kind = u8_at(head, 0)?;
            if (kind::MEDIA..=kind::SENDER_CLOCK).contains(&kind) {
                return parse_message(kind, body);
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
