//! Keeps one connection to a database, and makes another when it is gone.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    PostgresError,
    list::Identity,
    session::{Session, ended_because},
    target::Target,
};
use crate::store::StoreError;

/// Between attempts to connect: from this, doubled each time, up to [`PAUSE_MAX`], with jitter.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// A server that is back is found within this.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The connection, or why there is none.
type State = Result<Arc<Session>, String>;

/// A connection that is made again whenever it ends. Dropping this closes it.
pub(super) struct Link {
    state: watch::Receiver<State>,
    patience: Duration,
    keeper: JoinHandle<()>,
}

/// Where a link leads, and how long it waits there.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) target: Target,
    pub(super) identity: Identity,
    pub(super) connect_limit: Duration,
    pub(super) statement_limit: Duration,
}

impl Link {
    /// Begins to connect.
    pub(super) fn start(route: Route) -> Self {
        let patience = route.connect_limit;
        let (sender, state) = watch::channel(Err(format!("{} is not connected yet", route.target.name)));
        let keeper = tokio::spawn(async move { Keeper { route, state: sender }.run().await });
        Self { state, patience, keeper }
    }

    /// The connection; where there is none, what waits for it waits as long as connecting may take.
    pub(super) async fn session(&self) -> Result<Arc<Session>, StoreError> {
        let mut state = self.state.clone();
        let waited =
            timeout(self.patience, async { state.wait_for(is_there).await.map(|state| state.clone()) });
        match waited.await {
            Ok(Ok(found)) => found.map_err(StoreError::Unavailable),
            Ok(Err(_)) => Err(StoreError::Unavailable("the node is shutting down".into())),
            Err(_) => {
                Err(self.why_away().err().unwrap_or_else(|| StoreError::Unavailable("just now".into())))
            }
        }
    }

    /// The connection, if there is one now.
    pub(super) fn current(&self) -> Option<Arc<Session>> {
        Some(&*self.state.borrow()).filter(|state| is_there(state))?.as_ref().ok().cloned()
    }

    /// Is there a connection? Why not, if not.
    pub(super) fn why_away(&self) -> Result<(), StoreError> {
        self.state.borrow().as_ref().map(|_| ()).map_err(|why| StoreError::Unavailable(why.clone()))
    }
}

fn is_there(state: &State) -> bool {
    state.as_ref().is_ok_and(|session| !session.client.is_closed())
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Keeper {
    route: Route,
    state: watch::Sender<State>,
}

impl Keeper {
    async fn run(self) {
        let mut pause = PAUSE_MIN;
        loop {
            let why = match self.connect().await {
                Ok(why) => {
                    tracing::warn!(why, "a connection to a database has ended");
                    pause = PAUSE_MIN;
                    why
                }
                Err(error) => {
                    tracing::debug!(%error, "no connection to a database");
                    error.to_string()
                }
            };
            drop(self.state.send_replace(Err(why)));
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    /// Connects, and stays for as long as the connection does. Why it ended.
    async fn connect(&self) -> Result<String, PostgresError> {
        let Route { target, identity, statement_limit, .. } = &self.route;
        let (session, driver) = Session::open(target, *identity, *statement_limit).await?;
        let session = Arc::new(session);
        tracing::debug!(database = %target.name, "connected to a database");
        drop(self.state.send_replace(Ok(Arc::clone(&session))));
        let why = tokio::select! {
            biased;
            () = session.abandoned() => "it was given up after an error".to_owned(),
            ended = driver => ended_because(ended),
        };
        Ok(format!("the database {} is away: {why}", target.name))
    }
}
