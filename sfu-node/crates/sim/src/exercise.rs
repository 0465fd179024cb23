//! What the fuzz targets of the whole engine and of its handshakes do with one input; a test replays their seeds.

mod commands;
mod dtls;
mod engine;
mod media;

pub use dtls::dtls;
pub use engine::engine;

use crate::addr;
use headwater_engine::{Certificate, Config, Engine};
use headwater_wire::stun;
use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

const PASSWORD: &str = "0123456789abcdef0123456789abcdef";

/// A node; its certificate is the same each time, since making one takes longer than all the rest.
fn node(start: Instant) -> Engine {
    static CERTIFICATE: OnceLock<Certificate> = OnceLock::new();
    let certificate = CERTIFICATE.get_or_init(|| Certificate::generate().unwrap());
    let config = Config { sockets: vec![addr(7000), addr(7001)], max_connections: 4, seed: 1 };
    Engine::with_certificate(config, certificate.clone(), start, Duration::from_secs(1_800_000_000))
}

/// A check of the transport with this ufrag.
fn check(ufrag: &str, transaction: u8, nominate: bool) -> Vec<u8> {
    let username = format!("{ufrag}:remote");
    let fields = stun::RequestFields {
        username: &username,
        priority: u32::from(transaction),
        tie_breaker: 1,
        use_candidate: nominate,
    };
    let mut request = Vec::new();
    stun::write_request(&[transaction; 12], &fields, &stun::IceKey::new(PASSWORD), &mut request);
    request
}
