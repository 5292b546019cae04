//! Where a database is, and how it is spoken to.

use std::{fs, path::Path, pin::Pin, str::FromStr, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tokio_postgres::{
    Client, Config, Error,
    config::{Host, SslMode, TargetSessionAttrs},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresError;
use crate::config::{StoreConfig, StoreLimits};

/// A transaction that waits for its node, which may be paused, is rolled back after this; whoever
/// takes over the node's groups waits for their rows no longer.
const IDLE_IN_TRANSACTION_MS: u64 = 1_000;

/// A connection's work; it ends with the connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// One database. Cheap to clone.
#[derive(Clone)]
pub(super) struct Target {
    config: Config,
    tls: MakeRustlsConnect,
    /// For people: where it is, without the password.
    pub(super) name: Arc<str>,
    connect_limit: Duration,
    statement_ms: u64,
}

impl Target {
    /// From each URL of the configuration.
    pub(super) fn all(config: &StoreConfig, limits: &StoreLimits) -> Result<Vec<Self>, PostgresError> {
        let tls = MakeRustlsConnect::new(tls(&config.postgres_ca)?);
        let target = |url: &String| {
            let mut parsed = parse(url).map_err(PostgresError::Url)?;
            // A server that only follows another one is passed over.
            parsed.target_session_attrs(TargetSessionAttrs::ReadWrite);
            parsed.application_name("shoal");
            if !config.postgres_ca.as_os_str().is_empty() {
                parsed.ssl_mode(SslMode::Require);
            } else if parsed.get_ssl_mode() == SslMode::Prefer {
                parsed.ssl_mode(SslMode::Disable);
            }
            Ok(Self {
                name: name(&parsed).into(),
                config: parsed,
                tls: tls.clone(),
                connect_limit: Duration::from_millis(limits.connect_ms),
                statement_ms: limits.statement_ms,
            })
        };
        config.postgres.iter().map(target).collect()
    }

    /// A new connection, with its limits set, and the work that must be done for it.
    pub(super) async fn connect(&self) -> Result<(Client, Driver), PostgresError> {
        let away = |why: String| PostgresError::Away { database: self.name.to_string(), why };
        let connected = timeout(self.connect_limit, self.config.connect(self.tls.clone())).await;
        let (client, connection) = connected
            .map_err(|_| away(format!("no answer within {:?}", self.connect_limit)))?
            .map_err(|error| away(describe(&error)))?;
        let mut driver: Driver = Box::pin(connection);
        let limits = self.limits();
        let limited = timeout(self.connect_limit, client.batch_execute(&limits));
        let limited = tokio::select! {
            biased;
            ended = &mut driver => return Err(away(ended.map_or_else(|error| describe(&error), |()| "it hung up".into()))),
            limited = limited => limited,
        };
        limited
            .map_err(|_| away(format!("no answer within {:?}", self.connect_limit)))?
            .map_err(|error| away(describe(&error)))?;
        Ok((client, driver))
    }

    /// A statement waits for another transaction's rows for half of its time: then the transaction
    /// is tried in parts.
    fn limits(&self) -> String {
        format!(
            "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}",
            self.statement_ms,
            self.statement_ms / 2,
            IDLE_IN_TRANSACTION_MS,
        )
    }
}

/// A URL as the driver takes it.
pub(crate) fn parse(url: &str) -> Result<Config, String> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("a URL begins with postgres://".into());
    }
    let config = Config::from_str(url).map_err(|error| describe(&error))?;
    if config.get_hosts().is_empty() {
        return Err("it names no host".into());
    }
    Ok(config)
}

/// An error with what caused it.
pub(super) fn describe(error: &Error) -> String {
    use std::error::Error as _;

    match (error.as_db_error(), error.source()) {
        (Some(said), _) => format!("{} ({})", said.message(), said.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

fn name(config: &Config) -> String {
    let host = |(at, host): (usize, &Host)| {
        let ports = config.get_ports();
        let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(host) => format!("{host}:{port}"),
            #[cfg(unix)]
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    };
    let hosts: Vec<String> = config.get_hosts().iter().enumerate().map(host).collect();
    format!("{}/{}", hosts.join(","), config.get_dbname().or(config.get_user()).unwrap_or_default())
}

/// Trusts the authorities in the file, and nobody where there is none.
fn tls(ca: &Path) -> Result<ClientConfig, PostgresError> {
    let roots = if ca.as_os_str().is_empty() {
        RootCertStore::empty()
    } else {
        let unusable = |why: String| PostgresError::Authority { path: ca.into(), why };
        let pem = fs::read_to_string(ca).map_err(|error| unusable(error.to_string()))?;
        shoal_certs::roots_from_pem(&pem).map_err(|error| unusable(error.to_string()))?
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("the provider has suites for the default versions");
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        let config = StoreConfig { postgres: vec![url.into()], ..StoreConfig::default() };
        Target::all(&config, &StoreLimits::default()).unwrap().remove(0)
    }

    #[test]
    fn a_name_says_where_and_keeps_the_password() {
        assert_eq!(&*target("postgres://al:secret@db1,db2:5433/shoal").name, "db1:5432,db2:5433/shoal");
        assert_eq!(&*target("postgres://al@db1:1,db2:2").name, "db1:1,db2:2/al");
    }

    /// So would one whose node is stopped in the middle of it.
    #[tokio::test]
    async fn a_transaction_that_waits_for_its_node_is_rolled_back() {
        let (client, driver) = target(&shoal_engines::shared_postgres()).connect().await.unwrap();
        let driver = tokio::spawn(driver);
        client.batch_execute("BEGIN").await.unwrap();
        let ended = timeout(Duration::from_millis(2 * IDLE_IN_TRANSACTION_MS), driver).await;
        assert!(ended.expect("the server ends it").unwrap().is_err());
    }
}
