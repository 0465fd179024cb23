//! A track of the room, published here or reached over a link: layers, liveness, repair ring, key-frame requests.

use crate::{
    api::{EventKind, Id, Kind},
    arena::Key,
    hold::Run,
    scalable::Scalable,
};
use headwater_wire::{
    codec::{Codec, dd},
    history::{History, Stored},
    relay::Media,
    seq::{SeqExtender, is_newer},
    svc::{Limit, Tag},
};

/// Spatial layers of a track.
pub(crate) const LAYERS: usize = 3;
/// A layer without a packet for this long does not flow.
const LIVE_US: u64 = 1_500_000;
/// … nor does one that missed this many frames, by its own rate and by those of another layer, after at least this
/// long. Encoders switch single layers off without a word; they also drop single frames, which must not count.
const MISSED_FRAMES: u32 = 5;
const MISSED_US: u64 = 200_000;
/// Time between frames until it is known.
const FIRST_INTERVAL_US: u64 = 200_000;
/// What comes instead of a demanded layer shows that the demanded one stopped, unless it came just now.
const SUPPLANTED_US: u64 = 100_000;
/// Key frames of one layer are asked for at most this often.
const KEY_REQUEST_US: u64 = 500_000;
/// Headers of a packet on its way to a subscriber, about.
pub(crate) const OVERHEAD: usize = 45;
/// Rates are measured over at least this long.
const MEASURE_US: u64 = 100_000;
/// Rates assumed of layers that never flowed, bit/s.
pub(crate) const UNKNOWN_BPS: [u32; LAYERS] = [150_000, 500_000, 1_700_000];
/// Levels older than this are silence (discontinuous transmission).
const LEVEL_AGE_US: u64 = 500_000;
/// Nobody hears it.
const SILENT: u8 = 127;

/// Relation of the publisher's RTP and NTP time for one layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SenderClock {
    pub ntp: u64,
    pub rtp_timestamp: u32,
    /// When it came here.
    pub at_us: u64,
}

/// Where packets of the track come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Transport(Key),
    Link(Key),
}

/// A local subscriber: transport and slot of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub transport: Key,
    pub slot: usize,
}

/// Another node that wants the track.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkSubscriber {
    pub link: Key,
    pub handle: u32,
    /// Asked for.
    pub mask: u8,
    /// Sent: what is asked for, in terms of the layers that flow.
    pub resolved: u8,
    pub expires_us: u64,
}

struct LayerState {
    history: History,
    extender: SeqExtender,
    last_us: u64,
    last_timestamp: u32,
    /// Bytes since the last measurement, and the smoothed rate, bit/s.
    bytes: u64,
    bps: f64,
    /// Frames so far, when the last one began, and the mean time between them.
    frames: u32,
    frame_us: u64,
    interval_us: u64,
    /// Frames of each layer when this one had its last packet.
    seen_frames: [u32; LAYERS],
    live: bool,
    codec: Codec,
    clock: Option<SenderClock>,
    key_asked_us: Option<u64>,
    key_wanted: bool,
}

/// What a packet of a layer comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// The packets before it; what is missing of them was lost.
    Whole,
    /// Packets that were not sent on purpose.
    Gap,
    /// Another numbering.
    Restart,
}

/// What a packet changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    /// Extended sequence number in the layer's numbering.
    pub sequence: u64,
    /// A layer came alive, or the codec changed.
    pub changed: bool,
}

pub(crate) struct Track {
    pub id: Id,
    pub kind: Kind,
    pub source: Source,
    /// Layers that the publisher may send, as a bit mask.
    pub configured: u8,
    pub subscribers: Vec<Subscriber>,
    pub link_subscribers: Vec<LinkSubscriber>,
    /// A microphone, which may have to be among the loudest to be heard.
    pub voice: bool,
    /// Its last packet was not among those.
    pub unheard: bool,
    /// Packets that came and are not forwarded yet.
    pub run: Run,
    layers: [Option<Box<LayerState>>; LAYERS],
    /// Layers within the only stream.
    scalable: Option<Box<Scalable>>,
    /// Layers whose key frame may have to be asked for.
    key_mask: u8,
    measured_us: u64,
    level: f32,
    level_us: u64,
    level_sent: u8,
}

impl Track {
    pub fn new(id: Id, kind: Kind, source: Source, configured: u8) -> Self {
        Self {
            id,
            kind,
            source,
            configured: configured.max(1),
            subscribers: Vec::new(),
            link_subscribers: Vec::new(),
            voice: false,
            unheard: false,
            run: Run::default(),
            layers: [None, None, None],
            scalable: None,
            key_mask: 0,
            measured_us: 0,
            level: f32::from(SILENT),
            level_us: 0,
            level_sent: SILENT,
        }
    }

    /// Account for a packet and keep it for repair.
    #[inline]
    pub fn accept(&mut self, now_us: u64, media: &Media<'_>, restarted: bool) -> Option<Accepted> {
        let video = self.kind == Kind::Video;
        let mut frames = [0; LAYERS];
        if video {
            for (count, layer) in frames.iter_mut().zip(&self.layers) {
                *count = layer.as_ref().map_or(0, |l| l.frames);
            }
        }
        let scalable = media.codec.is_scalable() || self.scalable.is_some();
        let (tag, relayered) = if scalable { self.tag(media, restarted) } else { (None, false) };
        let slot = self.layers.get_mut(usize::from(media.spatial))?;
        let layer = slot.get_or_insert_with(|| {
            let (packets, bytes) = if video { (512, 512 << 10) } else { (128, 32 << 10) };
            Box::new(LayerState {
                history: History::new(packets, bytes),
                extender: SeqExtender::new(),
                last_us: now_us,
                last_timestamp: media.timestamp.wrapping_sub(1),
                bytes: 0,
                bps: 0.0,
                frames: 0,
                frame_us: now_us,
                interval_us: FIRST_INTERVAL_US,
                seen_frames: frames,
                live: false,
                codec: media.codec.carried(),
                clock: None,
                key_asked_us: None,
                key_wanted: false,
            })
        });
        if restarted {
            layer.history.clear();
            layer.extender.reset();
            layer.clock = None;
        }
        // A stream of redundant packets has plain ones among them: where redundancy did not fit, or was used.
        let codec = media.codec.carried();
        let changed = !layer.live || layer.codec != codec || relayered;
        layer.live = true;
        layer.codec = codec;
        layer.last_us = now_us;
        layer.bytes += (media.payload.len() + OVERHEAD) as u64;
        layer.seen_frames = frames;
        if media.timestamp != layer.last_timestamp {
            layer.last_timestamp = media.timestamp;
            layer.frames = layer.frames.wrapping_add(1);
            let interval = now_us.saturating_sub(std::mem::replace(&mut layer.frame_us, now_us));
            layer.interval_us = (layer.interval_us * 7 + interval.min(LIVE_US)) / 8;
        }
        if media.key_frame {
            layer.key_wanted = false;
        }
        layer.history.insert(&Stored {
            sequence: media.sequence,
            timestamp: media.timestamp,
            marker: media.marker,
            payload_type: media.codec as u8,
            extensions: media.extensions,
            payload: media.payload,
            tag,
            arrival_us: now_us,
        });
        Some(Accepted { sequence: layer.extender.extend(media.sequence), changed })
    }

    /// The packet's place among the layers of the stream, where that has several; true: others flow than before.
    #[inline(never)]
    fn tag(&mut self, media: &Media<'_>, restarted: bool) -> (Option<Tag>, bool) {
        let flowing = |s: &Option<Box<Scalable>>| s.as_ref().map_or(0, |s| s.mask());
        let before = flowing(&self.scalable);
        if restarted || self.configured.count_ones() > 1 {
            self.scalable = None;
        }
        if self.configured.count_ones() > 1 || media.payload.is_empty() {
            return (None, flowing(&self.scalable) != before);
        }
        let tag = Scalable::look(&mut self.scalable, media);
        if let Some((scalable, tag)) = self.scalable.as_mut().zip(tag) {
            scalable.account(media, tag);
        }
        (tag, flowing(&self.scalable) != before)
    }

    /// A packet that came in later than one that follows it.
    pub fn is_late(&self, media: &Media<'_>) -> bool {
        let highest = self.layer(media.spatial).and_then(|l| l.extender.highest());
        highest.is_some_and(|highest| !is_newer(media.sequence, highest as u16))
    }

    fn layer(&self, spatial: u8) -> Option<&LayerState> {
        self.layers.get(usize::from(spatial))?.as_deref()
    }

    fn layer_mut(&mut self, spatial: u8) -> Option<&mut LayerState> {
        self.layers.get_mut(usize::from(spatial))?.as_deref_mut()
    }

    /// A packet for repair.
    pub fn stored(&self, spatial: u8, sequence: u16) -> Option<Stored<'_>> {
        self.layer(spatial)?.history.get(sequence)
    }

    /// The packet of an extended number, unless the ring has one with the same low bits in its place by now.
    pub fn stored_at(&self, spatial: u8, sequence: u64) -> Option<Stored<'_>> {
        let layer = self.layer(spatial)?;
        let low = (sequence & 0xFFFF) as u16;
        if layer.extender.peek(low) == sequence { layer.history.get(low) } else { None }
    }

    pub fn clock(&self, spatial: u8) -> Option<SenderClock> {
        self.layer(spatial)?.clock
    }

    pub fn set_clock(&mut self, spatial: u8, clock: SenderClock) {
        if let Some(layer) = self.layer_mut(spatial) {
            layer.clock = Some(clock);
        }
    }

    /// Layers that flow, as a bit mask.
    pub fn live(&self) -> u8 {
        (0u8..)
            .zip(&self.layers)
            .filter(|(_, l)| l.as_ref().is_some_and(|l| l.live))
            .fold(0, |m, (i, _)| m | 1 << i)
    }

    /// Find layers that stopped. True: something changed.
    pub fn age(&mut self, now_us: u64) -> bool {
        let frames: [u32; LAYERS] = std::array::from_fn(|i| self.layers[i].as_ref().map_or(0, |l| l.frames));
        let mut changed = false;
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let Some(layer) = layer.as_mut().filter(|l| l.live) else { continue };
            let age = now_us.saturating_sub(layer.last_us);
            let missed = (0..LAYERS)
                .filter(|other| *other != i)
                .map(|other| frames[other].wrapping_sub(layer.seen_frames[other]))
                .max();
            let patience = MISSED_US.max(layer.interval_us * u64::from(MISSED_FRAMES));
            if age > LIVE_US || (age >= patience && missed.is_some_and(|m| m >= MISSED_FRAMES)) {
                layer.live = false;
                changed = true;
            }
        }
        changed
    }

    /// A neighbour sends `spatial` although only the layers of `demanded` were asked for: those have stopped there.
    /// True: something changed.
    pub fn supplant(&mut self, now_us: u64, spatial: u8, demanded: u8) -> bool {
        let mut changed = false;
        for (i, layer) in (0u8..).zip(&mut self.layers) {
            let Some(layer) = layer.as_mut().filter(|l| l.live) else { continue };
            let stopped = now_us.saturating_sub(layer.last_us) > SUPPLANTED_US;
            if i > spatial && demanded & (1 << i) != 0 && stopped {
                layer.live = false;
                changed = true;
            }
        }
        changed
    }

    /// Work out the rates of the layers.
    pub fn measure(&mut self, now_us: u64) {
        let elapsed = now_us.saturating_sub(self.measured_us);
        if elapsed < MEASURE_US {
            return;
        }
        let first = self.measured_us == 0;
        self.measured_us = now_us;
        for layer in self.layers.iter_mut().flatten() {
            let sample = std::mem::take(&mut layer.bytes) as f64 * 8e6 / elapsed as f64;
            // A layer that stands still keeps its last rate: that is what it takes when it comes back.
            if !layer.live || first {
                continue;
            }
            let gain = if layer.bps == 0.0 { 1.0 } else { (elapsed as f64 / 1.5e6).min(1.0) };
            layer.bps += (sample - layer.bps) * gain;
        }
        if self.live() != 0
            && let Some(scalable) = &mut self.scalable
        {
            scalable.measure(elapsed, (elapsed as f64 / 1.5e6).min(1.0));
        }
    }

    /// What a subscriber who wants at most layer `max` could get, the least first, with what it takes, bit/s.
    pub fn choices(&self, max: u8) -> impl Iterator<Item = (Limit, u32)> + use<> {
        let live = self.live();
        if live != 0
            && let Some(scalable) = &self.scalable
        {
            return scalable.choices(max).into_iter().flatten();
        }
        let mut all = [None; LAYERS + 1];
        // Over a link only what is asked for flows: the others could be had as well.
        let there = match self.source {
            Source::Transport(_) => live,
            Source::Link(_) => live | self.configured,
        };
        let highest = if live == 0 { None } else { select(there, max) };
        let layers = (0..LAYERS as u8).filter(|l| there & (1 << l) != 0 && Some(*l) <= highest);
        for (slot, spatial) in all.iter_mut().zip(layers) {
            let known = self.layer(spatial).map_or(0.0, |l| l.bps);
            let bps = if known > 0.0 { known as u32 } else { UNKNOWN_BPS[usize::from(spatial)] };
            *slot = Some((Limit::whole(spatial), bps));
        }
        all.into_iter().flatten()
    }

    /// Of a stream with layers in itself: those for a subscriber that wants at most these.
    pub fn within(&self, spatial: u8, temporal: u8) -> Option<Limit> {
        let mask = self.scalable.as_ref()?.mask();
        Some(Limit { spatial: select(mask, spatial).unwrap_or(spatial), temporal })
    }

    /// A stream with several layers that are told by dependency descriptors (AV1): their structure.
    pub fn structure(&self) -> Option<&dd::Structure> {
        self.scalable.as_ref()?.structure()
    }

    /// The layer for a subscriber that wants at most `max`.
    pub fn select(&self, max: u8) -> Option<u8> {
        match self.kind {
            Kind::Audio => Some(0),
            Kind::Video => select(self.live(), max),
        }
    }

    /// The configured layer to ask a neighbour for.
    pub fn select_configured(&self, max: u8) -> u8 {
        select(self.configured, max).unwrap_or(0)
    }

    /// Work out anew which layers each link gets.
    pub fn resolve_links(&mut self) {
        let live = self.live();
        for sub in &mut self.link_subscribers {
            sub.resolved = (0..LAYERS as u8)
                .filter(|l| sub.mask & (1 << l) != 0)
                .fold(0, |m, l| m | select(live, l).map_or(1 << l, |s| 1 << s));
        }
    }

    /// Somebody needs a key frame of this layer, or of the one that flows instead.
    pub fn request_key_frame(&mut self, spatial: u8) {
        if self.kind == Kind::Audio {
            return;
        }
        let spatial = select(self.live(), spatial).unwrap_or(spatial);
        if usize::from(spatial) < LAYERS {
            self.key_mask |= 1 << spatial;
            if let Some(layer) = self.layer_mut(spatial) {
                layer.key_wanted = true;
            }
        }
    }

    /// Layers whose key frame is to be asked for now: each at most twice a second.
    pub fn take_key_requests(&mut self, now_us: u64) -> impl Iterator<Item = u8> + use<> {
        let mut due = 0u8;
        if self.key_mask != 0 {
            for spatial in 0..LAYERS as u8 {
                if self.key_mask & (1 << spatial) == 0 {
                    continue;
                }
                let Some(layer) = self.layer_mut(spatial) else {
                    self.key_mask &= !(1 << spatial);
                    due |= 1 << spatial;
                    continue;
                };
                if !layer.key_wanted {
                    self.key_mask &= !(1 << spatial);
                } else if layer.key_asked_us.is_none_or(|t| now_us.saturating_sub(t) >= KEY_REQUEST_US) {
                    layer.key_asked_us = Some(now_us);
                    layer.key_wanted = false;
                    self.key_mask &= !(1 << spatial);
                    due |= 1 << spatial;
                }
            }
        }
        (0..LAYERS as u8).filter(move |l| due & (1 << l) != 0)
    }

    /// An audio level came (−dBov).
    #[inline]
    pub fn on_level(&mut self, level: u8, now_us: u64) {
        if now_us.saturating_sub(self.level_us) > LEVEL_AGE_US {
            self.level = f32::from(level);
        }
        self.level += (f32::from(level) - self.level) * 0.2;
        self.level_us = now_us;
    }

    /// The smoothed level, where it is worth telling: while not silent, and once when it becomes so.
    pub fn take_level(&mut self, now_us: u64) -> Option<u8> {
        let stale = now_us.saturating_sub(self.level_us) > LEVEL_AGE_US;
        let level = if stale { SILENT } else { self.level.round().clamp(0.0, 127.0) as u8 };
        let tell = level < SILENT || self.level_sent < SILENT;
        self.level_sent = level;
        tell.then_some(level)
    }

    /// State for the room actor.
    pub fn event(&self, ended: bool) -> EventKind {
        let flowing = self.scalable.as_ref().map_or(self.live(), |s| s.mask());
        let live = if ended { 0 } else { flowing };
        EventKind::Track {
            track_id: self.id.clone(),
            live_spatial: (0..LAYERS as u8).filter(|l| live & (1 << l) != 0).collect(),
            codec: self.layers.iter().flatten().max_by_key(|l| l.last_us).map(|l| l.codec),
            ended,
        }
    }

    pub fn unsubscribe(&mut self, subscriber: Subscriber) {
        self.subscribers.retain(|s| *s != subscriber);
    }
}

/// Highest layer of `mask` that is at most `max`, else the lowest.
pub(crate) fn select(mask: u8, max: u8) -> Option<u8> {
    let mask = mask & 0b111;
    let below = mask & (0xFFu8 >> (7 - max.min(7)));
    match (below, mask) {
        (_, 0) => None,
        (0, _) => Some(mask.trailing_zeros() as u8),
        (below, _) => Some(7 - below.leading_zeros() as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;

    fn media(spatial: u8, key_frame: bool) -> Media<'static> {
        Media {
            handle: 0,
            spatial,
            codec: Codec::Vp8,
            marker: true,
            key_frame,
            retransmission: false,
            sequence: 1,
            timestamp: 1,
            extensions: &[],
            payload: b"x",
        }
    }

    fn track() -> Track {
        Track::new("T".into(), Kind::Video, Source::Transport(Arena::default().insert(())), 0b111)
    }

    #[test]
    fn selection() {
        assert_eq!(select(0b111, 2), Some(2));
        assert_eq!(select(0b011, 2), Some(1));
        assert_eq!(select(0b100, 0), Some(2), "nothing below: the lowest that there is");
        assert_eq!(select(0b101, 1), Some(0));
        assert_eq!(select(0, 2), None);
        assert_eq!(select(0b111, 200), Some(2));
    }

    #[test]
    fn layers_live_and_age() {
        let mut t = track();
        assert!(t.accept(0, &media(0, true), false).unwrap().changed);
        assert!(!t.accept(1, &media(0, false), false).unwrap().changed);
        t.accept(1_400_000, &media(2, true), false).unwrap();
        assert_eq!((t.live(), t.select(2), t.select(1)), (0b101, Some(2), Some(0)));
        assert!(t.age(1_600_000));
        assert_eq!((t.live(), t.select(1)), (0b100, Some(2)));
        assert!(t.accept(0, &media(3, true), false).is_none());
    }

    #[test]
    fn a_layer_that_misses_frames_of_another_has_stopped() {
        let mut t = track();
        let at = |spatial, i: u32| Media { timestamp: i * 3000, ..media(spatial, false) };
        let us = |i: u32| u64::from(i) * 33_000;
        for i in 0..60 {
            t.accept(us(i), &at(0, i), false);
            t.accept(us(i), &at(2, i), false);
        }
        for i in 60..65 {
            t.accept(us(i), &at(0, i), false);
            assert!(!t.age(us(i)), "{i}: frames may have been dropped");
        }
        for i in 65..67 {
            t.accept(us(i), &at(0, i), false);
        }
        assert!(t.age(us(67)));
        assert_eq!(t.live(), 0b001);
        t.accept(us(70), &at(2, 70), false);
        assert!(!t.age(us(70)));
        assert_eq!(t.live(), 0b101);
        assert!(!t.supplant(us(71), 0, 0b100), "it came just now");
        assert!(t.supplant(us(75), 0, 0b100));
        assert_eq!(t.live(), 0b001);
    }

    #[test]
    fn a_slow_layer_beside_a_fast_one_is_alive() {
        let mut t = track();
        for i in 0..300u32 {
            let us = u64::from(i) * 33_000;
            t.accept(us, &Media { timestamp: i * 3000, ..media(2, false) }, false);
            if i % 8 == 0 {
                t.accept(us, &Media { timestamp: i * 3000, ..media(0, false) }, false);
            }
            assert!(!t.age(us + 30_000), "frame {i}");
        }
        assert_eq!(t.live(), 0b101);
    }

    #[test]
    fn key_frame_requests_are_merged_and_spaced() {
        let mut t = track();
        t.accept(0, &media(1, false), false).unwrap();
        t.request_key_frame(1);
        t.request_key_frame(2); // flows as 1
        assert_eq!(t.take_key_requests(0).collect::<Vec<_>>(), [1]);
        t.request_key_frame(1);
        assert_eq!(t.take_key_requests(400_000).count(), 0);
        assert_eq!(t.take_key_requests(500_000).collect::<Vec<_>>(), [1]);
        t.request_key_frame(1);
        t.accept(600_000, &media(1, true), false).unwrap();
        assert_eq!(t.take_key_requests(2_000_000).count(), 0, "the key frame came");
    }

    #[test]
    fn links_get_what_flows() {
        let mut t = track();
        let link = Arena::default().insert(());
        t.link_subscribers.push(LinkSubscriber { link, handle: 1, mask: 0b100, resolved: 0, expires_us: 9 });
        t.accept(0, &media(0, true), false).unwrap();
        t.resolve_links();
        assert_eq!(t.link_subscribers[0].resolved, 0b001);
        t.accept(0, &media(2, true), false).unwrap();
        t.resolve_links();
        assert_eq!(t.link_subscribers[0].resolved, 0b100);
    }

    #[test]
    fn levels_are_smoothed_and_end_in_silence() {
        let mut t = track();
        assert_eq!(t.take_level(0), None);
        for i in 0..50 {
            t.on_level(30, i * 20_000);
        }
        assert_eq!(t.take_level(1_000_000), Some(30));
        t.on_level(127, 1_000_000);
        let level = t.take_level(1_000_000).unwrap();
        assert!((45..55).contains(&level), "{level}");
        assert_eq!(t.take_level(9_000_000), Some(127));
        assert_eq!(t.take_level(9_000_000), None);
    }
}
