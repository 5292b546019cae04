//! Certificates, token keys and the clock of a simulated world.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shoal_certs::{Authority, Claims, Identity, NODE_NAME, PrivateKey, Seed, TokenSigner, TokenVerifier};
use shoal_node::{
    clock::{Clock, SystemClock},
    peer::PeerTls,
};
use shoal_protocol::UserId;

/// When every simulated run begins, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_800_000_000_000;

/// The day of the simulated world.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// The wall clock of all hosts; the run sets it.
#[derive(Debug, Clone, Default)]
pub struct SimClock(Arc<AtomicU64>);

impl SimClock {
    /// So long after the run's beginning.
    pub fn set(&self, elapsed: Duration) {
        self.0.store(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long ago the run began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        EPOCH_MS + self.0.load(Ordering::Relaxed)
    }
}

/// Keys of a world, made from its seed.
#[derive(Debug)]
pub struct Keys {
    ca_pem: String,
    identity: Identity,
    signer: TokenSigner,
    verifier: TokenVerifier,
}

impl Keys {
    /// The same keys for the same seed. The certificate counts by the machine's clock, since that
    /// is what TLS looks at.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let seed = Seed::from_number(seed);
        let now_ms = SystemClock.now_ms();
        let authority = Authority::new(PrivateKey::derive(&seed, "ca"), now_ms);
        let key = PrivateKey::derive(&seed, "node");
        let chain = authority.issue(&key, &[NODE_NAME.to_owned()], now_ms).expect("a name that is valid");
        let token = PrivateKey::derive(&seed, "token");
        Self {
            ca_pem: authority.cert_pem().to_owned(),
            identity: Identity::from_pem(authority.cert_pem(), &chain, &key.to_pem()).expect("just issued"),
            signer: TokenSigner::from_pem(&token.to_pem()).expect("a key just made"),
            verifier: TokenVerifier::from_pem(&token.public_pem()).expect("a key just made"),
        }
    }

    /// What nodes show their clients.
    #[must_use]
    pub fn server_tls(&self) -> rustls::ServerConfig {
        shoal_certs::server_config(&self.identity, 256)
    }

    /// What nodes show each other.
    #[must_use]
    pub fn peer_tls(&self) -> PeerTls {
        PeerTls {
            server: shoal_certs::peer_server_config(&self.identity),
            client: shoal_certs::peer_client_config(&self.identity),
        }
    }

    /// What a client trusts.
    #[must_use]
    pub fn client_tls(&self) -> rustls::ClientConfig {
        let roots = shoal_certs::roots_from_pem(&self.ca_pem).expect("an authority just made");
        shoal_certs::client_config(roots)
    }

    /// Checks tokens.
    #[must_use]
    pub fn verifier(&self) -> TokenVerifier {
        self.verifier.clone()
    }

    /// A user's token for a day.
    #[must_use]
    pub fn token(&self, user: &UserId) -> String {
        self.signer.sign(&Claims::new(user.clone(), EPOCH_MS, EPOCH_MS + DAY_MS))
    }

    /// That of an administrator.
    #[must_use]
    pub fn admin_token(&self, user: &UserId) -> String {
        let claims = Claims::new(user.clone(), EPOCH_MS, EPOCH_MS + DAY_MS);
        self.signer.sign(&Claims { admin: true, ..claims })
    }
}
