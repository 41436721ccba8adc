//! The unit of a plan: one change, complete in itself, with no secret in it.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::app::Slot;
use crate::change::Change;
use crate::mark::{Progress, RotationRecord};
use crate::names::{DatabaseName, HIDDEN, RoleName, SchemaName, SecretName, shown_value};
use crate::postgres::facts::RoleShape;
use crate::postgres::sql::escaped;
use crate::provision::adopt::Adoption;
use crate::secrets::Workload;

/// One change. Its order in a plan matters: every prefix leaves the app closed to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the objects that each variant names")]
pub enum Step {
    /// Make the group of all maintenance logins.
    CreateMaintenanceGroup,
    /// Take a database that is nobody's app from PUBLIC.
    CloseToPublic { database: String },
    /// Make the owner role and record the app on it.
    CreateOwner { role: RoleName, shape: RoleShape, progress: Progress },
    /// Make a login or the maintenance login, without password.
    CreateLogin { role: RoleName, shape: RoleShape },
    /// Give a role the attributes and the limit it ought to have.
    AlterRole { role: RoleName, shape: RoleShape },
    /// Take the password of a role that ought to have none.
    ClearPassword { role: RoleName },
    /// Take a membership that is not ours; from 16 on, one grant of it.
    RevokeMembership { group: String, member: String, grantor: Option<String> },
    /// Make a role a member of another.
    GrantMembership { group: String, member: RoleName },
    /// Let the admin, who is no superuser, act as a role.
    ActAs { role: RoleName },
    /// Set a setting of a role, everywhere or in the app's database. The value of one with a name of two parts is not shown.
    #[serde(serialize_with = "shown_setting")]
    SetForRole { role: RoleName, database: Option<DatabaseName>, name: String, value: String },
    /// Set the search path of a login in the app's database.
    SetSearchPath { role: RoleName, database: DatabaseName, path: Vec<String> },
    /// Reset a setting of a role that is not ours.
    ResetForRole { role: RoleName, database: Option<DatabaseName>, name: String },
    /// Take a right on a database of others from one of the app's roles.
    RevokeAccess { database: String, role: String, grantor: String },
    /// Record on the owner role what the app is to be, and what has begun.
    MarkOwner { role: RoleName, progress: Progress, rotation: Option<RotationRecord> },
    /// Drop what an interrupted DROP DATABASE left, or the database of an app that goes.
    DropDatabase { database: DatabaseName },
    /// Make the database, closed.
    CreateDatabase { database: DatabaseName, connections: u16 },
    /// Record the app on its database.
    MarkDatabase { database: DatabaseName, dropping: bool },
    /// Make the admin the owner of the database.
    OwnDatabase { database: DatabaseName },
    /// Leave rights on the database to the owner role only.
    SetAccess { database: DatabaseName, owner: RoleName, revoke: Vec<String> },
    /// Set the database's connection limit, and that it is no template.
    LimitDatabase { database: DatabaseName, connections: u16 },
    /// Reset a setting of the database itself.
    ResetForDatabase { database: DatabaseName, name: String },
    /// End the sessions of roles that go, or whose password got into wrong hands.
    EndSessions { roles: Vec<RoleName> },
    /// End the sessions of roles that have no business in the database.
    EndStrangers { database: DatabaseName },
    /// End the sessions of the app's roles in databases that are neither its own nor those of `hosts`, which have let it in.
    EndAbroad { own: Vec<RoleName>, hosts: Vec<String> },
    /// Take from roles that go what rights they have in a database of others.
    TakeRights { database: String, roles: Vec<RoleName> },
    /// Let connections in, as far as rights allow.
    OpenDatabase { database: DatabaseName },
    /// Let no more connections in.
    CloseDatabase { database: DatabaseName },
    /// Hand schema `public` to the owner role.
    OwnPublicSchema { owner: RoleName },
    /// Make the app's schema, owned by the owner role.
    CreateSchema { schema: SchemaName, owner: RoleName },
    /// Make a schema for extensions, in which the app may not create.
    CreateExtensionSchema { schema: String, owner: RoleName },
    /// Make an extension; those that it needs have steps of their own before it.
    CreateExtension { extension: String, schema: String },
    /// Hand what a login owns to the owner role.
    ReassignStrays { login: RoleName, owner: RoleName },
    /// Set the password of a login.
    SetPassword { login: RoleName, source: PasswordSource },
    /// Take the end date from a login's password.
    EndExpiry { login: RoleName },
    /// Have a login's password end, so many seconds from when it is done.
    SetExpiry { login: RoleName, grace: u64 },
    /// Record that a rotation has come to its end, and which login it has closed.
    EndRotation { role: RoleName, closed: Option<Slot>, left: Option<Progress> },
    /// Log in as the app and try what it can and cannot do; when all could be tried, record that nothing is left to do, or
    /// nothing but what is `left` to a superuser. What PUBLIC may enter is `open`, and is not tried.
    Prove { login: RoleName, open: Vec<String>, left: Option<Progress> },
    /// Write the Secret.
    PublishSecret { secret: SecretName, slot: Slot, replace: bool },
    /// Delete the Secret.
    DeleteSecret { secret: SecretName },
    /// Have the pods of a workload replaced, as `kubectl rollout restart` does. What hinders that is told and stops nothing.
    Restart { workload: Workload },
    /// Drop a role.
    DropRole { role: RoleName },
    /// A change of an adoption.
    Adopt(Adoption),
}

/// Where a password comes from. The password itself is never part of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PasswordSource {
    /// The Secret has it.
    Secret,
    /// It is made when the step is done.
    New,
}

/// Steps of one phase are done in one transaction where PostgreSQL allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// What all apps share; each by itself.
    Server,
    /// The moment at which an app is taken over, or given back: one transaction inside its database.
    Swap,
    /// Roles: one transaction.
    Roles,
    /// What cannot be in a transaction, and what waits for the one before.
    Alone,
    /// The database from outside: one transaction.
    Database,
    /// The database from inside: one transaction.
    Inside,
    /// What changes hands while the app works, each by itself.
    TakeAlone,
    /// What changes hands in larger lots.
    TakeTogether,
    /// The login's password: one transaction.
    Password,
    /// Not SQL of the admin.
    Outside,
}

impl Phase {
    /// Whether steps that are neighbours stand or fall together.
    pub(crate) fn is_transaction(self) -> bool {
        match self {
            Self::Swap | Self::Roles | Self::Database | Self::Inside | Self::TakeTogether | Self::Password => true,
            Self::Server | Self::Alone | Self::TakeAlone | Self::Outside => false,
        }
    }
}

impl Step {
    /// What kind of change it is.
    pub fn change(&self) -> Change {
        match self {
            Self::CreateMaintenanceGroup
            | Self::CreateOwner { .. }
            | Self::CreateLogin { .. }
            | Self::GrantMembership { .. }
            | Self::ActAs { .. }
            | Self::CreateDatabase { .. }
            | Self::CreateSchema { .. }
            | Self::CreateExtensionSchema { .. }
            | Self::CreateExtension { .. }
            | Self::PublishSecret { replace: false, .. } => Change::Add,
            Self::ClearPassword { .. }
            | Self::RevokeMembership { .. }
            | Self::ResetForRole { .. }
            | Self::ResetForDatabase { .. }
            | Self::DropDatabase { .. }
            | Self::RevokeAccess { .. }
            | Self::EndSessions { .. }
            | Self::EndStrangers { .. }
            | Self::EndAbroad { .. }
            | Self::TakeRights { .. }
            | Self::DeleteSecret { .. }
            | Self::DropRole { .. } => Change::Remove,
            Self::Prove { .. } => Change::Check,
            Self::Adopt(adoption) => adoption.change(),
            Self::CloseToPublic { .. }
            | Self::AlterRole { .. }
            | Self::SetForRole { .. }
            | Self::SetSearchPath { .. }
            | Self::MarkOwner { .. }
            | Self::MarkDatabase { .. }
            | Self::OwnDatabase { .. }
            | Self::SetAccess { .. }
            | Self::LimitDatabase { .. }
            | Self::OpenDatabase { .. }
            | Self::CloseDatabase { .. }
            | Self::OwnPublicSchema { .. }
            | Self::ReassignStrays { .. }
            | Self::SetPassword { .. }
            | Self::EndExpiry { .. }
            | Self::SetExpiry { .. }
            | Self::EndRotation { .. }
            | Self::Restart { .. }
            | Self::PublishSecret { replace: true, .. } => Change::Change,
        }
    }

    /// Whether it is done inside the app's database.
    pub(crate) fn is_inside(&self) -> bool {
        match self {
            Self::Adopt(adoption) => adoption.is_inside(),
            step => step.phase() == Phase::Inside,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self {
            Self::CreateMaintenanceGroup | Self::CloseToPublic { .. } => Phase::Server,
            Self::CreateOwner { .. }
            | Self::CreateLogin { .. }
            | Self::AlterRole { .. }
            | Self::ClearPassword { .. }
            | Self::RevokeMembership { .. }
            | Self::GrantMembership { .. }
            | Self::ActAs { .. }
            | Self::SetForRole { database: None, .. }
            | Self::ResetForRole { database: None, .. }
            | Self::RevokeAccess { .. }
            | Self::MarkOwner { .. }
            | Self::SetExpiry { .. }
            | Self::EndRotation { .. }
            | Self::DropRole { .. } => Phase::Roles,
            Self::DropDatabase { .. }
            | Self::CreateDatabase { .. }
            | Self::EndSessions { .. }
            | Self::EndStrangers { .. }
            | Self::EndAbroad { .. }
            | Self::OpenDatabase { .. }
            | Self::CloseDatabase { .. } => Phase::Alone,
            Self::MarkDatabase { .. }
            | Self::OwnDatabase { .. }
            | Self::SetAccess { .. }
            | Self::LimitDatabase { .. }
            | Self::ResetForDatabase { .. }
            | Self::SetForRole { .. }
            | Self::SetSearchPath { .. }
            | Self::ResetForRole { .. } => Phase::Database,
            Self::OwnPublicSchema { .. }
            | Self::CreateSchema { .. }
            | Self::CreateExtensionSchema { .. }
            | Self::CreateExtension { .. }
            | Self::ReassignStrays { .. } => Phase::Inside,
            Self::SetPassword { .. } | Self::EndExpiry { .. } => Phase::Password,
            Self::TakeRights { .. }
            | Self::Prove { .. }
            | Self::PublishSecret { .. }
            | Self::DeleteSecret { .. }
            | Self::Restart { .. } => Phase::Outside,
            Self::Adopt(adoption) => adoption.phase(),
        }
    }
}

fn shown_setting<S: Serializer>(
    role: &RoleName,
    database: &Option<DatabaseName>,
    name: &str,
    value: &str,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Setting<'a> {
        role: &'a RoleName,
        database: &'a Option<DatabaseName>,
        name: &'a str,
        value: &'a str,
    }
    Setting { role, database, name, value: shown_value(name, value).unwrap_or(HIDDEN) }.serialize(serializer)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateMaintenanceGroup => write!(f, "role/shareddb_maint, the group of maintenance logins"),
            Self::CloseToPublic { database } => write!(f, "database/{database}: nothing for PUBLIC"),
            Self::CreateOwner { role, .. } => write!(f, "role/{role}, owner of the app's objects, cannot log in"),
            Self::CreateLogin { role, shape } if shape.login => {
                write!(f, "role/{role}, login with {} connections", shape.connection_limit)
            }
            Self::CreateLogin { role, .. } => write!(f, "role/{role}, a login, closed"),
            Self::AlterRole { role, shape } => write!(f, "role/{role}: {}", Shape(shape)),
            Self::ClearPassword { role } => write!(f, "role/{role}: its password"),
            Self::RevokeMembership { group, member, grantor } => {
                write!(f, "membership of {} in {}", escaped(member), escaped(group))?;
                grantor.iter().try_for_each(|grantor| write!(f, ", granted by {}", escaped(grantor)))
            }
            Self::GrantMembership { group, member } => write!(f, "membership of {member} in {group}"),
            Self::ActAs { role } => write!(f, "role/{role}: the admin may act as it"),
            Self::SetForRole { role, database, name, value } => {
                write!(f, "role/{role}{}: {name} = ", Place(database.as_ref()))?;
                match shown_value(name, value) {
                    Some(value) => write!(f, "{}", escaped(value)),
                    None => f.write_str(HIDDEN),
                }
            }
            Self::SetSearchPath { role, database, path } => {
                write!(f, "role/{role}{}: search_path = {}", Place(Some(database)), path.join(", "))
            }
            Self::ResetForRole { role, database, name } => {
                write!(f, "role/{role}{}: setting {}", Place(database.as_ref()), escaped(name))
            }
            Self::RevokeAccess { database, role, .. } => {
                write!(f, "rights of {role} on database/{}", escaped(database))
            }
            Self::MarkOwner { role, progress: Progress::Changing, rotation: Some(_) } => {
                write!(f, "role/{role}: recorded as being given a new password")
            }
            Self::MarkOwner { role, progress, .. } => write!(f, "role/{role}: recorded as {}", progress.as_str()),
            Self::DropDatabase { database } => write!(f, "database/{database}"),
            Self::CreateDatabase { database, .. } => write!(f, "database/{database}, closed at first"),
            Self::MarkDatabase { database, dropping: true } => {
                write!(f, "database/{database}: recorded as {}", Progress::Dropping.as_str())
            }
            Self::MarkDatabase { database, .. } => write!(f, "database/{database}: the app's record"),
            Self::OwnDatabase { database } => write!(f, "database/{database}: owned by the admin"),
            Self::SetAccess { database, owner, revoke } => {
                write!(f, "database/{database}: rights for {owner} only")?;
                match revoke.iter().map(|grantee| shown(grantee)).collect::<Vec<_>>().join(", ") {
                    lost if lost.is_empty() => Ok(()),
                    lost => write!(f, ", none for {lost}"),
                }
            }
            Self::LimitDatabase { database, connections } => {
                write!(f, "database/{database}: {connections} connections")
            }
            Self::ResetForDatabase { database, name } => {
                write!(f, "database/{database}: setting {}", escaped(name))
            }
            Self::EndSessions { roles } => write!(f, "sessions of {}", joined(roles)),
            Self::EndStrangers { database } => write!(f, "sessions of others in database/{database}"),
            Self::EndAbroad { own, .. } => write!(f, "sessions of {} in other databases", joined(own)),
            Self::TakeRights { database, roles } => {
                write!(f, "rights of {} in database/{}", joined(roles), escaped(database))
            }
            Self::OpenDatabase { database } => write!(f, "database/{database}: open"),
            Self::CloseDatabase { database } => write!(f, "database/{database}: closed"),
            Self::OwnPublicSchema { owner } => write!(f, "schema/public: owned by {owner}"),
            Self::CreateSchema { schema, owner } => write!(f, "schema/{schema}, owned by {owner}"),
            Self::CreateExtensionSchema { schema, .. } => {
                write!(f, "schema/{}, owned by the admin", escaped(schema))
            }
            Self::CreateExtension { extension, .. } => write!(f, "extension/{}", escaped(extension)),
            Self::ReassignStrays { login, owner } => write!(f, "objects of {login}: owned by {owner}"),
            Self::SetPassword { login, source: PasswordSource::Secret } => {
                write!(f, "role/{login}: the password of the Secret")
            }
            Self::SetPassword { login, source: PasswordSource::New } => write!(f, "role/{login}: a new password"),
            Self::EndExpiry { login } => write!(f, "role/{login}: password without end date"),
            Self::SetExpiry { login, grace: 0 } => write!(f, "role/{login}: its password ends"),
            Self::SetExpiry { login, grace } => {
                write!(f, "role/{login}: its password ends {} later", Span(*grace))
            }
            Self::EndRotation { role, .. } => write!(f, "role/{role}: the rotation is recorded as ended"),
            Self::Prove { login, open, .. } => {
                write!(f, "{login} can log in, makes objects of the owner's, and enters no other database")?;
                if open.is_empty() { Ok(()) } else { write!(f, " that is closed (open: {})", open.join(", ")) }
            }
            Self::PublishSecret { secret, slot, .. } => {
                let login = if *slot == Slot::One { "first" } else { "second" };
                write!(f, "secret/{secret}, for the {login} login")
            }
            Self::DeleteSecret { secret } => write!(f, "secret/{secret}"),
            Self::Restart { workload } => write!(f, "{workload}: restarted"),
            Self::DropRole { role } => write!(f, "role/{role}"),
            Self::Adopt(adoption) => adoption.fmt(f),
        }
    }
}

fn joined(roles: &[RoleName]) -> String {
    roles.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(", ")
}

/// An empty grantee is PUBLIC.
fn shown(grantee: &str) -> String {
    if grantee.is_empty() { "PUBLIC".to_owned() } else { escaped(grantee) }
}

struct Place<'a>(Option<&'a DatabaseName>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |database| write!(f, " in database/{database}"))
    }
}

/// What a role of ours may do; none of them has any attribute but LOGIN.
struct Shape<'a>(&'a RoleShape);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.login { "can log in" } else { "cannot log in" })?;
        if self.0.connection_limit >= 0 {
            write!(f, ", {} connections", self.0.connection_limit)?;
        }
        f.write_str(", no other attribute")
    }
}

/// A number of seconds, in the largest unit that says it exactly.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(86_400, "days"), (3_600, "hours"), (60, "minutes")];
        let (size, unit) = UNITS.into_iter().find(|(size, _)| self.0.is_multiple_of(*size)).unwrap_or((1, "seconds"));
        let count = self.0 / size;
        write!(f, "{count} {}", if count == 1 { unit.trim_end_matches('s') } else { unit })
    }
}
