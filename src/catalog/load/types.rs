//! What is to be known of types: domains that run code, and times of day.

use tokio_postgres::types::Oid;
use tokio_postgres::{Error, Transaction};

use super::{expression_may_write, name, oid};
use crate::catalog::model::Model;
use crate::statement::Statement;

/// `time` and `timetz` (src/include/catalog/pg_type.dat).
const TIME: Oid = 1083;
const TIMETZ: Oid = 1266;

/// The types in `$1`, and those that hold one of them: arrays, domains, composites, ranges and multiranges.
const HOLDERS: &str = "WITH RECURSIVE edges AS ( \
         SELECT typelem AS inner_type, oid AS outer_type FROM pg_catalog.pg_type WHERE typelem <> 0 \
         UNION ALL SELECT typbasetype, oid FROM pg_catalog.pg_type WHERE typbasetype <> 0 \
         UNION ALL SELECT a.atttypid, c.reltype FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
             WHERE a.attnum > 0 AND NOT a.attisdropped AND c.reltype <> 0 AND c.relpersistence <> 't' \
         UNION ALL SELECT r.rngsubtype, r.rngtypid FROM pg_catalog.pg_range r \
         UNION ALL SELECT r.rngtypid, t.oid FROM pg_catalog.pg_range r JOIN pg_catalog.pg_type t \
             ON t.typtype = 'm' AND t.oid = (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid), \
     holders (oid) AS (SELECT unnest($1::oid[]) UNION SELECT outer_type FROM holders JOIN edges ON inner_type = holders.oid)";

/// Judges domains by their checks and defaults, and the types that hold one. Returns the types that can write.
pub(super) async fn domains(
    transaction: &Transaction<'_>,
    model: &mut Model,
    dangerous: &[Oid],
) -> Result<Vec<Oid>, Error> {
    let sql = "WITH depends AS (SELECT d.classid, d.objid FROM pg_catalog.pg_depend d \
             WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = ANY ($1)) \
         SELECT c.contypid, pg_catalog.pg_get_expr(c.conbin, 0), true, \
             EXISTS (SELECT FROM depends d WHERE d.classid = 'pg_constraint'::regclass AND d.objid = c.oid) \
         FROM pg_catalog.pg_constraint c WHERE c.contypid <> 0 AND c.conbin IS NOT NULL \
         UNION ALL SELECT t.oid, pg_catalog.pg_get_expr(t.typdefaultbin, 0), false, \
             EXISTS (SELECT FROM depends d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid) \
         FROM pg_catalog.pg_type t WHERE t.typdefaultbin IS NOT NULL";
    let (mut writing, mut changing) = (Vec::<Oid>::new(), Vec::<Oid>::new());
    for row in transaction.query(sql, &[&dangerous]).await? {
        let (domain, text, is_check) = (row.try_get(0)?, row.try_get::<_, String>(1)?, row.try_get::<_, bool>(2)?);
        let expression = Statement::analyse(format!("SELECT {text}").as_bytes());
        if row.try_get(3)? || expression_may_write(model, &text) {
            writing.push(domain);
        }
        // A default is used by writes only.
        if is_check && !matches!(expression.parts.as_slice(), [part] if model.text_bypass(part).is_none()) {
            changing.push(domain);
        }
    }
    let sql = format!("{HOLDERS} SELECT t.oid, t.typname::text FROM holders JOIN pg_catalog.pg_type t USING (oid)");
    let mut writers = Vec::new();
    for row in transaction.query(&sql, &[&writing]).await? {
        writers.push(row.try_get(0)?);
        model.dangerous_types.insert(name(&row, 1)?);
    }
    for row in transaction.query(&sql, &[&changing]).await? {
        model.unsafe_types.insert(name(&row, 1)?);
    }
    Ok(writers)
}

/// Takes note of the relations whose columns hold times of day.
pub(super) async fn times(transaction: &Transaction<'_>, model: &mut Model) -> Result<(), Error> {
    for (base, is_zoned) in [(TIME, false), (TIMETZ, true)] {
        let sql = format!(
            "{HOLDERS} SELECT DISTINCT a.attrelid FROM holders JOIN pg_catalog.pg_attribute a ON a.atttypid = holders.oid \
             WHERE a.attrelid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped"
        );
        for row in transaction.query(&sql, &[&&[base][..]]).await? {
            if let Some(relation) = model.relations.get_mut(&oid(&row, 0)?) {
                relation.time = true;
                relation.zoned_time |= is_zoned;
            }
        }
    }
    Ok(())
}
