//! A `shoal` process of a test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The command, without this environment's settings.
pub(crate) fn shoal() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHOAL_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    shoal().args(args).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A node that serves; it is killed when dropped.
pub(crate) struct Running {
    pub(crate) dir: TempDir,
    /// What it said when it was ready.
    pub(crate) announced: Value,
    child: Child,
}

impl Running {
    /// A node in a new folder.
    pub(crate) fn start(more: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more)
    }

    /// A node in this folder, once it serves.
    pub(crate) fn start_in(dir: TempDir, more: &[&str]) -> Self {
        let mut child = shoal()
            .args([
                "serve",
                "--log",
                "warn",
                "--log-format",
                "json",
                "--listen",
                "127.0.0.1:0",
                "--ops",
                "127.0.0.1:0",
            ])
            .arg("--data")
            .arg(dir.path())
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test may be over.
                drop(sender.send(line));
            }
        });
        let line = receiver.recv_timeout(PATIENCE);
        let Ok(line) = line else {
            drop(child.kill());
            panic!("the node did not say that it serves");
        };
        Self { dir, announced: serde_json::from_str(&line).unwrap(), child }
    }

    pub(crate) fn data(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    pub(crate) fn address(&self) -> String {
        self.announced["listen"][0].as_str().unwrap().to_owned()
    }

    fn ops(&self) -> SocketAddr {
        self.announced["ops"][0].as_str().unwrap().parse().unwrap()
    }

    /// Asks the operations address; status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.ops()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: shoal\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        // The shell's own: a small machine has no other.
        let kill = ["-c", "kill \"$0\" \"$1\"", signal, &pid];
        assert!(Command::new("sh").args(kill).status().unwrap().success());
    }

    /// Waits for the end of the process; its folder stays.
    pub(crate) fn wait(mut self) -> (ExitStatus, TempDir) {
        let status = wait(&mut self.child);
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        (status, dir)
    }

    /// SIGTERM, and the end.
    pub(crate) fn stop(self) -> TempDir {
        self.signal("-TERM");
        let (status, dir) = self.wait();
        assert!(status.success(), "{status}");
        dir
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(started.elapsed() < PATIENCE, "the process does not end");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A command to a node, as JSON.
pub(crate) fn ask(node: &Running, args: &[&str]) -> Value {
    let output = to(node, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same as people see it.
pub(crate) fn text(node: &Running, args: &[&str]) -> String {
    let output = to(node, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

/// What a command says that fails.
pub(crate) fn refused(node: &Running, args: &[&str]) -> String {
    let output = to(node, args);
    assert!(!output.status.success(), "{args:?}: {}", stdout(&output));
    stderr(&output)
}

fn to(node: &Running, args: &[&str]) -> Output {
    run(&[args, &["--node", &node.address(), "--data", node.data()]].concat())
}

/// What a folder's file holds.
pub(crate) fn read(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).unwrap()
}
