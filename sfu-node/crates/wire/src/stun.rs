//! STUN for an ICE-lite agent (RFC 8489, RFC 8445).
#![allow(missing_docs, unused_variables)]
use std::net::SocketAddr;
use aws_lc_rs::hmac;

/// HMAC key of a transport's own ICE password (short-term credentials, RFC 8489 §9.1).
#[derive(Clone)]
pub struct IceKey(pub(crate) hmac::Key);
impl IceKey { #[must_use] pub fn new(password: &str) -> Self { Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())) } }

#[derive(Debug)]
pub struct BindingRequest<'a> {
    pub transaction_id: [u8; 12],
    pub username: &'a str,
    pub use_candidate: bool,
    pub priority: Option<u32>,
    pub controlling: Option<u64>,
    pub controlled: Option<u64>,
}
#[derive(Debug)]
pub enum Message<'a> { BindingRequest(BindingRequest<'a>), BindingSuccess { transaction_id: [u8; 12], mapped: Option<SocketAddr> }, BindingError { transaction_id: [u8; 12], code: u16 }, BindingIndication }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StunError { Malformed, Fingerprint, Unsupported }
/// An error response to send: RFC 8489 §14.8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal { BadRequest, Unauthorized, UnknownAttributes(Vec<u16>), RoleConflict }
pub fn parse(b: &[u8]) -> Result<Message<'_>, StunError> { unimplemented!() }
impl<'a> BindingRequest<'a> {
    /// (local ufrag, remote ufrag): the part before the colon is ours.
    #[must_use] pub fn ufrags(&self) -> Option<(&'a str, &'a str)> { self.username.split_once(':') }
    /// Everything an ICE-lite (always controlled) agent must check, in order: 400, 401, 420, 487.
    pub fn check(&self, key: &IceKey) -> Result<(), Refusal> { unimplemented!() }
}
/// Replaces `out` by the success response.
pub fn write_success(transaction_id: &[u8; 12], mapped: SocketAddr, key: &IceKey, out: &mut Vec<u8>) { unimplemented!() }
/// Replaces `out` by the error response; MESSAGE-INTEGRITY only where the request was authenticated.
pub fn write_refusal(transaction_id: &[u8; 12], refusal: &Refusal, key: Option<&IceKey>, out: &mut Vec<u8>) { unimplemented!() }
/// Parameters of a Binding request (load generator, probes).
#[derive(Clone, Copy, Debug)]
pub struct RequestFields<'a> { pub username: &'a str, pub priority: u32, pub tie_breaker: u64, pub use_candidate: bool }
pub fn write_request(transaction_id: &[u8; 12], fields: &RequestFields<'_>, key: &IceKey, out: &mut Vec<u8>) { unimplemented!() }
