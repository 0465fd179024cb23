//! A client of the node: full enough to be admitted (ICE, DTLS, SRTP), cheap enough for hundreds.

use crate::sys;
use headwater_dtls::{Config, Dtls, DtlsCertificate, Output, SrtpProfile};
use headwater_wire::{
    demux::{PacketKind, classify},
    srtp::{self, Inbound, Outbound, Profile, Role},
    stun,
};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);
const MAX_STEPS: usize = 64;
/// Of a client, for the server's own checks. Its user name fragment is `client`.
const PASSWORD: &str = "password-of-a-client-of-the-bench";

/// What the node was told about a client.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub ufrag: String,
    pub password: String,
}

/// The same for node and client without a word between them.
pub fn credentials(name: &str) -> Credentials {
    Credentials { ufrag: format!("ufrag{name}"), password: format!("password-of-transport-{name}") }
}

/// A connected client.
pub struct Client {
    pub socket: UdpSocket,
    pub inbound: Inbound,
    pub outbound: Outbound,
    pub profile: Profile,
    server: SocketAddr,
    key: stun::IceKey,
    username: String,
    checks: u64,
}

/// What all clients share: one certificate is enough, and making one costs.
pub struct Identity {
    pub certificate: DtlsCertificate,
    pub config: Arc<Config>,
}

impl Identity {
    pub fn new() -> Result<Self, String> {
        let certificate = headwater_dtls::certificate::generate_self_signed_certificate()
            .map_err(|e| format!("certificate: {e}"))?;
        let config = Config::builder().build().map_err(|e| format!("DTLS configuration: {e}"))?;
        Ok(Self { certificate, config: Arc::new(config) })
    }

    pub fn fingerprint(&self) -> String {
        format!(
            "sha-256 {}",
            headwater_dtls::certificate::format_fingerprint(&self.certificate.fingerprint())
        )
    }
}

struct Handshake<'a> {
    socket: &'a UdpSocket,
    server: SocketAddr,
    dtls: Dtls,
    started: bool,
    keys: Option<(Vec<u8>, Profile)>,
    buffer: Vec<u8>,
}

impl Handshake<'_> {
    fn drain(&mut self) -> Result<(), String> {
        for _ in 0..MAX_STEPS {
            match self.dtls.poll_output(&mut self.buffer) {
                Output::Packet(d) => {
                    self.socket.send_to(d, self.server).map_err(|e| format!("send: {e}"))?;
                }
                Output::BufferTooSmall { needed } => self.buffer.resize(needed, 0),
                Output::KeyingMaterial(material, profile) => {
                    let profile = match profile {
                        SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1_80,
                        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
                        _ => Profile::AeadAes256Gcm,
                    };
                    self.keys = Some((material.to_vec(), profile));
                }
                Output::Timeout(_) => return Ok(()),
                _ => {}
            }
        }
        Err("DTLS output never ends".into())
    }

    fn on_datagram(&mut self, datagram: &[u8]) -> Result<(), String> {
        match classify(datagram) {
            PacketKind::Stun => match stun::parse(datagram) {
                Ok(stun::Message::BindingSuccess { .. }) if !self.started => {
                    self.started = true;
                    self.tick()
                }
                // Our node is ICE-lite and asks nothing; Janus's library asks even then.
                Ok(stun::Message::BindingRequest(request)) => {
                    let mut answer = Vec::new();
                    let key = stun::IceKey::new(PASSWORD);
                    stun::write_success(&request.transaction_id, self.server, &key, &mut answer);
                    self.socket.send_to(&answer, self.server).map(drop).map_err(|e| format!("send: {e}"))
                }
                _ => Ok(()),
            },
            PacketKind::Dtls => {
                self.dtls.handle_packet(datagram).map_err(|e| format!("DTLS: {e}"))?;
                self.drain()
            }
            _ => Ok(()),
        }
    }

    fn tick(&mut self) -> Result<(), String> {
        if self.started {
            self.dtls.handle_timeout(Instant::now()).map_err(|e| format!("DTLS: {e}"))?;
            self.drain()?;
        }
        Ok(())
    }
}

impl Client {
    /// Connects to the node's media address; returns once the SRTP keys are there.
    pub fn connect(server: SocketAddr, to: &Credentials, identity: &Identity) -> Result<Self, String> {
        // The server is on this machine: its address serves us both.
        let socket = sys::socket(server.ip()).map_err(|e| format!("socket: {e}"))?;
        let username = format!("{}:client", to.ufrag);
        let key = stun::IceKey::new(&to.password);
        let mut dtls = Dtls::new_12(identity.config.clone(), identity.certificate.clone(), Instant::now());
        dtls.set_active(true);
        let mut handshake =
            Handshake { socket: &socket, server, dtls, started: false, keys: None, buffer: vec![0; 2048] };
        let mut receiver = sys::Receiver::new();
        let deadline = Instant::now() + CONNECT_DEADLINE;
        let mut check_at = Instant::now();
        let mut checks = 0;
        while handshake.keys.is_none() {
            let now = Instant::now();
            if now > deadline {
                return Err(format!("{} did not connect within {CONNECT_DEADLINE:?}", to.ufrag));
            }
            if now >= check_at && !handshake.started {
                checks += 1;
                check(&socket, server, &username, &key, checks);
                check_at = now + RETRY;
            }
            sys::wait(&socket, Duration::from_millis(5));
            let mut result = Ok(());
            receiver.receive(&socket, |d, _| {
                if result.is_ok() {
                    result = handshake.on_datagram(d);
                }
            });
            result?;
            handshake.tick()?;
        }
        let (material, profile) = handshake.keys.take().ok_or("no keys")?;
        let (inbound, outbound) =
            srtp::sessions(profile, &material, Role::Client).map_err(|e| format!("SRTP: {e:?}"))?;
        Ok(Self { socket, inbound, outbound, profile, server, key, username, checks })
    }

    /// False: the kernel did not take it.
    pub fn send(&self, packet: &[u8]) -> bool {
        self.socket.send_to(packet, self.server).is_ok()
    }

    /// Encrypts and sends a compound.
    pub fn send_rtcp(&mut self, mut compound: Vec<u8>) {
        if self.outbound.seal_rtcp(&mut compound, 0).is_ok() {
            self.send(&compound);
        }
    }

    /// Consent (RFC 7675): one more connectivity check; the answer is read with everything else.
    pub fn keep_alive(&mut self) {
        self.checks += 1;
        check(&self.socket, self.server, &self.username, &self.key, self.checks);
    }
}

fn check(socket: &UdpSocket, server: SocketAddr, username: &str, key: &stun::IceKey, number: u64) {
    let mut transaction = [0; 12];
    transaction[4..].copy_from_slice(&number.to_be_bytes());
    let fields = stun::RequestFields { username, priority: 0x6E00_01FF, tie_breaker: 1, use_candidate: true };
    let mut out = Vec::new();
    stun::write_request(&transaction, &fields, key, &mut out);
    // A lost check is repeated with the next one.
    let _ = socket.send_to(&out, server);
}
