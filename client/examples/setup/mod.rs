//! What both examples do before they talk: arguments, a token, a session, a group.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use clap::Args;
use shoal_certs::{Claims, KeyFolder, TokenSigner};
use shoal_client::{
    Client, Code, Config, DeviceId, GroupId, RequestError, TokenError, TokenSource, UserId, tls_from_ca, wire,
};

const TOKEN_TTL: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Args)]
pub(crate) struct Access {
    /// A node, or several.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4433", value_delimiter = ',')]
    pub(crate) node: Vec<String>,
    /// The node's data folder: its ca.pem is trusted, and its token.key signs the user's tokens.
    /// An app has only the first of the two, and asks its own service for tokens.
    #[arg(long, value_name = "DIR", default_value = "shoal-data")]
    pub(crate) data: PathBuf,
    /// A token, instead of one signed here.
    #[arg(long, env = "SHOAL_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Who you are.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: UserId,
    /// The group, created if it does not exist.
    #[arg(long, value_name = "#NAME", default_value = "#general")]
    pub(crate) group: String,
}

impl Access {
    pub(crate) fn config(&self, device: DeviceId) -> anyhow::Result<Config> {
        let folder = KeyFolder::open(&self.data)?;
        let token = match &self.token {
            Some(token) => TokenSource::fixed(token.as_str()),
            None => signed(folder.token_signer()?, self.user.clone()),
        };
        Ok(Config::new(&self.node, tls_from_ca(&folder.ca_pem()?)?, token, device))
    }

    pub(crate) fn group(&self) -> anyhow::Result<GroupId> {
        self.group.parse().with_context(|| format!("--group {}", self.group))
    }

    /// Makes the user a member: joins the group, or creates it as one that everybody may join.
    pub(crate) async fn enter(&self, client: &Client) -> anyhow::Result<GroupId> {
        let group = self.group()?;
        for _ in 0..3 {
            match client.join(group).await {
                Err(RequestError::Refused(why)) if why.code == Code::UnknownGroup => {}
                joined => return joined.map(|_| group).context("joining the group"),
            }
            let settings = wire::Settings {
                title: self.group.trim_start_matches('#').to_owned(),
                open: true,
                history_before_join: true,
                members_max: 0,
            };
            match client.create(group, settings, &[]).await {
                // Somebody else was quicker.
                Err(RequestError::Refused(why)) if why.code == Code::GroupExists => {}
                created => return created.map(|_| group).context("creating the group"),
            }
        }
        anyhow::bail!("the group comes and goes")
    }
}

/// Signs a token whenever one is needed.
fn signed(signer: TokenSigner, user: UserId) -> TokenSource {
    TokenSource::renewing(move || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let token = now.map(|now| {
            let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            signer.sign(&Claims::new(user.clone(), ms(now), ms(now + TOKEN_TTL)))
        });
        std::future::ready(token.map_err(|error| TokenError(error.to_string())))
    })
}
