//! Why a store on PostgreSQL does not open.

use std::path::PathBuf;

use super::target::describe;
use crate::store::StoreError;

/// Why a store on PostgreSQL does not open, or why one of its databases is not used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PostgresError {
    /// A URL that is none.
    #[error("store.postgres: {0}")]
    Url(String),
    /// The file with the authorities to trust cannot be used.
    #[error("store.postgres_ca: {path}: {why}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// It cannot be reached, or it did not answer as it should.
    #[error("the database {database} is away: {why}")]
    Away {
        /// Where it is.
        database: String,
        /// What happened.
        why: String,
    },
    /// What it acknowledges it may lose.
    #[error(
        "the database {database} has {setting} = off: {risk}. Set {setting} = on in postgresql.conf (and for the \
         role and the database, where they have a setting of their own), restart the server, and start again"
    )]
    NotDurable {
        /// Where it is.
        database: String,
        /// The setting.
        setting: String,
        /// What it puts at risk.
        risk: &'static str,
    },
    /// A newer node has changed the schema.
    #[error(
        "the database {database} has the schema {found}, and this node knows up to {known}: start the version that \
         made it, or a newer one"
    )]
    Newer {
        /// Where it is.
        database: String,
        /// Its version.
        found: i64,
        /// The last that this node knows.
        known: i64,
    },
    /// The same database stands on the list twice.
    #[error("store.postgres: {first} and {second} are the same database")]
    Twice {
        /// A place on the list.
        first: String,
        /// Another.
        second: String,
    },
    /// The store was made with other databases, or in another order.
    #[error(
        "store.postgres: the database {database} belongs to a store of {recorded}, and this node is configured for \
         {configured}. Which database keeps a group depends on the list, so every node must have the one that was \
         recorded first, in its order"
    )]
    OtherList {
        /// Where it is.
        database: String,
        /// The list that it holds.
        recorded: String,
        /// The list of this node.
        configured: String,
    },
    /// Another database answers where one of the list was.
    #[error("the database {database} is not the one that this node began with")]
    Replaced {
        /// Where it is.
        database: String,
    },
}

impl PostgresError {
    pub(super) fn away(database: &str, error: &tokio_postgres::Error) -> Self {
        Self::Away { database: database.into(), why: describe(error) }
    }
}

/// Once a store is open, whatever is wrong with a database may be mended while it runs.
impl From<PostgresError> for StoreError {
    fn from(error: PostgresError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
