//! Under one key no nonce may stand for two packets (RFC 3711 §9.1, RFC 7714 §8.1): each client watches for it.

use headwater_wire::rtp::RtpView;
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

/// A number that comes again this many packets later is another one: the sequence has wrapped.
const WRAP: u64 = 30_000;

/// What was seen of each (SSRC, sequence number), still encrypted.
#[derive(Default)]
pub struct Nonces {
    seen: HashMap<(u32, u16), (u64, u64)>,
    counts: HashMap<u32, u64>,
}

impl Nonces {
    /// Panics if the packet has the number of another one.
    pub fn check(&mut self, datagram: &[u8]) {
        let Some(view) = RtpView::parse(datagram) else { return };
        let mut hasher = DefaultHasher::new();
        datagram.hash(&mut hasher);
        let count = self.counts.entry(view.ssrc()).or_default();
        *count += 1;
        let before = self.seen.insert((view.ssrc(), view.sequence()), (hasher.finish(), *count));
        if let Some((hash, at)) = before
            && *count - at < WRAP
        {
            assert_eq!(
                hash,
                hasher.finish(),
                "two packets as SSRC {} number {}",
                view.ssrc(),
                view.sequence()
            );
        }
    }
}
