//! A process that is given a hundredth of the time: ten milliseconds of each second.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// So long it goes on,
const ON: Duration = Duration::from_millis(10);

/// and so long it stands still.
const OFF: Duration = Duration::from_millis(990);

/// The process, until this is dropped: then it goes on for good.
#[derive(Debug)]
pub struct Slowed {
    end: Option<mpsc::Sender<()>>,
    slowing: Option<JoinHandle<()>>,
}

impl Slowed {
    /// Slows a process.
    ///
    /// # Panics
    /// Where there is no such process.
    #[must_use]
    pub fn begin(pid: u32) -> Self {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process has a number");
        kill_process(pid, Signal::STOP).expect("it can be stopped");
        let (end, ended) = mpsc::channel();
        let slowing = thread::spawn(move || {
            for (signal, lasts) in [(Signal::STOP, OFF), (Signal::CONT, ON)].into_iter().cycle() {
                // It may be gone.
                let _ = kill_process(pid, signal);
                if ended.recv_timeout(lasts) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            let _ = kill_process(pid, Signal::CONT);
        });
        Self { end: Some(end), slowing: Some(slowing) }
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(slowing) = self.slowing.take() {
            // It has nothing to panic about.
            let _ = slowing.join();
        }
    }
}
