//! Private etcd and PostgreSQL servers for tests and development: real ones, on free loopback ports, in temporary
//! folders. They end with whoever started them, however that ends.
//!
//! `shoal-engines COMMAND` (this crate's binary) starts one of each for all tests that the command
//! runs; [`shared_postgres`] and [`shared_etcd`] are where these find them.

mod etcd;

mod postgres;

mod process;

use std::sync::{Mutex, OnceLock};

pub use etcd::Etcd;
pub use postgres::Postgres;

/// The Debian packages of what is needed and not installed.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let is_missing =
        |program: &str, folders: &[std::path::PathBuf]| process::look_for(program, folders).is_none();
    let mut missing = Vec::new();
    if is_missing("etcd", &[]) {
        missing.push("etcd-server");
    }
    if is_missing("postgres", &postgres::folders()) {
        missing.push("postgresql");
    }
    missing
}

/// Where `shoal-engines` says which PostgreSQL it has started.
pub const POSTGRES_VARIABLE: &str = "SHOAL_TEST_POSTGRES";
/// Where `shoal-engines` says which etcd it has started.
pub const ETCD_VARIABLE: &str = "SHOAL_TEST_ETCD";

/// The URL of the test run's PostgreSQL. Make a database of your own in it.
#[must_use]
pub fn shared_postgres() -> String {
    std::env::var(POSTGRES_VARIABLE).unwrap_or_else(|_| {
        static OWN: OnceLock<Mutex<Postgres>> = OnceLock::new();
        own(&OWN, Postgres::start, Postgres::url)
    })
}

/// The endpoint of the test run's etcd. Use a prefix of your own in it.
#[must_use]
pub fn shared_etcd() -> String {
    std::env::var(ETCD_VARIABLE).unwrap_or_else(|_| {
        static OWN: OnceLock<Mutex<Etcd>> = OnceLock::new();
        own(&OWN, Etcd::start, Etcd::endpoint)
    })
}

/// One for this process, where no run has started one.
fn own<E>(cell: &OnceLock<Mutex<E>>, start: impl Fn() -> E, address: impl Fn(&E) -> String) -> String {
    let engine = cell.get_or_init(|| Mutex::new(start()));
    address(&engine.lock().expect("nobody panics while holding it"))
}
