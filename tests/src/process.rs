//! A node as an operator runs it: the binary `shoal`, its data folder, its signals.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where `tests/run`, which has built it already, says that the binary is.
const BINARY_VARIABLE: &str = "SHOAL_TEST_BINARY";

/// The binary, built as these tests were: cargo builds the binaries of a package for that
/// package's own tests only.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(built) = std::env::var_os(BINARY_VARIABLE) {
            return built.into();
        }
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "shoal-node", "--bin", "shoal"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(built.success(), "the binary does not build");
        let this = std::env::current_exe().expect("this test has a path");
        this.ancestors().nth(2).expect("target/profile/deps/test").join("shoal")
    })
}

/// A data folder, and the node that serves it while it runs.
#[derive(Debug)]
pub struct Machine {
    dir: TempDir,
    node: Option<Serving>,
    listen: SocketAddr,
    settings: Vec<String>,
}

#[derive(Debug)]
struct Serving {
    child: Child,
    name: String,
    ops: SocketAddr,
}

impl Machine {
    /// A node in a new folder, once it serves, with these settings (`key=value`).
    #[must_use]
    pub fn start(settings: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), settings)
    }

    /// Another node, under the same authority and with the same token keys as this one.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start_beside(&self, settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for shared in ["ca.pem", "ca.key", "token.key", "token.pub"] {
            fs::copy(self.data().join(shared), dir.path().join(shared)).expect("keys can be copied");
        }
        Self::start_in(dir, settings)
    }

    fn start_in(dir: TempDir, settings: &[&str]) -> Self {
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut machine = Self { dir, node: None, listen: lasting_address(), settings };
        machine.up();
        machine
    }

    /// Where clients reach it, while it is down and after a restart too.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// The folder with the keys.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.dir.path()
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.node.as_ref().map(|node| node.child.id())
    }

    /// Its name, while it runs.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.node.as_ref().map(|node| node.name.as_str())
    }

    /// Has a command carried out against it by an administrator; what it answers, as JSON.
    ///
    /// # Panics
    /// Where that fails.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> serde_json::Value {
        let output = self.to_command(args).output().expect("the binary runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("it answers in JSON")
    }

    /// The same of a command that fails: what is wrong.
    ///
    /// # Panics
    /// Where it does not fail.
    #[must_use]
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.to_command(args).output().expect("the binary runs");
        assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).expect("an error is text")
    }

    /// A command against it by an administrator, answered in JSON, that is still to be run.
    #[must_use]
    pub fn to_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).arg("--json").arg("--node").arg(self.listen.to_string());
        command.arg("--data").arg(self.dir.path());
        command
    }

    /// Starts it; returns once it serves.
    ///
    /// # Panics
    /// Where it does not.
    pub fn up(&mut self) {
        let mut serve = Command::new(binary());
        serve.args(["serve", "--log", "warn", "--log-format", "json", "--ops", "127.0.0.1:0"]);
        serve.arg("--listen").arg(self.listen.to_string()).arg("--data").arg(self.dir.path());
        for setting in &self.settings {
            serve.arg("--set").arg(setting);
        }
        let mut child = serve.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the binary runs");
        let said = first_line(&mut child);
        let said: serde_json::Value = serde_json::from_str(&said).expect("a node announces itself in JSON");
        let address = |key: &str| said[key][0].as_str().and_then(|address| address.parse().ok());
        self.listen = address("listen").expect("it says where it listens");
        let name = said["node"].as_str().expect("it says its name").to_owned();
        let ops = address("ops").expect("it says where its metrics are");
        self.node = Some(Serving { child, name, ops });
    }

    /// SIGKILL, and the end.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill(&mut self) {
        let mut node = self.node.take().expect("it runs");
        node.child.kill().expect("it can be killed");
        node.child.wait().expect("it ends");
    }

    /// SIGTERM, and the end.
    ///
    /// # Panics
    /// Where it does not run, or does not end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        let mut node = self.node.take().expect("it runs");
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if let Some(status) = node.child.try_wait().expect("its status can be asked") {
                return status;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not stop");
    }

    /// Sends it a signal, by its name without SIG.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().expect("it runs").to_string();
        // The shell's own kill: a small machine has no other.
        let kill = format!("kill -{name} \"$0\"");
        let signalled = Command::new("sh").args(["-c", &kill, &pid]).status().expect("sh is there");
        assert!(signalled.success());
    }

    /// One of its metrics.
    ///
    /// # Panics
    /// Where it does not run, or has no such metric.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        self.find_metric(name).expect("the metric is there")
    }

    /// The same of one that is not there before something is counted.
    ///
    /// # Panics
    /// Where the node does not run.
    #[must_use]
    pub fn metric_or_zero(&self, name: &str) -> f64 {
        self.find_metric(name).unwrap_or_default()
    }

    fn find_metric(&self, name: &str) -> Option<f64> {
        let ops = self.node.as_ref().expect("it runs").ops;
        let mut stream = TcpStream::connect(ops).expect("the operations address answers");
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: shoal\r\nConnection: close\r\n\r\n").expect("asks");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answers");
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line?.split(' ').nth(1)?.parse().ok()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(node) = &mut self.node {
            // It may have ended by itself.
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
    }
}

/// An address below those that systems give to whoever asks for any: nobody gets it while the node
/// is down.
fn lasting_address() -> SocketAddr {
    const PORTS: Range<u16> = 10_000..32_000;
    let is_free = |address: &SocketAddr| UdpSocket::bind(address).is_ok();
    let mut addresses = std::iter::repeat_with(|| (Ipv4Addr::LOCALHOST, rand::random_range(PORTS)).into());
    addresses.find(is_free).expect("it goes on until one is free")
}

fn first_line(child: &mut Child) -> String {
    let stdout = child.stdout.take().expect("its output is piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Only the first is waited for; the rest is read so that the node can go on.
            let _ = sender.send(line);
        }
    });
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = child.kill();
        panic!("the node did not say that it serves")
    })
}
