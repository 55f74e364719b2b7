//! Tells a statement's class from its tokens. Strict: a command that does not go on as its grammar says is `Unknown`.

use super::class::{Class, DiscardTarget, Isolation, SessionCommand, TransactionModes};
use super::lexer::{Kind, Token};
use super::{set, split};

/// The class of one statement's tokens, and for COPY its target.
pub fn classify(tokens: &[Token<'_>]) -> Class {
    let Some((first, rest)) = tokens.split_first() else { return Class::Unknown };
    if !split::is_balanced(tokens) {
        return Class::Unknown;
    }
    if first.is_punctuation("(") {
        return read(tokens);
    }
    if first.kind != Kind::Word {
        return Class::Unknown;
    }
    let word = first.text.to_ascii_lowercase();
    match word.as_slice() {
        b"select" | b"values" | b"table" | b"with" => read(tokens),
        b"insert" | b"update" | b"delete" | b"merge" => Class::Write,
        b"begin" => begin(after_any(rest, &["work", "transaction"])),
        b"start" => match rest {
            [word, modes @ ..] if word.is_word("transaction") => begin(modes),
            // START_REPLICATION is one word; START alone begins nothing else.
            _ => Class::Unknown,
        },
        b"commit" | b"end" => end(rest, word == b"commit", |chain| Class::Commit { chain }),
        b"rollback" => rollback(rest),
        b"abort" => end(rest, false, |chain| Class::Rollback { chain }),
        b"savepoint" if is_name(rest) => Class::Savepoint,
        b"release" if is_name(after_any(rest, &["savepoint"])) || is_name(rest) => Class::Release,
        b"set" => set::set(rest).map_or(Class::Unknown, Class::Set),
        b"reset" => set::reset(rest).map_or(Class::Unknown, Class::Set),
        b"discard" => discard(rest),
        b"listen" => Class::Session(SessionCommand::Listen),
        b"unlisten" => Class::Session(SessionCommand::Unlisten),
        b"notify" => Class::Session(SessionCommand::Notify),
        b"show" => Class::Session(SessionCommand::Show),
        b"declare" => Class::Session(SessionCommand::Declare),
        b"fetch" => Class::Session(SessionCommand::Fetch),
        b"move" => Class::Session(SessionCommand::Move),
        b"close" => Class::Session(SessionCommand::Close),
        b"prepare" => match rest {
            [word, id] if word.is_word("transaction") && id.kind.is_text_literal() => Class::PrepareTransaction,
            _ => Class::Session(SessionCommand::Prepare),
        },
        b"deallocate" => Class::Session(SessionCommand::Deallocate),
        b"load" => Class::Session(SessionCommand::Load),
        b"checkpoint" => Class::Session(SessionCommand::Checkpoint),
        b"lock" => Class::Session(SessionCommand::Lock),
        b"copy" => copy(rest),
        b"vacuum" | b"analyze" | b"analyse" | b"reindex" | b"cluster" => Class::Maintenance,
        b"truncate" => Class::Truncate,
        b"refresh" => Class::RefreshMaterializedView,
        b"create" | b"alter" | b"drop" | b"comment" | b"grant" | b"revoke" | b"reassign" | b"security" | b"import" => {
            Class::Ddl
        }
        b"execute" => Class::Execute,
        b"call" => Class::Call,
        b"do" => Class::Do,
        b"explain" => explain(rest),
        _ if is_replication(first) => Class::Replication,
        _ => Class::Unknown,
    }
}

/// Whether a text starts like a command of the replication protocol, whose own scanner cuts differently (`0/16B3748`).
pub fn is_replication(first: &Token<'_>) -> bool {
    first.is_any_word(&[
        "identify_system",
        "start_replication",
        "create_replication_slot",
        "alter_replication_slot",
        "drop_replication_slot",
        "read_replication_slot",
        "base_backup",
        "timeline_history",
        "upload_manifest",
    ])
}

/// Whether an unquoted word INSERT, UPDATE, DELETE or MERGE stands here that is not part of a row lock.
fn may_modify(tokens: &[Token<'_>]) -> bool {
    tokens.iter().enumerate().any(|(at, token)| {
        token.is_any_word(&["insert", "delete", "merge"]) || (token.is_word("update") && !is_lock_strength(tokens, at))
    })
}

/// Whether the word at `at` ends FOR UPDATE or FOR NO KEY UPDATE.
fn is_lock_strength(tokens: &[Token<'_>], at: usize) -> bool {
    let before = |distance: usize, word: &str| at >= distance && tokens[at - distance].is_word(word);
    before(1, "for") || (before(1, "key") && before(2, "no") && before(3, "for"))
}

/// Whether an INTO stands here that makes a relation (not INSERT INTO or MERGE INTO).
pub fn selects_into(tokens: &[Token<'_>]) -> bool {
    (0..tokens.len())
        .any(|at| tokens[at].is_word("into") && !(at > 0 && tokens[at - 1].is_any_word(&["insert", "merge"])))
}

fn read(tokens: &[Token<'_>]) -> Class {
    let starts = tokens
        .iter()
        .find(|token| !token.is_punctuation("("))
        .is_some_and(|token| token.is_any_word(&["select", "values", "table", "with"]));
    match starts {
        false => Class::Unknown,
        true if may_modify(tokens) || selects_into(tokens) => Class::Write,
        true => Class::Read,
    }
}

fn begin(modes: &[Token<'_>]) -> Class {
    transaction_modes(modes).map_or(Class::Unknown, Class::Begin)
}

/// The modes of BEGIN, START TRANSACTION and SET TRANSACTION, commas optional; the last of a kind holds.
pub fn transaction_modes(mut tokens: &[Token<'_>]) -> Option<TransactionModes> {
    let mut modes = TransactionModes::default();
    while let Some((first, rest)) = tokens.split_first() {
        let words = |words: &[&str]| {
            tokens.len() >= words.len() && words.iter().zip(tokens).all(|(word, token)| token.is_word(word))
        };
        let isolation = |level| Some(level);
        let used = if first.is_punctuation(",") {
            tokens = rest;
            continue;
        } else if words(&["isolation", "level", "read", "uncommitted"]) {
            modes.isolation = isolation(Isolation::ReadUncommitted);
            4
        } else if words(&["isolation", "level", "read", "committed"]) {
            modes.isolation = isolation(Isolation::ReadCommitted);
            4
        } else if words(&["isolation", "level", "repeatable", "read"]) {
            modes.isolation = isolation(Isolation::RepeatableRead);
            4
        } else if words(&["isolation", "level", "serializable"]) {
            modes.isolation = isolation(Isolation::Serializable);
            3
        } else if words(&["read", "only"]) {
            modes.read_only = Some(true);
            2
        } else if words(&["read", "write"]) {
            modes.read_only = Some(false);
            2
        } else if words(&["not", "deferrable"]) {
            modes.deferrable = Some(false);
            2
        } else if words(&["deferrable"]) {
            modes.deferrable = Some(true);
            1
        } else {
            return None;
        };
        tokens = &tokens[used..];
    }
    Some(modes)
}

/// COMMIT, END, ROLLBACK and ABORT after their first word.
fn end(rest: &[Token<'_>], may_be_prepared: bool, class: fn(bool) -> Class) -> Class {
    if let [word, id] = rest
        && may_be_prepared
        && word.is_word("prepared")
        && id.kind.is_text_literal()
    {
        return Class::CommitPrepared;
    }
    match after_any(rest, &["work", "transaction"]) {
        [] => class(false),
        [and, chain] if and.is_word("and") && chain.is_word("chain") => class(true),
        [and, no, chain] if and.is_word("and") && no.is_word("no") && chain.is_word("chain") => class(false),
        _ => Class::Unknown,
    }
}

fn rollback(rest: &[Token<'_>]) -> Class {
    match after_any(rest, &["work", "transaction"]) {
        [to, name @ ..] if to.is_word("to") => {
            let named = is_name(after_any(name, &["savepoint"])) || is_name(name);
            if named { Class::RollbackTo } else { Class::Unknown }
        }
        _ => end(rest, true, |chain| Class::Rollback { chain }),
    }
}

fn discard(rest: &[Token<'_>]) -> Class {
    let [target] = rest else { return Class::Unknown };
    if target.is_word("all") {
        Class::Discard(DiscardTarget::All)
    } else if target.is_word("plans") {
        Class::Discard(DiscardTarget::Plans)
    } else if target.is_word("sequences") {
        Class::Discard(DiscardTarget::Sequences)
    } else if target.is_any_word(&["temp", "temporary"]) {
        Class::Discard(DiscardTarget::Temporary)
    } else {
        Class::Unknown
    }
}

fn copy(rest: &[Token<'_>]) -> Class {
    let (target, after) = copy_parts(rest);
    let inside_query = target.first().is_some_and(|token| token.is_punctuation("("));
    // A program on the server may do anything, writing to this database among it.
    if after.get(1).is_some_and(|token| token.is_word("program")) {
        return Class::Unknown;
    }
    match after.first() {
        Some(word) if word.is_word("to") && inside_query && (may_modify(target) || selects_into(target)) => {
            Class::Write
        }
        Some(word) if word.is_word("to") => Class::CopyOut,
        Some(word) if word.is_word("from") && !inside_query => Class::CopyIn,
        _ => Class::Unknown,
    }
}

/// What COPY copies (a name, or a query in parentheses), and the tokens from FROM or TO on.
fn copy_parts<'t, 'a>(rest: &'t [Token<'a>]) -> (&'t [Token<'a>], &'t [Token<'a>]) {
    // COPY BINARY t FROM: the old way to say (FORMAT binary).
    let is_name = |token: &Token<'_>| {
        matches!(token.kind, Kind::Word | Kind::Quoted | Kind::UnicodeQuoted) && !token.is_any_word(&["from", "to"])
    };
    let rest = match rest {
        [binary, name, ..] if binary.is_word("binary") && is_name(name) => &rest[1..],
        _ => rest,
    };
    let mut depth = 0usize;
    let split = rest.iter().position(|token| {
        if token.is_punctuation("(") {
            depth += 1;
        } else if token.is_punctuation(")") {
            depth = depth.saturating_sub(1);
        }
        depth == 0 && token.is_any_word(&["from", "to"])
    });
    rest.split_at(split.unwrap_or(rest.len()))
}

/// The tokens of the qualified name that a COPY statement names.
pub fn copy_target<'t, 'a>(statement: &'t [Token<'a>]) -> &'t [Token<'a>] {
    let (target, _) = copy_parts(statement.get(1..).unwrap_or_default());
    let end = target.iter().position(|token| token.is_punctuation("(")).unwrap_or(target.len());
    &target[..end]
}

fn explain(rest: &[Token<'_>]) -> Class {
    let (analyze, inner) = match rest {
        [open, first, ..] if open.is_punctuation("(") && !is_query_start(first) => {
            let Some(close) = rest.iter().position(|token| token.is_punctuation(")")) else { return Class::Unknown };
            (asks_analyze(&rest[1..close]), &rest[close + 1..])
        }
        [word, inner @ ..] if word.is_any_word(&["analyze", "analyse"]) => (true, after_any(inner, &["verbose"])),
        _ => (false, after_any(rest, &["verbose"])),
    };
    if inner.first().is_none_or(|token| token.is_word("explain")) {
        return Class::Unknown;
    }
    Class::Explain { analyze, of: Box::new(classify(inner)) }
}

fn is_query_start(token: &Token<'_>) -> bool {
    token.is_punctuation("(") || token.is_any_word(&["select", "values", "table", "with"])
}

/// Whether an option list turns ANALYZE on. Anything but a clear "off" does.
fn asks_analyze(options: &[Token<'_>]) -> bool {
    options.split(|token| token.is_punctuation(",")).any(|option| {
        let Some((name, value)) = option.split_first() else { return false };
        let is_analyze =
            name.is_any_word(&["analyze", "analyse"]) || matches!(name.kind, Kind::Quoted | Kind::UnicodeQuoted);
        let off = match value {
            [value] => value.is_any_word(&["off", "false"]) || value.text == b"0",
            _ => false,
        };
        is_analyze && !off
    })
}

/// The tokens after an optional first word.
fn after_any<'t, 'a>(tokens: &'t [Token<'a>], words: &[&str]) -> &'t [Token<'a>] {
    match tokens.split_first() {
        Some((first, rest)) if first.is_any_word(words) => rest,
        _ => tokens,
    }
}

fn is_name(tokens: &[Token<'_>]) -> bool {
    matches!(tokens, [name] if matches!(name.kind, Kind::Word | Kind::Quoted | Kind::UnicodeQuoted))
        || matches!(tokens, [name, uescape, _] if name.kind == Kind::UnicodeQuoted && uescape.is_word("uescape"))
}
