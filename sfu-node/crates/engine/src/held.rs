//! What the node holds of rooms, for a gateway that takes one over.

use crate::{
    api::{Id, RoomHeld},
    engine::Engine,
    room::Room,
};
use std::time::{Duration, Instant};

impl Engine {
    /// These rooms (all, if none is named), as far as they are here. Snapshots only `with_blobs`.
    #[must_use]
    pub fn rooms_held(&self, now: Instant, ids: &[Id], with_blobs: bool) -> Vec<RoomHeld> {
        let now_us = self.shared.clock.us(now);
        let held = |room: &Room| RoomHeld {
            room_id: room.id.clone(),
            epoch: room.epoch,
            controller_id: room.controller.clone(),
            snapshot_version: room.snapshot.as_ref().map_or(0, |s| s.0),
            snapshot: room.snapshot.as_ref().filter(|_| with_blobs).map_or_else(Vec::new, |s| s.1.clone()),
            lease_left: Duration::from_micros(room.lease_due_us.saturating_sub(now_us)),
        };
        if ids.is_empty() {
            return self.rooms.iter().map(|(_, room)| held(room)).collect();
        }
        let named = ids.iter().filter_map(|id| self.rooms.get(*self.room_ids.get(id)?));
        named.map(held).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        api::{Apply, Command, EventKind, StaleEpoch},
        engine::{Config, Engine},
        outbox::Outbox,
    };
    use std::time::{Duration, Instant};

    fn engine(now: Instant) -> Engine {
        let config = Config { sockets: vec![([127, 0, 0, 1], 1).into()], max_connections: 2, seed: 1 };
        Engine::new(config, now, Duration::ZERO).unwrap()
    }

    fn request(controller: &str, epoch: u64, commands: Vec<Command>) -> Apply {
        Apply {
            room_id: "r".into(),
            epoch,
            controller_id: controller.into(),
            lease: Duration::from_secs(60),
            audio_top_n: 0,
            commands,
        }
    }

    #[test]
    fn a_room_is_held_with_its_newest_snapshot() {
        let now = Instant::now();
        let (mut engine, mut out) = (engine(now), Outbox::default());
        let put = |version, text: &str| Command::PutSnapshot { version, blob: text.into() };
        let commands = vec![put(4, "new"), put(3, "old")];
        assert!(engine.apply(now, request("a", 7, commands), &mut out).is_ok());
        let later = now + Duration::from_secs(20);
        let held = engine.rooms_held(later, &["r".into(), "unknown".into()], true);
        assert_eq!(held.len(), 1);
        assert_eq!((held[0].epoch, &*held[0].controller_id, held[0].snapshot_version), (7, "a", 4));
        assert_eq!((&*held[0].snapshot, held[0].lease_left), (&b"new"[..], Duration::from_secs(40)));
        assert!(engine.rooms_held(later, &[], false)[0].snapshot.is_empty());
    }

    #[test]
    fn one_of_two_controllers_with_one_epoch_has_the_room() {
        let now = Instant::now();
        let (mut engine, mut out) = (engine(now), Outbox::default());
        assert!(engine.apply(now, request("b", 7, vec![]), &mut out).is_ok());
        assert_eq!(engine.apply(now, request("a", 7, vec![]), &mut out), Err(StaleEpoch { current: 7 }));
        assert!(engine.apply(now, request("c", 7, vec![]), &mut out).is_ok());
        assert_eq!(engine.apply(now, request("b", 7, vec![]), &mut out), Err(StaleEpoch { current: 7 }));
        assert!(engine.apply(now, request("a", 8, vec![Command::CloseRoom]), &mut out).is_ok());
        // What is closed stays closed to those who had it before.
        assert_eq!(engine.apply(now, request("c", 7, vec![]), &mut out), Err(StaleEpoch { current: 8 }));
    }

    #[test]
    fn a_successor_hears_the_state_of_what_it_adopts() {
        let now = Instant::now();
        let (mut engine, mut out) = (engine(now), Outbox::default());
        let spec = crate::api::CreateTransport {
            transport_id: "t".into(),
            participant_id: "p".into(),
            local_ufrag: "ufrag".into(),
            local_pwd: "x".repeat(24),
            remote_fingerprint: String::new(),
            data_channels: vec![],
            max_message_size: 0,
        };
        let create = vec![Command::CreateTransport(spec)];
        assert!(engine.apply(now, request("a", 7, create), &mut out).is_ok());
        out.take_events();
        assert!(engine.apply(now, request("a", 7, vec![]), &mut out).is_ok());
        assert!(out.take_events().is_empty());
        assert!(engine.apply(now, request("b", 8, vec![]), &mut out).is_ok());
        let events = out.take_events();
        let told = events.iter().filter(|e| &*e.controller_id == "b");
        assert_eq!(told.filter(|e| matches!(e.kind, EventKind::Transport { .. })).count(), 1);
    }
}
