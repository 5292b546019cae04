//! What quinn alone carries between two processes: a server that sends back what comes on a stream
//! of two ways and drops what comes on one of one way, and the client's end.
//!
//! Both ends are set up as a link between nodes is: mutual TLS, and its windows.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
use bytes::Bytes;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use shoal_certs::KeyFolder;

use crate::endpoint;

/// Serves until the standard input ends.
pub(crate) async fn serve(listen: SocketAddr, data: &Path) -> Result<()> {
    let endpoint = endpoint::peer(listen, &KeyFolder::open(data)?)?;
    // The standard input blocks, so it has a thread.
    let input_ends =
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    tokio::select! {
        biased;
        _ = input_ends => {}
        () = accept(endpoint) => {}
    }
    Ok(())
}

async fn accept(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await
                && let Err(error) = session(connection).await
            {
                tracing::debug!(%error, "a session ended");
            }
        });
    }
}

async fn session(connection: Connection) -> Result<()> {
    loop {
        tokio::select! {
            biased;
            stream = connection.accept_bi() => drop(tokio::spawn(echo(stream?))),
            stream = connection.accept_uni() => drop(tokio::spawn(swallow(stream?))),
        }
    }
}

async fn echo((mut send, mut recv): (SendStream, RecvStream)) -> Result<()> {
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        send.write_chunk(chunk.bytes).await?;
    }
    Ok(())
}

async fn swallow(mut stream: RecvStream) -> Result<()> {
    while stream.read_chunk(usize::MAX, true).await?.is_some() {}
    Ok(())
}

/// The client's end of a stream that comes back.
pub(crate) struct Echo {
    send: SendStream,
    recv: RecvStream,
}

impl Echo {
    pub(crate) async fn open(connection: &Connection) -> Result<Self> {
        let (send, recv) = connection.open_bi().await?;
        Ok(Self { send, recv })
    }

    /// Sends this, and waits until all of it is back.
    pub(crate) async fn round_trip(&mut self, bytes: Bytes) -> Result<()> {
        let mut missing = bytes.len();
        self.send.write_chunk(bytes).await?;
        while missing > 0 {
            let chunk = self.recv.read_chunk(missing, true).await?;
            missing -= chunk.map_or(missing, |chunk| chunk.bytes.len());
        }
        Ok(())
    }
}
