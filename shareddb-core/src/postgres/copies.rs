//! Databases beside an app's own: the scratch that a backup is loaded into, and the one that was kept after a restore.

use std::time::Duration;

use tokio_postgres::types::{Oid, Type};

use crate::app::App;
use crate::copy_mark::CopyMark;
use crate::error::{Error, Result};
use crate::postgres::session::AdminSession;
use crate::postgres::sql::{identifier, literal};
use crate::postgres::statements as sql;

/// How long the server gives the sessions of a database to end, when it is renamed.
const RENAME_PATIENCE: &str = "5s";

/// A copy that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopyFact {
    pub(crate) name: String,
    pub(crate) oid: Oid,
    pub(crate) bytes: u64,
    pub(crate) age: Duration,
    pub(crate) mark: CopyMark,
}

/// The encoding and locale that a database is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Locale {
    pub(crate) encoding: String,
    pub(crate) collate: String,
    pub(crate) ctype: String,
    /// `c` libc, `i` ICU, `b` builtin.
    pub(crate) provider: Option<String>,
    pub(crate) name: Option<String>,
}

/// Every copy on the server, oldest first. What others have written on databases of their own is none.
pub(crate) async fn copies(session: &AdminSession) -> Result<Vec<CopyFact>> {
    let sql = "SELECT d.datname::text, d.oid, s.description, pg_database_size(d.oid), extract(epoch FROM now())::int8 \
         FROM pg_shdescription s JOIN pg_database d ON s.classoid = 'pg_database'::regclass AND d.oid = s.objoid \
         JOIN pg_roles o ON o.oid = d.datdba \
         WHERE s.description LIKE 'shareddb-copy:{%' AND (o.rolsuper OR o.rolname = current_user)";
    let rows = session.read("look for copies", sql, &[]).await?;
    let mut found: Vec<CopyFact> = rows
        .iter()
        .filter_map(|row| {
            let mark = CopyMark::parse(row.get(2))?;
            let since: jiff::Timestamp = mark.since.parse().ok()?;
            let age = row.get::<_, i64>(4).saturating_sub(since.as_second()).max(0).unsigned_abs();
            let bytes = row.get::<_, Option<i64>>(3).unwrap_or(0).unsigned_abs();
            Some(CopyFact { name: row.get(0), oid: row.get(1), bytes, age: Duration::from_secs(age), mark })
        })
        .collect();
    found.sort_by_key(|copy| std::cmp::Reverse(copy.age));
    Ok(found)
}

/// The server's time, as marks have it.
pub(crate) async fn now(session: &AdminSession) -> Result<String> {
    let sql = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let time = session.value("read the clock", sql).await?;
    time.ok_or_else(|| Error::failed("server_error", "the server told no time"))
}

/// The OID of a database, if there is one.
pub(crate) async fn oid(session: &AdminSession, database: &str) -> Result<Option<Oid>> {
    let sql = "SELECT oid FROM pg_database WHERE datname = $1";
    let rows = session.read("look for the database", sql, &[(&database, Type::NAME)]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Statements that make a scratch, in this order and not in one transaction. Until the last one nobody can enter.
pub(crate) fn create(name: &str, app: &App, mark: &CopyMark, locale: &Locale) -> Vec<String> {
    let (database, owner, maintenance) = (identifier(name), identifier(&app.owner), identifier(&app.maintenance));
    vec![
        format!("CREATE DATABASE {database} TEMPLATE template0 ALLOW_CONNECTIONS false{}", locale_clauses(locale)),
        comment(name, mark),
        format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"),
        // To connect is the login's alone: whether somebody may is asked before a role is set.
        format!("GRANT CREATE, TEMPORARY ON DATABASE {database} TO {owner}"),
        format!("GRANT CONNECT ON DATABASE {database} TO {maintenance}"),
        sql::allow_connections(name, true),
    ]
}

fn locale_clauses(locale: &Locale) -> String {
    let mut clauses = format!(
        " ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        literal(&locale.encoding),
        literal(&locale.collate),
        literal(&locale.ctype)
    );
    let named = |key: &str| locale.name.as_ref().map(|name| format!(" {key} {}", literal(name))).unwrap_or_default();
    match locale.provider.as_deref() {
        Some("i") => clauses += &format!(" LOCALE_PROVIDER icu{}", named("ICU_LOCALE")),
        Some("b") => clauses += &format!(" LOCALE_PROVIDER builtin{}", named("BUILTIN_LOCALE")),
        _ => {}
    }
    clauses
}

/// Writes what a copy is.
pub(crate) fn comment(name: &str, mark: &CopyMark) -> String {
    sql::comment_on_database(name, Some(&mark.to_string()))
}

/// Inside a scratch, before anything of the tenant's is there: `public` is the app's, as in its own database, and extensions
/// that only an admin may make are made.
pub(crate) fn furnish(app: &App, extensions: &[(String, String)]) -> Vec<String> {
    let mut statements: Vec<String> = sql::own_public_schema(app.owner.as_str()).into();
    let mut schemas: Vec<&str> = extensions.iter().map(|(_, schema)| schema.as_str()).collect();
    schemas.sort_unstable();
    schemas.dedup();
    for schema in schemas.into_iter().filter(|schema| *schema != "public" && *schema != "pg_catalog") {
        statements.extend(sql::create_extension_schema(schema, app.owner.as_str()));
    }
    statements.extend(extensions.iter().map(|(name, schema)| match schema.as_str() {
        // Some choose their schema themselves, and nobody may choose this one.
        "pg_catalog" => format!("CREATE EXTENSION {}", identifier(name)),
        schema => sql::create_extension(name, schema),
    }));
    statements
}

/// What an app's database has and its successor gets: rights, limit, settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fittings {
    /// Grantee (empty is PUBLIC), right, and whether it may be passed on.
    pub(crate) access: Vec<(String, String, bool)>,
    pub(crate) connection_limit: i32,
    /// Role (empty is every role), setting, value.
    pub(crate) settings: Vec<(String, String, String)>,
    pub(crate) comment: Option<String>,
}

impl Fittings {
    pub(crate) async fn read(session: &AdminSession, database: &str) -> Result<Self> {
        let access = "SELECT coalesce(r.rolname, '')::text, a.privilege_type, a.is_grantable \
             FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a LEFT JOIN pg_roles r ON r.oid = a.grantee \
             WHERE d.datname = $1 AND a.grantee <> d.datdba ORDER BY 1, 2";
        let settings = "SELECT coalesce(r.rolname, '')::text, split_part(o.option, '=', 1), substr(o.option, strpos(o.option, '=') + 1) \
             FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole, \
             unnest(s.setconfig) o (option) WHERE d.datname = $1 ORDER BY 1, 2";
        let rest = "SELECT datconnlimit, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1";
        let named = [(&database as &(dyn tokio_postgres::types::ToSql + Sync), Type::NAME)];
        let (access, settings, rest) = futures_util::future::try_join3(
            session.read("read the rights on the database", access, &named),
            session.read("read the settings of the database", settings, &named),
            session.read("read the database", rest, &named),
        )
        .await?;
        Ok(Self {
            access: access.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect(),
            connection_limit: rest.first().map_or(-1, |row| row.get(0)),
            settings: settings.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect(),
            comment: rest.first().and_then(|row| row.get(1)),
        })
    }

    /// Gives the settings and the limit to a copy, before it takes the place: they follow the database, not its name.
    pub(crate) fn fit(&self, copy: &str) -> Vec<String> {
        let settings = self.settings.iter().map(|(role, name, value)| match role.as_str() {
            "" => format!("ALTER DATABASE {} SET {}", identifier(copy), sql::assignment(name, value)),
            role => sql::set_for_role(role, Some(copy), name, value),
        });
        settings.chain([sql::limit_database(copy, self.connection_limit)]).collect()
    }

    fn grant(&self, database: &str, app: &App) -> Vec<String> {
        let database = identifier(database);
        let mut statements = vec![
            format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC"),
            format!("REVOKE ALL ON DATABASE {database} FROM {}", identifier(&app.maintenance)),
        ];
        statements.extend(self.access.iter().map(|(grantee, right, passes_on)| {
            let to = if grantee.is_empty() { "PUBLIC".to_owned() } else { identifier(grantee) };
            let option = if *passes_on { " WITH GRANT OPTION" } else { "" };
            format!("GRANT {right} ON DATABASE {database} TO {to}{option}")
        }));
        statements
    }
}

/// Two databases that change places.
#[derive(Clone, Debug)]
pub(crate) struct Swap<'a> {
    pub(crate) app: &'a App,
    /// The database that takes the place.
    pub(crate) incoming: &'a str,
    /// What the one that had it is called from then on.
    pub(crate) kept: &'a str,
    pub(crate) kept_mark: CopyMark,
    pub(crate) fittings: &'a Fittings,
}

impl Swap<'_> {
    /// The first statements, which wait until the live database has no sessions.
    pub(crate) fn first(&self) -> String {
        format!(
            "BEGIN; SET LOCAL lock_timeout = '{RENAME_PATIENCE}'; {}",
            sql::rename_database(self.app.database.as_str(), self.kept)
        )
    }

    /// All that follows in the same transaction.
    pub(crate) fn rest(&self) -> Vec<String> {
        let live = self.app.database.as_str();
        let mut statements = vec![sql::rename_database(self.incoming, live)];
        statements.extend(self.fittings.grant(live, self.app));
        statements.push(sql::comment_on_database(live, self.fittings.comment.as_deref()));
        statements.push(sql::allow_connections(live, true));
        statements.push(comment(self.kept, &self.kept_mark));
        statements.push(sql::allow_connections(self.kept, false));
        let grantees = self.fittings.access.iter().map(|(grantee, ..)| grantee.as_str());
        let grantees: std::collections::BTreeSet<&str> = grantees.collect();
        statements.extend(grantees.into_iter().map(|grantee| {
            let from = if grantee.is_empty() { "PUBLIC".to_owned() } else { identifier(grantee) };
            format!("REVOKE ALL ON DATABASE {} FROM {from}", identifier(self.kept))
        }));
        statements
    }
}

/// Ends every session in one database, which its OID names: the name may be another's by now.
pub(crate) fn end_sessions_in(database: Oid) -> String {
    format!(
        "{QUIETLY} SELECT count(pg_terminate_backend(pid)) FROM quiet, pg_stat_activity \
         WHERE datid = {database} AND pid <> pg_backend_pid()",
        QUIETLY = sql::QUIETLY
    )
}

/// Who is still in a database.
pub(crate) async fn sessions_in(session: &AdminSession, oid: Oid) -> Result<Vec<String>> {
    let sql = "SELECT format('%s (process %s)', coalesce(nullif(application_name, ''), usename, backend_type), pid) \
         FROM pg_stat_activity WHERE datid = $1";
    let rows = session.read("see who is in the database", sql, &[(&oid, Type::OID)]).await?;
    Ok(rows.iter().map(|row| crate::postgres::sql::escaped(row.get(0))).collect())
}
