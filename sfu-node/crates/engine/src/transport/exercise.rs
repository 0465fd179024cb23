//! Keys without a handshake.

use super::{Context, Profile, Transport, TransportState};

impl Transport {
    /// As if DTLS had given these keys; see `Engine::exercise_keys`.
    pub fn exercise_keys(&mut self, cx: &mut Context<'_>, profile: Profile, material: &[u8]) {
        if self.state == TransportState::New && self.dtls.is_some() && self.held_keys.is_none() {
            self.dtls = None;
            self.dtls_due_us = None;
            self.peer_fingerprint = Some(["AB"; 32].join(":"));
            self.on_keys(cx, Some(profile), material);
        }
    }
}
