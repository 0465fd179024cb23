//! What every step of a room may touch besides the room itself.

use crate::{
    arena::Key,
    clock::{Clock, Now},
    hold::Holds,
    outbox::{Outbox, Path},
    routes::Routes,
    timers::Timers,
};
use std::{cell::Cell, net::SocketAddr, sync::Arc};

/// Fixed for the life of the engine.
pub(crate) struct Shared {
    pub clock: Clock,
    pub certificate: headwater_dtls::DtlsCertificate,
    pub dtls: Arc<headwater_dtls::Config>,
    /// Local addresses, in the order of [`Path::socket`].
    pub sockets: Vec<SocketAddr>,
    pub seed: Cell<u64>,
}

impl Shared {
    /// For SSRCs and first sequence numbers (splitmix64); nothing secret.
    pub fn random_u32(&self) -> u32 {
        let z = self.seed.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.seed.set(z);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// The first local socket that can reach `peer`.
    pub fn path_to(&self, peer: SocketAddr) -> Option<Path> {
        let at = self.sockets.iter().position(|s| s.is_ipv4() == peer.is_ipv4())?;
        Some(Path { socket: u8::try_from(at).ok()?, peer })
    }
}

/// One step's surroundings.
pub(crate) struct Context<'a> {
    pub now: Now,
    pub room: Key,
    pub shared: &'a Shared,
    pub out: &'a mut Outbox,
    pub routes: &'a mut Routes,
    pub timers: &'a mut Timers,
    pub holds: &'a mut Holds,
    /// When the kernel had the datagram that is being handled, µs; now for everything else.
    pub arrived_us: u64,
    /// Scratch for the DTLS library.
    pub buffer: &'a mut Vec<u8>,
    /// Scratch for one packet's normalised extensions.
    pub block: &'a mut Vec<u8>,
    /// Transports on the whole node, against its limit.
    pub transports: &'a mut usize,
    /// Made since the start of the node.
    pub transports_created: &'a mut u64,
    pub max_transports: usize,
    pub draining: bool,
}
