//! What was sent, by transport-wide sequence number, until the receiver has said what became of it.

/// Entries at first; the ring doubles while more is in flight.
const FIRST: usize = 256;
/// Most packets remembered: 3 s at 1,400 packets/s. Feedback about older ones is ignored.
const MAX: usize = 4096;

/// One sent packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub sent_us: u64,
    pub size: u16,
    /// Probe cluster, 0: none.
    pub cluster: u16,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Gone,
    InFlight,
    /// Reported lost; it may still turn up.
    Lost,
}

/// What feedback about a packet means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The first that was heard of it.
    First(Record),
    /// It was thought lost.
    Late(Record),
}

#[derive(Debug, Default)]
pub(crate) struct History {
    ring: Vec<Record>,
    /// Sequence number of the next packet, extended.
    next: u64,
    in_flight: u64,
}

impl History {
    pub fn sequence(&self) -> u16 {
        (self.next & 0xFFFF) as u16
    }

    /// Bytes of which nothing was heard yet.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub fn push(&mut self, sent_us: u64, size: usize, cluster: u16) -> u16 {
        if self.ring.is_empty() {
            self.ring.resize(FIRST, Record::default());
        }
        if self.ring.len() < MAX && self.slot(self.next).is_some_and(|r| r.state == State::InFlight) {
            self.grow();
        }
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        let record = Record { sent_us, size, cluster, state: State::InFlight };
        let sequence = self.sequence();
        if let Some(slot) = self.slot_mut(self.next) {
            let old = std::mem::replace(slot, record);
            if old.state == State::InFlight {
                self.in_flight -= u64::from(old.size);
            }
        }
        self.in_flight += u64::from(size);
        self.next += 1;
        sequence
    }

    fn grow(&mut self) {
        let old = self.ring.len() as u64;
        let mut ring = vec![Record::default(); self.ring.len() * 2];
        for sequence in self.next.saturating_sub(old)..self.next {
            if let (Some(from), len) = (self.slot(sequence), ring.len() as u64)
                && let Some(to) = ring.get_mut((sequence % len) as usize)
            {
                *to = *from;
            }
        }
        self.ring = ring;
    }

    fn slot(&self, sequence: u64) -> Option<&Record> {
        let len = self.ring.len() as u64;
        self.ring.get(sequence.checked_rem(len)? as usize)
    }

    fn slot_mut(&mut self, sequence: u64) -> Option<&mut Record> {
        let len = self.ring.len() as u64;
        self.ring.get_mut(sequence.checked_rem(len)? as usize)
    }

    /// The receiver reports on a packet. `None`: known before, never sent, or too old.
    pub fn report(&mut self, sequence: u16, arrived: bool) -> Option<News> {
        let newest = self.next.checked_sub(1)?;
        let back = u64::from((newest as u16).wrapping_sub(sequence));
        let sequence = newest.checked_sub(back)?;
        if back >= self.ring.len() as u64 {
            return None;
        }
        let slot = self.slot_mut(sequence)?;
        let before = *slot;
        slot.state = if arrived { State::Gone } else { State::Lost };
        match before.state {
            State::InFlight => {
                self.in_flight -= u64::from(before.size);
                Some(News::First(before))
            }
            State::Lost if arrived => Some(News::Late(before)),
            State::Lost | State::Gone => {
                // A repeated "lost" about something that came is not taken back.
                if let Some(slot) = self.slot_mut(sequence) {
                    slot.state = before.state;
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_packet_is_news_once() {
        let mut h = History::default();
        let sequence = h.push(5, 100, 2);
        assert_eq!(h.in_flight(), 100);
        let Some(News::First(r)) = h.report(sequence, false) else { panic!() };
        assert_eq!((r.sent_us, r.size, r.cluster, h.in_flight()), (5, 100, 2, 0));
        assert!(matches!(h.report(sequence, true), Some(News::Late(_))));
        assert_eq!(h.report(sequence, true), None);
        assert_eq!(h.report(sequence, false), None);
        assert_eq!(h.report(sequence.wrapping_add(1), true), None, "never sent");
    }

    #[test]
    fn it_grows_while_all_is_in_flight_and_is_bounded() {
        let mut h = History::default();
        for i in 0..70_000u64 {
            h.push(i, 10, 0);
        }
        assert_eq!((h.ring.len(), h.in_flight()), (MAX, MAX as u64 * 10));
        let oldest = h.sequence().wrapping_sub(MAX as u16);
        assert!(matches!(h.report(oldest, true), Some(News::First(r)) if r.sent_us == 70_000 - MAX as u64));
        assert_eq!(h.report(oldest.wrapping_sub(1), true), None);
        let mut h = History::default();
        for _ in 0..5000 {
            let sequence = h.push(0, 10, 0);
            h.report(sequence, true);
        }
        assert_eq!(h.ring.len(), FIRST);
    }
}
