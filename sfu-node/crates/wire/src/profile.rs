//! SRTP protection profiles (RFC 5764 §4.1.2, RFC 7714 §14.2).

pub(crate) const GCM_TAG: usize = 16;
pub(crate) const CM_TAG: usize = 10;

/// Protection profiles, by their IANA DTLS-SRTP number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Profile {
    /// SRTP_AES128_CM_HMAC_SHA1_80.
    Aes128CmSha1_80 = 1,
    /// SRTP_AEAD_AES_128_GCM.
    AeadAes128Gcm = 7,
    /// SRTP_AEAD_AES_256_GCM.
    AeadAes256Gcm = 8,
}

impl Profile {
    /// The profile with this IANA number, if it is one of ours.
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        match id {
            1 => Some(Self::Aes128CmSha1_80),
            7 => Some(Self::AeadAes128Gcm),
            8 => Some(Self::AeadAes256Gcm),
            _ => None,
        }
    }

    /// IANA name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128CmSha1_80 => "SRTP_AES128_CM_HMAC_SHA1_80",
            Self::AeadAes128Gcm => "SRTP_AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "SRTP_AEAD_AES_256_GCM",
        }
    }

    pub(crate) fn key_len(self) -> usize {
        if self == Self::AeadAes256Gcm { 32 } else { 16 }
    }

    pub(crate) fn salt_len(self) -> usize {
        if self == Self::Aes128CmSha1_80 { 14 } else { 12 }
    }

    /// Length of the DTLS exporter's output (RFC 5764 §4.2).
    #[must_use]
    pub fn material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// Bytes that sealing adds to an RTP packet.
    #[must_use]
    pub fn rtp_overhead(self) -> usize {
        if self == Self::Aes128CmSha1_80 { CM_TAG } else { GCM_TAG }
    }

    /// Bytes that sealing adds to an RTCP packet.
    #[must_use]
    pub fn rtcp_overhead(self) -> usize {
        self.rtp_overhead() + 4
    }
}
