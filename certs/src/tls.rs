//! TLS configurations: version 1.3 only, the ring provider passed explicitly, one ALPN each.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    server::{ServerSessionMemoryCache, WebPkiClientVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};
use shoal_protocol::{ALPN, ALPN_PEER};

use crate::{Identity, identity::provider};

/// How many servers a client keeps tickets of.
const CLIENT_SESSIONS_MAX: usize = 32;

/// What a node shows its clients.
///
/// Early data (0-RTT) is accepted; rustls does so only from sessions it still holds, each once, and
/// only within a minute of when it was sent. What is done with it must be harmless under replay all
/// the same (RFC 8446 §8). It holds `sessions_max` of them, the oldest forgotten first; each
/// connection takes two, and about half a kilobyte each. An early connection that finds its session
/// forgotten falls back to a full handshake.
#[must_use]
pub fn server_config(identity: &Identity, sessions_max: usize) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3's suites")
        .with_no_client_auth()
        .with_cert_resolver(resolver(identity));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(sessions_max);
    // QUIC has its own flow control: the only values it allows are none and all.
    config.max_early_data_size = u32::MAX;
    config
}

/// What a node shows other nodes: both ends prove that the authority knows them.
#[must_use]
pub fn peer_server_config(identity: &Identity) -> ServerConfig {
    let verifier = WebPkiClientVerifier::builder_with_provider(identity.roots(), provider())
        .build()
        .expect("an identity has a root");
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3's suites")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver(identity));
    config.alpn_protocols = vec![ALPN_PEER.to_vec()];
    config
}

/// What a node connects to other nodes with, under the name [`crate::NODE_NAME`].
#[must_use]
pub fn peer_client_config(identity: &Identity) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3's suites")
        .with_root_certificates(identity.roots())
        .with_client_cert_resolver(resolver(identity));
    config.alpn_protocols = vec![ALPN_PEER.to_vec()];
    config
}

/// What a client connects with. `roots` are the authorities it trusts: [`crate::roots_from_pem`].
///
/// Tickets are kept within this configuration: a client that keeps it reconnects with early data.
#[must_use]
pub fn client_config(roots: impl Into<Arc<RootCertStore>>) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3's suites")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS_MAX);
    config.enable_early_data = true;
    config
}

/// A server's configuration as quinn takes it.
#[must_use]
pub fn quic_server(config: ServerConfig) -> Arc<QuicServerConfig> {
    Arc::new(QuicServerConfig::try_from(config).expect("the provider has QUIC's initial suite"))
}

/// A client's configuration as quinn takes it.
#[must_use]
pub fn quic_client(config: ClientConfig) -> Arc<QuicClientConfig> {
    Arc::new(QuicClientConfig::try_from(config).expect("the provider has QUIC's initial suite"))
}

fn resolver(identity: &Identity) -> Arc<SingleCertAndKey> {
    Arc::new(SingleCertAndKey::from(identity.certified()))
}
