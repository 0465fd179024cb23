//! A client that has an RSA certificate and signs with it, as WebRTC stacks on OpenSSL do.

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature};
use headwater_dtls::{
    Config, CryptoError, CryptoOperation, DtlsCertificate, HashAlgorithm, SignatureAlgorithm,
    crypto::{Buf, CryptoProvider, KeyProvider, SigningKey, aws_lc_rs::default_provider},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// A fresh certificate and its key of 2048 bits.
pub fn certificate() -> DtlsCertificate {
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    DtlsCertificate {
        certificate: parameters.self_signed(&key).unwrap().der().to_vec(),
        private_key: key.serialize_der(),
    }
}

/// PKCS #1 v1.5 with SHA-256, by a key in PKCS #8.
pub fn sign(private_key: &[u8], data: &[u8]) -> Vec<u8> {
    let key = KeyPair::from_pkcs8(private_key).unwrap();
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature).unwrap();
    signature
}

/// DTLS settings of a client that signs with RSA.
pub fn client() -> Arc<Config> {
    let provider = CryptoProvider { key_provider: &Keys, ..default_provider() };
    Arc::new(Config::builder().with_crypto_provider(provider).build().unwrap())
}

#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, der: &[u8]) -> Result<Box<dyn SigningKey>, CryptoError> {
        Ok(Box::new(Key { pkcs8: der.to_vec(), is_asked: AtomicBool::new(false) }))
    }
}

/// dimpl's client offers only cipher suites of its own key's kind, though they bind the server's alone
/// (RFC 8422 §2): this key passes for ECDSA until a CertificateRequest asks for its hash.
struct Key {
    pkcs8: Vec<u8>,
    is_asked: AtomicBool,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl SigningKey for Key {
    fn sign(&mut self, data: &[u8], hash: HashAlgorithm, out: &mut Buf) -> Result<(), CryptoError> {
        if hash != HashAlgorithm::SHA256 {
            return Err(CryptoError::OperationFailed(CryptoOperation::Sign));
        }
        out.clear();
        out.extend_from_slice(&sign(&self.pkcs8, data));
        Ok(())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        if self.is_asked.load(Relaxed) { SignatureAlgorithm::RSA } else { SignatureAlgorithm::ECDSA }
    }

    fn hash_algorithm(&self) -> HashAlgorithm {
        self.is_asked.store(true, Relaxed);
        HashAlgorithm::SHA256
    }

    fn supported_hash_algorithms(&self) -> &[HashAlgorithm] {
        &[HashAlgorithm::SHA256]
    }
}
