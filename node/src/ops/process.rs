//! What the system knows of this process, read when somebody asks.

use std::{
    fmt, fs,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// The unit of the times in `/proc/self/stat`, which Linux fixes for all user programs.
const TICK_MS: u64 = 10;

/// Memory, processor time, open files and start of this process, under Prometheus' usual names.
#[derive(Debug)]
pub(super) struct Process {
    started_seconds: f64,
}

impl Process {
    pub(super) fn started_now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started_seconds: since.as_secs_f64() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name, help, value: Option<f64>| match value {
            Some(value) => {
                let gauge = ConstGauge::new(value);
                gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
            }
            None => Ok(()),
        };
        gauge("process_start_time_seconds", "Start, seconds since 1970.", Some(self.started_seconds))?;
        gauge("process_resident_memory_bytes", "Resident memory.", resident_bytes())?;
        gauge("process_open_fds", "Open files and sockets.", open_files())?;
        if let Some(time) = processor_time() {
            let counter = ConstCounter::new(time.as_secs_f64());
            let help = "Processor time, user and system.";
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, kind)?)?;
        }
        Ok(())
    }
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// What this process has kept processors busy for, user and system.
pub(crate) fn processor_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may hold spaces. After it: state first, user time 12th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(TICK_MS * (user + system)))
}

#[expect(clippy::cast_precision_loss, reason = "a scraped figure needs no more than 53 bits")]
fn open_files() -> Option<f64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_time_and_files() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000.0));
        assert!(processor_time().is_some_and(|time| time < Duration::from_secs(3_600)));
        assert!(open_files().is_some_and(|files| files >= 3.0));
    }
}
