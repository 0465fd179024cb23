//! Keys without a handshake, which no fuzzer would find.

use super::{Engine, Instant, Outbox};
use headwater_wire::srtp::Profile;

impl Engine {
    /// As if the transport's handshake had ended in these keys, with a client whose certificate has the fingerprint
    /// that is 32 times AB. What waits for keys may go, what waits for DTLS may not: there is none from now on.
    #[doc(hidden)]
    pub fn exercise_keys(
        &mut self,
        now: Instant,
        (room, transport): (&str, &str),
        (profile, material): (Profile, &[u8]),
        out: &mut Outbox,
    ) {
        let now = self.shared.clock.at(now);
        let Some(room) = self.room_ids.get(room).copied() else { return };
        self.in_room(now, room, out, |room, cx| {
            let Some(key) = room.transport_ids.get(transport).copied() else { return };
            let Some(transport) = room.transports.get_mut(key) else { return };
            let before = transport.state;
            transport.exercise_keys(cx, profile, material);
            if transport.state != before {
                room.on_state(cx, key);
            }
            room.arm_transport(cx, key);
        });
    }
}
