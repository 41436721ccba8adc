//! The SQL of each step, for the admin who is to run it.

use crate::app::App;
use crate::mark::{Progress, RotationRecord};
use crate::names::RoleName;
use crate::postgres::facts::{RoleShape, ServerFacts};
use crate::postgres::statements as sql;
use crate::provision::step::Step;

/// What the steps of a plan are in SQL.
pub(crate) struct Script<'a> {
    pub(in crate::provision) app: &'a App,
    pub(in crate::provision) server: &'a ServerFacts,
    /// Whoever runs it is a superuser.
    pub(in crate::provision) superuser: bool,
}

/// The statements of a step about what all apps share; others have none here.
pub(crate) fn shared(step: &Step, server: &ServerFacts) -> Vec<String> {
    match step {
        Step::CreateMaintenanceGroup => vec![sql::create_maintenance_group()],
        Step::CloseToPublic { database } => {
            vec![sql::close_to_public(database, server.third_grantors(database)).join("; ")]
        }
        _ => Vec::new(),
    }
}

impl<'a> Script<'a> {
    /// As the admin runs it.
    pub(crate) fn of_admin(app: &'a App, server: &'a ServerFacts) -> Self {
        Self { app, server, superuser: server.superuser }
    }

    /// As a superuser runs it in the admin's place.
    pub(crate) fn of_superuser(app: &'a App, server: &'a ServerFacts) -> Self {
        Self { app, server, superuser: true }
    }

    /// The statements of one step. A step that is no SQL of the admin's has none, nor has one that needs a password.
    pub(crate) fn statements(&self, step: &Step) -> Vec<String> {
        let admin = self.server.admin.as_str();
        match step {
            Step::CreateMaintenanceGroup | Step::CloseToPublic { .. } => shared(step, self.server),
            Step::CreateOwner { role, shape, progress } => {
                vec![sql::create_role(role.as_str(), shape), self.mark_owner(role, *progress, None)]
            }
            Step::CreateLogin { role, shape } => vec![sql::create_role(role.as_str(), shape)],
            Step::AlterRole { role, shape } => vec![self.alter_role(role, shape)],
            Step::ClearPassword { role } => vec![sql::clear_password(role.as_str())],
            Step::RevokeMembership { group, member, grantor } => {
                vec![sql::revoke_membership(group, member, grantor.as_deref())]
            }
            Step::GrantMembership { group, member } => {
                vec![sql::grant_membership(group, member.as_str(), self.server.version)]
            }
            Step::ActAs { role } => vec![sql::act_as(role.as_str(), admin)],
            Step::SetForRole { role, database, name, value } => {
                vec![sql::set_for_role(role.as_str(), database.as_ref().map(AsRef::as_ref), name, value)]
            }
            Step::SetSearchPath { role, database, path } => {
                vec![sql::set_search_path(role.as_str(), database.as_str(), path)]
            }
            Step::ResetForRole { role, database, name } => {
                vec![sql::reset_for_role(role.as_str(), database.as_ref().map(AsRef::as_ref), name)]
            }
            Step::RevokeAccess { database, role, grantor } => sql::revoke_access(database, role, grantor).into(),
            Step::MarkOwner { role, progress, rotation } => vec![self.mark_owner(role, *progress, *rotation)],
            Step::CreateDatabase { database, connections } => {
                vec![sql::create_database(database.as_str(), *connections)]
            }
            Step::MarkDatabase { database, dropping } => {
                let mark = self.app.mark().of_database();
                let mark = if *dropping { mark.while_in(Progress::Dropping) } else { mark };
                vec![sql::mark_database(database.as_str(), &mark)]
            }
            Step::OwnDatabase { database } => vec![sql::own_database(database.as_str(), admin)],
            Step::SetAccess { database, owner, revoke } => {
                sql::set_access(database.as_str(), owner.as_str(), revoke.iter().map(String::as_str))
            }
            Step::LimitDatabase { database, connections } => {
                vec![sql::limit_database(database.as_str(), i32::from(*connections))]
            }
            Step::ResetForDatabase { database, name } => vec![sql::reset_for_database(database.as_str(), name)],
            Step::OpenDatabase { database } => vec![sql::allow_connections(database.as_str(), true)],
            Step::CloseDatabase { database } => vec![sql::allow_connections(database.as_str(), false)],
            Step::OwnPublicSchema { owner } => sql::own_public_schema(owner.as_str()).into(),
            Step::CreateSchema { schema, owner } => sql::create_schema(schema.as_str(), owner.as_str()).into(),
            Step::CreateExtensionSchema { schema, owner } => {
                sql::create_extension_schema(schema, owner.as_str()).into()
            }
            Step::CreateExtension { extension, schema } => vec![sql::create_extension(extension, schema)],
            Step::EndExpiry { login } => vec![sql::set_expiry(login.as_str(), "infinity")],
            Step::TakeRights { roles, .. } => vec![sql::drop_owned(roles.iter().map(AsRef::as_ref))],
            Step::EndSessions { .. }
            | Step::EndStrangers { .. }
            | Step::EndAbroad { .. }
            | Step::ReassignStrays { .. }
            | Step::DropDatabase { .. }
            | Step::DropRole { .. } => self.of_others(step),
            Step::Adopt(adoption) => self.adoption(adoption),
            // What they say depends on when they are done, or is no statement.
            Step::SetPassword { .. }
            | Step::SetExpiry { .. }
            | Step::EndRotation { .. }
            | Step::Prove { .. }
            | Step::PublishSecret { .. }
            | Step::DeleteSecret { .. }
            | Step::Restart { .. } => Vec::new(),
        }
    }

    /// What needs rights on what is other roles': a superuser has them, another admin acts as each of them.
    fn of_others(&self, step: &Step) -> Vec<String> {
        let admin = self.server.admin.as_str();
        match step {
            Step::EndSessions { roles } => self.each(roles, &|some| sql::end_sessions(some.iter().map(AsRef::as_ref))),
            Step::EndAbroad { own, hosts } => {
                let open = || hosts.iter().map(String::as_str).chain([self.app.database.as_str()]);
                self.each(own, &|some| sql::end_abroad(open(), some.iter().map(AsRef::as_ref)))
            }
            Step::EndStrangers { database } => {
                let (own, guests) = (self.app.roles().map(AsRef::as_ref), self.app.guests().map(AsRef::as_ref));
                vec![sql::end_strangers(database.as_str(), own, guests)]
            }
            Step::ReassignStrays { login, owner } => {
                let statement = sql::reassign_owned(login.as_str(), owner.as_str());
                if self.superuser { vec![statement] } else { sql::acting_as(login.as_str(), statement).into() }
            }
            Step::DropDatabase { database } if self.superuser || self.server.powers.signal => {
                vec![sql::drop_database(database.as_str())]
            }
            Step::DropDatabase { database } => vec![sql::drop_deserted_database(database.as_str())],
            Step::DropRole { role } if self.superuser => sql::drop_role(role.as_str(), admin).into(),
            Step::DropRole { role } => vec![sql::drop_empty_role(role.as_str())],
            _ => Vec::new(),
        }
    }

    /// One statement for all roles, or one for each in its own name; those are one message, and so one transaction.
    fn each(&self, roles: &[RoleName], statement: &dyn Fn(&[RoleName]) -> String) -> Vec<String> {
        if self.superuser {
            return vec![statement(roles)];
        }
        let as_each = roles.chunks(1).flat_map(|role| sql::acting_as(role[0].as_str(), statement(role)));
        vec![as_each.collect::<Vec<_>>().join("; ")]
    }

    /// As far as whoever runs it may.
    pub(in crate::provision) fn alter_role(&self, role: &RoleName, shape: &RoleShape) -> String {
        if self.superuser {
            sql::alter_role(role.as_str(), shape)
        } else {
            sql::alter_role_within(role.as_str(), shape, &self.server.powers)
        }
    }

    /// Whether an attribute is one that whoever runs it may give or take.
    pub(in crate::provision) fn may_name(&self, attribute: &str) -> bool {
        self.superuser || self.server.powers.may_name(attribute)
    }

    fn mark_owner(&self, role: &RoleName, progress: Progress, rotation: Option<RotationRecord>) -> String {
        sql::mark_role(role.as_str(), &self.app.mark().rotating(rotation).while_in(progress))
    }
}
