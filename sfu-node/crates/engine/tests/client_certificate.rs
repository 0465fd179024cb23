//! Clients with RSA certificates, which some WebRTC stacks on OpenSSL have and nothing else.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use headwater_dtls::{
    DtlsCertificate,
    certificate::{calculate_fingerprint, format_fingerprint, generate_self_signed_certificate},
};
use headwater_engine::api::*;
use headwater_sim::*;

fn fingerprint(certificate: &DtlsCertificate) -> String {
    format_fingerprint(&calculate_fingerprint(&certificate.certificate))
}

/// Why the client's transport failed.
fn failure(w: &World, client: usize) -> Option<&'static str> {
    w.nodes[0].events.iter().rev().find_map(|event| match &event.kind {
        EventKind::Transport { transport_id, state: TransportState::Failed, reason, .. }
            if **transport_id == *w.clients[client].name =>
        {
            Some(*reason)
        }
        _ => None,
    })
}

fn refused(w: &World) -> u64 {
    drops(&w.nodes[0], w.now).get("dtls_certificate").copied().unwrap_or_default()
}

#[test]
fn a_client_that_signs_with_rsa_publishes_to_one_that_signs_with_ecdsa() {
    let mut w = World::new(1);
    let own = rsa::certificate();
    let alice = w.client_on(0, "alice", own.clone(), &fingerprint(&own), rsa::client());
    let bob = w.client(0, "bob");
    w.connect(alice);
    w.connect(bob);
    w.apply(0, configure_receive("alice", vec![receive("0", "V", &[11], Kind::Video)]));
    w.apply(0, configure_send("bob", vec![send("5", "V", 500, 0, Kind::Video)]));
    let mut camera = Camera::new(11, 1);
    for n in 0..10 {
        camera.frame(&mut w, alice, n == 0);
        w.run(33);
    }
    assert_eq!(w.clients[bob].of_ssrc(500).count(), 10);
    assert_eq!(refused(&w), 0);
}

#[test]
fn a_certificate_without_its_key_lets_nobody_in() {
    let ecdsa = || generate_self_signed_certificate().unwrap();
    let stolen = |seen: DtlsCertificate, own: DtlsCertificate| DtlsCertificate {
        certificate: seen.certificate,
        private_key: own.private_key,
    };
    let mut w = World::new(1);
    let by_rsa = stolen(rsa::certificate(), rsa::certificate());
    let by_ecdsa = stolen(ecdsa(), ecdsa());
    // Named by an ECDSA certificate, signed by RSA: the fingerprint is right, the signature cannot be.
    let mixed = stolen(ecdsa(), rsa::certificate());
    let rsa_thief = w.client_on(0, "rsa", by_rsa.clone(), &fingerprint(&by_rsa), rsa::client());
    let ecdsa_thief = w.client_with(0, "ecdsa", by_ecdsa.clone(), &fingerprint(&by_ecdsa));
    let mixed_thief = w.client_on(0, "mixed", mixed.clone(), &fingerprint(&mixed), rsa::client());
    w.run(1000);
    for (thief, about) in [(rsa_thief, "signature"), (ecdsa_thief, "signature"), (mixed_thief, "accepted")] {
        let reason = failure(&w, thief).unwrap_or("not refused");
        assert!(reason.contains(about), "{}: {reason}", w.clients[thief].name);
    }
    assert_eq!(refused(&w), 3);
}

#[test]
fn an_rsa_client_with_another_certificate_than_signalled_is_refused() {
    let mut w = World::new(1);
    let other = w.client_on(0, "other", rsa::certificate(), &fingerprint(&rsa::certificate()), rsa::client());
    w.run(1000);
    assert_eq!(failure(&w, other), Some("certificate does not match the fingerprint"));
}
