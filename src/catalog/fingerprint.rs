//! The catalogue's fingerprint: a text that changes with everything that the model rests on.

use tokio_postgres::{Error, GenericClient};

/// Catalogues whose rows decide what the model says, with the rows that count. Every update of a row changes its `xmin`, except
/// in-place updates by VACUUM and ANALYZE, which change nothing that matters here.
pub const FINGERPRINTED: &[(&str, &str)] = &[
    ("pg_class", "relpersistence <> 't'"),
    (
        "pg_attribute",
        "attrelid >= 16384 AND EXISTS (SELECT FROM pg_class c WHERE c.oid = attrelid AND c.relpersistence <> 't' AND c.relkind <> 'i')",
    ),
    ("pg_attrdef", "EXISTS (SELECT FROM pg_class c WHERE c.oid = adrelid AND c.relpersistence <> 't')"),
    // Rights can be taken from PostgreSQL's own too.
    ("pg_proc", "oid >= 16384 OR proacl IS NOT NULL"),
    ("pg_operator", "oid >= 16384"),
    ("pg_cast", "oid >= 16384"),
    ("pg_opclass", "oid >= 16384"),
    ("pg_amproc", "oid >= 16384"),
    ("pg_type", "oid >= 16384 AND typtype <> 'c' AND typcategory <> 'A'"),
    ("pg_enum", "true"),
    ("pg_namespace", "nspname !~ '^pg_(toast_)?temp_'"),
    (
        "pg_rewrite",
        "oid >= 16384 AND EXISTS (SELECT FROM pg_class c WHERE c.oid = ev_class AND c.relpersistence <> 't')",
    ),
    ("pg_trigger", "EXISTS (SELECT FROM pg_class c WHERE c.oid = tgrelid AND c.relpersistence <> 't')"),
    (
        "pg_constraint",
        "conrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = conrelid AND c.relpersistence <> 't')",
    ),
    ("pg_policy", "true"),
    ("pg_inherits", "EXISTS (SELECT FROM pg_class c WHERE c.oid = inhrelid AND c.relpersistence <> 't')"),
    ("pg_collation", "oid >= 16384"),
    ("pg_ts_config", "oid >= 16384"),
    ("pg_ts_config_map", "mapcfg >= 16384"),
    ("pg_ts_dict", "oid >= 16384"),
    ("pg_extension", "true"),
    ("pg_auth_members", "true"),
    ("pg_db_role_setting", "true"),
    ("pg_seclabel", "true"),
    ("pg_shseclabel", "true"),
];

/// What a look at the catalogue has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Changes whenever the catalogue or the server's configuration has changed, or the server was restarted.
    all: String,
    /// The part of it that says what sessions begin with.
    defaults: String,
}

impl Fingerprint {
    /// Whether sessions that begin now find other settings.
    pub fn changes_defaults(&self, before: &Self) -> bool {
        self.defaults != before.defaults
    }
}

/// Looks at the catalogue.
pub(super) async fn fingerprint(client: &impl GenericClient) -> Result<Fingerprint, Error> {
    let rows = |catalog: &str, filter: &str| {
        format!(
            "(SELECT count(*) || ':' || coalesce(sum(hashtextextended(xmin::text || ctid::text, 0)::numeric), 0) \
             FROM pg_catalog.{catalog} WHERE {filter})"
        )
    };
    let mut parts: Vec<String> = FINGERPRINTED.iter().map(|(catalog, filter)| rows(catalog, filter)).collect();
    parts.push(
        "(SELECT md5(string_agg(concat_ws(',', oid, rolname, rolsuper, rolinherit, rolbypassrls, rolconfig), ';' ORDER BY oid)) \
         FROM pg_catalog.pg_roles)"
            .into(),
    );
    // Two databases made from one template are equal in all of the above.
    parts.push("(SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())".into());
    parts.push("pg_conf_load_time()".into());
    parts.push("pg_postmaster_start_time()".into());
    // Another server, or the same after a promotion.
    parts.push("(SELECT system_identifier FROM pg_control_system())".into());
    parts.push("pg_is_in_recovery()".into());
    let defaults = rows("pg_db_role_setting", "true");
    let row = client.query_one(&format!("SELECT concat_ws('/', {}), {defaults}", parts.join(", ")), &[]).await?;
    Ok(Fingerprint { all: row.try_get(0)?, defaults: row.try_get(1)? })
}
