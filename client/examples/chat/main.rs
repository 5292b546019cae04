//! A chat in the terminal.
//!
//! ```sh
//! cargo run -p shoal-client --example chat -- --user ada --group '#general'
//! ```
//!
//! With `--plain`, or where the output is no terminal, it reads lines and writes lines, and ends
//! when its input has ended and everything is acknowledged. With `--state FILE` it goes on where
//! it was, unsent messages and all, the next time it is started.

#[path = "../setup/mod.rs"]
mod setup;

mod conversation;

mod plain;

mod screen;

mod session;

use std::{io::IsTerminal, path::PathBuf};

use clap::Parser;
use shoal_client::{Client, DeviceId, Saved, new_device};

#[derive(Parser)]
#[command(about = "A chat in the terminal")]
struct Args {
    #[command(flatten)]
    access: setup::Access,
    /// Lines in, lines out.
    #[arg(long)]
    plain: bool,
    /// Keeps what must outlive the program.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let saved = match &args.state {
        Some(file) if file.exists() => Some(Saved::from_bytes(&std::fs::read(file)?)?),
        _ => None,
    };
    let device: DeviceId = saved.as_ref().map_or_else(new_device, Saved::device);
    let client = Client::connect(args.access.config(device)?.saved(saved).agent("shoal chat")).await?;
    let group = args.access.enter(&client).await?;
    let ended = if args.plain || !std::io::stdout().is_terminal() {
        plain::run(&client, group).await
    } else {
        session::run(&client, group, &args.access).await
    };
    client.close().await;
    if let Some(file) = &args.state {
        std::fs::write(file, client.save().to_bytes())?;
    }
    ended
}
