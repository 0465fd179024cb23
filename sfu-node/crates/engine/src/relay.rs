//! A link to one other node for one room: keys, demand, repair, round trip, loss.

use crate::{
    api::{EventKind, Id, OpenRelay},
    arena::Key,
    clock::Now,
    context::Shared,
    outbox::{DropReason, Outbox, Path},
    receive::earliest,
    timers::Armed,
    track::{Continuity, LAYERS},
};
use aws_lc_rs::digest;
use headwater_wire::{
    nack::{Arrival, GapTracker},
    relay::{Datagram, Demand, Media, Opener, RelayError, Sealer},
    seq::distance,
};
use std::collections::HashMap;

const PING_US: u64 = 1_000_000;
const PING_DOWN_US: u64 = 200_000;
/// Nothing from the peer for this long: the link is down.
const DOWN_US: u64 = 3_000_000;
/// A demand that was not repeated for this long has lapsed.
pub(crate) const DEMAND_US: u64 = 3_000_000;
/// Tracks that one peer may ask for or be asked for.
pub(crate) const MAX_TRACKS: usize = 4096;
/// A layer that was silent for this long and then jumped by this many packets had been paused.
const PAUSE_US: u64 = 1_000_000;
const PAUSE_PACKETS: i16 = 32;
/// Where only the loudest microphones cross: so many packets missing in a row were not sent, …
const UNHEARD_PACKETS: i16 = 10;
/// … and after so long without any the numbers may have gone round.
const UNHEARD_US: u64 = 60_000_000;
const DEFAULT_RTT_US: u64 = 80_000;

/// A track that comes in over the link, under a handle that we chose.
pub(crate) struct Incoming {
    pub track: Key,
    pub track_id: Id,
    /// Layers asked for last.
    pub demanded: u8,
    pub last_us: Option<u64>,
    /// A microphone.
    pub voice: bool,
    gaps: [GapTracker; LAYERS],
    /// When each layer's newest packet came.
    layer_us: [u64; LAYERS],
}

/// A track that the peer asked for, under a handle that it chose; it need not be there (yet).
pub(crate) struct Outgoing {
    pub track_id: Id,
    pub last_us: Option<u64>,
    /// Layers asked for, and until when.
    pub mask: u8,
    pub expires_us: u64,
}

/// A packet that came over a link.
pub(crate) struct Crossed {
    pub track: Key,
    pub continuity: Continuity,
    /// Layers that were asked for.
    pub demanded: u8,
}

pub(crate) struct Link {
    pub spec: OpenRelay,
    pub path: Path,
    pub up: bool,
    pub armed: Armed,
    pub incoming: HashMap<u32, Incoming>,
    pub outgoing: HashMap<u32, Outgoing>,
    pub tx_bytes: u64,
    pub rx_bytes: u64,
    pub rtt_us: Option<u64>,
    sealer: Sealer,
    opener: Opener,
    next_handle: u32,
    reason: &'static str,
    last_rx_us: u64,
    ping_due_us: u64,
    ping_id: u32,
    nack_due_us: Option<u64>,
    lost: Vec<u16>,
    /// Share of our datagrams that the peer missed.
    tx_loss: f64,
    rx_loss: f64,
    tx_counts: (u64, u64),
    rx_counts: (u64, u64),
}

/// Both ends check that they hold the same pair of keys before they try them.
fn key_epoch(spec: &OpenRelay) -> u32 {
    let mixed: Vec<u8> = spec.tx_key.iter().zip(&spec.rx_key).map(|(a, b)| a ^ b).collect();
    let hash = digest::digest(&digest::SHA256, &mixed);
    hash.as_ref().iter().take(4).fold(0, |n, b| n << 8 | u32::from(*b))
}

impl Link {
    pub fn new(spec: OpenRelay, shared: &Shared, now: Now) -> Result<Self, String> {
        let path = shared
            .path_to(spec.peer_address)
            .ok_or_else(|| format!("peer_address {}: no socket of that address family", spec.peer_address))?;
        let epoch = key_epoch(&spec);
        let sealer =
            Sealer::new(&spec.tx_key, spec.peer_token, epoch, now.unix_us).ok_or("tx_key unusable")?;
        let opener = Opener::new(&spec.rx_key, spec.link_token, epoch).ok_or("rx_key unusable")?;
        Ok(Self {
            path,
            up: false,
            armed: Armed::default(),
            incoming: HashMap::new(),
            outgoing: HashMap::new(),
            tx_bytes: 0,
            rx_bytes: 0,
            rtt_us: None,
            sealer,
            opener,
            next_handle: shared.random_u32() >> 8,
            reason: "opened",
            last_rx_us: now.us,
            ping_due_us: now.us,
            ping_id: 0,
            nack_due_us: None,
            lost: Vec::new(),
            tx_loss: 0.0,
            rx_loss: 0.0,
            tx_counts: (0, 0),
            rx_counts: (0, 0),
            spec,
        })
    }

    pub fn event(&self) -> EventKind {
        EventKind::Relay { link_id: self.spec.link_id.clone(), up: self.up, reason: self.reason }
    }

    /// Since anything authentic came from the peer, or since the link was opened.
    pub fn silent_ms(&self, now_us: u64) -> u32 {
        u32::try_from(now_us.saturating_sub(self.last_rx_us) / 1000).unwrap_or(u32::MAX)
    }

    /// Take a track from this link.
    pub fn add_incoming(&mut self, track: Key, track_id: Id, voice: bool) {
        self.next_handle = self.next_handle.wrapping_add(1);
        let gaps = [GapTracker::new(), GapTracker::new(), GapTracker::new()];
        let layer_us = [0; LAYERS];
        let incoming = Incoming { track, track_id, demanded: 0, last_us: None, voice, gaps, layer_us };
        self.incoming.insert(self.next_handle, incoming);
    }

    pub fn remove_incoming(&mut self, track: Key) {
        self.incoming.retain(|_, i| i.track != track);
    }

    /// Decrypt a datagram in place. `None`: counted and dropped.
    pub fn open<'a>(
        &mut self,
        now: Now,
        datagram: &'a mut [u8],
        out: &mut Outbox,
    ) -> Option<headwater_wire::relay::Messages<'a>> {
        let len = datagram.len() as u64;
        match self.opener.open(datagram) {
            Ok(messages) => {
                self.rx_bytes += len;
                self.last_rx_us = now.us;
                if !self.up {
                    self.up = true;
                    self.reason = "";
                    out.event(self.event());
                }
                Some(messages)
            }
            Err(e) => {
                out.drop(match e {
                    RelayError::Replayed => DropReason::RelayReplay,
                    RelayError::Authentication | RelayError::Epoch => DropReason::RelayAuth,
                    _ => DropReason::RelayMalformed,
                });
                None
            }
        }
    }

    /// One media packet from the peer. `only_loudest`: not every microphone is heard.
    #[inline]
    pub fn on_media(
        &mut self,
        now: Now,
        media: &Media<'_>,
        only_loudest: bool,
        out: &mut Outbox,
    ) -> Option<Crossed> {
        let Some(incoming) = self.incoming.get_mut(&media.handle) else {
            out.drop(DropReason::RelayUnknownHandle);
            return None;
        };
        let first = incoming.last_us.is_none();
        incoming.last_us = Some(now.us);
        let gaps = incoming.gaps.get_mut(usize::from(media.spatial))?;
        let newest_us = incoming.layer_us.get_mut(usize::from(media.spatial))?;
        let silent_us = now.us.saturating_sub(std::mem::replace(newest_us, now.us));
        let ahead = gaps.highest().map_or(0, |h| distance(h as u16, media.sequence));
        // The layer was not asked for in between, or was not loud enough: what it missed is no loss, and would come
        // too late to be shown.
        let (paused, skipped) = if only_loudest && incoming.voice {
            let unsent = (ahead > 1 && media.marker) || ahead > UNHEARD_PACKETS;
            (silent_us > UNHEARD_US && !first, unsent)
        } else {
            (silent_us > PAUSE_US && ahead > PAUSE_PACKETS, false)
        };
        if paused || skipped {
            *gaps = GapTracker::new();
        }
        let first = first || paused;
        let arrival = gaps.on_packet(media.sequence, now.us);
        if gaps.missing() > 0 {
            self.nack_due_us = earliest(self.nack_due_us, gaps.next_due_us());
        }
        let continuity = match arrival {
            Arrival::Reset => Continuity::Restart,
            _ if first => Continuity::Restart,
            _ if skipped => Continuity::Gap,
            _ => Continuity::Whole,
        };
        match arrival {
            Arrival::New | Arrival::Recovered | Arrival::Reset => {
                Some(Crossed { track: incoming.track, continuity, demanded: incoming.demanded })
            }
            Arrival::Duplicate | Arrival::TooOld => {
                out.drop(DropReason::RtpDuplicate);
                None
            }
        }
    }

    /// Write one datagram with `fill` and queue it.
    fn send(&mut self, out: &mut Outbox, fill: impl FnOnce(&mut Datagram<'_>) -> Result<(), RelayError>) {
        let start = out.arena.len();
        let mut datagram = self.sealer.begin(&mut out.arena);
        if fill(&mut datagram).is_err() || datagram.is_empty() {
            drop(datagram);
            out.arena.truncate(start);
            out.drop(DropReason::RelayTooLarge);
            return;
        }
        match datagram.seal() {
            Ok(len) => {
                self.tx_bytes += len as u64;
                out.finish(self.path, start);
            }
            Err(_) => {
                out.arena.truncate(start);
                out.drop(DropReason::SealFailed);
            }
        }
    }

    /// A run of packets, as many in one datagram as it holds.
    pub fn send_media<'m>(
        &mut self,
        now_us: u64,
        handle: u32,
        run: impl Iterator<Item = &'m Media<'m>>,
        out: &mut Outbox,
    ) {
        let mut run = run.map(|media| Media { handle, ..*media }).peekable();
        if let Some(outgoing) = self.outgoing.get_mut(&handle) {
            outgoing.last_us = Some(now_us);
        }
        while let Some(first) = run.next() {
            self.send(out, |d| {
                d.media(&first)?;
                while run.peek().is_some_and(|next| d.media(next).is_ok()) {
                    run.next();
                }
                Ok(())
            });
        }
    }

    pub fn send_pong(&mut self, id: u32, sent_us: u64, out: &mut Outbox) {
        self.send(out, |d| d.pong(id, sent_us));
    }

    pub fn send_key_frame_request(&mut self, track: Key, spatial: u8, out: &mut Outbox) {
        let handle = self.incoming.iter().find(|(_, i)| i.track == track).map(|(h, _)| *h);
        if let Some(handle) = handle {
            self.send(out, |d| d.key_frame_request(handle, spatial));
        }
    }

    pub fn send_clock(&mut self, handle: u32, spatial: u8, ntp: u64, rtp_timestamp: u32, out: &mut Outbox) {
        self.send(out, |d| d.sender_clock(handle, spatial, ntp, rtp_timestamp));
    }

    /// Ask for layers. `all`: also repeat what was asked for before; else only what changed.
    pub fn send_demands(&mut self, wanted: impl Fn(Key) -> u8, all: bool, out: &mut Outbox) {
        let mut pending: Vec<(u32, u8, Id)> = Vec::new();
        for (handle, incoming) in &mut self.incoming {
            let mask = wanted(incoming.track);
            if mask != incoming.demanded || (all && mask != 0) {
                incoming.demanded = mask;
                pending.push((*handle, mask, incoming.track_id.clone()));
            }
        }
        let mut rest = pending.as_slice();
        while !rest.is_empty() {
            let mut written = 0;
            self.send(out, |d| {
                for (handle, spatial_mask, track_id) in rest {
                    let demand = Demand { handle: *handle, spatial_mask: *spatial_mask, track_id };
                    if d.demand(&demand).is_err() {
                        break;
                    }
                    written += 1;
                }
                Ok(())
            });
            if written == 0 {
                return;
            }
            rest = &rest[written..];
        }
    }

    /// The peer asks for layers of a track, or, with none, for nothing of it any more. False: it asks for too many.
    pub fn on_demand(&mut self, demand: &Demand<'_>, now_us: u64) -> bool {
        let (mask, expires_us) = (demand.spatial_mask & 0b111, now_us + DEMAND_US);
        if mask == 0 {
            self.outgoing.remove(&demand.handle);
        } else if let Some(known) = self.outgoing.get_mut(&demand.handle) {
            (known.mask, known.expires_us) = (mask, expires_us);
        } else {
            // One handle for a track: the newest, so that it crosses the link once.
            self.outgoing.retain(|_, o| &*o.track_id != demand.track_id);
            if self.outgoing.len() >= MAX_TRACKS {
                return false;
            }
            let track_id = demand.track_id.into();
            self.outgoing.insert(demand.handle, Outgoing { track_id, last_us: None, mask, expires_us });
        }
        true
    }

    pub fn on_pong(&mut self, now: Now, sent_us: u64) {
        if let Some(rtt) = now.us.checked_sub(sent_us).filter(|r| *r < 10_000_000) {
            self.rtt_us = Some(self.rtt_us.map_or(rtt, |old| (old * 7 + rtt) / 8));
        }
    }

    /// The peer counted our datagrams.
    pub fn on_report(&mut self, received: u64, expected: u64) {
        let (r0, e0) = self.tx_counts;
        self.tx_counts = (received, expected);
        if let Some(share) = loss_share(received.saturating_sub(r0), expected.saturating_sub(e0)) {
            self.tx_loss = (self.tx_loss + share) / 2.0;
        }
    }

    pub fn loss(&self) -> f64 {
        self.tx_loss.max(self.rx_loss)
    }

    pub fn deadline_us(&self) -> u64 {
        earliest(Some(self.ping_due_us), self.nack_due_us).unwrap_or(self.ping_due_us)
    }

    /// Pings, loss reports, NACKs, and the end of patience. Returns tracks and layers that lost packets for good.
    pub fn on_timer(&mut self, now: Now, out: &mut Outbox) -> Vec<(Key, u8)> {
        let abandoned = self.poll_nacks(now, out);
        if self.ping_due_us <= now.us {
            self.ping_due_us = now.us + if self.up { PING_US } else { PING_DOWN_US };
            self.ping_id = self.ping_id.wrapping_add(1);
            let (received, expected) = self.opener.counts();
            let (r0, e0) = std::mem::replace(&mut self.rx_counts, (received, expected));
            if let Some(share) = loss_share(received.saturating_sub(r0), expected.saturating_sub(e0)) {
                self.rx_loss = (self.rx_loss + share) / 2.0;
            }
            let id = self.ping_id;
            self.send(out, |d| {
                d.ping(id, now.us)?;
                d.report(received, expected)
            });
            if self.up && now.us.saturating_sub(self.last_rx_us) > DOWN_US {
                self.up = false;
                self.reason = "nothing received for 3 s";
                out.event(self.event());
            }
        }
        abandoned
    }

    fn poll_nacks(&mut self, now: Now, out: &mut Outbox) -> Vec<(Key, u8)> {
        let mut abandoned = Vec::new();
        if self.nack_due_us.is_none_or(|t| t > now.us) {
            return abandoned;
        }
        self.nack_due_us = None;
        let rtt = self.rtt_us.unwrap_or(DEFAULT_RTT_US);
        let mut asks: Vec<(u32, u8, Vec<u16>)> = Vec::new();
        for (handle, incoming) in &mut self.incoming {
            for (spatial, gaps) in (0u8..).zip(&mut incoming.gaps) {
                if gaps.missing() > 0 {
                    self.lost.clear();
                    gaps.poll(now.us, rtt, &mut self.lost);
                    if !self.lost.is_empty() {
                        asks.push((*handle, spatial, self.lost.clone()));
                    }
                    if gaps.missing() > 0 {
                        self.nack_due_us = earliest(self.nack_due_us, gaps.next_due_us());
                    }
                }
                if gaps.take_abandoned() > 0 {
                    abandoned.push((incoming.track, spatial));
                }
            }
        }
        for (handle, spatial, lost) in asks {
            let mut rest = lost.as_slice();
            while !rest.is_empty() {
                let mut written = 0;
                self.send(out, |d| {
                    written = d.nack(handle, spatial, rest);
                    Ok(())
                });
                if written == 0 {
                    break;
                }
                rest = &rest[written.min(rest.len())..];
            }
        }
        abandoned
    }
}

fn loss_share(received: u64, expected: u64) -> Option<f64> {
    (expected >= 5).then(|| 1.0 - (received as f64 / expected as f64).min(1.0))
}
