//! AV1's dependency descriptor, as one subscriber sees it.

use super::Sender;
use crate::track::Track;
use headwater_wire::{
    codec::dd,
    ext::{BlockIter, ExtKind},
    relay::Media,
};

impl Sender {
    /// Highest layer within the track's stream that it can make use of. Without the dependency descriptor libwebrtc
    /// takes each layer of an AV1 picture for a picture and decodes none: it gets the lowest alone.
    pub fn reach(&self, track: &Track) -> u8 {
        let blind = track.structure().is_some() && self.ext.id_of(ExtKind::DependencyDescriptor).is_none();
        if blind { 0 } else { u8::MAX }
    }

    /// The packet goes out for the first time, of a frame that has a number; `begins`: as the first of its source.
    #[cold]
    #[inline(never)]
    pub(super) fn number_frame(&mut self, media: &Media<'_>, index: u64, begins: bool) {
        let descriptor = BlockIter::new(media.extensions).find(|e| e.0 == ExtKind::DependencyDescriptor);
        if let (Some(number), Some(munger)) =
            (descriptor.and_then(|(_, value)| dd::frame_number(value)), &mut self.munger)
        {
            munger.frames.sent(index, number, begins);
        }
    }

    /// How this subscriber sees the dependency descriptor of the packet that goes out with this index.
    #[cold]
    #[inline(never)]
    pub(super) fn frames<'t>(&self, index: u64, track: &'t Track) -> Option<dd::Edit<'t>> {
        let munger = self.munger.as_ref()?;
        let limit = munger.origin((index & 0xFFFF) as u16)?.limit;
        // What the structure is by the time that a packet goes out again says nothing of what it was; without RTX it
        // has to be the same to the last bit, so it goes by what it carries itself.
        let has_rtx = self.chosen.is_some_and(|c| c.rtx_payload_type.is_some());
        let structure = track.structure().filter(|_| has_rtx);
        Some(dd::Edit { offset: munger.frames.offset(index), limit, structure })
    }
}
