//! QUIC endpoints for many small clients, rather than one fat link.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use quinn::{
    AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, Runtime, ServerConfig, TimeSource, TransportConfig, VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicServerConfig},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use ring::{hkdf, hmac};

use crate::{clock::Clock, config::AccessLimits};

/// How long a connection that was lost in a crash may go unnoticed is bounded by how many clients
/// can be told in a second: 20,000.
const RESET_INTERVAL: Duration = Duration::from_micros(50);

/// Room for the first packets of a connection that waits to be accepted, and of all of them.
const INCOMING_BYTES_MAX: u64 = 16 << 10;
const INCOMING_BYTES_TOTAL_MAX: u64 = 16 << 20;

/// Unsent datagrams of one client; older ones make room.
const DATAGRAM_BYTES_MAX: usize = 16 << 10;

/// What is the same for all endpoints of a node, and (the keys) after a restart.
pub(crate) struct Transport {
    server: ServerConfig,
    reset_key: hmac::Key,
}

impl Transport {
    /// # Errors
    /// Where `tls` lacks the cipher suite that QUIC begins with.
    pub(crate) fn new(
        tls: rustls::ServerConfig,
        secret: &[u8; 32],
        clock: Arc<dyn Clock>,
        limits: &AccessLimits,
    ) -> Result<Self, NoInitialCipherSuite> {
        let crypto = QuicServerConfig::try_from(tls)?;
        let mut server = ServerConfig::new(Arc::new(crypto), Arc::new(derive(secret, b"address tokens")));
        server
            .transport_config(Arc::new(transport(limits)))
            .migration(true)
            .max_incoming(limits.newcomers_max)
            .incoming_buffer_size(INCOMING_BYTES_MAX)
            .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX)
            .time_source(Arc::new(WallTime(clock)));
        Ok(Self { server, reset_key: reset_key(secret) })
    }

    /// Serves on a socket.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn endpoint(
        &self,
        socket: Arc<dyn AsyncUdpSocket>,
        runtime: Arc<dyn Runtime>,
        random: &mut StdRng,
    ) -> io::Result<Endpoint> {
        let (mut seed, mut ids) = ([0; 32], [0; 32]);
        random.fill_bytes(&mut seed);
        random.fill_bytes(&mut ids);
        let mut config = EndpointConfig::new(Arc::new(self.reset_key.clone()));
        config
            .rng_seed(Some(seed))
            .min_reset_interval(RESET_INTERVAL)
            .cid_generator(move || Box::new(SeededIds(StdRng::from_seed(ids))));
        Endpoint::new_with_abstract_socket(config, Some(self.server.clone()), socket, runtime)
    }
}

fn transport(limits: &AccessLimits) -> TransportConfig {
    let streams = 1 + limits.publish_streams_max + limits.requests_max;
    let streams = u32::try_from(streams).unwrap_or(u32::MAX);
    let mut transport = TransportConfig::default();
    transport
        // Every permitted stream costs memory, used or not.
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .send_window(limits.send_window_bytes.into())
        .receive_window(VarInt::from_u32(limits.receive_window_bytes))
        .stream_receive_window(VarInt::from_u32(limits.stream_receive_window_bytes))
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES_MAX))
        .datagram_send_buffer_size(DATAGRAM_BYTES_MAX)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(limits.idle_timeout_ms))))
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()));
    transport
}

fn derive(secret: &[u8; 32], purpose: &[u8]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, purpose).extract(secret)
}

fn reset_key(secret: &[u8; 32]) -> hmac::Key {
    struct KeyBytes;

    impl hkdf::KeyType for KeyBytes {
        fn len(&self) -> usize {
            32
        }
    }

    let mut key = [0; 32];
    derive(secret, b"stateless resets")
        .expand(&[], KeyBytes)
        .and_then(|okm| okm.fill(&mut key))
        .expect("HKDF gives 32 bytes");
    hmac::Key::new(hmac::HMAC_SHA256, &key)
}

/// Connection ids from a seed. They carry no mark of this run, so that packets for connections of
/// the last one are answered with a stateless reset rather than dropped.
struct SeededIds(StdRng);

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        self.0.fill_bytes(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The node's clock, for the expiry of address tokens.
struct WallTime(Arc<dyn Clock>);

impl TimeSource for WallTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.now_ms())
    }
}
