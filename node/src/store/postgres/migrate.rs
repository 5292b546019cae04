//! Brings a database's schema to what this node knows, one version after the other.
//!
//! A row is locked meanwhile, and not an advisory lock taken: some engines that speak this protocol
//! have advisory locks that do not lock. Each step can be repeated, for engines whose changes of the
//! schema are not part of the transaction.

use tokio_postgres::{Client, Error, error::SqlState};

use super::PostgresError;

/// Into how many partitions PostgreSQL divides each table by hash.
const PARTITIONS: usize = 16;

struct Migration {
    sql: &'static str,
    /// Its tables that are divided by hash.
    divided: &'static [&'static str],
}

const MIGRATIONS: [Migration; 3] = [
    Migration {
        sql: include_str!("migrations/0001_tables.sql"),
        divided: &["groups", "records", "edits", "members", "senders", "cursors"],
    },
    Migration { sql: include_str!("migrations/0002_layout.sql"), divided: &[] },
    Migration { sql: include_str!("migrations/0003_features.sql"), divided: &[] },
];

/// How often a step is tried that met another node's.
const TRIES_MAX: u32 = 10;

/// Makes or completes the schema, whoever else does so at the same time.
pub(super) async fn migrate(client: &Client, database: &str) -> Result<(), PostgresError> {
    let away = |error: Error| PostgresError::away(database, &error);
    client.batch_execute("SET statement_timeout = 0; SET lock_timeout = 0").await.map_err(away)?;
    let mut tries = 0;
    loop {
        match apply(client).await {
            Ok(found) if found > known() => {
                return Err(PostgresError::Newer { database: database.into(), found, known: known() });
            }
            Ok(_) => return Ok(()),
            Err(error) if tries < TRIES_MAX && meets_another(&error) => {
                client.batch_execute("ROLLBACK").await.map_err(away)?;
                tries += 1;
            }
            Err(error) => return Err(away(error)),
        }
    }
}

fn known() -> i64 {
    MIGRATIONS.len() as i64
}

/// The version that the database had, or has now if that is above it.
async fn apply(client: &Client) -> Result<i64, Error> {
    if !is_begun(client).await? {
        client
            .batch_execute(
                "CREATE SCHEMA IF NOT EXISTS shoal; \
                 CREATE TABLE IF NOT EXISTS shoal.migrations (version bigint NOT NULL PRIMARY KEY); \
                 INSERT INTO shoal.migrations (version) VALUES (0) ON CONFLICT (version) DO NOTHING",
            )
            .await?;
    }
    client.batch_execute("BEGIN").await?;
    client.query("SELECT version FROM shoal.migrations WHERE version = 0 FOR UPDATE", &[]).await?;
    let found: i64 = client.query_one("SELECT max(version) FROM shoal.migrations", &[]).await?.try_get(0)?;
    let divides = divides(client).await?;
    for (version, migration) in (1_i64..).zip(&MIGRATIONS).filter(|(version, _)| *version > found) {
        client.batch_execute(&migration.statements(divides)).await?;
        client.execute("INSERT INTO shoal.migrations (version) VALUES ($1)", &[&version]).await?;
        tracing::info!(version, "the database's schema has a new version");
    }
    client.batch_execute("COMMIT").await?;
    Ok(found)
}

/// Once it is, a node needs no right to make anything until there is a new version.
async fn is_begun(client: &Client) -> Result<bool, Error> {
    let begun = "SELECT EXISTS (SELECT 1 FROM information_schema.tables \
                 WHERE table_schema = 'shoal' AND table_name = 'migrations')";
    client.query_one(begun, &[]).await?.try_get(0)
}

/// Two nodes that begin at once may both try to make the same thing.
fn meets_another(error: &Error) -> bool {
    let met = [
        SqlState::UNIQUE_VIOLATION,
        SqlState::DUPLICATE_SCHEMA,
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    error.code().is_some_and(|code| met.contains(code))
}

/// Distributed engines divide their tables by themselves.
async fn divides(client: &Client) -> Result<bool, Error> {
    let version: String = client.query_one("SELECT version()", &[]).await?.try_get(0)?;
    Ok(!version.contains("CockroachDB") && !version.contains("-YB-"))
}

impl Migration {
    fn statements(&self, divides: bool) -> String {
        let by = |key: &str| if divides { format!("PARTITION BY HASH ({key})") } else { String::new() };
        let mut sql = self.sql.replace("{BY_GROUP}", &by("group_id")).replace("{BY_USER}", &by("user_id"));
        let tables = if divides { self.divided } else { &[] };
        for table in tables {
            for partition in 0..PARTITIONS {
                sql += &format!(
                    "CREATE TABLE IF NOT EXISTS shoal.{table}_{partition:02} PARTITION OF shoal.{table} \
                     FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {partition}){};\n",
                    // A row that changes with each append stays on its page if that has room.
                    if *table == "groups" { " WITH (fillfactor = 50)" } else { "" },
                );
            }
        }
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_divides_tables_itself_is_told_nothing_of_partitions() {
        for migration in &MIGRATIONS {
            let (divided, whole) = (migration.statements(true), migration.statements(false));
            assert_eq!(divided.contains("PARTITION BY HASH"), !migration.divided.is_empty(), "{divided}");
            assert!(!whole.contains("PARTITION") && !whole.contains('{'), "{whole}");
        }
    }
}
