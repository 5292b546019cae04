//! Quinn on turmoil's network: a socket that loses and doubles datagrams as the weather has it.

use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use turmoil::net::UdpSocket;

use super::standstill::Standstill;

/// What becomes of datagrams on all links, besides what turmoil does (delay, partition). Cheap to
/// clone; all clones are the same weather.
#[derive(Debug, Clone, Default)]
pub struct Weather(Arc<Shares>);

#[derive(Debug, Default)]
struct Shares {
    lost_per_mille: AtomicU32,
    doubled_per_mille: AtomicU32,
}

impl Weather {
    /// From now on so many of a thousand datagrams are lost, and so many sent twice.
    pub fn set(&self, lost_per_mille: u32, doubled_per_mille: u32) {
        self.0.lost_per_mille.store(lost_per_mille, Ordering::Relaxed);
        self.0.doubled_per_mille.store(doubled_per_mille, Ordering::Relaxed);
    }

    /// How often a datagram is to be sent.
    fn draw(&self, random: &mut StdRng) -> usize {
        let draw = random.random_range(0..1000);
        let lost = self.0.lost_per_mille.load(Ordering::Relaxed);
        let doubled = self.0.doubled_per_mille.load(Ordering::Relaxed);
        if draw < lost {
            0
        } else if draw < lost + doubled {
            2
        } else {
            1
        }
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// A UDP socket of the host that binds it.
pub struct SimSocket {
    io: Arc<UdpSocket>,
    address: SocketAddr,
    weather: Weather,
    standstill: Standstill,
    random: Mutex<StdRng>,
    /// Waits for the next datagram, or until the machine goes on; meanwhile nothing else can read.
    readable: Mutex<Option<Waiting>>,
}

impl SimSocket {
    /// Binds a port of this host (0: any).
    ///
    /// # Errors
    /// Where the port is taken.
    pub async fn bind(port: u16, weather: Weather, seed: u64) -> io::Result<Self> {
        let io = Arc::new(UdpSocket::bind(("0.0.0.0", port)).await?);
        let address = io.local_addr()?;
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        let standstill = Standstill::default();
        Ok(Self { io, address, weather, standstill, random, readable: Mutex::new(None) })
    }

    /// The socket of a machine that may stand still.
    #[must_use]
    pub fn on(self, standstill: Standstill) -> Self {
        Self { standstill, ..self }
    }

    fn poll_datagram(&self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut readable = lock(&self.readable);
        loop {
            if let Some(waiting) = readable.as_mut() {
                std::task::ready!(waiting.as_mut().poll(cx))?;
                *readable = None;
            }
            if self.standstill.is_busy() {
                *readable = Some(goes_on(&self.standstill));
                continue;
            }
            match self.io.try_recv_from(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let io = self.io.clone();
                    *readable = Some(Box::pin(async move { io.readable().await }));
                }
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncUdpSocket for SimSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { standstill: self.standstill.clone(), waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        debug_assert!(transmit.segment_size.is_none(), "one datagram at a time was promised");
        if self.standstill.holds() {
            return Ok(());
        }
        if self.standstill.is_busy() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let times = self.weather.draw(&mut lock(&self.random));
        for _ in 0..times {
            // To a host that is gone: a datagram that goes nowhere is no error.
            let _ = self.io.try_send_to(transmit.contents, transmit.destination);
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
        let (len, addr) = std::task::ready!(self.poll_datagram(cx, into))?;
        *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    /// No discovery of the path's largest datagram: turmoil carries any.
    fn may_fragment(&self) -> bool {
        true
    }
}

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimSocket({})", self.address)
    }
}

/// Waits until the machine has time.
struct Writable {
    standstill: Standstill,
    waiting: Option<Waiting>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() && self.standstill.is_busy() && !self.standstill.holds() {
            self.waiting = Some(goes_on(&self.standstill));
        }
        if let Some(waiting) = &mut self.waiting {
            std::task::ready!(waiting.as_mut().poll(cx))?;
            self.waiting = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writable")
    }
}

fn goes_on(standstill: &Standstill) -> Waiting {
    let standstill = standstill.clone();
    Box::pin(async move {
        standstill.over().await;
        Ok(())
    })
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
