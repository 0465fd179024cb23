//! Probe clusters: short bursts above the estimate that show whether the path carries more.

/// A cluster has at least this many packets …
const MIN_PACKETS: u32 = 5;
/// … over at least this long.
const MIN_US: u64 = 15_000;
/// What did not come back by then is not waited for.
const TIMEOUT_US: u64 = 1_000_000;
/// So much of a cluster must have come for a result.
const MIN_SHARE: f64 = 0.8;
/// A result of this share of the probed rate is a success: try more at once.
const SUCCESS: f64 = 0.7;
const FIRST_WAIT_US: u64 = 1_000_000;
const MAX_WAIT_US: u64 = 3_000_000;
/// After overuse nothing is probed for this long.
const AFTER_OVERUSE_US: u64 = 2_000_000;
/// … or only this long, with shorter waits, where it was no filling of ours that the path became too narrow for: such a
/// stumble passes.
const AFTER_STUMBLE_US: u64 = 400_000;
const STUMBLE_WAIT_US: u64 = 300_000;

/// Probe packets that are to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Bytes that may go now to keep to the probe's rate.
    pub bytes: u32,
    /// Best size of one packet: small ones where the rate is low, so that other packets do not wait long.
    pub packet: u32,
    /// When to ask again.
    pub next_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cluster {
    id: u16,
    bps: u64,
    started_us: Option<u64>,
    ended_us: Option<u64>,
    sent: u32,
    sent_bytes: u32,
    received: u32,
    received_bytes: u32,
    /// (first, last) and the size of the packet at that end.
    send: (u64, u64, u16),
    arrival: (i64, i64, u16),
}

#[derive(Debug)]
pub(crate) struct Prober {
    cluster: Option<Cluster>,
    next_id: u16,
    next_us: u64,
    wait_us: u64,
    started: bool,
}

impl Default for Prober {
    fn default() -> Self {
        Self { cluster: None, next_id: 1, next_us: 0, wait_us: FIRST_WAIT_US, started: false }
    }
}

impl Cluster {
    fn bytes_wanted(&self) -> u32 {
        u32::try_from(self.bps * MIN_US / 8_000_000).unwrap_or(u32::MAX)
    }

    fn packet(&self) -> u32 {
        (self.bytes_wanted() / MIN_PACKETS).clamp(200, 1200)
    }

    fn complete(&self) -> bool {
        self.sent >= MIN_PACKETS && self.sent_bytes >= self.bytes_wanted()
    }

    fn result(&self) -> Option<u64> {
        let enough = |got: u32, all: u32| f64::from(got) >= MIN_SHARE * f64::from(all);
        let shown = self.ended_us.is_some()
            && enough(self.received, self.sent)
            && enough(self.received_bytes, self.sent_bytes);
        if !shown {
            return None;
        }
        let send_us = self.send.1.saturating_sub(self.send.0);
        let arrival_us = u64::try_from(self.arrival.1 - self.arrival.0).ok()?;
        if send_us == 0 || arrival_us == 0 || send_us > 1_000_000 || arrival_us > 1_000_000 {
            return None;
        }
        let rate = |bytes: u32, us: u64| f64::from(bytes) * 8e6 / us as f64;
        let sent = rate(self.received_bytes.saturating_sub(u32::from(self.send.2)), send_us);
        let arrived = rate(self.received_bytes.saturating_sub(u32::from(self.arrival.2)), arrival_us);
        if arrived > 2.0 * sent {
            return None; // held up on the way and let go together: says nothing
        }
        // Arriving slower than sent: the path is full, and a little below is what it carries.
        Some(if arrived < 0.9 * sent { 0.95 * arrived } else { sent.min(arrived) } as u64)
    }
}

impl Prober {
    /// The cluster that packets sent now belong to, 0: none.
    pub fn current(&self) -> u16 {
        self.cluster.filter(|c| c.started_us.is_some() && c.ended_us.is_none()).map_or(0, |c| c.id)
    }

    /// A cluster is wanted or running: the time at which [`Self::poll`] has something to do.
    pub fn due_us(&self, wanted: bool) -> Option<u64> {
        match &self.cluster {
            Some(c) if c.ended_us.is_none() => Some(c.started_us.map_or(0, |t| self.pace_us(c, t))),
            Some(_) => None,
            None => wanted.then_some(self.next_us),
        }
    }

    fn pace_us(&self, cluster: &Cluster, started_us: u64) -> u64 {
        started_us + u64::from(cluster.sent_bytes) * 8_000_000 / cluster.bps.max(1)
    }

    /// Start or go on with a cluster. `estimate` and `wanted` in bit/s.
    pub fn poll(&mut self, now_us: u64, estimate: u64, wanted: u64) -> Option<Probe> {
        if let Some(c) = &self.cluster
            && (c.ended_us.is_some_and(|t| now_us > t + TIMEOUT_US)
                || c.started_us.is_some_and(|t| c.ended_us.is_none() && now_us > t + TIMEOUT_US))
        {
            self.cluster = None;
            self.failed(now_us);
        }
        if self.cluster.is_none() && wanted > estimate && now_us >= self.next_us {
            let factor = if self.started { 2 } else { 3 };
            self.start(estimate.saturating_mul(factor).min(wanted.saturating_add(wanted / 5)));
        }
        let pace = |c: &Cluster, t: u64| t + u64::from(c.sent_bytes) * 8_000_000 / c.bps.max(1);
        let cluster = self.cluster.as_mut().filter(|c| c.ended_us.is_none())?;
        let started = *cluster.started_us.get_or_insert(now_us);
        let packet = cluster.packet();
        let at = pace(cluster, started);
        // A burst of at most 2 ms, to keep timers few.
        let next_us = at.max(now_us) + 2_000;
        if at > now_us {
            return Some(Probe { bytes: 0, packet, next_us: at });
        }
        let ahead = (now_us + 2_000 - started) * cluster.bps / 8_000_000;
        let bytes = u32::try_from(ahead).unwrap_or(u32::MAX).saturating_sub(cluster.sent_bytes).max(packet);
        Some(Probe { bytes, packet, next_us })
    }

    fn start(&mut self, bps: u64) {
        self.started = true;
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.cluster = Some(Cluster {
            id,
            bps,
            started_us: None,
            ended_us: None,
            sent: 0,
            sent_bytes: 0,
            received: 0,
            received_bytes: 0,
            send: (u64::MAX, 0, 0),
            arrival: (i64::MAX, i64::MIN, 0),
        });
    }

    fn failed(&mut self, now_us: u64) {
        self.next_us = now_us + self.wait_us;
        self.wait_us = (self.wait_us * 2).min(MAX_WAIT_US);
    }

    /// The queue grows; `stumble`: though less was sent than the path had been seen to carry.
    pub fn on_overuse(&mut self, now_us: u64, stumble: bool) {
        let (after, wait) =
            if stumble { (AFTER_STUMBLE_US, STUMBLE_WAIT_US) } else { (AFTER_OVERUSE_US, FIRST_WAIT_US) };
        self.next_us = self.next_us.max(now_us + after);
        self.wait_us = wait;
        if self.cluster.is_some_and(|c| c.ended_us.is_none()) {
            self.cluster = None;
        }
    }

    /// A packet of the current cluster went out.
    pub fn on_sent(&mut self, now_us: u64, size: u16) {
        if let Some(c) = self.cluster.as_mut().filter(|c| c.ended_us.is_none() && c.started_us.is_some()) {
            c.sent += 1;
            c.sent_bytes += u32::from(size);
            if c.complete() {
                c.ended_us = Some(now_us);
            }
        }
    }

    /// A packet of a cluster arrived. Returns a rate that was shown.
    pub fn on_arrival(
        &mut self,
        now_us: u64,
        id: u16,
        sent_us: u64,
        arrival_us: i64,
        size: u16,
        wanted: u64,
    ) -> Option<u64> {
        let c = self.cluster.as_mut().filter(|c| c.id == id)?;
        c.received += 1;
        c.received_bytes += u32::from(size);
        c.send.0 = c.send.0.min(sent_us);
        if sent_us >= c.send.1 {
            (c.send.1, c.send.2) = (sent_us, size);
        }
        if arrival_us < c.arrival.0 {
            (c.arrival.0, c.arrival.2) = (arrival_us, size);
        }
        c.arrival.1 = c.arrival.1.max(arrival_us);
        let all = c.ended_us.is_some() && c.received >= c.sent;
        let bps = c.bps;
        let Some(result) = c.result() else {
            if all {
                self.cluster = None;
                self.failed(now_us);
            }
            return None;
        };
        self.cluster = None;
        if result as f64 >= SUCCESS * bps as f64 {
            self.wait_us = FIRST_WAIT_US;
            self.next_us = now_us;
            if wanted > result {
                self.start(result.saturating_mul(2).min(wanted.saturating_add(wanted / 5)));
            }
        } else {
            self.failed(now_us);
        }
        Some(result)
    }
}
