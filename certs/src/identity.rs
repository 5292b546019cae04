//! Who a node is: its certificate, its key, and the authority that vouches for it and its peers.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};

/// The name in every node's certificate. Peers connect under it, as may clients, so that a node
/// can change its address without a new certificate.
pub const NODE_NAME: &str = "node.shoal.internal";

/// What a PEM text had not, in an [`IdentityError::Pem`].
pub(crate) const PRIVATE_KEY: &str = "private key";

/// Why PEM text is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not PEM, or not what was looked for.
    #[error("no {what} in the PEM text: {source}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// What the parser said.
        source: pem::Error,
    },
    /// A file without a certificate.
    #[error("no certificate in the PEM text of the {0}")]
    NoCertificate(&'static str),
    /// A certificate that cannot be used, or a key that is not that certificate's.
    #[error("the certificate of the {what} cannot be used: {source}")]
    Unusable {
        /// Whose certificate.
        what: &'static str,
        /// What rustls said.
        source: rustls::Error,
    },
}

/// A node's certificate chain and private key, which belong together, and the roots it trusts.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Identity {
    roots: Arc<RootCertStore>,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// From PEM text: the authority's certificates, the node's chain (its own first), its key.
    ///
    /// Expiry is not looked at here; whoever connects does.
    ///
    /// # Errors
    /// [`IdentityError`] where one of them does not parse, or the key is another certificate's.
    pub fn from_pem(ca: &str, chain: &str, key: &str) -> Result<Self, IdentityError> {
        let roots = Arc::new(roots_from_pem(ca)?);
        let chain = certificates(chain, "node")?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|source| IdentityError::Pem { what: PRIVATE_KEY, source })?;
        let unusable = |source| IdentityError::Unusable { what: "node", source };
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(unusable)?;
        certified.keys_match().map_err(unusable)?;
        Ok(Self { roots, certified: Arc::new(certified) })
    }

    /// The authorities this node trusts.
    #[must_use]
    pub fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    /// The chain and key.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// The node's certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.certified.cert.first().expect("an identity is made with a certificate")
    }
}

/// The authorities in a PEM text, for [`crate::client_config`].
///
/// # Errors
/// [`IdentityError`] where there is none, or one that cannot be used.
pub fn roots_from_pem(ca: &str) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, "authority")? {
        roots.add(certificate).map_err(|source| IdentityError::Unusable { what: "authority", source })?;
    }
    Ok(roots)
}

/// The one crypto provider: ring, said explicitly, with TLS 1.3's suites in order of cost.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    use rustls::crypto::ring::{self, cipher_suite as suite};

    Arc::new(CryptoProvider {
        // rustls would put AES-256 first, which costs each packet 14 rounds instead of 10.
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
        ],
        ..ring::default_provider()
    })
}

fn certificates(text: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| IdentityError::Pem { what: "certificate", source })?;
    if found.is_empty() { Err(IdentityError::NoCertificate(what)) } else { Ok(found) }
}
