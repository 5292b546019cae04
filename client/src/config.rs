//! What a client is given when it starts.

use std::{sync::Arc, time::Duration};

use shoal_protocol::{DeviceId, VERSION};

use crate::{Saved, TokenSource, Transport, UdpTransport};

/// What a [`Client`](crate::Client) is given when it starts: whom to connect to, as whom, and
/// within which bounds.
///
/// ```
/// # fn ca_pem() -> String { unimplemented!() }
/// # fn example() -> Result<(), shoal_client::TlsError> {
/// use shoal_client::{Config, DeviceId, tls_from_ca};
///
/// let device: DeviceId = "00c0ffee00c0ffee".parse().expect("chosen once, and kept by the app");
/// let config = Config::new(["chat.example.org:4810"], tls_from_ca(&ca_pem())?, "eyJ…", device)
///     .agent("my-app/2.1");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Config {
    pub(crate) nodes: Vec<String>,
    pub(crate) tls: Arc<rustls::ClientConfig>,
    pub(crate) server_name: String,
    pub(crate) token: TokenSource,
    pub(crate) device: DeviceId,
    pub(crate) agent: String,
    pub(crate) region: String,
    pub(crate) saved: Option<Saved>,
    pub(crate) seed: Option<u64>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) follow_buffer_bytes: usize,
    pub(crate) queue_messages_per_group: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) streams_max: u32,
}

impl Config {
    /// The four things that have no default.
    ///
    /// - `nodes`: `host:port` of some of the nodes, at least one; the client learns of others.
    /// - `tls`: whom to trust: [`tls_from_ca`](crate::tls_from_ca), or any configuration for TLS
    ///   1.3. Where it names no ALPN, the protocol's is put in. Clients that share it share their
    ///   session tickets. Where it enables early data (0-RTT), as `tls_from_ca` does, a client says
    ///   hello and sends what it has queued before the handshake is done; nodes see to it that a
    ///   replay does no harm.
    /// - `token`: a string, or a [`TokenSource`] that renews.
    /// - `device`: this installation of the app, chosen at random once and kept
    ///   ([`new_device`](crate::new_device)). A user has one session for each device: a second
    ///   client with the same one replaces the first.
    pub fn new(
        nodes: impl IntoIterator<Item = impl Into<String>>,
        tls: impl Into<Arc<rustls::ClientConfig>>,
        token: impl Into<TokenSource>,
        device: DeviceId,
    ) -> Self {
        Self {
            nodes: nodes.into_iter().map(Into::into).collect(),
            tls: tls.into(),
            server_name: shoal_certs::NODE_NAME.to_owned(),
            token: token.into(),
            device,
            agent: format!("shoal-client/{} (protocol {VERSION})", env!("CARGO_PKG_VERSION")),
            region: String::new(),
            saved: None,
            seed: None,
            transport: Arc::new(UdpTransport::watching()),
            connect_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(15),
            follow_buffer_bytes: 128 << 10,
            queue_messages_per_group: 512,
            queue_bytes: 8 << 20,
            streams_max: 128,
        }
    }

    /// The name in the nodes' certificates; by default the one that Shoal's own certificates carry.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = name.into();
        self
    }

    /// What an earlier run [saved](crate::Client::save): its watermarks, and the messages that were
    /// not acknowledged, which are sent first.
    pub fn saved(mut self, saved: impl Into<Option<Saved>>) -> Self {
        self.saved = saved.into();
        self
    }

    /// The app's name and version, for the nodes' logs. At most 128 bytes are told.
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.agent = agent.into();
        self
    }

    /// The region that the app is in, by the name that the nodes' operators gave it (their setting
    /// `region`), of at most 64 bytes; by default it is not said. Nodes of that region are tried first
    /// when one goes; a client that is on another's is offered one of its own, while there is one with
    /// room, and moves there like from a node that goes: nothing is lost, and the state stays
    /// [`Online`](crate::State::Online). A region without nodes changes nothing.
    ///
    /// A longer name is refused: [`Closed::Refused`](crate::Closed::Refused), with `BadRequest`.
    pub fn region(mut self, name: impl Into<String>) -> Self {
        self.region = name.into();
        self
    }

    /// From which jitter and the like are drawn, so that a simulated run can be repeated. Without
    /// it, from the system.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sockets other than this client's own: one [`UdpTransport`] for many clients, or a
    /// simulation's.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = transport;
        self
    }

    /// How long [`Client::connect`](crate::Client::connect) waits for the first session; 30 s by
    /// default. Reconnecting has no end.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a request waits for its answer, over reconnects; 15 s by default.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Bytes that wait for the app in each [`Follow`](crate::Follow); 128 KiB by default. Above,
    /// the group's stream is not read, which stops its sender.
    pub fn follow_buffer_bytes(mut self, bytes: usize) -> Self {
        self.follow_buffer_bytes = bytes.max(1);
        self
    }

    /// Messages that wait for their receipt in each group (512 by default) and their bytes over all
    /// groups (8 MiB by default). Above, [`Client::send`](crate::Client::send) waits.
    pub fn queue(mut self, messages_per_group: usize, bytes: usize) -> Self {
        self.queue_messages_per_group = messages_per_group.max(1);
        self.queue_bytes = bytes.max(1);
        self
    }

    /// Groups that may deliver at the same moment; 128 by default. Each costs about 100 bytes, used
    /// or not; more groups than this take turns.
    pub fn streams_max(mut self, streams: u32) -> Self {
        self.streams_max = streams.max(1);
        self
    }
}
