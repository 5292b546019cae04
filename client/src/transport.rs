//! Sockets: the machine's, or those that a simulation gives.

use std::{
    fmt,
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures_util::Stream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::shell::lock;

/// Changes of the network below a [`Transport`].
pub type NetworkChanges = Pin<Box<dyn Stream<Item = ()> + Send>>;

/// A future of a [`Transport`].
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// What the client reaches nodes by.
///
/// An app does not need this: the default is [`UdpTransport`]. Whoever runs many clients in one
/// process shares one between them; a simulation brings its own sockets.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// The addresses of a node that was named as `host:port`, the best first.
    fn resolve<'a>(&'a self, node: &'a str) -> Resolving<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host(node).await?.collect()) })
    }

    /// An endpoint that reaches `remote`. The same one may be given again and again.
    ///
    /// # Errors
    /// Where no socket can be had; the client tries again later.
    fn endpoint(&self, remote: SocketAddr) -> io::Result<quinn::Endpoint>;

    /// An item for each change of the network below, where that is noticed; the client then acts as after
    /// [`Client::network_changed`](crate::Client::network_changed). By default none is.
    fn changes(&self) -> NetworkChanges {
        Box::pin(futures_util::stream::pending())
    }

    /// The machine's network has changed: moves the endpoints to new sockets, if it can. Whether
    /// it did.
    ///
    /// # Errors
    /// Where no socket can be had.
    fn rebind(&self) -> io::Result<bool> {
        Ok(false)
    }
}

/// UDP sockets of the machine: one for IPv4 and one for IPv6, each bound when it is first needed.
///
/// They are apart since on a dual-stack socket an IPv4 client looks like an IPv6 one and loses its
/// congestion state whenever its address changes.
#[derive(Debug, Default)]
pub struct UdpTransport {
    v4: Mutex<Option<quinn::Endpoint>>,
    v6: Mutex<Option<quinn::Endpoint>>,
    #[cfg(feature = "network-watch")]
    watches: bool,
}

/// What a burst of deliveries needs; the system may give less.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;

impl UdpTransport {
    /// Without a socket yet. Changes of the machine's network are not noticed: for many clients that share it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, and its client notices when the machine's addresses change and when it has slept, as far as the
    /// system tells (feature `network-watch`). What [`Config::new`](crate::Config::new) has.
    #[must_use]
    pub fn watching() -> Self {
        Self {
            #[cfg(feature = "network-watch")]
            watches: true,
            ..Self::default()
        }
    }
}

impl Transport for UdpTransport {
    fn endpoint(&self, remote: SocketAddr) -> io::Result<quinn::Endpoint> {
        let mut endpoint = lock(if remote.is_ipv4() { &self.v4 } else { &self.v6 });
        if let Some(endpoint) = &*endpoint {
            return Ok(endpoint.clone());
        }
        let socket = bind(remote.is_ipv4())?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let bound = quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)?;
        Ok(endpoint.insert(bound).clone())
    }

    #[cfg(feature = "network-watch")]
    fn changes(&self) -> NetworkChanges {
        if self.watches {
            Box::pin(crate::watch::changes())
        } else {
            Box::pin(futures_util::stream::pending())
        }
    }

    fn rebind(&self) -> io::Result<bool> {
        let mut moved = false;
        for (endpoint, v4) in [(&self.v4, true), (&self.v6, false)] {
            let endpoint = lock(endpoint).clone();
            if let Some(endpoint) = endpoint {
                endpoint.rebind(bind(v4)?)?;
                moved = true;
            }
        }
        Ok(moved)
    }
}

fn bind(v4: bool) -> io::Result<UdpSocket> {
    let (domain, address) = if v4 {
        (Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    } else {
        (Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if !v4 {
        socket.set_only_v6(true)?;
    }
    // A system that gives less still works, with more retransmissions under load.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}
