//! What a SQL text is: its statements, the class of each, and what its words tell. Pure: from the text alone.
//!
//! Nothing here decides what a name means; the upstream does. A text that our lexer cannot cut as PostgreSQL does under
//! `standard_conforming_strings = on` is one statement of class `Unknown`. For a session that turned that setting off, or
//! whose encoding has ASCII bytes inside characters (SJIS, BIG5, GBK, GB18030, JOHAB, UHC), what is said here holds only for
//! texts that are the same under all of them ([`Statement::is_plain_ascii`]).

pub mod aggregate;
pub mod casts;
pub mod class;
mod classify;
pub mod facts;
mod hint;
pub mod keeps;
pub mod lexer;
pub mod literal;
mod memo;
mod normal;
pub mod ordering;
pub mod predicates;
pub mod scan;
mod set;
mod split;

use std::ops::Range;

use sha2::{Digest, Sha256};

pub use aggregate::Aggregation;
pub use casts::TemporalCast;
pub use class::{Class, DiscardTarget, Isolation, SessionCommand, SetAction, TransactionModes};
pub use facts::{Facts, Name};
pub use hint::Hint;
pub use keeps::Keeps;
use lexer::{Lexer, Token};
pub use memo::Statements;
pub use ordering::{Count, Ordering};
use predicates::Predicates;
pub use scan::Scan;

/// Everything that is derived from one text, which may hold several statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The non-empty statements in order. None for a text of white space, comments and `;`.
    pub parts: Vec<Part>,
    /// SHA-256 of the normal form: equal for texts that mean the same.
    pub digest: [u8; 32],
    /// What the comments in front of it ask of the proxy.
    pub hint: Hint,
    single_read: bool,
    plain_ascii: bool,
}

/// A statement for a range of its table's blocks.
pub struct RangeText {
    pub text: Vec<u8>,
    /// The table's name as the statement has it, quoted.
    pub name: String,
}

/// One statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub class: Class,
    pub facts: Facts,
    /// Where it stands in the text, from its first token to its last.
    pub range: Range<usize>,
    /// SHA-256 of its normal form with each literal replaced by its kind: equal for statements that name the same
    /// relations, functions and types in one session.
    pub shape: [u8; 32],
    /// For `CopyIn`: the qualified name of the table, as written.
    pub copy_target: Option<Vec<u8>>,
    /// Which rows it concerns, for reads and writes of which that can be told.
    pub predicates: Option<Box<Predicates>>,
    /// What its text says that it may leave in its session.
    pub keeps: Option<Box<Keeps>>,
    /// How it is asked for ranges of its table's blocks, for reads of one table of which that can be told.
    pub scan: Option<Box<Scan>>,
    /// The same for groups and aggregates: it is an [`Aggregation`].
    pub groups: bool,
}

impl Statement {
    pub fn analyse(text: &[u8]) -> Self {
        let Ok(tokens) = lexer::tokens(text) else { return Self::unknown(text) };
        let parts: Vec<_> =
            split::statements(&tokens).into_iter().map(|range| Part::of(text, &tokens[range])).collect();
        let hint = Hint::of(&text[..tokens.first().map_or(0, |first| first.start)]);
        let single_read = matches!(parts.as_slice(), [part] if part.class == Class::Read && !part.facts.odd && !part.facts.locks_rows);
        let digest = Sha256::digest(normal::normal_form(trim(&tokens))).into();
        Self { parts, digest, hint, single_read, plain_ascii: is_plain_ascii(text) }
    }

    /// No statement at all: PostgreSQL answers EmptyQueryResponse.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The text is one statement that by its text only reads and takes no row locks, and all its names are known.
    /// Whether its functions and relations allow to cache it is for the catalogue to say.
    pub fn is_single_read(&self) -> bool {
        self.single_read
    }

    /// The text means the same under every client_encoding and standard_conforming_strings.
    pub fn is_plain_ascii(&self) -> bool {
        self.plain_ascii
    }

    /// Whether its parameters tell which rows it writes.
    pub fn is_told_by_parameters(&self) -> bool {
        matches!(self.parts.as_slice(), [part]
            if part.class == Class::Write && part.facts.has_parameters() && part.predicates.is_some())
    }

    /// Bytes this takes, about.
    fn weight(&self) -> usize {
        size_of::<Self>() + self.parts.iter().map(Part::weight).sum::<usize>()
    }

    /// A text that cannot be cut. A command of the replication protocol is still told by its first word.
    fn unknown(text: &[u8]) -> Self {
        let first = Lexer::new(text).next().and_then(Result::ok);
        let replicates = first.is_some_and(|first| classify::is_replication(&first));
        let digest = Sha256::digest(text).into();
        let part = Part {
            class: if replicates { Class::Replication } else { Class::Unknown },
            facts: Facts { odd: true, ..Facts::default() },
            range: 0..text.len(),
            shape: digest,
            copy_target: None,
            predicates: None,
            keeps: Some(Box::new(Keeps { state: true, hidden_settings: true, ..Keeps::default() })),
            scan: None,
            groups: false,
        };
        Self { parts: vec![part], digest, hint: Hint::default(), single_read: false, plain_ascii: is_plain_ascii(text) }
    }
}

impl Part {
    fn of(text: &[u8], tokens: &[Token<'_>]) -> Self {
        let class = classify::classify(tokens);
        let range = tokens.first().map_or(0, |token| token.start)..tokens.last().map_or(0, Token::end);
        let copy_target = (class == Class::CopyIn).then(|| {
            let target = classify::copy_target(tokens);
            let end = target.last().map_or(0, Token::end);
            target.first().map_or(Vec::new(), |first| text[first.start..end].to_vec())
        });
        let facts = Facts::of(tokens);
        let concerns_rows = matches!(class, Class::Read | Class::Write);
        let predicates = concerns_rows.then(|| Predicates::of(tokens, &facts)).flatten().map(Box::new);
        let keeps = Keeps::of(&class, text.get(range.clone()).unwrap_or_default(), tokens);
        let groups = class == Class::Read && Aggregation::of(tokens, &facts).is_some();
        let is_scan = class == Class::Read && !groups;
        let scan = is_scan.then(|| Scan::of(tokens, &facts)).flatten().map(Box::new);
        Self { class, facts, range, shape: normal::shape(tokens), copy_target, predicates, keeps, scan, groups }
    }

    /// Whether `word`, as PostgreSQL folds it, is among its identifiers and key words.
    pub fn names(&self, word: &str) -> bool {
        self.facts.names.iter().any(|name| &*name.name == word)
    }

    /// Its text is of a form that may be asked for by ranges of a table's blocks.
    pub fn may_be_split(&self) -> bool {
        self.scan.is_some() || self.groups
    }

    /// How it is asked for the blocks from parameter `$number`, a tid, up to but without the next parameter. `text` is what was
    /// analysed.
    pub fn range(&self, text: &[u8], number: usize) -> Option<RangeText> {
        if !self.groups {
            let scan = self.scan.as_ref()?;
            return Some(RangeText { text: scan.chunk(text, number), name: scan.name().to_owned() });
        }
        let tokens = lexer::tokens(self.text_of(text)).ok()?;
        let groups = Aggregation::of_known(&tokens)?;
        Some(RangeText { text: groups.partial(number), name: groups.table().to_owned() })
    }

    /// Its text, `text` being what was analysed.
    pub fn text_of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.range.clone()).unwrap_or_default()
    }

    fn weight(&self) -> usize {
        size_of::<Self>()
            + self.facts.weight()
            + self.copy_target.as_ref().map_or(0, Vec::len)
            + self.predicates.as_ref().map_or(0, |predicates| predicates.weight())
            + self.keeps.as_ref().map_or(0, |keeps| keeps.weight())
            + self.scan.as_ref().map_or(0, |scan| scan.weight())
    }
}

/// The normal form of a text (see [`Statement::digest`]); a text that cannot be cut is its own.
pub fn normal_form(text: &[u8]) -> Vec<u8> {
    lexer::tokens(text).map_or_else(|_| text.to_vec(), |tokens| normal::normal_form(trim(&tokens)))
}

/// All of PostgreSQL's client encodings have ASCII in common, though in some its bytes are parts of characters, too; these begin
/// with a byte that is not ASCII. A backslash may escape.
fn is_plain_ascii(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii() && *byte != b'\\')
}

/// What may be shown of a text: its normal form with `?` in place of every literal, cut after `longest` bytes. Nothing is known
/// of the literals of a text that cannot be cut into tokens, so nothing of it is shown.
pub fn shape_text(text: &[u8], longest: usize) -> String {
    normal::shape_text(Lexer::new(text), longest).unwrap_or_else(|_| "(a text that cannot be read)".into())
}

/// Without `;` at either end: they change nothing.
fn trim<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    let is_statement = |token: &Token<'_>| !token.is_punctuation(";");
    let start = tokens.iter().position(is_statement).unwrap_or(tokens.len());
    let end = tokens.iter().rposition(is_statement).map_or(start, |last| last + 1);
    &tokens[start..end]
}

#[cfg(test)]
mod tests;
