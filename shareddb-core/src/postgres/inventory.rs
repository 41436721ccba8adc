//! Reading what a hand-made app consists of. Nothing of the app's runs: only catalogs are read, under a pinned search path.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::{try_join, try_join4, try_join5};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::adoption::Grant;
use crate::error::{Error, Result};
use crate::postgres::legacy::{
    DefaultRight, Elsewhere, EventTrigger, Inventory, LoginFacts, Object, ObjectKind, ObjectName, Outside, Resident,
};
use crate::postgres::session::AdminSession;
use crate::postgres::version::ServerVersion;

/// What can be known without entering the database. Roles of `ours` are those of apps that are recorded. An admin who is no
/// superuser sees neither how the password is stored nor the server's file of settings.
///
/// # Errors
/// `NotFound` when there is no such database. That there is no such login is not an error.
pub(crate) async fn outside(
    session: &AdminSession,
    superuser: bool,
    login: &str,
    database: &str,
    ours: &[String],
) -> Result<Outside> {
    let both: [(&(dyn ToSql + Sync), Type); 2] = [(&login, Type::TEXT), (&database, Type::TEXT)];
    let all = [both[0].clone(), both[1].clone(), (&ours as &(dyn ToSql + Sync), Type::TEXT_ARRAY)];
    let ((about, role, elsewhere, residents, public_only), (access, settings, path_of_all, hidden)) = try_join(
        try_join5(
            session.read("read the database's state", DATABASE, &both[1..]),
            session.read("read the login's state", LOGIN, &both[..1]),
            session.read("see where else the login is used", ELSEWHERE, &both),
            session.read("see who has rights in the database", RESIDENTS, &both),
            session.read("see whom PUBLIC's right lets in", PUBLIC_ONLY, &all),
        ),
        async {
            try_join4(
                session.read("read the database's rights", ACCESS, &both[1..]),
                session.read("read the database's settings", SETTINGS, &both[1..]),
                session.read("read the search path of all roles", PATH_OF_ALL, &[]),
                hidden(session, superuser, login),
            )
            .await
        },
    )
    .await?;
    let row = about.first().ok_or_else(|| missing(database))?;
    let value = |row: &Row| row.get::<_, String>(0);
    Ok(Outside {
        slots: row.get(0),
        comment: row.get(1),
        login: role.first().map(|row| LoginFacts { md5: hidden.md5, ..login_facts(row) }),
        elsewhere: elsewhere.iter().map(elsewhere_facts).collect(),
        residents: residents
            .iter()
            .map(|row| Resident { role: row.get(0), owned: row.get(1), enters: row.get(2) })
            .collect(),
        public_only: public_only.iter().map(value).collect(),
        access: access.iter().map(grant).collect(),
        settings: settings.iter().map(|row| (row.get::<_, String>(0).to_lowercase(), row.get(1))).collect(),
        default_path: path_of_all.first().map(value).or(hidden.path).unwrap_or_else(|| BUILT_IN_PATH.to_owned()),
    })
}

/// What only a superuser sees.
#[derive(Default)]
struct Hidden {
    /// How the login's password is stored.
    md5: bool,
    /// The search path in the server's file of settings.
    path: Option<String>,
}

async fn hidden(session: &AdminSession, superuser: bool, login: &str) -> Result<Hidden> {
    if !superuser {
        return Ok(Hidden::default());
    }
    let (stored, path) = try_join(
        session.read("read how the login's password is stored", STORED_AS_MD5, &[(&login, Type::TEXT)]),
        session.read("read the search path of the server", PATH_OF_SERVER, &[]),
    )
    .await?;
    Ok(Hidden { md5: stored.first().is_some_and(|row| row.get(0)), path: path.first().map(|row| row.get(0)) })
}

fn missing(database: &str) -> Error {
    Error::not_found("database_not_found", format!("there is no database {database:?} to adopt"))
        .with_hint("name it with --database; or leave --adopt out to make a new one")
}

/// What counts where nobody has said anything.
const BUILT_IN_PATH: &str = "\"$user\", public";

const DATABASE: &str = "SELECT ARRAY(SELECT slot_name::text FROM pg_replication_slots WHERE database = d.datname ORDER BY 1), \
     shobj_description(d.oid, 'pg_database') FROM pg_database d WHERE datname = $1";

const LOGIN: &str = "SELECT oid, rolname = current_user OR oid = 10, \
     CASE WHEN isfinite(rolvaliduntil) THEN rolvaliduntil::text END, shobj_description(oid, 'pg_authid') \
     FROM pg_roles WHERE rolname = $1";

const STORED_AS_MD5: &str = "SELECT coalesce(rolpassword LIKE 'md5%', false) FROM pg_authid WHERE rolname = $1";

const ELSEWHERE: &str = "SELECT coalesce(d.datname, '')::text, s.classid::regclass::text, s.deptype = 'o', count(*), \
     coalesce(array_agg(coalesce(o.datname, t.spcname)::text) FILTER (WHERE s.dbid = 0 AND coalesce(o.datname, t.spcname) IS NOT NULL), '{}') \
     FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid LEFT JOIN pg_database d ON d.oid = s.dbid \
     LEFT JOIN pg_database o ON s.dbid = 0 AND s.classid = 'pg_database'::regclass AND o.oid = s.objid \
     LEFT JOIN pg_tablespace t ON s.dbid = 0 AND s.classid = 'pg_tablespace'::regclass AND t.oid = s.objid \
     WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = $1 AND d.datname IS DISTINCT FROM $2 \
     AND o.datname IS DISTINCT FROM $2 AND s.classid <> 'pg_auth_members'::regclass GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";

const RESIDENTS: &str = "SELECT r.rolname::text, count(*) FILTER (WHERE s.deptype = 'o' \
           AND s.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)), \
     has_database_privilege(r.oid, d.oid, 'CONNECT') \
     FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid JOIN pg_database d ON d.oid = s.dbid \
     WHERE s.refclassid = 'pg_authid'::regclass AND d.datname = $2 AND r.rolname <> $1 AND NOT r.rolsuper \
     GROUP BY r.oid, r.rolname, d.oid ORDER BY 1";

const PUBLIC_ONLY: &str = "SELECT r.rolname::text FROM pg_roles r, pg_database d \
     WHERE d.datname = $2 AND r.rolcanlogin AND NOT r.rolsuper AND r.rolname <> $1 AND r.rolname <> current_user AND NOT r.rolname = ANY ($3) \
     AND has_database_privilege(r.oid, d.oid, 'CONNECT') \
     AND NOT EXISTS (SELECT FROM aclexplode(d.datacl) a WHERE a.grantee NOT IN (0, d.datdba) \
           AND a.privilege_type = 'CONNECT' AND pg_has_role(r.oid, a.grantee, 'USAGE')) \
     AND NOT EXISTS (SELECT FROM pg_shdepend s JOIN pg_roles g ON g.oid = s.refobjid \
           WHERE s.dbid = d.oid AND s.refclassid = 'pg_authid'::regclass AND NOT g.rolsuper AND g.rolname <> $1 \
           AND pg_has_role(r.oid, g.oid, 'USAGE')) ORDER BY 1";

const ACCESS: &str = "SELECT CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, a.is_grantable \
     FROM pg_database d, aclexplode(coalesce(datacl, acldefault('d', datdba))) a WHERE datname = $1 ORDER BY 1, 2";

const SETTINGS: &str = "SELECT split_part(c, '=', 1), substr(c, strpos(c, '=') + 1) FROM pg_db_role_setting s \
     JOIN pg_database d ON d.oid = s.setdatabase, unnest(setconfig) c WHERE d.datname = $1 AND setrole = 0";

const PATH_OF_ALL: &str = "SELECT substr(c, 13) FROM pg_db_role_setting, unnest(setconfig) c \
     WHERE setdatabase = 0 AND setrole = 0 AND c LIKE 'search_path=%'";

const PATH_OF_SERVER: &str =
    "SELECT setting FROM pg_file_settings WHERE lower(name) = 'search_path' AND applied ORDER BY seqno DESC LIMIT 1";

fn login_facts(row: &Row) -> LoginFacts {
    LoginFacts { oid: row.get(0), is_admin: row.get(1), valid_until: row.get(2), comment: row.get(3), md5: false }
}

fn elsewhere_facts(row: &Row) -> Elsewhere {
    Elsewhere { database: row.get(0), class: row.get(1), owned: row.get(2), count: row.get(3), names: row.get(4) }
}

fn grant(row: &Row) -> Grant {
    Grant { to: row.get(0), right: row.get(1), grantable: row.get(2) }
}

/// What is in the session's database. `role` is the login, or the owner role that it has become.
pub(crate) async fn inside(session: &AdminSession, role: &str, version: ServerVersion) -> Result<Inventory> {
    let parameter: [(&(dyn ToSql + Sync), Type); 1] = [(&role, Type::TEXT)];
    let multiranges = version.major() < 17;
    let of_schemas = if version.major() >= 15 { OF_SCHEMAS } else { "false" };
    let objects = OBJECTS.replace("{of_schemas}", of_schemas);
    let naming = |sql: &str| sql.replace("{names}", NAMES);
    let (policies_sql, users_sql) = (naming(POLICIES), naming(NAME_USERS));
    let ((objects, triggers, policies, users), (schemas, rights, public, subscriptions)) = try_join(
        try_join4(
            session.read("list the objects", &objects, &[(&multiranges, Type::BOOL), (&role, Type::TEXT)]),
            session.read("list event triggers", EVENT_TRIGGERS, &[]),
            session.read("look for policies on names", &policies_sql, &[]),
            session.read("look for uses of role names", &users_sql, &parameter),
        ),
        try_join4(
            session.read("list schemas", "SELECT nspname::text FROM pg_namespace", &[]),
            session.read("read default rights", DEFAULT_RIGHTS, &parameter),
            session.read("read the rights on schema public", PUBLIC, &[]),
            session.read("list subscriptions", SUBSCRIPTIONS, &[]),
        ),
    )
    .await?;
    Ok(Inventory {
        objects: objects.iter().map(object).collect::<Result<_>>()?,
        schemas: schemas.iter().map(|row| row.get(0)).collect::<BTreeSet<_>>(),
        event_triggers: triggers.iter().map(event_trigger).collect(),
        policies: policies.iter().map(|row| (row.get(0), row.get(1))).collect(),
        name_users: users.iter().map(|row| row.get(0)).collect(),
        default_rights: rights
            .iter()
            .map(|row| DefaultRight { role: row.get(0), schema: row.get(1), objects: row.get(2) })
            .collect(),
        public: public.first().map(|row| (row.get(0), public.iter().filter_map(public_grant).collect())),
        subscriptions: subscriptions.iter().map(|row| (row.get(0), row.get(1))).collect::<BTreeMap<_, _>>(),
    })
}

/// Everything that has an owner, an admin's objects too: dependencies on pinned roles are recorded nowhere. A row of a
/// multirange type stands for itself where ALTER TYPE of its range leaves it behind. Numbers of large objects may be chosen.
const OBJECTS: &str = "WITH o(classid, objid, owner) AS ( \
       SELECT 'pg_class'::regclass::oid, oid, relowner FROM pg_class WHERE relkind IN ('r','p','f','v','m','S') AND relpersistence <> 't' \
       UNION ALL SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc \
       UNION ALL SELECT 'pg_type'::regclass, t.oid, typowner FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid \
             WHERE (t.typrelid = 0 OR c.relkind = 'c') AND (t.typtype <> 'm' OR $1) \
             AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid) \
       UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_' \
       UNION ALL SELECT 'pg_operator'::regclass, oid, oprowner FROM pg_operator \
       UNION ALL SELECT 'pg_opclass'::regclass, oid, opcowner FROM pg_opclass \
       UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfowner FROM pg_opfamily \
       UNION ALL SELECT 'pg_collation'::regclass, oid, collowner FROM pg_collation \
       UNION ALL SELECT 'pg_conversion'::regclass, oid, conowner FROM pg_conversion \
       UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgowner FROM pg_ts_config \
       UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictowner FROM pg_ts_dict \
       UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxowner FROM pg_statistic_ext \
       UNION ALL SELECT 'pg_language'::regclass, oid, lanowner FROM pg_language \
       UNION ALL SELECT 'pg_extension'::regclass, oid, extowner FROM pg_extension \
       UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwowner FROM pg_foreign_data_wrapper \
       UNION ALL SELECT 'pg_foreign_server'::regclass, oid, srvowner FROM pg_foreign_server \
       UNION ALL SELECT 'pg_event_trigger'::regclass, oid, evtowner FROM pg_event_trigger \
       UNION ALL SELECT 'pg_publication'::regclass, oid, pubowner FROM pg_publication \
       UNION ALL SELECT 'pg_subscription'::regclass, oid, subowner FROM pg_subscription \
             WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) \
       UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner FROM pg_largeobject_metadata) \
     SELECT i.type, i.identity, coalesce(i.schema, ''), pg_get_userbyid(o.owner)::text, coalesce(r.rolsuper OR r.rolname = current_user, false), \
       EXISTS (SELECT FROM pg_depend p WHERE (p.classid, p.objid, p.objsubid) = (o.classid, o.objid, 0) AND p.deptype = 'e'), \
       coalesce(t.typtype <> 'm', true) AND EXISTS (SELECT FROM pg_depend p WHERE (p.classid, p.objid, p.objsubid) = (o.classid, o.objid, 0) \
             AND (p.deptype = 'i' OR p.deptype = 'a' AND o.classid = 'pg_class'::regclass AND p.refobjsubid > 0)), \
       coalesce(c.relrowsecurity AND NOT c.relforcerowsecurity, false), coalesce(f.prosecdef, false), \
       coalesce(NOT l.lanpltrusted AND l.lanname <> 'sql' AND f.prokind <> 'a', false), \
       EXISTS (SELECT FROM pg_event_trigger e WHERE o.classid = 'pg_proc'::regclass AND e.evtfoid = o.objid), coalesce(b.puballtables OR {of_schemas}, false), o.objid, \
       o.classid = 'pg_namespace'::regclass AND EXISTS (SELECT FROM pg_roles x WHERE x.rolname = $2 AND has_schema_privilege(x.oid, o.objid, 'CREATE')) \
     FROM o CROSS JOIN LATERAL pg_identify_object(o.classid, o.objid, 0) i LEFT JOIN pg_roles r ON r.oid = o.owner \
       LEFT JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid \
       LEFT JOIN pg_type t ON o.classid = 'pg_type'::regclass AND t.oid = o.objid \
       LEFT JOIN pg_proc f ON o.classid = 'pg_proc'::regclass AND f.oid = o.objid LEFT JOIN pg_language l ON l.oid = f.prolang \
       LEFT JOIN pg_publication b ON o.classid = 'pg_publication'::regclass AND b.oid = o.objid \
     WHERE (o.objid >= 16384 OR o.classid = 'pg_largeobject'::regclass OR o.classid = 'pg_namespace'::regclass AND i.identity = 'public') AND coalesce(i.schema, '') !~ '^pg_(toast|temp)' \
       AND i.identity IS NOT NULL \
     ORDER BY 1, 2";

/// Publications of whole schemas, which 14 does not have.
const OF_SCHEMAS: &str = "EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = b.oid)";

/// Those whose function somebody can change who is no superuser are what matters.
const EVENT_TRIGGERS: &str = "SELECT evtname::text, evtenabled <> 'D', pg_get_userbyid(evtowner)::text, \
     pg_get_userbyid(p.proowner)::text, coalesce(r.rolsuper, false) \
     FROM pg_event_trigger e JOIN pg_proc p ON p.oid = evtfoid LEFT JOIN pg_roles r ON r.oid = p.proowner ORDER BY 1";

/// Expressions are searched in the form that they are stored in, where CURRENT_ROLE, CURRENT_USER, USER and SESSION_USER are a node
/// with these numbers on every major, and the functions of these names, and getpgusername(), have those. To show one as SQL, the
/// server would lock its table: one after the other up to the end of the statement, and behind whoever alters one.
const NAMES: &str = r"'\{(SQLVALUEFUNCTION :op (9|10|11|12)|FUNCEXPR :funcid (710|745|746)) '";

const POLICIES: &str = r"SELECT i.identity, p.polname::text FROM pg_policy p, pg_identify_object('pg_class'::regclass, polrelid, 0) i
     WHERE i.identity IS NOT NULL AND concat(polqual, polwithcheck) ~ {names} ORDER BY 1, 2";

const NAME_USERS: &str = r"SELECT found FROM (SELECT i.type || ' ' || i.identity AS found FROM pg_proc p, pg_identify_object('pg_proc'::regclass, p.oid, 0) i
     WHERE p.oid >= 16384 AND (prosrc ~* '\m(current_user|session_user|current_role|getpgusername)\M' OR strpos(prosrc, $1) > 0 OR prosqlbody::text ~ {names})
       AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_proc'::regclass AND x.objid = p.oid AND x.deptype = 'e')
     UNION ALL SELECT i.type || ' ' || i.identity FROM pg_attrdef a, pg_identify_object('pg_attrdef'::regclass, a.oid, 0) i
     WHERE adbin::text ~ {names}
     UNION ALL SELECT i.type || ' ' || i.identity FROM pg_class c, pg_identify_object('pg_class'::regclass, c.oid, 0) i
     WHERE c.oid >= 16384 AND relkind IN ('v', 'm')
       AND EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = c.oid AND ev_action::text ~ {names})) users WHERE found IS NOT NULL ORDER BY 1";

const DEFAULT_RIGHTS: &str = "SELECT DISTINCT pg_get_userbyid(d.defaclrole)::text, n.nspname::text, \
     CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' \
           WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END \
     FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a JOIN pg_roles r ON r.oid = a.grantee \
     WHERE r.rolname = $1 AND d.defaclrole <> r.oid ORDER BY 1, 2, 3";

const PUBLIC: &str = "SELECT pg_get_userbyid(nspowner)::text, CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, \
     a.privilege_type, a.is_grantable FROM pg_namespace n LEFT JOIN LATERAL aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a ON true \
     WHERE nspname = 'public' ORDER BY 2, 3";

const SUBSCRIPTIONS: &str = "SELECT subname::text, subenabled FROM pg_subscription \
     WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

fn object(row: &Row) -> Result<Object> {
    let kind: String = row.get(0);
    let identity: String = row.get(1);
    let kind = ObjectKind::of(&kind)
        .ok_or_else(|| Error::failed("server_error", format!("the server lists {kind} {identity}, an unknown kind")))?;
    Ok(Object {
        name: ObjectName { kind, identity, oid: row.get(12) },
        schema: row.get(2),
        owner: row.get(3),
        of_admin: row.get(4),
        in_extension: row.get(5),
        follows: row.get(6),
        unforced: row.get(7),
        definer: row.get(8),
        untrusted: row.get(9),
        of_trigger: row.get(10),
        all_tables: row.get(11),
        creatable: row.get(13),
    })
}

fn event_trigger(row: &Row) -> EventTrigger {
    EventTrigger {
        name: row.get(0),
        enabled: row.get(1),
        owner: row.get(2),
        function_owner: row.get(3),
        function_of_superuser: row.get(4),
    }
}

fn public_grant(row: &Row) -> Option<Grant> {
    let right: Option<String> = row.get(2);
    right.map(|right| Grant { to: row.get(1), right, grantable: row.get(3) })
}
