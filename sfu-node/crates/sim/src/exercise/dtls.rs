//! Handshakes: a client's real flights over a path that loses, repeats and changes them, and datagrams of any kind.

use super::{check, commands, node};
use crate::{ROOM, addr, rsa};
use headwater_dtls::{Config, Dtls, DtlsCertificate, Output, certificate};
use headwater_engine::{Engine, Outbox, Path, api::*};
use headwater_wire::exercise::Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

const MAX_STEPS: usize = 48;
const MAX_OUTPUTS: usize = 64;

struct Handshake {
    engine: Engine,
    out: Outbox,
    now: Instant,
    path: Path,
    client: Dtls,
    to_node: VecDeque<Vec<u8>>,
    to_client: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Handshake {
    fn new(shape: u8) -> Self {
        static CLIENTS: OnceLock<[(DtlsCertificate, Arc<Config>); 2]> = OnceLock::new();
        let [ecdsa, with_rsa] = CLIENTS.get_or_init(|| {
            let settings = Config::builder().dangerously_set_rng_seed(7).build().unwrap();
            let ecdsa = certificate::generate_self_signed_certificate().unwrap();
            [(ecdsa, Arc::new(settings)), (rsa::certificate(), rsa::client())]
        });
        let (own, settings) = if shape & 3 == 0 { with_rsa } else { ecdsa };
        let now = Instant::now();
        let fingerprint = match shape & 0x0C {
            0 => String::new(),
            4 => commands::fingerprint(),
            _ => certificate::format_fingerprint(&certificate::calculate_fingerprint(&own.certificate)),
        };
        let mut client = Dtls::new_12(settings.clone(), own.clone(), now);
        client.set_active(true);
        let path = Path { socket: 0, peer: addr(9000) };
        let mut handshake = Self {
            engine: node(now),
            out: Outbox::default(),
            now,
            path,
            client,
            to_node: VecDeque::new(),
            to_client: VecDeque::new(),
            buffer: vec![0; 2048],
        };
        let mut spec = commands::create("a", fingerprint);
        spec.data_channels = vec![DataChannel {
            label: "_reliable".into(),
            ordered: true,
            max_retransmits: None,
            established: None,
        }];
        handshake.apply(Command::CreateTransport(spec));
        handshake.give(check(&commands::ufrag("a", 0), 1, true));
        handshake.out.clear();
        handshake
    }

    fn apply(&mut self, command: Command) {
        let request = commands::apply(ROOM, 2, 0, vec![command]);
        let done = self.engine.apply(self.now, request, &mut self.out);
        assert!(done.is_ok_and(|results| results.len() == 1), "one result");
    }

    fn give(&mut self, mut datagram: Vec<u8>) {
        self.engine.handle_datagram(self.now, self.now, self.path, &mut datagram, &mut self.out);
    }

    /// Collect what both have to send.
    fn collect(&mut self) {
        for _ in 0..MAX_OUTPUTS {
            match self.client.poll_output(&mut self.buffer) {
                Output::Packet(packet) => self.to_node.push_back(packet.to_vec()),
                Output::BufferTooSmall { needed } => self.buffer.resize(needed.min(1 << 16), 0),
                Output::Timeout(_) => break,
                _ => {}
            }
        }
        self.to_client.extend(self.out.datagrams().map(|(_, datagram)| datagram.to_vec()));
        self.out.clear();
        self.out.take_events();
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 10 {
            0..=2 => {
                for datagram in std::mem::take(&mut self.to_node) {
                    self.give(datagram);
                }
                for datagram in std::mem::take(&mut self.to_client) {
                    self.client.handle_packet(&datagram).ok();
                }
            }
            3 => {
                let (at, change, which) = (bytes.pair(), bytes.byte(), bytes.byte());
                let which = usize::from(which) % self.to_node.len().max(1);
                let Some(mut datagram) = self.to_node.remove(which) else { return };
                let at = usize::from(at) % datagram.len().max(1);
                if let Some(byte) = datagram.get_mut(at) {
                    *byte ^= change;
                }
                self.give(datagram);
            }
            4 => {
                let lost = if bytes.chance() { &mut self.to_node } else { &mut self.to_client };
                lost.pop_front();
            }
            5 => {
                if let Some(datagram) = self.to_node.front().cloned() {
                    self.give(datagram);
                }
                self.to_node.rotate_left(usize::from(!self.to_node.is_empty()));
            }
            6 => {
                self.now += Duration::from_millis(u64::from(bytes.byte()) * 20);
                self.engine.handle_timeout(self.now, &mut self.out);
                self.client.handle_timeout(self.now).ok();
            }
            7 => self.give(bytes.take().to_vec()),
            8 => {
                // A record in clear, with a header that fits.
                let (kind, body) = (bytes.byte(), bytes.take());
                let [high, low] = (body.len() as u16).to_be_bytes();
                let mut record =
                    vec![20 + kind % 8, 0xFE, 0xFD, 0, kind >> 7, 0, 0, 0, 0, 0, kind, high, low];
                record.extend_from_slice(body);
                self.give(record);
            }
            _ => {
                self.client.send_application_data(bytes.take()).ok();
            }
        }
        self.collect();
    }
}

/// A transport's handshake under the script that `data` is.
pub fn dtls(data: &[u8]) {
    let mut bytes = Bytes(data);
    let mut handshake = Handshake::new(bytes.byte());
    handshake.client.handle_timeout(handshake.now).ok();
    handshake.collect();
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        handshake.step(&mut bytes);
    }
    handshake.apply(Command::CloseRoom);
    let report = handshake.engine.report(handshake.now, &handshake.out);
    assert!(!report.drops.contains_key("panic"), "a room ended in a panic");
    assert!(handshake.engine.is_empty() && handshake.engine.transports() == 0, "nothing is left");
}
