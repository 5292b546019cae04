//! A network in memory, on tokio's clock: with the clock paused, hours pass in no time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use shoal_client::Transport;
use tokio::time::{Instant, Sleep, sleep_until};

/// One way.
pub(crate) const DELAY: Duration = Duration::from_millis(10);

/// All sockets, and what becomes of datagrams between them.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    inboxes: BTreeMap<SocketAddr, Inbox>,
    /// Hosts that nothing reaches and nothing leaves.
    cut: BTreeSet<IpAddr>,
    next_port: u16,
    /// How often a host's NAT has forgotten: its ports look different from outside each time.
    forgotten: BTreeMap<IpAddr, u16>,
}

/// So far apart are the ports that a NAT gives to one socket in turn.
const MAPPING: u16 = 1_000;

impl State {
    /// The socket as others see it.
    fn outside(&self, mut socket: SocketAddr) -> SocketAddr {
        socket.set_port(socket.port() + MAPPING * self.forgotten.get(&socket.ip()).unwrap_or(&0));
        socket
    }

    /// The socket that others see so; none where the NAT has forgotten it.
    fn inside(&self, seen: SocketAddr) -> Option<SocketAddr> {
        self.inboxes.keys().copied().find(|socket| self.outside(*socket) == seen)
    }
}

#[derive(Default)]
struct Inbox {
    datagrams: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

impl Net {
    /// A socket; port 0 is the next one that is free.
    pub(crate) fn bind(&self, mut address: SocketAddr) -> Arc<MemorySocket> {
        let mut state = self.lock();
        if address.port() == 0 {
            state.next_port += 1;
            address.set_port(10_000 + state.next_port);
        }
        state.inboxes.insert(address, Inbox::default());
        Arc::new(MemorySocket { net: self.clone(), address, timer: Mutex::new(None) })
    }

    /// Loses everything to and from a host, or no longer.
    pub(crate) fn cut(&self, host: IpAddr, is_cut: bool) {
        let mut state = self.lock();
        if is_cut {
            state.cut.insert(host);
        } else {
            state.cut.remove(&host);
        }
    }

    /// The host's NAT forgets: what is sent to where it was seen is lost, and it is seen elsewhere.
    pub(crate) fn forget(&self, host: IpAddr) {
        *self.lock().forgotten.entry(host).or_default() += 1;
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let mut state = self.lock();
        if state.cut.contains(&from.ip()) || state.cut.contains(&to.ip()) {
            return;
        }
        let from = state.outside(from);
        if let Some(to) = state.inside(to)
            && let Some(inbox) = state.inboxes.get_mut(&to)
        {
            inbox.datagrams.push_back((Instant::now() + DELAY, from, bytes.to_vec()));
            if let Some(reader) = inbox.reader.take() {
                reader.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

pub(crate) struct MemorySocket {
    net: Net,
    address: SocketAddr,
    timer: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl Drop for MemorySocket {
    fn drop(&mut self) {
        self.net.lock().inboxes.remove(&self.address);
    }
}

impl fmt::Debug for MemorySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemorySocket({})", self.address)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for MemorySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.net.send(self.address, transmit.destination, transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.net.lock();
        let Some(inbox) = state.inboxes.get_mut(&self.address) else {
            return Poll::Pending;
        };
        loop {
            inbox.reader = Some(cx.waker().clone());
            let Some((due, from, _)) = inbox.datagrams.front() else {
                return Poll::Pending;
            };
            if *due <= Instant::now() {
                meta[0].addr = *from;
                break;
            }
            let mut timer = self.timer.lock().unwrap();
            let mut sleep = Box::pin(sleep_until(*due));
            if sleep.as_mut().poll(cx).is_pending() {
                *timer = Some(sleep);
                return Poll::Pending;
            }
        }
        let (_, _, bytes) = inbox.datagrams.pop_front().unwrap();
        bufs[0][..bytes.len()].copy_from_slice(&bytes);
        (meta[0].len, meta[0].stride, meta[0].ecn, meta[0].dst_ip) = (bytes.len(), bytes.len(), None, None);
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A client's way into the network.
#[derive(Debug)]
pub(crate) struct MemoryTransport {
    net: Net,
    endpoint: Mutex<Endpoint>,
    host: IpAddr,
    /// When an endpoint was asked for last.
    begun: Mutex<Instant>,
}

impl MemoryTransport {
    pub(crate) fn new(net: &Net, host: IpAddr) -> Self {
        let (endpoint, begun) = (Mutex::new(endpoint(net, host)), Mutex::new(Instant::now()));
        Self { net: net.clone(), endpoint, host, begun }
    }

    /// When the latest connection was begun.
    pub(crate) fn begun(&self) -> Instant {
        *self.begun.lock().unwrap()
    }

    /// All connections are gone at once.
    pub(crate) fn hang_up(&self) {
        let gone = std::mem::replace(&mut *self.endpoint.lock().unwrap(), endpoint(&self.net, self.host));
        gone.close(0_u32.into(), b"");
    }
}

fn endpoint(net: &Net, host: IpAddr) -> Endpoint {
    let socket = net.bind(SocketAddr::new(host, 0));
    let mut config = EndpointConfig::default();
    config.rng_seed(Some([7; 32]));
    Endpoint::new_with_abstract_socket(config, None, socket, Arc::new(TokioRuntime)).unwrap()
}

impl Transport for MemoryTransport {
    fn endpoint(&self, _: SocketAddr) -> io::Result<Endpoint> {
        *self.begun.lock().unwrap() = Instant::now();
        Ok(self.endpoint.lock().unwrap().clone())
    }

    fn rebind(&self) -> io::Result<bool> {
        self.endpoint.lock().unwrap().rebind_abstract(self.net.bind(SocketAddr::new(self.host, 0)))?;
        Ok(true)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}
