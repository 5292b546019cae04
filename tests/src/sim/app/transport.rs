//! The client's sockets on the simulated network.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quinn::{ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, TokioRuntime};
use rand::{Rng, SeedableRng, rngs::StdRng};
use shoal_client::{Resolving, Transport};

use super::socket::PhoneSocket;
use crate::sim::{network::Weather, reception::Reception};

const CONNECTION_ID_BYTES: usize = 8;

/// One socket at a time, from a seed.
pub(in crate::sim) struct SimTransport {
    endpoint: Endpoint,
    weather: Weather,
    reception: Reception,
    seed: u64,
    rebinds: AtomicU64,
}

impl SimTransport {
    /// Binds a socket of this host.
    pub(in crate::sim) fn new(weather: &Weather, reception: &Reception, seed: u64) -> io::Result<Self> {
        let mut config = EndpointConfig::default();
        let mut bytes = [0; 32];
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        config.rng_seed(Some(bytes)).cid_generator(move || Box::new(SeededIds(StdRng::seed_from_u64(seed))));
        let socket = Arc::new(PhoneSocket::bind(weather, reception, seed)?);
        let endpoint = Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime))?;
        let (weather, reception) = (weather.clone(), reception.clone());
        Ok(Self { endpoint, weather, reception, seed, rebinds: AtomicU64::new(0) })
    }
}

impl Transport for SimTransport {
    fn resolve<'a>(&'a self, node: &'a str) -> Resolving<'a> {
        let address = node
            .split_once(':')
            .and_then(|(name, port)| Some(SocketAddr::from((turmoil::lookup(name), port.parse().ok()?))));
        Box::pin(async move { address.map(|address| vec![address]).ok_or(io::ErrorKind::NotFound.into()) })
    }

    fn endpoint(&self, _remote: SocketAddr) -> io::Result<Endpoint> {
        Ok(self.endpoint.clone())
    }

    fn rebind(&self) -> io::Result<bool> {
        let nth = 1 + self.rebinds.fetch_add(1, Ordering::Relaxed);
        let socket = PhoneSocket::bind(&self.weather, &self.reception, self.seed ^ nth << 32)?;
        self.endpoint.rebind_abstract(Arc::new(socket))?;
        Ok(true)
    }
}

impl fmt::Debug for SimTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimTransport({})", self.seed)
    }
}

#[derive(Debug)]
struct SeededIds(StdRng);

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        self.0.fill_bytes(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
