//! The configuration as a file, with what each key means.

use std::collections::BTreeMap;

use documented::DocumentedFields;

use super::{
    AccessLimits, ClusterLimits, Config, CoordinationConfig, GroupLimits, Limits, StoreConfig, StoreLimits,
    ViewLimits,
};

/// The configuration as the file that would make it, each key below what it means.
#[must_use]
pub fn to_toml(config: &Config) -> String {
    let text = toml::to_string(config).expect("a configuration is TOML");
    let meanings = meanings();
    let (mut out, mut section) = (String::new(), "");
    for line in text.lines() {
        let key = match line.strip_prefix('[') {
            Some(named) => {
                section = named.trim_end_matches(']');
                section.to_owned()
            }
            None => joined(section, line.split(' ').next().unwrap_or_default()),
        };
        for meaning in meanings.get(&key).into_iter().flat_map(|meaning| meaning.lines()) {
            out += &format!("# {}\n", meaning.trim());
        }
        out += line;
        out.push('\n');
    }
    out
}

/// What each key and section means: the documentation of its field.
fn meanings() -> BTreeMap<String, &'static str> {
    let mut meanings = BTreeMap::new();
    of::<Config>("", &mut meanings);
    of::<CoordinationConfig>("coordination", &mut meanings);
    of::<StoreConfig>("store", &mut meanings);
    of::<Limits>("limits", &mut meanings);
    of::<AccessLimits>("limits.access", &mut meanings);
    of::<GroupLimits>("limits.group", &mut meanings);
    of::<StoreLimits>("limits.store", &mut meanings);
    of::<ViewLimits>("limits.view", &mut meanings);
    of::<ClusterLimits>("limits.cluster", &mut meanings);
    meanings
}

fn of<T: DocumentedFields>(section: &str, into: &mut BTreeMap<String, &'static str>) {
    let fields = T::FIELD_NAMES.iter().zip(T::FIELD_DOCS);
    into.extend(fields.map(|(name, meaning)| (joined(section, name), *meaning)));
}

fn joined(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::entries;

    #[test]
    fn every_key_is_shown_below_what_it_means() {
        let meanings = meanings();
        for (key, _) in entries(&Config::default()) {
            assert!(meanings.get(&key).is_some_and(|meaning| !meaning.is_empty()), "{key}");
        }
        let text = to_toml(&Config::default());
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|line| line.starts_with("payload_bytes_max")).unwrap();
        assert_eq!(lines[at - 1], "# Bytes of a message's payload.");
        assert!(lines[0].starts_with("# ") && lines[1].starts_with("data ="), "{text}");
    }
}
