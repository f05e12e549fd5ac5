//! A key pair on the curve P-256, which every TLS library of today understands.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

/// Of a line of PEM.
const PEM_WIDTH: usize = 64;

/// That a key could not be made, or did not sign. What the library says of it is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random numbers for a key")]
pub struct KeyError;

/// A private key. Its `Debug` tells nothing of it.
pub struct Key {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(|_| KeyError)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random);
        Ok(Self { pair: pair.map_err(|_| KeyError)?, pkcs8: pkcs8.as_ref().to_vec() })
    }

    /// PKCS #8.
    pub fn der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The private key as text, as `docker` reads it.
    pub fn pem(&self) -> String {
        pem("PRIVATE KEY", &self.pkcs8)
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        Ok(signature.map_err(|_| rcgen::Error::RemoteKeyError)?.as_ref().to_vec())
    }
}

/// Bytes as text between two lines that say what they are.
pub fn pem(what: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {what}-----\n");
    for line in encoded.as_bytes().chunks(PEM_WIDTH) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {what}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_s_debug_tells_nothing_of_it() {
        assert_eq!(format!("{:?}", Key::new().unwrap()), "Key");
    }

    #[test]
    fn pem_has_lines_of_64() {
        assert_eq!(pem("X", &[0; 3]), "-----BEGIN X-----\nAAAA\n-----END X-----\n");
        let lines: Vec<usize> = pem("X", &[0; 60]).lines().map(str::len).collect();
        assert_eq!(lines, [17, 64, 16, 15]);
    }
}
