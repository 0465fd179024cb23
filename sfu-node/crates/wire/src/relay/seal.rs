//! Writing datagrams.

use super::*;
use crate::ext;

/// Send direction of a link.
pub struct Sealer {
    key: aead::LessSafeKey,
    token: u32,
    epoch: u32,
    counter: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("token", &self.token)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
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
        for (on, bit) in [
            (m.marker, flag::MARKER),
            (m.key_frame, flag::KEY_FRAME),
            (m.retransmission, flag::RETRANSMISSION),
        ] {
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
