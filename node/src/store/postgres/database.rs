//! One database: its writers, and its connections for reads.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_postgres::{Row, Statement, types::ToSql};

use super::{
    batch::{Answer, Request},
    link::{Link, Route},
    session::Session,
    statements::Statements,
    writer::Writer,
};
use crate::{config::StoreLimits, ops::Metrics, store::StoreError};

/// Reads under way on one connection; more wait, and no answer piles up for them.
const READS_PER_CONNECTION_MAX: usize = 8;

pub(super) struct Database {
    writers: Vec<(mpsc::Sender<Request>, Arc<Link>)>,
    readers: Vec<Link>,
    /// For signs of life alone: nothing waits there.
    aside: Link,
    next_reader: AtomicUsize,
    /// Room for reads.
    reads: Semaphore,
    metrics: Arc<Metrics>,
}

impl Database {
    /// Begins to connect, and starts the writers.
    pub(super) fn start(route: &Route, limits: &StoreLimits, metrics: &Arc<Metrics>) -> Self {
        let writer = |_| {
            let (sender, requests) = mpsc::channel(limits.appends_max.max(1));
            let link = Arc::new(Link::start(route.clone()));
            let (waiting, metrics) = (VecDeque::new(), Arc::clone(metrics));
            tokio::spawn(Writer { requests, waiting, link: Arc::clone(&link), metrics }.run());
            (sender, link)
        };
        let readers = limits.read_connections.max(1);
        Self {
            writers: (0..limits.write_connections.max(1)).map(writer).collect(),
            readers: (0..readers).map(|_| Link::start(route.clone())).collect(),
            aside: Link::start(route.clone()),
            next_reader: AtomicUsize::new(0),
            reads: Semaphore::new(readers * READS_PER_CONNECTION_MAX),
            metrics: Arc::clone(metrics),
        }
    }

    /// Hands a write to one of the writers, always the same for the same key, and waits for it.
    pub(super) async fn write<T, E: From<StoreError>>(
        &self,
        key: usize,
        request: impl FnOnce(Answer<T, E>) -> Request,
        unanswered: impl FnOnce(String) -> E,
    ) -> Result<T, E> {
        let (answer, answered) = oneshot::channel();
        let (writer, _) = &self.writers[key % self.writers.len()];
        let going = || "the node is shutting down".to_owned();
        if writer.send(request(answer)).await.is_err() {
            return Err(StoreError::Unavailable(going()).into());
        }
        answered.await.unwrap_or_else(|_| Err(unanswered(going())))
    }

    /// The rows of one statement by itself.
    pub(super) async fn read(
        &self,
        statement: impl Fn(&Statements) -> &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let _room = self.reads.acquire().await.expect("it is never closed");
        let session = self.reader().await?;
        self.metrics.store_reads.inc();
        session.rows(statement(&session.statements), parameters).await
    }

    /// The next connection that is there; where none is, the one whose turn it is.
    async fn reader(&self) -> Result<Arc<Session>, StoreError> {
        let turn = self.next_reader.fetch_add(1, Ordering::Relaxed) % self.readers.len();
        let (before, from) = self.readers.split_at(turn);
        match from.iter().chain(before).find_map(Link::current) {
            Some(session) => Ok(session),
            None => self.readers[turn].session().await,
        }
    }

    /// Waits until it has answered, whatever else it is asked.
    pub(super) async fn sign_of_life(&self) -> Result<(), StoreError> {
        let session = self.aside.session().await?;
        session.rows(&session.statements.setting, &[&b"sign-of-life".as_slice()]).await.map(drop)
    }

    /// Waits until it can be written to.
    pub(super) async fn connected(&self) -> Result<(), StoreError> {
        for (_, link) in &self.writers {
            link.session().await?;
        }
        Ok(())
    }

    /// Can it be written to? Why not, if not.
    pub(super) fn health(&self) -> Result<(), StoreError> {
        self.writers.iter().try_for_each(|(_, link)| link.why_away())
    }
}
