//! Events on their way to the agent: bounded, with an `eventfd` that is readable while some wait.

use crate::sys::EventFd;
use headwater_engine::api::{Event, EventKind};
use std::{
    collections::VecDeque,
    io,
    os::fd::RawFd,
    sync::{Mutex, PoisonError},
};

const MAX_EVENTS: usize = 65_536;
const MAX_BYTES: usize = 64 << 20;

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    bytes: usize,
    dropped: u64,
}

/// Shared by the media thread (push) and the agent (drain).
pub struct EventQueue {
    state: Mutex<State>,
    ready: EventFd,
}

fn size(event: &Event) -> usize {
    match &event.kind {
        EventKind::Data { payload, .. } => payload.len() + 128,
        _ => 128,
    }
}

impl EventQueue {
    /// An empty queue.
    ///
    /// # Errors
    /// When the kernel gives no `eventfd`.
    pub fn new() -> io::Result<Self> {
        Ok(Self { state: Mutex::default(), ready: EventFd::new()? })
    }

    /// Readable while events wait.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.ready.fd()
    }

    /// Add events. Where there is no room, data messages are refused first; states always have a reserve.
    pub fn push(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = state.events.is_empty();
        for event in events {
            let optional = matches!(
                event.kind,
                EventKind::Data { .. } | EventKind::AudioLevels(_) | EventKind::Quality { .. }
            );
            let limit = if optional { MAX_EVENTS / 2 } else { MAX_EVENTS };
            if state.events.len() >= limit || (optional && state.bytes + size(&event) > MAX_BYTES) {
                state.dropped += 1;
                continue;
            }
            state.bytes += size(&event);
            state.events.push_back(event);
        }
        if was_empty && !state.events.is_empty() {
            self.ready.set();
        }
    }

    /// At most `max` events, oldest first.
    #[must_use]
    pub fn drain(&self, max: usize) -> Vec<Event> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let n = max.min(state.events.len());
        let events: Vec<Event> = state.events.drain(..n).collect();
        state.bytes -= events.iter().map(size).sum::<usize>();
        if state.events.is_empty() {
            self.ready.clear();
        }
        events
    }

    /// How full it is, 0 to 1, by number or by bytes.
    #[must_use]
    pub fn fill(&self) -> f64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.events.len() as f64 / MAX_EVENTS as f64;
        number.max(state.bytes as f64 / MAX_BYTES as f64).min(1.0)
    }

    /// Events lost because nobody drained.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use std::time::Duration;

    fn data(len: usize) -> Event {
        let kind = EventKind::Data {
            transport_id: "t".into(),
            label: "l".into(),
            payload: vec![0; len],
            binary: true,
        };
        Event { controller_id: "c".into(), room_id: "r".into(), kind }
    }

    fn readable(q: &EventQueue) -> bool {
        let mut poller = sys::Poller::new([q.fd()]);
        poller.wait(Duration::ZERO).unwrap();
        poller.is_ready(0)
    }

    #[test]
    fn readable_while_events_wait() {
        let q = EventQueue::new().unwrap();
        assert!(!readable(&q));
        q.push(vec![data(1), data(2), data(3)]);
        assert!(readable(&q));
        assert_eq!(q.drain(2).len(), 2);
        assert!(readable(&q), "one is left");
        assert_eq!(q.drain(2).len(), 1);
        assert!(!readable(&q));
    }

    #[test]
    fn a_flood_of_data_leaves_room_for_states() {
        let q = EventQueue::new().unwrap();
        q.push((0..100).map(|_| data(1 << 20)).collect());
        assert!(q.dropped() > 30);
        assert!(q.fill() > 0.9, "{}", q.fill());
        let closed = EventKind::RoomClosed { reason: "x" };
        q.push(vec![Event { controller_id: "c".into(), room_id: "r".into(), kind: closed.clone() }]);
        assert_eq!(q.drain(1000).last().unwrap().kind, closed);
    }
}
