//! The relay's task: what comes sets out on its path, what is due arrives, and whose network moves gets another
//! socket.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap},
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::AbortHandle,
    time::Instant,
};

use super::{Counters, bind, local};
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

/// How often it is looked whether addresses change: also where nobody says anything, but not where none can.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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

/// The task, before it runs.
pub(super) struct Running {
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
    /// One of them may move, or be cut off.
    may_change: bool,
    on_the_way: BinaryHeap<Packet>,
    /// Packets so far.
    sent: u64,
    from_node: mpsc::Sender<FromNode>,
    packets: mpsc::Receiver<FromNode>,
}

impl Running {
    pub(super) fn new(
        node: SocketAddr,
        listening: UdpSocket,
        seed: u64,
        began: Instant,
        changed: watch::Sender<Option<Instant>>,
        counters: Arc<Counters>,
        weather: Box<dyn Fn(u64) -> Weather + Send>,
    ) -> Self {
        let (from_node, packets) = mpsc::channel(FROM_NODE_MAX);
        Self {
            node,
            listening,
            weather,
            seed,
            counters,
            changed,
            began,
            flows: BTreeMap::new(),
            clients: BTreeMap::new(),
            count: 0,
            may_change: false,
            on_the_way: BinaryHeap::new(),
            sent: 0,
            from_node,
            packets,
        }
    }

    pub(super) async fn run(mut self) {
        let mut buffer = vec![0; PAYLOAD_BYTES_MAX];
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let due = self.on_the_way.peek().map(|packet| self.began + packet.due);
            tokio::select! {
                biased;
                () = sleep_until(due) => self.pass_on(),
                _ = look.tick(), if self.may_change => self.look(),
                Some((flow, payload)) = self.packets.recv() => self.take(flow, Direction::Down, payload),
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
        self.may_change |= flow.weather.may_change();
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
