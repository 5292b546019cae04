//! A phone's socket: what it sends and what it gets passes through the phone's network.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::FutureExt;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use shoal_network::Path;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::sim::{
    network::{SimSocket, Weather, lock},
    reception::{Passage, Reception},
};

/// The largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A socket behind the phone's NAT.
pub(super) struct PhoneSocket(Arc<Inner>);

struct Inner {
    weather: Weather,
    reception: Reception,
    seed: u64,
    /// What the phone's address is at the moment.
    mapped: Mutex<Mapped>,
    up: Mutex<Path>,
    down: Mutex<Down>,
}

/// By which address the world knows the socket.
struct Mapped {
    address: u64,
    socket: Arc<SimSocket>,
    /// Who waits for a datagram at the address before.
    reader: Option<Waker>,
}

/// What is on its way to the phone.
struct Down {
    path: Path,
    on_the_way: BinaryHeap<Reverse<Coming>>,
    count: u64,
    timer: Option<Pin<Box<Sleep>>>,
    buffer: Box<[u8]>,
}

/// A datagram and when it arrives; of two at one moment, the one that was sent first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Coming {
    at: Instant,
    nth: u64,
    from: SocketAddr,
    bytes: Vec<u8>,
}

impl PhoneSocket {
    /// Binds a socket of this host.
    pub(super) fn bind(weather: &Weather, reception: &Reception, seed: u64) -> io::Result<Self> {
        let address = reception.now(elapsed()).address;
        let socket = bind(weather, seed ^ address)?;
        Ok(Self(Arc::new(Inner {
            weather: weather.clone(),
            reception: reception.clone(),
            seed,
            mapped: Mutex::new(Mapped { address, socket, reader: None }),
            up: Mutex::new(Path::new(seed)),
            down: Mutex::new(Down::new(seed)),
        })))
    }
}

impl Inner {
    /// The socket by whose address the phone is known now.
    fn socket(&self) -> Arc<SimSocket> {
        let address = self.reception.now(elapsed()).address;
        let mut mapped = lock(&self.mapped);
        if mapped.address != address {
            // Where no port is left the old one serves on: a NAT that remembers.
            if let Ok(socket) = bind(&self.weather, self.seed ^ address) {
                mapped.socket = socket;
            }
            mapped.address = address;
            mapped.reader.take().into_iter().for_each(Waker::wake);
        }
        Arc::clone(&mapped.socket)
    }

    /// What comes to the phone's present address, into the path.
    fn poll_network(&self, cx: &mut Context<'_>, down: &mut Down) -> Poll<io::Result<()>> {
        let socket = self.socket();
        lock(&self.mapped).reader = Some(cx.waker().clone());
        let mut meta = [RecvMeta::default()];
        let received = socket.poll_recv(cx, &mut [IoSliceMut::new(&mut down.buffer)], &mut meta);
        if std::task::ready!(received)? == 0 {
            return Poll::Pending;
        }
        down.take(self.reception.now(elapsed()).passage(|sky| sky.down), meta[0]);
        Poll::Ready(Ok(()))
    }
}

impl Down {
    fn new(seed: u64) -> Self {
        Self {
            path: Path::new(!seed),
            on_the_way: BinaryHeap::new(),
            count: 0,
            timer: None,
            buffer: vec![0; DATAGRAM_BYTES_MAX].into(),
        }
    }

    fn take(&mut self, passage: Passage, meta: RecvMeta) {
        for at in arrivals(&mut self.path, passage, meta.len) {
            let bytes = self.buffer[..meta.len].to_vec();
            self.on_the_way.push(Reverse(Coming { at, nth: self.count, from: meta.addr, bytes }));
            self.count += 1;
        }
    }

    /// What has arrived; or else the timer is set to when the next does.
    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<Coming> {
        while let Some(Reverse(next)) = self.on_the_way.peek() {
            if next.at <= Instant::now() {
                let Reverse(coming) = self.on_the_way.pop().expect("it was there");
                return Poll::Ready(coming);
            }
            let mut timer = Box::pin(sleep_until(next.at));
            let waits = timer.as_mut().poll(cx).is_pending();
            self.timer = Some(timer);
            if waits {
                break;
            }
        }
        Poll::Pending
    }
}

impl AsyncUdpSocket for PhoneSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.0.socket().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let inner = &self.0;
        let passage = inner.reception.now(elapsed()).passage(|sky| sky.up);
        for at in arrivals(&mut lock(&inner.up), passage, transmit.contents.len()) {
            let sent = Sent::new(transmit);
            if at <= Instant::now() {
                sent.leave(inner)?;
                continue;
            }
            let inner = Arc::clone(inner);
            tokio::spawn(async move {
                sleep_until(at).await;
                // A socket that takes nothing loses it, as a network does.
                let _ = sent.leave(&inner);
            });
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(into), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let mut down = lock(&self.0.down);
        while let Poll::Ready(read) = self.0.poll_network(cx, &mut down) {
            read?;
        }
        let Coming { from, bytes, .. } = std::task::ready!(down.poll_arrived(cx));
        let len = bytes.len().min(into.len());
        into[..len].copy_from_slice(&bytes[..len]);
        *meta = RecvMeta { addr: from, len, stride: len, ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket().local_addr()
    }

    fn may_fragment(&self) -> bool {
        true
    }
}

impl fmt::Debug for PhoneSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PhoneSocket")
    }
}

/// A datagram that has left the phone and is still on its way through the phone's network.
struct Sent {
    to: SocketAddr,
    ecn: Option<EcnCodepoint>,
    bytes: Vec<u8>,
}

impl Sent {
    fn new(transmit: &Transmit<'_>) -> Self {
        Self { to: transmit.destination, ecn: transmit.ecn, bytes: transmit.contents.to_vec() }
    }

    /// It reaches the world, from the address that the phone then has.
    fn leave(&self, inner: &Inner) -> io::Result<()> {
        let Self { to, ecn, bytes } = self;
        let transmit =
            Transmit { destination: *to, ecn: *ecn, contents: bytes, segment_size: None, src_ip: None };
        inner.socket().try_send(&transmit)
    }
}

/// When a datagram of so many bytes arrives.
fn arrivals(path: &mut Path, passage: Passage, bytes: usize) -> impl Iterator<Item = Instant> {
    let (now, since) = (Instant::now(), elapsed());
    let arrivals = match passage {
        Passage::Free => [Some(since), None],
        Passage::Through(conditions) => path.send(&conditions, bytes, since),
        Passage::None => [None; 2],
    };
    arrivals.into_iter().flatten().map(move |at| now + at.saturating_sub(since))
}

fn bind(weather: &Weather, seed: u64) -> io::Result<Arc<SimSocket>> {
    let bound = SimSocket::bind(0, weather.clone(), seed).now_or_never();
    bound.expect("turmoil binds at once").map(Arc::new)
}

/// How long the simulation has gone on.
fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}
