//! Opening: every database reached, checked, brought up to date, and found to belong together.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::{
    PostgresError, PostgresStore,
    database::Database,
    durability,
    link::Route,
    list::{self, Identity, Member},
    migrate::migrate,
    target::Target,
};
use crate::{
    config::{StoreConfig, StoreLimits},
    ops::Metrics,
    store::StoreError,
};

impl PostgresStore {
    /// Opens the databases of the configuration, and makes a store in them where there is none.
    ///
    /// # Errors
    /// [`PostgresError`]: one is away, is not to be trusted with a message, or belongs to another store.
    pub async fn open(config: &StoreConfig, limits: &StoreLimits) -> Result<Self, PostgresError> {
        Self::open_counted(config, limits, Arc::default()).await
    }

    /// As [`Self::open`], with counters that somebody looks at.
    ///
    /// # Errors
    /// The same.
    pub async fn open_counted(
        config: &StoreConfig,
        limits: &StoreLimits,
        metrics: Arc<Metrics>,
    ) -> Result<Self, PostgresError> {
        let targets = Target::all(config, limits)?;
        let mut opened = Vec::with_capacity(targets.len());
        for target in &targets {
            opened.push(Opened::open(target).await?);
        }
        let members: Vec<Member<'_>> =
            opened.iter().zip(&targets).map(|(opened, target)| opened.member(target)).collect();
        list::record(&members).await?;
        let start = |(target, opened): (&Target, &Opened)| {
            let route = Route {
                target: target.clone(),
                identity: opened.identity,
                connect_limit: Duration::from_millis(limits.connect_ms),
                statement_limit: Duration::from_millis(limits.statement_ms),
            };
            Database::start(&route, limits, &metrics)
        };
        let databases: Vec<Database> = targets.iter().zip(&opened).map(start).collect();
        for (database, target) in databases.iter().zip(&targets) {
            let away = |why: StoreError| PostgresError::Away {
                database: target.name.to_string(),
                why: why.to_string(),
            };
            database.connected().await.map_err(away)?;
        }
        Ok(Self { databases, metrics })
    }
}

/// A database with a connection of its own for the start.
struct Opened {
    client: Client,
    identity: Identity,
    driver: JoinHandle<()>,
}

impl Opened {
    async fn open(target: &Target) -> Result<Self, PostgresError> {
        let (client, driver) = target.connect().await?;
        // It ends with the client, which is told why.
        let driver = tokio::spawn(async move { drop(driver.await) });
        let mut opened = Self { client, identity: 0, driver };
        durability::check(&opened.client, &target.name).await?;
        migrate(&opened.client, &target.name).await?;
        let identity = list::identify(&opened.client).await;
        opened.identity = identity.map_err(|error| PostgresError::away(&target.name, &error))?;
        Ok(opened)
    }

    fn member<'o>(&'o self, target: &'o Target) -> Member<'o> {
        Member { client: &self.client, database: &target.name, identity: self.identity }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
