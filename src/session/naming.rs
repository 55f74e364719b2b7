//! The names of prepared statements upstream.
//!
//! **Invariant.** On a connection of its own a client's statements have the client's names. On a shared one a named statement has a
//! name that tells what it is (text, parameter types, and what they were resolved under), so that whoever comes to the connection
//! may use it; only the name in the client's messages is replaced. Whatever refers to a statement finds it prepared: it is asked for
//! right before, if the connection does not have it.
//!
//! SQL may speak of prepared statements, in EXECUTE, DEALLOCATE or by asking for a list. From then on the session has its own
//! names on the connection, which keeps it to itself until they are taken back.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::Session;
use super::block::Status;
use super::jobs::{self, Job};
use super::pipeline::{Origin, Request};
use super::prepared::{Asked, Prepared};
use super::span::Span;
use super::traces::Pin;
use crate::statement::{Class, Part, SessionCommand, Statement};
use crate::upstream::parsed::{Shape, StatementId};
use crate::wire::error::{ErrorResponse, field, sqlstate};
use crate::wire::frame::{HEADER_BYTES, Header, frontend};
use crate::wire::message::{Parse, Target, encode};

const SAVEPOINT: &str = "SAVEPOINT heliosproxy";
const ROLLBACK_TO: &str = "ROLLBACK TO SAVEPOINT heliosproxy";
const RELEASE: &str = "RELEASE SAVEPOINT heliosproxy";

/// What a message names in place of a statement whose result has changed its shape: nobody has it, so that the server refuses.
pub const NO_STATEMENT: &[u8] = b"hlp_changed";

/// Where a message names a statement: its place in the body, and the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    at: usize,
    /// The portal's name, which stands before it in a Bind.
    pub portal: &'a [u8],
    pub name: &'a [u8],
}

impl<'a> Named<'a> {
    /// `None` if the message names none, or the beginning of its body does not hold the name.
    pub fn find(tag: u8, body: &'a [u8]) -> Option<Self> {
        let text = |at: usize| {
            let rest = body.get(at..)?;
            Some(&rest[..rest.iter().position(|byte| *byte == 0)?])
        };
        let portal = if tag == frontend::BIND { text(0)? } else { b"" };
        let at = match tag {
            frontend::PARSE => 0,
            frontend::BIND => portal.len() + 1,
            frontend::DESCRIBE if body.first() == Some(&Target::Statement.tag()) => 1,
            _ => return None,
        };
        Some(Self { at, portal, name: text(at)? })
    }
}

/// Appends a message with another statement name, as far as it is here.
pub fn put_renamed(out: &mut BytesMut, header: Header, message: &[u8], named: Named<'_>, name: &[u8]) {
    let at = HEADER_BYTES + named.at;
    let length = header.total - 1 - named.name.len() + name.len();
    out.put_u8(header.tag);
    out.put_u32(length as u32);
    out.extend_from_slice(&message[HEADER_BYTES..at]);
    out.extend_from_slice(name);
    out.extend_from_slice(&message[at + named.name.len()..]);
}

impl Session {
    /// Whether the client's statements go by other names upstream.
    pub(super) fn renames(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| !sharing.own_names)
    }

    /// The name upstream of a statement that the client has.
    pub(super) fn renamed(&self, name: &[u8]) -> Option<StatementId> {
        self.prepared.get(name).filter(|_| self.renames())?.id
    }

    pub(super) fn decode_parse(&mut self, body: &[u8]) -> Option<Prepared> {
        let parse = Parse::decode(body).ok()?;
        let types: Vec<u32> = parse.types().collect();
        // Also while it has its own name: that may be taken back.
        let shares = self.sharing.is_some() && !parse.name.is_empty();
        let id = shares.then(|| self.identify(parse.text, &types));
        Some(Prepared {
            name: Bytes::copy_from_slice(parse.name),
            text: Bytes::copy_from_slice(parse.text),
            types,
            statement: self.shared.statements.get(parse.text),
            id,
        })
    }

    /// Equal for statements that are the same in all that parsing depends on; one of its own if that is not known.
    fn identify(&mut self, text: &[u8], types: &[u32]) -> StatementId {
        let database = self.visit.database();
        let is_certain = !self.tracking || !database.in_doubt();
        let mut hasher = Sha256::new();
        if let Some(sharing) = &mut self.sharing {
            if sharing.traces.settings_are_known() && is_certain {
                hasher.update(sharing.settings.digest());
                hasher.update(database.epoch().to_be_bytes());
            } else {
                sharing.serial += 1;
                hasher.update(sharing.tenant.to_be_bytes());
                hasher.update(sharing.serial.to_be_bytes());
            }
        }
        hasher.update((types.len() as u64).to_be_bytes());
        types.iter().for_each(|oid| hasher.update(oid.to_be_bytes()));
        hasher.update(text);
        let digest: [u8; 32] = hasher.finalize().into();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        StatementId(id)
    }

    /// Before a message of the client's refers to a statement. False if the message has to wait: the connection lacks the statement,
    /// or has one of another shape, and it has been asked for, along with what its result looks like now. See
    /// [`shape_has_changed`](Self::shape_has_changed).
    pub(super) fn has_statement(&mut self, name: &[u8]) -> bool {
        let Some(id) = self.renamed(name).filter(|_| !self.pipeline.is_skipping()) else { return true };
        let Some(prepared) = self.prepared.get(name).cloned() else { return true };
        let just_learned = self.learned_shape.take() == Some(id);
        if just_learned || self.stands_as_prepared(name) {
            return true;
        }
        self.opened();
        self.prepare_as(id);
        self.inject_as(prepared.clone(), &id.name());
        self.ask_shape(Asked { prepared, again: true });
        encode::flush(&mut self.upstream.output);
        self.learning_shape = true;
        false
    }

    /// Whether the result of a statement does not look any more as it did when the client prepared it. PostgreSQL refuses to execute
    /// such a statement on the connection where it was prepared; on another one it would know nothing of it.
    pub(super) fn shape_has_changed(&self, name: &[u8]) -> bool {
        let (Some(id), Some(backend)) = (self.renamed(name), &self.backend) else { return false };
        let (before, now) = (self.prepared.shape(name), backend.parsed.shape(id));
        before.zip(now).is_some_and(|(before, now)| before != now)
    }

    /// The connection has the statement, and its result looks as it did.
    pub(super) fn stands_as_prepared(&mut self, name: &[u8]) -> bool {
        let Some(id) = self.renamed(name) else { return true };
        self.backend.as_mut().is_some_and(|backend| backend.parsed.uses(id)) && !self.shape_has_changed(name)
    }

    /// Asks what the result of a statement looks like whose Parse has just been sent.
    pub(super) fn ask_shape(&mut self, asked: Asked) {
        let Some(id) = asked.prepared.id else { return };
        if self.pipeline.push(Origin::Injected, Request::Shape(Some(asked))).is_none() {
            let _ = encode::describe(&mut self.upstream.output, Target::Statement, &id.name());
        }
    }

    /// The upstream has said it.
    pub(super) fn described(&mut self, asked: &Asked, tag: u8, body: &[u8]) {
        if asked.again {
            self.learning_shape = false;
            self.learned_shape = asked.prepared.id;
        }
        let (Some(shape), Some(id)) = (Shape::of(tag, body), asked.prepared.id) else { return };
        if let Some(backend) = &mut self.backend {
            backend.parsed.has_shape(id, shape);
        }
        if !asked.again {
            self.prepared.has_shape(&asked.prepared, shape);
        }
    }

    /// The client's own Parse is about to be passed on under this name, which may be there already.
    pub(super) fn prepare_as(&mut self, id: StatementId) {
        self.inject_close(&id.name());
        if let Some(backend) = self.backend.as_mut().filter(|_| !self.pipeline.is_skipping()) {
            backend.parsed.add(id);
        }
    }

    /// Before something refers to `name` upstream: prepares it if it has its own name there, and is not there.
    pub(super) fn send_if_unsent(&mut self, name: &[u8]) {
        if self.renamed(name).is_none()
            && let Some(prepared) = self.prepared.take_unsent(name)
        {
            self.inject(prepared);
        }
    }

    /// The text may use, show or drop prepared statements: the client's are prepared under their own names. Outside a batch,
    /// since one that cannot be prepared must not harm what the client is about to do.
    pub(super) fn parse_unsent(&mut self, statement: &Statement) {
        if self.block.status() == Status::Failed || !self.takes_own_names(statement) {
            return;
        }
        for prepared in self.prepared.take_all_unsent() {
            self.parse_alone(&prepared);
        }
    }

    /// As [`parse_unsent`](Session::parse_unsent), inside the client's batch.
    pub(super) fn parse_unsent_in_batch(&mut self, statement: &Statement) {
        if !self.takes_own_names(statement) {
            return;
        }
        for prepared in self.prepared.take_all_unsent() {
            self.inject(prepared);
        }
    }

    /// Whether the client's statements get their own names on this connection for this text.
    fn takes_own_names(&mut self, statement: &Statement) -> bool {
        if !self.renames() {
            return false;
        }
        let makes_or_shows = statement.parts.iter().any(|part| {
            part.keeps.as_ref().is_some_and(|keeps| keeps.shows_statements)
                || part.class == Class::Session(SessionCommand::Prepare)
        });
        let drops_all = |part: &Part| part.class == Class::Session(SessionCommand::Deallocate) && part.names("all");
        let may_use = statement.parts.iter().any(|part| may_use_statements(&part.class) && !drops_all(part));
        let takes = makes_or_shows || (may_use && self.prepared.has_named());
        if takes {
            self.take_own_names();
        }
        takes
    }

    fn take_own_names(&mut self) {
        let (Some(sharing), Some(backend)) = (&mut self.sharing, &mut self.backend) else { return };
        sharing.own_names = true;
        sharing.traces.raise_doubt();
        let shows = !backend.parsed.is_empty();
        backend.parsed.clear();
        self.prepared.move_out_named();
        if shows && self.pipeline.is_empty() && self.open.is_none() {
            // What the proxy has prepared is not the client's to see.
            self.start(Job::TakeNames);
        }
    }

    /// Prepares a statement in a span of its own. Inside a block its locks are given up again, and its failure is undone.
    fn parse_alone(&mut self, prepared: &Arc<Prepared>) {
        let in_block = self.block.status() == Status::InBlock;
        let out = &mut self.upstream.output;
        // They were decoded from messages, or are constant, so they fit into some.
        if in_block {
            let _ = jobs::run_all(out, &[SAVEPOINT]);
        }
        let _ = encode::parse(out, &prepared.name, &prepared.text, &prepared.types);
        encode::sync(out);
        self.pipeline.push(Origin::Own, Request::Sync(Box::new(Span::own(Some(Job::ParseNamed)))));
        if in_block {
            let out = &mut self.upstream.output;
            let _ = jobs::run_all(out, &[ROLLBACK_TO, RELEASE]);
            encode::sync(out);
            self.pipeline.push(Origin::Own, Request::Sync(Box::new(Span::own(Some(Job::ParseNamed)))));
        }
    }

    /// A Parse under a name that the client has already must fail as it would on a connection of its own: the name is taken
    /// there, too, for a moment.
    pub(super) fn occupy(&mut self, name: &[u8]) {
        self.inject_close(name);
        let _ = encode::parse(&mut self.upstream.output, name, b"", &[]);
        self.pipeline.push(Origin::Injected, Request::Parse(None));
    }

    /// A named statement that is too long to be kept stays on this connection, and so does the session.
    pub(super) fn keep_long_statement(&mut self) {
        if let Some(sharing) = &mut self.sharing {
            sharing.traces.add_lasting(Pin::Statement);
        }
    }

    fn inject(&mut self, prepared: Arc<Prepared>) {
        let name = prepared.name.clone();
        self.inject_as(prepared, &name);
    }

    fn inject_as(&mut self, prepared: Arc<Prepared>, name: &[u8]) {
        // It was decoded from a message, so it fits into one.
        let _ = encode::parse(&mut self.upstream.output, name, &prepared.text, &prepared.types);
        let asked = Asked { prepared, again: true };
        if let Some(Request::Parse(Some(asked))) = self.pipeline.push(Origin::Injected, Request::Parse(Some(asked))) {
            self.refuse(&asked);
        }
    }

    fn inject_close(&mut self, name: &[u8]) {
        let _ = encode::close(&mut self.upstream.output, Target::Statement, name);
        self.pipeline.push(Origin::Injected, Request::Close);
    }

    /// The upstream did not take this Parse, or skips it.
    pub(super) fn refuse(&mut self, asked: &Asked) {
        if let (Some(id), Some(backend)) = (asked.prepared.id, &mut self.backend) {
            backend.parsed.remove(id);
        }
        self.prepared.refused(asked);
    }
}

/// Whether this ErrorResponse is the answer to [`NO_STATEMENT`].
pub fn refuses_changed(body: &[u8]) -> bool {
    field(body, b'C') == Some(sqlstate::UNDEFINED_STATEMENT.as_bytes())
        && field(body, b'M').is_some_and(|message| message.windows(NO_STATEMENT.len()).any(|part| part == NO_STATEMENT))
}

/// In its place, in PostgreSQL's words.
pub fn changed() -> ErrorResponse {
    ErrorResponse::error(sqlstate::FEATURE_NOT_SUPPORTED, "cached plan must not change result type")
}

/// Whether such a statement may use or drop prepared statements by their names.
fn may_use_statements(class: &Class) -> bool {
    match class {
        Class::Execute
        | Class::Do
        | Class::Call
        | Class::Unknown
        | Class::Ddl
        | Class::Session(SessionCommand::Deallocate) => true,
        Class::Explain { of, .. } => may_use_statements(of),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;
    use crate::wire::message::{Bind, Describe};

    fn renamed(message: &[u8], name: &[u8]) -> BytesMut {
        let header = frame::peek(message).unwrap().unwrap();
        let named = Named::find(header.tag, &message[HEADER_BYTES..]).expect("a name");
        let mut out = BytesMut::new();
        put_renamed(&mut out, header, message, named, name);
        out
    }

    #[test]
    fn only_the_name_is_replaced() {
        let mut message = BytesMut::new();
        encode::parse(&mut message, b"s1", b"SELECT $1", &[23]).unwrap();
        let out = renamed(&message, b"longer");
        assert_eq!(frame::peek(&out).unwrap().unwrap().total, out.len());
        let parse = Parse::decode(&out[HEADER_BYTES..]).unwrap();
        assert_eq!(
            (parse.name, parse.text, parse.types().collect::<Vec<_>>()),
            (&b"longer"[..], &b"SELECT $1"[..], vec![23])
        );

        message.clear();
        encode::bind(&mut message, b"portal", b"s1", &[1], [Some(&b"\0s1\0"[..])].into_iter(), &[0]).unwrap();
        let bind = renamed(&message, b"x");
        let bind = Bind::decode(&bind[HEADER_BYTES..]).unwrap();
        assert_eq!((bind.portal, bind.statement), (&b"portal"[..], &b"x"[..]));

        message.clear();
        encode::describe(&mut message, Target::Statement, b"s1").unwrap();
        let describe = renamed(&message, b"x");
        let describe = Describe::decode(&describe[HEADER_BYTES..]).unwrap();
        assert_eq!((describe.kind, describe.name), (Target::Statement, &b"x"[..]));
    }

    #[test]
    fn a_long_message_is_renamed_by_its_beginning() {
        let mut message = BytesMut::new();
        encode::parse(&mut message, b"s1", &[b'x'; 100], &[]).unwrap();
        let header = frame::peek(&message).unwrap().unwrap();
        let beginning = &message[..20];
        let named = Named::find(header.tag, &beginning[HEADER_BYTES..]).expect("a name");
        let mut out = BytesMut::new();
        put_renamed(&mut out, header, beginning, named, b"name");
        assert_eq!(out.len(), 22);
        assert_eq!(frame::peek(&out).unwrap().unwrap().total, header.total + 2);
        assert_eq!(Named::find(frontend::PARSE, b"never ends"), None);
    }

    #[test]
    fn portals_have_no_statement_name() {
        let mut message = BytesMut::new();
        encode::describe(&mut message, Target::Portal, b"p").unwrap();
        assert_eq!(Named::find(frontend::DESCRIBE, &message[HEADER_BYTES..]), None);
    }
}
