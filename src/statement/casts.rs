//! Conversions at run time from text to a type that may hold a date or time: `x::date`, `CAST(x AS date)`, `date(x)`.
//!
//! Text that says `now` converts to the current time whenever it is converted, also when it comes out of a table. So a
//! statement's answer is constant only if none of its conversions can meet such text. A conversion to a type that is not
//! known to hold no date or time (a domain, a composite, a range of timestamps) counts as one to a date.

mod columns;

use super::lexer::{Kind, Token};
use super::{literal, split};
use columns::Columns;

/// A conversion that meets such text if what it converts does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TemporalCast {
    /// Of the parameter `$n`.
    Parameter(u16),
    /// Of a column. The text names it in no other role (alias, function, type), so it is the column of a relation that
    /// the statement names or, through a view, reads.
    Column(Box<str>),
    /// Of something that may be any text.
    Unsafe,
}

/// All temporal casts that are not provably harmless, each once.
pub fn temporal_casts(tokens: &[Token<'_>]) -> Vec<TemporalCast> {
    let Some(partners) = split::partners(tokens) else { return vec![TemporalCast::Unsafe] };
    let mut scan = Scan {
        tokens,
        partners,
        ends: vec![None; tokens.len() + 1],
        in_type: vec![false; tokens.len()],
        found: Vec::new(),
    };
    scan.run();
    let mut found = scan.found;
    if found.iter().any(|cast| matches!(cast, TemporalCast::Column(_))) {
        let columns = Columns::of(tokens, &scan.partners);
        for cast in &mut found {
            if let TemporalCast::Column(name) = cast
                && !columns.come_from_relations(name)
            {
                *cast = TemporalCast::Unsafe;
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// What is known about a type from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    /// A built-in date/time type.
    Temporal,
    /// Built in, holds neither text nor dates.
    Plain,
    /// Text.
    Text,
    Other,
}

/// What a cast converts.
#[derive(Debug)]
enum Operand {
    Harmless,
    May(TemporalCast),
}

struct Scan<'t, 'a> {
    tokens: &'t [Token<'a>],
    partners: Vec<usize>,
    /// For the token after a cast expression: the type it was cast to, and its first token.
    ends: Vec<Option<(Type, usize)>>,
    /// Tokens that are part of a cast's type.
    in_type: Vec<bool>,
    found: Vec<TemporalCast>,
}

impl Scan<'_, '_> {
    fn run(&mut self) {
        for at in 0..self.tokens.len() {
            let token = &self.tokens[at];
            let called = self.tokens.get(at + 1).is_some_and(|next| next.is_punctuation("("));
            if token.is_punctuation("::") {
                let (target, end) = self.type_at(at + 1);
                let (operand, first) = self.operand_before(at);
                self.ends[end] = Some((target, first));
                self.cast(target, operand);
            } else if called && token.is_any_word(&["cast", "treat"]) {
                self.cast_call(at + 1);
            } else if called && token.is_any_word(&["xmltable", "json_table", "json_value", "json_query"]) {
                // These convert to column types of their own.
                self.found.push(TemporalCast::Unsafe);
            } else if called && !self.in_type[at] && literal::folded(token).is_some_and(|name| is_temporal(&name)) {
                let operand = self.whole_operand(at + 2, self.partners[at + 1]);
                self.cast(Type::Temporal, operand);
            }
        }
    }

    fn cast(&mut self, target: Type, operand: Operand) {
        if let (Type::Temporal | Type::Other, Operand::May(cast)) = (target, operand) {
            self.found.push(cast);
        }
    }

    /// CAST(x AS type), its parenthesis at `open`.
    fn cast_call(&mut self, open: usize) {
        let close = self.partners[open];
        let mut at = open + 1;
        let mut last_as = None;
        while at < close {
            if self.tokens[at].is_word("as") {
                last_as = Some(at);
            }
            at = self.partners[at].max(at) + 1;
        }
        let Some(r#as) = last_as else {
            self.found.push(TemporalCast::Unsafe);
            return;
        };
        let target = self.type_at(r#as + 1).0;
        // The operand may hold casts of its own, which the scan has not come to yet.
        let operand = self.whole_operand(open + 1, r#as);
        self.ends[close + 1] = Some((target, open - 1));
        self.cast(target, operand);
    }

    /// The type name that starts at `at`, and the token after it.
    fn type_at(&mut self, start: usize) -> (Type, usize) {
        let tokens = self.tokens;
        let word = |at: usize, words: &[&str]| tokens.get(at).is_some_and(|token| token.is_any_word(words));
        let punctuation = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.is_punctuation(text));
        let mut at = start + usize::from(word(start, &["setof"]));
        let mut path = Vec::new();
        while let Some(name) = tokens.get(at).and_then(literal::folded) {
            path.push(name);
            at += 1;
            if !punctuation(at, ".") {
                break;
            }
            at += 1;
        }
        let (name, known_schema) = match path.as_slice() {
            [name] => (&**name, true),
            [schema, name] => (&**name, schema == "pg_catalog"),
            _ => ("", false),
        };
        while word(at, &["precision", "varying", "character", "char"]) {
            at += 1;
        }
        if name == "interval" {
            while word(at, &["year", "month", "day", "hour", "minute", "second", "to"]) {
                at += 1;
            }
        }
        if punctuation(at, "(") {
            at = self.partners[at] + 1;
        }
        if word(at, &["with", "without"]) && word(at + 1, &["time"]) && word(at + 2, &["zone"]) {
            at += 3;
        }
        at += usize::from(word(at, &["array"]));
        while punctuation(at, "[") {
            at = self.partners[at] + 1;
        }
        for part in &mut self.in_type[start.min(tokens.len())..at.min(tokens.len())] {
            *part = true;
        }
        (if known_schema { type_named(name) } else { Type::Other }, at.min(tokens.len()))
    }

    /// What the tokens from `start` to `end` are, if they are one operand and nothing else.
    fn whole_operand(&self, start: usize, end: usize) -> Operand {
        if start >= end {
            return Operand::Harmless;
        }
        match self.operand_before(end) {
            (operand, first) if first == start => operand,
            _ => Operand::May(TemporalCast::Unsafe),
        }
    }

    /// The operand that ends before `end`, and its first token.
    fn operand_before(&self, end: usize) -> (Operand, usize) {
        let unsafe_at = |at| (Operand::May(TemporalCast::Unsafe), at);
        match self.ends[end] {
            Some((Type::Temporal | Type::Plain, first)) => return (Operand::Harmless, first),
            Some((Type::Text | Type::Other, first)) => return unsafe_at(first),
            None => {}
        }
        let Some(last) = end.checked_sub(1) else { return unsafe_at(end) };
        let token = &self.tokens[last];
        match token.kind {
            kind if kind.is_literal() => (Operand::Harmless, last),
            Kind::Parameter => {
                let number = std::str::from_utf8(&token.text[1..]).ok().and_then(|digits| digits.parse().ok());
                (Operand::May(number.map_or(TemporalCast::Unsafe, TemporalCast::Parameter)), last)
            }
            Kind::Word | Kind::Quoted => self.column(last),
            Kind::Punctuation if token.text == b")" => self.parenthesised(last),
            _ => unsafe_at(last),
        }
    }

    /// A column reference that ends at `last`.
    fn column(&self, last: usize) -> (Operand, usize) {
        let token = &self.tokens[last];
        let first = self.path_start(last);
        let before = first.checked_sub(1).map(|at| &self.tokens[at]);
        // `('now' COLLATE "C")::date` and `(min(x) OVER w)::date` need no parentheses; `(row).field` is no column.
        let is_tail = before.is_some_and(|token| token.is_any_word(&["collate", "over"]) || token.is_punctuation("."));
        if first == last && token.is_any_word(&["null", "true", "false"]) && !is_tail {
            return (Operand::Harmless, first);
        }
        match literal::folded(token) {
            Some(name) if !is_tail && !token.is_any_word(&["end", "zone", "document"]) => {
                (Operand::May(TemporalCast::Column(name.into())), first)
            }
            _ => (Operand::May(TemporalCast::Unsafe), first),
        }
    }

    /// What ends with the `)` at `close`: a call or an operand in parentheses.
    fn parenthesised(&self, close: usize) -> (Operand, usize) {
        let (mut open, mut inner_end) = (self.partners[close], close);
        let outermost = open;
        let before = open.checked_sub(1).map(|at| &self.tokens[at]);
        if let Some(name) = before.filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted | Kind::UnicodeQuoted))
            && !expression_follows(self.tokens, open - 1)
        {
            let first = self.path_start(open - 1);
            let known = literal::folded(name).is_some_and(|name| is_date_function(&name));
            let plain_path = match open - 1 - first {
                0 => true,
                2 => self.tokens[first].is_word("pg_catalog"),
                _ => false,
            };
            let operand = if known && plain_path { Operand::Harmless } else { Operand::May(TemporalCast::Unsafe) };
            return (operand, first);
        }
        // Any number of parentheses around one operand.
        while self.tokens[inner_end - 1].is_punctuation(")") && self.partners[inner_end - 1] == open + 1 {
            open += 1;
            inner_end -= 1;
        }
        let operand = match self.tokens[inner_end - 1].is_punctuation(")") {
            true if self.ends[inner_end].is_none() => self.call_in_parentheses(open + 1, inner_end),
            _ => self.whole_operand(open + 1, inner_end),
        };
        (operand, outermost)
    }

    /// A call that is all there is between parentheses; never looks into nested parentheses again.
    fn call_in_parentheses(&self, start: usize, end: usize) -> Operand {
        let open = self.partners[end - 1];
        if open > start && self.path_start(open - 1) == start && !expression_follows(self.tokens, open - 1) {
            return self.parenthesised(end - 1).0;
        }
        Operand::May(TemporalCast::Unsafe)
    }

    /// The first token of the dotted name that ends at `last`.
    fn path_start(&self, last: usize) -> usize {
        let mut first = last;
        while first >= 2
            && self.tokens[first - 1].is_punctuation(".")
            && matches!(self.tokens[first - 2].kind, Kind::Word | Kind::Quoted)
        {
            first -= 2;
        }
        first
    }
}

/// Whether the token at `at` is a key word after which an expression starts, so that a parenthesis there is no argument
/// list and a name no alias. All of these are reserved but for BY; after a dot any word may be a name.
fn expression_follows(tokens: &[Token<'_>], at: usize) -> bool {
    const RESERVED: &[&str] = &[
        "select",
        "distinct",
        "all",
        "where",
        "and",
        "or",
        "not",
        "on",
        "when",
        "then",
        "else",
        "case",
        "having",
        "limit",
        "offset",
        "from",
        "union",
        "except",
        "intersect",
    ];
    let before = at.checked_sub(1).map(|at| &tokens[at]);
    match before {
        Some(dot) if dot.is_punctuation(".") => false,
        Some(before) if before.is_any_word(&["group", "order", "partition"]) => tokens[at].is_word("by"),
        _ => tokens[at].is_any_word(RESERVED),
    }
}

fn is_temporal(name: &str) -> bool {
    matches!(name, "date" | "time" | "timetz" | "timestamp" | "timestamptz")
}

/// Built-in functions and syntax that return a date/time type whatever their arguments are.
fn is_date_function(name: &str) -> bool {
    matches!(
        name,
        "date_trunc"
            | "date_bin"
            | "to_timestamp"
            | "to_date"
            | "make_date"
            | "make_time"
            | "make_timestamp"
            | "make_timestamptz"
            | "now"
            | "timezone"
    ) || is_temporal(name)
}

fn type_named(name: &str) -> Type {
    match name {
        name if is_temporal(name) => Type::Temporal,
        "text" | "varchar" | "bpchar" | "char" | "character" | "nchar" | "national" | "name" => Type::Text,
        "int" | "integer" | "smallint" | "bigint" | "int2" | "int4" | "int8" | "real" | "float" | "float4"
        | "float8" | "double" | "decimal" | "dec" | "numeric" | "bool" | "boolean" | "bit" | "varbit" | "bytea"
        | "uuid" | "json" | "jsonb" | "xml" | "oid" | "interval" | "inet" | "cidr" | "macaddr" | "macaddr8"
        | "money" | "point" | "line" | "lseg" | "box" | "path" | "polygon" | "circle" | "tsvector" | "tsquery"
        | "int4range" | "int8range" | "numrange" | "int4multirange" | "int8multirange" | "nummultirange" => Type::Plain,
        _ => Type::Other,
    }
}
