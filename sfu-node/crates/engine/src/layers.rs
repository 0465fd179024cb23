//! Which layers of a scalable stream one subscriber gets, picture by picture.
//!
//! All layers up to the limit are forwarded, so that going down is possible with any picture. Going up waits for a
//! picture after which nothing depends on what was held back: a key picture or, for temporal layers, a switching point.

use headwater_wire::{
    munge::{Munger, Rewrite, Source},
    relay::Media,
    svc::{Limit, Tag},
};

/// What becomes of a packet.
pub(crate) enum Place {
    /// It goes out so, with this marker bit; `None`: it did already.
    Goes(Option<Rewrite>, bool),
    /// Of a layer that does not flow: the numbers behind it close up.
    Dropped,
    /// The same, but it came late, and a number was kept for it.
    Late(Rewrite),
}

/// One subscriber's share of a scalable stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers {
    /// In force.
    limit: Limit,
    /// What the subscriber is to get as soon as it can.
    target: Limit,
    /// Picture of the newest packet.
    timestamp: u32,
    /// Each packet of it that was forwarded is of a switching point; `None`: none was yet.
    lifts: Option<bool>,
}

impl Default for Layers {
    fn default() -> Self {
        Self { limit: Limit::ALL, target: Limit::ALL, timestamp: 0, lifts: None }
    }
}

impl Layers {
    /// The highest spatial layer that flows; `None`: the stream goes out whole.
    pub fn spatial(&self) -> Option<u8> {
        (self.limit.spatial != u8::MAX).then_some(self.limit.spatial)
    }

    /// Only a key frame brings what is wanted.
    pub fn waits(&self) -> bool {
        self.limit.spatial < self.target.spatial
    }

    /// What is wanted from now on; `None`: the stream has no layers to choose among.
    pub fn aim(&mut self, target: Option<Limit>) {
        match target {
            Some(target) => self.target = target,
            None => *self = Self::default(),
        }
    }

    /// Where the packet goes in what is sent, and whether another spatial layer flows now. `flows`: the stream does
    /// already; if not, it starts with this packet, the first of a key picture.
    #[inline(never)]
    pub fn place(
        &mut self,
        munger: &mut Munger,
        media: &Media<'_>,
        source: &Source<'_>,
        tag: Tag,
        flows: bool,
        now_us: u64,
    ) -> (Place, bool) {
        let before = self.limit.spatial;
        let place = if !flows {
            let rewrite = munger.switch(source, now_us);
            self.start(media.timestamp, tag);
            munger.set_limit(source.layer, source.sequence, self.limit);
            Place::Goes(Some(rewrite), self.limit.marker(Some(tag), media.marker))
        } else if munger.is_next(source.layer, source.sequence) {
            let limit = self.decide(media.timestamp, media.key_frame, tag);
            munger.set_limit(source.layer, source.sequence, limit);
            if limit.holds(tag) {
                Place::Goes(munger.map(source, now_us), limit.marker(Some(tag), media.marker))
            } else {
                munger.drop_packet(source.layer, source.sequence);
                Place::Dropped
            }
        } else {
            // Late: it goes by the limit that was in force in its place.
            let limit = munger.limit_at(source.layer, source.sequence);
            match munger.map(source, now_us) {
                Some(rewrite) if !limit.holds(tag) => Place::Late(rewrite),
                rewrite => Place::Goes(rewrite, limit.marker(Some(tag), media.marker)),
            }
        };
        (place, !flows || self.limit.spatial != before)
    }

    fn start(&mut self, timestamp: u32, tag: Tag) {
        *self = Self { limit: self.target, target: self.target, timestamp, lifts: Some(tag.lifts()) };
    }

    /// The limit for a packet that follows all others, and from it on.
    fn decide(&mut self, timestamp: u32, key_frame: bool, tag: Tag) -> Limit {
        if timestamp != self.timestamp {
            self.begin_picture(timestamp);
        }
        if key_frame && tag.spatial() == 0 {
            self.limit = self.target;
        }
        if self.limit.holds(tag) {
            self.lifts = Some(self.lifts.unwrap_or(true) && tag.lifts());
        }
        self.limit
    }

    fn begin_picture(&mut self, timestamp: u32) {
        if self.lifts == Some(true) {
            self.limit.temporal = self.target.temporal;
        }
        self.limit = self.limit.min(self.target);
        (self.timestamp, self.lifts) = (timestamp, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_wire::svc::Fields;

    fn tag(spatial: u8, temporal: u8, lifts: bool) -> Tag {
        Tag::new(&Fields { spatial, temporal, ends: true, lifts })
    }

    fn limit(spatial: u8, temporal: u8) -> Limit {
        Limit { spatial, temporal }
    }

    /// What goes out of a picture with all three layers.
    fn picture(layers: &mut Layers, timestamp: u32, key: bool, temporal: u8, lifts: bool) -> Vec<u8> {
        let frame = |spatial| {
            let tag = tag(spatial, temporal, lifts);
            let limit = layers.decide(timestamp, key && spatial == 0, tag);
            limit.holds(tag).then_some(spatial)
        };
        (0..3).filter_map(frame).collect()
    }

    #[test]
    fn down_with_any_picture_and_up_with_a_key_picture() {
        let mut layers = Layers::default();
        assert_eq!((layers.spatial(), picture(&mut layers, 1, true, 0, true)), (None, vec![0, 1, 2]));
        layers.aim(Some(limit(1, 3)));
        assert_eq!(picture(&mut layers, 2, false, 0, true), [0, 1]);
        assert!(!layers.waits());
        layers.aim(Some(limit(2, 3)));
        assert!(layers.waits());
        assert_eq!(picture(&mut layers, 3, false, 0, true), [0, 1]);
        assert_eq!(picture(&mut layers, 4, true, 0, true), [0, 1, 2]);
        assert!(!layers.waits());
        // In the midst of a picture nothing changes.
        assert_eq!(layers.decide(5, false, tag(0, 0, true)), limit(2, 3));
        layers.aim(Some(limit(0, 3)));
        assert_eq!(layers.decide(5, false, tag(1, 0, true)), limit(2, 3));
        assert_eq!(layers.decide(6, false, tag(0, 0, true)), limit(0, 3));
        layers.aim(None);
        assert_eq!((layers.spatial(), layers.waits()), (None, false));
    }

    #[test]
    fn a_higher_frame_rate_starts_after_a_switching_point() {
        let mut layers = Layers::default();
        layers.aim(Some(limit(0, 0)));
        assert_eq!(picture(&mut layers, 1, true, 0, true), [0]);
        assert!(picture(&mut layers, 2, false, 2, true).is_empty());
        layers.aim(Some(limit(0, 2)));
        assert!(!layers.waits(), "no key frame is asked for");
        assert!(
            picture(&mut layers, 3, false, 2, true).is_empty(),
            "what is held back is no switching point"
        );
        assert_eq!(picture(&mut layers, 4, false, 0, false), [0]);
        assert!(picture(&mut layers, 5, false, 2, true).is_empty());
        assert_eq!(picture(&mut layers, 6, false, 0, true), [0]);
        assert_eq!(picture(&mut layers, 7, false, 2, true), [0]);
        // A key picture needs no switching point.
        layers.aim(Some(limit(0, 0)));
        assert!(picture(&mut layers, 8, false, 1, true).is_empty());
        layers.aim(Some(limit(0, 2)));
        assert_eq!(picture(&mut layers, 9, true, 0, false), [0]);
        assert_eq!(picture(&mut layers, 10, false, 2, false), [0]);
    }
}
