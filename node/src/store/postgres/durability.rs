//! What a server must be set to before it is trusted with a message.

use tokio_postgres::Client;

use super::PostgresError;

/// Settings without which a crash takes acknowledged messages with it. An engine that lacks one
/// of them has no such switch.
const NEEDED: [(&str, &str); 3] = [
    ("fsync", "a crash of the machine loses or damages what was acknowledged"),
    ("full_page_writes", "a crash of the machine may leave torn pages"),
    ("synchronous_commit", "a crash of the server loses the last transactions it acknowledged"),
];

/// Refuses a server that does not keep what it acknowledges. Settings of this very session count,
/// so that a role or a database that has its own is found out too.
pub(super) async fn check(client: &Client, database: &str) -> Result<(), PostgresError> {
    let names: Vec<&str> = NEEDED.iter().map(|(name, _)| *name).collect();
    let found = client
        .query("SELECT name, setting FROM pg_settings WHERE name = ANY($1::text[])", &[&names])
        .await
        .map_err(|error| PostgresError::away(database, &error))?;
    for row in &found {
        let (name, setting): (&str, &str) = (row.get(0), row.get(1));
        let Some((_, risk)) = NEEDED.iter().find(|(needed, _)| *needed == name) else { continue };
        if setting == "off" {
            return Err(PostgresError::NotDurable { database: database.into(), setting: name.into(), risk });
        }
    }
    Ok(())
}
