//! A bot that answers in a group: `!roll`, `!echo …`, `!help`.
//!
//! ```sh
//! cargo run -p shoal-client --example bot -- --user dicebot --group '#general'
//! ```

mod setup;

use anyhow::Context;
use clap::Parser;
use shoal_client::{Client, Delivered, Message, Start, new_device, wire::record::Body};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    access: setup::Access,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let access = Args::parse().access;
    let client = Client::connect(access.config(new_device())?).await?;
    let group = access.enter(&client).await?;
    // Only what is said from now on: a bot does not answer yesterday's questions.
    let mut records = client.follow(group, Start::Tail).await?;
    println!("{} listens in {}", access.user, access.group);

    while let Some(delivered) = records.next().await {
        let Delivered::Record(record) = delivered? else { continue };
        let (Some(author), Some(Body::Message(message))) = (record.author, record.body) else { continue };
        if author.user == access.user.as_str() {
            continue;
        }
        let said = String::from_utf8_lossy(&message.payload);
        if let Some(answer) = answer(&said, &author.user) {
            // Queued in order and sent until it is acknowledged, whatever the network does; the
            // bot need not wait for that.
            let receipt = client.send(group, Message::new(answer)).await?;
            tokio::spawn(async move {
                if let Err(error) = receipt.await {
                    eprintln!("not sent: {error}");
                }
            });
        }
    }
    client.close().await;
    anyhow::Ok(()).context("the group has ended")
}

fn answer(said: &str, user: &str) -> Option<String> {
    match said.trim().split_once(' ').unwrap_or((said.trim(), "")) {
        ("!roll", _) => Some(format!("{user} rolls a {}", rand::random_range(1..=6))),
        ("!echo", text) => Some(text.to_owned()),
        ("!help", _) => Some("!roll, !echo TEXT, !help".to_owned()),
        _ => None,
    }
}
