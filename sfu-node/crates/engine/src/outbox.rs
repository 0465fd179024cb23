//! What the engine gives back: datagrams in one arena, events, and counters.

use crate::api::{Event, EventKind};
use std::{collections::BTreeMap, net::SocketAddr};

/// A local socket and a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// Index into the sockets that the engine was made with.
    pub socket: u8,
    /// The other end.
    pub peer: SocketAddr,
}

/// Why packets were not handled or not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
#[allow(missing_docs)]
pub enum DropReason {
    UnknownKind,
    UnknownPath,
    StunMalformed,
    StunUnknownUfrag,
    StunRefused,
    DtlsError,
    DtlsCertificate,
    SrtpNoKeys,
    SrtpAuth,
    SrtpReplay,
    RtpMalformed,
    RtpUnknownSsrc,
    RtpTooManySsrcs,
    RtpMuted,
    RtpUnheard,
    RtpUnknownPayloadType,
    RtpDuplicate,
    RedMalformed,
    NoAddress,
    CodecUnsupported,
    SealFailed,
    NackUnknown,
    NackBudget,
    RelayMalformed,
    RelayUnknownToken,
    RelayAuth,
    RelayReplay,
    RelayUnknownHandle,
    RelayTooLarge,
    DataRefused,
    PacerFull,
    PacerStale,
    Panic,
}

const NAMES: [&str; DropReason::Panic as usize + 1] = [
    "unknown_kind",
    "unknown_path",
    "stun_malformed",
    "stun_unknown_ufrag",
    "stun_refused",
    "dtls_error",
    "dtls_certificate",
    "srtp_no_keys",
    "srtp_auth",
    "srtp_replay",
    "rtp_malformed",
    "rtp_unknown_ssrc",
    "rtp_too_many_ssrcs",
    "rtp_muted",
    "rtp_unheard",
    "rtp_unknown_payload_type",
    "rtp_duplicate",
    "red_malformed",
    "no_address",
    "codec_unsupported",
    "seal_failed",
    "nack_unknown",
    "nack_budget",
    "relay_malformed",
    "relay_unknown_token",
    "relay_auth",
    "relay_replay",
    "relay_unknown_handle",
    "relay_too_large",
    "data_refused",
    "pacer_full",
    "pacer_stale",
    "panic",
];

/// Arrival times kept for a caller that does not ask for them.
const MAX_ARRIVALS: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Datagram {
    start: u32,
    len: u32,
    path: Path,
}

/// By reason.
#[derive(Debug)]
struct Drops([u64; NAMES.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; NAMES.len()])
    }
}

/// Output of the engine, emptied by the caller.
#[derive(Debug, Default)]
pub struct Outbox {
    pub(crate) arena: Vec<u8>,
    datagrams: Vec<Datagram>,
    events: Vec<Event>,
    /// Events of the room being served; the engine adds the addressee.
    pub(crate) pending: Vec<EventKind>,
    drops: Drops,
    packets: u64,
    bytes: u64,
    /// Arrival times of packets that were forwarded, µs.
    arrivals: Vec<u64>,
}

impl Outbox {
    /// Datagrams to send, in order.
    pub fn datagrams(&self) -> impl ExactSizeIterator<Item = (Path, &[u8])> {
        self.datagrams.iter().map(|d| {
            let (start, len) = (d.start as usize, d.len as usize);
            (d.path, self.arena.get(start..start + len).unwrap_or(&[]))
        })
    }

    /// The `i`-th datagram: receiver and bytes. Neighbours stand side by side in memory.
    #[inline]
    #[must_use]
    pub fn datagram(&self, i: usize) -> Option<(Path, &[u8])> {
        let d = self.datagrams.get(i)?;
        Some((d.path, self.arena.get(d.start as usize..d.start as usize + d.len as usize)?))
    }

    /// Datagrams waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.datagrams.len()
    }

    /// No datagram waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Bytes waiting.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Forget the datagrams: they were sent.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.datagrams.clear();
    }

    /// Events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Arrival times of what was forwarded since the last call, on the scale of [`crate::Engine::micros`].
    pub fn take_arrivals(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.arrivals.drain(..)
    }

    #[inline]
    pub(crate) fn forwarded(&mut self, arrived_us: u64) {
        if self.arrivals.len() < MAX_ARRIVALS {
            self.arrivals.push(arrived_us);
        }
    }

    pub(crate) fn event(&mut self, kind: EventKind) {
        self.pending.push(kind);
    }

    pub(crate) fn address_pending(&mut self, controller_id: &crate::api::Id, room_id: &crate::api::Id) {
        for kind in self.pending.drain(..) {
            let (controller_id, room_id) = (controller_id.clone(), room_id.clone());
            self.events.push(Event { controller_id, room_id, kind });
        }
    }

    #[inline]
    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.drops.0[reason as usize] += 1;
    }

    /// The bytes from `start` to the arena's end are one datagram.
    #[inline]
    pub(crate) fn finish(&mut self, path: Path, start: usize) {
        let len = self.arena.len() - start;
        self.packets += 1;
        self.bytes += len as u64;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the caller empties the arena long before 4 GiB"
        )]
        self.datagrams.push(Datagram { start: start as u32, len: len as u32, path });
    }

    /// Queue one datagram.
    pub fn push(&mut self, path: Path, bytes: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        self.finish(path, start);
    }

    /// A point to which [`Self::rewind`] can go back.
    pub(crate) fn mark(&self) -> usize {
        self.datagrams.len()
    }

    /// Take back what was queued since `mark`, as far as it did not leave in between.
    pub(crate) fn rewind(&mut self, mark: usize) {
        for gone in self.datagrams.drain(mark.min(self.datagrams.len())..) {
            self.packets -= 1;
            self.bytes -= u64::from(gone.len);
        }
        let end = self.datagrams.last().map_or(0, |d| d.start as usize + d.len as usize);
        self.arena.truncate(end);
        self.pending.clear();
    }

    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }

    pub(crate) fn drop_counts(&self) -> BTreeMap<&'static str, u64> {
        NAMES.iter().zip(self.drops.0).filter(|d| d.1 > 0).map(|(n, c)| (*n, c)).collect()
    }
}
