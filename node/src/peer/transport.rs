//! QUIC endpoints for few links that carry much.

use std::{io, sync::Arc, time::Duration};

use quinn::{
    AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, IdleTimeout, Runtime, ServerConfig,
    TransportConfig, VarInt,
};
use rand::{Rng, rngs::StdRng};
use ring::hmac;

/// What both ends show each other.
#[derive(Debug, Clone)]
pub struct PeerTls {
    /// For nodes that connect.
    pub server: rustls::ServerConfig,
    /// For connecting to nodes.
    pub client: rustls::ClientConfig,
}

/// A gigabit link of 200 ms has 25 MB under way.
const WINDOW_BYTES: u32 = 32 << 20;
/// One stream's share of it.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Groups that deliver at the same time; the streams of others are finished, and opened anew.
pub(super) const FEED_STREAMS_MAX: u32 = 1024;
/// The control stream, the lanes, and requests under way.
const STREAMS_MAX: u32 = 1024;
/// Datagrams that wait, each way; older ones make room.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Links are given up long before, by their beats.
const IDLE_TIMEOUT_MS: u32 = 10_000;
/// Handshakes at once: there are as many nodes.
const INCOMING_MAX: usize = 256;

/// An endpoint that serves other nodes, and connects to them.
///
/// # Errors
/// Those of the socket.
pub(crate) fn endpoint(
    tls: PeerTls,
    socket: Arc<dyn AsyncUdpSocket>,
    runtime: Arc<dyn Runtime>,
    random: &mut StdRng,
) -> io::Result<(Endpoint, ClientConfig)> {
    let transport = Arc::new(transport());
    let mut secret = [0; 32];
    random.fill_bytes(&mut secret);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
    random.fill_bytes(&mut secret);
    config.rng_seed(Some(secret));
    let mut server = ServerConfig::with_crypto(shoal_certs::quic_server(tls.server));
    server.transport_config(Arc::clone(&transport)).max_incoming(INCOMING_MAX);
    let mut client = ClientConfig::new(shoal_certs::quic_client(tls.client));
    client.transport_config(transport);
    Ok((Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime)?, client))
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(FEED_STREAMS_MAX))
        .send_window(WINDOW_BYTES.into())
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .keep_alive_interval(None::<Duration>)
        .datagram_receive_buffer_size(Some(DATAGRAM_BYTES_MAX))
        .datagram_send_buffer_size(DATAGRAM_BYTES_MAX)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))));
    transport
}
