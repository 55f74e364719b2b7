//! Reads the configuration from its sources. A flag wins over the environment, that over the file, that over the default.
//!
//! Every complaint names the key and where its value came from (file and line, variable, flag), and none shows a password.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use thiserror::Error;
use toml_edit::{Document, Item, TableLike};

use super::keys::{self, ENVIRONMENT_PREFIX, Key};
use super::{Config, Overrides, validate};

/// Where this process takes its configuration from, now and at every reload.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub path: Option<PathBuf>,
    pub overrides: Overrides,
}

impl Sources {
    /// Loads from file, this process's environment and flags.
    pub fn load(&self) -> Result<Config, ConfigError> {
        // Text that is not UTF-8 fits no key; the replacement character makes it fail where the value is used.
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        load(self.path.as_deref(), environment, &self.overrides)
    }
}

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{place}: {message}")]
    Syntax { place: Place, message: String },
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// One thing that is wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub key: String,
    pub message: String,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
    Variable(String),
    Flag(&'static str),
    /// The admin database's SET.
    Command,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
            Self::Command => f.write_str("SET"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.key, self.message)
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Loads and validates. `env` is the whole environment; what does not start with `HELIOSPROXY_` is not ours.
pub fn load(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    let mut layers = Layers::default();
    if let Some(path) = path {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        layers.file(path, &text)?;
    }
    layers.environment(env);
    layers.flags(overrides);
    layers.finish()
}

/// The same configuration but for one key, which is set to what `text` means for it. Validated as a whole.
pub fn with(config: &Config, path: &str, text: &str) -> Result<Config, ConfigError> {
    let mut layers = Layers { keys: keys::all(config), values: keys::tree(config), ..Layers::default() };
    match layers.key(path) {
        Some(key) => layers.text(&key, text, Place::Command),
        None => {
            let hint = did_you_mean(path, layers.keys.iter().map(|key| key.path.as_str()));
            layers.problem(Place::Command, path, format!("unknown key{hint}"));
        }
    }
    layers.finish()
}

/// The values so far, each with the place that it came from. A later layer overwrites an earlier one.
struct Layers {
    keys: Vec<Key>,
    values: Map<String, Value>,
    places: BTreeMap<String, Place>,
    problems: Vec<Problem>,
}

impl Default for Layers {
    fn default() -> Self {
        let defaults = Config::default();
        Self {
            keys: keys::all(&defaults),
            values: keys::tree(&defaults),
            places: BTreeMap::new(),
            problems: Vec::new(),
        }
    }
}

impl Layers {
    fn file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let place = |span: Option<Range<usize>>| {
            let before = &text.as_bytes()[..span.map_or(0, |span| span.start.min(text.len()))];
            Place::File { path: path.into(), line: 1 + before.iter().filter(|byte| **byte == b'\n').count() }
        };
        // Only the parser's message: its Display shows the line, and that may be the password's.
        let document = Document::parse(text).map_err(|error| ConfigError::Syntax {
            place: place(error.span()),
            message: error.message().to_string(),
        })?;
        for (section, item) in document.as_table().iter() {
            let at = place(document.as_table().key(section).and_then(toml_edit::Key::span).or(item.span()));
            match item.as_table_like() {
                Some(table) if self.values.contains_key(section) => self.section(section, table, &place),
                Some(_) => {
                    let hint = did_you_mean(section, self.values.keys().map(String::as_str));
                    self.problem(at, section, format!("unknown section{hint}"));
                }
                None => {
                    let hint = did_you_mean(section, self.keys.iter().filter_map(|key| key.path.split('.').nth(1)));
                    self.problem(at, section, format!("unknown key outside any [section]{hint}"));
                }
            }
        }
        Ok(())
    }

    fn section(&mut self, section: &str, table: &dyn TableLike, place: &dyn Fn(Option<Range<usize>>) -> Place) {
        for (name, item) in table.iter() {
            let at = place(table.key(name).and_then(toml_edit::Key::span).or(item.span()));
            let path = format!("{section}.{name}");
            let Some(key) = self.key(&path) else {
                let names = self.keys.iter().filter_map(|key| key.path.strip_prefix(section)?.strip_prefix('.'));
                let hint = did_you_mean(name, names);
                self.problem(at, &path, format!("unknown key{hint}"));
                continue;
            };
            let value = json(item);
            match key.check(&value) {
                Ok(()) => {
                    if key.is_tables() {
                        self.place_tables(&path, item, place);
                    }
                    self.put(&path, value, at);
                }
                Err(message) => self.problem(at, &path, message),
            }
        }
    }

    /// Remembers where the tables of a list are, and the keys in each: `cache.rules[0]`, `cache.rules[0].table`.
    fn place_tables(&mut self, path: &str, item: &Item, place: &dyn Fn(Option<Range<usize>>) -> Place) {
        let tables: Vec<(&dyn TableLike, Option<Range<usize>>)> = match item {
            Item::ArrayOfTables(tables) => tables.iter().map(|table| (table as &dyn TableLike, table.span())).collect(),
            Item::Value(toml_edit::Value::Array(items)) => {
                items.iter().filter_map(|item| Some((item.as_inline_table()? as _, item.span()))).collect()
            }
            _ => return,
        };
        for (number, (table, span)) in tables.into_iter().enumerate() {
            self.places.insert(format!("{path}[{number}]"), place(span));
            for (name, item) in table.iter() {
                let at = place(table.key(name).and_then(toml_edit::Key::span).or(item.span()));
                self.places.insert(format!("{path}[{number}].{name}"), at);
            }
        }
    }

    fn environment(&mut self, env: impl Iterator<Item = (String, String)>) {
        for (name, text) in env.filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)) {
            let Some(key) = self.keys.iter().find(|key| key.variable() == name).cloned() else {
                let variables: Vec<String> = self.keys.iter().map(Key::variable).collect();
                let hint = did_you_mean(&name, variables.iter().map(String::as_str));
                self.problem(Place::Variable(name), "environment", format!("unknown variable{hint}"));
                continue;
            };
            self.text(&key, &text, Place::Variable(name));
        }
    }

    fn flags(&mut self, overrides: &Overrides) {
        for setting in &overrides.settings {
            match self.key(setting.key) {
                Some(key) => self.text(&key, &setting.text, Place::Flag(setting.flag)),
                None => self.problem(Place::Flag(setting.flag), setting.key, "unknown key".into()),
            }
        }
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        // Values that do not fit would only be reported twice, or as something else, by the steps below.
        if !self.problems.is_empty() {
            return Err(ConfigError::Invalid(self.problems));
        }
        let values = Value::Object(std::mem::take(&mut self.values));
        let config: Config = match serde_path_to_error::deserialize(values) {
            Ok(config) => config,
            Err(error) => {
                let key = error.path().to_string();
                let message = in_words(&error.into_inner().to_string());
                self.problem(self.place(&key), &key, message);
                return Err(ConfigError::Invalid(self.problems));
            }
        };
        for violation in validate::violations(&config) {
            let set = violation.keys.iter().find(|key| self.places.contains_key(**key));
            let Some(key) = set.or(violation.keys.first()) else { continue };
            let key = violation.inside.as_deref().unwrap_or(key);
            self.problem(self.place(key), key, violation.message);
        }
        if self.problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(self.problems)) }
    }

    fn key(&self, path: &str) -> Option<Key> {
        self.keys.iter().find(|key| key.path == path).cloned()
    }

    /// Where a key's value came from; for what is inside of a list that has no places of its own, where the list did.
    fn place(&self, key: &str) -> Place {
        let list = key.split('[').next().unwrap_or_default();
        self.places.get(key).or_else(|| self.places.get(list)).cloned().unwrap_or(Place::Default)
    }

    fn text(&mut self, key: &Key, text: &str, place: Place) {
        match key.parse(text) {
            Ok(value) => self.put(&key.path, value, place),
            Err(message) => self.problem(place, &key.path, message),
        }
    }

    fn put(&mut self, path: &str, value: Value, place: Place) {
        let slot = path.split_once('.').and_then(|(section, name)| self.values.get_mut(section)?.get_mut(name));
        if let Some(slot) = slot {
            *slot = value;
            self.places.insert(path.to_string(), place);
        }
    }

    fn problem(&mut self, place: Place, key: &str, message: String) {
        self.problems.push(Problem { place, key: key.to_string(), message });
    }
}

/// A TOML value as the JSON value that it looks like. What has no like (a date) becomes an empty table, which fits no
/// key; null would count as absent.
pub(super) fn json(item: &Item) -> Value {
    match item {
        Item::Value(toml_edit::Value::String(text)) => text.value().as_str().into(),
        Item::Value(toml_edit::Value::Integer(number)) => (*number.value()).into(),
        Item::Value(toml_edit::Value::Boolean(flag)) => (*flag.value()).into(),
        Item::Value(toml_edit::Value::Float(number)) => (*number.value()).into(),
        Item::Value(toml_edit::Value::Array(items)) => {
            items.iter().map(|item| json(&Item::Value(item.clone()))).collect()
        }
        Item::Value(toml_edit::Value::InlineTable(table)) => object(table),
        Item::ArrayOfTables(tables) => tables.iter().map(|table| object(table)).collect(),
        _ => Value::Object(Map::new()),
    }
}

fn object(table: &dyn TableLike) -> Value {
    Value::Object(table.iter().map(|(name, item)| (name.to_string(), json(item))).collect())
}

fn did_you_mean<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    keys::nearest(written, candidates).map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// serde's message without Rust's type names.
fn in_words(message: &str) -> String {
    message
        .replace("expected u16", "expected a number from 0 to 65535")
        .replace("expected u64", "expected an integer of 0 or more")
        .replace('`', "\"")
}

#[cfg(test)]
mod tests;
