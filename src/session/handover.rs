//! What is sent on a shared connection when it changes hands: the probe, which asks what its user has left, and what gives the
//! next one his settings.
//!
//! **Invariant.** The probe leaves nothing and tells all that [`Traces`](super::traces::Traces) has doubts about. All names and
//! operators are qualified: the session's search_path may put anything in front of pg_catalog.

use std::fmt::Write;

use bytes::BytesMut;

use super::Session;
use super::jobs::{self, Job};
use super::traces::Pin;
use crate::upstream::settings::Settings;
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::frame::backend;
use crate::wire::message::backend::data_row;
use crate::wire::message::encode::{self, EncodeError};

const SET_CONFIG: &[u8] = b"SELECT pg_catalog.set_config($1, $2, false)";

/// A row of one of these means that the connection is tied to its session. `set` rows are its settings.
const QUESTION: &str = "SELECT 'listen', ''::pg_catalog.text, ''::pg_catalog.text \
         WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) \
     UNION ALL SELECT 'advisory_lock', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_locks l \
         WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.locktype OPERATOR(pg_catalog.=) 'advisory') \
     UNION ALL SELECT 'cursor', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors c WHERE c.is_holdable) \
     UNION ALL SELECT 'prepared', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_prepared_statements p WHERE p.from_sql) \
     UNION ALL SELECT 'temporary_schema', '', '' WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0 \
     UNION ALL SELECT 'temporary', '', '' WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0 AND ( \
         EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
         OR EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
         OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
         OR EXISTS (SELECT FROM pg_catalog.pg_operator o WHERE o.oprnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())) \
     UNION ALL SELECT 'set', s.name, pg_catalog.current_setting(s.name) FROM pg_catalog.pg_settings s \
         WHERE s.source OPERATOR(pg_catalog.=) 'session' AND s.context OPERATOR(pg_catalog.=) ANY ('{user,superuser}') \
         AND s.name OPERATOR(pg_catalog.<>) ALL ('{transaction_isolation,transaction_read_only,transaction_deferrable,seed}')";

/// Who the session is; made after all other settings, which the role may not be allowed to make.
const IDENTITY: &str = " UNION ALL SELECT 'authorization', 'session_authorization', session_user::pg_catalog.text \
     UNION ALL SELECT 'role', 'role', pg_catalog.current_setting('role')";

/// What the probe has found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    pin: Option<Pin>,
    temporary_schema: bool,
    settings: Vec<(Box<str>, Box<str>)>,
}

impl Session {
    /// What the session may have left.
    pub(super) fn send_probe(&mut self) -> Result<(), EncodeError> {
        let mut question = QUESTION.to_owned();
        for name in self.sharing.iter().flat_map(|sharing| sharing.traces.custom_settings()) {
            let name = name.replace('\'', "''");
            // Never fails: it writes into memory.
            let _ = write!(
                question,
                " UNION ALL SELECT 'set', E'{0}', pg_catalog.current_setting(E'{0}', true) \
                 WHERE pg_catalog.current_setting(E'{0}', true) IS NOT NULL",
                name.replace('\\', "\\\\")
            );
        }
        question.push_str(IDENTITY);
        self.send_rolled_back(&[jobs::BEGIN, &question])
    }

    /// Gives the connection this session's settings.
    pub(super) fn send_settings(&mut self, drew: bool) -> Result<(), EncodeError> {
        let out = &mut self.upstream.output;
        jobs::run_all(out, &["RESET SESSION AUTHORIZATION", "RESET ALL"])?;
        if drew {
            jobs::run_all(out, &[DISCARD_SEQUENCES])?;
        }
        let pairs = self.sharing.iter().flat_map(|sharing| sharing.settings.pairs());
        set_all(out, pairs)
    }

    /// The probe's answer is here.
    pub(super) fn probed(&mut self, replies: &[u8]) {
        let login = String::from_utf8_lossy(self.context.user()).into_owned();
        let (Some(sharing), Some(backend)) = (&mut self.sharing, &mut self.backend) else { return };
        let found = found(replies, &login);
        tracing::debug!(backend = backend.pid, ?found, "asked what the session has left");
        let before = sharing.traces.pin();
        match found {
            Some(Found { pin, temporary_schema, settings }) => {
                backend.has_temporary_schema |= temporary_schema;
                sharing.traces.probed(pin);
                sharing.settings = std::sync::Arc::new(Settings::new(settings));
                backend.settings = sharing.settings.clone();
                if pin.is_some() && sharing.loses_state {
                    self.start(Job::Discard);
                    return;
                }
            }
            None => sharing.traces.add_unknown(),
        }
        self.control.activity.is_tied(sharing.traces.pin());
        if let Some(pin) = sharing.traces.pin().filter(|pin| before != Some(*pin)) {
            self.shared.metrics.pins(pin).increment(1);
        }
    }

    /// The settings are made, or could not be.
    pub(super) fn adopted(&mut self, replies: &[u8]) {
        if let Some(error) = error_of(replies) {
            let response =
                ErrorResponse::fatal(sqlstate::CONNECTION_FAILURE, "the session's settings cannot be restored")
                    .detail(error)
                    .hint("With pool.mode = \"session\" a session keeps its connection.");
            self.gives_up = Some(response);
            return;
        }
        if let (Some(sharing), Some(backend)) = (&self.sharing, &mut self.backend) {
            backend.settings = sharing.settings.clone();
        }
        self.tell_news();
    }

    /// In mode `transaction`: what was left is gone.
    pub(super) fn discarded(&mut self, replies: &[u8]) {
        let (Some(sharing), Some(backend)) = (&mut self.sharing, &mut self.backend) else { return };
        if error_of(replies).is_some() {
            sharing.traces.add_unknown();
        } else {
            backend.is_discarded();
            sharing.own_names = false;
            sharing.traces.probed(None);
            self.prepared.move_out();
        }
        self.control.activity.is_tied(sharing.traces.pin());
    }

    /// The client's statements no longer have their own names on this connection.
    pub(super) fn names_taken_back(&mut self, replies: &[u8]) {
        let (Some(sharing), Some(backend)) = (&mut self.sharing, &mut self.backend) else { return };
        if error_of(replies).is_none() {
            sharing.own_names = false;
            backend.parsed.clear();
            self.prepared.move_out();
        }
    }
}

pub(super) const DISCARD_SEQUENCES: &str = "DISCARD SEQUENCES";

fn set_all<'a>(out: &mut BytesMut, pairs: impl Iterator<Item = &'a (Box<str>, Box<str>)>) -> Result<(), EncodeError> {
    encode::parse(out, b"", SET_CONFIG, &[])?;
    for (name, value) in pairs {
        let values = [Some(name.as_bytes()), Some(value.as_bytes())];
        encode::bind(out, b"", b"", &[], values.into_iter(), &[])?;
        encode::execute(out, b"", 0)?;
    }
    Ok(())
}

fn found(replies: &[u8], login: &str) -> Option<Found> {
    let mut found = Found::default();
    let mut identity = Vec::new();
    for (tag, body) in jobs::frames(replies) {
        match tag {
            backend::ERROR_RESPONSE => return None,
            backend::DATA_ROW => {
                let row = data_row(body).ok()?;
                let [Some(kind), Some(name), Some(value)] = row.as_slice() else { return None };
                let pair = || Some((std::str::from_utf8(name).ok()?.into(), std::str::from_utf8(value).ok()?.into()));
                match *kind {
                    b"set" => found.settings.push(pair()?),
                    b"authorization" if *value != login.as_bytes() => identity.insert(0, pair()?),
                    b"role" if *value != b"none" => identity.push(pair()?),
                    b"authorization" | b"role" => {}
                    b"temporary_schema" => found.temporary_schema = true,
                    kind => found.pin = Some(Pin::ALL.into_iter().find(|pin| pin.label().as_bytes() == kind)?),
                }
            }
            _ => {}
        }
    }
    found.settings.sort_unstable();
    found.settings.extend(identity);
    Some(found)
}

/// The message of the first error among the replies.
fn error_of(replies: &[u8]) -> Option<String> {
    let (_, body) = jobs::frames(replies).find(|(tag, _)| *tag == backend::ERROR_RESPONSE)?;
    let message = crate::wire::error::field(body, b'M').unwrap_or_default();
    Some(String::from_utf8_lossy(message).into_owned())
}
