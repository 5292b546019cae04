//! A server's process, and its end.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than any server here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the server below a shell that kills it, and removes its folder, once the pipe to whoever
/// started it is closed: even a test that is killed leaves nothing behind. The shell ends with the
/// server, and as it did.
const GUARD: &str = r#"
dir=$1
shift
exec 3<&0
"$@" </dev/null >&2 3<&- &
server=$!
echo $server
exec >&-
(
    read -r _ <&3
    # Those that it has forked: one that was just made may not see its end.
    forked=$(cat /proc/$server/task/$server/children)
    kill -KILL $server $forked
    # What it has forked may write for a moment yet.
    for _ in 1 2 3 4 5 6 7 8 9; do rm -rf "$dir" && break; sleep 0.2; done
) >/dev/null 2>&1 &
watcher=$!
wait $server
code=$?
kill $watcher
exit $code
"#;

/// Whom a server runs as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    guard: Child,
    server: Pid,
}

impl Process {
    /// Starts a server that keeps its files in `dir`; its output goes to the `log` there.
    pub(crate) fn start(program: &Path, arguments: &[String], user: Option<User>, dir: &Path) -> Self {
        let mut command = Command::new("sh");
        // A signal from the terminal is for whoever started it.
        command.process_group(0).args(["-c", GUARD, "sh"]).arg(dir).arg(program).args(arguments);
        if let Some(User { uid, gid }) = user {
            command.gid(gid).uid(uid);
        }
        let log = File::options().create(true).append(true).open(dir.join("log")).expect("a log");
        let mut guard = command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("sh is there");
        let mut pid = String::new();
        let stdout = guard.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut pid).expect("sh says the server's id");
        let server = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
        Self { guard, server }
    }

    /// Has it ended, and did all go well?
    pub(crate) fn ended(&mut self) -> Option<bool> {
        self.guard.try_wait().expect("a child can be asked").map(|status| status.success())
    }

    /// Sends a signal; one that has ended takes none.
    pub(crate) fn signal(&self, signal: Signal) {
        let forked = if signal == Signal::KILL { self.forked() } else { Vec::new() };
        for process in std::iter::once(self.server).chain(forked) {
            // It may have ended by itself.
            let _ = kill_process(process, signal);
        }
    }

    /// What it has forked, which does not always see that it is killed.
    fn forked(&self) -> Vec<Pid> {
        let server = self.server.as_raw_pid();
        let listed = fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
        let pids = listed.unwrap_or_default();
        pids.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }

    /// Waits until it has ended after a signal.
    pub(crate) fn wait(mut self) {
        wait_for("the server's end", || self.ended().is_some());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // It ends once the server that it then kills has.
        let _ = self.guard.wait();
    }
}

/// Waits until `is_so`.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not come in {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a server with its files in `dir` has said.
pub(crate) fn said(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// A port that was free a moment ago. It is below those that the system gives to connections: one
/// of these could take it before the server does, or while the server is away.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Processes that start one after the other are far apart.
    let first = std::process::id().wrapping_mul(331);
    let ports = || {
        let number = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        u16::try_from(10_000 + number % 20_000).expect("it is below 30,000")
    };
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(ports).take(20_000).find(is_free).expect("loopback has a free port")
}

/// A program on the path or in one of these folders.
pub(crate) fn find(program: &str, folders: &[PathBuf], package: &str) -> PathBuf {
    look_for(program, folders).unwrap_or_else(|| panic!("{program} is missing: apt-get install {package}"))
}

/// The same, if it is there.
pub(crate) fn look_for(program: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(folders.iter().cloned())
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
