//! The signature by which a client shows that its certificate is its own (RFC 5246 §7.4.8). ECDSA is the DTLS
//! library's; RSA, which some stacks on OpenSSL have and nothing else, is checked here.

use crate::outbox::DropReason;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, UnparsedPublicKey};
use der::{Decode, oid::ObjectIdentifier};
use headwater_dtls::{
    CertificateError, CryptoError, CryptoOperation, Error, HashAlgorithm, SignatureAlgorithm,
    crypto::{CryptoProvider, SignatureVerifier, aws_lc_rs::default_provider},
};
use x509_cert::Certificate;

#[cfg(feature = "exercise")]
pub(crate) mod exercise;

/// rsaEncryption (RFC 8017 §A.1).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// The library's cryptography, and RSA of clients.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider { signature_verification: &Verifier, ..default_provider() }
}

#[derive(Debug)]
struct Verifier;

impl SignatureVerifier for Verifier {
    fn verify_signature(
        &self,
        certificate: &[u8],
        data: &[u8],
        signature: &[u8],
        hash: HashAlgorithm,
        algorithm: SignatureAlgorithm,
    ) -> Result<(), CryptoError> {
        if algorithm == SignatureAlgorithm::RSA {
            return verify_rsa(certificate, data, signature, hash);
        }
        let ecdsa = default_provider().signature_verification;
        ecdsa.verify_signature(certificate, data, signature, hash, algorithm)
    }
}

/// PKCS #1 v1.5 as DTLS 1.2 has it, by a key of 2048 to 8192 bits with an exponent of at most 33 bits: aws-lc's
/// bounds of what one check may cost. No SHA-1: nobody was asked for it.
fn verify_rsa(
    certificate: &[u8],
    data: &[u8],
    signature: &[u8],
    hash: HashAlgorithm,
) -> Result<(), CryptoError> {
    let rules = match hash {
        HashAlgorithm::SHA256 => &RSA_PKCS1_2048_8192_SHA256,
        HashAlgorithm::SHA384 => &RSA_PKCS1_2048_8192_SHA384,
        _ => {
            return Err(CryptoError::UnsupportedSignaturePair { signature: SignatureAlgorithm::RSA, hash });
        }
    };
    let certificate = Certificate::from_der(certificate).map_err(|_| CryptoError::CertificateParseFailed)?;
    let key = certificate.tbs_certificate().subject_public_key_info();
    if key.algorithm.oid != RSA {
        return Err(CryptoError::UnsupportedPublicKeyAlgorithm);
    }
    let key = key.subject_public_key.as_bytes().ok_or(CryptoError::InvalidSubjectPublicKey)?;
    UnparsedPublicKey::new(rules, key)
        .verify(data, signature)
        .map_err(|_| CryptoError::OperationFailed(CryptoOperation::VerifySignature))
}

/// Why a handshake failed: what is counted, and what is told to those who look after clients.
pub(crate) fn refusal(error: &Error) -> (DropReason, &'static str) {
    let certificate = match error {
        Error::CertificateError(CertificateError::NoClientCertificateReceived) => {
            "no client certificate of a kind that is accepted: ECDSA with P-256 or P-384, or RSA"
        }
        Error::CryptoError(
            CryptoError::SignatureVerificationFailed { .. }
            | CryptoError::OperationFailed(CryptoOperation::VerifySignature),
        ) => "the client's signature is not its certificate's, or its RSA key has not 2048 to 8192 bits",
        Error::CryptoError(
            CryptoError::UnsupportedSignatureAlgorithm(_)
            | CryptoError::UnsupportedSignaturePair { .. }
            | CryptoError::UnsupportedSignatureVerification { .. }
            | CryptoError::UnsupportedPublicKeyAlgorithm
            | CryptoError::UnsupportedEcCurve,
        ) => "client certificate of a kind that is not accepted: ECDSA with P-256 or P-384, or RSA is",
        Error::CertificateError(_) => "the client's certificate cannot be read",
        _ => return (DropReason::DtlsError, "DTLS error"),
    };
    (DropReason::DtlsCertificate, certificate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_sim::rsa;

    const DATA: &[u8] = b"the handshake so far";
    /// Certificates with keys of 1024 and of 8704 bits, and those keys' signatures of [`DATA`] with SHA-256.
    const SMALL: (&[u8], &[u8]) =
        (include_bytes!("../tests/rsa1024.der"), include_bytes!("../tests/rsa1024.sig"));
    const LARGE: (&[u8], &[u8]) =
        (include_bytes!("../tests/rsa8704.der"), include_bytes!("../tests/rsa8704.sig"));

    fn verify(certificate: &[u8], signature: &[u8], hash: HashAlgorithm) -> Result<(), CryptoError> {
        Verifier.verify_signature(certificate, DATA, signature, hash, SignatureAlgorithm::RSA)
    }

    #[test]
    fn an_rsa_signature_is_its_certificates_over_this_data_with_this_hash_or_refused() {
        let (own, other) = (rsa::certificate(), rsa::certificate());
        let signature = rsa::sign(&own.private_key, DATA);
        let wrong = Err(CryptoError::OperationFailed(CryptoOperation::VerifySignature));
        assert_eq!(verify(&own.certificate, &signature, HashAlgorithm::SHA256), Ok(()));
        assert_eq!(verify(&own.certificate, &signature, HashAlgorithm::SHA384), wrong);
        assert_eq!(verify(&other.certificate, &signature, HashAlgorithm::SHA256), wrong);
        for at in [0, 100, 255] {
            let mut spoilt = signature.clone();
            spoilt[at] ^= 1;
            assert_eq!(verify(&own.certificate, &spoilt, HashAlgorithm::SHA256), wrong);
        }
        assert_eq!(verify(&own.certificate, b"", HashAlgorithm::SHA256), wrong);
        let data = rsa::sign(&own.private_key, b"another handshake");
        assert_eq!(verify(&own.certificate, &data, HashAlgorithm::SHA256), wrong);
    }

    #[test]
    fn sha1_small_and_huge_keys_and_other_kinds_of_certificate_are_refused() {
        let own = rsa::certificate();
        let signature = rsa::sign(&own.private_key, DATA);
        for hash in [HashAlgorithm::SHA1, HashAlgorithm::MD5, HashAlgorithm::SHA512] {
            let refused = CryptoError::UnsupportedSignaturePair { signature: SignatureAlgorithm::RSA, hash };
            assert_eq!(verify(&own.certificate, &signature, hash), Err(refused));
        }
        let wrong = Err(CryptoError::OperationFailed(CryptoOperation::VerifySignature));
        for (certificate, signature) in [SMALL, LARGE] {
            assert_eq!(verify(certificate, signature, HashAlgorithm::SHA256), wrong);
        }
        let ecdsa = headwater_dtls::certificate::generate_self_signed_certificate().unwrap();
        let refused = Err(CryptoError::UnsupportedPublicKeyAlgorithm);
        assert_eq!(verify(&ecdsa.certificate, &signature, HashAlgorithm::SHA256), refused);
        for cut in 0..own.certificate.len() {
            let refused = Err(CryptoError::CertificateParseFailed);
            assert_eq!(verify(&own.certificate[..cut], &signature, HashAlgorithm::SHA256), refused);
        }
    }
}
