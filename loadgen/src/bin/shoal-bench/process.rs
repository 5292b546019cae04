//! A server in a process of its own, and what the kernel says it has used.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// The kernel counts CPU time in ticks of this many a second, for every process.
const TICKS_PER_SECOND: u64 = 100;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The node.
    Shoal,
    /// quinn alone.
    Bare,
}

/// A running server; it is killed when dropped.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) addr: SocketAddr,
    pub(crate) data: PathBuf,
    command: Command,
    child: Child,
}

impl Server {
    /// Starts a node with these settings (`key=value`), whose limits do not stand in the way of load:
    /// rates are not costs.
    pub(crate) fn shoal(binary: &Path, data: &Path, settings: &[String]) -> Result<Self> {
        let addr = free_addr()?;
        let ops = free_addr()?;
        fs::create_dir_all(data)?;
        let config = data.join("bench.toml");
        fs::write(&config, NODE_CONFIG)?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(&config).arg("--data").arg(data);
        command.arg("--listen").arg(addr.to_string()).arg("--ops").arg(ops.to_string());
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        Self::start(Kind::Shoal, addr, data, command)
    }

    /// Starts the bare server: this binary, with the same keys.
    pub(crate) fn bare(data: &Path, payload_bytes: usize) -> Result<Self> {
        let addr = free_addr()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare").arg("--listen").arg(addr.to_string()).arg("--data").arg(data);
        command.arg("--payload").arg(payload_bytes.to_string());
        Self::start(Kind::Bare, addr, data, command)
    }

    /// Starts what stands beside a link between nodes: this binary, with the same keys.
    pub(crate) fn echo(data: &Path) -> Result<Self> {
        let addr = free_addr()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("echo").arg("--listen").arg(addr.to_string()).arg("--data").arg(data);
        Self::start(Kind::Bare, addr, data, command)
    }

    fn start(kind: Kind, addr: SocketAddr, data: &Path, mut command: Command) -> Result<Self> {
        let log = fs::File::create(data.join(format!("{kind:?}.log").to_lowercase()))?;
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { kind, addr, data: data.to_owned(), command, child })
    }

    /// Kills it and starts it again, with what it has kept.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = self.command.spawn().with_context(|| format!("cannot start {:?}", self.command))?;
        Ok(())
    }

    /// Moves the bare server's tail.
    pub(crate) fn advance(&mut self, tail: u64) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("the server has no standard input")?;
        Ok(writeln!(stdin, "{tail}")?)
    }

    /// CPU time so far, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu(self.child.id())
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib * 1024).context("/proc/PID/status has another format here")
    }

    /// Fails where the server has ended by itself.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the server ended: {ended:?}; its log is in {}", self.data.display());
        Ok(())
    }
}

/// A process's CPU time so far, user and system.
pub(crate) fn cpu(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    cpu_ticks(&stat)
        .map(|ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
        .context("/proc/PID/stat has another format here")
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const NODE_CONFIG: &str = "\
[limits.access]
publish_rate_per_second = 1000000
publish_burst = 1000000
request_rate_per_second = 1000000
request_burst = 1000000

[limits.group]
member_rate_per_second = 1000000
member_burst = 1000000
group_rate_per_second = 1000000
group_burst = 1000000
";

fn free_addr() -> Result<SocketAddr> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// User and system time: fields 14 and 15, counted after the name, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(field(14)? + field(15)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "1234 (a) b (c) S 1 1 1 0 -1 4194304 500 0 0 0 70 30 0 0 20 0 4 0 100 1000 200";
        assert_eq!(cpu_ticks(stat), Some(100));
    }
}
