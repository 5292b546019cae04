//! Two network namespaces, joined by a relay that loses and delays: all packets, those of TCP too.
//!
//! ```text
//!  near: this process ── TUN ── socat ── UDP ── relay ── UDP over veth ── socat ── TUN ── far: servers
//! ```

use std::{
    ffi::OsStr,
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use shoal_network::{Profile, Relay, Trouble, Weather};
use tokio::{runtime::Handle, sync::watch};

/// The far end's address, where its servers listen.
pub(crate) const FAR: &str = "10.99.0.2";

const NEAR: &str = "10.99.0.1";
const VETH_NEAR: &str = "10.98.0.1";
const VETH_FAR: &str = "10.98.0.2";
const PORT: u16 = 7000;

/// A packet of the tunnel fits a datagram that any of the named networks takes.
const MTU: u32 = 1_400;

/// Set where the test runs in a namespace of its own.
const WITHIN: &str = "SHOAL_TEST_WITHIN_NAMESPACE";

/// Runs the ignored test of this name again in a network namespace of its own. Is this that run?
pub(crate) fn is_within_namespace(test: &str) -> bool {
    if std::env::var_os(WITHIN).is_some() {
        return true;
    }
    let status = Command::new("unshare")
        .args(["--map-root-user", "--net"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(WITHIN, "1")
        .status()
        .expect("util-linux is installed");
    assert!(status.success());
    false
}

/// A process that ends with this.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so; a look each 50 ms.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The far namespace, and the way there.
pub(crate) struct Tunnel {
    namespace: String,
    _relay: Relay,
    _processes: Vec<Running>,
}

impl Tunnel {
    /// Through a network like this.
    pub(crate) fn new(profile: &'static Profile, runtime: &Handle) -> Self {
        let holder = Running::start(Command::new("unshare").args(["--net", "sleep", "infinity"]));
        let namespace = format!("/proc/{}/ns/net", holder.0.id());
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        until("another namespace", || fs::read_link(&namespace).is_ok_and(|other| other != own));
        let relay = runtime.block_on(async {
            let weather = move |_| Weather::new(profile, Trouble::Steady, Duration::ZERO);
            let (node, began) = (format!("{VETH_FAR}:{PORT}").parse().unwrap(), tokio::time::Instant::now());
            Relay::start(node, 1, began, watch::Sender::new(None), weather).unwrap()
        });
        let port = relay.address().port();
        let mut tunnel = Self { namespace, _relay: relay, _processes: vec![holder] };
        tunnel.lay_cable();
        let listen = format!("UDP4-LISTEN:{PORT},bind={VETH_FAR}");
        let ends = [
            tunnel.far("socat").args([device("far0", FAR), listen]).spawn(),
            Command::new("socat").args([device("near0", NEAR), format!("UDP4:127.0.0.1:{port}")]).spawn(),
        ];
        tunnel._processes.extend(ends.map(|end| Running(end.expect("socat is installed"))));
        for (at, device) in [(tunnel.far("ip"), "far0"), (Command::new("ip"), "near0")] {
            narrow(at, device);
        }
        tunnel
    }

    /// What the ends of the tunnel talk over.
    fn lay_cable(&self) {
        let words = |text: &str| text.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
        let holder = self._processes[0].0.id();
        for line in [
            "link set lo up".to_owned(),
            format!("link add veth0 mtu 9000 type veth peer name veth1 mtu 9000 netns {holder}"),
            format!("address add {VETH_NEAR}/24 dev veth0"),
            "link set veth0 up".to_owned(),
        ] {
            ran(Command::new("ip").args(words(&line)));
        }
        for line in ["link set lo up", &format!("address add {VETH_FAR}/24 dev veth1"), "link set veth1 up"] {
            ran(self.far("ip").args(words(line)));
        }
    }

    /// A program that is to run at the far end.
    pub(crate) fn far(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace)).arg(program);
        command
    }
}

/// Sets the largest packet of a device, as soon as there is one.
fn narrow(mut ip: Command, device: &str) {
    ip.args(["link", "set", device, "mtu", &MTU.to_string()]).stderr(Stdio::null());
    until("a device", || ip.status().is_ok_and(|status| status.success()));
}

fn device(name: &str, address: &str) -> String {
    format!("TUN:{address}/24,tun-name={name},iff-no-pi,iff-up")
}

fn ran(command: &mut Command) {
    assert!(command.status().is_ok_and(|status| status.success()), "{command:?}");
}
