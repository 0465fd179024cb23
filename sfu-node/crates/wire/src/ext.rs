//! RTP header extensions by meaning (RFC 8285): maps between negotiated ids and [`ExtKind`], and the
//! *normalised block*, the form in which extensions are stored and cross relay links.
//!
//! Normalised block: repeated `kind: u8, length: u8, value: length bytes`. Kinds are those of [`ExtKind`],
//! so a block means the same on every node and for every receiver.

use crate::rtp::RtpView;

/// Extensions that the node understands; the numbers are those of `headwater.node.v1.Extension`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExtKind {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid` (RFC 9143).
    Mid = 1,
    /// `…:sdes:rtp-stream-id` (RFC 8852).
    Rid = 2,
    /// `…:sdes:repaired-rtp-stream-id` (RFC 8852).
    RepairedRid = 3,
    /// `…:ssrc-audio-level` (RFC 6464).
    AudioLevel = 4,
    /// Transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportCc = 5,
    /// Absolute send time, 24 bits of 6.18 fixed-point seconds.
    AbsSendTime = 6,
    /// `urn:3gpp:video-orientation`.
    VideoOrientation = 7,
    /// Playout delay limits, 2 × 12 bits.
    PlayoutDelay = 8,
    /// AV1 dependency descriptor.
    DependencyDescriptor = 9,
    /// Absolute capture time.
    AbsCaptureTime = 10,
}

impl ExtKind {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 10] = [
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::AudioLevel,
        Self::TransportCc,
        Self::AbsSendTime,
        Self::VideoOrientation,
        Self::PlayoutDelay,
        Self::DependencyDescriptor,
        Self::AbsCaptureTime,
    ];

    /// The kind with this number.
    #[must_use]
    pub fn from_number(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n).checked_sub(1)?).copied()
    }

    /// Belongs to the media, so it goes along to receivers and over links. The rest is per hop.
    #[must_use]
    pub fn is_end_to_end(self) -> bool {
        matches!(
            self,
            Self::AudioLevel
                | Self::VideoOrientation
                | Self::PlayoutDelay
                | Self::DependencyDescriptor
                | Self::AbsCaptureTime
        )
    }
}

/// Most bytes that a normalised block holds; what would exceed it is left out.
pub const MAX_BLOCK: usize = 512;

/// Negotiated extension ids of one m-line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtMap {
    ids: [u8; 11],
}

impl ExtMap {
    /// No extensions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mapping. Id 0 (padding) and 15 (reserved, RFC 8285 §4.2) are ignored; a later one wins.
    pub fn set(&mut self, id: u8, kind: ExtKind) {
        if id == 0 || id == 15 {
            return;
        }
        if let Some(slot) = self.ids.get_mut(kind as usize) {
            *slot = id;
        }
    }

    /// The id negotiated for `kind`.
    #[inline]
    #[must_use]
    pub fn id_of(&self, kind: ExtKind) -> Option<u8> {
        self.ids.get(kind as usize).copied().filter(|&id| id != 0)
    }

    /// The kind negotiated for `id`.
    #[inline]
    #[must_use]
    pub fn kind_of(&self, id: u8) -> Option<ExtKind> {
        if id == 0 {
            return None;
        }
        let n = self.ids.iter().position(|&x| x == id)?;
        ExtKind::from_number(u8::try_from(n).ok()?)
    }
}

/// Value of one extension of a packet.
#[must_use]
pub fn find<'a>(view: &RtpView<'a>, map: &ExtMap, kind: ExtKind) -> Option<&'a [u8]> {
    let id = map.id_of(kind)?;
    view.extensions().find(|e| e.0 == id).map(|e| e.1)
}

/// Appends the end-to-end extensions of a packet to `out` as a normalised block; returns its length.
pub fn normalise(view: &RtpView<'_>, map: &ExtMap, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    for (id, value) in view.extensions() {
        let Some(kind) = map.kind_of(id).filter(|k| k.is_end_to_end()) else { continue };
        push_block(out, start, kind, value);
    }
    out.len() - start
}

fn push_block(out: &mut Vec<u8>, start: usize, kind: ExtKind, value: &[u8]) {
    let Ok(len) = u8::try_from(value.len()) else { return };
    if out.len() - start + 2 + value.len() <= MAX_BLOCK {
        out.extend_from_slice(&[kind as u8, len]);
        out.extend_from_slice(value);
    }
}

/// Reads a normalised block. Stops at the first malformed entry, skips unknown kinds.
#[derive(Clone, Debug)]
pub struct BlockIter<'a> {
    rest: &'a [u8],
}

impl<'a> BlockIter<'a> {
    /// Iterates over `block`.
    #[must_use]
    pub fn new(block: &'a [u8]) -> Self {
        Self { rest: block.get(..MAX_BLOCK).unwrap_or(block) }
    }
}

impl<'a> Iterator for BlockIter<'a> {
    type Item = (ExtKind, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let [kind, len, tail @ ..] = self.rest else { return None };
            let (value, rest) = tail.split_at_checked(usize::from(*len))?;
            self.rest = rest;
            if let Some(kind) = ExtKind::from_number(*kind) {
                return Some((kind, value));
            }
        }
    }
}

/// A normalised block with the audio level of `block` and nothing else.
#[must_use]
pub fn level_alone(block: &[u8]) -> &[u8] {
    let mut rest = block;
    while let [kind, len, ..] = rest {
        let Some((entry, after)) = rest.split_at_checked(2 + usize::from(*len)) else { break };
        if *kind == ExtKind::AudioLevel as u8 {
            return entry;
        }
        rest = after;
    }
    &[]
}

/// RFC 6464 audio level: voice activity flag and −dBov, 0 (loud) to 127 (silent).
#[must_use]
pub fn audio_level(value: &[u8]) -> Option<(bool, u8)> {
    value.first().map(|b| (b & 0x80 != 0, b & 0x7F))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::{HeaderWriter, RtpHeader};

    fn packet(exts: &[(u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut w = HeaderWriter::begin(&mut out, &RtpHeader::default());
        for (id, v) in exts {
            w.extension(*id, v);
        }
        w.finish();
        out
    }

    #[test]
    fn numbers_round_trip() {
        for kind in ExtKind::ALL {
            assert_eq!(ExtKind::from_number(kind as u8), Some(kind));
        }
        assert_eq!(ExtKind::from_number(0), None);
        assert_eq!(ExtKind::from_number(11), None);
    }

    #[test]
    fn map_ignores_reserved_ids() {
        let mut m = ExtMap::new();
        m.set(0, ExtKind::Mid);
        m.set(15, ExtKind::Mid);
        assert_eq!(m.id_of(ExtKind::Mid), None);
        m.set(9, ExtKind::Mid);
        assert_eq!(m.id_of(ExtKind::Mid), Some(9));
        assert_eq!(m.kind_of(9), Some(ExtKind::Mid));
        assert_eq!(m.kind_of(0), None);
    }

    #[test]
    fn only_end_to_end_extensions_are_normalised() {
        let mut m = ExtMap::new();
        m.set(1, ExtKind::AudioLevel);
        m.set(3, ExtKind::TransportCc);
        m.set(4, ExtKind::Mid);
        m.set(5, ExtKind::VideoOrientation);
        let p = packet(&[(1, &[0x85]), (3, &[0, 9]), (4, b"0"), (5, &[2]), (7, &[1])]);
        let view = RtpView::parse(&p).unwrap();
        let mut block = vec![0xEE];
        assert_eq!(normalise(&view, &m, &mut block), 6);
        let got: Vec<_> = BlockIter::new(&block[1..]).collect();
        assert_eq!(got, [(ExtKind::AudioLevel, &[0x85][..]), (ExtKind::VideoOrientation, &[2][..])]);
        assert_eq!(find(&view, &m, ExtKind::Mid), Some(&b"0"[..]));
        assert_eq!(audio_level(&[0x85]), Some((true, 5)));
    }

    #[test]
    fn the_level_is_found_among_others() {
        let block = [10, 2, 7, 7, 4, 1, 0x85, 7, 1, 2];
        assert_eq!(level_alone(&block), [4, 1, 0x85]);
        assert_eq!(level_alone(&block[..6]), [], "cut off");
        assert_eq!(level_alone(&[]), []);
    }

    #[test]
    fn a_block_has_a_bound_and_stops_at_garbage() {
        assert_eq!(BlockIter::new(&[4, 9, 1]).count(), 0);
        assert_eq!(
            BlockIter::new(&[200, 1, 7, 4, 1, 3]).collect::<Vec<_>>(),
            [(ExtKind::AudioLevel, &[3][..])]
        );
        let mut out = Vec::new();
        for _ in 0..10 {
            push_block(&mut out, 0, ExtKind::DependencyDescriptor, &[0; 200]);
        }
        assert!(out.len() <= MAX_BLOCK);
    }
}
