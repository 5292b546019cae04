//! Tokens: JWTs (EdDSA) that say who a user is.
//!
//! Any service that holds the private key may issue them, with any JWT library:
//!
//! | claim | is |
//! |---|---|
//! | `sub` | the user: 1 to 64 characters out of `a-z A-Z 0-9 . _ - @ +` |
//! | `exp` | when it ends, in whole seconds since 1970 |
//! | `iat` | when it was issued, in whole seconds since 1970; optional |
//! | `nbf` | from when it counts, in whole seconds since 1970; optional |
//! | `dev` | the only device it is good for, 16 hexadecimal digits; optional |
//! | `adm` | `true` for administrators; optional |
//! | `aud` | if it is there, `shoal` must be in it |
//!
//! ```
//! use shoal_certs::{Claims, PrivateKey, Seed, TokenError, TokenSigner, TokenVerifier};
//!
//! let key = PrivateKey::derive(&Seed::random(), "token");
//! let signer = TokenSigner::from_pem(&key.to_pem())?;
//! let verifier = TokenVerifier::from_pem(&key.public_pem())?;
//!
//! let now_ms = 1_790_000_000_000;
//! let token = signer.sign(&Claims::new("ada".parse()?, now_ms, now_ms + 60_000));
//! assert_eq!(verifier.verify(&token, now_ms)?.user.as_str(), "ada");
//! assert_eq!(verifier.verify(&token, now_ms + 60_000), Err(TokenError::Expired));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem, pem::PemObject};
use serde::{Deserialize, Serialize};
use shoal_protocol::{Code, DeviceId, UserId};

use crate::{jwt, key::fingerprint};

/// The most bytes in a token; longer ones are not looked at.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// The most public keys of a verifier: a few, for the time of a change.
pub const TOKEN_KEYS_MAX: usize = 16;

/// What `aud` must name where it is given.
const AUDIENCE: &str = "shoal";

/// A token that counts from up to so much later is taken: the issuer's clock may be ahead.
const CLOCK_SKEW_MS: u64 = 60_000;

/// SubjectPublicKeyInfo of an Ed25519 key, up to its 32 bytes (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The user.
    pub user: UserId,
    /// The only device it is good for; any, where there is none.
    pub device: Option<DeviceId>,
    /// May they administrate the node and all its groups?
    pub admin: bool,
    /// When it was issued, milliseconds since 1970; travels in whole seconds.
    pub issued_ms: u64,
    /// When it ends, milliseconds since 1970; travels in whole seconds, cut off.
    pub expires_ms: u64,
}

impl Claims {
    /// A user's claims, for any device and without administration. Times are milliseconds since
    /// 1970.
    #[must_use]
    pub fn new(user: UserId, issued_ms: u64, expires_ms: u64) -> Self {
        Self { user, device: None, admin: false, issued_ms, expires_ms }
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("no token")]
    Missing,
    /// Not a JWT with the claims it must have, or for another audience.
    #[error("the token is malformed, or not for this service")]
    Malformed,
    /// Not signed with EdDSA by a key that this node knows.
    #[error("the token's signature does not verify")]
    BadSignature,
    /// It counts from later on.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It has ended.
    #[error("the token has expired")]
    Expired,
}

impl TokenError {
    /// The code to refuse with.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Missing => Code::TokenMissing,
            Self::Malformed | Self::BadSignature | Self::NotYetValid => Code::TokenInvalid,
            Self::Expired => Code::TokenExpired,
        }
    }
}

/// Why a key is no token key.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// Not PEM.
    #[error("no key in the PEM text: {0}")]
    Pem(pem::Error),
    /// Not an Ed25519 key.
    #[error("not an Ed25519 key")]
    NotEd25519,
    /// None, or more than [`TOKEN_KEYS_MAX`].
    #[error("{0} public keys; 1 to {TOKEN_KEYS_MAX} may be given")]
    Count(usize),
}

/// Signs tokens with one private key.
pub struct TokenSigner {
    header: Header,
    key: EncodingKey,
}

impl TokenSigner {
    /// From an Ed25519 key as PKCS #8 in PEM.
    ///
    /// # Errors
    /// [`TokenKeyError`] where it is none.
    pub fn from_pem(text: &str) -> Result<Self, TokenKeyError> {
        jwt::install();
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(TokenKeyError::Pem)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            .map_err(|_| TokenKeyError::NotEd25519)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(fingerprint(pair.public_key().as_ref()));
        Ok(Self { header, key: EncodingKey::from_ed_der(der.secret_pkcs8_der()) })
    }

    /// The name of its key, as tokens carry it in `kid`: 16 hexadecimal digits of its SHA-256.
    #[must_use]
    pub fn key_name(&self) -> &str {
        self.header.kid.as_deref().unwrap_or_default()
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> String {
        let wire = WireClaims {
            sub: claims.user.as_str().to_owned(),
            exp: claims.expires_ms / 1000,
            iat: Some(claims.issued_ms / 1000),
            nbf: None,
            dev: claims.device.map(|device| device.to_string()),
            adm: claims.admin,
        };
        jsonwebtoken::encode(&self.header, &wire, &self.key).expect("claims encode, and the key was checked")
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSigner({})", self.key_name())
    }
}

/// Verifies tokens against some public keys: several, while one follows another.
#[derive(Clone)]
pub struct TokenVerifier {
    keys: Vec<(String, DecodingKey)>,
    validation: Validation,
}

impl TokenVerifier {
    /// From Ed25519 public keys (SubjectPublicKeyInfo in PEM), one after the other.
    ///
    /// # Errors
    /// [`TokenKeyError`] where one is none, or there are none or too many.
    pub fn from_pem(text: &str) -> Result<Self, TokenKeyError> {
        jwt::install();
        let mut keys = Vec::new();
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()) {
            let der = der.map_err(TokenKeyError::Pem)?;
            let public = der.strip_prefix(&SPKI_PREFIX).filter(|public| public.len() == 32);
            let public = public.ok_or(TokenKeyError::NotEd25519)?;
            // What the library calls DER here are the 32 bytes themselves.
            keys.push((fingerprint(public), DecodingKey::from_ed_der(public)));
        }
        if keys.is_empty() || keys.len() > TOKEN_KEYS_MAX {
            return Err(TokenKeyError::Count(keys.len()));
        }
        Ok(Self { keys, validation: validation() })
    }

    /// Reads a token and checks it at `now_ms` (milliseconds since 1970). A token that names its
    /// key (`kid`) is checked against that one, any other against each.
    ///
    /// # Errors
    /// [`TokenError`] says why it is refused. Nothing that a token says is believed, and no
    /// expiry told, before its signature verifies.
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Claims, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let wire = self.check_signature(token)?;
        let claims = wire.claims()?;
        if wire.nbf.is_some_and(|from| from.saturating_mul(1000) > now_ms.saturating_add(CLOCK_SKEW_MS)) {
            return Err(TokenError::NotYetValid);
        }
        if claims.expires_ms <= now_ms { Err(TokenError::Expired) } else { Ok(claims) }
    }

    fn check_signature(&self, token: &str) -> Result<WireClaims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| refusal(&error))?;
        for (kid, key) in &self.keys {
            if header.kid.as_ref().is_some_and(|named| self.knows(named) && named != kid) {
                continue;
            }
            match jsonwebtoken::decode(token, key, &self.validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => match refusal(&error) {
                    TokenError::BadSignature => {}
                    other => return Err(other),
                },
            }
        }
        Err(TokenError::BadSignature)
    }

    /// Issuers name their keys as they like; only a name of ours points at one of ours.
    fn knows(&self, kid: &str) -> bool {
        self.keys.iter().any(|(known, _)| known == kid)
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(kid, _)| kid)).finish()
    }
}

/// The library checks algorithm, signature and audience; the times are checked here, against a
/// clock that is an argument.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.required_spec_claims.clear();
    validation.set_audience(&[AUDIENCE]);
    validation
}

fn refusal(error: &jsonwebtoken::errors::Error) -> TokenError {
    match error.kind() {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            TokenError::BadSignature
        }
        _ => TokenError::Malformed,
    }
}

#[derive(Serialize, Deserialize)]
struct WireClaims {
    sub: String,
    exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dev: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    adm: bool,
}

impl WireClaims {
    fn claims(&self) -> Result<Claims, TokenError> {
        let device = self.dev.as_deref().map(str::parse).transpose().map_err(|_| TokenError::Malformed)?;
        Ok(Claims {
            user: UserId::new(&self.sub).map_err(|_| TokenError::Malformed)?,
            device,
            admin: self.adm,
            issued_ms: self.iat.unwrap_or(0).saturating_mul(1000),
            expires_ms: self.exp.saturating_mul(1000),
        })
    }
}
