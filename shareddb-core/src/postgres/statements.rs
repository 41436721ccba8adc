//! The statements that change something, as text. Pure: who runs them, and when, is decided elsewhere.

use std::time::Duration;

use crate::mark::Mark;
use crate::password::Verifier;
use crate::postgres::facts::{OWNER_ACCESS, Powers, RoleShape, ServerFacts};
use crate::postgres::sql::{identifier, identifiers, is_list, literal, parse_identifier_list};
use crate::postgres::version::ServerVersion;

/// The group of all maintenance logins, for a line in `pg_hba.conf`.
pub(crate) const MAINTENANCE_GROUP: &str = "shareddb_maint";

/// How long an admin's statement waits for a lock.
pub(crate) const LOCK_TIMEOUT: &str = "2s";

/// Keeps what follows in the transaction out of the server's log, even when it fails, as far as the admin may.
pub(crate) fn silence_log(server: &ServerFacts) -> &'static str {
    if server.superuser { SILENCE_LOG } else { SILENCE_WHAT_MAY_BE }
}

/// From 16 on, printed trees show the values of utility statements, too.
const SILENCE_LOG: &str = "SET LOCAL log_statement = 'none'; SET LOCAL log_min_error_statement = 'panic'; \
     SET LOCAL log_min_duration_statement = -1; SET LOCAL log_min_duration_sample = -1; \
     SELECT set_config(name, 'off', true) FROM pg_settings WHERE name LIKE 'debug\\_print\\_%'";

/// The same without being a superuser; from 16 on. Whoever may not silence a log has its server log a verifier at most:
/// clear text is never sent.
const SILENCE_WHAT_MAY_BE: &str = "SELECT set_config(name, value, true) FROM (VALUES ('log_statement', 'none'), \
     ('log_min_error_statement', 'panic'), ('log_min_duration_statement', '-1'), ('log_min_duration_sample', '-1')) s (name, value) \
     WHERE has_parameter_privilege(name, 'SET'); \
     SELECT set_config(name, 'off', true) FROM pg_settings WHERE name LIKE 'debug\\_print\\_%'";

pub(crate) fn create_maintenance_group() -> String {
    format!("CREATE ROLE {} NOLOGIN", identifier(MAINTENANCE_GROUP))
}

/// As whoever granted it: a revoke of a superuser's takes only what the owner has granted, and says nothing of the rest.
/// `grantors` are the others.
pub(crate) fn close_to_public<'a>(database: &str, grantors: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let revoke = format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", identifier(database));
    let of_others = grantors.into_iter().flat_map(|grantor| acting_as(grantor, revoke.clone()));
    std::iter::once(revoke.clone()).chain(of_others).collect()
}

/// As whoever granted it, as [`close_to_public`] does.
pub(crate) fn revoke_access(database: &str, role: &str, grantor: &str) -> [String; 3] {
    acting_as(grantor, format!("REVOKE ALL ON DATABASE {} FROM {} CASCADE", identifier(database), identifier(role)))
}

/// Statements of one step for somebody who types them: one by one they would not be one transaction.
pub(crate) fn typed(statements: &[String]) -> String {
    match statements {
        [only] => only.clone(),
        several => format!("BEGIN; {}; COMMIT", several.join("; ")),
    }
}

/// A statement with the rights of a role, in a transaction.
pub(crate) fn acting_as(role: &str, statement: String) -> [String; 3] {
    [format!("SET LOCAL ROLE {}", identifier(role)), statement, "SET LOCAL ROLE none".to_owned()]
}

/// Lets logins into a database by name.
pub(crate) fn grant_connect<'a>(database: &str, roles: impl IntoIterator<Item = &'a str>) -> String {
    format!("GRANT CONNECT ON DATABASE {} TO {}", identifier(database), identifiers(roles))
}

/// Lets an admin who is no superuser set what otherwise only superusers set.
pub(crate) fn grant_setting(name: &str, admin: &str) -> String {
    format!("GRANT SET ON PARAMETER {} TO {}", setting(name), identifier(admin))
}

/// Lets an admin read the rules of `pg_hba.conf`.
pub(crate) fn grant_access_rules(admin: &str) -> String {
    let admin = identifier(admin);
    format!("GRANT SELECT ON pg_hba_file_rules TO {admin}; GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO {admin}")
}

/// Lets roles make temporary tables in a database.
pub(crate) fn grant_temporary<'a>(database: &str, roles: impl IntoIterator<Item = &'a str>) -> String {
    format!("GRANT TEMPORARY ON DATABASE {} TO {}", identifier(database), identifiers(roles))
}

/// Gives an admin who is no superuser what it needs to look after roles that others have made.
pub(crate) fn grant_administration<'a>(roles: impl IntoIterator<Item = &'a str>, admin: &str) -> String {
    format!("GRANT {} TO {} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE", identifiers(roles), identifier(admin))
}

/// Lets an admin who is no superuser act as a role, and have none of its rights otherwise: what it reads by mistake is
/// nothing of a tenant's.
pub(crate) fn act_as(role: &str, admin: &str) -> String {
    format!("GRANT {} TO {} WITH SET TRUE, INHERIT FALSE", identifier(role), identifier(admin))
}

/// Gives an admin the right to be an admin.
pub(crate) fn empower(admin: &str, attributes: &[&str]) -> String {
    format!("ALTER ROLE {} {}", identifier(admin), attributes.join(" "))
}

/// A schema for an extension that only a superuser can make, as [`create_extension_schema`] makes it for the admin.
pub(crate) fn extension_schema_by_superuser(schema: &str, owner: &str, admin: &str) -> [String; 2] {
    let [create, grant] = create_extension_schema(schema, owner);
    [format!("{create} AUTHORIZATION {}", identifier(admin)), grant]
}

/// The event triggers that a login sets off.
pub(crate) const LOGIN_TRIGGERS: &str =
    "SELECT evtname FROM pg_event_trigger WHERE evtevent = 'login' AND evtenabled <> 'D'";

/// Takes from roles every right in the session's database, and what they own there.
pub(crate) fn drop_owned<'a>(roles: impl IntoIterator<Item = &'a str>) -> String {
    format!("DROP OWNED BY {}", roles.into_iter().map(identifier).collect::<Vec<_>>().join(", "))
}

/// Takes from roles what hangs on them in the session's database and on the server, for a drop of the roles. Whole
/// databases and tablespaces go to the admin.
pub(crate) fn release(roles: &[&str], estate: bool, admin: &str) -> Vec<String> {
    let hand_over = || format!("REASSIGN OWNED BY {} TO {}", identifiers(roles), identifier(admin));
    std::iter::once(drop_owned(roles.iter().copied())).chain(estate.then(hand_over)).collect()
}

/// Ends a prepared transaction of the session's database; whether it is to count is for its app to say.
pub(crate) fn roll_back_prepared(gid: &str) -> String {
    format!("ROLLBACK PREPARED {}", literal(gid))
}

pub(crate) fn rename_database(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {}", identifier(from), identifier(to))
}

pub(crate) fn create_role(role: &str, shape: &RoleShape) -> String {
    format!("CREATE ROLE {} {}", identifier(role), attributes(shape))
}

pub(crate) fn alter_role(role: &str, shape: &RoleShape) -> String {
    format!("ALTER ROLE {} {}", identifier(role), attributes(shape))
}

/// The same by an admin who is no superuser: to name an attribute that it has not is refused, even to take it away.
pub(crate) fn alter_role_within(role: &str, shape: &RoleShape, powers: &Powers) -> String {
    let words = shape.words();
    let may: Vec<&str> = words.iter().map(String::as_str).filter(|word| powers.may_name(word)).collect();
    format!("ALTER ROLE {} {}", identifier(role), may.join(" "))
}

fn attributes(shape: &RoleShape) -> String {
    shape.words().join(" ")
}

pub(crate) fn clear_password(role: &str) -> String {
    format!("ALTER ROLE {} PASSWORD NULL", identifier(role))
}

/// `until` is a point in time with its offset, or `infinity`.
pub(crate) fn set_expiry(role: &str, until: &str) -> String {
    format!("ALTER ROLE {} VALID UNTIL {}", identifier(role), literal(until))
}

pub(crate) fn set_password(role: &str, verifier: &Verifier) -> String {
    format!("ALTER ROLE {} PASSWORD {}", identifier(role), literal(verifier.as_str()))
}

/// From 16 on a membership has options, and what they are by default depends on the member.
pub(crate) fn grant_membership(group: &str, member: &str, version: ServerVersion) -> String {
    let options = if version.has_grantors() { " WITH INHERIT TRUE, SET TRUE" } else { "" };
    format!("GRANT {} TO {}{options}", identifier(group), identifier(member))
}

/// From 16 on each grant of a membership is one of its own, and whoever says nothing takes back only what it granted.
pub(crate) fn revoke_membership(group: &str, member: &str, grantor: Option<&str>) -> String {
    let by = grantor.map(|grantor| format!(" GRANTED BY {}", identifier(grantor))).unwrap_or_default();
    format!("REVOKE {} FROM {}{by} CASCADE", identifier(group), identifier(member))
}

pub(crate) fn set_for_role(role: &str, database: Option<&str>, name: &str, value: &str) -> String {
    format!("ALTER ROLE {}{} SET {}", identifier(role), in_database(database), assignment(name, value))
}

/// A setting and its value as it is stored.
pub(crate) fn assignment(name: &str, value: &str) -> String {
    let value = match name {
        list if is_list(list) => names_of(value),
        // It wants a name, as SET ROLE does.
        "role" => identifier(value),
        _ => literal(value),
    };
    format!("{} = {value}", setting(name))
}

pub(crate) fn set_search_path(role: &str, database: &str, path: &[String]) -> String {
    format!("ALTER ROLE {}{} SET search_path = {}", identifier(role), in_database(Some(database)), identifiers(path))
}

pub(crate) fn reset_for_role(role: &str, database: Option<&str>, name: &str) -> String {
    format!("ALTER ROLE {}{} RESET {}", identifier(role), in_database(database), setting(name))
}

pub(crate) fn reset_for_database(database: &str, name: &str) -> String {
    format!("ALTER DATABASE {} RESET {}", identifier(database), setting(name))
}

fn in_database(database: Option<&str>) -> String {
    database.map(|name| format!(" IN DATABASE {}", identifier(name))).unwrap_or_default()
}

/// Names as constants, since an empty one is no identifier; no name at all is written as an empty one.
fn names_of(list: &str) -> String {
    match parse_identifier_list(list).iter().map(literal).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => literal(""),
        names => names,
    }
}

/// The name of a setting may have two parts.
fn setting(name: &str) -> String {
    name.split('.').map(identifier).collect::<Vec<_>>().join(".")
}

pub(crate) fn rename_role(from: &str, to: &str) -> String {
    format!("ALTER ROLE {} RENAME TO {}", identifier(from), identifier(to))
}

pub(crate) fn unmark_role(role: &str) -> String {
    comment_on_role(role, None)
}

pub(crate) fn mark_role(role: &str, mark: &Mark) -> String {
    comment_on_role(role, Some(&mark.to_string()))
}

pub(crate) fn mark_database(database: &str, mark: &Mark) -> String {
    comment_on_database(database, Some(&mark.to_string()))
}

pub(crate) fn comment_on_role(role: &str, comment: Option<&str>) -> String {
    format!("COMMENT ON ROLE {} IS {}", identifier(role), comment.map_or_else(|| "NULL".to_owned(), literal))
}

pub(crate) fn comment_on_database(database: &str, comment: Option<&str>) -> String {
    format!("COMMENT ON DATABASE {} IS {}", identifier(database), comment.map_or_else(|| "NULL".to_owned(), literal))
}

/// Nobody may enter it, and its template is the one that nobody can have put anything into.
pub(crate) fn create_database(database: &str, connection_limit: u16) -> String {
    format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false CONNECTION LIMIT {connection_limit}",
        identifier(database)
    )
}

pub(crate) fn drop_database(database: &str) -> String {
    format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(database))
}

/// The same by an admin who may not end every session there: the server waits five seconds for the last ones.
pub(crate) fn drop_deserted_database(database: &str) -> String {
    format!("DROP DATABASE IF EXISTS {}", identifier(database))
}

pub(crate) fn own_database(database: &str, admin: &str) -> String {
    format!("ALTER DATABASE {} OWNER TO {}", identifier(database), identifier(admin))
}

/// -1 is no limit.
pub(crate) fn limit_database(database: &str, connection_limit: i32) -> String {
    format!("ALTER DATABASE {} CONNECTION LIMIT {connection_limit} IS_TEMPLATE false", identifier(database))
}

pub(crate) fn allow_connections(database: &str, allow: bool) -> String {
    format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allow}", identifier(database))
}

/// Takes every right on the database from these, PUBLIC among them, and gives the owner role its own.
pub(crate) fn set_access<'a>(database: &str, owner: &str, others: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let database = identifier(database);
    let mut statements = vec![format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC")];
    statements.extend(
        others
            .into_iter()
            .filter(|grantee| !grantee.is_empty())
            .map(|grantee| format!("REVOKE ALL ON DATABASE {database} FROM {} CASCADE", identifier(grantee))),
    );
    statements.push(format!("GRANT {} ON DATABASE {database} TO {}", OWNER_ACCESS.join(", "), identifier(owner)));
    statements
}

/// That a session has ended by itself, the server says as a warning: what ends sessions warns of nothing, until its
/// transaction ends.
pub(crate) const QUIETLY: &str = "WITH quiet AS MATERIALIZED (SELECT set_config('client_min_messages', 'error', true))";

/// Ends every session of these roles.
pub(crate) fn end_sessions<'a>(roles: impl IntoIterator<Item = &'a str>) -> String {
    format!(
        "{QUIETLY} SELECT count(pg_terminate_backend(pid)) FROM quiet, pg_stat_activity \
         WHERE pid <> pg_backend_pid() AND usename = ANY ({})",
        names(roles)
    )
}

/// Who has no business in a database: `{own}` roles have, superusers, the admin, and whoever enters with the rights of one of
/// the `{guests}`. Of sessions `a` and their roles `r`.
pub(crate) fn is_stranger(own: &str, guests: &str) -> String {
    format!(
        "NOT r.rolsuper AND r.rolname <> current_user AND NOT a.usename = ANY ({own}) \
         AND NOT EXISTS (SELECT FROM pg_roles g WHERE g.rolname = ANY ({guests}) AND pg_has_role(r.oid, g.oid, 'USAGE'))"
    )
}

/// Ends the sessions of strangers in a database, see [`is_stranger`].
pub(crate) fn end_strangers<'a>(
    database: &str,
    own: impl IntoIterator<Item = &'a str>,
    guests: impl IntoIterator<Item = &'a str>,
) -> String {
    format!(
        "{QUIETLY} SELECT count(pg_terminate_backend(pid)) FROM quiet, pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid \
         WHERE datname = {} AND {}",
        literal(database),
        is_stranger(&names(own), &names(guests))
    )
}

/// Ends the sessions of an app's roles in every database but those that are `open` to it.
pub(crate) fn end_abroad<'a>(
    open: impl IntoIterator<Item = &'a str>,
    own: impl IntoIterator<Item = &'a str>,
) -> String {
    format!(
        "{QUIETLY} SELECT count(pg_terminate_backend(pid)) FROM quiet, pg_stat_activity \
         WHERE NOT datname = ANY ({}) AND pid <> pg_backend_pid() AND usename = ANY ({})",
        names(open),
        names(own)
    )
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    format!("ARRAY[{}]::name[]", names.into_iter().map(literal).collect::<Vec<_>>().join(", "))
}

/// Takes `public` from everybody, and hands it to the app: in this order, since afterwards an admin who is no superuser
/// may take nothing any more.
pub(crate) fn own_public_schema(owner: &str) -> [String; 2] {
    [
        "REVOKE ALL ON SCHEMA public FROM PUBLIC".to_owned(),
        format!("ALTER SCHEMA public OWNER TO {}", identifier(owner)),
    ]
}

pub(crate) fn own_schema(schema: &str, owner: &str) -> String {
    format!("ALTER SCHEMA {} OWNER TO {}", identifier(schema), identifier(owner))
}

pub(crate) fn create_schema(schema: &str, owner: &str) -> [String; 2] {
    [
        format!("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}", identifier(schema), identifier(owner)),
        own_schema(schema, owner),
    ]
}

/// A schema of the admin's in which the app may look and not create.
pub(crate) fn create_extension_schema(schema: &str, owner: &str) -> [String; 2] {
    let schema = identifier(schema);
    [
        // Not IF NOT EXISTS: one that is there already may have been made by the app, with functions in it.
        format!("CREATE SCHEMA {schema}"),
        format!("GRANT USAGE ON SCHEMA {schema} TO {}", identifier(owner)),
    ]
}

/// Neither IF NOT EXISTS nor CASCADE: what the app has made meanwhile, such as a required extension in a schema of its own,
/// has to end this.
pub(crate) fn create_extension(extension: &str, schema: &str) -> String {
    format!("CREATE EXTENSION {} SCHEMA {}", identifier(extension), identifier(schema))
}

pub(crate) fn reassign_owned(login: &str, owner: &str) -> String {
    format!("REASSIGN OWNED BY {} TO {}", identifier(login), identifier(owner))
}

/// What still hangs on a role outside its own database goes first. Its objects there are dropped and never handed over: a
/// function of an app's that came to belong to the admin would run with the admin's rights. After that, only whole
/// databases are left to hand over, and they run nothing.
pub(crate) fn drop_role(role_name: &str, admin: &str) -> [String; 3] {
    let role = identifier(role_name);
    [
        format!("DROP OWNED BY {role}"),
        format!("REASSIGN OWNED BY {role} TO {}", identifier(admin)),
        drop_empty_role(role_name),
    ]
}

/// The same for a role on which nothing hangs any more but what goes with it.
pub(crate) fn drop_empty_role(role: &str) -> String {
    format!("DROP ROLE {}", identifier(role))
}

/// Waits for the app's lock and for the lock over what all apps share, at most `patience` each; the pinned lock timeout is
/// back afterwards. Functions of a select list are evaluated in order.
pub(crate) fn lock(app: &str, patience: Duration) -> String {
    // Zero would be for ever.
    let milliseconds = patience.as_millis().clamp(1, i32::MAX as u128);
    format!(
        "SELECT set_config('lock_timeout', '{milliseconds}ms', false), pg_advisory_lock({LOCK_SPACE}, {}), \
         pg_advisory_lock({LOCK_SPACE}, {SHARED_KEY}), set_config('lock_timeout', '{LOCK_TIMEOUT}', false)",
        lock_key(app)
    )
}

/// Waits for the lock over what all apps share alone, as [`lock`] does.
pub(crate) fn lock_shared(patience: Duration) -> String {
    let milliseconds = patience.as_millis().clamp(1, i32::MAX as u128);
    format!(
        "SELECT set_config('lock_timeout', '{milliseconds}ms', false), pg_advisory_lock({LOCK_SPACE}, {SHARED_KEY}), \
         set_config('lock_timeout', '{LOCK_TIMEOUT}', false)"
    )
}

/// Gives back the lock over what all apps share.
pub(crate) fn unlock_shared() -> String {
    format!("SELECT pg_advisory_unlock({LOCK_SPACE}, {SHARED_KEY})")
}

/// Gives back every lock of the session.
pub(crate) const UNLOCK_ALL: &str = "SELECT pg_advisory_unlock_all()";

/// Who holds the app's lock or the one over what all apps share: its program's name and its process.
pub(crate) fn lock_holders(app: &str) -> String {
    format!(
        "SELECT string_agg(DISTINCT format('%s (process %s)', coalesce(nullif(a.application_name, ''), a.usename), a.pid), ', ') \
         FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
         WHERE l.locktype = 'advisory' AND l.granted AND l.classid = {LOCK_SPACE} AND l.objid IN ({}, {SHARED_KEY}) \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND a.pid <> pg_backend_pid()",
        lock_key(app)
    )
}

/// The first half of every advisory lock key of ours: "shdb" in ASCII.
const LOCK_SPACE: i32 = 0x7368_6462;

/// The second half for what all apps share.
const SHARED_KEY: i32 = 0;

/// The second half for one app: FNV-1a of its name, never zero. That two apps share a key costs
/// them waiting for each other, no more.
fn lock_key(app: &str) -> i32 {
    let hash = app.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    i32::try_from(hash >> 1).unwrap_or(i32::MAX).max(1)
}

/// What an app does first: makes a table. It is gone with the transaction, whatever happens.
pub(crate) fn try_table(schema: &str, table: &str) -> String {
    let table = format!("{}.{}", identifier(schema), identifier(table));
    format!("BEGIN READ WRITE; CREATE TABLE {table} (id int); DROP TABLE {table}; ROLLBACK")
}

pub(crate) const CURRENT_USER: &str = "SELECT current_user";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_quoted_everywhere() {
        let hostile = "x\"; DROP ROLE y; --";
        for statement in [
            create_role(hostile, &RoleShape::CLOSED),
            grant_membership(hostile, hostile, ServerVersion::new(180_000)),
            revoke_membership(hostile, hostile, Some(hostile)),
            set_for_role(hostile, Some(hostile), hostile, "it's"),
            drop_database(hostile),
            set_access(hostile, hostile, [hostile]).join("; "),
        ] {
            assert!(statement.contains("\"x\"\"; DROP ROLE y; --\""), "{statement}");
        }
        assert_eq!(assignment("search_path", "a, \"B, c\""), "\"search_path\" = 'a', 'B, c'");
        for nothing in ["", "\"\""] {
            assert_eq!(assignment("temp_tablespaces", nothing), "\"temp_tablespaces\" = ''");
        }
        assert!(end_sessions(["o'x"]).contains("'o''x'"));
        assert!(end_strangers("d'", ["o'x"], ["g"]).contains("datname = 'd''' "));
    }

    #[test]
    fn sessions_that_end_by_themselves_are_no_warning() {
        for statement in [end_sessions(["a"]), end_strangers("d", ["a"], ["g"]), end_abroad(["d"], ["a"])] {
            assert!(statement.starts_with(QUIETLY) && statement.contains("FROM quiet, "), "{statement}");
        }
    }

    #[test]
    fn a_plain_admin_names_no_attribute_that_it_has_not() {
        let plain = alter_role_within("r", &RoleShape::CLOSED, &Powers::default());
        assert_eq!(plain, "ALTER ROLE \"r\" NOLOGIN INHERIT NOCREATEDB NOCREATEROLE CONNECTION LIMIT -1");
        let more = Powers { bypassrls: true, ..Powers::default() };
        assert!(alter_role_within("r", &RoleShape::CLOSED, &more).contains(" NOBYPASSRLS "));
    }

    #[test]
    fn lock_keys_never_meet_the_shared_one() {
        for app in ["", "a", "my-app", "billing"] {
            assert!(lock_key(app) > 0);
        }
        assert_ne!(lock_key("a"), lock_key("b"));
    }
}
