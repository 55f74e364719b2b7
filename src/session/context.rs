//! The session's fingerprint: everything of it that can change a result.
//!
//! **Invariant.** [`Context::digest`] is `Some` only while the settings are known: read from the upstream (the baseline) and
//! changed since by nothing but plain `SET`s that succeeded, which are laid over it. Anything else that may have changed a
//! setting makes it unknown until it is read again. Two sessions with equal digests have equal settings, login user,
//! effective role and search path, and no temporary objects: names mean the same in both. While a session has such objects its
//! digest is its own, and another one each time that they may have changed.
//!
//! What was set in a transaction block goes back with it: both ends of the block are kept, the one by COMMIT and the one by
//! ROLLBACK. After a ROLLBACK TO a savepoint that may have undone something, or an end that nobody saw, they are unknown.
//!
//! Values are compared as they were written, so `SET x = 1` and `SET x = '1'` make two digests. `RESET` goes back to what the
//! session began with, which is known only while the baseline is the beginning's.

use std::collections::BTreeMap;

use crate::cache::key::KeyHasher;
use crate::catalog::Baseline;
use crate::catalog::builtin::setting_is_relevant;
use crate::statement::SetAction;

#[derive(Debug)]
pub struct Context {
    /// Digest of the database, which is one server's, and the login user.
    identity: [u8; 32],
    settings: Settings,
    /// Since the first change in a transaction block.
    block: Option<Box<InBlock>>,
    /// The transaction block has a savepoint.
    has_savepoint: bool,
    /// ParameterStatus as the upstream reports it, `application_name` left out.
    reported: BTreeMap<Box<[u8]>, Box<[u8]>>,
    plain_utf8: bool,
    user: Box<[u8]>,
    /// As the upstream reports it. It changes no result and is in no digest.
    application_name: Box<[u8]>,
    digest: Option<[u8; 32]>,
}

/// What is known of the settings.
#[derive(Debug, Clone)]
struct Settings {
    baseline: Option<Baseline>,
    /// The baseline is what the session began with.
    from_start: bool,
    /// No setting was ever touched: what is read now is what sessions like this one begin with.
    pristine: bool,
    overrides: BTreeMap<String, String>,
    /// In the digest while there may be temporary objects.
    nonce: [u8; 16],
}

/// What the settings become when the block ends.
#[derive(Debug)]
struct InBlock {
    /// If it is rolled back.
    at_start: Settings,
    /// If it is committed: what SET LOCAL has changed is not in it.
    at_commit: Settings,
    /// Something was changed after a savepoint, and may be undone alone.
    since_savepoint: bool,
}

/// Settings that stand for who the session is; RESET ALL leaves them (`GUC_NO_RESET_ALL`).
const IDENTITY: [&str; 2] = ["role", "session_authorization"];

impl Context {
    /// `database` is the [`number`](crate::catalog::Database::number) of the one that the session is in.
    pub fn new(database: u64, user: &[u8]) -> Self {
        Self {
            identity: identity(database, user),
            settings: Settings {
                baseline: None,
                from_start: false,
                pristine: true,
                overrides: BTreeMap::new(),
                nonce: [0; 16],
            },
            block: None,
            has_savepoint: false,
            reported: BTreeMap::new(),
            plain_utf8: false,
            user: user.into(),
            application_name: Box::default(),
            digest: None,
        }
    }

    /// A ParameterStatus from the upstream.
    pub fn report(&mut self, name: &[u8], value: &[u8]) {
        if name != b"application_name" {
            self.reported.insert(name.into(), value.into());
            self.plain_utf8 =
                self.reports(b"client_encoding", b"UTF8") && self.reports(b"standard_conforming_strings", b"on");
            self.refresh();
        } else if *self.application_name != *value {
            self.application_name = value.into();
        }
    }

    /// The login user.
    pub fn user(&self) -> &[u8] {
        &self.user
    }

    pub fn application_name(&self) -> &[u8] {
        &self.application_name
    }

    /// UTF8 with standard strings: what the lexer and the catalogue's names assume.
    pub fn is_plain_utf8(&self) -> bool {
        self.plain_utf8
    }

    fn reports(&self, name: &[u8], value: &[u8]) -> bool {
        self.reported.get(name).is_some_and(|reported| **reported == *value)
    }

    /// What sessions that begin like this one have in common: `parameters` are those of the start-up packet.
    pub fn start_digest(&self, parameters: &[(bytes::Bytes, bytes::Bytes)]) -> [u8; 32] {
        let mut hasher = KeyHasher::new();
        hasher.field(&self.identity);
        let mut sorted: Vec<_> = parameters.iter().filter(|(name, _)| name != "application_name").collect();
        sorted.sort();
        hasher.fields(sorted.iter().flat_map(|(name, value)| [&name[..], &value[..]]).collect::<Vec<_>>().into_iter());
        self.hash_reported(&mut hasher);
        hasher.finish()
    }

    /// The settings of the session's beginning are known from another one like it.
    pub fn begin(&mut self, baseline: Baseline) {
        self.settings.baseline = Some(baseline);
        self.settings.from_start = true;
        self.settings.nonce = rand::random();
        self.refresh();
    }

    /// The settings were read from the upstream, outside a transaction block. True if they are those of the session's beginning.
    pub fn read(&mut self, baseline: Baseline) -> bool {
        self.settings.baseline = Some(baseline);
        self.settings.from_start = self.settings.pristine;
        self.settings.overrides.clear();
        self.settings.nonce = rand::random();
        self.refresh();
        self.settings.pristine
    }

    /// Something may have changed settings.
    pub fn forget(&mut self) {
        self.settings.forget();
        // What a rollback would restore is not certain either.
        self.block = None;
        self.refresh();
    }

    /// The session goes on in another database, which may have other settings.
    pub fn moves_to(&mut self, database: u64) {
        self.identity = identity(database, &self.user);
        self.forget();
    }

    /// A plain SET or RESET succeeded outside a transaction block.
    pub fn apply(&mut self, action: &SetAction) {
        // SET LOCAL has no effect there.
        if !is_local(action) {
            self.settings.apply(action);
            self.refresh();
        }
    }

    /// A plain SET or RESET succeeded inside a transaction block.
    pub fn apply_in_block(&mut self, action: &SetAction) {
        let settings = &self.settings;
        let block = self.block.get_or_insert_with(|| {
            Box::new(InBlock { at_start: settings.clone(), at_commit: settings.clone(), since_savepoint: false })
        });
        block.since_savepoint |= self.has_savepoint;
        if !is_local(action) {
            block.at_commit.apply(action);
        }
        self.settings.apply(action);
        if self.settings.baseline.is_none() {
            self.forget();
        }
        self.refresh();
    }

    /// SAVEPOINT succeeded.
    pub fn savepoint(&mut self) {
        self.has_savepoint = true;
    }

    /// ROLLBACK TO SAVEPOINT succeeded. Which of several savepoints it was is not asked.
    pub fn rolled_back_to_savepoint(&mut self) {
        if self.block.as_ref().is_some_and(|block| block.since_savepoint) {
            self.forget();
        }
    }

    /// The transaction block is over; `committed` is `None` if nobody can tell how.
    pub fn end_block(&mut self, committed: Option<bool>) {
        self.has_savepoint = false;
        let Some(block) = self.block.take() else { return };
        match committed {
            Some(true) => self.settings = block.at_commit,
            Some(false) => self.settings = block.at_start,
            None => self.settings.forget(),
        }
        self.refresh();
    }

    /// Whether the end of the transaction block changes settings.
    pub fn has_changed_in_block(&self) -> bool {
        self.block.is_some()
    }

    /// DISCARD ALL succeeded.
    pub fn discard_all(&mut self) {
        let settings = &mut self.settings;
        settings.pristine = false;
        settings.overrides.clear();
        match &mut settings.baseline {
            Some(baseline) if settings.from_start => baseline.temporary = false,
            _ => settings.baseline = None,
        }
        self.refresh();
    }

    pub fn discard_temporary(&mut self) {
        if let Some(baseline) = &mut self.settings.baseline {
            baseline.temporary = false;
        }
        self.refresh();
    }

    /// The digest, if the settings are known.
    pub fn digest(&self) -> Option<&[u8; 32]> {
        self.digest.as_ref()
    }

    pub fn baseline(&self) -> Option<Baseline> {
        self.settings.baseline
    }

    fn refresh(&mut self) {
        let Settings { baseline, overrides, nonce, .. } = &self.settings;
        self.digest = baseline.map(|baseline| {
            let mut hasher = KeyHasher::new();
            hasher.field(&self.identity).field(&baseline.fingerprint).field(if baseline.temporary {
                nonce
            } else {
                &[]
            });
            hasher.fields(
                overrides.iter().flat_map(|(n, v)| [n.as_bytes(), v.as_bytes()]).collect::<Vec<_>>().into_iter(),
            );
            self.hash_reported(&mut hasher);
            hasher.finish()
        });
    }

    fn hash_reported(&self, hasher: &mut KeyHasher) {
        hasher.fields(self.reported.iter().flat_map(|(n, v)| [&**n, &**v]).collect::<Vec<_>>().into_iter());
    }
}

fn identity(database: u64, user: &[u8]) -> [u8; 32] {
    let mut hasher = KeyHasher::new();
    hasher.field(&database.to_be_bytes()).field(user);
    hasher.finish()
}

impl Settings {
    fn forget(&mut self) {
        self.pristine = false;
        self.baseline = None;
    }

    /// SET or RESET, LOCAL or not.
    fn apply(&mut self, action: &SetAction) {
        match action {
            SetAction::Set { name, value: Some(value), .. } => self.set(name, value),
            SetAction::Set { name, value: None, .. } | SetAction::Reset { name } => self.reset(name),
            SetAction::ResetAll => {
                self.pristine = false;
                self.overrides.retain(|name, _| IDENTITY.contains(&name.as_str()));
                self.require_start();
            }
            _ => self.forget(),
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        self.pristine = false;
        match name {
            _ if concerns_transactions(name) => return self.forget(),
            "session_authorization" => {
                self.overrides.remove(IDENTITY[0]);
            }
            _ if !setting_is_relevant(name) => return,
            _ => {}
        }
        self.overrides.insert(name.to_owned(), value.to_owned());
    }

    fn reset(&mut self, name: &str) {
        self.pristine = false;
        if concerns_transactions(name) {
            return self.forget();
        }
        if name == IDENTITY[1] {
            self.overrides.remove(IDENTITY[0]);
        }
        self.overrides.remove(name);
        self.require_start();
    }

    fn require_start(&mut self) {
        if !self.from_start {
            self.baseline = None;
        }
    }
}

fn is_local(action: &SetAction) -> bool {
    matches!(action, SetAction::Set { local: true, .. })
}

/// It changes what the baseline says about transactions, or the present one.
fn concerns_transactions(name: &str) -> bool {
    name.starts_with("transaction_") || name.starts_with("default_transaction_")
}

#[cfg(test)]
mod tests;
