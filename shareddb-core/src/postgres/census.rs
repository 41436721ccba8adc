//! What a database holds, read in one snapshot by the maintenance login: what a dump is compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;
use tokio_postgres::types::Oid;

use crate::app::EXTENSION_SCHEMA;
use crate::connection::Session;
use crate::error::{Error, Result};
use crate::postgres::sql::{escaped, identifier, literal};

/// How long a table that somebody has locked is waited for, before the whole is tried again.
pub(crate) const LOCK_PATIENCE: &str = "2s";
/// Tables that one statement locks or counts.
const BATCH: usize = 200;
/// Schemas of the server itself.
const OWN: &str = "n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'";

/// A table with rows of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableFact {
    pub(crate) oid: Oid,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) owner: String,
    /// The extension whose it is, if it is one's.
    pub(crate) extension: Option<String>,
}

impl TableFact {
    /// Its name in SQL.
    pub(crate) fn sql(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }
}

/// A sequence, as it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SequenceFact {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// The value that it gave last; where it has given none, what it will begin with.
    pub(crate) value: i64,
}

/// An extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtensionFact {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) schema: String,
    pub(crate) owner: String,
}

/// Everything but the rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    pub(crate) extensions: Vec<ExtensionFact>,
    /// Roles that rights, policies and default privileges name, besides the app's own.
    pub(crate) roles: BTreeSet<String>,
    pub(crate) large_objects: u64,
    /// `pg_database`'s row: its columns differ between majors.
    pub(crate) database: BTreeMap<String, Value>,
    pub(crate) bytes: u64,
    /// The server's time in the snapshot, in UTC: `2026-11-22T02:00:56Z`.
    pub(crate) time: String,
    pub(crate) server_version: String,
    pub(crate) encoding: String,
    /// Settings of roles in this database, and of the database itself (an empty name).
    pub(crate) settings: BTreeMap<String, Vec<String>>,
    /// Kinds of objects that a dump leaves out, with how many there are.
    pub(crate) left_out: BTreeMap<String, u64>,
    /// Tables that hide rows from their owner, too.
    pub(crate) forced_row_security: Vec<String>,
}

/// A session of the maintenance login that reads.
pub(crate) struct Reader<'a>(pub(crate) &'a Session);

impl Reader<'_> {
    /// The tables with rows: ordinary ones, partitions among them, whose owner is the app or an extension's.
    pub(crate) async fn tables(&self) -> Result<Vec<TableFact>> {
        let sql = format!(
            "SELECT c.oid, n.nspname::text, c.relname::text, pg_table_size(c.oid), pg_get_userbyid(c.relowner)::text, \
             (SELECT e.extname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid \
              WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e') \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {OWN} ORDER BY 2, 3"
        );
        let rows = self.rows("list the tables", &sql).await?;
        let fact = |row: &tokio_postgres::Row| TableFact {
            oid: row.get(0),
            schema: row.get(1),
            name: row.get(2),
            bytes: u64::try_from(row.get::<_, Option<i64>>(3).unwrap_or(0)).unwrap_or(0),
            owner: row.get(4),
            extension: row.get(5),
        };
        Ok(rows.iter().map(fact).collect())
    }

    /// Begins the transaction that all reading is in, and locks the tables: nobody can empty or rewrite them from here on.
    /// Only then is the snapshot taken, so that what was rewritten just before is not seen as empty.
    pub(crate) async fn freeze(&self, tables: impl Iterator<Item = &TableFact>) -> Result<()> {
        let begin =
            format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '{LOCK_PATIENCE}'");
        self.run("begin to read", &begin).await?;
        let names: Vec<String> = tables.map(|table| format!("ONLY {}", table.sql())).collect();
        for names in names.chunks(BATCH) {
            self.run("lock the tables", &format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "))).await?;
        }
        Ok(())
    }

    /// Takes the snapshot and gives it the name under which other sessions share it.
    pub(crate) async fn export_snapshot(&self) -> Result<String> {
        let rows = self.rows("export the snapshot", "SELECT pg_export_snapshot()").await?;
        first(&rows)
    }

    /// Ends the transaction, and with it the locks.
    pub(crate) async fn thaw(&self) -> Result<()> {
        self.run("end reading", "ROLLBACK").await
    }

    /// Tables that were emptied or rewritten after the snapshot and before they were locked: they look as if they had no rows.
    pub(crate) async fn rewritten(&self) -> Result<Vec<String>> {
        // The column is read in the snapshot, the function looks at the catalog as it is now. Materialized views count for
        // nothing: a dump has no rows of theirs, and they are filled anew where it is loaded.
        let sql = format!(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {OWN} AND c.relfilenode <> 0 \
             AND pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode"
        );
        Ok(self.rows("look for tables that were rewritten", &sql).await?.iter().map(|row| row.get(0)).collect())
    }

    /// Rows of each table, in its order. To plan this, the server looks into indexes and constraints, and so into functions of
    /// the app's that may find their own names by its search path only: this is `path`.
    pub(crate) async fn counts(&self, tables: &[TableFact], path: &[String]) -> Result<Vec<u64>> {
        let mut counts = Vec::with_capacity(tables.len());
        for batch in tables.chunks(BATCH) {
            let mut sql = String::new();
            for (index, table) in batch.iter().enumerate() {
                let union = if index == 0 { "" } else { " UNION ALL " };
                let _ = write!(sql, "{union}SELECT {index}, count(*) FROM ONLY {}", table.sql());
            }
            let mut rows = self.passing("count the rows", &sql, path).await?;
            rows.sort_by_key(|row| row.get::<_, i32>(0));
            counts.extend(rows.iter().map(|row| row.get::<_, i64>(1).unsigned_abs()));
        }
        Ok(counts)
    }

    /// What a dump locks at once: tables, partitioned ones, and sequences.
    pub(crate) async fn lockable(&self) -> Result<u64> {
        let sql = format!(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't' AND {OWN}"
        );
        let rows = self.rows("count what is to be locked", &sql).await?;
        rows.first().map(|row| row.get::<_, i64>(0).unsigned_abs()).ok_or_else(untold)
    }

    /// The sequences, which no snapshot holds: as they are now.
    pub(crate) async fn sequences(&self) -> Result<Vec<SequenceFact>> {
        let list = format!(
            "SELECT n.nspname::text, c.relname::text FROM pg_sequence s \
             JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relpersistence <> 't' AND {OWN} AND NOT EXISTS (SELECT FROM pg_depend d \
             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2"
        );
        let names = self.rows("list the sequences", &list).await?;
        let mut sequences = Vec::with_capacity(names.len());
        for batch in names.chunks(BATCH) {
            let one = |(index, row): (usize, &tokio_postgres::Row)| {
                let (schema, name): (String, String) = (row.get(0), row.get(1));
                format!("SELECT {index}, last_value FROM {}.{}", identifier(schema), identifier(name))
            };
            let sql = batch.iter().enumerate().map(one).collect::<Vec<_>>().join(" UNION ALL ");
            let mut values = self.passing("read the sequences", &sql, &[]).await?;
            values.sort_by_key(|row| row.get::<_, i32>(0));
            sequences.extend(batch.iter().zip(&values).map(|(named, value)| SequenceFact {
                schema: named.get(0),
                name: named.get(1),
                value: value.get(1),
            }));
        }
        Ok(sequences)
    }

    /// Everything else. `own` are all roles of the app.
    pub(crate) async fn census(&self, own: &[&str]) -> Result<Census> {
        let (extensions, roles, facts) = futures_util::future::try_join3(
            self.rows(
                "read the extensions",
                "SELECT e.extname::text, e.extversion, n.nspname::text, pg_get_userbyid(e.extowner)::text FROM pg_extension e \
                 JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql' ORDER BY 1",
            ),
            self.rows(
                "read which roles are named",
                "SELECT DISTINCT r.rolname::text FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid \
                 WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
                 AND s.refclassid = 'pg_authid'::regclass AND s.deptype IN ('a', 'r') ORDER BY 1",
            ),
            self.rows(
                "read the database",
                "SELECT (SELECT to_jsonb(d)::text FROM pg_database d WHERE datname = current_database()), \
                 pg_database_size(current_database()), to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
                 current_setting('server_version'), (SELECT count(*) FROM pg_largeobject_metadata), \
                 current_setting('server_encoding')",
            ),
        )
        .await?;
        let facts = facts.first().ok_or_else(untold)?;
        let database: BTreeMap<String, Value> = serde_json::from_str(facts.get(0)).map_err(|_| untold())?;
        Ok(Census {
            extensions: extensions
                .iter()
                .map(|row| ExtensionFact {
                    name: row.get(0),
                    version: row.get(1),
                    schema: row.get(2),
                    owner: row.get(3),
                })
                .collect(),
            roles: roles.iter().map(|row| row.get(0)).filter(|role: &String| !own.contains(&role.as_str())).collect(),
            database,
            bytes: facts.get::<_, i64>(1).unsigned_abs(),
            time: facts.get(2),
            server_version: facts.get(3),
            encoding: facts.get(5),
            large_objects: facts.get::<_, i64>(4).unsigned_abs(),
            settings: self.settings().await?,
            left_out: self.left_out().await?,
            forced_row_security: self.forced_row_security().await?,
        })
    }

    async fn settings(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let sql = "SELECT coalesce(r.rolname, '')::text, s.setconfig FROM pg_db_role_setting s \
             JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole \
             WHERE d.datname = current_database()";
        Ok(self.rows("read the settings", sql).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// What only a superuser can load again.
    async fn left_out(&self) -> Result<BTreeMap<String, u64>> {
        let sql = "SELECT what, number FROM (VALUES \
             ('event triggers', (SELECT count(*) FROM pg_event_trigger)), \
             ('foreign data wrappers', (SELECT count(*) FROM pg_foreign_data_wrapper)), \
             ('foreign servers', (SELECT count(*) FROM pg_foreign_server)), \
             ('subscriptions', (SELECT count(subname) FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()))), \
             ('functions in C', (SELECT count(*) FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE l.lanname = 'c' \
               AND p.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'))) \
             ) v (what, number) WHERE number > 0";
        let rows = self.rows("look for what is left out", sql).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1).unsigned_abs())).collect())
    }

    async fn forced_row_security(&self) -> Result<Vec<String>> {
        let sql = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relrowsecurity AND c.relforcerowsecurity ORDER BY 1";
        Ok(self.rows("look for tables with row security", sql).await?.iter().map(|row| row.get(0)).collect())
    }

    /// Objects that belong neither to the owner nor to an extension, with their owners: a member of the owner cannot dump them.
    pub(crate) async fn foreign(&self, owner: &str) -> Result<Vec<String>> {
        let of = |class: &str, kind: &str, name: &str, owner_column: &str, namespace: &str| {
            format!(
                "SELECT format('{kind} %s of %s', {name}, pg_get_userbyid(o.{owner_column})) FROM {class} o {namespace} \
                 WHERE o.oid >= 16384 AND o.{owner_column} <> {owner}::regrole AND NOT EXISTS (SELECT FROM pg_depend d \
                 WHERE d.classid = '{class}'::regclass AND d.objid = o.oid AND d.deptype IN ('e', 'i'))",
                owner = literal(identifier(owner)),
            )
        };
        let within = |column: &str| format!("JOIN pg_namespace n ON n.oid = o.{column} AND {OWN}");
        let parts = [
            of("pg_class", "relation", "o.oid::regclass", "relowner", &within("relnamespace"))
                + " AND o.relkind <> 'i' AND o.relpersistence <> 't'",
            of("pg_proc", "function", "o.oid::regprocedure", "proowner", &within("pronamespace")),
            of("pg_type", "type", "o.oid::regtype", "typowner", &within("typnamespace"))
                + " AND o.typrelid = 0 AND o.typelem = 0",
            of("pg_namespace", "schema", "quote_ident(o.nspname)", "nspowner", "")
                + &format!(" AND o.nspname !~ '^pg_' AND o.nspname <> {}", literal(EXTENSION_SCHEMA)),
            of("pg_largeobject_metadata", "large object", "o.oid", "lomowner", ""),
        ];
        let sql = format!("{} LIMIT 20", parts.map(|part| format!("({part})")).join(" UNION ALL "));
        let rows = self.rows("look for objects of others", &sql).await?;
        Ok(rows.iter().map(|row| escaped(row.get(0))).collect())
    }

    /// Constraints that were not checked, indexes that cannot be used.
    pub(crate) async fn unsound(&self) -> Result<Vec<String>> {
        let sql = format!(
            "SELECT format('index %s', i.indexrelid::regclass) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT i.indisvalid AND c.relkind <> 'p' AND {OWN}"
        );
        let rows = self.rows("look for what is not valid", &sql).await?;
        Ok(rows.iter().map(|row| escaped(row.get(0))).collect())
    }

    /// From here on text comes in the database's own encoding, as it stands in a dump.
    pub(crate) async fn as_stored(&self) -> Result<()> {
        let sql = "SELECT set_config('client_encoding', current_setting('server_encoding'), false)";
        self.run("read text as it is stored", sql).await
    }

    /// Marks a point in the transaction to come [`back`](Self::back) to: what is read in between leaves no locks, and may fail.
    pub(crate) async fn mark(&self) -> Result<()> {
        self.run("begin to read", "SAVEPOINT passing").await
    }

    /// Goes back to the mark.
    pub(crate) async fn back(&self) -> Result<()> {
        self.run("read", "ROLLBACK TO passing; RELEASE passing").await
    }

    /// Until it goes back the session has the search path of [`counts`](Self::counts).
    pub(crate) async fn follow(&self, path: &[String]) -> Result<()> {
        self.run("set the search path", &format!("SET LOCAL search_path = {}", behind_catalog(path))).await
    }

    /// The statement that writes the rows of a table as its dump has them: the columns are those that the dump's own
    /// statement names, without the generated ones.
    pub(crate) fn copy_out(&self, schema: &str, table: &str, copy_in: &str) -> String {
        let columns = columns(copy_in).unwrap_or_default();
        format!("COPY (SELECT {columns} FROM ONLY {}.{}) TO STDOUT", identifier(schema), identifier(table))
    }

    /// Reads, and gives back the locks that reading has taken: a count locks every index of a table, and the table of locks is
    /// the whole server's.
    async fn passing(&self, what: &str, sql: &str, path: &[String]) -> Result<Vec<tokio_postgres::Row>> {
        self.mark().await?;
        self.follow(path).await?;
        let rows = self.rows(what, sql).await?;
        self.back().await?;
        Ok(rows)
    }

    async fn rows(&self, what: &str, sql: &str) -> Result<Vec<tokio_postgres::Row>> {
        let rows = self.0.query_typed(sql, &[]).await;
        rows.map_err(|source| Error::from_postgres(format_args!("cannot {what}"), source))
    }

    async fn run(&self, what: &str, sql: &str) -> Result<()> {
        let done = self.0.batch_execute(sql).await;
        done.map_err(|source| Error::from_postgres(format_args!("cannot {what}"), source))
    }
}

/// What is the server's own is found first.
fn behind_catalog(path: &[String]) -> String {
    let path = path.iter().map(identifier);
    ["pg_catalog".to_owned()].into_iter().chain(path).chain(["pg_temp".to_owned()]).collect::<Vec<_>>().join(", ")
}

/// What stands in the parentheses of `COPY schema.table (a, "b)") FROM stdin;`.
fn columns(copy: &str) -> Option<&str> {
    let mut quoted = false;
    let open = copy.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '(' && !quoted
    })?;
    let rest = &copy[open.0 + 1..];
    rest.trim_end().strip_suffix(" FROM stdin;")?.strip_suffix(')')
}

fn first(rows: &[tokio_postgres::Row]) -> Result<String> {
    rows.first().map(|row| row.get(0)).ok_or_else(untold)
}

fn untold() -> Error {
    Error::failed("server_error", "the server told nothing about the database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_hostile_names() {
        assert_eq!(columns("COPY a.b (c, d) FROM stdin;\n"), Some("c, d"));
        assert_eq!(columns("COPY a.\"b (x)\" (\"c)\", \"d\"\"(\") FROM stdin;\n"), Some("\"c)\", \"d\"\"(\""));
        assert_eq!(columns("COPY a.b  FROM stdin;\n"), None);
    }
}
