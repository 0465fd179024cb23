//! Packets with copies of earlier frames (RFC 2198): for who takes such, and for who does not.

use super::{Exit, Sender};
use crate::{context::Shared, track::Track};
use headwater_wire::{
    codec::Codec,
    munge::Source,
    red::{self, Red},
    relay::Media,
};

impl Sender {
    /// The payload type by which the subscriber knows what is in redundant packets; `None`: it takes none.
    fn blocks(&self) -> Option<u8> {
        self.section.codecs.iter().find(|c| c.codec == Codec::Red).map(|c| c.apt)
    }

    /// What of a packet goes out, and as what: of a redundant one, to who does not take such, its own frame. Empty
    /// where it is malformed, which only another node can have let through.
    pub(super) fn part<'a>(&self, codec: Codec, payload: &'a [u8]) -> (Codec, &'a [u8]) {
        if codec != Codec::Red || self.blocks().is_some() {
            return (codec, payload);
        }
        (codec.carried(), Red::parse(payload).map_or(&[], |red| red.primary))
    }

    /// As [`Self::forward`], for a redundant packet to who does not take such.
    #[inline(never)]
    pub(super) fn forward_plain(
        &mut self,
        media: &Media<'_>,
        source: &Source<'_>,
        track: &Track,
        shared: &Shared,
        exit: &mut Exit<'_>,
    ) -> bool {
        let (codec, payload) = self.part(media.codec, media.payload);
        codec != media.codec
            && self.forward(&Media { codec, payload, ..*media }, source, None, track, shared, exit)
    }

    /// Write the subscriber's payload type into the blocks of a redundant packet.
    #[cold]
    #[inline(never)]
    pub(super) fn relabel(&self, arena: &mut [u8], at: usize) {
        if let (Some(blocks), Some(payload)) = (self.blocks(), arena.get_mut(at..)) {
            red::relabel(payload, blocks);
        }
    }
}
