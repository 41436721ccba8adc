//! The SQL of what only an adoption and its undoing do.

use std::collections::BTreeMap;

use crate::adoption::Before;
use crate::app::Slot;
use crate::names::{DatabaseName, RoleName};
use crate::postgres::adopt_statements::Owner;
use crate::postgres::facts::RoleShape;
use crate::postgres::legacy::{DefaultRight, ObjectName};
use crate::postgres::{adopt_statements as sql, statements};
use crate::provision::adopt::Adoption;
use crate::provision::script::Script;
use crate::provision::step::Step;

impl Script<'_> {
    /// The statements of one change. The one that carries the password depends on what is read in the middle of the swap.
    pub(in crate::provision) fn adoption(&self, adoption: &Adoption) -> Vec<String> {
        let admin = self.server.admin.as_str();
        let major = self.server.version.major();
        match adoption {
            Adoption::Together { part } => self.statements(part),
            Adoption::DisableTrigger { trigger } => {
                vec![sql::disable_event_trigger(trigger), sql::own_event_trigger(trigger, admin)]
            }
            Adoption::CloseLogin { login, .. } => vec![self.alter_role(login, &RoleShape::CLOSED)],
            Adoption::RenameLogin { login, owner, database } => {
                let strip = sql::strip_login(owner.as_str(), database.as_str());
                [statements::rename_role(login.as_str(), owner.as_str())].into_iter().chain(strip).collect()
            }
            Adoption::CarryPassword { .. } => Vec::new(),
            Adoption::GrantPassage { group, member } => {
                vec![sql::grant_passage(group.as_str(), member.as_str(), major)]
            }
            Adoption::HandOver { object, to } if self.app.owner.as_str() == to => vec![sql::own(object, to)],
            Adoption::HandOver { object, to } => sql::confiscate(object, &Owner::Role(to)),
            Adoption::Admit { database, role } => vec![statements::grant_connect(database.as_str(), [role.as_str()])],
            Adoption::ShowPublic { role } => vec![sql::grant_use_of_public(role.as_str())],
            Adoption::RevokeDefaults { role, schema, objects, owner } => {
                let right = DefaultRight { role: role.clone(), schema: schema.clone(), objects: objects.clone() };
                vec![sql::revoke_default_right(&right, owner.as_str())]
            }
            Adoption::Take { object, owner, force_row_security } => {
                sql::take(object, owner.as_str(), *force_row_security)
            }
            Adoption::Dissolve { roles, owner } => self.dissolve(roles, owner),
            Adoption::Reinstate { owner, login, database } => self.reinstate(owner, login, database),
            Adoption::GiveBack { database } => self.give_back(database),
        }
    }

    /// What was there before the app was adopted.
    fn before(&self) -> Option<&Before> {
        self.app.adopted.as_ref().map(|adopted| &adopted.before)
    }

    fn dissolve(&self, roles: &[RoleName], owner: &RoleName) -> Vec<String> {
        let names: Vec<&str> = roles.iter().map(RoleName::as_str).collect();
        if self.superuser {
            return sql::dissolve(&names, owner.as_str()).into();
        }
        // Each has the owner role's rights, and so may hand over to it.
        let parts = names.iter().flat_map(|role| {
            let [reassign, release, drop] = sql::dissolve(&[role], owner.as_str());
            let acting = [reassign, release].into_iter().flat_map(|part| statements::acting_as(role, part));
            acting.chain([drop]).collect::<Vec<_>>()
        });
        parts.collect()
    }

    fn reinstate(&self, owner: &RoleName, login: &RoleName, database: &DatabaseName) -> Vec<String> {
        let Some(before) = self.before() else { return Vec::new() };
        let mut statements = vec![
            statements::comment_on_role(owner.as_str(), before.login_comment.as_deref()),
            statements::rename_role(owner.as_str(), login.as_str()),
            sql::login_again(login.as_str(), before.attributes.iter().filter(|word| self.may_name(word))),
        ];
        for (place, settings) in [(None, &before.login_settings), (Some(database.as_str()), &before.local_settings)] {
            let again =
                |(name, value): (&String, &String)| statements::set_for_role(login.as_str(), place, name, value);
            statements.extend(settings.iter().filter(|(name, _)| self.may_set(name)).map(again));
        }
        statements
    }

    /// What an admin who is no superuser may not set, it has not taken, either: that is still there.
    fn may_set(&self, name: &str) -> bool {
        self.superuser || !self.server.powers.forbidden.contains(name)
    }

    fn give_back(&self, database: &DatabaseName) -> Vec<String> {
        let Some(before) = self.before() else { return Vec::new() };
        let name = database.as_str();
        let mut statements =
            vec![statements::own_database(name, &before.owner), statements::limit_database(name, before.limit)];
        let login = self.app.login(Slot::One);
        let others: Vec<&str> = self
            .app
            .residents()
            .filter(|role| *role == login || self.app.is_guest(role.as_str()))
            .map(RoleName::as_str)
            .collect();
        // An owner that were among them would lose what it has by being the owner.
        let strangers: Vec<&str> = others.iter().copied().filter(|role| *role != before.owner).collect();
        statements.extend(sql::database_rights_again(name, &strangers, &before.access));
        let public = before.public_owner.iter().flat_map(|owner| {
            let rights = sql::public_rights_again(&others, &before.public_access);
            [sql::own_public(owner)].into_iter().chain(rights)
        });
        // After this the login is nobody's but its own.
        let admin = self.server.admin.as_str();
        let end = statements::revoke_membership(login.as_str(), admin, Some(admin));
        statements.extend(self.with_rights_of(login.as_str(), public.collect(), end));
        let settings = before.settings.iter().filter(|(name, _)| self.may_set(name));
        statements.extend(settings.map(|(setting, value)| sql::set_for_database(name, setting, value)));
        statements.push(statements::comment_on_database(name, before.database_comment.as_deref()));
        statements
    }

    /// What hands objects over, all or none, and none but these. Their schema can be the owner role's already.
    pub(in crate::provision) fn taking(&self, steps: &[Step]) -> Vec<String> {
        let owner = self.app.owner.as_str();
        let mut statements: Vec<String> = steps.iter().flat_map(|step| self.statements(step)).collect();
        statements.extend(checks(steps));
        self.with_rights_of(owner, statements, statements::act_as(owner, &self.server.admin))
    }

    /// A superuser has the rights of every role. Another admin takes those of one that it may act as, for as long as it needs
    /// them, and gives them back by `end`; to act as that role would not do, since what changes hands is not that role's.
    fn with_rights_of(&self, role: &str, statements: Vec<String>, end: String) -> Vec<String> {
        if self.superuser {
            return statements;
        }
        let begin = statements::grant_membership(role, &self.server.admin, self.server.version);
        [begin].into_iter().chain(statements).chain([end]).collect()
    }
}

/// That what has changed hands by its name is what was looked at, for each new owner.
pub(super) fn checks(steps: &[Step]) -> impl Iterator<Item = String> {
    let mut owners: BTreeMap<&str, Vec<&ObjectName>> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Adopt(Adoption::Take { object, owner, .. }) => owners.entry(owner.as_str()).or_default().push(object),
            Step::Adopt(Adoption::HandOver { object, to }) => owners.entry(to).or_default().push(object),
            _ => {}
        }
    }
    owners.into_iter().map(|(owner, objects)| sql::check_owner(objects, &Owner::Role(owner)))
}
