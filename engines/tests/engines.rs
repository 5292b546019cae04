//! The servers come, go, come back, and leave nothing behind.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use shoal_engines::{Etcd, Postgres};

/// `http://127.0.0.1:1` or `postgres://user@127.0.0.1:1/name`: does anybody listen there?
fn answers(address: &str) -> bool {
    let host = address.rsplit_once('@').map_or(address, |(_, host)| host);
    let host = host.trim_start_matches("http://").trim_end_matches("/postgres");
    TcpStream::connect(host).is_ok()
}

#[test]
fn etcd_ends_and_comes_back() {
    let mut etcd = Etcd::start();
    let endpoint = etcd.endpoint();
    for kill in [Etcd::kill, Etcd::stop] {
        assert!(answers(&endpoint));
        kill(&mut etcd);
        assert!(!answers(&endpoint));
        etcd.up();
    }
    drop(etcd);
    assert!(!answers(&endpoint));
}

#[test]
fn a_paused_etcd_says_nothing_until_it_is_resumed() {
    let etcd = Etcd::start();
    let address = etcd.endpoint();
    let ask = || -> std::io::Result<usize> {
        let mut stream = TcpStream::connect(address.trim_start_matches("http://"))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        stream.read(&mut [0; 64])
    };
    etcd.pause();
    assert!(ask().is_err());
    etcd.resume();
    assert!(ask().is_ok_and(|bytes| bytes > 0));
}

#[test]
fn postgres_ends_and_comes_back() {
    let mut postgres = Postgres::start();
    let url = postgres.url();
    for kill in [Postgres::kill, Postgres::stop] {
        assert!(answers(&url));
        kill(&mut postgres);
        assert!(!answers(&url));
        postgres.up();
    }
    drop(postgres);
    assert!(!answers(&url));
}

#[test]
fn a_command_has_both_and_they_end_when_it_is_killed() {
    let dir = tempfile::tempdir().expect("a folder");
    let said = dir.path().join("said");
    let script = format!(
        "echo $SHOAL_TEST_ETCD $SHOAL_TEST_POSTGRES > {0}.new && mv {0}.new {0} && exec sleep 60 >/dev/null 2>&1",
        said.display()
    );
    let mut engines = Command::new(env!("CARGO_BIN_EXE_shoal-engines"))
        .args(["sh", "-c", &script])
        .stdin(Stdio::null())
        .spawn()
        .expect("it was built");
    let patience = Instant::now();
    while !said.exists() {
        assert!(patience.elapsed() < Duration::from_secs(60), "the command was not run");
        thread::sleep(Duration::from_millis(20));
    }
    let addresses = fs::read_to_string(&said).expect("it was written");
    let addresses: Vec<_> = addresses.split_whitespace().collect();
    assert_eq!(addresses.len(), 2);
    assert!(addresses.iter().all(|address| answers(address)));
    engines.kill().expect("it runs");
    engines.wait().expect("it ends");
    let patience = Instant::now();
    while addresses.iter().any(|address| answers(address)) {
        assert!(patience.elapsed() < Duration::from_secs(10), "the servers live on");
        thread::sleep(Duration::from_millis(20));
    }
}
