//! From file, environment and flags to one configuration.
//!
//! Each layer is a table of TOML laid over the one before; the defaults, as a table, say which keys
//! there are and what kind of value each takes.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, Problem, check::problems};

const PREFIX: &str = "SHOAL_";
/// Variables with the prefix that are no settings: where the file is, and what commands take.
const OTHER_VARIABLES: [&str; 3] = ["SHOAL_CONFIG", "SHOAL_TOKEN", "SHOAL_NODE"];

/// A value for a key, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The key, its parts separated by points.
    pub key: String,
    /// The value as text; a list's elements are separated by commas.
    pub value: String,
    /// The flag or variable it comes from, for errors.
    pub origin: String,
}

/// Where a value comes from, each above the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody has set it.
    Default,
    /// The file.
    File,
    /// A variable.
    Environment,
    /// A flag.
    Flag,
    /// It is set for all nodes while they run.
    Live,
}

/// A configuration that may be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// What holds.
    pub config: Config,
    /// Where what was set comes from, by key; the rest are defaults.
    pub origins: BTreeMap<String, Origin>,
    /// What the operator should know of, but need not mend.
    pub warnings: Vec<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML, or has a key or a value that is none.
    #[error("{path}: {message}")]
    File {
        /// Which.
        path: PathBuf,
        /// What, and in which line.
        message: String,
    },
    /// There is no such key.
    #[error("{origin}: there is no setting {key:?}{}", did_you_mean(.nearest.as_deref()))]
    UnknownKey {
        /// The flag or variable.
        origin: String,
        /// What it names.
        key: String,
        /// The key that looks most like it.
        nearest: Option<String>,
    },
    /// The value does not fit the key.
    #[error("{origin}: {key} cannot be {value:?}: {message}")]
    Value {
        /// The flag or variable.
        origin: String,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Why not.
        message: String,
    },
    /// Each value is one, but they cannot be used.
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
}

/// Reads the file, lays environment and flags over it, and checks what comes out. Variables that
/// do not begin with `SHOAL_` are passed over.
///
/// # Errors
/// [`ConfigError`], which names the key.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: Vec<Override>,
) -> Result<Loaded, ConfigError> {
    let (mut table, mut origins) = (to_table(&Config::default()), BTreeMap::new());
    if let Some(path) = file {
        let file = read(path)?;
        origins.extend(leaves_of(&file).into_iter().map(|(key, _)| (key, Origin::File)));
        lay_over(&mut table, file);
    }
    let (variables, mut warnings) = variables(environment)?;
    let mut config = from_table(&table).expect("defaults and a file that was read make a configuration");
    let variables = variables.into_iter().map(|set| (Origin::Environment, set));
    for (origin, set) in variables.chain(flags.into_iter().map(|set| (Origin::Flag, set))) {
        origins.insert(set.key.clone(), origin);
        config = apply(&mut table, set)?;
    }
    let found = problems(&config);
    if !found.is_empty() {
        return Err(ConfigError::Problems(found));
    }
    let exposed = config.ops.iter().filter(|address| !address.ip().is_loopback());
    warnings.extend(exposed.map(|address| format!("ops: {address} shows metrics to whoever reaches it")));
    Ok(Loaded { config, origins, warnings })
}

/// Every key with its value, in the order of the file.
#[must_use]
pub fn entries(config: &Config) -> Vec<(String, Value)> {
    leaves_of(&to_table(config))
}

fn leaves_of(table: &Table) -> Vec<(String, Value)> {
    fn walk(prefix: &str, table: &Table, into: &mut Vec<(String, Value)>) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                Value::Table(table) => walk(&key, table, into),
                value => into.push((key, value.clone())),
            }
        }
    }
    let mut leaves = Vec::new();
    walk("", table, &mut leaves);
    leaves
}

pub(super) fn to_table(config: &Config) -> Table {
    Table::try_from(config).expect("a configuration is a table")
}

pub(super) fn from_table(table: &Table) -> Result<Config, toml::de::Error> {
    Config::deserialize(table.clone())
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    let wrong = |error: toml::de::Error| ConfigError::File {
        path: path.into(),
        message: error.to_string().trim_end().to_owned(),
    };
    // Read as what it must be first: these errors show the line.
    toml::from_str::<Config>(&text).map_err(wrong)?;
    toml::from_str(&text).map_err(wrong)
}

fn lay_over(below: &mut Table, above: Table) {
    for (name, value) in above {
        match (below.get_mut(&name), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay_over(below, above),
            (_, value) => drop(below.insert(name, value)),
        }
    }
}

/// The variables that are settings, and warnings of those that look as if they were to be.
fn variables(
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(Vec<Override>, Vec<String>), ConfigError> {
    let keys: Vec<String> = entries(&Config::default()).into_iter().map(|(key, _)| key).collect();
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if OTHER_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let key = rest.replace("__", ".").to_lowercase();
        if keys.contains(&key) {
            found.push(Override { key, value, origin: name });
        } else if rest.contains("__") {
            let nearest = nearest(&key);
            return Err(ConfigError::UnknownKey { origin: name, key, nearest });
        } else {
            // Kubernetes sets SHOAL_PORT and the like for a service called shoal.
            warnings.push(format!("{name} is in the environment, but is no setting"));
        }
    }
    found.sort_by(|a, b| a.key.cmp(&b.key));
    Ok((found, warnings))
}

fn apply(table: &mut Table, set: Override) -> Result<Config, ConfigError> {
    let Override { key, value, origin } = set;
    let Some(place) = find(table, &key) else {
        let nearest = nearest(&key);
        return Err(ConfigError::UnknownKey { origin, key, nearest });
    };
    let refused =
        |origin, message| ConfigError::Value { origin, key: key.clone(), value: value.clone(), message };
    match parse(place, &value) {
        Ok(parsed) => *place = parsed,
        Err(message) => return Err(refused(origin, message)),
    }
    from_table(table).map_err(|error| refused(origin, error.message().to_owned()))
}

pub(super) fn find<'t>(table: &'t mut Table, key: &str) -> Option<&'t mut Value> {
    let (parents, name) = key.rsplit_once('.').unwrap_or(("", key));
    let parent = parents
        .split('.')
        .filter(|part| !part.is_empty())
        .try_fold(table, |table, part| table.get_mut(part)?.as_table_mut())?;
    parent.get_mut(name).filter(|value| !value.is_table())
}

/// The text as a value of the same kind as `like`.
pub(super) fn parse(like: &Value, text: &str) -> Result<Value, String> {
    match like {
        Value::Integer(_) => {
            let number = text.trim().replace('_', "").parse();
            number.map(Value::Integer).map_err(|_| "a whole number is wanted".into())
        }
        Value::Boolean(_) => {
            text.trim().parse().map(Value::Boolean).map_err(|_| "true or false is wanted".into())
        }
        Value::Array(_) => {
            let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
            Ok(Value::Array(elements.map(Value::from).collect()))
        }
        _ => Ok(Value::from(text)),
    }
}

pub(super) fn nearest(key: &str) -> Option<String> {
    let last = key.rsplit('.').next()?;
    let keys = entries(&Config::default());
    keys.into_iter().map(|(key, _)| key).find(|known| known.rsplit('.').next() == Some(last))
}

pub(super) fn did_you_mean(nearest: Option<&str>) -> impl fmt::Display {
    nearest.map(|key| format!(" (did you mean {key}?)")).unwrap_or_default()
}

pub(super) fn list(problems: &[Problem]) -> impl fmt::Display {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::config::{LogFormat, to_toml};

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn variable(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    fn flag(key: &str, value: &str) -> Override {
        Override { key: key.into(), value: value.into(), origin: format!("--set {key}") }
    }

    fn error(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Vec<Override>,
    ) -> String {
        load(Some(file(text).path()), environment, flags).unwrap_err().to_string()
    }

    #[test]
    fn flags_stand_over_the_environment_and_that_over_the_file() {
        let file =
            file("name = 'a'\nregion = 'a'\nlog = 'debug'\n[limits.group]\nqueue_max = 1\nidle_ms = 7\n");
        let environment = [
            variable("SHOAL_NAME", "b"),
            variable("SHOAL_REGION", "b"),
            variable("SHOAL_LIMITS__GROUP__QUEUE_MAX", "2_000"),
            variable("SHOAL_OPS", "127.0.0.1:1,[::1]:2"),
            variable("SHOAL_LOG_FORMAT", "json"),
            variable("PATH", "/bin"),
        ];
        let loaded = load(Some(file.path()), environment, vec![flag("name", "c")]).unwrap();
        let config = loaded.config;
        assert_eq!((config.name.as_str(), config.region.as_str(), config.log.as_str()), ("c", "b", "debug"));
        assert_eq!((config.limits.group.queue_max, config.limits.group.idle_ms), (2_000, 7));
        assert_eq!((config.ops.len(), config.log_format), (2, LogFormat::Json));
        let from = |key: &str| loaded.origins.get(key).copied().unwrap_or(Origin::Default);
        let origins = ["name", "region", "log", "limits.group.idle_ms", "data"].map(from);
        let expected = [Origin::Flag, Origin::Environment, Origin::File, Origin::File, Origin::Default];
        assert_eq!(origins, expected);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }

    #[test]
    fn what_is_shown_is_the_file_that_makes_it() {
        let config = Config { name: "n".into(), ops: Vec::new(), ..Config::default() };
        let file = file(&to_toml(&config));
        assert_eq!(load(Some(file.path()), [], Vec::new()).unwrap().config, config);
    }

    #[test]
    fn an_error_in_the_file_names_key_and_line() {
        let unknown = error("name = 'a'\n[limits.group]\nqueue_maximum = 3\n", [], Vec::new());
        assert!(unknown.contains("line 3") && unknown.contains("queue_maximum"), "{unknown}");
        let kind = error("[limits.group]\nqueue_max = 'many'\n", [], Vec::new());
        assert!(kind.contains("line 2") && kind.contains("queue_max"), "{kind}");
        assert!(error("name =\n", [], Vec::new()).contains("line 1"));
        let missing = load(Some(Path::new("/nowhere/shoal.toml")), [], Vec::new()).unwrap_err();
        assert!(missing.to_string().starts_with("/nowhere/shoal.toml: "));
    }

    #[test]
    fn an_error_in_the_environment_names_variable_and_key() {
        let kind = error("", [variable("SHOAL_LIMITS__GROUP__QUEUE_MAX", "many")], Vec::new());
        assert!(kind.contains("SHOAL_LIMITS__GROUP__QUEUE_MAX: limits.group.queue_max"), "{kind}");
        let unknown = error("", [variable("SHOAL_LIMITS__QUEUE_MAX", "3")], Vec::new());
        assert!(unknown.contains("did you mean limits.group.queue_max?"), "{unknown}");
        let address = error("", [variable("SHOAL_LISTEN", "here")], Vec::new());
        assert!(address.contains("SHOAL_LISTEN: listen cannot be \"here\""), "{address}");
    }

    #[test]
    fn a_flag_that_names_no_key_is_refused() {
        assert!(error("", [], vec![flag("limits", "3")]).contains("there is no setting \"limits\""));
        assert!(error("", [], vec![flag("data.dir", "3")]).contains("data.dir"));
    }

    #[test]
    fn variables_of_others_are_only_warned_of() {
        let loaded = load(None, [variable("SHOAL_PORT", "tcp://10.0.0.1:4433")], Vec::new()).unwrap();
        assert!(loaded.warnings[0].contains("SHOAL_PORT"));
    }
}
