//! One etcd member.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Process, find, free_port, said, wait_for};

/// An etcd of its own, in a temporary folder.
#[derive(Debug)]
pub struct Etcd {
    dir: TempDir,
    port: u16,
    peer_port: u16,
    health_port: u16,
    /// What makes it speak TLS, if it does.
    tls: Vec<String>,
    process: Option<Process>,
}

impl Etcd {
    /// A new one, once it answers.
    ///
    /// # Panics
    /// Where there is no etcd, or it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Vec::new())
    }

    /// A new one that speaks TLS, and only with those who have a certificate: `keys` is a folder
    /// with its `node.pem` and `node.key`, and the `ca.pem` that the others' must come from.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with_tls(keys: &Path) -> Self {
        let file = |option: &str, name: &str| format!("--{option}={}", keys.join(name).display());
        Self::start_with(vec![
            file("cert-file", "node.pem"),
            file("key-file", "node.key"),
            file("trusted-ca-file", "ca.pem"),
            "--client-cert-auth".into(),
        ])
    }

    fn start_with(tls: Vec<String>) -> Self {
        let dir = tempfile::Builder::new().prefix("shoal-etcd-").tempdir().expect("a temporary folder");
        let [port, peer_port, health_port] = [free_port(), free_port(), free_port()];
        let mut etcd = Self { dir, port, peer_port, health_port, tls, process: None };
        etcd.up();
        etcd
    }

    /// Where it answers: `http://127.0.0.1:PORT`, with TLS `https`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.tls.is_empty() { "http" } else { "https" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Starts it again with what it has kept; returns once it answers.
    ///
    /// # Panics
    /// Where it does not.
    pub fn up(&mut self) {
        let program = find("etcd", &[], "etcd-server");
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer_port));
        let arguments = [
            format!("--data-dir={}", self.dir.path().join("data").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            format!("--listen-metrics-urls=http://127.0.0.1:{}", self.health_port),
        ];
        let arguments = [&arguments[..], &self.tls].concat();
        let mut process = Process::start(&program, &arguments, None, self.dir.path());
        wait_for("etcd", || {
            assert!(process.ended().is_none(), "etcd ended: {}", said(self.dir.path()));
            self.is_healthy().unwrap_or(false)
        });
        self.process = Some(process);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// SIGSTOP: it keeps its connections and says nothing, until [`Self::resume`].
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    fn end(&mut self, signal: Signal) {
        if let Some(process) = self.process.take() {
            process.signal(signal);
            process.wait();
        }
    }

    fn is_healthy(&self) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.health_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.contains(r#""health":"true""#))
    }
}
