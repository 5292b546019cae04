//! What is refused at the start, and what is not.

use std::{
    fs::Permissions,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use shoal_certs::{Authority, PrivateKey, Seed};
use shoal_engines::Postgres;
use shoal_node::{
    config::StoreConfig,
    store::{PostgresError, PostgresStore},
};

use crate::world::{client, config, database, database_on, eventually, limits, open};

async fn refused(urls: &[&str]) -> PostgresError {
    match open(urls).await {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_server_that_may_lose_what_it_acknowledged_is_refused() {
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let server = Postgres::start_with(&[&format!("{setting}=off")]);
        let error = refused(&[&server.url()]).await.to_string();
        assert!(error.contains(&format!("Set {setting} = on in postgresql.conf")), "{error}");
    }
}

#[tokio::test]
async fn so_is_a_database_with_such_a_setting_of_its_own() {
    let url = database().await;
    let name = url.rsplit('/').next().unwrap();
    let set = format!("ALTER DATABASE {name} SET synchronous_commit = off");
    client(&url).await.batch_execute(&set).await.unwrap();
    let error = refused(&[&url]).await;
    assert!(matches!(&error, PostgresError::NotDurable { setting, .. } if setting == "synchronous_commit"));
}

#[tokio::test]
async fn a_node_with_another_list_is_refused() {
    let (a, b, c) = (database().await, database().await, database().await);
    open(&[&a, &b]).await.unwrap();
    open(&[&a, &b]).await.unwrap();
    for other in [&[&*b, &*a][..], &[&*a], &[&*a, &*b, &*c], &[&*a, &*c], &[&*b, &*c]] {
        let error = refused(other).await;
        assert!(matches!(error, PostgresError::OtherList { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("store.postgres") && said.contains("2 databases"), "{said}");
    }
}

#[tokio::test]
async fn a_database_that_is_listed_twice_is_refused() {
    let url = database().await;
    let again = url.replace("127.0.0.1", "localhost");
    let error = refused(&[&url, &again]).await;
    assert!(matches!(error, PostgresError::Twice { .. }), "{error}");
}

#[tokio::test]
async fn nodes_that_start_at_once_make_one_store() {
    let urls = [database().await, database().await];
    let urls = [&*urls[0], &*urls[1]];
    let opened = join_all((0..6).map(|_| open(&urls))).await;
    for outcome in opened {
        outcome.map(drop).unwrap();
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let url = database().await;
    open(&[&url]).await.unwrap();
    client(&url).await.batch_execute("INSERT INTO shoal.migrations VALUES (99)").await.unwrap();
    let error = refused(&[&url]).await;
    assert!(matches!(error, PostgresError::Newer { found: 99, known: 3, .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let error = refused(&["postgres://al:secret@127.0.0.1:1/shoal"]).await.to_string();
    assert!(error.contains("127.0.0.1:1/shoal") && !error.contains("secret"), "{error}");
}

#[tokio::test]
async fn tables_are_divided_by_hash() {
    let url = database().await;
    open(&[&url]).await.unwrap();
    let count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'shoal.records'::regclass";
    assert_eq!(client(&url).await.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 16);
}

fn authority() -> Authority {
    Authority::new(PrivateKey::derive(&Seed::from_number(1), "ca"), now_ms())
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn trusting(url: &str, authority: &str) -> (StoreConfig, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), authority).unwrap();
    (StoreConfig { postgres_ca: file.path().into(), ..config([url]) }, file)
}

/// Whatever the URL says, with an authority named nothing goes over the wire in the clear.
#[tokio::test]
async fn a_server_without_tls_is_refused_where_an_authority_is_named() {
    let url = database().await;
    let (config, _file) = trusting(&url, authority().cert_pem());
    let error = PostgresStore::open(&config, &limits()).await.unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
    let (config, _file) = trusting(&url, "no certificate");
    let error = PostgresStore::open(&config, &limits()).await.unwrap_err();
    assert!(matches!(error, PostgresError::Authority { .. }), "{error}");
}

#[tokio::test]
async fn a_server_with_tls_is_spoken_to_if_the_authority_vouches_for_it() {
    let server = Postgres::start();
    let client = client(&server.url()).await;
    let place = client.query_one("SHOW data_directory", &[]).await.unwrap();
    let place = Path::new(place.get::<_, &str>(0));
    let key = PrivateKey::derive(&Seed::from_number(1), "server");
    let certificate = authority().issue(&key, &["127.0.0.1".into()], now_ms()).unwrap();
    let owner = std::fs::metadata(place).unwrap();
    for (name, text) in [("server.crt", certificate), ("server.key", key.to_pem())] {
        std::fs::write(place.join(name), text).unwrap();
        chown(place.join(name), Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::set_permissions(place.join(name), Permissions::from_mode(0o600)).unwrap();
    }
    client.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let url = database_on(&server.url()).await;
    let (config, _file) = trusting(&url, authority().cert_pem());
    let store = eventually(async || PostgresStore::open(&config, &limits()).await.ok()).await;
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'shoal' AND NOT ssl";
    assert_eq!(client.query_one(encrypted, &[]).await.unwrap().get::<_, i64>(0), 0);
    drop(store);
    let stranger = Authority::new(PrivateKey::derive(&Seed::from_number(2), "ca"), now_ms());
    let (config, _file) = trusting(&url, stranger.cert_pem());
    let error = PostgresStore::open(&config, &limits()).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}
