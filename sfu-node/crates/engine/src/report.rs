//! Figures of rooms and links for the node's report.

use crate::{
    api::{Id, LinkReport, RoomReport},
    relay::Link,
    room::Room,
    track::Source,
};
use std::collections::HashSet;

/// A track without a packet for this long does not cross the link.
const FRESH_US: u64 = 3_000_000;

impl Room {
    pub(crate) fn report(&self) -> RoomReport {
        let participants: HashSet<&Id> = self.transports.iter().map(|(_, t)| &t.participant).collect();
        let published = |s: &Source| matches!(s, Source::Transport(_));
        RoomReport {
            room_id: self.id.clone(),
            epoch: self.epoch,
            controller_id: self.controller.clone(),
            snapshot_version: self.snapshot.as_ref().map_or(0, |s| s.0),
            participants: participants.len() as u32,
            published_tracks: self.tracks.iter().filter(|(_, t)| published(&t.source)).count() as u32,
        }
    }

    /// Transports that are connected.
    pub(crate) fn connections(&self) -> u32 {
        self.transports.iter().filter(|(_, t)| t.is_connected()).count() as u32
    }
}

impl Link {
    pub(crate) fn report(&self, room_id: &Id, now_us: u64) -> LinkReport {
        let fresh = |t: Option<u64>| t.is_some_and(|t| now_us.saturating_sub(t) < FRESH_US);
        LinkReport {
            link_id: self.spec.link_id.clone(),
            room_id: room_id.clone(),
            peer_node_id: self.spec.peer_node_id.clone(),
            up: self.up,
            tx_bytes: self.tx_bytes,
            rx_bytes: self.rx_bytes,
            rtt_ms: self.rtt_us.unwrap_or(0) as f64 / 1000.0,
            loss: self.loss(),
            tx_tracks: self.outgoing.values().filter(|o| fresh(o.last_us)).count() as u32,
            rx_tracks: self.incoming.values().filter(|i| fresh(i.last_us)).count() as u32,
            silent_ms: self.silent_ms(now_us),
        }
    }
}
