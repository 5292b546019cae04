//! One PostgreSQL server.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::process::{Process, User, find, free_port, said, wait_for};

/// A PostgreSQL of its own, in a temporary folder.
#[derive(Debug)]
pub struct Postgres {
    dir: TempDir,
    port: u16,
    user: Option<User>,
    options: Vec<String>,
    process: Option<Process>,
}

impl Postgres {
    /// A new one, once it answers.
    ///
    /// # Panics
    /// Where there is no PostgreSQL, or it does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A new one with these settings, as `fsync=off`.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        // Not below a folder that its user may not enter.
        let dir = tempfile::Builder::new().prefix("shoal-postgres-").tempdir_in("/tmp").expect("a folder");
        let user = other_than_root();
        if let Some(User { uid, gid }) = user {
            chown(dir.path(), Some(uid), Some(gid)).expect("root gives folders away");
        }
        let options = options.iter().map(ToString::to_string).collect();
        let mut postgres = Self { dir, port: free_port(), user, options, process: None };
        postgres.init();
        postgres.up();
        postgres
    }

    /// Where it answers: `postgres://postgres@127.0.0.1:PORT/postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it again with what it has kept; returns once it answers.
    ///
    /// # Panics
    /// Where it does not.
    pub fn up(&mut self) {
        let settings = [
            "listen_addresses=127.0.0.1".into(),
            "unix_socket_directories=".into(),
            "max_connections=200".into(),
            "shared_buffers=64MB".into(),
            format!("port={}", self.port),
        ];
        let mut arguments = vec!["-D".into(), self.data().display().to_string()];
        for setting in settings.iter().chain(&self.options) {
            arguments.extend(["-c".into(), setting.clone()]);
        }
        let program = program("postgres");
        let start = || Process::start(&program, &arguments, self.user, self.dir.path());
        let mut process = start();
        wait_for("PostgreSQL", || {
            if process.ended().is_some() {
                // What a killed one leaves in shared memory is in use until the last of it has ended.
                let said = said(self.dir.path());
                assert!(said.contains("shared memory"), "PostgreSQL ended: {said}");
                process = start();
            }
            self.is_ready()
        });
        self.process = Some(process);
    }

    /// SIGKILL of the server; what it has forked ends by itself.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// An orderly end that waits for nobody.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(process) = self.process.take() {
            process.signal(signal);
            process.wait();
        }
    }

    fn init(&self) {
        let data = self.data().display().to_string();
        let arguments =
            ["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"];
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        let mut init = Process::start(&program("initdb"), &arguments, self.user, self.dir.path());
        let mut is_made = None;
        wait_for("a new PostgreSQL", || {
            is_made = init.ended();
            is_made.is_some()
        });
        assert_eq!(is_made, Some(true), "initdb failed: {}", said(self.dir.path()));
    }

    fn is_ready(&self) -> bool {
        let mut ask = Command::new(program("pg_isready"));
        ask.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        ask.stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

fn program(name: &str) -> PathBuf {
    find(name, &folders(), "postgresql")
}

/// Debian keeps the server's programs off the path, by version; the latest first.
pub(crate) fn folders() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    folders
}

/// PostgreSQL refuses to run as root: then it runs as the user that its package has made.
fn other_than_root() -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string(Path::new("/etc/passwd")).expect("the list of users");
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let postgres = fields.into_iter().find(|fields| fields.first() == Some(&"postgres"));
    let number = |at: usize| postgres.as_ref().and_then(|fields| fields.get(at)?.parse().ok());
    let user = number(2).zip(number(3)).map(|(uid, gid)| User { uid, gid });
    Some(user.expect("there is no user postgres: apt-get install postgresql"))
}
