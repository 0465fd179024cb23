//! Reports: cumulative figures of the engine as rates.

use crate::proto;
use headwater_net::Snapshot;
use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Rates are not taken over less than this: two callers would halve each other's numbers.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Default)]
struct Rates {
    rx_pps: f64,
    tx_pps: f64,
    rx_mbps: f64,
    tx_mbps: f64,
}

/// Remembers the last snapshot.
#[derive(Default)]
pub struct Rater {
    last: Option<Snapshot>,
    node: Rates,
    links: HashMap<String, (f64, f64)>,
}

impl Rater {
    /// The last snapshot taken, for when there can be none.
    pub fn last(&self) -> Option<Snapshot> {
        self.last.clone()
    }

    /// The report for `snapshot`, without what only the agent knows (CPU, memory, the drain's terms).
    pub fn report(
        &mut self,
        snapshot: &Snapshot,
        identity: &proto::NodeInfo,
        stalled_ms: u32,
    ) -> proto::NodeReport {
        self.update(snapshot);
        let (r, l) = (&snapshot.report, snapshot.latency);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let rooms = r.rooms.iter().map(|room| proto::RoomReport {
            room_id: room.room_id.to_string(),
            epoch: room.epoch,
            controller_id: room.controller_id.to_string(),
            snapshot_version: room.snapshot_version,
            participants: room.participants,
            published_tracks: room.published_tracks,
        });
        let links = r.links.iter().map(|link| {
            let (tx_mbps, rx_mbps) = self.links.get(&*link.link_id).copied().unwrap_or_default();
            proto::LinkReport {
                link_id: link.link_id.to_string(),
                room_id: link.room_id.to_string(),
                peer_node_id: link.peer_node_id.clone(),
                up: link.up,
                tx_mbps,
                rx_mbps,
                rtt_ms: link.rtt_ms,
                loss: link.loss,
                tx_tracks: link.tx_tracks,
                rx_tracks: link.rx_tracks,
                silent_ms: link.silent_ms,
            }
        });
        proto::NodeReport {
            node_id: identity.node_id.clone(),
            region: identity.region.clone(),
            incarnation: identity.incarnation.clone(),
            at_ms: i64::try_from(at.as_millis()).unwrap_or(i64::MAX),
            draining: snapshot.draining,
            cpu_percent: 0.0,
            rss_bytes: 0,
            connections: r.connections,
            participants: r.participants,
            rx_pps: self.node.rx_pps,
            tx_pps: self.node.tx_pps,
            rx_mbps: self.node.rx_mbps,
            tx_mbps: self.node.tx_mbps,
            forward_p50_us: l.p50_us,
            forward_p95_us: l.p95_us,
            forward_p99_us: l.p99_us,
            rooms: rooms.collect(),
            links: links.collect(),
            max_connections: identity.max_connections,
            drops: r.drops.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
            drain: None,
            transports_created: r.transports_created,
            buffer_percent: snapshot.buffer_percent,
            version: identity.version.clone(),
            wire_version: identity.wire_version,
            media_stalled_ms: stalled_ms,
            min_wire_version: identity.min_wire_version,
        }
    }

    fn update(&mut self, snapshot: &Snapshot) {
        let Some(last) = &self.last else {
            self.last = Some(snapshot.clone());
            return;
        };
        let interval = snapshot.at.saturating_duration_since(last.at);
        if interval < MIN_INTERVAL {
            return;
        }
        let seconds = interval.as_secs_f64();
        let (a, b) = (&last.report, &snapshot.report);
        let per_second = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        let mbps = |from: u64, to: u64| per_second(from, to) * 8.0 / 1e6;
        self.node = Rates {
            rx_pps: per_second(a.rx_packets, b.rx_packets),
            tx_pps: per_second(a.tx_packets, b.tx_packets),
            rx_mbps: mbps(a.rx_bytes, b.rx_bytes),
            tx_mbps: mbps(a.tx_bytes, b.tx_bytes),
        };
        let before: HashMap<&str, (u64, u64)> =
            a.links.iter().map(|l| (&*l.link_id, (l.tx_bytes, l.rx_bytes))).collect();
        self.links = b
            .links
            .iter()
            .map(|l| {
                let (tx, rx) = before.get(&*l.link_id).copied().unwrap_or_default();
                (l.link_id.to_string(), (mbps(tx, l.tx_bytes), mbps(rx, l.rx_bytes)))
            })
            .collect();
        self.last = Some(snapshot.clone());
    }
}
