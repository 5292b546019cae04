//! One etcd member.

use std::{
    io::{Read, Write},
    net::TcpStream,
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
    process: Option<Process>,
}

impl Etcd {
    /// A new one, once it answers.
    ///
    /// # Panics
    /// Where there is no etcd, or it does not start.
    #[must_use]
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("shoal-etcd-").tempdir().expect("a temporary folder");
        let mut etcd = Self { dir, port: free_port(), peer_port: free_port(), process: None };
        etcd.up();
        etcd
    }

    /// Where it answers: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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
        ];
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
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.contains(r#""health":"true""#))
    }
}
