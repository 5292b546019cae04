//! The development authority: one key that vouches for the nodes of a cluster.

use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use ring::digest;
use rustls::{
    client::verify_server_cert_signed_by_trust_anchor,
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use crate::{
    Identity, IdentityError, NODE_NAME, PrivateKey, Seed, identity::provider, key::fingerprint,
    roots_from_pem,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Certificates begin a day early, for machines whose clocks are behind.
const CLOCK_SKEW: Duration = DAY;

/// How long an authority's certificate is good for: ten years, since changing it means telling
/// every client.
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);

/// How long a node's certificate is good for: two years. A node makes a new one at a start within
/// the last quarter of them.
const NODE_LIFE: Duration = DAY.saturating_mul(730);

/// At a start, a node's certificate is made anew where it has less than this left.
pub(crate) const RENEW_BEFORE: Duration = DAY.saturating_mul(180);

/// Why a certificate could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A name that is neither a DNS name nor an IP address.
    #[error("{name:?} is neither a DNS name nor an IP address: {source}")]
    Name {
        /// The name.
        name: String,
        /// What rcgen said.
        source: rcgen::Error,
    },
    /// The certificate and the key of the authority do not belong together, or were not made here.
    #[error("this key cannot issue for this authority: {0}")]
    NotThisAuthority(rustls::Error),
    /// The authority's certificate does not parse.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate could not be encoded.
    #[error("the certificate could not be made: {0}")]
    Encode(#[from] rcgen::Error),
}

/// An authority: its certificate and its private key.
#[derive(Debug)]
pub struct Authority {
    cert_pem: String,
    key: PrivateKey,
}

impl Authority {
    /// A new authority with this key, from `now_ms` (milliseconds since 1970) on.
    #[must_use]
    pub fn new(key: PrivateKey, now_ms: u64) -> Self {
        let mut params = Self::params(&key);
        set_life(&mut params, now_ms, AUTHORITY_LIFE);
        let certificate = params.self_signed(key.pair()).expect("fixed parameters make a certificate");
        Self { cert_pem: certificate.pem(), key }
    }

    /// An authority that [`Self::new`] made before.
    ///
    /// # Errors
    /// [`KeyError`](crate::KeyError) where the key is not an Ed25519 key. Whether it is this
    /// certificate's key shows when it issues.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, crate::KeyError> {
        Ok(Self { cert_pem: cert_pem.to_owned(), key: PrivateKey::from_pem(key_pem)? })
    }

    /// The certificate, which clients and nodes trust.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// A certificate for a node, in PEM, good as server and as client. It names [`NODE_NAME`] and
    /// `names`, which are DNS names and IP addresses.
    ///
    /// # Errors
    /// [`IssueError`] where a name is none, or the authority's key is not its certificate's.
    pub fn issue(&self, node: &PrivateKey, names: &[String], now_ms: u64) -> Result<String, IssueError> {
        let mut params = CertificateParams::new(all_names(names)?)?;
        params.distinguished_name = distinguished_name(NODE_NAME.to_owned());
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial(node, now_ms));
        set_life(&mut params, now_ms, NODE_LIFE);
        let issuer = Issuer::new(Self::params(&self.key), self.key.pair());
        let certificate: Certificate = params.signed_by(node.pair(), &issuer)?;
        check_chain(certificate.der(), &self.cert_pem, now_ms)?;
        Ok(certificate.pem())
    }

    /// A node's identity without any file: for tests and simulations.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn identity(&self, seed: &Seed, names: &[String], now_ms: u64) -> Result<Identity, IssueError> {
        let node = PrivateKey::derive(seed, "node");
        let chain = self.issue(&node, names, now_ms)?;
        Ok(Identity::from_pem(&self.cert_pem, &chain, &node.to_pem())?)
    }

    fn params(key: &PrivateKey) -> CertificateParams {
        let mut params = CertificateParams::default();
        // The name tells authorities apart, and follows from the key alone.
        params.distinguished_name =
            distinguished_name(format!("Shoal CA {}", fingerprint(key.public_bytes())));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }
}

/// Must a node's certificate be made anew: about to expire, another authority's, or without one of
/// the names?
pub(crate) fn needs_renewal(identity: &Identity, ca_pem: &str, names: &[String], now_ms: u64) -> bool {
    let later = now_ms.saturating_add(millis(RENEW_BEFORE));
    if check_chain(identity.certificate(), ca_pem, later).is_err() {
        return true;
    }
    let Ok(parsed) = ParsedCertificate::try_from(identity.certificate()) else { return true };
    names.iter().any(|name| {
        ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&parsed, &name).is_err())
    })
}

/// Does the authority vouch for the certificate at `now_ms`?
pub(crate) fn check_chain(node: &CertificateDer<'_>, ca_pem: &str, now_ms: u64) -> Result<(), IssueError> {
    let roots = roots_from_pem(ca_pem)?;
    let parsed = ParsedCertificate::try_from(node).map_err(IssueError::NotThisAuthority)?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now_ms));
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)
        .map_err(IssueError::NotThisAuthority)
}

fn all_names(names: &[String]) -> Result<Vec<String>, IssueError> {
    let mut all = vec![NODE_NAME.to_owned()];
    for name in names {
        CertificateParams::new([name.clone()].to_vec())
            .map_err(|source| IssueError::Name { name: name.clone(), source })?;
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    Ok(all)
}

fn distinguished_name(common: String) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn set_life(params: &mut CertificateParams, now_ms: u64, life: Duration) {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(now_ms);
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + life;
}

/// Differs for each certificate of one key, so that a renewed one is not taken for the old.
fn serial(node: &PrivateKey, now_ms: u64) -> SerialNumber {
    let hash = digest::digest(&digest::SHA256, &[node.public_bytes(), &now_ms.to_be_bytes()].concat());
    let mut number = hash.as_ref()[..16].to_vec();
    // A serial number is positive, and its first byte not zero.
    number[0] = number[0] & 0x7f | 0x40;
    SerialNumber::from(number)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
