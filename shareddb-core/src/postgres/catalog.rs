//! Reading the catalogs: each function is one round trip, and several may be in flight on one session.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};

use crate::app::App;
use crate::error::{Error, Result};
use crate::names::SettingName;
use crate::postgres::extensions;
use crate::postgres::facts::{
    AbroadFacts, Access, AccessRule, DatabaseFacts, Expiry, InsideFacts, Installed, Membership, Powers, RoleFacts,
    RoleShape, ServerFacts,
};
use crate::postgres::session::AdminSession;
use crate::postgres::statements::{self, MAINTENANCE_GROUP};
use crate::postgres::version::ServerVersion;

/// The server as a whole, as far as it takes one round trip.
pub(crate) async fn server(session: &AdminSession) -> Result<ServerFacts> {
    let sql = "SELECT current_setting('server_version_num')::int4, current_user::text, \
         (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), current_setting('max_connections')::int4, \
         EXISTS (SELECT FROM pg_roles WHERE rolname = $1), \
         ARRAY(SELECT DISTINCT datname::text FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a \
               WHERE datname IN (current_database(), 'template1') AND a.grantee = 0)";
    let grantors_sql = "SELECT DISTINCT d.datname::text, pg_get_userbyid(a.grantor)::text FROM pg_database d, aclexplode(d.datacl) a \
         WHERE a.grantee = 0 AND a.grantor <> d.datdba";
    let (rows, grantors) = futures_util::future::try_join(
        session.read("read the server's state", sql, &[(&MAINTENANCE_GROUP, Type::TEXT)]),
        session.read("read who has given rights to everybody", grantors_sql, &[]),
    )
    .await?;
    let row = rows.first().ok_or_else(|| Error::failed("server_error", "the server told nothing about itself"))?;
    let open: Vec<String> = row.get(5);
    let mut third_grantors: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in &grantors {
        third_grantors.entry(row.get(0)).or_default().insert(row.get(1));
    }
    Ok(ServerFacts {
        version: ServerVersion::new(row.get::<_, i32>(0).unsigned_abs()),
        ours: false,
        admin: row.get(1),
        superuser: row.get(2),
        powers: Powers::default(),
        max_connections: row.get::<_, i32>(3).unsigned_abs(),
        maintenance_group: row.get(4),
        open_to_public: open.into_iter().collect(),
        third_grantors,
        visitors: BTreeMap::new(),
        temporary: BTreeMap::new(),
    })
}

/// What a trial login calls itself. It is no use of a login: one that a killed run left behind must not be taken for one.
pub(crate) const PROOF: &str = "shareddb proof";

/// The roles of these names that exist, and their stored passwords by role, as far as the admin may see them.
pub(crate) async fn roles(
    session: &AdminSession,
    server: &ServerFacts,
    names: &[String],
    database: &str,
) -> Result<(BTreeMap<String, RoleFacts>, BTreeMap<String, String>)> {
    let (table, password, administered, settable) = if server.superuser {
        ("pg_authid", "rolpassword", "true", "true")
    } else {
        let has = |how: &str| format!("pg_has_role(current_user, r.oid, '{how}')");
        ("pg_roles", "NULL", &*has("MEMBER WITH ADMIN OPTION"), &*has("SET"))
    };
    let roles_sql = format!(
        "SELECT rolname::text, rolcanlogin, rolinherit, rolsuper, rolcreatedb, rolcreaterole, rolreplication, \
         rolbypassrls, rolconnlimit, {password}::text, coalesce(rolvaliduntil, 'infinity') = 'infinity', rolvaliduntil <= now(), \
         CASE WHEN isfinite(rolvaliduntil) THEN extract(epoch FROM rolvaliduntil)::int8 END, \
         (SELECT count(*)::int4 FROM pg_stat_activity a WHERE a.usesysid = r.oid AND a.application_name <> $2), \
         {administered}, {settable} \
         FROM {table} r WHERE rolname = ANY ($1) ORDER BY 1"
    );
    // Options of memberships have columns of their own from 16 on; reading the row as JSON asks for them on any version.
    let members_sql = "SELECT g.rolname::text, m.rolname::text, x.admin_option, \
         coalesce((to_jsonb(x) ->> 'inherit_option')::bool, true) AND coalesce((to_jsonb(x) ->> 'set_option')::bool, true), \
         CASE WHEN to_jsonb(x) ? 'set_option' THEN pg_get_userbyid(x.grantor)::text ELSE '' END \
         FROM pg_auth_members x JOIN pg_roles g ON g.oid = x.roleid JOIN pg_roles m ON m.oid = x.member \
         WHERE g.rolname = ANY ($1) OR m.rolname = ANY ($1)";
    let settings_sql = "SELECT r.rolname::text, d.datname IS NOT NULL, unnest(s.setconfig) \
         FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase \
         WHERE r.rolname = ANY ($1) AND (s.setdatabase = 0 OR d.datname = $2)";
    let (roles, members, settings) = futures_util::future::try_join3(
        session.read("read roles", &roles_sql, &[(&names, Type::TEXT_ARRAY), (&PROOF, Type::TEXT)]),
        session.read("read memberships", members_sql, &[(&names, Type::TEXT_ARRAY)]),
        session.read("read role settings", settings_sql, &[(&names, Type::TEXT_ARRAY), (&database, Type::TEXT)]),
    )
    .await?;

    let mut facts = BTreeMap::new();
    let mut verifiers = BTreeMap::new();
    for row in roles {
        let name: String = row.get(0);
        let verifier: Option<String> = row.get(9);
        let role = RoleFacts {
            shape: RoleShape {
                login: row.get(1),
                inherit: row.get(2),
                superuser: row.get(3),
                createdb: row.get(4),
                createrole: row.get(5),
                replication: row.get(6),
                bypassrls: row.get(7),
                connection_limit: row.get(8),
            },
            expiry: {
                let end = row.get::<_, Option<i64>>(12).and_then(|second| Timestamp::from_second(second).ok());
                match (row.get(10), row.get::<_, Option<bool>>(11)) {
                    (true, _) => Expiry::Never,
                    (false, Some(true)) => Expiry::Past(end.unwrap_or(Timestamp::MIN)),
                    (false, _) => Expiry::Future(end.unwrap_or(Timestamp::MAX)),
                }
            },
            has_password: if server.superuser { verifier.is_some() } else { row.get(1) },
            administered: row.get(14),
            settable: row.get(15),
            groups: BTreeMap::new(),
            members: BTreeMap::new(),
            settings: BTreeMap::new(),
            database_settings: BTreeMap::new(),
            sessions: row.get::<_, i32>(13).unsigned_abs(),
        };
        verifiers.extend(verifier.map(|verifier| (name.clone(), verifier)));
        facts.insert(name, role);
    }
    for row in members {
        let (group, member): (String, String) = (row.get(0), row.get(1));
        let membership = Membership { admin: row.get(2), usable: row.get(3) };
        let grantor: String = row.get(4);
        if let Some(role) = facts.get_mut(&member) {
            role.groups.entry(group.clone()).or_default().insert(grantor.clone(), membership);
        }
        if let Some(role) = facts.get_mut(&group) {
            role.members.entry(member).or_default().insert(grantor, membership);
        }
    }
    for row in settings {
        let (role, in_database, setting): (String, bool, String) = (row.get(0), row.get(1), row.get(2));
        if let (Some(role), Some((name, value))) = (facts.get_mut(&role), setting.split_once('=')) {
            let settings = if in_database { &mut role.database_settings } else { &mut role.settings };
            // Some are stored with capitals, such as TimeZone; names of settings have no case.
            settings.insert(name.to_lowercase(), value.to_owned());
        }
    }
    Ok((facts, verifiers))
}

/// A database from outside, or `None` when there is none of this name. Sessions of `own` roles are no strangers there, nor are
/// those that enter with the rights of `guests`.
pub(crate) async fn database(
    session: &AdminSession,
    name: &str,
    own: &[String],
    guests: &[String],
) -> Result<Option<DatabaseFacts>> {
    let database_sql = format!(
        "SELECT pg_get_userbyid(datdba)::text, datallowconn, datconnlimit, datistemplate, \
         ARRAY(SELECT DISTINCT split_part(c, '=', 1) FROM pg_db_role_setting, unnest(setconfig) c \
               WHERE setdatabase = d.oid AND setrole = 0), \
         ARRAY(SELECT DISTINCT a.usename::text FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid \
               WHERE a.datid = d.oid AND {}), \
         ARRAY(SELECT gid FROM pg_prepared_xacts WHERE database = d.datname ORDER BY 1), \
         coalesce((to_jsonb(d) ->> 'dathasloginevt')::bool, false) \
         FROM pg_database d WHERE datname = $1",
        statements::is_stranger("$2", "$3")
    );
    let access_sql = "SELECT CASE WHEN a.grantee = 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, \
         a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END \
         FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a \
         WHERE datname = $1 AND a.grantee <> d.datdba";
    let (rows, access) = futures_util::future::try_join(
        session.read(
            "read the database's state",
            &database_sql,
            &[(&name, Type::TEXT), (&own, Type::TEXT_ARRAY), (&guests, Type::TEXT_ARRAY)],
        ),
        session.read("read the database's rights", access_sql, &[(&name, Type::TEXT)]),
    )
    .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let mut facts = DatabaseFacts {
        owner: row.get(0),
        allows_connections: row.get(1),
        connection_limit: row.get(2),
        template: row.get(3),
        invalid: row.get::<_, i32>(2) == INVALID_DATABASE,
        access: BTreeMap::new(),
        settings: row.get::<_, Vec<String>>(4).into_iter().collect(),
        strangers: row.get::<_, Vec<String>>(5).into_iter().collect(),
        prepared: row.get(6),
        login_trigger: row.get(7),
    };
    for row in access {
        let (grantee, right): (String, String) = (row.get(0), row.get(1));
        facts.access.entry(grantee).or_default().insert(right);
    }
    Ok(Some(facts))
}

/// What roles have outside the database `own`. What is in this session's own database goes with them. That they may enter
/// the databases of `hosts` is nothing to tell.
pub(crate) async fn abroad(
    session: &AdminSession,
    own: &str,
    roles: &[String],
    hosts: &[String],
) -> Result<AbroadFacts> {
    let access_sql = "SELECT DISTINCT d.datname::text, r.rolname::text, pg_get_userbyid(a.grantor)::text \
         FROM pg_database d, aclexplode(d.datacl) a JOIN pg_roles r ON r.oid = a.grantee \
         WHERE d.datname <> $1 AND d.datdba <> r.oid AND r.rolname = ANY ($2) AND NOT d.datname = ANY ($3)";
    let enterable_sql = "SELECT d.datname::text, r.rolname::text FROM pg_database d \
         JOIN pg_roles r ON r.oid = d.datdba OR r.rolname = d.datname WHERE d.datname <> $1 AND r.rolname = ANY ($2)";
    // Who owns something has deptype 'o'; the others are rights, policies and the like.
    let objects_sql = "SELECT d.datname::text, bool_or(s.deptype = 'o') FROM pg_shdepend s \
         JOIN pg_roles r ON r.oid = s.refobjid JOIN pg_database d ON d.oid = s.dbid \
         WHERE s.refclassid = 'pg_authid'::regclass AND d.datname <> $1 AND d.datname <> current_database() \
         AND r.rolname = ANY ($2) GROUP BY 1";
    let sessions_sql = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname <> $1 AND usename = ANY ($2) \
         AND NOT datname = ANY ($3) AND application_name <> $4)";
    // A membership goes with the first of its two roles; only its grantor has to stay as long as it. Roles are dropped from
    // the last to the first.
    let ties_sql = "SELECT pg_describe_object(s.classid, s.objid, 0), s.deptype = 'o' AND s.dbid = 0 FROM pg_shdepend s \
         JOIN pg_roles r ON r.oid = s.refobjid \
         WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = ANY ($2) \
         AND s.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) \
         AND NOT (s.classid = 'pg_database'::regclass AND s.objid IN (SELECT oid FROM pg_database WHERE datname = $1)) \
         AND NOT (s.classid = 'pg_auth_members'::regclass AND EXISTS (SELECT FROM pg_auth_members m \
               JOIN pg_roles ends ON ends.oid IN (m.roleid, m.member) WHERE to_jsonb(m) ->> 'oid' = s.objid::text \
               AND array_position($2, ends.rolname::text) >= array_position($2, r.rolname::text)))";
    let all: [(&(dyn ToSql + Sync), Type); 4] =
        [(&own, Type::TEXT), (&roles, Type::TEXT_ARRAY), (&hosts, Type::TEXT_ARRAY), (&PROOF, Type::TEXT)];
    let (access, enterable, objects, sessions, ties) = futures_util::future::try_join5(
        session.read("read rights on other databases", access_sql, &all[..3]),
        session.read("look for databases of the app's roles", enterable_sql, &all[..2]),
        session.read("look for objects in other databases", objects_sql, &all[..2]),
        session.read("look for sessions in other databases", sessions_sql, &all),
        session.read("look for what else the app's roles have", ties_sql, &all[..2]),
    )
    .await?;
    let having = |owned: bool| {
        let rows = objects.iter().filter(move |row| row.get::<_, bool>(1) == owned);
        rows.map(|row| row.get(0)).collect()
    };
    Ok(AbroadFacts {
        access: access
            .iter()
            .map(|row| Access { database: row.get(0), role: row.get(1), grantor: row.get(2) })
            .collect(),
        sessions: sessions.first().is_some_and(|row| row.get(0)),
        enterable: enterable.iter().map(|row| (row.get(0), row.get(1))).collect(),
        objects: having(true),
        rights: having(false),
        ties: ties.iter().filter_map(|row| row.get(0)).collect(),
        estate: ties.iter().any(|row| row.get(1)),
    })
}

/// `pg_database.datconnlimit` of a database whose DROP was interrupted (`DATCONNLIMIT_INVALID_DB` in the sources).
const INVALID_DATABASE: i32 = -2;

/// An app's database from inside; the session has to be in it.
pub(crate) async fn inside(session: &AdminSession, app: &App) -> Result<InsideFacts> {
    let schemas_sql =
        "SELECT nspname::text, pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_t%'";
    let extensions_sql = "SELECT e.extname::text, n.nspname::text, r.rolsuper OR r.rolname = current_user FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace \
         JOIN pg_roles r ON r.oid = e.extowner";
    // Default privileges and user mappings are about a role, and REASSIGN OWNED passes over them.
    let strays_sql = "SELECT DISTINCT pg_get_userbyid(refobjid)::text FROM pg_shdepend \
         WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND refclassid = 'pg_authid'::regclass AND deptype = 'o' AND pg_get_userbyid(refobjid) = ANY ($1) \
         AND classid <> ALL (ARRAY['pg_default_acl'::regclass, 'pg_user_mapping'::regclass])";
    let logins = [app.logins[0].to_string(), app.logins[1].to_string(), app.maintenance.to_string()];
    let (schemas, extensions, strays) = futures_util::future::try_join3(
        session.read("read schemas", schemas_sql, &[]),
        session.read("read extensions", extensions_sql, &[]),
        session.read("look for stray objects", strays_sql, &[(&logins.as_slice(), Type::TEXT_ARRAY)]),
    )
    .await?;
    let mut facts = InsideFacts {
        schemas: schemas.iter().map(|row| (row.get(0), row.get(1))).collect(),
        safe_schemas: BTreeSet::new(),
        extensions: extensions
            .iter()
            .map(|row| (row.get(0), Installed { schema: row.get(1), of_admin: row.get(2) }))
            .collect(),
        strays: strays.iter().map(|row| row.get(0)).collect(),
    };
    if facts.missing(&app.extensions).next().is_some() {
        facts.safe_schemas = extensions::safe_schemas(session).await?;
    }
    Ok(facts)
}

/// Tries the settings on the admin's own session, and takes them back.
///
/// # Errors
/// `InvalidInput` naming the first setting that the server does not know or whose value it does not accept,
/// `PermissionDenied` for one that the admin may not set.
pub(crate) async fn check_settings(
    session: &AdminSession,
    server: &ServerFacts,
    settings: &BTreeMap<SettingName, String>,
) -> Result<()> {
    let storable = if server.superuser {
        "true"
    } else {
        "EXISTS (SELECT FROM pg_settings WHERE lower(name) = $1) OR has_parameter_privilege($1, 'SET')"
    };
    // A local change ends with the statement's own transaction. Old names, such as sort_mem, are taken by SET and listed
    // nowhere; what is stored has the present one.
    let sql = format!(
        "SELECT set_config($1, $2, true), $1 LIKE '%.%' OR EXISTS (SELECT FROM pg_settings WHERE lower(name) = $1), {storable}"
    );
    let forbidden = |name: &str| {
        let statement = statements::grant_setting(name, &server.admin);
        Error::permission_denied("setting_forbidden", format!("the admin may not set {name}"))
            .with_hint(format!("as a superuser: {statement}"))
    };
    for (name, value) in settings {
        let name = name.as_str();
        let refused = |message| {
            Error::invalid_input("setting_invalid", message)
                .with_hint("`SELECT name, short_desc FROM pg_settings` lists what there is")
        };
        match session.read("try a setting", &sql, &[(&name, Type::TEXT), (value, Type::TEXT)]).await {
            Ok(rows) if rows.first().is_some_and(|row| row.get(1) && !row.get::<_, bool>(2)) => {
                return Err(forbidden(name));
            }
            Ok(rows) if rows.first().is_some_and(|row| row.get(1)) => {}
            Ok(_) => {
                return Err(refused(format!(
                    "the server lists no setting {name}: it is an old name, or none that can be kept"
                )));
            }
            // The server is gone, which says nothing about the setting.
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) if error.code() == "permission_denied" => {
                return Err(forbidden(name).with_source(error));
            }
            Err(error) => {
                return Err(refused(format!("the server does not accept {name} = {value:?}")).with_source(error));
            }
        }
    }
    Ok(())
}

/// One line of a list of apps.
pub(crate) struct Usage {
    /// Size in bytes; `None` while the database does not exist or is not to be entered.
    pub(crate) size: Option<i64>,
    pub(crate) sessions: u32,
}

/// Size and sessions by database.
pub(crate) async fn usage(session: &AdminSession, databases: &[String]) -> Result<BTreeMap<String, Usage>> {
    let sql = "SELECT datname::text, CASE WHEN datconnlimit <> $2 AND (has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')) \
         THEN pg_database_size(oid) END, \
         (SELECT count(*)::int4 FROM pg_stat_activity a WHERE a.datid = d.oid AND a.backend_type = 'client backend') \
         FROM pg_database d WHERE datname = ANY ($1)";
    let rows =
        session.read("read sizes", sql, &[(&databases, Type::TEXT_ARRAY), (&INVALID_DATABASE, Type::INT4)]).await?;
    let usage = |row: &tokio_postgres::Row| Usage { size: row.get(1), sessions: row.get::<_, i32>(2).unsigned_abs() };
    Ok(rows.iter().map(|row| (row.get(0), usage(row))).collect())
}

/// The lines of `pg_hba.conf`, and whether the file was changed after it was loaded.
pub(crate) async fn access_rules(session: &AdminSession) -> Result<(Vec<AccessRule>, bool)> {
    let sql = "SELECT line_number, coalesce(database, '{}'), coalesce(user_name, '{}'), coalesce(auth_method, ''), error \
         FROM pg_hba_file_rules";
    let rule = |row: &tokio_postgres::Row| AccessRule {
        line: row.get(0),
        databases: row.get(1),
        users: row.get(2),
        method: row.get(3),
        error: row.get(4),
    };
    let stale_sql =
        "SELECT coalesce((pg_stat_file(current_setting('hba_file'), true)).modification > pg_conf_load_time(), false)";
    let (rules, stale) = futures_util::future::join(
        session.read("read pg_hba.conf", sql, &[]),
        session.read("look at pg_hba.conf", stale_sql, &[]),
    )
    .await;
    let stale = match stale {
        // Who was given the rules need not have been given the file.
        Err(error) if error.code() == "permission_denied" => Vec::new(),
        stale => stale?,
    };
    Ok((rules?.iter().map(rule).collect(), stale.first().is_some_and(|row| row.get(0))))
}
