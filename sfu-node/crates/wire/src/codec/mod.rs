//! What forwarding needs to know of a codec: where a key frame starts. Nothing is decoded.

pub mod av1;
pub mod dd;
pub mod h264;
pub mod vp8;
pub mod vp9;

/// Codecs of the node's contract; the numbers are those of `headwater.node.v1.Codec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// RFC 7587.
    Opus = 1,
    /// Redundant audio (RFC 2198).
    Red = 2,
    /// RFC 3551.
    Pcmu = 3,
    /// RFC 3551.
    Pcma = 4,
    /// RFC 7741.
    Vp8 = 10,
    /// RFC 6184.
    H264 = 11,
    /// RFC 9628.
    Vp9 = 12,
    /// AV1 RTP payload format 1.0.
    Av1 = 13,
    /// RFC 7798.
    H265 = 14,
    /// Retransmission (RFC 4588).
    Rtx = 30,
}

impl Codec {
    /// The codec with this number.
    #[must_use]
    pub fn from_number(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Opus,
            2 => Self::Red,
            3 => Self::Pcmu,
            4 => Self::Pcma,
            10 => Self::Vp8,
            11 => Self::H264,
            12 => Self::Vp9,
            13 => Self::Av1,
            14 => Self::H265,
            30 => Self::Rtx,
            _ => return None,
        })
    }

    /// What it carries: for redundant audio the codec within, the only one that is agreed to in it.
    #[must_use]
    pub fn carried(self) -> Self {
        if self == Self::Red { Self::Opus } else { self }
    }

    /// Has key frames.
    #[must_use]
    pub fn is_video(self) -> bool {
        matches!(self, Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 | Self::H265)
    }

    /// One stream may hold several layers, of which a packet tells its own.
    #[must_use]
    pub fn is_scalable(self) -> bool {
        matches!(self, Self::Vp9 | Self::Av1)
    }

    /// The packet is the first of a key frame, so a switch may begin with it. Audio: always.
    #[must_use]
    pub fn starts_key_frame(self, payload: &[u8]) -> bool {
        match self {
            Self::Opus | Self::Red | Self::Pcmu | Self::Pcma => true,
            Self::Vp8 => vp8::starts_key_frame(payload),
            Self::H264 => h264::starts_key_frame(payload),
            Self::Vp9 => vp9::starts_key_frame(payload),
            Self::Av1 => av1::starts_key_frame(payload),
            Self::H265 => h265_starts_key_frame(payload),
            Self::Rtx => false,
        }
    }
}

/// RFC 7798 §4.4: VPS, SPS, PPS or an IRAP slice (types 16..=21), single, aggregated (48) or fragmented (49).
fn h265_starts_key_frame(payload: &[u8]) -> bool {
    let is_start = |t: u8| matches!(t, 16..=21 | 32..=34);
    match payload {
        [first, _, a, b, c, ..] if first >> 1 & 0x3F == 48 => {
            let _length = (a, b);
            is_start(c >> 1 & 0x3F)
        }
        [first, _, fu, ..] if first >> 1 & 0x3F == 49 => fu & 0x80 != 0 && is_start(fu & 0x3F),
        [first, _, ..] => is_start(first >> 1 & 0x3F),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for n in 0..=255 {
            if let Some(c) = Codec::from_number(n) {
                assert_eq!(c as u8, n);
            }
        }
        assert_eq!((0..=255).filter_map(Codec::from_number).count(), 10);
    }

    #[test]
    fn audio_may_always_switch() {
        assert!(Codec::Opus.starts_key_frame(&[]));
        assert!(!Codec::Rtx.starts_key_frame(&[0; 4]));
        assert!(!Codec::Opus.is_video());
        assert!(Codec::Av1.is_video());
    }

    #[test]
    fn h265() {
        let nal = |t: u8| t << 1;
        assert!(Codec::H265.starts_key_frame(&[nal(32), 1, 0]));
        assert!(Codec::H265.starts_key_frame(&[nal(19), 1, 0]));
        assert!(!Codec::H265.starts_key_frame(&[nal(1), 1, 0]));
        assert!(Codec::H265.starts_key_frame(&[nal(48), 1, 0, 9, nal(33), 1]));
        assert!(Codec::H265.starts_key_frame(&[nal(49), 1, 0x80 | 19]));
        assert!(!Codec::H265.starts_key_frame(&[nal(49), 1, 19]));
        assert!(!Codec::H265.starts_key_frame(&[]));
    }

    #[test]
    fn no_short_input_panics() {
        for codec in (0..=255).filter_map(Codec::from_number) {
            for a in 0..=255u8 {
                for b in [0, 1, 0x7F, 0x80, 0xFF, 24, 28, 0x67] {
                    for n in 0..=4 {
                        let _ = codec.starts_key_frame(&[a, b, a ^ b, 0x81][..n]);
                    }
                }
            }
        }
    }
}
