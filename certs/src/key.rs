//! Ed25519 keys, and where their randomness comes from.

use std::fmt;

use rcgen::{KeyPair, PKCS_ED25519};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

/// PKCS #8, version 1, of an Ed25519 key, up to its 32 bytes (RFC 8410, section 7). Version 2,
/// which ring writes, is refused by much other software.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why text is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not PEM.
    #[error("no private key (PKCS #8) in the PEM text: {0}")]
    Pem(rustls::pki_types::pem::Error),
    /// Not an Ed25519 key.
    #[error("not an Ed25519 key: {0}")]
    NotEd25519(rcgen::Error),
}

/// The randomness that keys are made of: the machine's own, or a number for a simulation.
pub struct Seed([u8; 32]);

impl Seed {
    /// From the machine's generator.
    ///
    /// # Panics
    /// Where the machine has no randomness to give.
    #[must_use]
    pub fn random() -> Self {
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).expect("the machine has a random generator");
        Self(seed)
    }

    /// From a number, so that a simulation makes the same keys each time. **Anybody can guess
    /// them.**
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        Self(seed)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(secret)")
    }
}

/// An Ed25519 private key. Its signatures have one length and no randomness, which a
/// deterministic simulation needs.
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    /// The key of that name out of a seed.
    #[must_use]
    pub fn derive(seed: &Seed, name: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&seed.0);
        context.update(name.as_bytes());
        let secret = context.finish();
        let der = [&PKCS8_PREFIX, secret.as_ref()].concat();
        Self::from_der(&der).expect("any 32 bytes are an Ed25519 key")
    }

    /// From PKCS #8 in PEM.
    ///
    /// # Errors
    /// [`KeyError`] where it is not an Ed25519 key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(KeyError::Pem)?;
        Self::from_der(der.secret_pkcs8_der()).map_err(KeyError::NotEd25519)
    }

    /// The private key as PKCS #8 in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The public key as SubjectPublicKeyInfo in PEM.
    #[must_use]
    pub fn public_pem(&self) -> String {
        self.0.public_key_pem()
    }

    /// The 32 bytes of the public key.
    #[must_use]
    pub fn public_bytes(&self) -> &[u8] {
        self.0.public_key_raw()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }

    fn from_der(der: &[u8]) -> Result<Self, rcgen::Error> {
        KeyPair::from_pkcs8_der_and_sign_algo(&der.into(), &PKCS_ED25519).map(Self)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", fingerprint(self.public_bytes()))
    }
}

/// A public key's name: 16 hexadecimal digits of its SHA-256.
pub(crate) fn fingerprint(public: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, public);
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
