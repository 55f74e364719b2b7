//! `[[cache.rules]]`: what people want of the cache, and of splitting, for some statements. What they match against is in `cache::rules`.

use std::fmt;

use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

/// One rule. Every matcher that is given must match; a rule without any matches every statement.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheRule {
    /// A relation that the statement reads, by name, through a view or as a partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<TableName>,
    /// Found anywhere in the statement's normal form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<Pattern>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_name: Option<String>,
    /// The user that logged in, whatever its role is by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Seconds that an answer is kept, in place of `cache.default_ttl_secs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_secs: Option<u64>,
    /// False: relayed. True: cached if that is safe, as it would be without a rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<bool>,
    /// False: not split. True: split if that can be done, as it would be without a rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<bool>,
}

/// `table` or `schema.table`, as the catalogue spells them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    schema: Option<String>,
    name: String,
}

impl TableName {
    pub fn matches(&self, schema: &str, name: &str) -> bool {
        self.name == name && self.schema.as_ref().is_none_or(|wanted| wanted == schema)
    }
}

impl TryFrom<String> for TableName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('.').collect();
        match parts.as_slice() {
            _ if parts.iter().any(|part| part.is_empty()) => {}
            [name] => return Ok(Self { schema: None, name: (*name).into() }),
            [schema, name] => return Ok(Self { schema: Some((*schema).into()), name: (*name).into() }),
            _ => {}
        }
        Err(format!("expected table or schema.table, got {text:?}"))
    }
}

impl From<TableName> for String {
    fn from(table: TableName) -> Self {
        match table.schema {
            Some(schema) => format!("{schema}.{}", table.name),
            None => table.name,
        }
    }
}

/// A regular expression that was written correctly.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Regex);

impl Pattern {
    pub fn is_in(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty regular expression matches everything".into());
        }
        Regex::new(&text).map(Self).map_err(|error| {
            // Its last line is the reason; those before it show the place under the text.
            let message = error.to_string();
            let reason = message.lines().last().unwrap_or_default();
            format!("{text:?} is no regular expression: {}", reason.trim_start_matches("error: "))
        })
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.as_str().into()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0.as_str(), f)
    }
}
