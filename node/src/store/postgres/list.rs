//! Which databases a store consists of, as each of them has it on record.
//!
//! A database gets an identity at its first migration. The first node to start writes the
//! identities, in the order of its configuration, into each database that has no list yet; every
//! other node must have the same.

use tokio_postgres::{Client, Error};

use super::PostgresError;

/// Who a database is, whatever its address.
pub(super) type Identity = i64;

/// The identity of a database, made where it has none.
pub(super) async fn identify(client: &Client) -> Result<Identity, Error> {
    client
        .execute(
            "INSERT INTO shoal.store (one, identity) VALUES (1, $1) ON CONFLICT (one) DO NOTHING",
            &[&rand::random::<Identity>()],
        )
        .await?;
    identity(client).await
}

/// The identity of a database that has one.
pub(super) async fn identity(client: &Client) -> Result<Identity, Error> {
    client.query_one("SELECT identity FROM shoal.store WHERE one = 1", &[]).await?.try_get(0)
}

/// A database that has been migrated and identified.
pub(super) struct Member<'d> {
    pub(super) client: &'d Client,
    pub(super) database: &'d str,
    pub(super) identity: Identity,
}

/// Records the list where there is none, and compares it where there is one. Databases are gone
/// through in the order of their identities: of two nodes with different lists that start at once,
/// one is refused before it has written anything.
pub(super) async fn record(members: &[Member<'_>]) -> Result<(), PostgresError> {
    let list: Vec<Identity> = members.iter().map(|member| member.identity).collect();
    let mut ordered: Vec<&Member<'_>> = members.iter().collect();
    ordered.sort_by_key(|member| member.identity);
    if let Some(pair) = ordered.windows(2).find(|pair| pair[0].identity == pair[1].identity) {
        let (first, second) = (pair[0].database.into(), pair[1].database.into());
        return Err(PostgresError::Twice { first, second });
    }
    for member in ordered {
        let recorded =
            member.record(&list).await.map_err(|error| PostgresError::away(member.database, &error))?;
        if recorded != list {
            return Err(PostgresError::OtherList {
                database: member.database.into(),
                recorded: describe(&recorded),
                configured: describe(&list),
            });
        }
    }
    Ok(())
}

impl Member<'_> {
    async fn record(&self, list: &[Identity]) -> Result<Vec<Identity>, Error> {
        self.client
            .execute("UPDATE shoal.store SET list = $1 WHERE one = 1 AND list IS NULL", &[&list])
            .await?;
        self.client.query_one("SELECT list FROM shoal.store WHERE one = 1", &[]).await?.try_get(0)
    }
}

fn describe(list: &[Identity]) -> String {
    let names: Vec<String> = list.iter().map(|identity| format!("{identity:016x}")).collect();
    let databases = if list.len() == 1 { "database" } else { "databases" };
    format!("{} {databases} ({})", list.len(), names.join(", "))
}
