//! What a run needs before its first message: tokens, groups, and a client for each member.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use shoal_certs::{Claims, FolderError, KeyFolder, TokenSigner};
use shoal_client::{
    Client, Config, ConnectError, DeviceId, Follow, FollowError, GroupId, IdError, RequestError, Start,
    TlsError, Transport, UdpTransport, UserId, wire,
};

use crate::{
    member,
    options::Options,
    plan::{Habit, MemberId, Plan},
};

/// Clients that share a socket: as many as its buffer has room for a datagram each, and more.
const CLIENTS_PER_SOCKET: usize = 64;
/// Users in one change: what fits a request's frame whatever their names.
const CHANGE_USERS_MAX: usize = 1000;
/// Groups that are made at the same time.
const MAKING_MAX: usize = 16;
/// How long tokens last beyond the run.
const TOKEN_SLACK_MS: u64 = 3600 * 1000;

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
    options: &'a Options,
    run: u64,
    seed: u64,
    signer: TokenSigner,
    tls: Arc<rustls::ClientConfig>,
    sockets: Vec<Arc<UdpTransport>>,
}

/// A member that is there.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) follow: Follow,
}

impl<'a> Setup<'a> {
    /// Reads the keys.
    pub(crate) fn new(options: &'a Options, run: u64, seed: u64, plan: &Plan) -> Result<Self, SetupError> {
        let keys = KeyFolder::open(&options.data)?;
        let tls = shoal_client::tls_from_ca(&keys.ca_pem()?)?;
        let members = plan.members().count();
        let sockets = (0..members.div_ceil(CLIENTS_PER_SOCKET)).map(|_| Arc::default()).collect();
        Ok(Self { options, run, seed, signer: keys.token_signer()?, tls: Arc::new(tls), sockets })
    }

    /// The group with this number in the run.
    pub(crate) fn group(&self, number: u32) -> GroupId {
        GroupId::from_random(u128::from(self.run) << 64 | u128::from(number))
    }

    /// Makes all groups with their members.
    pub(crate) async fn make_groups(&self, plan: &Plan) -> Result<(), SetupError> {
        let user = UserId::new(format!("loadgen-{:016x}", self.run))?;
        let config = self.config(&user, true, 0, Arc::new(UdpTransport::new()));
        let node = self.options.nodes.join(", ");
        let admin = Client::connect(config).await.map_err(|source| SetupError::Admin { node, source })?;
        stream::iter((0..).zip(plan.listed()).map(Ok))
            .try_for_each_concurrent(MAKING_MAX, |(number, members)| self.make_group(&admin, number, members))
            .await?;
        admin.close().await;
        Ok(())
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
            .buffered(self.options.connecting as usize);
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
        let socket = self.sockets[at / CLIENTS_PER_SOCKET].clone();
        let config = member::configured(self.config(&self.user(id)?, false, at as u64 + 1, socket), habit);
        let done = at + 1;
        let client = Client::connect(config.clone()).await.map_err(|source| SetupError::Connect {
            done,
            all,
            source,
        })?;
        let follow = client
            .follow(self.group(id.group), Start::Join)
            .await
            .map_err(|source| SetupError::Follow { done, all, source })?;
        Ok(Present { config, client, follow })
    }

    async fn make_group(&self, admin: &Client, number: u32, members: u32) -> Result<(), SetupError> {
        let group = self.group(number);
        let failed = |source| SetupError::Group { group: format!("group {number} ({group})"), source };
        let settings = wire::Settings { title: format!("loadgen {number}"), ..Default::default() };
        admin.create(group, settings, &[]).await.map_err(failed)?;
        let users = (0..members).map(|member| self.user(MemberId { group: number, member }));
        let users = users.collect::<Result<Vec<_>, _>>()?;
        for users in users.chunks(CHANGE_USERS_MAX) {
            admin.add(group, users).await.map_err(failed)?;
        }
        Ok(())
    }

    fn user(&self, id: MemberId) -> Result<UserId, IdError> {
        UserId::new(format!("loadgen-{:016x}-{}-{}", self.run, id.group, id.member))
    }

    fn config(&self, user: &UserId, admin: bool, number: u64, socket: Arc<dyn Transport>) -> Config {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        let run_ms = (self.options.duration + self.options.drain).as_millis();
        let ends_ms =
            now_ms.saturating_add(u64::try_from(run_ms).unwrap_or(u64::MAX)).saturating_add(TOKEN_SLACK_MS);
        let claims = Claims { admin, ..Claims::new(user.clone(), now_ms, ends_ms) };
        let device = DeviceId(self.run.wrapping_add(number));
        Config::new(self.options.nodes.clone(), self.tls.clone(), self.signer.sign(&claims), device)
            .agent(concat!("shoal-loadgen/", env!("CARGO_PKG_VERSION")))
            .seed(self.seed.wrapping_add(number))
            .transport(socket)
    }
}
