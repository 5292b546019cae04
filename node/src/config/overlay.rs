//! What holds on a node once the settings of the whole cluster are laid over its own.
//!
//! What is set live stands above everything else, flags too: whoever sets it may ask any node, and is
//! to know then what holds on all. A node that is to differ is told so when nothing is set live.
//!
//! Nodes may differ in what they can go by: in version, and in settings of their own that a live one
//! contradicts. Such a node keeps its own value and says why.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Table, Value, de::ValueDeserializer};

use super::{
    Config, Problem,
    check::problems,
    live::{is_at_start, is_live},
    load::{did_you_mean, find, from_table, list, nearest, parse, to_table},
};

/// What is set live: keys, and values as TOML.
pub type Live = BTreeMap<String, String>;

/// What holds on a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// What the node goes by.
    pub config: Config,
    /// What is set live and it does not go by: keys, and why not.
    pub ignored: BTreeMap<String, String>,
}

/// Why a setting is not changed live.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotChanged {
    /// There is no such setting.
    #[error("there is no setting {key:?}{}", did_you_mean(.nearest.as_deref()))]
    UnknownKey {
        /// The key.
        key: String,
        /// The key that looks most like it.
        nearest: Option<String>,
    },
    /// It is one that nodes start with.
    #[error(
        "{key} does not change while nodes run: change it in the file, the environment or the flags of each \
         node, and restart them in turn"
    )]
    AtStart {
        /// The key.
        key: String,
    },
    /// The value does not fit the key.
    #[error("{key} cannot be {value:?}: {message}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Why not.
        message: String,
    },
    /// With it the whole cannot be used.
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
    /// Without it others that are set live cannot be gone by.
    #[error("{key} is needed by what else is set live: {why}")]
    Needed {
        /// The key.
        key: String,
        /// Which others, and why.
        why: String,
    },
}

/// Lays what is set live over a node's own configuration.
#[must_use]
pub fn lay_live_over(own: &Config, live: &Live) -> Effective {
    let (mut waiting, mut ignored) = (BTreeMap::new(), BTreeMap::new());
    for (key, text) in live {
        match understood(key, text) {
            Ok(value) => drop(waiting.insert(key.clone(), value)),
            Err(why) => drop(ignored.insert(key.clone(), why)),
        }
    }
    let mut config = own.clone();
    // All at once, for what was set in turn may hold only together; else as many as go, one by one.
    if let Ok(all) = with(own, &waiting) {
        return Effective { config: all, ignored };
    }
    loop {
        let before = waiting.len();
        waiting.retain(|key, value| match with(&config, [(key, &*value)]) {
            Ok(more) => {
                config = more;
                false
            }
            Err(why) => {
                ignored.insert(key.clone(), why.to_string());
                true
            }
        });
        if waiting.len() == before {
            break;
        }
    }
    ignored.retain(|key, _| waiting.contains_key(key) || understood(key, &live[key]).is_err());
    Effective { config, ignored }
}

/// What is to be recorded (none: nothing any more) so that `key` is set live to the text `value`, or is
/// no more where there is none.
///
/// # Errors
/// [`NotChanged`]: nothing is to be recorded.
pub fn change_live(
    own: &Config,
    live: &Live,
    key: &str,
    value: Option<&str>,
) -> Result<Option<String>, NotChanged> {
    match value {
        Some(text) => set(&lay_live_over(own, live).config, key, text).map(Some),
        None => unset(own, live, key).map(|()| None),
    }
}

fn set(now: &Config, key: &str, text: &str) -> Result<String, NotChanged> {
    let key = key.to_owned();
    if is_at_start(&key) {
        return Err(NotChanged::AtStart { key });
    }
    let mut table = to_table(now);
    let Some(place) = find(&mut table, &key).filter(|_| is_live(&key)) else {
        return Err(NotChanged::UnknownKey { nearest: nearest(&key), key });
    };
    let value = parse(place, text).map_err(|message| NotChanged::Value {
        key: key.clone(),
        value: text.to_owned(),
        message,
    })?;
    match with(now, [(&key, &value)]) {
        Ok(_) => Ok(value.to_string()),
        Err(Unfit::Value(message)) => Err(NotChanged::Value { key, value: text.to_owned(), message }),
        Err(Unfit::Whole(problems)) => Err(NotChanged::Problems(problems)),
    }
}

/// What this version does not know may be unset too: a newer one has set it.
fn unset(own: &Config, live: &Live, key: &str) -> Result<(), NotChanged> {
    if !live.contains_key(key) {
        return match (is_live(key), is_at_start(key)) {
            (true, _) => Ok(()),
            (_, true) => Err(NotChanged::AtStart { key: key.to_owned() }),
            _ => Err(NotChanged::UnknownKey { nearest: nearest(key), key: key.to_owned() }),
        };
    }
    let mut without = live.clone();
    without.remove(key);
    let ignored = lay_live_over(own, live).ignored;
    let more =
        lay_live_over(own, &without).ignored.into_iter().find(|(other, _)| !ignored.contains_key(other));
    match more {
        Some((_, why)) => Err(NotChanged::Needed { key: key.to_owned(), why }),
        None => Ok(()),
    }
}

/// A value that a running node can go by, as far as it alone says.
fn understood(key: &str, text: &str) -> Result<Value, String> {
    if is_at_start(key) {
        return Err("this version does not change it while it runs".into());
    }
    if !is_live(key) {
        return Err("this version has no such setting".into());
    }
    let value = ValueDeserializer::parse(text).and_then(Value::deserialize);
    value.map_err(|error| error.message().to_owned())
}

/// Why values do not fit.
enum Unfit {
    Value(String),
    Whole(Vec<Problem>),
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(message) => f.write_str(message),
            Self::Whole(problems) => list(problems).fmt(f),
        }
    }
}

/// The configuration with these values, if it can be used.
fn with<'v>(
    config: &Config,
    values: impl IntoIterator<Item = (&'v String, &'v Value)>,
) -> Result<Config, Unfit> {
    let mut table: Table = to_table(config);
    for (key, value) in values {
        if let Some(place) = find(&mut table, key) {
            place.clone_from(value);
        }
    }
    let config = from_table(&table).map_err(|error| Unfit::Value(error.message().to_owned()))?;
    match problems(&config) {
        found if found.is_empty() => Ok(config),
        found => Err(Unfit::Whole(found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: &str = "limits.group.member_rate_per_second";
    const PAYLOAD: &str = "limits.group.payload_bytes_max";
    const WINDOWS: &str = "limits.group.windows_bytes_max";
    const BATCH: &str = "limits.group.batch_bytes_max";

    fn live(values: &[(&str, &str)]) -> Live {
        values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn own(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    fn set(key: &str, value: &str) -> Result<Option<String>, String> {
        change_live(&Config::default(), &Live::new(), key, Some(value)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_set_live_stands_over_a_nodes_own() {
        let own = own(|config| config.limits.group.member_rate_per_second = 7);
        let effective = lay_live_over(&own, &live(&[(RATE, "3"), ("log", "\"debug\"")]));
        let config = effective.config;
        assert_eq!((config.limits.group.member_rate_per_second, config.log.as_str()), (3, "debug"));
        assert!(effective.ignored.is_empty(), "{:?}", effective.ignored);
        assert_eq!(lay_live_over(&own, &Live::new()).config, own);
    }

    #[test]
    fn what_is_recorded_is_read_as_what_was_set() {
        for (key, value) in [(RATE, "1_000"), ("log", "shoal_node=debug,info"), ("drain_grace_ms", "0")] {
            let recorded = set(key, value).unwrap().unwrap();
            let effective = lay_live_over(&Config::default(), &live(&[(key, &recorded)]));
            assert!(effective.ignored.is_empty(), "{:?}", effective.ignored);
            let shown = find(&mut to_table(&effective.config), key).unwrap().to_string();
            assert_eq!(shown, recorded);
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_by_the_name_of_its_key() {
        let refused = |key, value| set(key, value).unwrap_err();
        assert_eq!(refused(RATE, "many"), format!("{RATE} cannot be \"many\": a whole number is wanted"));
        assert!(refused(RATE, "-1").starts_with(&format!("{RATE} cannot be \"-1\": ")));
        assert!(refused(RATE, "5000000000").starts_with(RATE));
        assert_eq!(refused(RATE, "0"), format!("{RATE}: 0 is not allowed"));
        assert!(refused("log", "shoal=loud").starts_with("log: "));
        assert!(refused(PAYLOAD, "2000000").contains("limits.group.window_bytes_max"));
        assert_eq!(
            refused("group.member_rate_per_second", "3"),
            format!("there is no setting \"group.member_rate_per_second\" (did you mean {RATE}?)")
        );
        assert!(refused("limits.group", "3").starts_with("there is no setting"));
    }

    #[test]
    fn what_a_node_starts_with_is_refused_with_what_to_do() {
        for key in ["listen", "data", "store.postgres", "limits.store.cache_bytes"] {
            let refused = set(key, "1").unwrap_err();
            assert!(refused.starts_with(key) && refused.contains("restart them in turn"), "{refused}");
            let own = Config::default();
            assert!(matches!(change_live(&own, &Live::new(), key, None), Err(NotChanged::AtStart { .. })));
        }
    }

    #[test]
    fn a_node_keeps_its_own_where_it_does_not_understand_and_takes_the_rest() {
        let effective = lay_live_over(
            &Config::default(),
            &live(&[
                (RATE, "3"),
                ("limits.group.moons", "9"),
                ("listen", "[]"),
                ("log", "9"),
                (PAYLOAD, "x ="),
            ]),
        );
        assert_eq!(effective.config, own(|config| config.limits.group.member_rate_per_second = 3));
        let ignored: Vec<_> = effective.ignored.keys().map(String::as_str).collect();
        assert_eq!(ignored, ["limits.group.moons", PAYLOAD, "listen", "log"]);
    }

    #[test]
    fn a_node_with_other_settings_of_its_own_takes_what_goes_with_them() {
        let own = own(|config| config.limits.group.window_bytes_max = 70_000);
        let effective = lay_live_over(&own, &live(&[(RATE, "3"), (PAYLOAD, "80000")]));
        assert_eq!(effective.config.limits.group.member_rate_per_second, 3);
        assert_eq!(effective.config.limits.group.payload_bytes_max, 64 * 1024);
        assert!(effective.ignored[PAYLOAD].contains("window_bytes_max"), "{:?}", effective.ignored);
    }

    /// By the names of their keys the payload comes before the batches that it needs.
    #[test]
    fn what_was_set_in_turn_holds_together_in_any_order() {
        let own = own(|config| {
            config.limits.group.batch_bytes_max = 80_000;
            config.limits.group.payload_bytes_max = 70_000;
        });
        let both =
            live(&[("limits.group.batch_bytes_max", "60000"), (PAYLOAD, "50000"), ("drain_max_ms", "0")]);
        assert_eq!(lay_live_over(&own, &both).ignored, BTreeMap::new());
        let with_one_that_does_not_go =
            live(&[("limits.group.batch_bytes_max", "60000"), (PAYLOAD, "50000"), (WINDOWS, "1")]);
        let effective = lay_live_over(&own, &with_one_that_does_not_go);
        assert!(effective.ignored.keys().eq([WINDOWS]), "{:?}", effective.ignored);
        assert_eq!(effective.config.limits.group.batch_bytes_max, 60_000);
    }

    #[test]
    fn what_others_need_is_not_unset_before_them() {
        let own = own(|config| config.limits.group.batch_bytes_max = 70_000);
        let both = live(&[(BATCH, "90000"), (PAYLOAD, "80000")]);
        let refused = change_live(&own, &both, BATCH, None).unwrap_err().to_string();
        assert!(refused.starts_with(BATCH) && refused.contains("limits.group.batch_bytes_max"), "{refused}");
        assert_eq!(change_live(&own, &both, PAYLOAD, None), Ok(None));
        assert_eq!(change_live(&own, &live(&[(BATCH, "90000")]), BATCH, None), Ok(None));
    }

    #[test]
    fn what_a_newer_version_has_set_can_be_unset_and_what_nobody_has_need_not_be() {
        let unset = |live: &Live, key| change_live(&Config::default(), live, key, None);
        assert_eq!(unset(&live(&[("limits.group.moons", "9")]), "limits.group.moons"), Ok(None));
        assert!(matches!(unset(&Live::new(), "limits.group.moons"), Err(NotChanged::UnknownKey { .. })));
        assert_eq!(unset(&Live::new(), RATE), Ok(None));
    }
}
