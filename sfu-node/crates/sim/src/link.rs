//! A link between two nodes of a world.

use crate::World;
use headwater_engine::api::{Command, OpenRelay};

impl World {
    /// Both ends are opened, with keys that match.
    pub fn link(&mut self, id: &str, a: usize, b: usize, token: u32) {
        for (node, peer, tx, rx) in [(a, b, 1u8, 2u8), (b, a, 2, 1)] {
            let spec = OpenRelay {
                link_id: id.into(),
                peer_node_id: format!("n{peer}"),
                peer_address: self.nodes[peer].addr,
                tx_key: [tx; 32],
                rx_key: [rx; 32],
                link_token: token,
                peer_token: token,
            };
            self.apply(node, Command::OpenRelay(spec));
        }
    }
}
