//! What else a statement's text tells: the names, operators and parameters in it, and words whose meaning is outside it.

use super::casts::{self, TemporalCast};
use super::lexer::{Kind, Token};
use super::{classify, literal};

/// One way in which a statement uses a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// As PostgreSQL folds it: ASCII lower case unless quoted, at most 63 bytes.
    pub name: Box<str>,
    /// Followed by `(`.
    pub call: bool,
    /// Preceded by `.`.
    pub after_dot: bool,
}

/// Facts about one statement. Everything that cannot be told from the text is told the careful way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The names are not complete: a `U&""` identifier, a name that is not UTF-8, a parameter that cannot be.
    pub odd: bool,
    /// FOR UPDATE, FOR NO KEY UPDATE, FOR SHARE, FOR KEY SHARE.
    pub locks_rows: bool,
    /// SELECT INTO.
    pub creates_relation: bool,
    /// Every identifier and key word, sorted, each use once.
    pub names: Vec<Name>,
    /// Every name that stands where a type may: after `::` and AS, before a string, before a parenthesis; sorted, once.
    pub types: Vec<Box<str>>,
    /// Every operator, sorted, once.
    pub operators: Vec<Box<str>>,
    /// The highest `$n`; 0 for none.
    pub max_parameter: u16,
    /// A string constant that says `now`, `today`, `tomorrow` or `yesterday`.
    pub special_time_literal: bool,
    /// CURRENT_DATE, CURRENT_USER and the like.
    pub context_keyword: bool,
    /// Names `timetz` or `time with time zone`: text, or a `time`, becomes one by the offset that is in force today.
    pub zoned_time: bool,
    /// AT TIME ZONE, AT LOCAL: of a time of day (not of a timestamp) the result depends on the present date.
    pub shifts_zone: bool,
    /// May make a `time` by itself: the word `time` other than as part of a longer phrase, `make_time`.
    pub makes_time: bool,
    pub tablesample: bool,
    /// TEMP, TEMPORARY or a name that starts with `pg_temp`.
    pub temporary: bool,
    /// Conversions through which text in the data may name the current time, each once. Those that provably cannot are
    /// left out.
    pub temporal_casts: Vec<TemporalCast>,
}

impl Facts {
    pub fn of(tokens: &[Token<'_>]) -> Self {
        let mut facts =
            Self { locks_rows: locks_rows(tokens), temporal_casts: casts::temporal_casts(tokens), ..Self::default() };
        facts.note_times(tokens);
        for (at, token) in tokens.iter().enumerate() {
            let after_dot = at > 0 && tokens[at - 1].is_punctuation(".");
            match token.kind {
                Kind::Word | Kind::Quoted | Kind::UnicodeQuoted => {
                    let call = tokens.get(at + 1).is_some_and(|next| next.is_punctuation("("));
                    facts.add_identifier(token, call, after_dot);
                    if call || stands_for_type(tokens, at) {
                        facts.types.extend(literal::folded(token).map(Into::into));
                    }
                }
                Kind::Operator => facts.operators.push(String::from_utf8_lossy(token.text).into()),
                Kind::Parameter => facts.add_parameter(token),
                kind if kind.is_text_literal() => {
                    facts.odd |= kind == Kind::UnicodeString;
                    facts.special_time_literal |= literal::may_name_current_time(token);
                }
                _ => {}
            }
        }
        facts.creates_relation = tokens.first().is_some_and(|first| {
            first.is_punctuation("(") || first.is_any_word(&["select", "with", "values", "table"])
        }) && classify::selects_into(tokens);
        facts.names.sort_unstable();
        facts.names.dedup();
        facts.types.sort_unstable();
        facts.types.dedup();
        facts.operators.sort_unstable();
        facts.operators.dedup();
        facts
    }

    pub fn has_parameters(&self) -> bool {
        self.max_parameter > 0
    }

    fn add_identifier(&mut self, token: &Token<'_>, call: bool, after_dot: bool) {
        let Some(name) = literal::folded(token) else {
            self.odd = true;
            return;
        };
        let unquoted = token.kind == Kind::Word;
        self.context_keyword |= unquoted && !after_dot && is_context_keyword(&name);
        self.tablesample |= unquoted && name == "tablesample";
        self.temporary |= name.starts_with("pg_temp") || (unquoted && matches!(&*name, "temp" | "temporary"));
        self.names.push(Name { name: name.into(), call, after_dot });
    }

    fn note_times(&mut self, tokens: &[Token<'_>]) {
        let word = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(word));
        let mut in_phrase = 0;
        for at in 0..tokens.len() {
            if word(at, "at") && (word(at + 1, "local") || (word(at + 1, "time") && word(at + 2, "zone"))) {
                self.shifts_zone = true;
                in_phrase = at + 3;
            } else if (word(at, "with") || word(at, "without")) && word(at + 1, "time") && word(at + 2, "zone") {
                in_phrase = at + 3;
            }
            if at < in_phrase || !matches!(tokens[at].kind, Kind::Word | Kind::Quoted | Kind::UnicodeQuoted) {
                continue;
            }
            match literal::folded(&tokens[at]).as_deref() {
                Some("timetz") => self.zoned_time = true,
                Some("time") => {
                    let precision = tokens.get(at + 1).is_some_and(|next| next.is_punctuation("("));
                    let after = at + if precision { 4 } else { 1 };
                    self.zoned_time |= word(after, "with") && word(after + 1, "time");
                    self.makes_time = true;
                }
                Some("make_time") => self.makes_time = true,
                _ => {}
            }
        }
    }

    fn add_parameter(&mut self, token: &Token<'_>) {
        let number = std::str::from_utf8(&token.text[1..]).ok().and_then(|digits| digits.parse::<u16>().ok());
        match number {
            Some(number) if number > 0 => self.max_parameter = self.max_parameter.max(number),
            _ => self.odd = true,
        }
    }

    /// Bytes on the heap, about.
    pub(super) fn weight(&self) -> usize {
        let boxed = |text: &str| text.len() + 32;
        self.names.iter().map(|name| boxed(&name.name)).sum::<usize>()
            + self.operators.iter().map(|operator| boxed(operator)).sum::<usize>()
            + self.types.iter().map(|name| boxed(name)).sum::<usize>()
            + self.temporal_casts.len() * 64
    }
}

/// Whether the last name of a path, at `at`, may be a type's.
fn stands_for_type(tokens: &[Token<'_>], at: usize) -> bool {
    if tokens.get(at + 1).is_some_and(|next| next.kind.is_text_literal()) {
        return true;
    }
    let mut first = at;
    while first >= 2 && tokens[first - 1].is_punctuation(".") {
        first -= 2;
    }
    first
        .checked_sub(1)
        .is_some_and(|before| tokens[before].is_punctuation("::") || tokens[before].is_any_word(&["as", "setof"]))
}

/// Words that stand for something about the session or the clock without being called.
fn is_context_keyword(name: &str) -> bool {
    matches!(
        name,
        "current_date"
            | "current_time"
            | "current_timestamp"
            | "localtime"
            | "localtimestamp"
            | "current_user"
            | "session_user"
            | "user"
            | "current_role"
            | "current_catalog"
            | "current_schema"
            | "system_user"
    )
}

fn locks_rows(tokens: &[Token<'_>]) -> bool {
    (0..tokens.len()).any(|at| {
        let words = |words: &[&str]| {
            tokens[at..].len() >= words.len()
                && words.iter().zip(&tokens[at..]).all(|(word, token)| token.is_word(word))
        };
        words(&["for", "update"])
            || words(&["for", "share"])
            || words(&["for", "no", "key", "update"])
            || words(&["for", "key", "share"])
    })
}
