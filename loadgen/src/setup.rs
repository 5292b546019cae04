//! What a run needs before its first message: tokens, groups, and a client for each member.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use shoal_certs::{Claims, FolderError, KeyFolder, TokenSigner};
use shoal_client::{
    Client, Config, ConnectError, DeviceId, Follow, FollowError, GroupId, IdError, RequestError, Start,
    TlsError, Transport, UdpTransport, UserId, wire,
};

use crate::{
    member,
    network::{Network, NetworkReport, Networks},
    options::Clients,
    plan::{Habit, MemberId, Plan},
};

/// How long a client tries to get its first session: longer than any elevator's ride.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// Clients that share a socket: as many as its buffer has room for a datagram each, and more.
const CLIENTS_PER_SOCKET: usize = 64;
/// Groups that deliver to a client: its one. Each stream that is allowed costs memory, used or not.
const STREAMS_MAX: u32 = 4;
/// Users in one change: what fits a request's frame whatever their names.
pub(crate) const CHANGE_USERS_MAX: usize = 1000;
/// Groups that are made at the same time.
const MAKING_MAX: usize = 16;
/// How long tokens last beyond the run.
const TOKEN_SLACK: Duration = Duration::from_secs(3600);

/// Why a run did not come about, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The node's keys cannot be read.
    #[error("{0}; --data must be the data folder of the node, as it was given to `shoal serve`")]
    Keys(#[from] FolderError),
    /// The authority's certificate is none.
    #[error("the authority's certificate: {0}")]
    Tls(#[from] TlsError),
    /// A name that is too long.
    #[error(transparent)]
    Id(#[from] IdError),
    /// No session for the one who makes the groups.
    #[error("cannot connect to {node}: {source}; is the node running there, with the keys of --data?")]
    Admin {
        /// The address.
        node: String,
        /// Why.
        source: ConnectError,
    },
    /// A group could not be made.
    #[error("cannot make {group}: {source}")]
    Group {
        /// Which.
        group: String,
        /// Why.
        source: RequestError,
    },
    /// A member's client has no session.
    #[error(
        "client {done} of {all} cannot connect: {source}; a node has limits (limits.access), and so has this machine \
         (ulimit -n)"
    )]
    Connect {
        /// Which.
        done: usize,
        /// Of how many.
        all: usize,
        /// Why.
        source: ConnectError,
    },
    /// A member cannot follow its group.
    #[error("client {done} of {all} cannot follow its group: {source}")]
    Follow {
        /// Which.
        done: usize,
        /// Of how many.
        all: usize,
        /// Why.
        source: FollowError,
    },
}

/// What the clients of a run have in common.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    clients: &'a Clients,
    run: u64,
    seed: u64,
    /// How long tokens last.
    token_ms: u64,
    signer: TokenSigner,
    tls: Arc<rustls::ClientConfig>,
    sockets: Vec<Arc<UdpTransport>>,
    networks: Option<Networks>,
}

/// A member that is there.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) follow: Follow,
    /// Its own, where that is a weak one.
    pub(crate) network: Option<Arc<Network>>,
}

/// A member of a group that was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) id: MemberId,
    /// The record that made it one.
    pub(crate) seq: u64,
}

impl<'a> Setup<'a> {
    /// Reads the keys. The run takes so long without its end, and has so many clients at a time.
    pub(crate) fn new(
        clients: &'a Clients,
        run: u64,
        seed: u64,
        length: Duration,
        at_a_time: usize,
    ) -> Result<Self, SetupError> {
        let keys = KeyFolder::open(&clients.data)?;
        let tls = shoal_client::tls_from_ca(&keys.ca_pem()?)?;
        let sockets = (0..at_a_time.div_ceil(CLIENTS_PER_SOCKET).max(1)).map(|_| Arc::default()).collect();
        let token = length + clients.drain + TOKEN_SLACK;
        let token_ms = u64::try_from(token.as_millis()).unwrap_or(u64::MAX);
        let (signer, networks) = (keys.token_signer()?, Networks::new(&clients.network, seed));
        Ok(Self { clients, run, seed, token_ms, signer, tls: Arc::new(tls), sockets, networks })
    }

    /// The group with this number in the run.
    pub(crate) fn group(&self, number: u32) -> GroupId {
        GroupId::from_random(u128::from(self.run) << 64 | u128::from(number))
    }

    /// The one who makes the groups, and adds and removes members.
    pub(crate) async fn admin(&self) -> Result<Client, SetupError> {
        let user = UserId::new(format!("lg-{:08x}", self.run >> 32))?;
        let config = self.config(&user, true, 0, Arc::new(UdpTransport::new()));
        let node = self.clients.nodes.join(", ");
        Client::connect(config).await.map_err(|source| SetupError::Admin { node, source })
    }

    /// Makes all groups with their members.
    pub(crate) async fn make_groups(&self, admin: &Client, plan: &Plan) -> Result<Vec<Made>, SetupError> {
        let making =
            (0..).zip(plan.listed()).map(|(number, members)| self.make_group(admin, number, members));
        let made: Vec<Vec<_>> = stream::iter(making).buffered(MAKING_MAX).try_collect().await?;
        Ok(made.into_iter().flatten().collect())
    }

    /// Connects every member, some at a time, and lets it follow its group; `connected` is told how
    /// many there are.
    pub(crate) async fn connect(
        &self,
        plan: &Plan,
        connected: impl Fn(usize),
    ) -> Result<Vec<(MemberId, Present)>, SetupError> {
        let all = plan.members().count();
        let connecting = stream::iter(plan.members().enumerate())
            .map(|(at, (id, habit))| async move {
                let present = self.connect_one(at, all, id, habit).await;
                present.map(|present| (id, present))
            })
            .buffered(self.clients.connecting as usize);
        let mut present = Vec::with_capacity(all);
        futures_util::pin_mut!(connecting);
        while let Some(member) = connecting.try_next().await? {
            present.push(member);
            connected(present.len());
        }
        Ok(present)
    }

    async fn connect_one(
        &self,
        at: usize,
        all: usize,
        id: MemberId,
        habit: Habit,
    ) -> Result<Present, SetupError> {
        let done = at + 1;
        let user = self.user(id)?;
        let connected = self.connect_user(&user, at, habit).await;
        let (config, client, network) =
            connected.map_err(|source| SetupError::Connect { done, all, source })?;
        let follow = client
            .follow(self.group(id.group), Start::Join)
            .await
            .map_err(|source| SetupError::Follow { done, all, source })?;
        Ok(Present { config, client, follow, network })
    }

    /// A client of one of the users, `number` among all clients of the run.
    pub(crate) async fn connect_user(
        &self,
        user: &UserId,
        number: usize,
        habit: Habit,
    ) -> Result<(Config, Client, Option<Arc<Network>>), ConnectError> {
        let network = self.networks.as_ref().map(|networks| networks.network(number as u64));
        let socket: Arc<dyn Transport> = match &network {
            Some(network) => network.clone(),
            None => self.sockets[number % self.sockets.len()].clone(),
        };
        let config = member::configured(self.config(user, false, number as u64 + 1, socket), habit);
        let client = Client::connect(config.clone()).await?;
        Ok((config, client, network))
    }

    /// What apps felt of a weak network.
    pub(crate) fn network_report(&self, deliveries: u64) -> Option<NetworkReport> {
        self.networks.as_ref().map(|networks| networks.report(deliveries))
    }

    async fn make_group(&self, admin: &Client, number: u32, members: u32) -> Result<Vec<Made>, SetupError> {
        let group = self.group(number);
        let failed = |source| SetupError::Group { group: format!("group {number} ({group})"), source };
        // Open, so that who comes later may join by themselves.
        let settings =
            wire::Settings { title: format!("loadgen {number}"), open: true, ..Default::default() };
        admin.create(group, settings, &[]).await.map_err(failed)?;
        let mut made = Vec::with_capacity(members as usize);
        let ids: Vec<_> = (0..members).map(|member| MemberId { group: number, member }).collect();
        for ids in ids.chunks(CHANGE_USERS_MAX) {
            let users = ids.iter().map(|id| self.user(*id)).collect::<Result<Vec<_>, _>>()?;
            let seq = admin.add(group, &users).await.map_err(failed)?.seq;
            made.extend(ids.iter().map(|id| Made { id: *id, seq }));
        }
        Ok(made)
    }

    /// The name of a member. Short, since each goes to all members when it comes and when it goes.
    pub(crate) fn user(&self, id: MemberId) -> Result<UserId, IdError> {
        UserId::new(format!("lg-{:08x}-{}-{}", self.run >> 32, id.group, id.member))
    }

    fn config(&self, user: &UserId, admin: bool, number: u64, socket: Arc<dyn Transport>) -> Config {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        let claims =
            Claims { admin, ..Claims::new(user.clone(), now_ms, now_ms.saturating_add(self.token_ms)) };
        let device = DeviceId(self.run.wrapping_add(number));
        Config::new(self.clients.nodes.clone(), self.tls.clone(), self.signer.sign(&claims), device)
            .agent(concat!("shoal-loadgen/", env!("CARGO_PKG_VERSION")))
            .region(self.clients.region.clone().unwrap_or_default())
            .seed(self.seed.wrapping_add(number))
            .streams_max(STREAMS_MAX)
            .connect_timeout(CONNECT_TIMEOUT)
            .transport(socket)
    }
}
