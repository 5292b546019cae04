//! Lines in, lines out: for pipes and scripts.

use futures_util::{StreamExt, stream::FuturesOrdered};
use shoal_client::{Client, Delivered, GroupId, Message, Start, wire::record::Body};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

/// Sends each line of the input, and prints `seq`, sender and text of each message, separated by
/// tabs. Receipts go to the error output.
pub(crate) async fn run(client: &Client, group: GroupId) -> anyhow::Result<()> {
    let mut records = client.follow(group, Start::Resume).await?;
    let mut lines = BufReader::new(stdin()).lines();
    let mut receipts = FuturesOrdered::new();
    let mut has_input = true;
    loop {
        tokio::select! {
            biased;
            Some(receipt) = receipts.next(), if !receipts.is_empty() => {
                let seq: shoal_client::Seq = receipt?;
                eprintln!("acknowledged at {seq}");
            }
            delivered = records.next() => match delivered {
                Some(Ok(Delivered::Record(record))) => {
                    let user = record.author.map(|author| author.user).unwrap_or_default();
                    if let Some(Body::Message(message)) = record.body {
                        println!("{}\t{user}\t{}", record.seq, String::from_utf8_lossy(&message.payload));
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            line = lines.next_line(), if has_input => match line? {
                Some(line) if line.is_empty() => {}
                Some(line) => receipts.push_back(client.send(group, Message::new(line)).await?),
                None => has_input = false,
            },
        }
        if !has_input && receipts.is_empty() {
            return Ok(());
        }
    }
}
