//! What a measurement needs before it begins: keys, tokens, groups and sessions.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use quinn::Endpoint;
use shoal_certs::{Claims, KeyFolder, Seed, TokenSigner};
use shoal_protocol::{GroupId, UserId, wire};

use crate::{
    endpoint,
    process::{Kind, Server},
    raw::{Login, Raw},
};

/// Sockets that the sessions are spread over.
const ENDPOINTS: usize = 16;
/// Handshakes at once.
const CONNECTING_MAX: usize = 32;
/// How long a server may take until it answers.
const START_MAX: Duration = Duration::from_secs(30);
/// Users in one change: what fits a request's frame whatever their names.
const CHANGE_USERS_MAX: usize = 1000;
const TOKEN_TTL_MS: u64 = 24 * 3600 * 1000;

/// A server that answers, and the means to connect to it.
pub(crate) struct Setup {
    pub(crate) server: Server,
    endpoints: Vec<Endpoint>,
    signer: TokenSigner,
}

impl Setup {
    /// Starts a server of this kind in a new folder below `dir` and waits until it answers.
    pub(crate) async fn start(kind: Kind, shoal: &Path, dir: &Path, payload_bytes: usize) -> Result<Self> {
        let data = new_folder(dir)?;
        let keys = new_keys(&data)?;
        let server = match kind {
            Kind::Shoal => Server::shoal(shoal, &data, &[])?,
            Kind::Bare => Server::bare(&data, payload_bytes)?,
        };
        Self::of(server, &keys).await
    }

    /// Starts a node with these settings (`key=value`), in a new folder below `dir`, where tokens and
    /// nodes of another are known if there is one; waits until it answers.
    pub(crate) async fn start_node(
        shoal: &Path,
        dir: &Path,
        settings: &[String],
        beside: Option<&Self>,
    ) -> Result<Self> {
        let data = new_folder(dir)?;
        for shared in ["ca.pem", "ca.key", "token.key", "token.pub"] {
            if let Some(beside) = beside {
                std::fs::copy(beside.server.data.join(shared), data.join(shared))?;
            }
        }
        let keys = new_keys(&data)?;
        Self::of(Server::shoal(shoal, &data, settings)?, &keys).await
    }

    async fn of(server: Server, keys: &KeyFolder) -> Result<Self> {
        let endpoints = endpoint::clients(ENDPOINTS, keys)?;
        let mut setup = Self { server, endpoints, signer: keys.token_signer()? };
        setup.wait_until_it_answers().await?;
        Ok(setup)
    }

    /// Kills the server, starts it again and waits until it answers.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.server.restart()?;
        self.wait_until_it_answers().await
    }

    /// Ends the server and takes its folder away.
    pub(crate) fn stop(self) -> Result<()> {
        let data = self.server.data.clone();
        drop(self.server);
        std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))
    }

    /// Creates groups with these members; the bare server has none.
    pub(crate) async fn create_groups(&self, groups: &[GroupId], members: &[String]) -> Result<()> {
        if self.server.kind == Kind::Bare {
            return Ok(());
        }
        let admin = self.connect_one(0, &self.login("bench-admin", true, &[])?).await?;
        for group in groups {
            let settings = Some(wire::Settings { title: "bench".into(), ..Default::default() });
            let create = wire::Create { settings, members: Vec::new() };
            change(&admin, *group, wire::change::Body::Create(create)).await?;
            for users in members.chunks(CHANGE_USERS_MAX) {
                let add = wire::Add { users: users.to_vec() };
                change(&admin, *group, wire::change::Body::Add(add)).await?;
            }
        }
        Ok(())
    }

    /// Waits until a group can be made; one of this name is.
    pub(crate) async fn wait_until_groups_have_homes(&self, name: &str) -> Result<()> {
        let admin = self.connect_one(0, &self.login("bench-admin", true, &[])?).await?;
        let started = tokio::time::Instant::now();
        loop {
            let create = wire::change::Body::Create(wire::Create::default());
            match change(&admin, GroupId::named(name), create).await {
                Ok(()) => return Ok(()),
                Err(error) if started.elapsed() > START_MAX => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// A session for each login, some handshakes at a time.
    pub(crate) async fn connect_all(&self, logins: Vec<Login>) -> Result<Vec<Raw>> {
        stream::iter(logins.into_iter().enumerate())
            .map(|(at, login)| async move { self.connect_one(at, &login).await })
            .buffered(CONNECTING_MAX)
            .try_collect()
            .await
    }

    /// A login for this user, following these groups from the tail.
    pub(crate) fn login(&self, user: &str, admin: bool, groups: &[GroupId]) -> Result<Login> {
        let now = now_ms();
        let claims = Claims { admin, ..Claims::new(UserId::new(user)?, now, now + TOKEN_TTL_MS) };
        Ok(Login { token: self.signer.sign(&claims), device: 1, groups: groups.to_vec(), is_timed: false })
    }

    async fn connect_one(&self, at: usize, login: &Login) -> Result<Raw> {
        let endpoint = &self.endpoints[at % self.endpoints.len()];
        Raw::connect(endpoint, self.addr(), login)
            .await
            .with_context(|| format!("session {at} of the {:?} server", self.server.kind))
    }

    fn addr(&self) -> SocketAddr {
        self.server.addr
    }

    async fn wait_until_it_answers(&mut self) -> Result<()> {
        let login = self.login("bench-first", false, &[])?;
        let started = tokio::time::Instant::now();
        loop {
            self.server.ensure_running()?;
            let attempt = tokio::time::timeout(Duration::from_secs(1), self.connect_one(0, &login)).await;
            match attempt {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if started.elapsed() > START_MAX => return Err(error),
                Err(_) if started.elapsed() > START_MAX => bail!("the server does not answer"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

fn new_folder(dir: &Path) -> Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix("shoal-bench-").tempdir_in(dir)?.keep())
}

/// The keys in a folder; those that are missing are made.
pub(crate) fn new_keys(data: &Path) -> Result<KeyFolder> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    Ok(KeyFolder::open_or_create(data, &names, &Seed::random(), now_ms())?)
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_1970.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

async fn change(admin: &Raw, group: GroupId, body: wire::change::Body) -> Result<()> {
    let change = wire::Change { group: group.to_wire(), body: Some(body) };
    admin.request(wire::request::Body::Change(change)).await.map(drop)
}
