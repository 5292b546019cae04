//! `shoal token`: who a user is, signed.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use shoal_certs::Claims;
use shoal_node::clock::milliseconds;
use shoal_protocol::{DeviceId, UserId};

use super::{DataFolder, folder, now_ms, output::Output};

/// Make a token that says who a user is.
#[derive(Debug, Args)]
pub(super) struct Token {
    /// The user.
    #[arg(long, value_name = "USER")]
    user: UserId,
    /// Good for this device alone: up to 16 hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    device: Option<DeviceId>,
    /// May administer every group.
    #[arg(long)]
    admin: bool,
    /// How long it is good: 90s, 12h, 7d.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = humantime::parse_duration)]
    ttl: Duration,
    #[command(flatten)]
    folder: DataFolder,
}

#[derive(Serialize)]
struct Made {
    token: String,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    admin: bool,
    expires_ms: u64,
}

impl Token {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let claims = claims(self.user, self.ttl)?;
        let claims = Claims { device: self.device, admin: self.admin, ..claims };
        let made = Made {
            token: folder::token_signer(&self.folder.data)?.sign(&claims),
            user: claims.user.to_string(),
            device: claims.device.map(|device| device.to_string()),
            admin: claims.admin,
            expires_ms: claims.expires_ms,
        };
        output.show(&made, |made| made.token.clone()).context("the token cannot be printed")
    }
}

/// A user's claims from now on.
pub(super) fn claims(user: UserId, ttl: Duration) -> anyhow::Result<Claims> {
    let issued_ms = now_ms();
    let ttl_ms = milliseconds(ttl);
    anyhow::ensure!(ttl_ms >= 1000, "a token is good for a second at least");
    let expires_ms = issued_ms.checked_add(ttl_ms).context("a token that never expires is none")?;
    Ok(Claims::new(user, issued_ms, expires_ms))
}
