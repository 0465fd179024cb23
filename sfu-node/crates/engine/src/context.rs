//! What every step of a room may touch besides the room itself.

use crate::{
    arena::Key,
    clock::{Clock, Now},
    outbox::{Outbox, Path},
    timers::Timers,
};
use std::{cell::Cell, collections::HashMap, net::SocketAddr, sync::Arc};

/// Fixed for the life of the engine.
pub(crate) struct Shared {
    pub clock: Clock,
    pub certificate: dimpl::DtlsCertificate,
    pub dtls: Arc<dimpl::Config>,
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

/// How a datagram finds its room: by ICE ufrag, by address, by link token.
#[derive(Default)]
pub(crate) struct Routes {
    pub ufrags: HashMap<String, (Key, Key)>,
    pub paths: HashMap<Path, (Key, Key)>,
    pub tokens: HashMap<u32, (Key, Key)>,
}

impl Routes {
    /// Forget everything of a room, for when it can no longer say what it had.
    pub fn forget_room(&mut self, room: Key) {
        self.ufrags.retain(|_, v| v.0 != room);
        self.paths.retain(|_, v| v.0 != room);
        self.tokens.retain(|_, v| v.0 != room);
    }

    /// Forget `path` if it still leads to this transport.
    pub fn forget_path(&mut self, path: Path, owner: (Key, Key)) {
        if self.paths.get(&path) == Some(&owner) {
            self.paths.remove(&path);
        }
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
