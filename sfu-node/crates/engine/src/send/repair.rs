//! What goes out from the track's ring: lost packets again, packets that had to wait, probes.

use super::{Exit, OVERHEAD, Sender, Shape};
use crate::{api::Kind, clock::Now, outbox::DropReason, track::Track};
use headwater_wire::{
    codec::Codec,
    history::Stored,
    munge::{Munger, Origin},
    rtp::RtpHeader,
};

/// Packets sent again for one subscriber and m-line in each interval.
const NACK_BUDGET: u32 = 200;
const NACK_BUDGET_US: u64 = 100_000;
/// Newest packets that serve as padding.
const RECENT: u32 = 16;

impl Sender {
    /// What went out (or had to wait) under this number, where it can still be built anew.
    fn sent<'t>(&self, sequence: u16, track: &'t Track) -> Option<(Origin, Stored<'t>)> {
        let origin = self.munger.as_ref()?.origin(sequence).filter(|o| o.index >= self.floor)?;
        let stored = track.stored_at(origin.layer, origin.sequence)?;
        // One of a layer that this subscriber did not get has a number only because it came late.
        stored.tag.is_none_or(|tag| origin.limit.holds(tag)).then_some((origin, stored))
    }

    /// Send again what the subscriber lost.
    pub fn on_nack(&mut self, now: Now, lost: impl Iterator<Item = u16>, track: &Track, exit: &mut Exit<'_>) {
        if now.us.saturating_sub(self.budget.0) > NACK_BUDGET_US {
            self.budget = (now.us, NACK_BUDGET);
        }
        for sequence in lost {
            if self.budget.1 == 0 {
                exit.out.drop(DropReason::NackBudget);
                return;
            }
            self.budget.1 -= 1;
            match self.sent(sequence, track) {
                Some((origin, stored)) => self.resend(&origin, &stored, track, false, exit),
                None => exit.out.drop(DropReason::NackUnknown),
            }
        }
    }

    fn resend(
        &mut self,
        origin: &Origin,
        stored: &Stored<'_>,
        track: &Track,
        probe: bool,
        exit: &mut Exit<'_>,
    ) {
        let Some(codec) = Codec::from_number(stored.payload_type) else { return };
        let (codec, payload) = self.part(codec, stored.payload);
        let Some(chosen) = self.choose(codec).filter(|_| !payload.is_empty()) else { return };
        let sequence = origin.index as u16;
        let timestamp = stored.timestamp.wrapping_add(origin.timestamp_offset);
        let mut header = RtpHeader {
            marker: origin.limit.marker(stored.tag, stored.marker),
            payload_type: chosen.payload_type,
            sequence,
            timestamp,
            ssrc: self.section.ssrc,
        };
        let frames = if codec == Codec::Av1 { self.frames(origin.index, track) } else { None };
        let shape = match chosen.rtx_payload_type {
            Some(payload_type) => {
                self.rtx_index += 1;
                header = RtpHeader {
                    payload_type,
                    sequence: self.rtx_index as u16,
                    ssrc: self.section.rtx_ssrc,
                    ..header
                };
                let roc = (self.rtx_index >> 16) as u32;
                Shape {
                    original: Some(sequence),
                    vp8: origin.vp8,
                    frames: frames.as_ref(),
                    probe,
                    ..Shape::new(header, roc)
                }
            }
            // Byte for byte what was sent: anything else would reuse a nonce.
            None => {
                let roc = (origin.index >> 16) as u32;
                let mut shape = Shape { vp8: origin.vp8, frames: frames.as_ref(), ..Shape::new(header, roc) };
                if self.takes_transport_cc() {
                    let at = usize::from(sequence).checked_rem(self.numbers.len());
                    let number = at.and_then(|at| self.numbers.get(at));
                    let Some((_, number)) = number.filter(|n| n.0 == sequence) else {
                        return exit.out.drop(DropReason::NackUnknown);
                    };
                    shape.number = Some(*number);
                }
                shape
            }
        };
        exit.control.admit(exit.now_us, payload.len() + OVERHEAD, true);
        self.write(&shape, codec, stored.extensions, payload, exit);
    }

    /// A packet that had to wait goes out, built again from the track's ring.
    pub fn release(&mut self, sequence: u16, track: &Track, exit: &mut Exit<'_>) {
        let (Some((origin, stored)), Some(chosen)) = (self.sent(sequence, track), self.chosen) else {
            return exit.out.drop(DropReason::PacerStale);
        };
        let Some(codec) = Codec::from_number(stored.payload_type) else {
            return exit.out.drop(DropReason::PacerStale);
        };
        let (codec, payload) = self.part(codec, stored.payload);
        if codec != chosen.codec || payload.is_empty() || self.is_paused() {
            return exit.out.drop(DropReason::PacerStale);
        }
        let header = RtpHeader {
            marker: origin.limit.marker(stored.tag, stored.marker),
            payload_type: chosen.payload_type,
            sequence,
            timestamp: stored.timestamp.wrapping_add(origin.timestamp_offset),
            ssrc: self.section.ssrc,
        };
        let frames = if chosen.codec == Codec::Av1 { self.frames(origin.index, track) } else { None };
        let shape = Shape {
            vp8: origin.vp8,
            frames: frames.as_ref(),
            ..Shape::new(header, (origin.index >> 16) as u32)
        };
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        self.write(&shape, codec, stored.extensions, payload, exit);
    }

    /// Padding can go out on its RTX stream.
    pub fn can_pad(&self) -> bool {
        self.section.kind == Kind::Video
            && self.section.rtx_ssrc != 0
            && self.takes_transport_cc()
            && self.section.codecs.iter().any(|c| c.codec == Codec::Rtx)
    }

    /// One probe packet of about `size` bytes on the RTX stream: a recent packet again, or bare padding.
    /// Returns its size, 0 if nothing can be sent.
    pub fn pad(&mut self, size: u32, salt: u32, track: &Track, exit: &mut Exit<'_>) -> u32 {
        let start = exit.out.arena.len();
        let any_rtx = || self.section.codecs.iter().find(|c| c.codec == Codec::Rtx).map(|c| c.payload_type);
        let Some(payload_type) = self.chosen.and_then(|c| c.rtx_payload_type).or_else(any_rtx) else {
            return 0;
        };
        let munger = self.munger.as_ref();
        let again =
            munger.and_then(Munger::highest_index).unwrap_or(0).saturating_sub(u64::from(salt % RECENT));
        let fits = |s: &Stored<'_>| s.payload.len() as u32 <= size && s.payload.len() as u32 * 2 > size;
        let stored = self.sent((again & 0xFFFF) as u16, track).filter(|(_, s)| fits(s));
        if let Some((origin, stored)) = stored {
            self.resend(&origin, &stored, track, true, exit);
        } else {
            let timestamp = munger.and_then(Munger::last_timestamp).map_or(0, |t| t.0);
            self.rtx_index += 1;
            let header = RtpHeader {
                marker: false,
                payload_type,
                sequence: self.rtx_index as u16,
                timestamp,
                ssrc: self.section.rtx_ssrc,
            };
            let padding = size.saturating_sub(OVERHEAD as u32).clamp(1, 255) as u8;
            let shape = Shape { padding, probe: true, ..Shape::new(header, (self.rtx_index >> 16) as u32) };
            self.write(&shape, Codec::Rtx, &[], &[], exit);
        }
        exit.out.arena.len().saturating_sub(start) as u32
    }
}
