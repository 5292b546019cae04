//! What a node says once it serves: where it is, and how to try it.

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::Serialize;
use shoal_node::config::{Config, LogFormat};

use super::sockets::Sockets;
use crate::cli::{
    folder::Folder,
    output::{COMMAND, LABEL, STRONG, styled},
};

/// A node that serves.
#[derive(Debug, Serialize)]
pub(super) struct Announcement {
    event: &'static str,
    node: String,
    data: PathBuf,
    listen: Vec<SocketAddr>,
    ops: Vec<SocketAddr>,
    /// Keys and certificates were made just now.
    first_start: bool,
    try_it: Vec<(&'static str, String)>,
}

impl Announcement {
    pub(super) fn new(config: &Config, folder: &Folder, sockets: &Sockets) -> anyhow::Result<Self> {
        Ok(Self {
            event: "serving",
            node: folder.name.clone(),
            data: std::path::absolute(&config.data).context("data")?,
            listen: sockets.clients.clone(),
            ops: sockets.ops.clone(),
            first_start: folder.is_new,
            try_it: sockets.clients.first().map_or_else(Vec::new, |node| commands(*node, &config.data)),
        })
    }

    /// Prints it to standard output: a picture, or one line of JSON.
    pub(super) fn show(&self, format: LogFormat) -> anyhow::Result<()> {
        let text = match format {
            LogFormat::Human => self.to_text(io::stdout().is_terminal()),
            LogFormat::Json => serde_json::to_string(self)? + "\n",
        };
        let mut out = io::stdout();
        // A node serves even where nobody listens to what it prints.
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
        Ok(())
    }

    fn to_text(&self, is_terminal: bool) -> String {
        let [label, strong, command] = [LABEL, STRONG, COMMAND].map(|style| styled(style, is_terminal));
        let join = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("  ")
        };
        let made = if self.first_start { " (keys and certificates have just been made)" } else { "" };
        let mut lines = vec![String::new(), format!("  {strong}Shoal is serving as {}{strong:#}", self.node)];
        let mut line = |name: &str, value: String| {
            lines.push(format!("  {label}{name:<10}{label:#} {value}"));
        };
        if !self.listen.is_empty() {
            line("clients", join(&self.listen));
        }
        line("data", format!("{}{made}", self.data.display()));
        if let Some(ops) = self.ops.first() {
            line("metrics", format!("http://{ops}/metrics"));
        }
        lines.push(String::new());
        for (name, text) in &self.try_it {
            lines.push(format!("  {label}{name:<10}{label:#} {command}{text}{command:#}"));
        }
        lines.push(String::new());
        lines.join("\n") + "\n"
    }
}

/// What to type in another terminal, from the same folder.
fn commands(node: SocketAddr, data: &Path) -> Vec<(&'static str, String)> {
    let to = format!("--node {node} --data {}", quoted(data));
    let chat = |user| {
        format!("cargo run --release -p shoal-client --example chat -- {to} --user {user} --group '#general'")
    };
    let load = "--groups 10 --members 10 --rate 50 --duration 30s";
    vec![
        ("chat", chat("ann")),
        ("and", chat("bob")),
        ("load", format!("cargo run --release --bin shoal-loadgen -- run {to} {load}")),
        ("state", format!("cargo run --release --bin shoal -- status {to}")),
    ]
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_typed() {
        let commands = commands("127.0.0.1:4433".parse().unwrap(), Path::new("my data/o'hara"));
        assert!(
            commands.iter().all(|(_, text)| text.contains(r"--data 'my data/o'\''hara'")),
            "{commands:?}"
        );
        assert!(commands[2].1.contains("shoal-loadgen -- run --node 127.0.0.1:4433 --data"));
    }

    #[test]
    fn without_a_terminal_there_are_no_colours() {
        let announcement = Announcement {
            event: "serving",
            node: "node-1".into(),
            data: "/data".into(),
            listen: vec!["127.0.0.1:4433".parse().unwrap()],
            ops: vec!["127.0.0.1:9464".parse().unwrap()],
            first_start: true,
            try_it: vec![("chat", "cargo run".into())],
        };
        let text = announcement.to_text(false);
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(
            text.contains("http://127.0.0.1:9464/metrics") && text.contains("have just been made"),
            "{text}"
        );
    }
}
