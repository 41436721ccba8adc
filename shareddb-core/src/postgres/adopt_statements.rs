//! The statements of an adoption and of its undoing, as text.

use std::collections::BTreeMap;

use crate::adoption::Grant;
use crate::password::Verifier;
use crate::postgres::legacy::{DefaultRight, ObjectKind, ObjectName};
use crate::postgres::sql::{identifier, literal};
use crate::postgres::statements;

/// How long the transfer of one object waits for its lock; programs that want the object queue behind it meanwhile.
pub(crate) const TAKE_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '100ms'";

/// From 18 on the server warns of each MD5 password that is set; one that is carried over is nothing new.
pub(crate) const SILENCE_MD5: &str = "SET LOCAL md5_password_warnings = off";

/// The role's identity and the stored form of its password, which only a superuser sees.
pub(crate) fn stored_password(role: &str) -> String {
    format!("SELECT concat_ws(' ', oid, rolpassword) FROM pg_authid WHERE rolname = {}", literal(role))
}

/// The role's identity.
pub(crate) fn identity(role: &str) -> String {
    format!("SELECT oid FROM pg_roles WHERE rolname = {}", literal(role))
}

pub(crate) fn carry_password(role: &str, verifier: Option<&Verifier>, valid_until: Option<&str>) -> Vec<String> {
    let role = identifier(role);
    let password = verifier.map(|verifier| format!("ALTER ROLE {role} PASSWORD {}", literal(verifier.as_str())));
    let end = valid_until.map(|end| format!("ALTER ROLE {role} VALID UNTIL {}", literal(end)));
    password.into_iter().chain(end).collect()
}

/// What a login leaves behind when it becomes an owner role.
pub(crate) fn strip_login(owner: &str, database: &str) -> [String; 3] {
    let (owner, database) = (identifier(owner), identifier(database));
    [
        format!("ALTER ROLE {owner} PASSWORD NULL VALID UNTIL 'infinity'"),
        format!("ALTER ROLE {owner} RESET ALL"),
        format!("ALTER ROLE {owner} IN DATABASE {database} RESET ALL"),
    ]
}

pub(crate) fn own_public(owner: &str) -> String {
    format!("ALTER SCHEMA public OWNER TO {}", identifier(owner))
}

pub(crate) fn own(object: &ObjectName, owner: &str) -> String {
    format!("ALTER {} {} OWNER TO {}", object.kind.keyword(), object.identity, identifier(owner))
}

/// Takes code from its owner. It must not come to run with the rights of whoever has it then.
pub(crate) fn confiscate(object: &ObjectName, owner: &Owner<'_>) -> Vec<String> {
    let confine = format!("ALTER ROUTINE {} SECURITY INVOKER", object.identity);
    let owner = match owner {
        Owner::Role(name) => identifier(name),
        Owner::WhoeverRunsThis => "CURRENT_USER".to_owned(),
    };
    let own = format!("ALTER {} {} OWNER TO {owner}", object.kind.keyword(), object.identity);
    (object.kind == ObjectKind::Routine).then_some(confine).into_iter().chain([own]).collect()
}

/// Who is to have objects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'a> {
    Role(&'a str),
    WhoeverRunsThis,
}

/// Names are found in the system's own schema first, wherever this is typed.
pub(crate) const PIN: &str = "SET LOCAL search_path = pg_catalog, pg_temp";

/// Fails when one of these objects is not the owner's: statements before it went by names, and whoever may rename things can
/// have given a name to another object. The error is that of a text which is no number.
pub(crate) fn check_owner<'a>(objects: impl IntoIterator<Item = &'a ObjectName>, owner: &Owner<'_>) -> String {
    let owner = match owner {
        Owner::Role(name) => literal(name),
        Owner::WhoeverRunsThis => "current_user".to_owned(),
    };
    let mut places: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let mut count = 0;
    for object in objects {
        places.entry(object.kind.catalog()).or_default().push(object.oid.to_string());
        count += 1;
    }
    let owned = places.into_iter().map(|((catalog, column), oids)| {
        let oids = oids.join(", ");
        format!("SELECT o.oid FROM {catalog} o JOIN pg_roles r ON r.oid = {column} WHERE r.rolname = {owner} AND o.oid IN ({oids})")
    });
    format!(
        "SELECT format('another object has the name of %s of these by now', {count} - count(*))::int FROM ({}) owned HAVING count(*) <> {count}",
        owned.collect::<Vec<_>>().join(" UNION ALL ")
    )
}

/// What the error of [`check_owner`] is.
pub(crate) const NOT_A_NUMBER: &str = "22P02";

/// Hands an object over; what it hides from others stays hidden from its new owner, where that is asked for.
pub(crate) fn take(object: &ObjectName, owner: &str, force_row_security: bool) -> Vec<String> {
    let force = force_row_security.then(|| self::force_row_security(object));
    // In this order: afterwards it is no longer for its old owner to change.
    force.into_iter().chain([own(object, owner)]).collect()
}

/// Keeps rows hidden from whoever comes to own the table.
fn force_row_security(table: &ObjectName) -> String {
    format!("ALTER TABLE {} FORCE ROW LEVEL SECURITY", table.identity)
}

pub(crate) fn disable_event_trigger(name: &str) -> String {
    format!("ALTER EVENT TRIGGER {} DISABLE", identifier(name))
}

pub(crate) fn own_event_trigger(name: &str, owner: &str) -> String {
    format!("ALTER EVENT TRIGGER {} OWNER TO {}", identifier(name), identifier(owner))
}

pub(crate) fn grant_use_of_public(role: &str) -> String {
    format!("GRANT USAGE ON SCHEMA public TO {}", identifier(role))
}

pub(crate) fn revoke_default_right(right: &DefaultRight, owner: &str) -> String {
    let schema = right.schema.as_ref().map(|schema| format!(" IN SCHEMA {}", identifier(schema))).unwrap_or_default();
    let (role, objects, owner) = (identifier(&right.role), &right.objects, identifier(owner));
    format!("ALTER DEFAULT PRIVILEGES FOR ROLE {role}{schema} REVOKE ALL ON {objects} FROM {owner}")
}

/// Lets a login pass where pg_hba.conf asks for a membership in the role of the database's name, and gives it nothing else. Before
/// 16 a membership gives the group's own rights, and this group has none.
pub(crate) fn grant_passage(group: &str, member: &str, major: u32) -> String {
    let options = if major >= 16 { " WITH INHERIT FALSE, SET FALSE" } else { "" };
    format!("GRANT {} TO {}{options}", identifier(group), identifier(member))
}

/// Which sessions and prepared transactions keep others from an object; a prepared one is no process any more.
pub(crate) fn blockers(objects: &[&ObjectName]) -> String {
    let relations = objects.iter().filter(|object| object.kind.is_relation());
    let relations: Vec<String> =
        relations.map(|object| format!("to_regclass({})", literal(&object.identity))).collect();
    format!(
        "SELECT string_agg(DISTINCT CASE WHEN l.pid IS NULL \
             THEN format('prepared transaction %s of %s', to_json(p.gid), p.owner) \
             ELSE format('%s (process %s, %s)', a.usename, a.pid, coalesce(a.state, 'active')) END, ', ') \
         FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) \
           LEFT JOIN (pg_locks t JOIN pg_prepared_xacts p ON p.transaction = t.transactionid) \
             ON l.pid IS NULL AND t.pid IS NULL AND t.virtualtransaction = l.virtualtransaction \
         WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() \
         AND l.locktype = 'relation' AND l.relation = ANY (ARRAY[{}]::oid[]) \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        relations.join(", ")
    )
}

impl ObjectKind {
    /// Whether its lock is one on a relation.
    pub(crate) fn is_relation(self) -> bool {
        matches!(self, Self::Table | Self::ForeignTable | Self::Sequence | Self::View | Self::MaterializedView)
    }
}

/// Puts the rights on a database back as they were. What the owner itself had is its by being the owner.
pub(crate) fn database_rights_again(name: &str, others: &[&str], grants: &[Grant]) -> Vec<String> {
    rights_again(&format!("DATABASE {}", identifier(name)), others, grants)
}

/// The same for schema `public`.
pub(crate) fn public_rights_again(others: &[&str], grants: &[Grant]) -> Vec<String> {
    rights_again("SCHEMA public", others, grants)
}

/// `others` have what was given to them since.
fn rights_again(object: &str, others: &[&str], grants: &[Grant]) -> Vec<String> {
    let who = |to: &str| if to.is_empty() { "PUBLIC".to_owned() } else { identifier(to) };
    let grants = grants.iter().map(|Grant { to, right, grantable }| {
        let option = if *grantable { " WITH GRANT OPTION" } else { "" };
        format!("GRANT {right} ON {object} TO {}{option}", who(to))
    });
    let taken = others.iter().map(|role| format!("REVOKE ALL ON {object} FROM {}", identifier(role)));
    [format!("REVOKE ALL ON {object} FROM PUBLIC")].into_iter().chain(taken).chain(grants).collect()
}

/// The attributes of a login as they were.
pub(crate) fn login_again<'a>(login: &str, attributes: impl Iterator<Item = &'a String>) -> String {
    let attributes: Vec<&str> = attributes.map(String::as_str).collect();
    format!("ALTER ROLE {} {}", identifier(login), attributes.join(" "))
}

/// What the slots have made since becomes the owner role's, and their other rights go.
pub(crate) fn dissolve(roles: &[&str], owner: &str) -> [String; 3] {
    let roles = roles.iter().map(identifier).collect::<Vec<_>>().join(", ");
    [
        format!("REASSIGN OWNED BY {roles} TO {}", identifier(owner)),
        format!("DROP OWNED BY {roles}"),
        format!("DROP ROLE {roles}"),
    ]
}

pub(crate) fn set_for_database(database: &str, name: &str, value: &str) -> String {
    format!("ALTER DATABASE {} SET {}", identifier(database), statements::assignment(name, value))
}
