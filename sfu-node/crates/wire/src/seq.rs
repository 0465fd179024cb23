//! Sequence numbers that wrap (RFC 1982 arithmetic, RFC 3550 §A.1).

/// Signed distance from `from` to `to`, −32768..=32767.
#[inline]
#[must_use]
pub fn distance(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from).cast_signed()
}

/// `a` comes after `b`.
#[inline]
#[must_use]
pub fn is_newer(a: u16, b: u16) -> bool {
    distance(b, a) > 0
}

/// Extends 16-bit sequence numbers to 64 bits by nearness to the highest one seen.
///
/// The first number maps to itself plus 65536, so that packets reordered around the start have room below.
#[derive(Clone, Debug, Default)]
pub struct SeqExtender {
    highest: Option<u64>,
}

impl SeqExtender {
    /// An extender that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where `seq` lies, without remembering it.
    #[inline]
    #[must_use]
    pub fn peek(&self, seq: u16) -> u64 {
        match self.highest {
            None => 0x1_0000 + u64::from(seq),
            Some(top) => extend_near(top, seq),
        }
    }

    /// Where `seq` lies; moves the highest forward when it is newer.
    #[inline]
    pub fn extend(&mut self, seq: u16) -> u64 {
        let at = self.peek(seq);
        if self.highest.is_none_or(|top| at > top) {
            self.highest = Some(at);
        }
        at
    }

    /// Highest extended number seen.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Forgets everything, for a source that restarted its numbering.
    pub fn reset(&mut self) {
        self.highest = None;
    }
}

/// The extended number with low bits `seq` that is nearest to `near`, never below zero.
#[inline]
#[must_use]
pub fn extend_near(near: u64, seq: u16) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "low 16 bits are the point")]
    let delta = i64::from(distance(near as u16, seq));
    near.checked_add_signed(delta).unwrap_or(u64::from(seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_forward_and_back() {
        let mut e = SeqExtender::new();
        assert_eq!(e.extend(65_534), 0x1_0000 + 65_534);
        assert_eq!(e.extend(1), 0x2_0001);
        assert_eq!(e.extend(65_535), 0x1_FFFF);
        assert_eq!(e.highest(), Some(0x2_0001));
        assert_eq!(e.peek(2), 0x2_0002);
    }

    #[test]
    fn reordering_before_the_first_packet_does_not_underflow() {
        let mut e = SeqExtender::new();
        assert_eq!(e.extend(0), 0x1_0000);
        assert_eq!(e.extend(65_535), 0xFFFF);
        assert_eq!(extend_near(3, 65_535), 65_535);
    }

    #[test]
    fn newer_is_a_half_circle() {
        assert!(is_newer(1, 0));
        assert!(is_newer(0, 65_535));
        assert!(!is_newer(65_535, 0));
        assert!(!is_newer(5, 5));
        assert_eq!(distance(65_535, 1), 2);
        assert_eq!(distance(1, 65_535), -2);
    }
}
