//! A client of a running node, for commands.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Args;
use shoal_certs::Claims;
use shoal_client::{
    Client, Closed, Config, ConnectError, Lost, RequestError, TokenError, TokenSource, new_device,
    tls_from_ca,
};
use shoal_protocol::{Code, GroupId, Refusal, Retry, UserId, wire};

use super::{DataFolder, folder, output::Hinted, token::claims};

/// How long a token of a command's own is good. It is renewed while the command runs.
const TOKEN_TTL: Duration = Duration::from_secs(600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which node, and as whom.
#[derive(Debug, Clone, Args)]
pub(super) struct Access {
    /// The node's address.
    #[arg(long, global = true, value_name = "ADDR", env = "SHOAL_NODE", default_value = "127.0.0.1:4433")]
    node: String,
    #[command(flatten)]
    folder: DataFolder,
    /// A token to show, instead of one signed with the data folder's key.
    #[arg(long, global = true, value_name = "TOKEN", env = "SHOAL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The authority to trust, instead of the data folder's ca.pem.
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Who acts, as an administrator of the service.
    #[arg(
        long = "as",
        global = true,
        value_name = "USER",
        default_value = "shoal-admin",
        conflicts_with = "token"
    )]
    user: UserId,
}

impl Access {
    /// The same, as this user.
    pub(super) fn acting_as(self, user: UserId) -> Self {
        Self { user, ..self }
    }

    fn config(&self) -> anyhow::Result<Config> {
        let ca = self.ca.clone().unwrap_or_else(|| self.folder.data.join(shoal_certs::folder::CA_CERT));
        let pem = fs::read_to_string(&ca).map_err(|error| Hinted {
            message: format!("{}: {error}", ca.display()),
            hint: "name the data folder of the node with --data, or its authority with --ca".into(),
        })?;
        let tls = tls_from_ca(&pem).with_context(|| ca.display().to_string())?;
        Ok(Config::new([self.node.clone()], tls, self.token()?, new_device())
            .agent(concat!("shoal/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT))
    }

    fn token(&self) -> anyhow::Result<TokenSource> {
        if let Some(token) = &self.token {
            return Ok(token.clone().into());
        }
        let (signer, user) = (folder::token_signer(&self.folder.data)?, self.user.clone());
        Ok(TokenSource::renewing(move || {
            let claims = claims(user.clone(), TOKEN_TTL).map(|claims| Claims { admin: true, ..claims });
            let token = claims.map(|claims| signer.sign(&claims));
            std::future::ready(token.map_err(|error| TokenError(error.to_string())))
        }))
    }
}

/// Connects, does what is to be done, and says goodbye.
pub(super) fn with(
    access: &Access,
    work: impl AsyncFnOnce(&Connection) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::connect(access.config()?).await;
        let client = client.map_err(|error| no_connection(&access.node, &error))?;
        let outcome = work(&Connection { client: client.clone() }).await;
        client.close().await;
        outcome
    })
}

/// A session with the node.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
}

impl Connection {
    pub(super) async fn change(
        &self,
        group: GroupId,
        body: wire::change::Body,
    ) -> anyhow::Result<wire::Changed> {
        let change = wire::Change { group: group.to_wire(), body: Some(body) };
        self.client.change(change).await.map_err(no_answer)
    }

    pub(super) async fn group(&self, group: GroupId) -> anyhow::Result<wire::Group> {
        self.client.group(group).await.map_err(no_answer)
    }

    /// A page of somebody's groups: those of whoever acts, where nobody is named.
    pub(super) async fn groups(
        &self,
        user: Option<&UserId>,
        after: Option<GroupId>,
    ) -> anyhow::Result<wire::Groups> {
        match user {
            Some(user) => self.client.groups_of(user, after, 0).await,
            None => self.client.groups(after, 0).await,
        }
        .map_err(no_answer)
    }

    pub(super) async fn members(
        &self,
        group: GroupId,
        after: Option<wire::MemberPosition>,
        limit: usize,
    ) -> anyhow::Result<wire::Members> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        self.client.members(group, after, limit).await.map_err(no_answer)
    }

    pub(super) async fn layout(&self, group: GroupId) -> anyhow::Result<wire::GroupLayout> {
        self.client.layout(group).await.map_err(no_answer)
    }

    /// A page of the groups whose layout is being changed.
    pub(super) async fn plans(&self, after: Option<GroupId>) -> anyhow::Result<wire::Plans> {
        self.client.plans(after, 0).await.map_err(no_answer)
    }

    pub(super) async fn cluster(&self) -> anyhow::Result<wire::Cluster> {
        self.client.cluster().await.map_err(no_answer)
    }

    pub(super) async fn drain(&self, node: &str, cancel: bool) -> anyhow::Result<()> {
        self.client.drain_node(node, cancel).await.map_err(no_answer)
    }

    /// The settings that the node goes by.
    pub(super) async fn config(&self) -> anyhow::Result<wire::Config> {
        self.client.config(0).await.map_err(no_answer)
    }

    /// The same, once others are set live than `live` stands for, or after a while; over any number of
    /// lost connections, and of refusals that pass.
    pub(super) async fn config_after(&self, live: u64) -> anyhow::Result<wire::Config> {
        patiently(async || self.client.config(live).await).await
    }

    /// The latest events, so many of each node.
    pub(super) async fn events(&self, limit: u32) -> anyhow::Result<wire::Events> {
        self.client.events(Vec::new(), limit, false).await.map_err(no_answer)
    }

    /// What comes after these watermarks, or nothing after a while; over any number of lost connections,
    /// and of refusals that pass.
    pub(super) async fn events_after(
        &self,
        watermarks: Vec<wire::EventWatermark>,
    ) -> anyhow::Result<wire::Events> {
        patiently(async || self.client.events(watermarks.clone(), 0, true).await).await
    }

    pub(super) async fn set_config(&self, key: &str, value: Option<&str>) -> anyhow::Result<()> {
        self.client.set_config(key, value).await.map_err(no_answer)
    }

    pub(super) async fn status(&self) -> anyhow::Result<wire::Status> {
        self.client.status().await.map_err(no_answer)
    }
}

/// Asks until there is an answer, or a refusal that does not pass.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, RequestError>) -> anyhow::Result<T> {
    loop {
        match ask().await {
            Err(RequestError::TimedOut) => {}
            Err(RequestError::Refused(refusal))
                if matches!(refusal.code.retry(), Retry::Later | Retry::Elsewhere) => {}
            answer => return answer.map_err(no_answer),
        }
    }
}

fn no_connection(node: &str, error: &ConnectError) -> anyhow::Error {
    let hint = match error {
        ConnectError::Closed(Closed::Refused(refusal)) => hint(refusal.code),
        ConnectError::TimedOut(Lost::Refused(refusal)) => hint(refusal.code),
        ConnectError::TimedOut(lost) if lost.to_string().contains("certificate") => {
            Some("the node is not of the authority that is trusted: name its own data folder with --data")
        }
        ConnectError::TimedOut(_) => Some("is a node running there? Start one with: shoal serve"),
        _ => None,
    };
    hinted(format!("no session with the node at {node}: {error}"), hint)
}

fn no_answer(error: RequestError) -> anyhow::Error {
    match error {
        RequestError::Refused(Refusal { code, reason, .. }) => {
            hinted(format!("{reason} ({code})"), hint(code))
        }
        RequestError::Unanswered(_) | RequestError::TimedOut => {
            let again = "it may have been done: look, then try again";
            hinted(error.to_string(), Some(again))
        }
        other => other.into(),
    }
}

fn hinted(message: String, hint: Option<&str>) -> anyhow::Error {
    match hint {
        Some(hint) => Hinted { message, hint: hint.to_owned() }.into(),
        None => anyhow::Error::msg(message),
    }
}

/// What may help.
fn hint(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::TokenInvalid => {
            "the node does not know the key that signed the token: name the node's own data folder with --data"
        }
        Code::TokenExpired => "make a new token: shoal token",
        Code::TokenMissing => "give a token with --token, or the node's data folder with --data",
        Code::UnknownGroup => {
            "names are written with a #, quoted for the shell: '#general'. Create it with: shoal group create"
        }
        Code::GroupExists => {
            "somebody else made it: add members with shoal group add, or choose another name"
        }
        Code::NotMember => "whoever owns or administers the group adds members: shoal group add",
        Code::NotAllowed => "this needs an owner, an admin of the group, or a token with administration",
        Code::GroupClosed => "a closed group stays closed: create another one",
        Code::GroupFull => "the group has as many members as its settings allow",
        Code::Banned => "lift the ban first: shoal group ban --lift",
        Code::Busy | Code::TooFast | Code::TooMany => "the node is busy: try again in a moment",
        Code::NotHome => "the group is changing hands: try again in a moment",
        Code::Draining => "the node is stopping: try another one",
        Code::StoreUnavailable => "the node does not write: look into its log",
        _ => return None,
    })
}
