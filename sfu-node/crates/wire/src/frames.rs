//! Frame numbers in dependency descriptors, as one subscriber sees them: one row over all changes of the source.
//!
//! Receivers refer to frames by these numbers, and take a key frame whose number is lower than the last one's for a
//! late one. Within a source the numbers of frames that are not forwarded stay free: what a frame is made from is told
//! as a distance.

use std::collections::VecDeque;

/// Changes of the source remembered: as many as the [`crate::munge::Munger`] remembers segments, each of which is at
/// most one of them.
const MAX_RUNS: usize = 128;

/// What is added to the numbers of one stream's sources.
#[derive(Debug, Default)]
pub struct FrameNumbers {
    /// (index that the source's first packet is sent with, what is added to its numbers), the newest last.
    runs: VecDeque<(u64, u16)>,
    /// Newest number sent.
    newest: Option<u16>,
}

impl FrameNumbers {
    /// A packet is sent for the first time, with this index, of the source's frame `number`. `begins`: it is the
    /// first one of another source.
    pub fn sent(&mut self, index: u64, number: u16, begins: bool) {
        if begins {
            if self.runs.len() == MAX_RUNS {
                self.runs.pop_front();
            }
            let offset = self.newest.map_or(0, |newest| newest.wrapping_add(1).wrapping_sub(number));
            self.runs.push_back((index, offset));
        }
        let number = number.wrapping_add(self.offset(index));
        if self.newest.is_none_or(|newest| number.wrapping_sub(newest) < 1 << 15) {
            self.newest = Some(number);
        }
    }

    /// What is added (wrapping) to the frame number of the packet that is sent with this index.
    #[must_use]
    pub fn offset(&self, index: u64) -> u16 {
        self.runs.iter().rev().find(|run| run.0 <= index).map_or(0, |run| run.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_over_changes_of_the_source() {
        let mut frames = FrameNumbers::default();
        frames.sent(100, 65_534, true);
        frames.sent(101, 65_535, false);
        frames.sent(102, 2, false);
        assert_eq!(frames.offset(102), 0, "the first source's own");
        frames.sent(101, 65_535, false); // late
        frames.sent(103, 9_000, true);
        let second = frames.offset(103);
        assert_eq!(9_000u16.wrapping_add(second), 3);
        frames.sent(104, 9_007, false);
        frames.sent(105, 1, true);
        assert_eq!(frames.offset(105).wrapping_add(1), 11);
        assert_eq!((frames.offset(104), frames.offset(102)), (second, 0), "what is sent again is the same");
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut frames = FrameNumbers::default();
        for i in 0..1000u64 {
            frames.sent(i, 7, true);
            assert_eq!(frames.offset(i).wrapping_add(7), 7 + i as u16);
        }
        assert_eq!(frames.runs.len(), MAX_RUNS);
    }
}
