//! The configuration seen as a table of keys, `section.name`, derived from the default [`Config`] itself: a new field is
//! at once a key of the file, an environment variable, and part of the list that a reload compares.

use serde_json::{Map, Value};
use toml_edit::Item;

use super::Config;

/// What stands before `<SECTION>_<KEY>` in an environment variable.
pub(super) const ENVIRONMENT_PREFIX: &str = "HELIOSPROXY_";

/// Values that no message may show.
const SECRETS: &[&str] = &["upstream.password"];

/// Lists of tables, `[[section.name]]`. What is in them is checked when they are read as what they are.
const TABLES: &[&str] = &["cache.rules"];

/// One key whose value differs between two configurations; texts are fit to be logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub old: String,
    pub new: String,
}

/// The keys that differ, in alphabetical order. Secrets are named, their values are not.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let new = all(new);
    all(old)
        .into_iter()
        .zip(new)
        .filter(|(old, new)| old.value != new.value)
        .map(|(old, new)| Change { old: old.shown(&old.value), new: new.shown(&new.value), key: old.path })
        .collect()
}

/// One key as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    pub value: String,
    pub default: String,
}

/// Every key in alphabetical order. Secrets are named, their values are not.
pub fn settings(config: &Config) -> Vec<Setting> {
    let plain = |key: &Key| match &key.value {
        Value::String(text) if !key.is_secret() => text.clone(),
        value => key.shown(value),
    };
    let defaults = all(&Config::default());
    let setting = |(key, default): (Key, Key)| Setting { value: plain(&key), default: plain(&default), key: key.path };
    all(config).into_iter().zip(defaults).map(setting).collect()
}

/// One key with a value whose type is the type that the key demands.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub path: String,
    pub value: Value,
}

/// Every key of a configuration, in alphabetical order.
pub(super) fn all(config: &Config) -> Vec<Key> {
    let mut keys = Vec::new();
    for (section, table) in tree(config) {
        if let Value::Object(table) = table {
            keys.extend(table.into_iter().map(|(name, value)| Key { path: format!("{section}.{name}"), value }));
        }
    }
    keys
}

/// The configuration as sections of keys.
pub(super) fn tree(config: &Config) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(tree)) => tree,
        // A struct of structs of strings, numbers and lists always becomes an object; were it not so, no key would be
        // known and every test of this floor would fail.
        _ => Map::new(),
    }
}

impl Key {
    /// `HELIOSPROXY_CACHE_MAX_ENTRIES` for `cache.max_entries`.
    pub fn variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.path.replace('.', "_").to_uppercase())
    }

    pub fn is_secret(&self) -> bool {
        SECRETS.contains(&self.path.as_str())
    }

    pub fn is_tables(&self) -> bool {
        TABLES.contains(&self.path.as_str())
    }

    /// Reads a value from the text of an environment variable or a flag; lists are separated by commas, those of tables are
    /// written as in TOML: `[{table = "t", ttl_secs = 60}]`.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let read = match &self.value {
            _ if self.is_tables() && text.trim().is_empty() => Some(Value::Array(Vec::new())),
            _ if self.is_tables() => text.trim().parse().ok().map(|value| super::load::json(&Item::Value(value))),
            Value::String(_) => Some(text.into()),
            Value::Bool(_) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "on" | "yes" | "1" => Some(true.into()),
                "false" | "off" | "no" | "0" => Some(false.into()),
                _ => None,
            },
            Value::Array(_) => Some(text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()),
            Value::Number(number) if number.is_f64() => text.trim().parse::<f64>().ok().map(Value::from),
            _ => text.trim().parse::<i64>().ok().map(Value::from),
        };
        let value = read.unwrap_or_else(|| text.into());
        self.check(&value)?;
        Ok(value)
    }

    /// Whether a value has the type of this key. Every number of the configuration counts something, or is a factor.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let fits = match &self.value {
            Value::String(_) => value.is_string(),
            Value::Bool(_) => value.is_boolean(),
            Value::Array(_) if self.is_tables() => {
                value.as_array().is_some_and(|items| items.iter().all(Value::is_object))
            }
            Value::Array(_) => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
            Value::Number(number) if number.is_f64() => value.is_number(),
            _ => value.is_u64(),
        };
        if fits {
            return Ok(());
        }
        let expected = match &self.value {
            Value::String(_) => "a string",
            Value::Bool(_) => "true or false",
            Value::Array(_) if self.is_tables() => "a list of tables",
            Value::Array(_) => "a list of strings",
            Value::Number(number) if number.is_f64() => "a number",
            _ if value.is_i64() => "an integer of 0 or more",
            _ => "an integer",
        };
        if self.is_secret() {
            return Err(format!("expected {expected}"));
        }
        Err(format!("expected {expected}, got {}", self.shown(value)))
    }

    fn shown(&self, value: &Value) -> String {
        if self.is_secret() { "(hidden)".into() } else { value.to_string() }
    }
}

/// The candidate that a person most likely meant, if any is close enough to be a slip.
pub(super) fn nearest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(written, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().max(6) / 3)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, byte by byte.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_has_keys_and_no_two_share_a_variable() {
        let keys = all(&Config::default());
        assert!(keys.len() > 40);
        let mut variables: Vec<String> = keys.iter().map(Key::variable).collect();
        assert!(variables.contains(&"HELIOSPROXY_CACHE_MAX_ENTRIES".to_string()));
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), keys.len());
    }

    #[test]
    fn a_change_of_a_secret_is_named_and_not_shown() {
        let old = Config::default();
        let mut new = Config::default();
        new.upstream.password = "hunter2".into();
        new.cache.max_entries = 5;
        let changes = changes(&old, &new);
        assert_eq!(changes.len(), 2);
        assert_eq!(changes[0], Change { key: "cache.max_entries".into(), old: "10000".into(), new: "5".into() });
        assert_eq!(changes[1].key, "upstream.password");
        assert!(!format!("{changes:?}").contains("hunter2"));
    }

    #[test]
    fn distances_are_counted_in_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("max_entires", "max_entries"), 2);
        assert_eq!(nearest("max_entires", ["max_entries", "enabled"].into_iter()), Some("max_entries"));
        assert_eq!(nearest("zzz", ["max_entries", "enabled"].into_iter()), None);
    }
}
