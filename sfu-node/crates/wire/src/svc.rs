//! Layers inside one stream (scalable video coding): what forwarding needs to know of a packet's place among them.

use std::num::NonZeroU8;

/// Temporal layers that are told apart; what is above counts as the highest.
pub const TEMPORAL: usize = 4;

/// The layer frame that a packet belongs to, in two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Spatial layer in the upper half, temporal in the lower.
    layer: u8,
    flags: NonZeroU8,
}

/// What a packet says of its layer frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// 0: the smallest picture.
    pub spatial: u8,
    /// 0: the lowest frame rate.
    pub temporal: u8,
    /// Last packet of the layer frame.
    pub ends: bool,
    /// Later pictures of higher temporal layers depend on none of those layers from before this picture.
    pub lifts: bool,
}

mod flag {
    pub const ENDS: u8 = 2;
    pub const LIFTS: u8 = 4;
}

impl Tag {
    /// Layers above the highest that are told apart count as those: spatial 15, temporal [`TEMPORAL`] − 1.
    #[must_use]
    pub fn new(fields: &Fields) -> Self {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let known = NonZeroU8::MIN; // never zero, so that an `Option` takes no more
        Self {
            layer: fields.spatial.min(15) << 4 | fields.temporal.min(TEMPORAL as u8 - 1),
            flags: known | bit(fields.ends, flag::ENDS) | bit(fields.lifts, flag::LIFTS),
        }
    }

    fn has(self, flag: u8) -> bool {
        self.flags.get() & flag != 0
    }

    /// 0: the smallest picture.
    #[must_use]
    pub fn spatial(self) -> u8 {
        self.layer >> 4
    }

    /// 0: the lowest frame rate.
    #[must_use]
    pub fn temporal(self) -> u8 {
        self.layer & 0x0F
    }

    /// Last packet of its layer frame.
    #[must_use]
    pub fn ends(self) -> bool {
        self.has(flag::ENDS)
    }

    /// From the next picture on, higher temporal layers can be decoded without those from before.
    #[must_use]
    pub fn lifts(self) -> bool {
        self.has(flag::LIFTS)
    }
}

/// How much of a stream is forwarded: layers up to these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Highest spatial layer.
    pub spatial: u8,
    /// Highest temporal layer; [`TEMPORAL`] − 1 and above: all.
    pub temporal: u8,
}

impl Limit {
    /// The whole stream.
    pub const ALL: Self = Self { spatial: u8::MAX, temporal: u8::MAX };

    /// All pictures, up to this spatial layer.
    #[must_use]
    pub fn whole(spatial: u8) -> Self {
        Self { spatial, temporal: TEMPORAL as u8 - 1 }
    }

    /// Packets with this tag are forwarded.
    #[must_use]
    pub fn holds(self, tag: Tag) -> bool {
        tag.spatial() <= self.spatial && tag.temporal() <= self.temporal
    }

    /// The lower of both, each for itself.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self { spatial: self.spatial.min(other.spatial), temporal: self.temporal.min(other.temporal) }
    }

    /// The RTP marker of a packet under this limit: set on the last packet of a picture, which is the end of the
    /// highest forwarded layer, or of a lower one in a picture that has no more (`marker`: as the source set it).
    #[must_use]
    pub fn marker(self, tag: Option<Tag>, marker: bool) -> bool {
        marker || tag.is_some_and(|t| t.ends() && t.spatial() == self.spatial)
    }

    /// One number for it that orders by spatial layer first; up to spatial layer 62.
    #[must_use]
    pub fn rank(self) -> u8 {
        self.spatial.min(63) << 2 | self.temporal.min(3)
    }

    /// The inverse of [`Self::rank`].
    #[must_use]
    pub fn from_rank(rank: u8) -> Self {
        Self { spatial: rank >> 2, temporal: rank & 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_keeps_its_fields_in_two_bytes() {
        assert_eq!(size_of::<Option<Tag>>(), 2);
        for n in 0..16u8 {
            let fields = Fields { spatial: n, temporal: n / 4, ends: n & 1 != 0, lifts: n & 2 != 0 };
            let tag = Tag::new(&fields);
            let again = Fields {
                spatial: tag.spatial(),
                temporal: tag.temporal(),
                ends: tag.ends(),
                lifts: tag.lifts(),
            };
            assert_eq!(fields, again);
        }
        let tag = Tag::new(&Fields { spatial: 200, temporal: 7, ..Fields::default() });
        assert_eq!((tag.spatial(), tag.temporal()), (15, 3));
    }

    #[test]
    fn limits() {
        let tag =
            |spatial, temporal, ends| Tag::new(&Fields { spatial, temporal, ends, ..Fields::default() });
        let limit = Limit { spatial: 1, temporal: 2 };
        assert!(limit.holds(tag(1, 2, false)) && limit.holds(tag(0, 0, false)));
        assert!(!limit.holds(tag(2, 0, false)) && !limit.holds(tag(0, 3, false)));
        assert!(Limit::ALL.holds(tag(15, 3, false)));
        assert_eq!(Limit::from_rank(limit.rank()), limit);
        assert!(Limit::ALL.rank() > Limit { spatial: 2, temporal: 3 }.rank());
        assert!(Limit { spatial: 1, temporal: 0 }.rank() > Limit { spatial: 0, temporal: 3 }.rank());
        assert!(limit.marker(Some(tag(1, 0, true)), false));
        assert!(!limit.marker(Some(tag(0, 0, true)), false));
        assert!(!limit.marker(Some(tag(1, 0, false)), false));
        assert!(limit.marker(Some(tag(0, 0, true)), true), "the picture has no higher layer");
        assert!(!limit.marker(None, false));
    }
}
