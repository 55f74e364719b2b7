//! Reads the catalogue's fingerprint and the model, over the control connection.

mod types;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio_postgres::types::Oid;
use tokio_postgres::{Client, Error, IsolationLevel, Row, Transaction};

use super::builtin::{HARMLESS_EXTENSION, HARMLESS_VOLATILE, safe_stable};
use super::fingerprint::{Fingerprint, fingerprint};
use super::model::{Action, ColumnModel, Model, Relation, RelationKind, ViewText};
use super::value::{PINNABLE_TYPES, ValueKind};
use crate::cache::verdict::{Bypass, RelationName};
use crate::cache::versions::TableOid;
use crate::statement::{Part, Statement, TemporalCast};

/// OIDs below are PostgreSQL's own (`FirstNormalObjectId`, src/include/access/transam.h).
const FIRST_USER_OID: u32 = 16384;

/// The model and the fingerprint that belongs to it, from one snapshot. `trust_immutable`: the user's functions that are declared
/// IMMUTABLE are taken to be.
pub(super) async fn model(
    client: &mut Client,
    epoch: u64,
    trust_immutable: bool,
) -> Result<(Model, Fingerprint), Error> {
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = builder.start().await?;
    let fingerprint = fingerprint(&transaction).await?;
    let mut model = Model { epoch, ..Model::default() };
    let dangerous = functions(&transaction, &mut model, trust_immutable).await?;
    operators_and_casts(&transaction, &mut model, &dangerous, trust_immutable).await?;
    let writing_types = types::domains(&transaction, &mut model, &dangerous).await?;
    relations(&transaction, &mut model, &dangerous, &writing_types).await?;
    columns(&transaction, &mut model).await?;
    connections(&transaction, &mut model).await?;
    edges(&transaction, &mut model).await?;
    expressions(&transaction, &mut model).await?;
    views(&transaction, &mut model).await?;
    keepers(&transaction, &mut model).await?;
    transaction.commit().await?;
    Ok((model, fingerprint))
}

/// Judges functions by name, and returns the user's functions that can write.
async fn functions(transaction: &Transaction<'_>, model: &mut Model, trust_immutable: bool) -> Result<Vec<Oid>, Error> {
    let sql = "SELECT p.proname::text, \
         bool_or(n.nspname IN ('pg_catalog', 'information_schema') AND p.provolatile = 'v' AND p.proname <> ALL ($1)), \
         bool_or(NOT (n.nspname = 'pg_catalog' AND (p.provolatile = 'i' OR p.provolatile = 's' AND p.proname = ANY ($2)) \
             OR n.nspname <> 'pg_catalog' AND p.provolatile = 'i' AND $3)), \
         bool_or(n.nspname <> 'pg_catalog' AND p.pronargs = 1 AND NOT (p.provolatile = 'i' AND $3)) \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace GROUP BY 1";
    for row in transaction.query(sql, &[&HARMLESS_VOLATILE, &safe_stable(), &trust_immutable]).await? {
        let name = name(&row, 0)?;
        for (column, set) in
            [(1, &mut model.dangerous), (2, &mut model.unsafe_calls), (3, &mut model.attribute_functions)]
        {
            if row.try_get(column)? {
                set.insert(name.clone());
            }
        }
    }
    user_functions(transaction, model).await
}

/// A volatile function of the user's can write. One that is not cannot itself (PostgreSQL runs its statements read-only), but
/// it can call a volatile one: its body is searched for names of such, and what cannot be searched counts as one.
async fn user_functions(transaction: &Transaction<'_>, model: &mut Model) -> Result<Vec<Oid>, Error> {
    let sql = "SELECT p.oid, p.proname::text, \
         p.provolatile = 'v' AND NOT (p.prolang IN (12, 13) AND p.proname = ANY ($1)) OR p.prokind IN ('a', 'p') \
             OR l.lanname NOT IN ('internal', 'c', 'sql', 'plpgsql'), \
         CASE WHEN l.lanname IN ('sql', 'plpgsql') THEN coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc) END \
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
         JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE p.oid >= 16384 AND n.nspname NOT IN ('pg_catalog', 'information_schema')";
    let mut dangerous = Vec::new();
    let mut bodies = Vec::new();
    for row in transaction.query(sql, &[&HARMLESS_EXTENSION]).await? {
        let (oid, name, body) = (row.try_get::<_, Oid>(0)?, name(&row, 1)?, row.try_get::<_, Option<String>>(3)?);
        if row.try_get(2)? {
            dangerous.push(oid);
            model.dangerous.insert(name);
        } else if let Some(body) = body {
            bodies.push((oid, name, Statement::analyse(body.as_bytes())));
        }
    }
    loop {
        let before = bodies.len();
        bodies.retain(|(oid, name, body)| {
            let writes = body.parts.iter().any(|part| disturbs(model, part) || part.names("execute"));
            if writes {
                dangerous.push(*oid);
                model.dangerous.insert(name.clone());
            }
            !writes
        });
        if bodies.len() == before {
            return Ok(dangerous);
        }
    }
}

async fn operators_and_casts(
    transaction: &Transaction<'_>,
    model: &mut Model,
    dangerous: &[Oid],
    trust_immutable: bool,
) -> Result<(), Error> {
    // What `=` compares is what a read by key depends on: it is never the user's.
    let sql = "SELECT o.oprname::text, bool_or(p.oid = ANY ($1)), \
         bool_or(p.prolang NOT IN (12, 13) AND NOT ($2 AND o.oprname <> '=') OR p.provolatile <> 'i') \
         FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode \
         WHERE o.oprnamespace <> 'pg_catalog'::regnamespace GROUP BY 1";
    for row in transaction.query(sql, &[&dangerous, &trust_immutable]).await? {
        let name = name(&row, 0)?;
        if row.try_get(1)? {
            model.dangerous_operators.insert(name.clone());
        }
        if row.try_get(2)? {
            model.unsafe_operators.insert(name);
        }
    }
    // A cast by input and output functions could read 'now' out of a text without a trace in the statement.
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_cast c LEFT JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc \
         WHERE c.oid >= 16384 AND (c.castmethod = 'i' \
             OR c.castmethod = 'f' AND (p.oid = ANY ($1) OR p.prolang NOT IN (12, 13) AND NOT $2 OR p.provolatile <> 'i'))) \
         OR EXISTS (SELECT FROM pg_catalog.pg_amproc a JOIN pg_catalog.pg_proc p ON p.oid = a.amproc \
         WHERE a.oid >= 16384 AND (p.oid = ANY ($1) OR p.prolang NOT IN (12, 13) AND NOT $2 OR p.provolatile <> 'i'))";
    model.user_casts = transaction.query_one(sql, &[&dangerous, &trust_immutable]).await?.try_get(0)?;
    Ok(())
}

async fn relations(
    transaction: &Transaction<'_>,
    model: &mut Model,
    dangerous: &[Oid],
    writing_types: &[Oid],
) -> Result<(), Error> {
    let sql = "WITH depends AS (SELECT d.classid, d.objid FROM pg_catalog.pg_depend d \
             WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = ANY ($1)), \
         opaque AS ( \
             SELECT tgrelid AS oid FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D' \
             UNION SELECT ev_class FROM pg_catalog.pg_rewrite WHERE ev_type <> '1' \
             UNION SELECT a.adrelid FROM pg_catalog.pg_attrdef a JOIN depends d ON d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid \
             UNION SELECT c.conrelid FROM pg_catalog.pg_constraint c JOIN depends d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid \
             UNION SELECT i.indrelid FROM pg_catalog.pg_index i JOIN depends d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid \
             UNION SELECT d.objid FROM depends d WHERE d.classid = 'pg_class'::regclass \
             UNION SELECT p.polrelid FROM pg_catalog.pg_policy p JOIN depends d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid \
             UNION SELECT a.attrelid FROM pg_catalog.pg_attribute a WHERE a.atttypid = ANY ($2)) \
         SELECT c.oid, c.relkind, c.relrowsecurity, c.oid IN (SELECT oid FROM opaque), n.nspname::text, c.relname::text \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't' AND c.oid >= 16384 \
         AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'";
    for row in transaction.query(sql, &[&dangerous, &writing_types]).await? {
        let kind = match row.try_get::<_, i8>(1)? as u8 {
            b'r' | b'p' | b'm' => RelationKind::Table,
            b'v' => RelationKind::View,
            _ => RelationKind::Other,
        };
        let relation = Relation {
            name: Arc::new(RelationName { schema: name(&row, 4)?, name: name(&row, 5)? }),
            kind,
            ordinary: row.try_get::<_, i8>(1)? as u8 == b'r',
            partitioned: row.try_get::<_, i8>(1)? as u8 == b'p',
            columns: Vec::new(),
            row_security: row.try_get(2)?,
            opaque: row.try_get(3)?,
            zoned_time: false,
            time: false,
            view: ViewText::default(),
        };
        model.relations.insert(oid(&row, 0)?, relation);
    }
    types::times(transaction, model).await?;
    // Categories D, N, B, T: dates and times, numbers, booleans, intervals. No cast from them reads words.
    let sql = "SELECT a.attrelid, a.attname::text FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         JOIN pg_catalog.pg_class c ON c.oid = a.attrelid WHERE a.attrelid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped \
         AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relpersistence <> 't' AND t.typcategory NOT IN ('D', 'N', 'B', 'T')";
    for row in transaction.query(sql, &[]).await? {
        model.textual_columns.insert((oid(&row, 0)?, name(&row, 1)?));
    }
    Ok(())
}

/// The columns of ordinary tables, and whether `=` is for them what it is by itself. A generated column has values that no
/// statement names; identity and default values are left to the writes that do not name the column.
async fn columns(transaction: &Transaction<'_>, model: &mut Model) -> Result<(), Error> {
    let sql = "SELECT a.attrelid, a.attname::text, a.attnum, a.atttypid, a.atttypmod, \
             a.attgenerated = '' AND coalesce(co.collisdeterministic, true), \
             EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indisvalid \
                 AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum AND i.indpred IS NULL) \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation \
         WHERE a.attrelid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind = 'r' AND c.relpersistence <> 't' \
         ORDER BY a.attrelid, a.attnum";
    for row in transaction.query(sql, &[]).await? {
        let Some(relation) = model.relations.get_mut(&oid(&row, 0)?) else { continue };
        let pinnable: bool = row.try_get(5)?;
        relation.columns.push(ColumnModel {
            name: name(&row, 1)?,
            attribute: row.try_get(2)?,
            kind: ValueKind::of_column(row.try_get(3)?, row.try_get(4)?).filter(|_| pinnable),
            unique: row.try_get(6)?,
        });
    }
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_operator o WHERE o.oprname = '=' AND o.oprnamespace <> 'pg_catalog'::regnamespace \
         AND (ARRAY[o.oprleft, o.oprright] && $1 OR EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid IN (o.oprleft, o.oprright) \
             AND t.typtype = 'p')))";
    model.foreign_equality = transaction.query_one(sql, &[&PINNABLE_TYPES.as_slice()]).await?.try_get(0)?;
    let sql = "SELECT DISTINCT typname::text FROM pg_catalog.pg_type WHERE typnamespace <> 'pg_catalog'::regnamespace \
         AND typname IN ('text', 'uuid', 'date', 'bool', 'int2', 'int4', 'int8', 'varchar')";
    for row in transaction.query(sql, &[]).await? {
        model.shadowed_types.insert(name(&row, 0)?);
    }
    Ok(())
}

/// Whether anything in the database may open connections of its own.
async fn connections(transaction: &Transaction<'_>, model: &mut Model) -> Result<(), Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_foreign_server) \
         OR EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname IN ('dblink', 'pg_background', 'plproxy')) \
         OR EXISTS (SELECT FROM pg_catalog.pg_language WHERE NOT lanpltrusted AND lanname NOT IN ('internal', 'c'))";
    model.writes_elsewhere = transaction.query_one(sql, &[]).await?.try_get(0)?;
    Ok(())
}

async fn edges(transaction: &Transaction<'_>, model: &mut Model) -> Result<(), Error> {
    let sql = "SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits";
    fill(&mut model.children, transaction.query(sql, &[]).await?)?;
    model.inheriting = model.children.values().flatten().copied().collect();
    let sql = "SELECT confrelid, conrelid, confdeltype IN ('c', 'n', 'd'), confupdtype IN ('c', 'n', 'd'), confkey \
         FROM pg_catalog.pg_constraint \
         WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))";
    let rows = transaction.query(sql, &[]).await?;
    for row in &rows {
        let (on_delete, on_update) = (row.try_get(2)?, row.try_get(3)?);
        let action = Action { table: oid(row, 1)?, on_delete, on_update, referenced: row.try_get(4)? };
        model.actions.entry(oid(row, 0)?).or_default().push(action);
    }
    fill(&mut model.cascades, rows)
}

/// Defaults and row security policies whose text calls something dangerous that PostgreSQL keeps no dependency for (its own
/// functions are pinned).
async fn expressions(transaction: &Transaction<'_>, model: &mut Model) -> Result<(), Error> {
    let sql = "SELECT adrelid, pg_catalog.pg_get_expr(adbin, adrelid) FROM pg_catalog.pg_attrdef \
         WHERE adrelid >= 16384 AND pg_catalog.pg_get_expr(adbin, adrelid) ~ '\\(' \
         AND pg_catalog.pg_get_expr(adbin, adrelid) !~ '^(nextval\\(''[^()]*''::regclass\\)|now\\(\\))$'";
    for row in transaction.query(sql, &[]).await? {
        let (oid, text) = (oid(&row, 0)?, row.try_get::<_, String>(1)?);
        if expression_may_write(model, &text)
            && let Some(relation) = model.relations.get_mut(&oid)
        {
            relation.opaque = true;
        }
    }
    let sql = "SELECT p.polrelid, c.relname::text, concat_ws(' AND ', pg_catalog.pg_get_expr(p.polqual, p.polrelid), \
         pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)) FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid";
    for row in transaction.query(sql, &[]).await? {
        let (oid, table, text) = (oid(&row, 0)?, name(&row, 1)?, row.try_get::<_, String>(2)?);
        if expression_may_write(model, &text) {
            model.dangerous.insert(table);
            if let Some(relation) = model.relations.get_mut(&oid) {
                relation.opaque = true;
            }
        }
    }
    Ok(())
}

fn expression_may_write(model: &Model, text: &str) -> bool {
    let statement = Statement::analyse(format!("SELECT {text}").as_bytes());
    statement.parts.len() != 1 || statement.parts.iter().any(|part| disturbs(model, part))
}

/// Whether this text, inside a view or a function, can write or change settings unseen.
fn disturbs(model: &Model, part: &Part) -> bool {
    model.may_write(part) || part.names("set_config")
}

/// Judges each view by its text; a view that uses a dangerous one is dangerous itself.
async fn views(transaction: &Transaction<'_>, model: &mut Model) -> Result<(), Error> {
    let sql = "SELECT c.oid, c.relname::text, pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm') AND c.relpersistence <> 't' \
         AND c.oid >= $1 AND n.nspname NOT IN ('pg_catalog', 'information_schema')";
    let mut texts = Vec::new();
    for row in transaction.query(sql, &[&FIRST_USER_OID]).await? {
        let text = row.try_get::<_, Option<String>>(2)?.unwrap_or_default();
        texts.push((oid(&row, 0)?, name(&row, 1)?, Statement::analyse(text.as_bytes())));
    }
    loop {
        let before = model.dangerous.len();
        for (_, name, statement) in &texts {
            if statement.parts.len() != 1 || statement.parts.iter().any(|part| disturbs(model, part)) {
                model.dangerous.insert(name.clone());
            }
        }
        if model.dangerous.len() == before {
            break;
        }
    }
    for (oid, name, statement) in texts {
        let mut view = ViewText::default();
        match statement.parts.as_slice() {
            [part] if !model.dangerous.contains(&name) => {
                view.bypass = model.text_bypass(part);
                view.shifts_zone = part.facts.shifts_zone;
                view.temporal_columns = part
                    .facts
                    .temporal_casts
                    .iter()
                    .filter_map(|cast| match cast {
                        TemporalCast::Column(name) => Some(name.clone()),
                        _ => None,
                    })
                    .collect();
            }
            _ => view.bypass = Some(Bypass::Function),
        }
        if let Some(relation) = model.relations.get_mut(&oid) {
            // A materialized view is read as it was stored; its text does not run.
            if relation.kind == RelationKind::View {
                relation.view = view;
            }
        }
    }
    Ok(())
}

/// Who may leave something in a session without a word in the statement: functions of the user's, and views over them, or over
/// what keeps state.
async fn keepers(transaction: &Transaction<'_>, model: &mut Model) -> Result<(), Error> {
    let sql = "SELECT DISTINCT p.proname::text FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE p.oid >= 16384 AND p.provolatile <> 'i' AND p.proname <> ALL ($1) AND n.nspname NOT IN ('pg_catalog', 'information_schema')";
    for row in transaction.query(sql, &[&HARMLESS_EXTENSION]).await? {
        model.keepers.insert(name(&row, 0)?);
    }
    let sql = "SELECT c.relname::text, pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c \
         WHERE c.relkind = 'v' AND c.relpersistence <> 't' AND c.oid >= $1";
    let mut views = Vec::new();
    for row in transaction.query(sql, &[&FIRST_USER_OID]).await? {
        let text = row.try_get::<_, Option<String>>(1)?.unwrap_or_default();
        views.push((name(&row, 0)?, Statement::analyse(text.as_bytes())));
    }
    loop {
        let before = views.len();
        views.retain(|(name, view)| {
            let keeps = view.parts.iter().any(|part| part.keeps.is_some() || model.may_keep(part));
            if keeps {
                model.keepers.insert(name.clone());
            }
            !keeps
        });
        if views.len() == before {
            break;
        }
    }
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid >= 16384 \
             AND prosrc ~* 'set_config\\s*\\(\\s*(''[^''.]*\\.|[^''\\s])|\\mset\\s+(session\\s+)?[a-z_][a-z_0-9$]*\\s*\\.'), \
         EXISTS (SELECT FROM pg_catalog.pg_class WHERE relkind = 'S' AND relpersistence <> 't')";
    let row = transaction.query_one(sql, &[]).await?;
    (model.sets_hidden_settings, model.has_sequences) = (row.try_get(0)?, row.try_get(1)?);
    Ok(())
}

fn fill(map: &mut HashMap<TableOid, Vec<TableOid>>, rows: Vec<Row>) -> Result<(), Error> {
    let mut known = HashSet::new();
    for row in rows {
        let edge = (oid(&row, 0)?, oid(&row, 1)?);
        if known.insert(edge) {
            map.entry(edge.0).or_default().push(edge.1);
        }
    }
    Ok(())
}

fn oid(row: &Row, column: usize) -> Result<TableOid, Error> {
    row.try_get::<_, Oid>(column).map(TableOid)
}

fn name(row: &Row, column: usize) -> Result<Box<str>, Error> {
    row.try_get::<_, String>(column).map(Into::into)
}
