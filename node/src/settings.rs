//! The settings that a node goes by: its own, and over them what is set live for the whole cluster.
//!
//! What is set live is recorded in coordination, under `config/` and the setting's key, and watched by
//! every node. While coordination is away a node goes by what it saw last.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt,
    future::pending,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shoal_protocol::{Code, Refusal, wire};
use tokio::{sync::watch, time::timeout};
use wire::config_entry::Origin as WireOrigin;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    config::{Config, Effective, Live, Loaded, Origin, change_live, entries, is_live, lay_live_over},
    coordination::{Coordination, CoordinationError},
    store::Setting,
};

/// Below it in coordination: keys, and values as TOML.
const PREFIX: &str = "config/";

/// Settings with passwords in them.
const SECRETS: [&str; 1] = ["store.postgres"];

/// How long whoever waits for a change is kept waiting.
const WATCH_MAX: Duration = Duration::from_secs(5);

/// How long a change that is recorded may take to be seen here, before its maker is told that it is made.
const SEEN_MAX: Duration = Duration::from_secs(2);

type Recorded = BTreeMap<String, Setting>;

/// Where coordination keeps what is set live for a key.
#[must_use]
pub fn recorded_at(key: &str) -> String {
    format!("{PREFIX}{key}")
}

/// The settings that a node goes by.
pub struct Settings {
    own: Loaded,
    coordination: Arc<dyn Coordination>,
    recorded: watch::Receiver<Arc<Recorded>>,
    /// What the log has been told.
    told: Mutex<Live>,
}

impl Settings {
    /// Begins to watch what is set live.
    ///
    /// # Errors
    /// Where coordination is away.
    pub async fn begin(own: Loaded, coordination: Arc<dyn Coordination>) -> Result<Self, CoordinationError> {
        let recorded = coordination.watch(PREFIX).await?;
        Ok(Self { own, coordination, recorded, told: Mutex::default() })
    }

    /// What the node goes by at this moment.
    #[must_use]
    pub fn config(&self) -> Config {
        self.effective().config
    }

    /// Has `apply` act by the settings, and again whenever they change. Never ends.
    pub async fn follow(&self, mut apply: impl FnMut(&Config)) -> Infallible {
        let mut recorded = self.recorded.clone();
        loop {
            let live = values(&recorded.borrow_and_update());
            let effective = lay_live_over(&self.own.config, &live);
            let before = mem::replace(&mut *self.told(), live.clone());
            tell(&before, &live, &effective);
            apply(&effective.config);
            if recorded.changed().await.is_err() {
                // Nobody is left to say it: the process ends.
                pending().await
            }
        }
    }

    /// All of them, as administrators are shown them.
    pub(crate) fn shown(&self) -> wire::Config {
        let live = self.live();
        let Effective { config, ignored } = lay_live_over(&self.own.config, &live);
        let own = entries(&config).into_iter().map(|(key, value)| wire::ConfigEntry {
            value: (!SECRETS.contains(&key.as_str())).then(|| value.to_string()),
            origin: wire_origin(self.origin(&key, &live, &ignored)).into(),
            may_change: is_live(&key),
            ignored: ignored_of(&key, &live, &ignored),
            key,
        });
        let mut shown: Vec<_> = own.collect();
        let unknown = ignored.keys().filter(|key| !shown.iter().any(|entry| entry.key == **key));
        let unknown = unknown.map(|key| wire::ConfigEntry {
            key: key.clone(),
            ignored: ignored_of(key, &live, &ignored),
            ..wire::ConfigEntry::default()
        });
        let unknown: Vec<_> = unknown.collect();
        shown.extend(unknown);
        wire::Config { entries: shown, live: digest(&live) }
    }

    /// Waits until something else is set live than what `live` stands for, but not for long.
    pub(crate) async fn changed_from(&self, live: u64) {
        let mut recorded = self.recorded.clone();
        let other = recorded.wait_for(|recorded| digest(&values(recorded)) != live);
        // It is looked at again by whoever asks, however the wait ends.
        drop(timeout(WATCH_MAX, other).await);
    }

    /// Sets a value live, or takes it away, for all nodes.
    ///
    /// # Errors
    /// `BadRequest` where nodes could not go by it: nothing is changed. `Busy` where coordination is away:
    /// it may have been changed.
    pub(crate) async fn change(&self, key: &str, value: Option<&str>) -> Result<(), Refusal> {
        let toml = change_live(&self.own.config, &self.live(), key, value)
            .map_err(|error| Refusal::new(Code::BadRequest, error.to_string()))?;
        let key = recorded_at(key);
        let version = self.record(&key, toml).await.map_err(|error| match error {
            CoordinationError::TooLarge => Refusal::new(Code::BadRequest, error.to_string()),
            error => Refusal::new(Code::Busy, format!("{error}; the change may have been recorded")),
        })?;
        let is_seen = |recorded: &Arc<Recorded>| recorded.get(&key).map_or(0, |seen| seen.version) >= version;
        let is_gone = |recorded: &Arc<Recorded>| !recorded.contains_key(&key);
        let mut recorded = self.recorded.clone();
        let seen =
            recorded.wait_for(|recorded| if version > 0 { is_seen(recorded) } else { is_gone(recorded) });
        // What is recorded is done: this only spares whoever asks next an old answer.
        drop(timeout(SEEN_MAX, seen).await);
        Ok(())
    }

    /// Records a value, or that there is none; its version, 0 for none.
    async fn record(&self, key: &str, value: Option<String>) -> Result<u64, CoordinationError> {
        loop {
            let before = self.coordination.setting(key).await?;
            let version = before.as_ref().map_or(0, |before| before.version);
            if before.is_none() && value.is_none() {
                return Ok(0);
            }
            let value = value.clone().map(Into::into);
            if let Ok(version) = self.coordination.compare_and_swap(key, version, value).await? {
                return Ok(version);
            }
        }
    }

    fn told(&self) -> MutexGuard<'_, Live> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn effective(&self) -> Effective {
        lay_live_over(&self.own.config, &self.live())
    }

    fn live(&self) -> Live {
        values(&self.recorded.borrow())
    }

    fn origin(&self, key: &str, live: &Live, ignored: &BTreeMap<String, String>) -> Origin {
        if live.contains_key(key) && !ignored.contains_key(key) {
            return Origin::Live;
        }
        self.own.origins.get(key).copied().unwrap_or(Origin::Default)
    }
}

/// The values that are recorded, as text. What is no text is no TOML either.
fn values(recorded: &Recorded) -> Live {
    let value = |(key, setting): (&String, &Setting)| {
        let text = String::from_utf8_lossy(&setting.value).into_owned();
        Some((key.strip_prefix(PREFIX)?.to_owned(), text))
    };
    recorded.iter().filter_map(value).collect()
}

/// Says in the log what has changed, each change once.
fn tell(before: &Live, live: &Live, effective: &Effective) {
    for key in before.keys().filter(|key| !live.contains_key(*key)) {
        tracing::info!(key, "a setting is live no more");
    }
    for (key, value) in live.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
        match effective.ignored.get(key) {
            Some(why) => tracing::warn!(key, value, why, "a live setting is not gone by"),
            None => tracing::info!(key, value, "a setting is live"),
        }
    }
}

/// A number that stands for what is set live, the same on all nodes; never 0.
fn digest(live: &Live) -> u64 {
    let mut digest = Xxh3::new();
    for text in live.iter().flat_map(|(key, value)| [key, value]) {
        digest.update(&(text.len() as u64).to_le_bytes());
        digest.update(text.as_bytes());
    }
    digest.digest().max(1)
}

fn ignored_of(key: &str, live: &Live, ignored: &BTreeMap<String, String>) -> Option<wire::IgnoredConfig> {
    let (value, why) = live.get(key).zip(ignored.get(key))?;
    Some(wire::IgnoredConfig { value: value.clone(), why: why.clone() })
}

fn wire_origin(origin: Origin) -> WireOrigin {
    match origin {
        Origin::Default => WireOrigin::Default,
        Origin::File => WireOrigin::File,
        Origin::Environment => WireOrigin::Environment,
        Origin::Flag => WireOrigin::Flag,
        Origin::Live => WireOrigin::Live,
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("live", &self.live()).finish_non_exhaustive()
    }
}
