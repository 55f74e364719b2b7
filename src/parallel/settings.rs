//! A session's settings, and how another connection is given them.
//!
//! **Invariant.** A connection works for a session only if what it says of its own settings, once it has been given the
//! session's, is what the session's connection has said: who it is, and every setting that is not at its default, to the letter.
//! Nothing is assumed about how the session came by them.

use sha2::{Digest, Sha256};

use super::link::Request;
use crate::wire::message::encode::EncodeError;

/// Who the session is. Names are qualified: its search_path may lead anywhere.
pub const IDENTITY: &str = "SELECT session_user, current_user, pg_catalog.current_setting('role')";

/// Everything that is not at its default and could be set by a session.
pub const SETTINGS: &str = "SELECT s.name, s.setting, s.source FROM pg_catalog.pg_settings s \
     WHERE s.source OPERATOR(pg_catalog.<>) 'default' \
     AND s.context OPERATOR(pg_catalog.=) ANY ('{user,superuser,superuser-backend,backend}') \
     ORDER BY s.name USING OPERATOR(pg_catalog.~<~)";

/// They belong to the transaction in which they are read.
const OF_THE_TRANSACTION: [&[u8]; 3] = [b"transaction_isolation", b"transaction_read_only", b"transaction_deferrable"];

type Value = Box<[u8]>;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// As [`IDENTITY`] answers.
    identity: [Value; 3],
    settings: Vec<(Value, Value)>,
}

/// What has to be set on a new connection of the same user with the same start-up parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replay {
    settings: Vec<(Value, Value)>,
    role: Option<Value>,
}

impl SessionSettings {
    /// From the rows that [`IDENTITY`] and [`SETTINGS`] answer.
    pub fn read<'a>(
        identity: &[Option<&'a [u8]>],
        rows: impl Iterator<Item = Option<[&'a [u8]; 3]>>,
    ) -> Option<(Self, Replay)> {
        let [Some(session_user), Some(current_user), Some(role)] = identity else { return None };
        let mut replay = Replay { role: (*role != b"none").then(|| (*role).into()), ..Replay::default() };
        let mut settings = Vec::new();
        for row in rows {
            let [name, value, source] = row?;
            if OF_THE_TRANSACTION.contains(&name) {
                continue;
            }
            if source == b"session" {
                replay.settings.push((name.into(), value.into()));
            }
            settings.push((name.into(), value.into()));
        }
        let identity = [*session_user, *current_user, *role].map(Into::into);
        Some((Self { identity, settings }, replay))
    }

    /// The value of a setting that is not at its default.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.settings.iter().find(|(known, _)| **known == *name.as_bytes()).map(|(_, value)| &**value)
    }

    /// A time in milliseconds; 0 for none.
    pub fn milliseconds(&self, name: &str) -> u64 {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0)
    }

    /// Equal for equal settings.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let pairs = self.settings.iter().flat_map(|(name, value)| [name, value]);
        for field in self.identity.iter().chain(pairs) {
            hasher.update((field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        hasher.finalize().into()
    }
}

impl Replay {
    /// Asks for all of it, the role last: it may not be allowed the others.
    pub fn request(&self, request: &mut Request) -> Result<(), EncodeError> {
        let role = self.role.iter().map(|role| (&b"role"[..], &**role));
        let pairs: Vec<_> = self.settings.iter().map(|(name, value)| (&**name, &**value)).chain(role).collect();
        for (name, value) in pairs {
            request.run_with("SELECT pg_catalog.set_config($1, $2, false)", &[name, value])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(role: &'static str, rows: &[[&'static str; 3]]) -> (SessionSettings, Replay) {
        let rows = rows.iter().map(|row| Some(row.map(str::as_bytes)));
        SessionSettings::read(&[Some(b"a"), Some(b"b"), Some(role.as_bytes())], rows).expect("three values")
    }

    #[test]
    fn what_the_session_has_set_is_replayed_and_everything_is_compared() {
        let rows = [["TimeZone", "UTC", "configuration file"], ["work_mem", "64", "session"]];
        let (settings, replay) = read("b", &rows);
        assert_eq!(replay.settings, [(b"work_mem"[..].into(), b"64"[..].into())]);
        assert_eq!(replay.role.as_deref(), Some(&b"b"[..]));
        assert_eq!(read("none", &rows).1.role, None);
        for other in [
            read("none", &rows).0,
            read("b", &rows[..1]).0,
            read("b", &[["TimeZone", "GMT", "configuration file"], rows[1]]).0,
        ] {
            assert_ne!(other, settings);
            assert_ne!(other.digest(), settings.digest());
        }
        let elsewhere = [["TimeZone", "UTC", "session"], rows[1]];
        assert_eq!(read("b", &elsewhere).0, settings, "where a value comes from makes no difference");
    }

    #[test]
    fn what_belongs_to_the_transaction_is_left_out() {
        let rows = [["transaction_read_only", "on", "session"], ["statement_timeout", "250", "session"]];
        let (settings, replay) = read("none", &rows);
        assert_eq!(replay.settings.len(), 1);
        assert_eq!(settings.get("transaction_read_only"), None);
        assert_eq!((settings.milliseconds("statement_timeout"), settings.milliseconds("lock_timeout")), (250, 0));
    }
}
