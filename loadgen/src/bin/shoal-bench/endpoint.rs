//! Endpoints of the bare servers and of those who connect.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use quinn::{Endpoint, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use shoal_certs::KeyFolder;

/// A thousand datagrams at once, as when a message goes to everybody, must find room.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

const TLS_SESSIONS_MAX: usize = 256;

/// The bare server's endpoint.
pub(crate) fn server(listen: SocketAddr, keys: &KeyFolder) -> Result<Endpoint> {
    let tls = shoal_certs::server_config(&keys.identity()?, TLS_SESSIONS_MAX);
    let mut config = quinn::ServerConfig::with_crypto(shoal_certs::quic_server(tls));
    config.transport_config(Arc::new(server_transport()));
    open(listen, Some(config))
}

/// Either end of what stands beside a link between nodes.
pub(crate) fn peer(listen: SocketAddr, keys: &KeyFolder) -> Result<Endpoint> {
    let (identity, transport) = (keys.identity()?, Arc::new(peer_transport()));
    let tls = shoal_certs::quic_server(shoal_certs::peer_server_config(&identity));
    let mut server = quinn::ServerConfig::with_crypto(tls);
    server.transport_config(Arc::clone(&transport));
    let tls = shoal_certs::quic_client(shoal_certs::peer_client_config(&identity));
    let mut client = quinn::ClientConfig::new(tls);
    client.transport_config(transport);
    let mut endpoint = open(listen, Some(server))?;
    endpoint.set_default_client_config(client);
    Ok(endpoint)
}

/// So many client endpoints, each with a socket of its own.
pub(crate) fn clients(count: usize, keys: &KeyFolder) -> Result<Vec<Endpoint>> {
    let roots = shoal_certs::roots_from_pem(&keys.ca_pem()?)?;
    let tls = shoal_certs::quic_client(shoal_certs::client_config(roots));
    let mut config = quinn::ClientConfig::new(tls);
    config.transport_config(Arc::new(client_transport()));
    let client = |_| {
        let mut endpoint = open((Ipv4Addr::LOCALHOST, 0).into(), None)?;
        endpoint.set_default_client_config(config.clone());
        Ok(endpoint)
    };
    (0..count).map(client).collect()
}

fn open(addr: SocketAddr, config: Option<quinn::ServerConfig>) -> Result<Endpoint> {
    let socket = UdpSocket::bind(addr).with_context(|| format!("cannot bind {addr}"))?;
    let sizes = socket2::SockRef::from(&socket);
    sizes.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    sizes.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    Ok(Endpoint::new(EndpointConfig::default(), config, socket, runtime)?)
}

/// The node's settings as they are by default (`limits.access`), so that only what is done with
/// the connections differs.
fn server_transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(13))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .send_window(256 << 10)
        .receive_window(VarInt::from_u32(256 << 10))
        .stream_receive_window(VarInt::from_u32(128 << 10))
        .datagram_receive_buffer_size(Some(16 << 10))
        .datagram_send_buffer_size(16 << 10)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(75_000))));
    transport
}

/// The windows of a link between nodes.
fn peer_transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .send_window(32 << 20)
        .receive_window(VarInt::from_u32(32 << 20))
        .stream_receive_window(VarInt::from_u32(8 << 20));
    transport
}

fn client_transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(256))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(60_000))))
        .keep_alive_interval(Some(Duration::from_secs(20)));
    transport
}
