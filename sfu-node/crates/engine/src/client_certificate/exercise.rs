//! What the fuzz target of client certificates does with one input.

use super::{Error, HashAlgorithm, SignatureAlgorithm, SignatureVerifier, Verifier, refusal};
use crate::transport::normalise_fingerprint;
use headwater_wire::exercise::Bytes;

const DATA: &[u8] = b"the handshake so far";
const HASHES: [HashAlgorithm; 4] =
    [HashAlgorithm::SHA256, HashAlgorithm::SHA384, HashAlgorithm::SHA512, HashAlgorithm::SHA1];

/// Kinds of hash and signature, the signature and the certificate (DER) whose it may be. Then all as a fingerprint.
pub fn certificate(data: &[u8]) {
    let mut bytes = Bytes(data);
    let kinds = bytes.byte();
    let length = bytes.pair();
    let (signature, certificate) = (bytes.cut(length.into()), bytes.0);
    let algorithm = if kinds & 0x80 == 0 { SignatureAlgorithm::RSA } else { SignatureAlgorithm::ECDSA };
    if let Some(hash) = HASHES.get(usize::from(kinds & 3)) {
        let verdict = Verifier.verify_signature(certificate, DATA, signature, *hash, algorithm);
        if let Err(error) = verdict {
            assert!(!refusal(&Error::CryptoError(error)).1.is_empty(), "a reason");
        }
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(fingerprint) = normalise_fingerprint(&text) {
        assert_eq!(normalise_fingerprint(&fingerprint), Ok(fingerprint.clone()), "normal once");
        assert!(fingerprint.is_empty() || fingerprint.len() == 95, "32 pairs");
    }
}
