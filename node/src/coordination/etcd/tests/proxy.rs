//! A road to a server that can be blocked without a word.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// Forwards connections; while blocked, nothing passes and nothing ends.
pub(super) struct Proxy {
    address: String,
    blocked: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Proxy {
    pub(super) async fn to(server: &str) -> Self {
        let server = server.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let blocked = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, blocked.subscribe()));
        Self { address, blocked, tasks }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn block(&self, blocked: bool) {
        self.blocked.send_replace(blocked);
    }

    /// Resets all connections and takes no more.
    pub(super) async fn close(&mut self) {
        self.tasks.shutdown().await;
    }
}

async fn accept(listener: TcpListener, server: String, blocked: watch::Receiver<bool>) {
    let mut forwards = JoinSet::new();
    while let Ok((inner, _)) = listener.accept().await {
        let Ok(outer) = TcpStream::connect(&server).await else { continue };
        let ((from, to), (back_from, back_to)) = (inner.into_split(), outer.into_split());
        forwards.spawn(forward(from, back_to, blocked.clone()));
        forwards.spawn(forward(back_from, to, blocked.clone()));
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut blocked: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        let is_open = blocked.wait_for(|blocked| !blocked).await.is_ok();
        if !is_open || to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}
