//! One connection, ready for work: checked, with its statements prepared.

use std::time::Duration;

use tokio::{sync::Notify, time::timeout};
use tokio_postgres::{Client, Error, Row, Statement, types::ToSql};

use super::{
    PostgresError, durability,
    list::{self, Identity},
    statements::Statements,
    target::{Driver, Target, describe},
};
use crate::store::StoreError;

/// How much longer than a statement may take its answer is waited for.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);

/// A connection. Whoever uses it at the same time shares its round trips.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) statements: Statements,
    answer_limit: Duration,
    abandoned: Notify,
}

impl Session {
    /// Connects, and sees that it is the right database and keeps what it is given.
    pub(super) async fn open(
        target: &Target,
        identity: Identity,
        statement_limit: Duration,
    ) -> Result<(Self, Driver), PostgresError> {
        let (client, mut driver) = target.connect().await?;
        let away = |why: String| PostgresError::Away { database: target.name.to_string(), why };
        let prepared = timeout(statement_limit, prepare(&client, &target.name, identity));
        let prepared = tokio::select! {
            biased;
            ended = &mut driver => Err(away(ended_because(ended))),
            prepared = prepared => prepared.unwrap_or_else(|_| Err(away("it does not answer".into()))),
        };
        let session = Self {
            statements: prepared?,
            client,
            answer_limit: statement_limit + ANSWER_MARGIN,
            abandoned: Notify::new(),
        };
        Ok((session, driver))
    }

    /// The rows that a statement by itself finds or changes.
    pub(super) async fn rows(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let unavailable = |why: String| StoreError::Unavailable(why);
        match self.answered(self.client.query(statement, parameters)).await {
            Some(found) => found.map_err(|error| unavailable(describe(&error))),
            None => Err(unavailable("the database does not answer".into())),
        }
    }

    /// Waits for an answer; one that does not come ends the connection, and is none.
    pub(super) async fn answered<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let answered = timeout(self.answer_limit, answer).await;
        if answered.is_err() {
            self.abandon();
        }
        answered.ok()
    }

    /// Ends the connection; its keeper makes another.
    pub(super) fn abandon(&self) {
        self.abandoned.notify_one();
    }

    /// Waits until somebody gives the connection up.
    pub(super) async fn abandoned(&self) {
        self.abandoned.notified().await;
    }
}

/// Why a connection has ended.
pub(super) fn ended_because(ended: Result<(), Error>) -> String {
    ended.map_or_else(|error| describe(&error), |()| "the connection was closed".into())
}

/// Every statement finds its rows by key, so one plan for each does, whatever the number of rows: it
/// must not go on reading all of a table that was empty when it was made, and making it anew or
/// compiling it never pays. Engines that have no such setting have no row for it.
const PLANNER: &str = "SELECT set_config(name, CASE name WHEN 'plan_cache_mode' THEN 'force_generic_plan' \
                                                       ELSE 'off' END, false) \
                       FROM pg_settings WHERE name IN ('plan_cache_mode', 'enable_seqscan', \
                                                       'enable_hashjoin', 'enable_mergejoin', 'jit')";

async fn prepare(client: &Client, database: &str, identity: Identity) -> Result<Statements, PostgresError> {
    let away = |error: Error| PostgresError::away(database, &error);
    durability::check(client, database).await?;
    client.query(PLANNER, &[]).await.map_err(away)?;
    if list::identity(client).await.map_err(away)? != identity {
        return Err(PostgresError::Replaced { database: database.into() });
    }
    Statements::prepare(client).await.map_err(away)
}
