//! `shoal dev-cluster`: several nodes on this machine, with an etcd and a PostgreSQL of their own.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use shoal_engines::{Etcd, Postgres};

use super::{
    Shared,
    output::{COMMAND, Hinted, LABEL, Output, styled, table},
    serve::Signals,
};

/// How long a node may take to serve, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// The keys that all nodes of a cluster have in common.
const SHARED_KEYS: [&str; 4] = ["ca.pem", "ca.key", "token.key", "token.pub"];

/// Run several nodes on this machine until told to stop, for development.
///
/// A private etcd and a private PostgreSQL (Debian's packages) are started on free ports. They, and
/// the messages with them, are gone when the command ends; the keys in the data folder stay.
#[derive(Debug, Args)]
pub(super) struct DevCluster {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    nodes: u16,
    /// A folder for the nodes' own.
    #[arg(long, value_name = "DIR", default_value = "shoal-cluster")]
    data: PathBuf,
    /// The first node's UDP port for clients; the others have those above.
    #[arg(long, value_name = "PORT", default_value_t = 4433)]
    port: u16,
    /// The first node's TCP port for /metrics; the others have those above.
    #[arg(long, value_name = "PORT", default_value_t = 9464)]
    ops_port: u16,
    /// Any setting of all nodes; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// What a node says once it serves.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Said {
    node: String,
    data: PathBuf,
    listen: Vec<SocketAddr>,
    ops: Vec<SocketAddr>,
}

/// A cluster that serves.
#[derive(Debug, Serialize)]
struct Cluster<'c> {
    etcd: String,
    postgres: String,
    nodes: Vec<&'c Said>,
}

/// A node of it. It ends with whoever holds it.
#[derive(Debug)]
struct Member {
    child: Child,
    said: Said,
}

impl DevCluster {
    pub(super) fn run(self, shared: &Shared, output: Output) -> anyhow::Result<()> {
        let missing = shoal_engines::missing();
        if !missing.is_empty() {
            let packages = missing.join(" ");
            return Err(Hinted {
                message: format!("not installed here: {packages}"),
                hint: format!("on Debian: apt-get install --no-install-recommends {packages}"),
            }
            .into());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = runtime.block_on(async { Signals::install() })?;
        let (etcd, postgres) = (Etcd::start(), Postgres::start());
        let mut members = Vec::new();
        for number in 0..self.nodes {
            members.push(self.start(number, shared, &etcd, &postgres)?);
        }
        let nodes = members.iter().map(|member| &member.said).collect();
        let cluster = Cluster { etcd: etcd.endpoint(), postgres: postgres.url(), nodes };
        output.show(&cluster, |cluster| cluster.to_text())?;
        let gone = runtime.block_on(async {
            loop {
                tokio::select! {
                    biased;
                    () = signals.next() => return None,
                    () = tokio::time::sleep(Duration::from_millis(500)) => {}
                }
                if let Some(gone) = members.iter_mut().find_map(Member::gone) {
                    return Some(gone);
                }
            }
        });
        for member in &members {
            member.ask_to_stop();
        }
        members.into_iter().try_for_each(Member::wait)?;
        match gone {
            Some(gone) => bail!("{gone} has ended by itself; its log says why"),
            None => Ok(()),
        }
    }

    fn start(
        &self,
        number: u16,
        shared: &Shared,
        etcd: &Etcd,
        postgres: &Postgres,
    ) -> anyhow::Result<Member> {
        let folder = |number: u16| self.data.join(format!("node-{}", number + 1));
        let data = folder(number);
        if number > 0 {
            share_keys(&folder(0), &data)?;
        }
        let port = |first: u16| first.checked_add(number).context("the ports go beyond 65535");
        let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
        let mut command = Command::new(std::env::current_exe().context("this program's own path")?);
        command.args(["serve", "--json", "--data"]).arg(&data);
        command.args(["--listen", &address(port(self.port)?), "--ops", &address(port(self.ops_port)?)]);
        command.args(["--log", shared.log.as_deref().unwrap_or("warn")]);
        let settings = [
            format!("name=node-{}", number + 1),
            format!("coordination.etcd={}", etcd.endpoint()),
            format!("store.postgres={}", postgres.url()),
            "peer_listen=127.0.0.1:0".to_owned(),
        ];
        for setting in settings.iter().chain(&self.set) {
            command.args(["--set", setting]);
        }
        // A signal from the terminal is for this command, which then stops its nodes.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        Member::new(command.spawn().context("a node cannot be started")?)
    }
}

/// What the first node has made, all others use.
fn share_keys(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for key in SHARED_KEYS {
        let (from, to) = (from.join(key), to.join(key));
        if !to.exists() {
            fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        }
    }
    Ok(())
}

impl Member {
    /// Waits until it serves.
    fn new(mut child: Child) -> anyhow::Result<Self> {
        let lines = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        let (to, said) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // Only the first is waited for; the rest is read so that the node can go on.
                let _ = to.send(line);
            }
        });
        let mut member = Self { child, said: Said::default() };
        let first = said.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Disconnected => anyhow!(
                "a node ended before it served; what it said stands above. Where something else has its ports, \
                 give others: --port, --ops-port"
            ),
            RecvTimeoutError::Timeout => {
                anyhow!("a node does not come to serve within {} s", PATIENCE.as_secs())
            }
        })?;
        member.said = serde_json::from_str(&first).context("what a node says")?;
        Ok(member)
    }

    /// Its name, if it has ended.
    fn gone(&mut self) -> Option<String> {
        let has_ended = self.child.try_wait().is_ok_and(|status| status.is_some());
        has_ended.then(|| self.said.node.clone())
    }

    fn ask_to_stop(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn wait(mut self) -> anyhow::Result<()> {
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > PATIENCE {
                bail!("{} does not stop; it is killed", self.said.node);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster<'_> {
    fn to_text(&self) -> String {
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        let [label, command] = [LABEL, COMMAND].map(|style| styled(style, is_terminal));
        let mut nodes = table(["NODE", "CLIENTS", "METRICS"]);
        let join = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        for node in &self.nodes {
            let metrics = node.ops.first().map(|ops| format!("http://{ops}/metrics")).unwrap_or_default();
            nodes.add_row([&node.node, &join(&node.listen), &metrics]);
        }
        let all: Vec<_> =
            self.nodes.iter().flat_map(|node| node.listen.first()).map(ToString::to_string).collect();
        let data = self.nodes.first().map(|node| node.data.display().to_string()).unwrap_or_default();
        let load = format!("shoal-loadgen run --node {} --data {data} --shape 10x10", all.join(","));
        format!(
            "{nodes}\n\n{label}etcd{label:#}      {}\n{label}postgres{label:#}  {}\n{label}load{label:#}      \
             {command}{load}{command:#}\n",
            self.etcd, self.postgres
        )
    }
}
