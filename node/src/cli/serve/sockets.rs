//! The node's sockets: UDP for clients, IPv4 and IPv6 apart, and TCP for operations.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use anyhow::Context;
use quinn::{AsyncUdpSocket, Runtime};
use shoal_node::{
    config::Config,
    ops::{self, Metrics},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, task::JoinHandle};
use tracing::info;

use super::{super::output::Hinted, lifecycle::Phase};

/// What is bound before anything else is opened, so that an address in use shows at once.
#[derive(Debug)]
pub(super) struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
    peer: Option<UdpSocket>,
    /// Where clients are listened to.
    pub(super) clients: Vec<SocketAddr>,
    /// Where operations are.
    pub(super) ops: Vec<SocketAddr>,
    /// Where other nodes are listened to, if there may be some.
    pub(super) peers: Option<SocketAddr>,
}

impl Sockets {
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Self> {
        let mut udp = Vec::new();
        let listen = if config.roles().access { config.listen.as_slice() } else { &[] };
        for address in listen {
            match bind_udp(*address, config.socket_buffer_bytes) {
                Ok(socket) => udp.push(socket),
                // Nobody asked for it by name, and not every machine has IPv6.
                Err(error) if is_absent(&error) && address.is_ipv6() && is_default(config) => {
                    info!(%address, "no IPv6 here");
                }
                Err(error) => return Err(refused("listen", *address, &error)),
            }
        }
        let mut tcp = Vec::new();
        for address in &config.ops {
            let listener =
                TcpListener::bind(address).await.map_err(|error| refused("ops", *address, &error))?;
            tcp.push(listener.into_std()?);
        }
        let mut peer = None;
        if !config.coordination.etcd.is_empty() {
            let address = config.peer_listen;
            let socket = bind_udp(address, config.socket_buffer_bytes);
            peer = Some(socket.map_err(|error| refused("peer_listen", address, &error))?);
        }
        let peers = peer.as_ref().map(UdpSocket::local_addr).transpose()?;
        let clients = udp.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
        let ops = tcp.iter().map(std::net::TcpListener::local_addr).collect::<io::Result<_>>()?;
        Ok(Self { udp, tcp, peer, clients, ops, peers })
    }

    /// Answers for operations, from now on.
    pub(super) fn serve_ops(&self, metrics: &Arc<Metrics>, phase: &Phase) -> anyhow::Result<JoinHandle<()>> {
        let mut servers = tokio::task::JoinSet::new();
        for listener in &self.tcp {
            let listener = TcpListener::from_std(listener.try_clone()?)?;
            servers.spawn(ops::serve(listener, Arc::clone(metrics), phase.probe()));
        }
        Ok(tokio::spawn(async move { while servers.join_next().await.is_some() {} }))
    }

    /// The one for other nodes, for quinn.
    pub(super) fn wrapped_peer(
        &self,
        runtime: &dyn Runtime,
    ) -> anyhow::Result<Option<Arc<dyn AsyncUdpSocket>>> {
        let wrap = |socket: &UdpSocket| runtime.wrap_udp_socket(socket.try_clone()?);
        self.peer.as_ref().map(wrap).transpose().context("peer_listen")
    }

    /// Those for clients, for quinn.
    pub(super) fn wrapped(&self, runtime: &dyn Runtime) -> anyhow::Result<Vec<Arc<dyn AsyncUdpSocket>>> {
        let wrap = |socket: &UdpSocket| runtime.wrap_udp_socket(socket.try_clone()?);
        self.udp.iter().map(wrap).collect::<io::Result<_>>().context("listen")
    }
}

fn bind_udp(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // On a dual-stack socket every IPv4 client looks like an IPv6 one, and loses its
        // congestion state when its address changes.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(buffer_bytes)?;
    socket.set_send_buffer_size(buffer_bytes)?;
    let given = socket.recv_buffer_size()?.min(socket.send_buffer_size()?);
    if given < buffer_bytes {
        let advice = "bursts may be lost: raise net.core.rmem_max and net.core.wmem_max";
        info!(%address, given, wanted = buffer_bytes, "small socket buffers; {advice}");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn is_default(config: &Config) -> bool {
    config.listen == Config::default().listen
}

fn refused(key: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has this address, perhaps another node: give another one"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: give a higher one",
        _ => "it must be an address of this machine",
    };
    Hinted { message: format!("{key}: {address}: {error}"), hint: format!("{hint} with --{key} ADDR") }.into()
}
