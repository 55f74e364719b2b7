//! The session's fingerprint: everything of it that can change a result.
//!
//! **Invariant.** [`Context::digest`] is `Some` only while the settings are known: read from the upstream (the baseline) and
//! changed since by nothing but plain `SET`s that succeeded, which are laid over it. Anything else that may have changed a
//! setting makes it unknown until it is read again. Two sessions with equal digests have equal settings, login user,
//! effective role and search path.
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
    /// Digest of database and login user.
    identity: [u8; 32],
    baseline: Option<Baseline>,
    /// The baseline is what the session began with.
    from_start: bool,
    /// No setting was ever touched: what is read now is what sessions like this one begin with.
    pristine: bool,
    overrides: BTreeMap<String, String>,
    /// ParameterStatus as the upstream reports it, `application_name` left out.
    reported: BTreeMap<Box<[u8]>, Box<[u8]>>,
    plain_utf8: bool,
    user: Box<[u8]>,
    /// As the upstream reports it. It changes no result and is in no digest.
    application_name: Box<[u8]>,
    digest: Option<[u8; 32]>,
}

/// Settings that stand for who the session is; RESET ALL leaves them (`GUC_NO_RESET_ALL`).
const IDENTITY: [&str; 2] = ["role", "session_authorization"];

impl Context {
    pub fn new(database: &[u8], user: &[u8]) -> Self {
        let mut hasher = KeyHasher::new();
        hasher.field(database).field(user);
        Self {
            identity: hasher.finish(),
            baseline: None,
            from_start: false,
            pristine: true,
            overrides: BTreeMap::new(),
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
        self.baseline = Some(baseline);
        self.from_start = true;
        self.refresh();
    }

    /// The settings were read from the upstream. True if they are those of the session's beginning.
    pub fn read(&mut self, baseline: Baseline) -> bool {
        self.baseline = Some(baseline);
        self.from_start = self.pristine;
        self.overrides.clear();
        self.refresh();
        self.pristine
    }

    /// Something may have changed settings.
    pub fn forget(&mut self) {
        self.pristine = false;
        self.baseline = None;
        self.refresh();
    }

    /// A plain SET or RESET succeeded outside a transaction block.
    pub fn apply(&mut self, action: &SetAction) {
        match action {
            SetAction::Set { name, value: Some(value), local: false } => self.set(name, value),
            // Outside a transaction block it has no effect.
            SetAction::Set { local: true, .. } => {}
            SetAction::Set { name, value: None, .. } | SetAction::Reset { name } => self.reset(name),
            SetAction::ResetAll => {
                self.pristine = false;
                self.overrides.retain(|name, _| IDENTITY.contains(&name.as_str()));
                self.require_start();
            }
            _ => self.forget(),
        }
    }

    /// DISCARD ALL succeeded.
    pub fn discard_all(&mut self) {
        self.pristine = false;
        self.overrides.clear();
        match &mut self.baseline {
            Some(baseline) if self.from_start => baseline.temporary = false,
            _ => self.baseline = None,
        }
        self.refresh();
    }

    pub fn discard_temporary(&mut self) {
        if let Some(baseline) = &mut self.baseline {
            baseline.temporary = false;
        }
    }

    /// The digest, if the settings are known.
    pub fn digest(&self) -> Option<&[u8; 32]> {
        self.digest.as_ref()
    }

    pub fn baseline(&self) -> Option<Baseline> {
        self.baseline
    }

    fn set(&mut self, name: &str, value: &str) {
        self.pristine = false;
        match name {
            // It changes what the baseline says about transactions.
            "default_transaction_isolation" => return self.forget(),
            "session_authorization" => {
                self.overrides.remove(IDENTITY[0]);
            }
            _ if !setting_is_relevant(name) => return,
            _ => {}
        }
        self.overrides.insert(name.to_owned(), value.to_owned());
        self.refresh();
    }

    fn reset(&mut self, name: &str) {
        self.pristine = false;
        if name == "default_transaction_isolation" {
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
        self.refresh();
    }

    fn refresh(&mut self) {
        self.digest = self.baseline.map(|baseline| {
            let mut hasher = KeyHasher::new();
            hasher.field(&self.identity).field(&baseline.fingerprint);
            hasher.fields(
                self.overrides.iter().flat_map(|(n, v)| [n.as_bytes(), v.as_bytes()]).collect::<Vec<_>>().into_iter(),
            );
            self.hash_reported(&mut hasher);
            hasher.finish()
        });
    }

    fn hash_reported(&self, hasher: &mut KeyHasher) {
        hasher.fields(self.reported.iter().flat_map(|(n, v)| [&**n, &**v]).collect::<Vec<_>>().into_iter());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Baseline = Baseline { fingerprint: [1; 32], read_committed: true, temporary: false };

    fn context() -> Context {
        let mut context = Context::new(b"db", b"user");
        context.report(b"client_encoding", b"UTF8");
        context.report(b"standard_conforming_strings", b"on");
        context.begin(BASE);
        context
    }

    fn set(name: &str, value: &str) -> SetAction {
        SetAction::Set { name: name.into(), value: Some(value.into()), local: false }
    }

    fn reset(name: &str) -> SetAction {
        SetAction::Reset { name: name.into() }
    }

    #[test]
    fn a_set_makes_another_digest_and_reset_goes_back() {
        let mut session = context();
        let before = *session.digest().unwrap();
        session.apply(&set("search_path", "a"));
        assert_ne!(*session.digest().unwrap(), before);
        session.apply(&reset("search_path"));
        assert_eq!(*session.digest().unwrap(), before);
    }

    #[test]
    fn settings_without_influence_change_nothing() {
        let mut session = context();
        let before = *session.digest().unwrap();
        session.apply(&set("application_name", "x"));
        session.apply(&set("myapp.tenant", "7"));
        session.report(b"application_name", b"y");
        assert_eq!(session.application_name(), b"y");
        assert_eq!(*session.digest().unwrap(), before);
        session.report(b"TimeZone", b"UTC");
        assert_ne!(*session.digest().unwrap(), before);
    }

    #[test]
    fn reset_after_a_reading_in_mid_session_is_unknown() {
        let mut session = context();
        session.forget();
        assert!(session.digest().is_none());
        assert!(!session.read(BASE), "this is not what the session began with");
        session.apply(&reset("timezone"));
        assert!(session.digest().is_none());
    }

    #[test]
    fn a_new_session_authorization_takes_the_role_with_it() {
        let (mut one, mut two) = (context(), context());
        one.apply(&set("role", "a"));
        one.apply(&set("session_authorization", "b"));
        two.apply(&set("session_authorization", "b"));
        assert_eq!(one.digest(), two.digest());
        one.apply(&SetAction::ResetAll);
        assert_eq!(one.digest(), two.digest());
        one.discard_all();
        assert_eq!(one.digest(), context().digest());
    }

    #[test]
    fn users_and_databases_differ() {
        let digest = |database: &[u8], user: &[u8]| {
            let mut session = Context::new(database, user);
            session.begin(BASE);
            *session.digest().unwrap()
        };
        assert_ne!(digest(b"ab", b"c"), digest(b"a", b"bc"));
    }
}
