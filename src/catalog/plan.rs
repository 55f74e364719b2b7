//! From a statement's predicates and the upstream's findings to the counters that it depends on or bumps.
//!
//! **Invariant.** A column is pinned, or proven, only where the name in the text can mean nothing but that column of that
//! table: the statement names the table once, no view, parent or child of it is involved, `=` is PostgreSQL's own, and each
//! value has a canonical form under the type that the upstream gave it.

use std::sync::Arc;

use super::analysis::Findings;
use super::array;
use super::database::Database;
use super::model::{Action, ColumnModel, Model, Relation, RelationKind};
use super::value::{Canonical, ValueKind};
use crate::cache::versions::{Column, Stripe, Table, TableOid, TableRead, TableWrite, WriteSet};
use crate::statement::Part;
use crate::statement::predicates::{Assigned, Change, Conflict, Constant, Insertion, Predicates, Values};
use crate::wire::message::Bind;

/// What a read depends on, but for its values.
#[derive(Debug)]
pub struct ReadPlan {
    tables: Vec<(Arc<Table>, Option<PinnedColumn>)>,
    types: Box<[u32]>,
}

/// What a write may write, but for its values.
#[derive(Debug)]
pub struct WritePlan {
    /// Whatever the values are.
    all: WriteSet,
    target: Option<Target>,
    types: Box<[u32]>,
}

/// A column that a read may pin.
#[derive(Debug)]
struct PinnedColumn {
    table: Box<str>,
    compared: Compared,
    counters: Arc<Column>,
}

/// A column whose values compare by canonical form.
#[derive(Debug)]
struct Compared {
    name: Box<str>,
    attribute: i16,
    kind: ValueKind,
    /// The cast names that may mean another type in this database.
    shadowed: Box<[Box<str>]>,
}

/// The one table that a write names.
#[derive(Debug)]
struct Target {
    name: Box<str>,
    table: Arc<Table>,
    /// All its columns in their order.
    columns: Vec<Box<str>>,
    compared: Vec<Compared>,
    /// What foreign key actions may write.
    others: Vec<TableWrite>,
}

/// The parameters of one execution.
#[derive(Clone, Copy)]
struct Parameters<'a> {
    types: &'a [u32],
    bind: Option<&'a Bind<'a>>,
}

impl ReadPlan {
    /// For a read that depends on `tables`.
    pub(super) fn new(database: &Database, model: &Model, part: &Part, found: &Findings, tables: &[TableOid]) -> Self {
        let locked = |oid: &TableOid| model.relations.get(oid);
        // A view may name the table once more than the text does.
        let direct = !model.foreign_equality
            && found.locks.iter().all(|lock| locked(&lock.oid).is_some_and(|found| found.kind == RelationKind::Table));
        let predicates = part.predicates.as_deref().filter(|_| direct);
        let plan = |oid: &TableOid| {
            let table = database.versions.table(*oid);
            let pinned = predicates.zip(locked(oid)).filter(|_| model.stands_alone(*oid));
            let pinned =
                pinned.and_then(|(predicates, relation)| PinnedColumn::of(predicates, model, relation, &table));
            (table, pinned)
        };
        Self { tables: tables.iter().map(plan).collect(), types: found.parameter_types.clone() }
    }

    /// The tables in the order of the analysis's relations, each with the column whose values an execution may pin.
    pub fn tables(&self) -> impl Iterator<Item = (TableOid, Option<&str>)> {
        self.tables.iter().map(|(table, pinned)| (table.oid, pinned.as_ref().map(|pinned| &*pinned.compared.name)))
    }

    /// What to observe for an execution with these parameters.
    pub fn reads<'a>(&'a self, part: &'a Part, bind: Option<&'a Bind<'a>>) -> impl Iterator<Item = TableRead<'a>> {
        let parameters = Parameters { types: &self.types, bind };
        self.tables.iter().map(move |(table, pinned)| TableRead {
            table,
            pin: pinned.as_ref().and_then(|pinned| {
                let values = part.predicates.as_deref()?.pin(&pinned.table, &pinned.compared.name)?;
                Some((&*pinned.counters, pinned.compared.stripes(table, values, parameters)?))
            }),
        })
    }
}

impl PinnedColumn {
    /// The column that tells most: a unique one if there is one.
    fn of(predicates: &Predicates, model: &Model, relation: &Relation, table: &Table) -> Option<Self> {
        let candidates =
            relation.columns.iter().filter(|column| predicates.pin(&relation.name.name, &column.name).is_some());
        let (column, compared) = candidates
            .filter_map(|column| Some((column, Compared::of(column, model)?)))
            .min_by_key(|(column, compared)| {
                let few = match compared.kind {
                    ValueKind::Integer | ValueKind::Uuid => 0,
                    ValueKind::Text { .. } => 1,
                    ValueKind::Date => 2,
                    ValueKind::Bool => 3,
                };
                (!column.unique, few)
            })?;
        Some(Self { table: relation.name.name.clone(), counters: table.column(column.attribute), compared })
    }
}

impl WritePlan {
    pub(super) fn everything() -> Self {
        Self { all: WriteSet::Everything, target: None, types: Box::default() }
    }

    /// For a write that names `targets` and may write `tables`.
    pub(super) fn new(
        database: &Database,
        model: &Model,
        part: &Part,
        found: &Findings,
        targets: &[TableOid],
        tables: &[TableOid],
    ) -> Self {
        let all = WriteSet::any_row_of(tables.iter().map(|oid| database.versions.table(*oid)));
        let target = match targets {
            [target] => Target::of(database, model, part, *target),
            _ => None,
        };
        Self { all, target, types: found.parameter_types.clone() }
    }

    pub fn is_everything(&self) -> bool {
        matches!(self.all, WriteSet::Everything)
    }

    pub fn is_nothing(&self) -> bool {
        self.all.is_empty()
    }

    /// What an execution with these parameters may write.
    pub fn of(&self, part: &Part, bind: Option<&Bind<'_>>) -> WriteSet {
        let (Some(target), Some(predicates)) = (&self.target, part.predicates.as_deref()) else {
            return self.all.clone();
        };
        // Another text of the same shape; it names the same.
        if !predicates.names_once(&target.name) {
            return self.all.clone();
        }
        let parameters = Parameters { types: &self.types, bind };
        let proven = target
            .compared
            .iter()
            .filter_map(|column| Some((column.attribute, target.values_written(column, predicates, parameters)?)));
        let write = TableWrite { table: target.table.clone(), proven: proven.collect() };
        WriteSet::Tables(std::iter::once(write).chain(target.others.iter().cloned()).collect())
    }
}

impl Target {
    fn of(database: &Database, model: &Model, part: &Part, oid: TableOid) -> Option<Self> {
        let relation = model.relations.get(&oid)?;
        let predicates = part.predicates.as_deref()?;
        let others = model.written_along(oid, |action| sets_off(&predicates.change, action, relation));
        let direct = !model.foreign_equality
            && model.stands_alone(oid)
            && predicates.names_once(&relation.name.name)
            && predicates.change != Change::None
            // Rows of its own that nobody names.
            && !others.contains(&oid);
        direct.then(|| Self {
            name: relation.name.name.clone(),
            table: database.versions.table(oid),
            columns: relation.columns.iter().map(|column| column.name.clone()).collect(),
            compared: relation.columns.iter().filter_map(|column| Compared::of(column, model)).collect(),
            others: others.into_iter().map(|other| TableWrite::any_row(database.versions.table(other))).collect(),
        })
    }

    /// The stripes of all values that the rows written have in a column, before and after. `None` if they cannot be told.
    fn values_written(
        &self,
        column: &Compared,
        predicates: &Predicates,
        parameters: Parameters<'_>,
    ) -> Option<Vec<Stripe>> {
        let pinned = || column.stripes(&self.table, predicates.pin(&self.name, &column.name)?, parameters);
        match &predicates.change {
            Change::None => None,
            Change::Delete => pinned(),
            Change::Update(assigned) => {
                let mut stripes = pinned()?;
                if let Some((_, value)) = assigned.iter().find(|(name, _)| **name == *column.name) {
                    stripes.extend(column.stored(&self.table, value.as_ref()?, parameters)?);
                }
                Some(stripes)
            }
            Change::Insert(insertion) => self.values_inserted(column, insertion, parameters),
        }
    }

    fn values_inserted(
        &self,
        column: &Compared,
        insertion: &Insertion,
        parameters: Parameters<'_>,
    ) -> Option<Vec<Stripe>> {
        let at = match &insertion.columns {
            Some(listed) => listed.iter().position(|name| **name == *column.name)?,
            None => self.columns.iter().position(|name| *name == column.name)?,
        };
        let mut stripes = Vec::new();
        for row in &insertion.rows {
            stripes.extend(column.stored(&self.table, row.get(at)?.as_ref()?, parameters)?);
        }
        if let Conflict::Updates { equal, assigned } = &insertion.conflict {
            // The row that is there has the proposed value if that is what conflicts. For text the index that found it may
            // compare otherwise than the column.
            let is_text = matches!(column.kind, ValueKind::Text { .. });
            if is_text || !equal.iter().any(|name| **name == *column.name) {
                return None;
            }
            match assigned.iter().find(|(name, _)| **name == *column.name) {
                None | Some((_, Assigned::Proposed)) => {}
                Some((_, Assigned::Constant(value))) => {
                    stripes.extend(column.stored(&self.table, value, parameters)?);
                }
                Some((_, Assigned::Computed)) => return None,
            }
        }
        Some(stripes)
    }
}

/// Whether the change may make a foreign key act: a row that is referred to is deleted, or its key is assigned to.
fn sets_off(change: &Change, action: &Action, relation: &Relation) -> bool {
    let is_referenced = |name: &str| {
        let attribute = relation.columns.iter().find(|column| *column.name == *name).map(|column| column.attribute);
        attribute.is_none_or(|attribute| action.referenced.contains(&attribute))
    };
    match change {
        Change::None | Change::Delete => action.on_delete,
        Change::Update(assigned) => action.on_update && assigned.iter().any(|(name, _)| is_referenced(name)),
        Change::Insert(insertion) => match &insertion.conflict {
            Conflict::Leaves => false,
            Conflict::Updates { assigned, .. } => {
                action.on_update && assigned.iter().any(|(name, _)| is_referenced(name))
            }
        },
    }
}

impl Compared {
    fn of(column: &ColumnModel, model: &Model) -> Option<Self> {
        Some(Self {
            name: column.name.clone(),
            attribute: column.attribute,
            kind: column.kind?,
            shadowed: model.shadowed_types.iter().cloned().collect(),
        })
    }

    /// The stripes of the values that the column is compared with. NULL equals nothing and has none.
    fn stripes(&self, table: &Table, values: &Values, parameters: Parameters<'_>) -> Option<Vec<Stripe>> {
        let stripe = |value: Canonical| table.stripe(self.attribute, &value);
        match values {
            Values::Listed(constants) => {
                let mut stripes = Vec::with_capacity(constants.len());
                for constant in constants {
                    stripes.extend(self.canonical(constant, parameters)?.map(stripe));
                }
                Some(stripes)
            }
            Values::AnyOf(number) => {
                let (type_oid, binary, value) = parameters.get(*number)?;
                let Some(value) = value else { return Some(Vec::new()) };
                let elements = array::elements(self.kind, type_oid, binary, value)?;
                Some(elements.into_iter().map(stripe).collect())
            }
        }
    }

    /// The stripe of a value that is put into the column, if it is stored as it is written.
    fn stored(&self, table: &Table, value: &Constant, parameters: Parameters<'_>) -> Option<Option<Stripe>> {
        match self.canonical(value, parameters)? {
            None => Some(None),
            Some(value) => self.kind.stores(&value).then(|| Some(table.stripe(self.attribute, &value))),
        }
    }

    /// The form of a constant, `Some(None)` for NULL; `None` if it has none.
    fn canonical(&self, constant: &Constant, parameters: Parameters<'_>) -> Option<Option<Canonical>> {
        let is_cast_within = |cast: &Option<String>| {
            cast.as_ref().is_none_or(|name| {
                self.kind.takes_named(name) && !self.shadowed.iter().any(|shadowed| **shadowed == **name)
            })
        };
        match constant {
            Constant::Null => Some(None),
            Constant::Text { content, cast } if is_cast_within(cast) => self.kind.from_text(content).map(Some),
            Constant::Integer { digits, cast } if self.kind == ValueKind::Integer && is_cast_within(cast) => {
                self.kind.from_text(digits).map(Some)
            }
            Constant::Bool(value) if self.kind == ValueKind::Bool => Some(Some(vec![u8::from(*value)])),
            Constant::Parameter(number) => {
                let (type_oid, binary, value) = parameters.get(*number)?;
                match value {
                    _ if !self.kind.takes(type_oid) => None,
                    None => Some(None),
                    Some(value) if binary => self.kind.from_binary(type_oid, value).map(Some),
                    Some(value) => self.kind.from_text(value).map(Some),
                }
            }
            _ => None,
        }
    }
}

impl<'a> Parameters<'a> {
    /// Type, whether it is binary, and value of `$number`.
    fn get(self, number: u16) -> Option<(u32, bool, Option<&'a [u8]>)> {
        let (index, bind) = (usize::from(number).checked_sub(1)?, self.bind?);
        let (format, value) = bind.parameter(index)?;
        let binary = match format {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some((*self.types.get(index)?, binary, value))
    }
}
