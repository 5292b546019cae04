//! Starting, ready, draining: what signals, health and coordination make of a node.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use shoal_node::{
    config::Config,
    coordination::{Coordination, Registration, Roles, leader},
    node::Node,
    ops::Probe,
    settings::Settings,
    store::Store,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tracing::{error, info, warn};

use crate::cli::log::Filter;

/// Where the node is between its start and its end. Cheap to clone.
#[derive(Clone)]
pub(super) struct Phase(Arc<Mutex<State>>);

struct State {
    /// Why it does not serve; none once it does.
    not_ready: Option<&'static str>,
    store: Option<Arc<dyn Store>>,
}

impl Phase {
    pub(super) fn starting() -> Self {
        Self(Arc::new(Mutex::new(State { not_ready: Some("starting"), store: None })))
    }

    /// From here on the store's health counts too.
    pub(super) fn follow(&self, store: &Arc<dyn Store>) {
        self.set(|state| state.store = Some(Arc::clone(store)));
    }

    pub(super) fn ready(&self) {
        self.set(|state| state.not_ready = None);
    }

    fn draining(&self) {
        self.set(|state| (state.not_ready, state.store) = (Some("draining"), None));
    }

    pub(super) fn probe(&self) -> Probe {
        let phase = self.clone();
        Arc::new(move || {
            let state = phase.0.lock().unwrap_or_else(PoisonError::into_inner);
            match (state.not_ready, &state.store) {
                (Some(reason), _) => Err(reason.to_owned()),
                (None, Some(store)) => store.health().map_err(|error| error.to_string()),
                (None, None) => Ok(()),
            }
        })
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// How long a node that is told to stop may take.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    /// To hand over to others.
    drain: Duration,
    /// For clients to leave after that.
    grace: Duration,
}

impl Allowed {
    /// As it is set when the node is told.
    fn by(config: &Config) -> Self {
        Self {
            drain: Duration::from_millis(config.drain_max_ms),
            grace: Duration::from_millis(config.drain_grace_ms),
        }
    }
}

/// SIGINT and SIGTERM.
pub(in crate::cli) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(in crate::cli) fn install() -> anyhow::Result<Self> {
        let install = |kind| signal(kind).context("signals cannot be handled");
        Ok(Self {
            interrupt: install(SignalKind::interrupt())?,
            terminate: install(SignalKind::terminate())?,
        })
    }

    /// Waits for either. Cancellation safe.
    pub(in crate::cli) async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A node that serves, and what is told of it.
pub(super) struct Running {
    pub(super) node: Node,
    pub(super) coordination: Arc<dyn Coordination>,
    pub(super) registration: Box<dyn Registration>,
    pub(super) settings: Arc<Settings>,
    pub(super) filter: Filter,
    pub(super) roles: Roles,
    /// How long other nodes have to come back when coordination was away.
    pub(super) grace: Duration,
    pub(super) phase: Phase,
}

impl Running {
    /// Serves until a signal, then hands over to other nodes and lets the clients leave. A second signal
    /// ends the process.
    pub(super) async fn until_stopped(self, mut signals: Signals) {
        let is_told = async {
            signals.next().await;
            true
        };
        let is_lost = async {
            self.registration.lost().await;
            error!("another node has taken this one's name");
            false
        };
        let stopped = async {
            tokio::select! {
                biased;
                is_told = is_told => is_told,
                is_told = is_lost => is_told,
            }
        };
        let is_told = self.pulse_until(stopped).await;
        let allowed = Allowed::by(&self.settings.config());
        info!(?allowed, "draining; a second signal stops at once");
        self.phase.draining();
        tokio::select! {
            biased;
            () = signals.next() => {
                warn!("stopped at once");
                // What was acknowledged is durable, so nothing is left to do.
                std::process::exit(130);
            }
            () = self.stop(is_told, allowed) => info!("stopped"),
        }
    }

    async fn stop(self, may_hand_over: bool, allowed: Allowed) {
        if may_hand_over {
            let handed_over = timeout(allowed.drain, self.node.hand_over());
            if self.pulse_until(handed_over).await.is_err() {
                warn!("the rest is left to whoever finds it");
            }
        }
        drop(self.registration);
        self.node.shutdown(allowed.grace).await;
    }

    /// Does what a node does beside serving, until then.
    async fn pulse_until<T>(&self, stopped: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            stopped = stopped => stopped,
            never = self.lead() => match never {},
            never = self.node.report_to(&*self.registration) => match never {},
            never = self.follow_settings() => match never {},
        }
    }

    /// Decides what is placed where, whenever this node is elected.
    async fn lead(&self) -> Infallible {
        if self.roles.coordination {
            leader::run(&*self.coordination, &*self.registration, self.grace).await
        } else {
            pending().await
        }
    }

    /// Goes by what is set live.
    async fn follow_settings(&self) -> Infallible {
        let mut log = String::new();
        let apply = |config: &Config| {
            self.node.set_limits(&config.limits);
            if config.log != log {
                log.clone_from(&config.log);
                self.filter.set(&log);
            }
        };
        self.settings.follow(apply).await
    }
}
