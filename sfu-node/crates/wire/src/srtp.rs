//! SRTP and SRTCP (RFC 3711) with AEAD AES-GCM (RFC 7714) and AES-CM/HMAC-SHA1-80, keyed by DTLS (RFC 5764).
//!
//! Packets are opened and sealed in place. No MKI, no encrypted header extensions.

use crate::bytes::{array_at, u16_at, u32_at};
use crate::profile::{CM_TAG, GCM_TAG};
use crate::replay::Window;
use crate::rtp;
use aws_lc_rs::{cipher, constant_time, hmac, iv::FixedLength};
use ring::aead;

pub use crate::profile::Profile;

/// Sources per direction and transport; each is remembered only once a packet of it was authentic.
const MAX_SOURCES: usize = 128;
/// RTCP header and sender SSRC, never encrypted (RFC 3711 §3.4).
const RTCP_CLEAR: usize = 8;
const RTCP_INDEX_MAX: u32 = 0x7FFF_FFFF;

/// Why a packet was not opened or sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrtpError {
    /// Too short, or not RTP/RTCP.
    Malformed,
    /// The tag is wrong.
    Authentication,
    /// Seen before, or older than the replay window.
    Replayed,
    /// More than 128 sources on one transport.
    TooManySources,
    /// Key material does not have the profile's length.
    KeyLength,
    /// The packet index is used up, or the cryptography library refused.
    Crypto,
}

/// Our end of the DTLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Active.
    Client,
    /// Passive: what an SFU node is.
    Server,
}

/// Both directions from the output of the DTLS exporter `EXTRACTOR-dtls_srtp`.
///
/// # Errors
/// [`SrtpError::KeyLength`] when `material` does not fit the profile.
pub fn sessions(profile: Profile, material: &[u8], role: Role) -> Result<(Inbound, Outbound), SrtpError> {
    if material.len() != profile.material_len() {
        return Err(SrtpError::KeyLength);
    }
    // Client key, server key, client salt, server salt.
    let (keys, salts) = material.split_at_checked(2 * profile.key_len()).ok_or(SrtpError::KeyLength)?;
    let (client_key, server_key) = keys.split_at_checked(profile.key_len()).ok_or(SrtpError::KeyLength)?;
    let (client_salt, server_salt) =
        salts.split_at_checked(profile.salt_len()).ok_or(SrtpError::KeyLength)?;
    let client = Ciphers::derive(profile, client_key, client_salt)?;
    let server = Ciphers::derive(profile, server_key, server_salt)?;
    let (theirs, ours) = if role == Role::Server { (client, server) } else { (server, client) };
    Ok((
        Inbound { ciphers: theirs, sources: Vec::new(), recent: 0 },
        Outbound { profile, ciphers: ours, rtcp_index: 0 },
    ))
}

/// Session keys of one direction.
struct Ciphers {
    rtp: Cipher,
    rtcp: Cipher,
}

impl Ciphers {
    fn derive(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        Ok(Self { rtp: Cipher::derive(profile, key, salt, 0)?, rtcp: Cipher::derive(profile, key, salt, 3)? })
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "one pair per transport and direction; a box would cost a cache miss per packet"
)]
enum Cipher {
    Gcm { key: aead::LessSafeKey, salt: [u8; 12] },
    Cm { key: cipher::EncryptingKey, auth: hmac::Key, salt: [u8; 14] },
}

/// RFC 3711 §4.3: `label` 0, 1, 2 for RTP encryption, authentication, salt; 3, 4, 5 for RTCP.
fn derive(master: &[u8], salt: &[u8], label: u8, out: &mut [u8]) -> Result<(), SrtpError> {
    let mut iv = [0u8; 16];
    // A 96-bit salt is padded on the right to 112 bits (RFC 7714 §11).
    for (slot, byte) in iv.iter_mut().zip(salt.iter().take(14)) {
        *slot = *byte;
    }
    iv[7] ^= label;
    out.fill(0);
    counter_mode(&counter_key(master)?, iv, out)
}

fn counter_key(key: &[u8]) -> Result<cipher::EncryptingKey, SrtpError> {
    let algorithm = if key.len() == 32 { &cipher::AES_256 } else { &cipher::AES_128 };
    let key = cipher::UnboundCipherKey::new(algorithm, key).map_err(|_| SrtpError::KeyLength)?;
    cipher::EncryptingKey::ctr(key).map_err(|_| SrtpError::Crypto)
}

/// XORs the keystream: encryption and decryption.
fn counter_mode(key: &cipher::EncryptingKey, iv: [u8; 16], data: &mut [u8]) -> Result<(), SrtpError> {
    let context = cipher::EncryptionContext::Iv128(FixedLength::from(iv));
    key.less_safe_encrypt(data, context).map(|_| ()).map_err(|_| SrtpError::Crypto)
}

fn xor_into(target: &mut [u8], value: &[u8]) {
    for (slot, byte) in target.iter_mut().zip(value) {
        *slot ^= byte;
    }
}

impl Cipher {
    fn derive(profile: Profile, master: &[u8], master_salt: &[u8], label: u8) -> Result<Self, SrtpError> {
        let mut key = [0u8; 32];
        let key = key.get_mut(..profile.key_len()).ok_or(SrtpError::KeyLength)?;
        derive(master, master_salt, label, key)?;
        if profile == Profile::Aes128CmSha1_80 {
            let (mut auth, mut salt) = ([0; 20], [0; 14]);
            derive(master, master_salt, label + 1, &mut auth)?;
            derive(master, master_salt, label + 2, &mut salt)?;
            return Self::cm(key, &auth, salt);
        }
        let mut salt = [0; 12];
        derive(master, master_salt, label + 2, &mut salt)?;
        Self::gcm(key, salt)
    }

    fn gcm(key: &[u8], salt: [u8; 12]) -> Result<Self, SrtpError> {
        let algorithm = if key.len() == 32 { &aead::AES_256_GCM } else { &aead::AES_128_GCM };
        let key = aead::UnboundKey::new(algorithm, key).map_err(|_| SrtpError::KeyLength)?;
        Ok(Self::Gcm { key: aead::LessSafeKey::new(key), salt })
    }

    fn cm(key: &[u8], auth: &[u8], salt: [u8; 14]) -> Result<Self, SrtpError> {
        let auth = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, auth);
        Ok(Self::Cm { key: counter_key(key)?, auth, salt })
    }

    fn tag_len(&self) -> usize {
        if matches!(self, Self::Gcm { .. }) { GCM_TAG } else { CM_TAG }
    }
}

/// RFC 7714 §8.1 and §9.1: zeros, SSRC, 48-bit index, all XOR the salt.
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> aead::Nonce {
    let mut nonce = *salt;
    xor_into(&mut nonce[2..6], &ssrc.to_be_bytes());
    xor_into(&mut nonce[6..], &index.to_be_bytes()[2..]);
    aead::Nonce::assume_unique_for_key(nonce)
}

/// RFC 3711 §4.1.1.
fn cm_iv(salt: &[u8; 14], ssrc: u32, index: u64) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    xor_into(&mut iv[4..8], &ssrc.to_be_bytes());
    xor_into(&mut iv[8..14], &index.to_be_bytes()[2..]);
    iv
}

fn cm_tag(auth: &hmac::Key, authenticated: &[u8], trailer: &[u8]) -> [u8; CM_TAG] {
    let mut context = hmac::Context::with_key(auth);
    context.update(authenticated);
    context.update(trailer);
    array_at(context.sign().as_ref(), 0).unwrap_or([0; CM_TAG])
}

#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    rtp: Window,
    rtcp: Window,
}

/// A decrypted RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedRtp {
    /// The packet is `&packet[..len]`.
    pub len: usize,
    /// Packet index: ROC << 16 | sequence.
    pub index: u64,
}

/// Receive direction of one transport.
pub struct Inbound {
    ciphers: Ciphers,
    sources: Vec<Source>,
    /// Where the last packet's source was found: packets come in runs.
    recent: usize,
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("sources", &self.sources.len()).finish_non_exhaustive()
    }
}

impl Inbound {
    /// Authenticates and decrypts an SRTP packet in place.
    ///
    /// # Errors
    /// [`SrtpError`]; the packet's bytes are then worthless and no state has changed.
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<OpenedRtp, SrtpError> {
        let header = rtp::header_len(packet).ok_or(SrtpError::Malformed)?;
        let sequence = u16_at(packet, 2).ok_or(SrtpError::Malformed)?;
        let ssrc = u32_at(packet, 8).ok_or(SrtpError::Malformed)?;
        let at = self.find(ssrc);
        let window = at.and_then(|i| self.sources.get(i)).map(|s| s.rtp).unwrap_or_default();
        let index = window.estimate(sequence);
        if window.is_replay(index) {
            return Err(SrtpError::Replayed);
        }
        if at.is_none() && self.sources.len() >= MAX_SOURCES {
            return Err(SrtpError::TooManySources);
        }
        let len = open_rtp(&self.ciphers.rtp, packet, header, ssrc, index)?;
        self.source(at, ssrc).rtp.commit(index);
        Ok(OpenedRtp { len, index })
    }

    /// Authenticates and decrypts an SRTCP packet in place; the compound packet is `&packet[..len]`.
    ///
    /// # Errors
    /// [`SrtpError`]; the packet's bytes are then worthless and no state has changed.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc = u32_at(packet, 4).ok_or(SrtpError::Malformed)?;
        let word_at = rtcp_word_at(&self.ciphers.rtcp, packet.len())?;
        let word = u32_at(packet, word_at).ok_or(SrtpError::Malformed)?;
        let index = u64::from(word & RTCP_INDEX_MAX);
        let at = self.find(ssrc);
        let window = at.and_then(|i| self.sources.get(i)).map(|s| s.rtcp).unwrap_or_default();
        if window.is_replay(index) {
            return Err(SrtpError::Replayed);
        }
        if at.is_none() && self.sources.len() >= MAX_SOURCES {
            return Err(SrtpError::TooManySources);
        }
        let len = open_rtcp(&self.ciphers.rtcp, packet, word_at, ssrc, word)?;
        self.source(at, ssrc).rtcp.commit(index);
        Ok(len)
    }

    /// Drops the state of a source that has ended, to make room for another.
    pub fn forget_source(&mut self, ssrc: u32) {
        self.sources.retain(|s| s.ssrc != ssrc);
    }

    fn find(&mut self, ssrc: u32) -> Option<usize> {
        if self.sources.get(self.recent).is_some_and(|s| s.ssrc == ssrc) {
            return Some(self.recent);
        }
        let at = self.sources.iter().position(|s| s.ssrc == ssrc)?;
        self.recent = at;
        Some(at)
    }

    /// State of an authenticated source; `at` is what `find` gave, and a `None` there has room left.
    fn source(&mut self, at: Option<usize>, ssrc: u32) -> &mut Source {
        let at = at.unwrap_or_else(|| {
            self.sources.push(Source { ssrc, rtp: Window::default(), rtcp: Window::default() });
            self.sources.len() - 1
        });
        &mut self.sources[at]
    }
}

fn open_rtp(
    cipher: &Cipher,
    packet: &mut [u8],
    header: usize,
    ssrc: u32,
    index: u64,
) -> Result<usize, SrtpError> {
    let body = packet.len().checked_sub(header + cipher.tag_len()).ok_or(SrtpError::Malformed)?;
    match cipher {
        Cipher::Gcm { key, salt } => {
            let (clear, sealed) = packet.split_at_mut_checked(header).ok_or(SrtpError::Malformed)?;
            key.open_in_place(gcm_nonce(salt, ssrc, index), aead::Aad::from(&*clear), sealed)
                .map_err(|_| SrtpError::Authentication)?;
        }
        Cipher::Cm { key, auth, salt } => {
            let (authenticated, tag) =
                packet.split_at_mut_checked(header + body).ok_or(SrtpError::Malformed)?;
            let roc = u32::try_from(index >> 16).map_err(|_| SrtpError::Crypto)?;
            verify(&cm_tag(auth, authenticated, &roc.to_be_bytes()), tag)?;
            let sealed = authenticated.get_mut(header..).ok_or(SrtpError::Malformed)?;
            counter_mode(key, cm_iv(salt, ssrc, index), sealed)?;
        }
    }
    Ok(header + body)
}

fn verify(want: &[u8], got: &[u8]) -> Result<(), SrtpError> {
    constant_time::verify_slices_are_equal(want, got).map_err(|_| SrtpError::Authentication)
}

/// Where E flag and index stand: before the tag with CM (RFC 3711 §3.4), last with GCM (RFC 7714 §9.2).
fn rtcp_word_at(cipher: &Cipher, len: usize) -> Result<usize, SrtpError> {
    let trailer = if matches!(cipher, Cipher::Cm { .. }) { CM_TAG + 4 } else { 4 };
    let least = RTCP_CLEAR + cipher.tag_len() + 4;
    len.checked_sub(trailer).filter(|_| len >= least).ok_or(SrtpError::Malformed)
}

fn open_rtcp(
    cipher: &Cipher,
    packet: &mut [u8],
    word_at: usize,
    ssrc: u32,
    word: u32,
) -> Result<usize, SrtpError> {
    // WebRTC always encrypts (RFC 8827 §6.5): a clear E flag is not accepted.
    if word >> 31 == 0 {
        return Err(SrtpError::Malformed);
    }
    let index = u64::from(word & RTCP_INDEX_MAX);
    match cipher {
        Cipher::Gcm { key, salt } => {
            let aad = gcm_rtcp_aad(packet, word).ok_or(SrtpError::Malformed)?;
            let sealed = packet.get_mut(RTCP_CLEAR..word_at).ok_or(SrtpError::Malformed)?;
            let plain = key
                .open_in_place(gcm_nonce(salt, ssrc, index), aead::Aad::from(aad), sealed)
                .map_err(|_| SrtpError::Authentication)?;
            Ok(RTCP_CLEAR + plain.len())
        }
        Cipher::Cm { key, auth, salt } => {
            let (authenticated, tag) =
                packet.split_at_mut_checked(word_at + 4).ok_or(SrtpError::Malformed)?;
            verify(&cm_tag(auth, authenticated, &[]), tag)?;
            let sealed = authenticated.get_mut(RTCP_CLEAR..word_at).ok_or(SrtpError::Malformed)?;
            counter_mode(key, cm_iv(salt, ssrc, index), sealed)?;
            Ok(word_at)
        }
    }
}

/// RFC 7714 §9.2: the clear header, then E flag and index.
fn gcm_rtcp_aad(packet: &[u8], word: u32) -> Option<[u8; RTCP_CLEAR + 4]> {
    let mut aad = [0; RTCP_CLEAR + 4];
    aad[..RTCP_CLEAR].copy_from_slice(packet.get(..RTCP_CLEAR)?);
    aad[RTCP_CLEAR..].copy_from_slice(&word.to_be_bytes());
    Some(aad)
}

/// Send direction of one transport.
pub struct Outbound {
    profile: Profile,
    ciphers: Ciphers,
    rtcp_index: u32,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl Outbound {
    /// The negotiated profile.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Bytes that [`Outbound::seal_rtp`] adds.
    #[must_use]
    pub fn rtp_overhead(&self) -> usize {
        self.profile.rtp_overhead()
    }

    /// Encrypts the RTP packet `arena[start..]` in place and appends the tag. `roc` are the upper bits of
    /// the packet index, 0 at the start of a source.
    ///
    /// The same (SSRC, roc, sequence) must never be sealed twice with different bytes: with GCM that gives
    /// the authentication key away. So a NACK that is answered on the media SSRC (no RTX) must rebuild the
    /// packet byte for byte, which rules out fresh transport-cc numbers and send times there.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`] or [`SrtpError::Crypto`]; the caller truncates the arena to `start`.
    #[inline]
    pub fn seal_rtp(&self, arena: &mut Vec<u8>, start: usize, roc: u32) -> Result<(), SrtpError> {
        let packet = arena.get_mut(start..).ok_or(SrtpError::Malformed)?;
        let header = rtp::header_len(packet).ok_or(SrtpError::Malformed)?;
        let sequence = u16_at(packet, 2).ok_or(SrtpError::Malformed)?;
        let ssrc = u32_at(packet, 8).ok_or(SrtpError::Malformed)?;
        let index = u64::from(roc) << 16 | u64::from(sequence);
        match &self.ciphers.rtp {
            Cipher::Gcm { key, salt } => {
                let (clear, body) = packet.split_at_mut_checked(header).ok_or(SrtpError::Malformed)?;
                let tag = key
                    .seal_in_place_separate_tag(gcm_nonce(salt, ssrc, index), aead::Aad::from(&*clear), body)
                    .map_err(|_| SrtpError::Crypto)?;
                arena.extend_from_slice(tag.as_ref());
            }
            Cipher::Cm { key, auth, salt } => {
                let body = packet.get_mut(header..).ok_or(SrtpError::Malformed)?;
                counter_mode(key, cm_iv(salt, ssrc, index), body)?;
                let tag = cm_tag(auth, packet, &roc.to_be_bytes());
                arena.extend_from_slice(&tag);
            }
        }
        Ok(())
    }

    /// Encrypts the compound RTCP packet `arena[start..]` in place, appends tag and index.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], or [`SrtpError::Crypto`] when 2^31 packets were sent.
    pub fn seal_rtcp(&mut self, arena: &mut Vec<u8>, start: usize) -> Result<(), SrtpError> {
        let packet = arena.get_mut(start..).ok_or(SrtpError::Malformed)?;
        let ssrc = u32_at(packet, 4).ok_or(SrtpError::Malformed)?;
        if self.rtcp_index >= RTCP_INDEX_MAX {
            return Err(SrtpError::Crypto);
        }
        self.rtcp_index += 1;
        let (index, word) = (u64::from(self.rtcp_index), self.rtcp_index | 1 << 31);
        match &self.ciphers.rtcp {
            Cipher::Gcm { key, salt } => {
                let aad = gcm_rtcp_aad(packet, word).ok_or(SrtpError::Malformed)?;
                let body = packet.get_mut(RTCP_CLEAR..).ok_or(SrtpError::Malformed)?;
                let tag = key
                    .seal_in_place_separate_tag(gcm_nonce(salt, ssrc, index), aead::Aad::from(aad), body)
                    .map_err(|_| SrtpError::Crypto)?;
                arena.extend_from_slice(tag.as_ref());
                arena.extend_from_slice(&word.to_be_bytes());
            }
            Cipher::Cm { key, auth, salt } => {
                let body = packet.get_mut(RTCP_CLEAR..).ok_or(SrtpError::Malformed)?;
                counter_mode(key, cm_iv(salt, ssrc, index), body)?;
                arena.extend_from_slice(&word.to_be_bytes());
                let tag = cm_tag(auth, arena.get(start..).unwrap_or(&[]), &[]);
                arena.extend_from_slice(&tag);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "srtp_tests.rs"]
mod tests;
