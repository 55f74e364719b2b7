//! What people want of the cache, and of splitting: the rules of the configuration, and hints in statements.
//!
//! **Invariant.** A rule or a hint says how old an answer may be, or that the cache is not to be used, or that a read is not to be
//! split. It never makes anything cacheable or splittable that is not known to be.
//!
//! A hint beats every rule; of the rules that say something about the matter the first that matches counts; without any the TTL
//! is `cache.default_ttl_secs`.
//! None of this is part of the key. An entry is served while it is younger than both the TTL that it was recorded under
//! and the TTL of the one who asks.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;

use super::verdict::{Bypass, RelationName};
use crate::config::{self, CacheRule};
use crate::statement::{Statement, normal_form};

/// Statements of which it is remembered what patterns match them.
const REMEMBERED: usize = 10_000;

pub struct Rules {
    default_ttl: Duration,
    rules: Vec<CacheRule>,
    /// For each rule whether its pattern matches, by the digest of the normal form.
    matches: Option<Cache<[u8; 32], Arc<[bool]>>>,
}

/// Who sends what.
pub struct Subject<'a> {
    pub statement: &'a Statement,
    pub text: &'a [u8],
    /// What it reads.
    pub relations: &'a [Arc<RelationName>],
    /// The login user.
    pub user: &'a [u8],
    pub application_name: &'a [u8],
}

impl Rules {
    pub fn new(config: &config::Cache) -> Self {
        let has_patterns = config.rules.iter().any(|rule| rule.statement.is_some());
        Self {
            default_ttl: Duration::from_secs(config.default_ttl_secs),
            rules: config.rules.clone(),
            matches: has_patterns.then(|| Cache::new(REMEMBERED)),
        }
    }

    /// How old an answer may be, or why the cache is not to be used.
    pub fn decide(&self, subject: &Subject<'_>) -> Result<Duration, Bypass> {
        let hint = subject.statement.hint;
        if hint.nocache {
            return Err(Bypass::Hint);
        }
        if let Some(ttl) = hint.ttl {
            return Ok(ttl);
        }
        match self.first_match(subject, |rule| rule.cache.is_some() || rule.ttl_secs.is_some()) {
            Some(CacheRule { cache: Some(false), .. }) => Err(Bypass::Rule),
            Some(CacheRule { ttl_secs: Some(seconds), .. }) => Ok(Duration::from_secs(*seconds)),
            _ => Ok(self.default_ttl),
        }
    }

    /// Whether a read may be split, as far as people have a say.
    pub fn may_split(&self, subject: &Subject<'_>) -> bool {
        match subject.statement.hint.parallel {
            Some(connections) => connections > 1,
            None => {
                let rule = self.first_match(subject, |rule| rule.parallel.is_some());
                rule.is_none_or(|rule| rule.parallel != Some(false))
            }
        }
    }

    /// The first rule that matches, of those that `concern` the matter.
    fn first_match(&self, subject: &Subject<'_>, concerns: impl Fn(&CacheRule) -> bool) -> Option<&CacheRule> {
        let mut matched = None;
        self.rules.iter().enumerate().filter(|(_, rule)| concerns(rule)).find_map(|(number, rule)| {
            let is = |wanted: &Option<String>, value: &[u8]| wanted.as_ref().is_none_or(|w| w.as_bytes() == value);
            let by_who = is(&rule.user, subject.user) && is(&rule.application_name, subject.application_name);
            let reads = rule.table.as_ref().is_none_or(|table| {
                subject.relations.iter().any(|relation| table.matches(&relation.schema, &relation.name))
            });
            let applies = by_who
                && reads
                && (rule.statement.is_none()
                    || matched.get_or_insert_with(|| self.matched(subject)).get(number) == Some(&true));
            applies.then_some(rule)
        })
    }

    /// For each rule whether its pattern matches the statement.
    fn matched(&self, subject: &Subject<'_>) -> Arc<[bool]> {
        let Some(memo) = &self.matches else { return Arc::default() };
        if let Some(known) = memo.get(&subject.statement.digest) {
            return known;
        }
        let text = normal_form(subject.text);
        let matched: Arc<[bool]> =
            self.rules.iter().map(|rule| rule.statement.as_ref().is_some_and(|pattern| pattern.is_in(&text))).collect();
        memo.insert(subject.statement.digest, matched.clone());
        matched
    }
}

#[cfg(test)]
mod tests;
