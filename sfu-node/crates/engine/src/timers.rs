//! Deadlines of rooms, transports and links in one heap.
//!
//! An object is in the heap at most once with effect: it remembers for when it is armed, and older entries
//! are ignored when they come up.

use crate::arena::Key;
use std::{cmp::Reverse, collections::BinaryHeap};

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Room,
    Transport(Key),
    Link(Key),
}

/// An object's own memory of its heap entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Armed(u64);

impl Default for Armed {
    fn default() -> Self {
        Self(u64::MAX)
    }
}

impl Armed {
    /// The entry for `at` came up: true when it is the one in force.
    pub fn fire(&mut self, at: u64) -> bool {
        let mine = self.0 == at;
        if mine {
            self.0 = u64::MAX;
        }
        mine
    }
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(u64, Key, Owner)>>,
}

impl Timers {
    /// Wake `owner` of `room` at `at` (µs) unless it is armed for an earlier time.
    #[inline]
    pub fn arm(&mut self, armed: &mut Armed, at: u64, room: Key, owner: Owner) {
        if at < armed.0 {
            armed.0 = at;
            self.heap.push(Reverse((at, room, owner)));
        }
    }

    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|e| e.0.0)
    }

    pub fn pop_due(&mut self, now: u64) -> Option<(u64, Key, Owner)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|e| e.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;

    #[test]
    fn an_earlier_deadline_replaces_a_later_one() {
        let room = Arena::default().insert(());
        let (mut timers, mut armed) = (Timers::default(), Armed::default());
        timers.arm(&mut armed, 50, room, Owner::Room);
        timers.arm(&mut armed, 20, room, Owner::Room);
        timers.arm(&mut armed, 30, room, Owner::Room);
        assert_eq!(timers.pop_due(19), None);
        let (at, ..) = timers.pop_due(100).unwrap();
        assert!(armed.fire(at));
        let (at, ..) = timers.pop_due(100).unwrap();
        assert!(!armed.fire(at), "the entry for 50 has no effect");
        assert_eq!(timers.pop_due(100), None);
    }
}
