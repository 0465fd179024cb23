//! STUN for an ICE-lite agent (RFC 8489, RFC 8445 §7.3): Binding requests in, responses out.
//!
//! An ICE-lite agent is always controlled, so a request that carries ICE-CONTROLLED is a role conflict
//! (RFC 8445 §7.3.1.1). Requests and response parsing exist for load generators and probes.

use crate::bytes::{array_at, u16_at, u32_at};
use aws_lc_rs::{constant_time, hmac};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const HEADER: usize = 20;
/// Nothing that ICE needs comes near: larger ones are refused unread.
const MAX_MESSAGE: usize = 1500;
/// RFC 8445 §7.1.3: two ufrags of at most 256 characters and a colon (RFC 8839 §5.4).
const MAX_USERNAME: usize = 513;
const MAX_ATTRIBUTES: usize = 32;
const MAX_UNKNOWN: usize = 8;
const MESSAGE_INTEGRITY_LEN: usize = 20;
const FINGERPRINT_XOR: u32 = 0x5354_554E;

mod attribute {
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const PRIORITY: u16 = 0x0024;
    pub const USE_CANDIDATE: u16 = 0x0025;
    pub const FINGERPRINT: u16 = 0x8028;
    pub const ICE_CONTROLLED: u16 = 0x8029;
    pub const ICE_CONTROLLING: u16 = 0x802A;
    pub const KNOWN: [u16; 11] = [
        MAPPED_ADDRESS,
        USERNAME,
        MESSAGE_INTEGRITY,
        ERROR_CODE,
        UNKNOWN_ATTRIBUTES,
        REALM,
        NONCE,
        MESSAGE_INTEGRITY_SHA256,
        XOR_MAPPED_ADDRESS,
        PRIORITY,
        USE_CANDIDATE,
    ];
}

/// HMAC key of an ICE password (short-term credentials, RFC 8489 §9.1.1).
#[derive(Clone)]
pub struct IceKey(hmac::Key);

impl IceKey {
    /// The key for `password`.
    #[must_use]
    pub fn new(password: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()))
    }
}

impl std::fmt::Debug for IceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IceKey(…)")
    }
}

/// A Binding request. Nothing in it may be believed before [`BindingRequest::check`] passed.
#[derive(Clone, Debug)]
pub struct BindingRequest<'a> {
    /// Transaction id, echoed in the response.
    pub transaction_id: [u8; 12],
    /// `<our ufrag>:<their ufrag>`; empty if absent.
    pub username: &'a str,
    /// The peer nominates this pair (RFC 8445 §7.2.5.3.4).
    pub use_candidate: bool,
    /// PRIORITY of the peer-reflexive candidate.
    pub priority: Option<u32>,
    /// ICE-CONTROLLING tie-breaker.
    pub controlling: Option<u64>,
    /// ICE-CONTROLLED tie-breaker.
    pub controlled: Option<u64>,
    raw: &'a [u8],
    integrity_at: Option<usize>,
    unknown: [u16; MAX_UNKNOWN],
    unknown_len: usize,
}

/// A parsed STUN message.
#[derive(Clone, Debug)]
pub enum Message<'a> {
    /// Connectivity check or consent check (RFC 7675).
    BindingRequest(BindingRequest<'a>),
    /// Success response.
    BindingSuccess {
        /// Of the request that it answers.
        transaction_id: [u8; 12],
        /// XOR-MAPPED-ADDRESS.
        mapped: Option<SocketAddr>,
    },
    /// Error response.
    BindingError {
        /// Of the request that it answers.
        transaction_id: [u8; 12],
        /// 300..=699, 0 if absent.
        code: u16,
    },
    /// Keep-alive: no answer.
    BindingIndication,
}

/// Why a datagram is not a usable STUN message: drop it without an answer (RFC 8489 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StunError {
    /// Lengths, cookie or an attribute do not add up.
    Malformed,
    /// FINGERPRINT is there and wrong.
    Fingerprint,
    /// Not a Binding message.
    Unsupported,
}

/// An error response to send (RFC 8489 §14.8, RFC 8445 §7.3.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400: no username or MESSAGE-INTEGRITY.
    BadRequest,
    /// 401: the integrity check failed.
    Unauthorized,
    /// 420: comprehension-required attributes that we do not know.
    UnknownAttributes(Vec<u16>),
    /// 487: the peer believes itself controlled, and so are we.
    RoleConflict,
}

impl Refusal {
    fn code(&self) -> (u8, u8, &'static str) {
        match self {
            Self::BadRequest => (4, 0, "Bad Request"),
            Self::Unauthorized => (4, 1, "Unauthorized"),
            Self::UnknownAttributes(_) => (4, 20, "Unknown Attribute"),
            Self::RoleConflict => (4, 87, "Role Conflict"),
        }
    }
}

/// Parses one datagram. A FINGERPRINT is checked here, MESSAGE-INTEGRITY by [`BindingRequest::check`].
///
/// # Errors
/// [`StunError`]: drop the datagram silently.
pub fn parse(datagram: &[u8]) -> Result<Message<'_>, StunError> {
    let kind = u16_at(datagram, 0).ok_or(StunError::Malformed)?;
    let body = usize::from(u16_at(datagram, 2).ok_or(StunError::Malformed)?);
    let transaction_id = array_at(datagram, 8).ok_or(StunError::Malformed)?;
    if array_at(datagram, 4) != Some(COOKIE)
        || datagram.len() > MAX_MESSAGE
        || !body.is_multiple_of(4)
        || HEADER + body != datagram.len()
    {
        return Err(StunError::Malformed);
    }
    let scan = Scan::run(datagram, transaction_id)?;
    match kind {
        0x0001 => Ok(Message::BindingRequest(scan.request)),
        0x0011 => Ok(Message::BindingIndication),
        0x0101 => Ok(Message::BindingSuccess { transaction_id, mapped: scan.mapped }),
        0x0111 => Ok(Message::BindingError { transaction_id, code: scan.code }),
        _ => Err(StunError::Unsupported),
    }
}

struct Scan<'a> {
    request: BindingRequest<'a>,
    mapped: Option<SocketAddr>,
    code: u16,
}

impl<'a> Scan<'a> {
    fn run(raw: &'a [u8], transaction_id: [u8; 12]) -> Result<Self, StunError> {
        let mut scan = Self {
            request: BindingRequest {
                transaction_id,
                username: "",
                use_candidate: false,
                priority: None,
                controlling: None,
                controlled: None,
                raw,
                integrity_at: None,
                unknown: [0; MAX_UNKNOWN],
                unknown_len: 0,
            },
            mapped: None,
            code: 0,
        };
        let mut at = HEADER;
        for _ in 0..MAX_ATTRIBUTES {
            if at == raw.len() {
                return Ok(scan);
            }
            let kind = u16_at(raw, at).ok_or(StunError::Malformed)?;
            let len = usize::from(u16_at(raw, at + 2).ok_or(StunError::Malformed)?);
            let value = raw.get(at + 4..at + 4 + len).ok_or(StunError::Malformed)?;
            scan.attribute(kind, value, at)?;
            at += 4 + len.next_multiple_of(4);
        }
        if at == raw.len() { Ok(scan) } else { Err(StunError::Malformed) }
    }

    fn attribute(&mut self, kind: u16, value: &'a [u8], at: usize) -> Result<(), StunError> {
        let r = &mut self.request;
        if kind == attribute::FINGERPRINT {
            let sum = u32_at(value, 0).filter(|_| value.len() == 4 && at + 8 == r.raw.len());
            let want = r.raw.get(..at).map(|b| crc32(b) ^ FINGERPRINT_XOR);
            return if sum.is_some() && sum == want { Ok(()) } else { Err(StunError::Fingerprint) };
        }
        if r.integrity_at.is_some() {
            // RFC 8489 §14.5: what follows MESSAGE-INTEGRITY is not protected and is ignored.
            return Ok(());
        }
        let malformed = StunError::Malformed;
        match kind {
            attribute::USERNAME if value.len() <= MAX_USERNAME => {
                r.username = std::str::from_utf8(value).map_err(|_| malformed)?;
            }
            attribute::MESSAGE_INTEGRITY if value.len() == MESSAGE_INTEGRITY_LEN => r.integrity_at = Some(at),
            attribute::USERNAME | attribute::MESSAGE_INTEGRITY => return Err(malformed),
            attribute::PRIORITY => r.priority = Some(u32::from_be_bytes(exact(value)?)),
            attribute::USE_CANDIDATE => r.use_candidate = true,
            attribute::ICE_CONTROLLED => r.controlled = Some(u64::from_be_bytes(exact(value)?)),
            attribute::ICE_CONTROLLING => r.controlling = Some(u64::from_be_bytes(exact(value)?)),
            attribute::XOR_MAPPED_ADDRESS => self.mapped = read_address(value, &r.transaction_id),
            attribute::ERROR_CODE => {
                let [_, _, class, number] = array_at(value, 0).ok_or(malformed)?;
                self.code = u16::from(class & 7) * 100 + u16::from(number);
            }
            _ if kind < 0x8000 && !attribute::KNOWN.contains(&kind) => {
                if let Some(slot) = r.unknown.get_mut(r.unknown_len) {
                    *slot = kind;
                    r.unknown_len += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], StunError> {
    value.try_into().map_err(|_| StunError::Malformed)
}

impl<'a> BindingRequest<'a> {
    /// (our ufrag, the peer's ufrag).
    #[must_use]
    pub fn ufrags(&self) -> Option<(&'a str, &'a str)> {
        self.username.split_once(':')
    }

    /// Everything that an ICE-lite agent checks before it answers with success.
    ///
    /// # Errors
    /// The [`Refusal`] to send. Only after [`Refusal::UnknownAttributes`] and [`Refusal::RoleConflict`]
    /// was the peer authenticated, so only those are answered with MESSAGE-INTEGRITY.
    pub fn check(&self, key: &IceKey) -> Result<(), Refusal> {
        if self.username.is_empty() || self.integrity_at.is_none() {
            return Err(Refusal::BadRequest);
        }
        if !self.integrity_holds(key) {
            return Err(Refusal::Unauthorized);
        }
        if let Some(unknown) = self.unknown.get(..self.unknown_len).filter(|u| !u.is_empty()) {
            return Err(Refusal::UnknownAttributes(unknown.to_vec()));
        }
        if self.controlled.is_some() {
            return Err(Refusal::RoleConflict);
        }
        Ok(())
    }

    fn integrity_holds(&self, key: &IceKey) -> bool {
        integrity_holds(self.raw, self.integrity_at, key)
    }
}

fn integrity_holds(raw: &[u8], at: Option<usize>, key: &IceKey) -> bool {
    let Some(at) = at else { return false };
    // The length field counts up to and including MESSAGE-INTEGRITY (RFC 8489 §14.5).
    let (Some(mut header), Some(body), Ok(len)) = (
        array_at::<HEADER>(raw, 0),
        raw.get(HEADER..at),
        u16::try_from(at + 4 + MESSAGE_INTEGRITY_LEN - HEADER),
    ) else {
        return false;
    };
    let [hi, lo] = len.to_be_bytes();
    (header[2], header[3]) = (hi, lo);
    let mut context = hmac::Context::with_key(&key.0);
    context.update(&header);
    context.update(body);
    raw.get(at + 4..at + 4 + MESSAGE_INTEGRITY_LEN)
        .is_some_and(|got| constant_time::verify_slices_are_equal(context.sign().as_ref(), got).is_ok())
}

/// Replaces `out` by the success response: XOR-MAPPED-ADDRESS, MESSAGE-INTEGRITY, FINGERPRINT.
pub fn write_success(transaction_id: &[u8; 12], mapped: SocketAddr, key: &IceKey, out: &mut Vec<u8>) {
    begin(out, 0x0101, transaction_id);
    let mut value = [0u8; 20];
    let len = write_address(mapped, transaction_id, &mut value);
    push(out, attribute::XOR_MAPPED_ADDRESS, value.get(..len).unwrap_or(&[]));
    finish(out, Some(key));
}

/// Replaces `out` by the error response. `key`: only where the request was authenticated
/// (see [`BindingRequest::check`]).
pub fn write_refusal(transaction_id: &[u8; 12], refusal: &Refusal, key: Option<&IceKey>, out: &mut Vec<u8>) {
    begin(out, 0x0111, transaction_id);
    let (class, number, phrase) = refusal.code();
    let mut value = vec![0, 0, class, number];
    value.extend_from_slice(phrase.as_bytes());
    push(out, attribute::ERROR_CODE, &value);
    if let Refusal::UnknownAttributes(list) = refusal {
        let list: Vec<u8> = list.iter().take(MAX_UNKNOWN).flat_map(|a| a.to_be_bytes()).collect();
        push(out, attribute::UNKNOWN_ATTRIBUTES, &list);
    }
    finish(out, key);
}

/// What a controlling agent puts into a Binding request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFields<'a> {
    /// `<their ufrag>:<our ufrag>`, at most 513 bytes.
    pub username: &'a str,
    /// RFC 8445 §5.1.2.
    pub priority: u32,
    /// Random.
    pub tie_breaker: u64,
    /// Nominate the pair.
    pub use_candidate: bool,
}

/// Replaces `out` by a Binding request. `key`: made from the other side's password.
pub fn write_request(transaction_id: &[u8; 12], fields: &RequestFields<'_>, key: &IceKey, out: &mut Vec<u8>) {
    begin(out, 0x0001, transaction_id);
    push(out, attribute::USERNAME, fields.username.as_bytes());
    push(out, attribute::PRIORITY, &fields.priority.to_be_bytes());
    push(out, attribute::ICE_CONTROLLING, &fields.tie_breaker.to_be_bytes());
    if fields.use_candidate {
        push(out, attribute::USE_CANDIDATE, &[]);
    }
    finish(out, Some(key));
}

fn begin(out: &mut Vec<u8>, kind: u16, transaction_id: &[u8; 12]) {
    out.clear();
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&COOKIE);
    out.extend_from_slice(transaction_id);
}

fn push(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let value = value.get(..value.len().min(MAX_USERNAME)).unwrap_or(&[]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Sets the length field as if `more` bytes followed.
fn set_len(out: &mut [u8], more: usize) {
    let len = u16::try_from(out.len() + more - HEADER).unwrap_or(0);
    if let Some(field) = out.get_mut(2..4) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

fn finish(out: &mut Vec<u8>, key: Option<&IceKey>) {
    if let Some(key) = key {
        set_len(out, 4 + MESSAGE_INTEGRITY_LEN);
        let tag = hmac::sign(&key.0, out);
        push(out, attribute::MESSAGE_INTEGRITY, tag.as_ref());
    }
    set_len(out, 8);
    let sum = crc32(out) ^ FINGERPRINT_XOR;
    push(out, attribute::FINGERPRINT, &sum.to_be_bytes());
}

/// XOR-MAPPED-ADDRESS (RFC 8489 §14.2); returns the length used, 8 or 20.
fn write_address(address: SocketAddr, transaction_id: &[u8; 12], value: &mut [u8; 20]) -> usize {
    let [p0, p1] = (address.port() ^ 0x2112).to_be_bytes();
    let mask: [u8; 16] = xor_mask(transaction_id);
    // A client behind an IPv4-mapped socket is told its IPv4 address.
    let (family, octets, len) = match address.ip().to_canonical() {
        IpAddr::V4(a) => {
            let [a, b, c, d] = a.octets();
            (1, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8)
        }
        IpAddr::V6(a) => (2, a.octets(), 20),
    };
    (value[1], value[2], value[3]) = (family, p0, p1);
    for ((slot, octet), mask) in value[4..].iter_mut().zip(octets).zip(mask) {
        *slot = octet ^ mask;
    }
    len
}

fn read_address(value: &[u8], transaction_id: &[u8; 12]) -> Option<SocketAddr> {
    let port = u16_at(value, 2)? ^ 0x2112;
    let mut octets = xor_mask(transaction_id);
    for (slot, byte) in octets.iter_mut().zip(value.get(4..)?) {
        *slot ^= byte;
    }
    match (value.get(1)?, value.len()) {
        (1, 8) => Some((Ipv4Addr::from(array_at::<4>(&octets, 0)?), port).into()),
        (2, 20) => Some((Ipv6Addr::from(octets), port).into()),
        _ => None,
    }
}

fn xor_mask(transaction_id: &[u8; 12]) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&COOKIE);
    mask[4..].copy_from_slice(transaction_id);
    mask
}

const CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut k = 0;
        while k < 8 {
            c = if c & 1 != 0 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 };
            k += 1;
        }
        table[i] = c;
        i += 1;
    }
    table
}

/// CRC-32 of ITU V.42, as FINGERPRINT uses it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |c, &b| {
        let [low, ..] = c.to_le_bytes();
        (c >> 8) ^ CRC_TABLE.get(usize::from(low ^ b)).copied().unwrap_or(0)
    })
}

#[cfg(test)]
#[path = "stun_tests.rs"]
mod tests;
