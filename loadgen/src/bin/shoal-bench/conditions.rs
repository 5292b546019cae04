//! Under which conditions figures were taken.

use std::{fs, path::Path, process::Command};

use serde::Serialize;

const LOCKFILE: &str = include_str!("../../../../Cargo.lock");

/// The machine and the versions.
#[derive(Debug, Serialize)]
pub(crate) struct Conditions {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    pub(crate) node: String,
    pub(crate) quinn: String,
    pub(crate) quinn_proto: String,
    /// Processes waiting for a core when the measurements began: other work falsifies them.
    pub(crate) load_average: String,
}

impl Conditions {
    /// Asks the machine; what it does not say is empty.
    pub(crate) fn read(shoal: &Path, dir: &Path) -> Self {
        let dir = dir.display().to_string();
        Self {
            date: output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: memory_gib(),
            kernel: output("uname", &["-sr"]),
            file_system: output("stat", &["-f", "-c", "%T", &dir]),
            node: output(&shoal.display().to_string(), &["--version"]),
            quinn: locked("quinn"),
            quinn_proto: locked("quinn-proto"),
            load_average: fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
    value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

fn memory_gib() -> f64 {
    let kib = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<f64>();
    kib.map_or(0.0, |kib| (kib / f64::from(1 << 20) * 10.0).round() / 10.0)
}

/// The version of a crate that this was built with.
fn locked(name: &str) -> String {
    let entry = format!("name = \"{name}\"\nversion = \"");
    let rest = LOCKFILE.split_once(&entry).map_or("", |(_, rest)| rest);
    rest.split('"').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locked_versions_are_found() {
        assert!(locked("quinn").starts_with("0.11."));
        assert!(locked("quinn-proto").starts_with("0.11."));
        assert_eq!(locked("no-such-crate"), "");
    }
}
