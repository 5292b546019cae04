//! A relay between UDP sockets: clients send to it as to their node, and what it passes on fares as on a weak
//! network.
//!
//! ```text
//!  client ──► the relay's socket ──► up: a path, chance, time ──► a socket for each client ──► node
//!         ◄──                    ◄── down                    ◄──
//! ```
//!
//! Each client has a path of its own, and a socket towards the node, so the node sees as many addresses as
//! there are clients. Where a network moves, that socket is closed, and the next thing the client says comes
//! from another: first from another port, then from another address too.

mod running;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::Instant,
};

use self::running::Running;
use crate::weather::Weather;

/// What the system is asked to keep for the relay; it may give less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What has passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Packets that clients sent.
    pub up: u64,
    /// Packets that the node sent.
    pub down: u64,
    /// Bytes of UDP payload of both.
    pub bytes: u64,
    /// Packets that were lost, or cut off.
    pub lost: u64,
    /// Changes of address.
    pub moves: u64,
}

impl AddAssign for RelayStats {
    fn add_assign(&mut self, other: Self) {
        self.up += other.up;
        self.down += other.down;
        self.bytes += other.bytes;
        self.lost += other.lost;
        self.moves += other.moves;
    }
}

#[derive(Debug, Default)]
struct Counters {
    up: AtomicU64,
    down: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    moves: AtomicU64,
}

/// A relay to one node, until it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    counters: Arc<Counters>,
    running: AbortHandle,
}

impl Relay {
    /// Takes clients on a free port of this machine, and passes on to `node` what gets through. `weather`
    /// makes the network of each client, by its number, 1, 2, 3, …; its time is that since `began`.
    /// `changed` is told when a client has to find its way anew: its network passes again, or at another
    /// address; and none, while nothing passes.
    ///
    /// # Errors
    /// Where no socket can be had.
    pub fn start(
        node: SocketAddr,
        seed: u64,
        began: Instant,
        changed: watch::Sender<Option<Instant>>,
        weather: impl Fn(u64) -> Weather + Send + 'static,
    ) -> io::Result<Self> {
        let listening = bind(SocketAddr::new(local(node, 0), 0))?;
        let address = listening.local_addr()?;
        let counters = Arc::<Counters>::default();
        let running =
            Running::new(node, listening, seed, began, changed, counters.clone(), Box::new(weather));
        let running: JoinHandle<()> = tokio::spawn(running.run());
        Ok(Self { address, counters, running: running.abort_handle() })
    }

    /// Where clients are to send.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has passed so far.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        let Counters { up, down, bytes, lost, moves } = &*self.counters;
        RelayStats {
            up: up.load(Relaxed),
            down: down.load(Relaxed),
            bytes: bytes.load(Relaxed),
            lost: lost.load(Relaxed),
            moves: moves.load(Relaxed),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// An address of this machine, of the family of `node`: every other move leads to another.
fn local(node: SocketAddr, moves: u64) -> IpAddr {
    match node.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::new(127, 0, 0, 1 + (moves / 2 % 200) as u8).into(),
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(ip) if ip.is_loopback() => ip.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    UdpSocket::from_std(socket.into())
}
