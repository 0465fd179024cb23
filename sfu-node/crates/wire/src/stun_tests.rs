use super::*;

const TX: [u8; 12] = *b"0123456789ab";

/// RFC 5769 §2.1, request; password and username from there.
const RFC5769_REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
\x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
\x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\
\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\x80\x28\x00\x04\xe5\x7a\x3b\xcf";

fn request(fields: &RequestFields<'_>, password: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_request(&TX, fields, &IceKey::new(password), &mut out);
    out
}

fn fields() -> RequestFields<'static> {
    RequestFields { username: "ours:theirs", priority: 0x6E00_01FF, tie_breaker: 7, use_candidate: true }
}

fn parsed(b: &[u8]) -> BindingRequest<'_> {
    match parse(b) {
        Ok(Message::BindingRequest(r)) => r,
        other => panic!("not a request: {other:?}"),
    }
}

/// Builds a request with extra attributes ahead of MESSAGE-INTEGRITY.
fn with_attributes(extra: &[(u16, &[u8])], key: Option<&IceKey>) -> Vec<u8> {
    let mut out = Vec::new();
    begin(&mut out, 1, &TX);
    for (kind, value) in extra {
        push(&mut out, *kind, value);
    }
    finish(&mut out, key);
    out
}

#[test]
fn rfc5769_sample_request() {
    let r = parsed(RFC5769_REQUEST);
    assert_eq!(r.username, "evtj:h6vY");
    assert_eq!(r.ufrags(), Some(("evtj", "h6vY")));
    assert_eq!(r.priority, Some(0x6E00_01FF));
    assert_eq!(r.controlled, Some(0x932F_F9B1_5126_3B36));
    let key = IceKey::new("VOkJxbRl1RmTxUk/WvJxBt");
    // The sample's sender is controlled, as an ICE-lite agent is: authentic, and a role conflict.
    assert_eq!(r.check(&key), Err(Refusal::RoleConflict));
    assert_eq!(r.check(&IceKey::new("wrong")), Err(Refusal::Unauthorized));
}

#[test]
fn rfc5769_sample_responses() {
    let v4 = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\x80\x22\x00\x0btest vector\x20\
\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\
\xf0\x6b\xe7\xd7\x80\x28\x00\x04\xc0\x7d\x4c\x96";
    let Ok(Message::BindingSuccess { mapped, .. }) = parse(v4) else { panic!() };
    assert_eq!(mapped, Some("192.0.2.1:32853".parse().unwrap()));
    let v6 = b"\x01\x01\x00\x48\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\x80\x22\x00\x0btest vector\x20\
\x00\x20\x00\x14\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9\
\x00\x08\x00\x14\xa3\x82\x95\x4e\x4b\xe6\x7b\xf1\x17\x84\xc9\x7c\x82\x92\xc2\x75\xbf\xe3\xed\x41\x80\x28\x00\x04\xc8\xfb\x0b\x4c";
    let Ok(Message::BindingSuccess { mapped, .. }) = parse(v6) else { panic!() };
    assert_eq!(mapped, Some("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap()));
}

#[test]
fn request_round_trip() {
    let b = request(&fields(), "secret");
    let r = parsed(&b);
    assert_eq!(r.ufrags(), Some(("ours", "theirs")));
    assert!(r.use_candidate);
    assert_eq!((r.priority, r.controlling, r.controlled), (Some(0x6E00_01FF), Some(7), None));
    assert_eq!(r.check(&IceKey::new("secret")), Ok(()));
    assert_eq!(r.check(&IceKey::new("secreT")), Err(Refusal::Unauthorized));
}

#[test]
fn success_for_both_families() {
    let key = IceKey::new("secret");
    let mut out = vec![1, 2, 3];
    for a in ["127.16.0.5:4601", "[2001:db8::7]:9", "[::1]:65535"] {
        let a: SocketAddr = a.parse().unwrap();
        write_success(&TX, a, &key, &mut out);
        let Ok(Message::BindingSuccess { transaction_id, mapped }) = parse(&out) else { panic!() };
        assert_eq!((transaction_id, mapped), (TX, Some(a)));
        // The request's own check proves the integrity of the response too.
        let at = out.len() - 8 - 24;
        assert!(integrity_holds(&out, Some(at), &key));
        assert!(!integrity_holds(&out, Some(at), &IceKey::new("x")));
    }
    write_success(&TX, "[::ffff:192.0.2.9]:5".parse().unwrap(), &key, &mut out);
    let Ok(Message::BindingSuccess { mapped, .. }) = parse(&out) else { panic!() };
    assert_eq!(mapped, Some("192.0.2.9:5".parse().unwrap()));
}

#[test]
fn refusals() {
    let key = IceKey::new("secret");
    let bare = with_attributes(&[], Some(&key));
    assert_eq!(parsed(&bare).check(&key), Err(Refusal::BadRequest));
    let unsigned = with_attributes(&[(attribute::USERNAME, b"a:b")], None);
    assert_eq!(parsed(&unsigned).check(&key), Err(Refusal::BadRequest));
    let unknown =
        with_attributes(&[(attribute::USERNAME, b"a:b"), (0x0031, &[1, 2]), (0x8FFF, &[])], Some(&key));
    assert_eq!(parsed(&unknown).check(&key), Err(Refusal::UnknownAttributes(vec![0x0031])));
    let mut out = Vec::new();
    let cases = [
        (Refusal::BadRequest, 400),
        (Refusal::Unauthorized, 401),
        (Refusal::UnknownAttributes(vec![0x31]), 420),
        (Refusal::RoleConflict, 487),
    ];
    for (refusal, want) in cases {
        for key in [None, Some(&key)] {
            write_refusal(&TX, &refusal, key, &mut out);
            let Ok(Message::BindingError { code, .. }) = parse(&out) else { panic!("{refusal:?}") };
            assert_eq!(code, want);
        }
    }
}

#[test]
fn attributes_after_the_integrity_do_not_count() {
    let key = IceKey::new("secret");
    let mut b = Vec::new();
    begin(&mut b, 1, &TX);
    push(&mut b, attribute::USERNAME, b"a:b");
    set_len(&mut b, 24);
    let tag = hmac::sign(&key.0, &b);
    push(&mut b, attribute::MESSAGE_INTEGRITY, tag.as_ref());
    push(&mut b, attribute::USE_CANDIDATE, &[]);
    push(&mut b, attribute::USERNAME, b"evil:b");
    set_len(&mut b, 0);
    let r = parsed(&b);
    assert!(!r.use_candidate);
    assert_eq!((r.username, r.check(&key)), ("a:b", Ok(())));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = request(&fields(), "secret");
    let key = IceKey::new("secret");
    // Not the header of FINGERPRINT: as another optional attribute it is ignored, and all else is protected.
    let fingerprint = good.len() - 8;
    for i in (0..fingerprint * 8).chain((fingerprint + 4) * 8..good.len() * 8) {
        let mut b = good.clone();
        b[i / 8] ^= 1 << (i % 8);
        if let Ok(Message::BindingRequest(r)) = parse(&b) {
            assert!(r.check(&key).is_err(), "bit {i}");
        }
    }
}

#[test]
fn every_truncation_and_trailing_byte_is_refused() {
    let good = request(&fields(), "secret");
    for n in 0..good.len() {
        assert!(parse(&good[..n]).is_err(), "length {n}");
    }
    let mut long = good.clone();
    long.extend_from_slice(&[0; 4]);
    assert!(parse(&long).is_err());
}

#[test]
fn limits() {
    let long = "u".repeat(600);
    let b = with_attributes(&[(attribute::USERNAME, &long.as_bytes()[..MAX_USERNAME])], None);
    assert!(parse(&b).is_ok());
    let many: Vec<(u16, &[u8])> = (0..40).map(|_| (0x8001, &[][..])).collect();
    assert_eq!(parse(&with_attributes(&many, None)).err(), Some(StunError::Malformed));
    let unknown: Vec<(u16, &[u8])> = (0..20).map(|i| (0x0040 + i, &[][..])).collect();
    let b = with_attributes(&unknown, None);
    assert_eq!(parsed(&b).unknown_len, MAX_UNKNOWN);
    let mut jumbo = with_attributes(&[], None);
    jumbo.resize(4000, 0);
    set_len(&mut jumbo, 0);
    assert_eq!(parse(&jumbo).err(), Some(StunError::Malformed));
}

#[test]
fn agrees_with_another_implementation() {
    use stun_types::attribute::{ErrorCode, Username, XorMappedAddress};
    use stun_types::message::{Message as Theirs, ShortTermCredentials};
    let credentials = ShortTermCredentials::new("secret".to_owned());
    let b = request(&fields(), "secret");
    let theirs = Theirs::from_bytes(&b).unwrap();
    assert_eq!(theirs.attribute::<Username>().unwrap().username(), "ours:theirs");
    theirs.validate_integrity(&credentials.clone().into()).unwrap();

    let key = IceKey::new("secret");
    let mut out = Vec::new();
    for a in ["192.0.2.5:1", "[2001:db8::1]:2"] {
        let a: SocketAddr = a.parse().unwrap();
        write_success(&TX, a, &key, &mut out);
        let theirs = Theirs::from_bytes(&out).unwrap();
        let mapped = theirs.attribute::<XorMappedAddress>().unwrap().addr(theirs.transaction_id());
        assert_eq!(mapped, a);
        theirs.validate_integrity(&credentials.clone().into()).unwrap();
    }
    write_refusal(&TX, &Refusal::RoleConflict, Some(&key), &mut out);
    let theirs = Theirs::from_bytes(&out).unwrap();
    assert_eq!(theirs.attribute::<ErrorCode>().unwrap().code(), 487);
}
