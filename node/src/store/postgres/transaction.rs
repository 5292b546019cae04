//! One transaction for all writes of a batch, in one round trip.
//!
//! Everything is sent before anything is answered: lock the groups' rows, in order; raise the epochs
//! of those that are activated; mark those whose epoch and tail are as stated, and move their tails;
//! write what follows for those that were marked; commit. What a group was refused for stays with it.

use std::{
    collections::{HashMap, HashSet},
    task::Poll,
};

use futures_util::{FutureExt, future::BoxFuture};
use shoal_protocol::{GroupId, Seq};
use tokio_postgres::{
    Error, Row, Statement,
    error::{DbError, Severity, SqlState},
    types::ToSql,
};

use super::{
    batch::{
        Columns, Created, Edits, MemberKeys, Members, Passing, Raised, Records, Request, SenderKeys, States,
    },
    rows,
    session::Session,
    target::describe,
};
use crate::store::{Append, AppendError, Create, Epoch, GroupRow, StoreError};

type Outcome = Result<Vec<Row>, Error>;
type Column<'s> = &'s (dyn ToSql + Sync);

/// What a committed transaction found and did.
#[derive(Debug, Default)]
pub(super) struct Written {
    found: HashMap<GroupId, (Epoch, Seq)>,
    passed: HashSet<GroupId>,
    activated: HashMap<GroupId, GroupRow>,
}

/// Why nothing was written, or why nobody knows.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was written: another transaction was in the way. Again.
    Met(String),
    /// Nothing was written, and one of the requests may be why.
    Refused(StoreError),
    /// Nothing was written, and nothing would be now.
    Away(StoreError),
    /// It may be written, now or a little later, or not.
    Unknown(String),
}

/// The statements of a transaction; those that do not say anything back are all one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// By itself, before the transaction: a new row is in nobody's way until the end.
    Create,
    Lock,
    Activate,
    Pass,
    Write,
    Commit,
}

struct Pipeline<'s> {
    session: &'s Session,
    steps: Vec<(Step, BoxFuture<'s, Outcome>)>,
}

impl Session {
    /// Sends the transaction of these requests, and waits for what becomes of it.
    pub(super) async fn write(&self, requests: &[Request]) -> Result<Written, Failure> {
        let columns = Columns::of(requests);
        // Random, so that no other transaction has marked a row with the same.
        let batch = rand::random();
        let outcome = self.answered(self.pipeline(&columns, &batch).run()).await;
        let outcome = outcome.unwrap_or_else(|| Err(Failure::Unknown("the database does not answer".into())));
        if matches!(outcome, Err(Failure::Away(_) | Failure::Unknown(_))) {
            self.abandon();
        }
        outcome
    }

    fn pipeline<'s>(&'s self, columns: &'s Columns<'_>, batch: &'s i64) -> Pipeline<'s> {
        let to = &self.statements;
        let Columns { created, locked, activated, passing, cursors, .. } = columns;
        let mut all = Pipeline { session: self, steps: Vec::new() };
        let Created { groups, incarnations, created_ms } = created;
        all.rows(Step::Create, &to.create, groups.len(), &[groups, incarnations, created_ms]);
        all.push(Step::Write, &to.begin, &[]);
        all.rows(Step::Lock, &to.lock, locked.len(), &[locked]);
        all.rows(Step::Activate, &to.activate, activated.len(), &[activated]);
        let Passing { groups, epochs, tails, tails_after } = passing;
        all.rows(Step::Pass, &to.pass, groups.len(), &[groups, epochs, tails, tails_after, batch]);
        all.written(columns, batch);
        let Raised { users, groups, read, delivered } = cursors;
        all.rows(Step::Write, &to.cursors_raised, users.len(), &[users, groups, read, delivered]);
        all.push(Step::Commit, &to.commit, &[]);
        all
    }
}

impl<'s> Pipeline<'s> {
    /// What is written for the groups that passed.
    fn written(&mut self, columns: &'s Columns<'_>, batch: &'s i64) {
        let to = &self.session.statements;
        let Records { groups, seqs, bodies } = &columns.records;
        self.rows(Step::Write, &to.records, groups.len(), &[groups, seqs, bodies, batch]);
        let Records { groups, seqs, bodies } = &columns.redactions;
        self.rows(Step::Write, &to.redactions, groups.len(), &[groups, seqs, bodies, batch]);
        let Edits { groups, records, edits } = &columns.edits;
        self.rows(Step::Write, &to.edits, groups.len(), &[groups, records, edits, batch]);
        let States { groups, settings, created_ms, closed, .. } = &columns.states;
        let States { members, senders_watermarks, notices_watermarks, layouts, features, .. } =
            &columns.states;
        let state: [Column<'s>; 10] = [
            groups,
            settings,
            created_ms,
            closed,
            members,
            senders_watermarks,
            notices_watermarks,
            layouts,
            features,
            batch,
        ];
        self.rows(Step::Write, &to.state, groups.len(), &state);
        let (groups, due) = &columns.notices;
        self.rows(Step::Write, &to.notices, groups.len(), &[groups, due, batch]);
        let Members { keys, roles, muted_until_ms, banned, joined, changed } = &columns.members;
        let MemberKeys { groups, slots, users } = keys;
        let member: [Column<'s>; 9] =
            [groups, slots, users, roles, muted_until_ms, banned, joined, changed, batch];
        self.rows(Step::Write, &to.members_put, groups.len(), &member);
        let MemberKeys { groups, slots, users } = &columns.members_removed;
        self.rows(Step::Write, &to.members_removed, groups.len(), &[groups, slots, users, batch]);
        let SenderKeys { groups, users, devices, incarnations } = &columns.senders;
        let sender: [Column<'s>; 6] = [groups, users, devices, incarnations, &columns.numbers, batch];
        self.rows(Step::Write, &to.senders_put, groups.len(), &sender);
        let SenderKeys { groups, users, devices, incarnations } = &columns.senders_removed;
        let sender: [Column<'s>; 5] = [groups, users, devices, incarnations, batch];
        self.rows(Step::Write, &to.senders_removed, groups.len(), &sender);
    }

    /// A statement for so many rows, where there are any.
    fn rows(&mut self, step: Step, statement: &'s Statement, count: usize, columns: &[Column<'s>]) {
        if count > 0 {
            self.push(step, statement, columns);
        }
    }

    fn push(&mut self, step: Step, statement: &'s Statement, parameters: &[Column<'s>]) {
        let (client, parameters) = (&self.session.client, parameters.to_vec());
        let outcome = async move { client.query(statement, &parameters).await };
        self.steps.push((step, outcome.boxed()));
    }

    async fn run(self) -> Result<Written, Failure> {
        let mut written = Written::default();
        for (step, outcome) in send(self.steps).await? {
            let found = match outcome.await {
                Ok(found) => found,
                // Whoever wanted the rows finds that they are not there.
                Err(error) if step == Step::Create => {
                    tracing::warn!(error = %describe(&error), "groups could not be created");
                    continue;
                }
                Err(error) => return Err(failure(step, &error)),
            };
            written.take(step, &found).map_err(Failure::Unknown)?;
        }
        Ok(written)
    }
}

/// Sends every statement. One that cannot be sent ends this before the next one is, and so before
/// the commit.
async fn send(
    steps: Vec<(Step, BoxFuture<'_, Outcome>)>,
) -> Result<Vec<(Step, BoxFuture<'_, Outcome>)>, Failure> {
    let mut sent = Vec::with_capacity(steps.len());
    for (step, mut outcome) in steps {
        let outcome = match futures_util::poll!(&mut outcome) {
            Poll::Pending => outcome,
            Poll::Ready(Ok(found)) => std::future::ready(Ok(found)).boxed(),
            Poll::Ready(Err(error)) => return Err(Failure::Away(StoreError::Unavailable(describe(&error)))),
        };
        sent.push((step, outcome));
    }
    Ok(sent)
}

/// Answers come in the order of the statements: after an error before it, a commit is none.
fn failure(step: Step, error: &Error) -> Failure {
    let why = describe(error);
    let Some(said) = error.as_db_error() else { return Failure::Unknown(why) };
    let code = said.code();
    if [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code) {
        Failure::Met(why)
    } else if step == Step::Commit {
        Failure::Unknown(why)
    } else if code.code().starts_with("23") {
        Failure::Refused(StoreError::Corrupt(why))
    } else if concerns_request(said) {
        Failure::Refused(StoreError::Unavailable(why))
    } else {
        Failure::Away(StoreError::Unavailable(why))
    }
}

/// A group's row that somebody holds, and data that does not fit; not what concerns the server.
fn concerns_request(said: &DbError) -> bool {
    let code = said.code();
    let waited = [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED].contains(code);
    let is_alive = said.parsed_severity().is_none_or(|severity| severity == Severity::Error);
    is_alive && (waited || ["21", "22", "54"].contains(&&code.code()[..2]))
}

impl Written {
    fn take(&mut self, step: Step, found: &[Row]) -> Result<(), String> {
        let told = |error: StoreError| error.to_string();
        for row in found {
            match step {
                Step::Lock => {
                    let group = rows::group_id(row, 0).map_err(told)?;
                    let epoch = Epoch(rows::number(row, 1).map_err(told)?);
                    self.found.insert(group, (epoch, rows::seq(row, 2).map_err(told)?));
                }
                Step::Activate => {
                    let (group, activated) = rows::group(row).map_err(told)?;
                    self.activated.insert(group, activated);
                }
                Step::Pass => drop(self.passed.insert(rows::group_id(row, 0).map_err(told)?)),
                Step::Create | Step::Write | Step::Commit => {}
            }
        }
        Ok(())
    }

    fn appended(&self, append: &Append) -> Result<(), AppendError> {
        if self.passed.contains(&append.group) {
            return Ok(());
        }
        Err(match self.found.get(&append.group) {
            None => AppendError::Fenced { current: Epoch(0) },
            Some((current, _)) if *current != append.epoch => AppendError::Fenced { current: *current },
            Some((_, tail)) => AppendError::TailMoved { tail: *tail },
        })
    }

    fn activated(&self, group: GroupId, create: Option<Create>) -> Result<Option<GroupRow>, StoreError> {
        match self.activated.get(&group) {
            None if create.is_some() => Err(StoreError::Unavailable("the group could not be created".into())),
            row => Ok(row.cloned()),
        }
    }
}

impl Request {
    /// Tells whoever waits. Whoever no longer does has left it open what became of it.
    pub(super) fn answer(self, outcome: &Result<Written, Failure>) {
        match self {
            Self::Append { append, answer } => drop(answer.send(match outcome {
                Ok(written) => written.appended(&append),
                Err(Failure::Unknown(why)) => Err(AppendError::OutcomeUnknown(why.clone())),
                Err(failure) => Err(failure.error().into()),
            })),
            Self::Activate { group, create, answer } => {
                let written = outcome.as_ref().map_err(Failure::error);
                drop(answer.send(written.and_then(|written| written.activated(group, create))));
            }
            Self::RaiseCursors { answer, .. } => {
                drop(answer.send(outcome.as_ref().map(drop).map_err(Failure::error)));
            }
        }
    }
}

impl Failure {
    fn error(&self) -> StoreError {
        match self {
            Self::Refused(error) | Self::Away(error) => error.clone(),
            Self::Met(why) | Self::Unknown(why) => StoreError::Unavailable(why.clone()),
        }
    }
}
