//! A conversation through 20 % loss and 300 ms, beside the same one by MQTT over TLS and TCP, on the same path
//! one after the other.
//!
//! Debian's packages mosquitto, mosquitto-clients and socat are needed. After
//! `cargo build --release -p shoal-node`: `SHOAL_TEST_BINARY=$PWD/target/release/shoal cargo test --release -p
//! shoal-tests --test processes -- --ignored --nocapture beside_mqtt`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use shoal_loadgen::{Options, Report};
use shoal_network::Profile;
use shoal_tests::process::binary;

use crate::{
    load::{assert_nothing_is_lost, run},
    tunnel::{FAR, Running, Tunnel, is_within_namespace, until},
};

const PROFILE: &str = "rough";
const MEMBERS: u32 = 10;
/// Messages a second, of all members together.
const RATE: f64 = 2.0;
const LASTS: Duration = Duration::from_secs(120);
/// What is under way at the end has so long to arrive.
const DRAIN: Duration = Duration::from_secs(60);
const PAYLOAD_BYTES: usize = 128;

const MQTT_PORT: u16 = 8883;
const TOPIC: &str = "conversation";

#[test]
#[ignore = "it measures, for five minutes"]
fn a_conversation_stays_usable_where_a_fifth_is_lost() {
    if !is_within_namespace("beside_mqtt::a_conversation_stays_usable_where_a_fifth_is_lost") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let tunnel = Tunnel::new(Profile::named(PROFILE).unwrap(), runtime.handle());
    let dir = tempfile::tempdir().unwrap();
    let report = by_shoal(&tunnel, dir.path());
    assert_nothing_is_lost(&report);
    let (receipts, deliveries) = (report.publish_latency_ms, report.delivery_latency_ms);
    println!(
        "shoal: acknowledged after p50 {:.0} p99 {:.0} ms, delivered after p50 {:.0} p99 {:.0} ms, 0 lost",
        receipts.p50, receipts.p99, deliveries.p50, deliveries.p99
    );
    let heard = by_mqtt(&tunnel, dir.path());
    println!("mqtt: {heard}");
}

/// By the load generator: one group.
fn by_shoal(tunnel: &Tunnel, data: &Path) -> Report {
    let address = format!("{FAR}:4433");
    let mut serve = tunnel.far(binary());
    serve.args(["serve", "--listen", &address, "--ops", "off", "--data"]).arg(data).stdout(Stdio::null());
    let _node = Running::start(&mut serve);
    until("the node's keys", || ["ca.pem", "token.key"].iter().all(|file| data.join(file).exists()));
    let mut options = Options::new(address, data);
    (options.groups, options.members) = (Some(1), Some(MEMBERS));
    (options.rate, options.duration) = (RATE, LASTS);
    (options.clients.payload, options.clients.drain) = (PAYLOAD_BYTES, DRAIN);
    run(options)
}

/// By Debian's clients: each member has a connection to publish by and another to hear by, with QoS 1 both.
fn by_mqtt(tunnel: &Tunnel, data: &Path) -> Heard {
    let _broker = broker(tunnel, data);
    let begun = Instant::now();
    let (told, hearing) = mpsc::channel();
    let _ears: Vec<_> = (0..MEMBERS).map(|member| ear(member, data, begun, told.clone())).collect();
    let mut mouths: Vec<_> = (0..MEMBERS).map(|_| Mouth::open(data, begun)).collect();
    greet(&mut mouths, &hearing);
    let (began, count) = (Instant::now(), (LASTS.as_secs_f64() * RATE) as usize);
    for nth in 0..count {
        let due = began + Duration::from_secs_f64(nth as f64 / RATE);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let at = nth % mouths.len();
        mouths[at].say(nth + 1);
    }
    let deadline = Instant::now() + DRAIN;
    let mut delivered = BTreeMap::new();
    while delivered.len() < count * MEMBERS as usize {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(Said { to, nth, after }) = hearing.recv_timeout(left) else { break };
        if nth > 0 {
            // A second copy, as QoS 1 allows, does not count.
            delivered.entry((to, nth)).or_insert(after);
        }
    }
    let lost = count * MEMBERS as usize - delivered.len();
    let receipts = mouths.iter().flat_map(Mouth::receipts).collect();
    Heard { receipts, deliveries: delivered.into_values().collect(), lost }
}

/// All are connected and subscribed once each has heard something, and was heard; then the path is left to calm down.
fn greet(mouths: &mut [Mouth], hearing: &mpsc::Receiver<Said>) {
    let mut deaf: BTreeSet<_> = (0..MEMBERS).collect();
    until("everybody hears", || {
        mouths.iter_mut().for_each(|mouth| mouth.say(0));
        while let Ok(said) = hearing.recv_timeout(Duration::from_secs(1)) {
            deaf.remove(&said.to);
        }
        deaf.is_empty() && mouths.iter().all(|mouth| !mouth.acknowledged.lock().unwrap().is_empty())
    });
    thread::sleep(Duration::from_secs(10));
}

fn broker(tunnel: &Tunnel, data: &Path) -> Running {
    let file = |name: &str| data.join(name).display().to_string();
    let settings = format!(
        "user root\nlistener {MQTT_PORT} {FAR}\nallow_anonymous true\nset_tcp_nodelay true\ncertfile {}\nkeyfile {}\n",
        file("node.pem"),
        file("node.key")
    );
    fs::write(data.join("mosquitto.conf"), settings).unwrap();
    let mut broker = tunnel.far("mosquitto");
    broker.arg("-c").arg(data.join("mosquitto.conf")).stderr(Stdio::null());
    Running::start(&mut broker)
}

/// One of Debian's clients; what it prints comes line by line.
fn client(program: &str, data: &Path) -> Command {
    let mut command = Command::new("stdbuf");
    command.args(["-oL", program, "-h", FAR, "-p", &MQTT_PORT.to_string(), "-q", "1", "-t", TOPIC]);
    command.arg("--cafile").arg(data.join("ca.pem")).arg("--insecure").stdout(Stdio::piped());
    command
}

/// What a member heard.
struct Said {
    to: u32,
    nth: usize,
    after: Duration,
}

/// Tells what the member hears: each message begins with its number and the nanoseconds at which it was said.
fn ear(member: u32, data: &Path, begun: Instant, told: mpsc::Sender<Said>) -> Running {
    let mut process =
        Running::start(client("mosquitto_sub", data).arg("-c").arg("-i").arg(format!("ear{member}")));
    let lines = BufReader::new(process.child().stdout.take().unwrap()).lines();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let mut numbers = line.split(' ').map(str::parse);
            let (Some(Ok(nth)), Some(Ok(said))) = (numbers.next(), numbers.next()) else { continue };
            let after = begun.elapsed().saturating_sub(Duration::from_nanos(said));
            let _ = told.send(Said { to: member, nth: nth as usize, after });
        }
    });
    process
}

/// A member's way to say something.
struct Mouth {
    _process: Running,
    stdin: ChildStdin,
    begun: Instant,
    said: Vec<(usize, Instant)>,
    /// When each was acknowledged, by the number that the client gave it: 1, 2, 3, …
    acknowledged: Arc<Mutex<BTreeMap<usize, Instant>>>,
}

impl Mouth {
    fn open(data: &Path, begun: Instant) -> Self {
        let mut process =
            Running::start(client("mosquitto_pub", data).args(["-d", "-l"]).stdin(Stdio::piped()));
        let stdin = process.child().stdin.take().unwrap();
        let lines = BufReader::new(process.child().stdout.take().unwrap()).lines();
        let acknowledged = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let into = acknowledged.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let number =
                    line.split_once("received PUBACK (Mid: ").and_then(|(_, rest)| rest.split(',').next());
                if let Some(number) = number.and_then(|number| number.parse().ok()) {
                    into.lock().unwrap().entry(number).or_insert_with(Instant::now);
                }
            }
        });
        Self { _process: process, stdin, begun, said: Vec::new(), acknowledged }
    }

    fn say(&mut self, nth: usize) {
        let mut text = format!("{nth} {} ", self.begun.elapsed().as_nanos());
        text.extend(std::iter::repeat_n('.', PAYLOAD_BYTES - text.len()));
        self.said.push((nth, Instant::now()));
        writeln!(self.stdin, "{text}").unwrap();
    }

    /// How long each took to be acknowledged, without the greetings.
    fn receipts(&self) -> Vec<Duration> {
        let acknowledged = self.acknowledged.lock().unwrap();
        let mut receipts = Vec::new();
        for ((nth, said), number) in self.said.iter().zip(1..) {
            if let Some(at) = acknowledged.get(&number).filter(|_| *nth > 0) {
                receipts.push(at.duration_since(*said));
            }
        }
        receipts
    }
}

/// What came of it.
struct Heard {
    receipts: Vec<Duration>,
    deliveries: Vec<Duration>,
    lost: usize,
}

impl std::fmt::Display for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |took: &[Duration], share: f64| {
            let mut took = took.to_vec();
            took.sort();
            took[((took.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0
        };
        let Self { receipts, deliveries, lost } = self;
        write!(
            f,
            "acknowledged after p50 {:.0} p99 {:.0} ms ({}), delivered after p50 {:.0} p99 {:.0} ms ({}), {lost} lost",
            at(receipts, 0.5),
            at(receipts, 0.99),
            receipts.len(),
            at(deliveries, 0.5),
            at(deliveries, 0.99),
            deliveries.len()
        )
    }
}
