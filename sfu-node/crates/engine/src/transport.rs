//! One client peer connection: ICE-lite, DTLS, SRTP keys and SCTP. Media lives in `receive` and `send`.

use crate::{
    api::{CreateTransport, DataChannel, EventKind, Id, TransportState},
    client_certificate,
    clock::Now,
    context::Context,
    control::Control,
    datachannel::{DataChannels, DataOutput},
    ice::{Consent, Ice},
    outbox::{DropReason, Outbox, Path},
    receive::Receiver,
    senders::Senders,
    timers::Armed,
};
use headwater_dtls::{Dtls, Output, SrtpProfile, certificate};
use headwater_wire::srtp::{self, Inbound, Outbound, Profile, Role};

#[cfg(feature = "exercise")]
mod exercise;

/// Steps of one drain: a bound against a library that never finishes.
const MAX_STEPS: usize = 512;
/// Rounds of DTLS → SCTP → DTLS in one go.
const MAX_ROUNDS: usize = 8;

pub(crate) struct Transport {
    pub id: Id,
    pub participant: Id,
    pub ice: Ice,
    pub srtp_in: Option<Inbound>,
    pub srtp_out: Option<Outbound>,
    pub receiver: Receiver,
    pub senders: Senders,
    pub control: Control,
    pub armed: Armed,
    pub state: TransportState,
    /// SSRC under which our own RTCP goes out.
    pub ssrc: u32,
    reason: &'static str,
    profile: &'static str,
    dtls: Option<Dtls>,
    dtls_due_us: Option<u64>,
    remote_fingerprint: String,
    peer_fingerprint: Option<String>,
    /// Keys that wait for the signalled fingerprint.
    held_keys: Option<(Profile, Vec<u8>)>,
    data: DataChannels,
    app_in: Vec<Vec<u8>>,
}

impl Transport {
    /// A transport that waits for its client. Fails when a field is unusable; the text names it.
    pub fn new(cx: &Context<'_>, spec: CreateTransport) -> Result<Self, String> {
        if spec.local_ufrag.len() < 4 || spec.local_pwd.len() < 22 {
            return Err("local_ufrag needs 4 characters and local_pwd 22 (RFC 8445 §5.3)".into());
        }
        let remote_fingerprint = normalise_fingerprint(&spec.remote_fingerprint)?;
        let now = cx.now;
        let mut dtls = Dtls::new_12(cx.shared.dtls.clone(), cx.shared.certificate.clone(), now.instant);
        dtls.handle_timeout(now.instant).map_err(|e| format!("DTLS: {e}"))?;
        let data = DataChannels::new(spec.data_channels, spec.max_message_size, now.instant);
        Ok(Self {
            id: spec.transport_id,
            participant: spec.participant_id,
            ice: Ice::new(spec.local_ufrag, &spec.local_pwd),
            srtp_in: None,
            srtp_out: None,
            receiver: Receiver::default(),
            senders: Senders::default(),
            control: Control::default(),
            armed: Armed::default(),
            state: TransportState::New,
            ssrc: cx.shared.random_u32() | 1,
            reason: "",
            profile: "",
            dtls: Some(dtls),
            dtls_due_us: None,
            remote_fingerprint,
            peer_fingerprint: None,
            held_keys: None,
            data,
            app_in: Vec::new(),
        })
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.state, TransportState::Connected | TransportState::Disconnected)
    }

    /// The state as an event, for changes and for a watcher that starts.
    pub fn state_event(&self) -> EventKind {
        EventKind::Transport {
            transport_id: self.id.clone(),
            state: self.state,
            reason: self.reason,
            srtp_profile: self.profile,
            remote_address: self.ice.selected().map(|p| p.peer),
        }
    }

    /// The fingerprint came (or came again) by signalling.
    pub fn set_remote(&mut self, cx: &mut Context<'_>, fingerprint: &str) -> Result<(), String> {
        let fingerprint = normalise_fingerprint(fingerprint)?;
        if fingerprint.is_empty() || fingerprint == self.remote_fingerprint {
            return Ok(());
        }
        if self.srtp_out.is_some() {
            return Err("remote_fingerprint: cannot change while DTLS is up; use a new transport".into());
        }
        self.remote_fingerprint = fingerprint;
        if let Some((profile, material)) = self.held_keys.take() {
            self.install_keys(cx, profile, &material);
            self.pump(cx);
        }
        Ok(())
    }

    /// A DTLS datagram from an address that passed a check.
    pub fn on_dtls(&mut self, cx: &mut Context<'_>, datagram: &[u8]) {
        let Some(dtls) = &mut self.dtls else { return };
        // The library reads no clock: its retransmissions count from what it was told last.
        let result = dtls.handle_timeout(cx.now.instant).and_then(|()| dtls.handle_packet(datagram));
        if let Err(error) = result {
            let (dropped, reason) = client_certificate::refusal(&error);
            cx.out.drop(dropped);
            self.drain_dtls(cx);
            self.fail(cx.out, TransportState::Failed, reason);
            return;
        }
        self.pump(cx);
    }

    /// An authenticated packet came: consent is fresh.
    #[inline]
    pub fn seen(&mut self, cx: &mut Context<'_>, path: Path) {
        self.ice.seen(cx.now.us, path);
        if self.state == TransportState::Disconnected {
            self.set_state(cx.out, TransportState::Connected, "traffic again");
        }
    }

    /// Queue a data message. The error says why not.
    pub fn send_data(
        &mut self,
        cx: &mut Context<'_>,
        label: &str,
        payload: &[u8],
        binary: bool,
    ) -> Result<(), &'static str> {
        let result = self.data.send(label, payload, binary);
        if result.is_err() {
            cx.out.drop(DropReason::DataRefused);
        }
        self.pump(cx);
        result
    }

    /// Channels that the client has open since a node before this one.
    pub fn adopt_channels(&mut self, cx: &mut Context<'_>, channels: Vec<DataChannel>) {
        self.data.adopt(channels);
        self.pump(cx);
    }

    /// Timers of DTLS, SCTP and consent.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) {
        if self.dtls_due_us.is_some_and(|t| t <= cx.now.us)
            && let Some(dtls) = &mut self.dtls
        {
            self.dtls_due_us = None;
            if dtls.handle_timeout(cx.now.instant).is_err() {
                self.drain_dtls(cx);
                self.fail(cx.out, TransportState::Failed, "DTLS handshake timed out");
                return;
            }
        }
        self.pump(cx);
        if self.is_connected() {
            match self.ice.consent(cx.now.us) {
                Consent::Fresh => {}
                Consent::Stale => self.set_state(cx.out, TransportState::Disconnected, "no traffic for 10 s"),
                Consent::Expired => self.fail(cx.out, TransportState::Failed, "consent expired after 30 s"),
            }
        }
    }

    /// There are keys and a path for RTP and RTCP.
    pub fn can_send(&self) -> bool {
        self.srtp_out.is_some() && self.ice.selected().is_some()
    }

    /// Earliest of all the transport's deadlines, µs.
    pub fn deadline_us(&self, cx: &Context<'_>) -> Option<u64> {
        let sctp = self.data.deadline().map(|t| cx.shared.clock.us(t) + 1);
        let ice = self.is_connected().then(|| self.ice.deadline_us(cx.now.us)).flatten();
        // Reports and feedback wait until they can be sent: what is due and cannot go would be due for ever.
        let media = if self.can_send() {
            [self.receiver.deadline_us(), self.senders.deadline_us(), self.control.deadline_us()]
        } else {
            [None; 3]
        };
        [self.dtls_due_us, sctp, ice].into_iter().chain(media).flatten().min()
    }

    /// Tell the client that it is over (close_notify).
    pub fn close(&mut self, cx: &mut Context<'_>) {
        if let Some(dtls) = &mut self.dtls {
            dtls.close().ok();
            self.drain_dtls(cx);
        }
        self.dtls = None;
    }

    /// Move bytes between DTLS, SCTP and the outside until all is quiet.
    fn pump(&mut self, cx: &mut Context<'_>) {
        self.drain_dtls(cx);
        for _ in 0..MAX_ROUNDS {
            for packet in std::mem::take(&mut self.app_in) {
                self.data.handle_packet(cx.now.instant, &packet);
            }
            let mut records = Vec::new();
            let (id, out) = (&self.id, &mut *cx.out);
            self.data.drain(cx.now.instant, |output| match output {
                DataOutput::Packet(p) => records.push(p),
                DataOutput::Message { label, payload, binary } => {
                    out.event(EventKind::Data { transport_id: id.clone(), label, payload, binary });
                }
            });
            for record in &records {
                let Some(dtls) = &mut self.dtls else { return };
                if dtls.send_application_data(record).is_err() {
                    self.fail(cx.out, TransportState::Failed, "DTLS send failed");
                    return;
                }
                // One record per datagram: some clients read only the first of several.
                self.drain_dtls(cx);
            }
            if self.app_in.is_empty() {
                break;
            }
        }
    }

    fn drain_dtls(&mut self, cx: &mut Context<'_>) {
        for _ in 0..MAX_STEPS {
            let Some(dtls) = &mut self.dtls else { return };
            let mut buffer = std::mem::take(cx.buffer);
            match dtls.poll_output(&mut buffer) {
                Output::Packet(d) => match self.ice.selected() {
                    Some(path) => cx.out.push(path, d),
                    None => cx.out.drop(DropReason::NoAddress),
                },
                Output::BufferTooSmall { needed } => buffer.resize(needed.min(1 << 16), 0),
                Output::PeerCert(der) => {
                    let hash = certificate::calculate_fingerprint(der);
                    self.peer_fingerprint = Some(certificate::format_fingerprint(&hash).to_uppercase());
                }
                Output::KeyingMaterial(material, profile) => {
                    let material = material.to_vec();
                    *cx.buffer = buffer;
                    self.on_keys(cx, profile_of(profile), &material);
                    continue;
                }
                Output::ApplicationData(d) if self.srtp_out.is_some() => self.app_in.push(d.to_vec()),
                Output::CloseNotify => {
                    *cx.buffer = buffer;
                    self.fail(cx.out, TransportState::Closed, "closed by the client");
                    return;
                }
                Output::Timeout(at) => {
                    self.dtls_due_us = Some(cx.shared.clock.us(at).max(cx.now.us + 1));
                    *cx.buffer = buffer;
                    return;
                }
                _ => {}
            }
            *cx.buffer = buffer;
        }
    }

    fn on_keys(&mut self, cx: &mut Context<'_>, profile: Option<Profile>, material: &[u8]) {
        match profile {
            None => self.fail(cx.out, TransportState::Failed, "no common SRTP profile"),
            Some(profile) if self.remote_fingerprint.is_empty() => {
                self.held_keys = Some((profile, material.to_vec()));
            }
            Some(profile) => self.install_keys(cx, profile, material),
        }
    }

    /// Keys are taken only from a peer whose certificate is the signalled one (RFC 8122 §6.2).
    fn install_keys(&mut self, cx: &mut Context<'_>, profile: Profile, material: &[u8]) {
        if self.peer_fingerprint.as_deref() != Some(self.remote_fingerprint.as_str()) {
            self.fail(cx.out, TransportState::Failed, "certificate does not match the fingerprint");
            return;
        }
        match srtp::sessions(profile, material, Role::Server) {
            Ok((inbound, outbound)) => {
                self.srtp_in = Some(inbound);
                self.srtp_out = Some(outbound);
                self.profile = profile.name();
                self.data.start(cx.now.instant);
                self.receiver.start(cx.now.us);
                self.senders.start(cx.now.us);
                self.set_state(cx.out, TransportState::Connected, "");
            }
            Err(_) => self.fail(cx.out, TransportState::Failed, "SRTP key material unusable"),
        }
    }

    fn set_state(&mut self, out: &mut Outbox, state: TransportState, reason: &'static str) {
        if self.state != state {
            self.state = state;
            self.reason = reason;
            out.event(self.state_event());
        }
    }

    /// Terminal: the keys are dropped with the DTLS session.
    fn fail(&mut self, out: &mut Outbox, state: TransportState, reason: &'static str) {
        self.dtls = None;
        self.dtls_due_us = None;
        self.srtp_in = None;
        self.srtp_out = None;
        self.held_keys = None;
        self.set_state(out, state, reason);
    }

    /// Encrypt and queue an RTCP compound that starts at `start` of the arena.
    pub fn finish_rtcp(srtp: &mut Outbound, path: Path, out: &mut Outbox, start: usize) {
        if srtp.seal_rtcp(&mut out.arena, start).is_ok() {
            out.finish(path, start);
        } else {
            out.arena.truncate(start);
            out.drop(DropReason::SealFailed);
        }
    }

    /// Decrypt one RTP packet in place. Returns its length and index.
    #[inline]
    pub fn open_rtp(
        &mut self,
        now: Now,
        path: Path,
        data: &mut [u8],
        out: &mut Outbox,
    ) -> Option<srtp::OpenedRtp> {
        let Some(srtp) = &mut self.srtp_in else {
            out.drop(DropReason::SrtpNoKeys);
            return None;
        };
        match srtp.open_rtp(data) {
            Ok(opened) => {
                self.ice.seen(now.us, path);
                if self.state == TransportState::Disconnected {
                    self.set_state(out, TransportState::Connected, "traffic again");
                }
                Some(opened)
            }
            Err(e) => {
                out.drop(srtp_drop(e));
                None
            }
        }
    }

    /// Decrypt one RTCP compound in place. Returns its length.
    pub fn open_rtcp(&mut self, now: Now, path: Path, data: &mut [u8], out: &mut Outbox) -> Option<usize> {
        let Some(srtp) = &mut self.srtp_in else {
            out.drop(DropReason::SrtpNoKeys);
            return None;
        };
        match srtp.open_rtcp(data) {
            Ok(len) => {
                self.ice.seen(now.us, path);
                Some(len)
            }
            Err(e) => {
                out.drop(srtp_drop(e));
                None
            }
        }
    }
}

fn srtp_drop(error: srtp::SrtpError) -> DropReason {
    match error {
        srtp::SrtpError::Replayed => DropReason::SrtpReplay,
        srtp::SrtpError::Malformed => DropReason::RtpMalformed,
        srtp::SrtpError::TooManySources => DropReason::RtpTooManySsrcs,
        _ => DropReason::SrtpAuth,
    }
}

fn profile_of(profile: SrtpProfile) -> Option<Profile> {
    #[allow(unreachable_patterns)]
    Some(match profile {
        SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1_80,
        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
        _ => return None,
    })
}

/// "sha-256 AB:CD…" or the bare hex, as upper-case hex pairs; empty stays empty.
pub(crate) fn normalise_fingerprint(text: &str) -> Result<String, String> {
    let text = text.trim();
    let hex = match text.split_once(' ') {
        Some((algorithm, hex)) if algorithm.eq_ignore_ascii_case("sha-256") => hex.trim(),
        Some((algorithm, _)) => {
            return Err(format!("remote_fingerprint: {algorithm:.16} is not supported; offer sha-256"));
        }
        None => text,
    };
    let shape_ok =
        hex.len() == 95 && hex.split(':').all(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
    if !hex.is_empty() && !shape_ok {
        return Err("remote_fingerprint: not 32 hex pairs separated by colons".into());
    }
    Ok(hex.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints() {
        let hex = ["ab"; 32].join(":");
        assert_eq!(normalise_fingerprint(&format!("sha-256 {hex}")), Ok(hex.to_uppercase()));
        assert_eq!(normalise_fingerprint(&hex), Ok(hex.to_uppercase()));
        assert_eq!(normalise_fingerprint(""), Ok(String::new()));
        assert!(normalise_fingerprint(&format!("sha-1 {hex}")).unwrap_err().contains("sha-1"));
        assert!(normalise_fingerprint("sha-256 AB:CD").is_err());
        assert!(normalise_fingerprint(&hex.replace("ab", "zz")).is_err());
        assert!(normalise_fingerprint(&hex.replace("ab", "+b")).is_err());
    }
}
