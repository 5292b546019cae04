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

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::AddAssign,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle},
    time::Instant,
};

use crate::{
    path::Path,
    weather::{Sky, Weather},
};

/// The largest UDP payload.
const PAYLOAD_BYTES_MAX: usize = 65_507;

/// Packets from the node that wait for the relay; beyond that they are lost, as in any router.
const FROM_NODE_MAX: usize = 4_096;

/// Packets on their way, of all clients together; beyond that they are lost.
const ON_THE_WAY_MAX: usize = 262_144;

/// Clients at once; those that have been silent for longest make room.
const FLOWS_MAX: usize = 16_384;

/// How often it is looked whether addresses change: also where nobody says anything.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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
        let (from_node, packets) = mpsc::channel(FROM_NODE_MAX);
        let running = Running {
            node,
            listening,
            weather: Box::new(weather),
            seed,
            counters: counters.clone(),
            changed,
            began,
            flows: BTreeMap::new(),
            clients: BTreeMap::new(),
            count: 0,
            on_the_way: BinaryHeap::new(),
            sent: 0,
            from_node,
        };
        let running: JoinHandle<()> = tokio::spawn(running.run(packets));
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

/// A packet on its way.
#[derive(Debug)]
struct Packet {
    due: Duration,
    /// Of two that are due together the one that was sent first.
    number: u64,
    flow: u64,
    direction: Direction,
    payload: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Ord for Packet {
    /// The one that is due first is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Packet {}

/// One client.
struct Flow {
    client: SocketAddr,
    heard: Duration,
    weather: Weather,
    up: Path,
    down: Path,
    /// As of the last look.
    moves: u64,
    /// Likewise.
    is_dark: bool,
    outside: Outside,
}

/// The socket by which the node knows a client, and who listens there.
struct Outside {
    socket: Arc<UdpSocket>,
    listening: AbortHandle,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

type FromNode = (u64, Bytes);

struct Running {
    node: SocketAddr,
    listening: UdpSocket,
    weather: Box<dyn Fn(u64) -> Weather + Send>,
    seed: u64,
    counters: Arc<Counters>,
    changed: watch::Sender<Option<Instant>>,
    began: Instant,
    flows: BTreeMap<u64, Flow>,
    clients: BTreeMap<SocketAddr, u64>,
    /// Clients so far.
    count: u64,
    on_the_way: BinaryHeap<Packet>,
    /// Packets so far.
    sent: u64,
    from_node: mpsc::Sender<FromNode>,
}

impl Running {
    async fn run(mut self, mut packets: mpsc::Receiver<FromNode>) {
        let mut buffer = vec![0; PAYLOAD_BYTES_MAX];
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let due = self.on_the_way.peek().map(|packet| self.began + packet.due);
            tokio::select! {
                biased;
                () = sleep_until(due) => self.pass_on(),
                _ = look.tick() => self.look(),
                Some((flow, payload)) = packets.recv() => self.take(flow, Direction::Down, payload),
                received = self.listening.recv_from(&mut buffer) => match received {
                    Ok((bytes, client)) => self.take_from(client, Bytes::copy_from_slice(&buffer[..bytes])),
                    // A client that is gone: the system says so of what was sent to it.
                    Err(error) => tracing::debug!(%error, "nothing received"),
                },
            }
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn take_from(&mut self, client: SocketAddr, payload: Bytes) {
        let flow = match self.clients.get(&client) {
            Some(flow) => *flow,
            None => match self.open(client) {
                Ok(flow) => flow,
                Err(error) => return tracing::warn!(%error, "no socket for another client"),
            },
        };
        self.take(flow, Direction::Up, payload);
    }

    /// A client that was not heard of before.
    fn open(&mut self, client: SocketAddr) -> io::Result<u64> {
        if self.flows.len() >= FLOWS_MAX {
            self.close_the_quietest();
        }
        self.count += 1;
        let (number, now) = (self.count, self.now());
        let seed = self.seed.wrapping_add(number.wrapping_mul(2));
        let weather = (self.weather)(number);
        let sky = weather.at(now);
        let flow = Flow {
            client,
            heard: now,
            weather,
            up: Path::new(seed),
            down: Path::new(seed.wrapping_add(1)),
            moves: sky.moves,
            is_dark: sky.is_dark,
            outside: self.outside(number, 0)?,
        };
        self.flows.insert(number, flow);
        self.clients.insert(client, number);
        Ok(number)
    }

    fn close_the_quietest(&mut self) {
        let quietest = self.flows.iter().min_by_key(|(_, flow)| flow.heard).map(|(number, _)| *number);
        if let Some(flow) = quietest.and_then(|number| self.flows.remove(&number)) {
            self.clients.remove(&flow.client);
        }
    }

    fn outside(&self, flow: u64, moves: u64) -> io::Result<Outside> {
        let socket = Arc::new(bind(SocketAddr::new(local(self.node, moves), 0))?);
        let (from, to, node) = (socket.clone(), self.from_node.clone(), self.node);
        let listening = tokio::spawn(async move {
            let mut buffer = vec![0; PAYLOAD_BYTES_MAX];
            loop {
                match from.recv_from(&mut buffer).await {
                    Ok((bytes, sender)) if sender == node => {
                        // What the relay has no room for is lost.
                        let _ = to.try_send((flow, Bytes::copy_from_slice(&buffer[..bytes])));
                    }
                    // From somebody else.
                    Ok(_) => {}
                    // A node that is down: the system says so of what was sent to it. No more often than that.
                    Err(_) => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        });
        Ok(Outside { socket, listening: listening.abort_handle() })
    }

    /// A packet has come, and sets out on its way.
    fn take(&mut self, number: u64, direction: Direction, payload: Bytes) {
        let now = self.now();
        let Some(flow) = self.flows.get_mut(&number) else { return };
        flow.heard = now;
        let Sky { up, down, is_dark, .. } = flow.weather.at(now);
        let (path, conditions, counter) = match direction {
            Direction::Up => (&mut flow.up, up, &self.counters.up),
            Direction::Down => (&mut flow.down, down, &self.counters.down),
        };
        counter.fetch_add(1, Relaxed);
        self.counters.bytes.fetch_add(payload.len() as u64, Relaxed);
        let arrivals = if is_dark { [None; 2] } else { path.send(&conditions, payload.len(), now) };
        if arrivals[0].is_none() || self.on_the_way.len() >= ON_THE_WAY_MAX {
            self.counters.lost.fetch_add(1, Relaxed);
            return;
        }
        for due in arrivals.into_iter().flatten() {
            self.sent += 1;
            let packet = Packet { due, number: self.sent, flow: number, direction, payload: payload.clone() };
            self.on_the_way.push(packet);
        }
    }

    /// What is due arrives.
    fn pass_on(&mut self) {
        let now = self.now();
        while self.on_the_way.peek().is_some_and(|packet| packet.due <= now) {
            let Some(packet) = self.on_the_way.pop() else { return };
            let Some(flow) = self.flows.get(&packet.flow) else { continue };
            let passed = match packet.direction {
                Direction::Up => flow.outside.socket.try_send_to(&packet.payload, self.node),
                Direction::Down => self.listening.try_send_to(&packet.payload, flow.client),
            };
            if let Err(error) = passed {
                tracing::debug!(%error, "the system does not take a packet");
                self.counters.lost.fetch_add(1, Relaxed);
            }
        }
    }

    /// Whose network has moved gets another socket.
    fn look(&mut self) {
        let now = self.now();
        let mut moved = Vec::new();
        for (number, flow) in &mut self.flows {
            let Sky { is_dark, moves, .. } = flow.weather.at(now);
            if moves != flow.moves {
                moved.push((*number, moves));
            }
            if is_dark != flow.is_dark || moves != flow.moves {
                flow.is_dark = is_dark;
                self.changed.send_replace((!is_dark).then(Instant::now));
            }
        }
        for (number, moves) in moved {
            match self.outside(number, moves) {
                Ok(outside) => {
                    self.counters.moves.fetch_add(1, Relaxed);
                    if let Some(flow) = self.flows.get_mut(&number) {
                        (flow.moves, flow.outside) = (moves, outside);
                    }
                }
                Err(error) => tracing::warn!(%error, "a client stays at its address"),
            }
        }
    }
}

/// Waits until then, if it is ever. Cancellation safe.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
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
