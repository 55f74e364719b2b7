//! The catalogue as far as decisions need it. Pure: built by [`super::load`], asked by [`super::analysis`].
//!
//! Names are compared as tokens, without regard to what they mean in their place: a column called like a dangerous function
//! costs a hit, and no parser's idea of a statement decides about safety.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::analysis::RelationLock;
use super::value::ValueKind;
use crate::cache::verdict::{Bypass, RelationName};
use crate::cache::versions::{Attribute, TableOid};
use crate::statement::{Part, TemporalCast};

/// Operators that a statement can use without naming them: IN, BETWEEN, LIKE, DISTINCT, ORDER BY, JOIN USING.
const IMPLICIT_OPERATORS: &[&str] = &["=", "<>", "<", ">", "<=", ">=", "~~", "!~~", "~~*", "!~~*", "~", "!~"];

type Name = Box<str>;

#[derive(Debug, Default)]
pub struct Model {
    pub epoch: u64,
    /// Names that, anywhere in a statement, make it able to write: functions, views and tables whose use runs them.
    pub(super) dangerous: HashSet<Name>,
    /// Names of functions that, called, make a result depend on more than its key and its tables.
    pub(super) unsafe_calls: HashSet<Name>,
    /// Names of types a conversion to which may write: domains by their checks, and what holds such a domain.
    pub(super) dangerous_types: HashSet<Name>,
    /// Names of types whose values are checked by what depends on more than the value: likewise.
    pub(super) unsafe_types: HashSet<Name>,
    /// Functions of one argument outside pg_catalog: `t.f` may mean `f(t)`.
    pub(super) attribute_functions: HashSet<Name>,
    pub(super) dangerous_operators: HashSet<Name>,
    pub(super) unsafe_operators: HashSet<Name>,
    /// There are casts or comparisons by the user's functions, which may be applied without a trace in the text.
    pub(super) user_casts: bool,
    pub(super) relations: HashMap<TableOid, Relation>,
    /// Direct children by inheritance or partitioning.
    pub(super) children: HashMap<TableOid, Vec<TableOid>>,
    /// Those children.
    pub(super) inheriting: HashSet<TableOid>,
    /// Tables that a foreign key action may write, by the table they refer to.
    pub(super) cascades: HashMap<TableOid, Vec<TableOid>>,
    /// The same with what makes them act.
    pub(super) actions: HashMap<TableOid, Vec<Action>>,
    /// Functions may write through other connections than their session's: there are foreign servers, languages that can
    /// open sockets, or extensions made for it.
    pub writes_elsewhere: bool,
    /// Somebody has an `=` of his own for types that pinned columns have.
    pub(super) foreign_equality: bool,
    /// Names of pinnable types that mean something else, too.
    pub(super) shadowed_types: HashSet<Name>,
    /// Names of functions of the user's, and of views that use them or what keeps state: their use may leave something in the
    /// session.
    pub(super) keepers: HashSet<Name>,
    /// Code of the user's may set settings that the server does not list.
    pub sets_hidden_settings: bool,
    pub has_sequences: bool,
    /// Columns whose type could hold words as 'now' that a cast to a date or time reads.
    pub(super) textual_columns: HashSet<(TableOid, Name)>,
}

/// What a foreign key does to the table that has it when a row that it refers to goes.
#[derive(Debug)]
pub struct Action {
    pub(super) table: TableOid,
    pub(super) on_delete: bool,
    pub(super) on_update: bool,
    /// The columns that it refers to.
    pub(super) referenced: Vec<Attribute>,
}

#[derive(Debug, Default)]
pub struct Relation {
    pub(super) name: Arc<RelationName>,
    pub(super) kind: RelationKind,
    /// An ordinary table: not partitioned, no view.
    pub(super) ordinary: bool,
    pub(super) partitioned: bool,
    pub(super) columns: Vec<ColumnModel>,
    pub(super) row_security: bool,
    /// Writing it runs code of the user's: triggers, rules, defaults, checks.
    pub(super) opaque: bool,
    /// It has a column that holds a `time with time zone`, or a `time`.
    pub(super) zoned_time: bool,
    pub(super) time: bool,
    /// For a view: what its text says.
    pub(super) view: ViewText,
}

/// A column of an ordinary table.
#[derive(Debug)]
pub struct ColumnModel {
    pub(super) name: Name,
    pub(super) attribute: Attribute,
    /// How its values compare; `None` if reads cannot pin it, or its values are not only what writes put there.
    pub(super) kind: Option<ValueKind>,
    /// No two rows have the same value.
    pub(super) unique: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// Ordinary, partitioned, or materialized view: holds or stands for rows that writes through the proxy change.
    #[default]
    Table,
    View,
    /// Foreign tables, sequences, ...
    Other,
}

#[derive(Debug, Default)]
pub struct ViewText {
    pub(super) bypass: Option<Bypass>,
    pub(super) temporal_columns: Vec<Name>,
    pub(super) shifts_zone: bool,
}

impl Model {
    /// Whether running `part` may run code that writes, whatever relations it names.
    pub fn may_write(&self, part: &Part) -> bool {
        part.facts.odd
            || part.facts.names.iter().any(|name| self.dangerous.contains(&name.name))
            || part.facts.types.iter().any(|name| self.dangerous_types.contains(name))
            || self.names_operator(&self.dangerous_operators, part)
            || (self.user_casts && !part.facts.names.is_empty())
    }

    /// Whether running `part` may leave something in the session that its text does not tell.
    pub fn may_keep(&self, part: &Part) -> bool {
        self.may_write(part) || part.facts.names.iter().any(|name| self.keepers.contains(&name.name))
    }

    /// Whether a write to some relation runs code of the user's.
    pub fn has_opaque_relations(&self) -> bool {
        self.relations.values().any(|relation| relation.opaque || relation.kind == RelationKind::Other)
    }

    /// The tables that a read depends on, given the relations that its analysis locked; or why it is not cached.
    pub fn readable(&self, part: &Part, locks: &[RelationLock]) -> Result<Vec<TableOid>, Bypass> {
        if let Some(bypass) = self.text_bypass(part) {
            return Err(bypass);
        }
        let mut tables = Vec::new();
        for lock in locks {
            let relation = self.relations.get(&lock.oid).ok_or(Bypass::Relation)?;
            if let Some(bypass) = relation.view.bypass {
                return Err(bypass);
            }
            tables.push(lock.oid);
        }
        self.widen(&mut tables, &[&self.children]);
        if tables.is_empty() {
            return Err(Bypass::NoRelation);
        }
        for oid in &tables {
            let relation = self.relations.get(oid).ok_or(Bypass::Relation)?;
            if relation.kind == RelationKind::Other {
                return Err(Bypass::Relation);
            }
            if relation.row_security {
                return Err(Bypass::RowSecurity);
            }
        }
        let known = || tables.iter().filter_map(|oid| self.relations.get(oid));
        let shifts_zone = part.facts.shifts_zone || known().any(|relation| relation.view.shifts_zone);
        if known().any(|relation| relation.zoned_time || (shifts_zone && relation.time)) {
            return Err(Bypass::Context);
        }
        let views = tables.iter().filter_map(|oid| self.relations.get(oid)).flat_map(|r| &r.view.temporal_columns);
        let cast = part.facts.temporal_casts.iter().filter_map(|cast| match cast {
            TemporalCast::Column(name) => Some(name),
            _ => None,
        });
        for name in views.map(|name| &**name).chain(cast.map(|name| &**name)) {
            if tables.iter().any(|oid| self.textual_columns.contains(&(*oid, name.into()))) {
                return Err(Bypass::TemporalCast);
            }
        }
        Ok(tables)
    }

    /// The relations of this name, in one schema or in all.
    pub fn named(&self, schema: Option<&str>, name: &str) -> Vec<TableOid> {
        let is_named = |relation: &RelationName| {
            *relation.name == *name && schema.is_none_or(|schema| *relation.schema == *schema)
        };
        self.relations.iter().filter(|(_, relation)| is_named(&relation.name)).map(|(oid, _)| *oid).collect()
    }

    /// The names of those that are known.
    pub(super) fn names(&self, tables: impl Iterator<Item = TableOid>) -> Arc<[Arc<RelationName>]> {
        tables.filter_map(|oid| self.relations.get(&oid)).map(|relation| relation.name.clone()).collect()
    }

    /// What a statement's text alone says against caching it.
    pub(super) fn text_bypass(&self, part: &Part) -> Option<Bypass> {
        let facts = &part.facts;
        let zoned_time = facts.zoned_time || (facts.shifts_zone && facts.makes_time);
        if facts.context_keyword || facts.special_time_literal || zoned_time {
            return Some(Bypass::Context);
        }
        if part.facts.locks_rows {
            return Some(Bypass::RowLocks);
        }
        if part.facts.tablesample {
            return Some(Bypass::Function);
        }
        if part.facts.temporary {
            return Some(Bypass::Temporary);
        }
        if part.facts.odd || self.suspects(part).next().is_some() {
            return Some(Bypass::Function);
        }
        if self.user_casts || self.names_operator(&self.unsafe_operators, part) {
            return Some(Bypass::Operator);
        }
        part.facts.temporal_casts.contains(&TemporalCast::Unsafe).then_some(Bypass::TemporalCast)
    }

    /// The names in a statement's text that may stand for a function whose result depends on more than its arguments.
    pub fn suspects<'a>(&'a self, part: &'a Part) -> impl Iterator<Item = &'a str> {
        let called = part.facts.names.iter().filter(|name| {
            (name.call && self.unsafe_calls.contains(&name.name))
                || (name.after_dot && self.attribute_functions.contains(&name.name))
                || &*name.name == "pg_locks"
        });
        let types = part.facts.types.iter().filter(|name| self.unsafe_types.contains(*name));
        called.map(|name| &*name.name).chain(types.map(|name| &**name))
    }

    /// The tables that a write to `targets` may write, or `None` if that cannot be said.
    pub fn written(&self, targets: &[TableOid]) -> Option<Vec<TableOid>> {
        let mut tables = targets.to_vec();
        self.widen(&mut tables, &[&self.children, &self.cascades]);
        let transparent = |oid| self.relations.get(oid).is_some_and(|r| !r.opaque && r.kind != RelationKind::Other);
        tables.iter().all(transparent).then_some(tables)
    }

    /// The tables that may be written along with rows of `target` through the actions that `acts` says are set off.
    pub(super) fn written_along(&self, target: TableOid, acts: impl Fn(&Action) -> bool) -> Vec<TableOid> {
        let actions = self.actions.get(&target).into_iter().flatten();
        let mut tables: Vec<TableOid> = actions.filter(|action| acts(action)).map(|action| action.table).collect();
        self.widen(&mut tables, &[&self.children, &self.cascades]);
        tables
    }

    /// Adds everything that can be reached over `edges`.
    fn widen(&self, tables: &mut Vec<TableOid>, edges: &[&HashMap<TableOid, Vec<TableOid>>]) {
        let mut known: HashSet<TableOid> = HashSet::new();
        tables.retain(|oid| known.insert(*oid));
        let mut next = 0;
        while let Some(oid) = tables.get(next).copied() {
            let reached = edges.iter().filter_map(|edge| edge.get(&oid)).flatten();
            tables.extend(reached.filter(|oid| known.insert(**oid)));
            next += 1;
        }
    }

    /// Whether rows of this table live nowhere else and nothing but statements that name it writes them: it is an ordinary
    /// table without parents and children, and nobody's code runs when it is written.
    pub(super) fn stands_alone(&self, oid: TableOid) -> bool {
        self.relations.get(&oid).is_some_and(|relation| relation.ordinary && !relation.opaque)
            && !self.children.contains_key(&oid)
            && !self.inheriting.contains(&oid)
    }

    /// The table, if these are locks on one table and on nothing else, and it has no more than `most` others below it, which are
    /// tables, too.
    pub(super) fn sole_table(&self, locks: &[RelationLock], most: usize) -> Option<TableOid> {
        let [RelationLock { oid, writes: false, temporary: false }] = locks else { return None };
        let mut tables = vec![*oid];
        self.widen(&mut tables, &[&self.children]);
        let is_table = |oid| self.relations.get(oid).is_some_and(|relation| relation.ordinary || relation.partitioned);
        (tables.len() <= most && tables.iter().all(is_table)).then_some(*oid)
    }

    fn names_operator(&self, operators: &HashSet<Name>, part: &Part) -> bool {
        !operators.is_empty()
            && (part.facts.operators.iter().any(|operator| operators.contains(operator))
                || IMPLICIT_OPERATORS.iter().any(|operator| operators.contains(*operator)))
    }
}
