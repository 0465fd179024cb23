//! Replay window and packet index estimation of one SRTP or SRTCP source.

use crate::seq::extend_near;

/// Packets that may be this far behind the newest (RFC 3711 §3.3.2 asks for at least 64).
const WINDOW: u64 = 128;

/// Replay protection and index estimation of one source (RFC 3711 §3.3).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    highest: Option<u64>,
    /// Bit n: `highest - n` was received.
    seen: u128,
}

impl Window {
    /// ROC << 16 | sequence, by nearness to the highest; ROC starts at 0.
    pub(crate) fn estimate(&self, sequence: u16) -> u64 {
        self.highest.map_or(u64::from(sequence), |top| extend_near(top, sequence))
    }

    pub(crate) fn is_replay(&self, index: u64) -> bool {
        let Some(top) = self.highest else { return false };
        top.checked_sub(index).is_some_and(|age| age >= WINDOW || self.seen >> age & 1 == 1)
    }

    pub(crate) fn commit(&mut self, index: u64) {
        let Some(top) = self.highest else {
            (self.highest, self.seen) = (Some(index), 1);
            return;
        };
        if let Some(age) = top.checked_sub(index) {
            if age < WINDOW {
                self.seen |= 1 << age;
            }
        } else {
            let ahead = index - top;
            self.seen = if ahead < WINDOW { self.seen << ahead | 1 } else { 1 };
            self.highest = Some(index);
        }
    }
}
