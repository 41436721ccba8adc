//! Carrying out an adoption: the swap in one transaction, and what changes hands afterwards.

use std::time::{Duration, Instant};

use crate::adoption::Before;
use crate::app::Slot;
use crate::error::{Error, Result};
use crate::names::{DatabaseName, RoleName};
use crate::password::Verifier;
use crate::postgres::adopt_statements as sql;
use crate::postgres::facts::RoleShape;
use crate::postgres::legacy::{DefaultRight, ObjectKind, ObjectName};
use crate::postgres::session::AdminSession;
use crate::postgres::statements;
use crate::provision::adopt::Adoption;
use crate::provision::execute::Execution;
use crate::provision::step::Step;

/// What is locked together at most: each object takes several places in the server's lock table.
const LOT: usize = 200;
/// Between two attempts the programs that wait behind us get their turn.
const PAUSE: Duration = Duration::from_millis(300);
const JITTER: u64 = 100;

impl Execution<'_> {
    /// All of the swap, or nothing.
    pub(in crate::provision) async fn swap(&mut self, steps: &[Step]) -> Result<()> {
        let what = "adopt the app";
        let session = self.tenant_session(self.app.database.as_str()).await?;
        let silence = [statements::silence_log(&self.observation.observed.server), self.silence_md5()].join("; ");
        session.begin(what, &silence).await?;
        let done = self.swap_within(&session, what, steps).await;
        session.end(what, done).await
    }

    /// From 18 on the server warns of MD5, and a warning is a failure elsewhere.
    fn silence_md5(&self) -> &'static str {
        if self.observation.observed.server.version.major() >= 18 { sql::SILENCE_MD5 } else { "" }
    }

    async fn swap_within(&mut self, session: &AdminSession, what: &str, steps: &[Step]) -> Result<()> {
        let mut carried = None;
        for step in steps {
            if let Step::Adopt(Adoption::CarryPassword { login }) = step {
                let statements = self.carry(login, carried.as_ref());
                session.run_all(what, &statements).await?;
                continue;
            }
            let statements = self.sql(step)?;
            session.run_all(&format!("do: {step}"), &statements).await?;
            // Only now that the role is locked: a password set meanwhile waits, and fails.
            if let Step::Adopt(Adoption::CloseLogin { login, .. }) = step {
                carried = stored(session, login, self.login_oid()).await?;
            }
        }
        Ok(())
    }

    /// The identity of the login that was looked at.
    fn login_oid(&self) -> Option<u32> {
        self.observation
            .observed
            .legacy
            .as_ref()
            .and_then(|legacy| legacy.outside.login.as_ref())
            .map(|login| login.oid)
    }

    fn carry(&self, login: &RoleName, carried: Option<&Verifier>) -> Vec<String> {
        let valid_until = self.before().and_then(|before| before.valid_until.as_deref());
        sql::carry_password(login.as_str(), carried, valid_until)
    }

    fn before(&self) -> Option<&Before> {
        self.app.adopted.as_ref().map(|adopted| &adopted.before)
    }

    /// Hands over what an admin made, so patiently that no program of the app waits for long.
    pub(in crate::provision) async fn take(&mut self, steps: &[Step]) -> Result<()> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + self.patience);
        for lot in steps.chunks(LOT) {
            let objects: Vec<&ObjectName> = lot.iter().filter_map(object).collect();
            let mut statements = vec![sql::TAKE_LOCK_TIMEOUT.to_owned()];
            for step in lot {
                statements.extend(self.sql(step)?);
            }
            let what = match lot {
                [step] => format!("do: {step}"),
                lot => format!("do {} changes together, beginning with: {}", lot.len(), lot[0]),
            };
            let session = self.inside().await?;
            while let Err(error) = session.run_transaction(&what, &statements).await {
                if !matches!(error, Error::Timeout(_)) && error.code() != "concurrent_change" {
                    return Err(error);
                }
                if Instant::now() > deadline {
                    return Err(blocked(session, &objects, error).await);
                }
                tokio::time::sleep(PAUSE + Duration::from_millis(rand::random_range(0..JITTER))).await;
            }
        }
        Ok(())
    }

    /// The statements of what only an adoption does.
    pub(in crate::provision) fn adoption_sql(&mut self, adoption: &Adoption) -> Result<Vec<String>> {
        let admin = self.observation.observed.server.admin.clone();
        let major = self.observation.observed.server.version.major();
        Ok(match adoption {
            Adoption::Together { part } => self.sql(part)?,
            Adoption::DisableTrigger { trigger } => {
                vec![sql::disable_event_trigger(trigger), sql::own_event_trigger(trigger, &admin)]
            }
            Adoption::CloseLogin { login, .. } => vec![statements::alter_role(login.as_str(), &RoleShape::CLOSED)],
            Adoption::RenameLogin { login, owner, database } => {
                let strip = sql::strip_login(owner.as_str(), database.as_str());
                [statements::rename_role(login.as_str(), owner.as_str())].into_iter().chain(strip).collect()
            }
            // Its statement depends on what is read within the transaction.
            Adoption::CarryPassword { .. } => Vec::new(),
            Adoption::GrantPassage { group, member } => {
                vec![sql::grant_passage(group.as_str(), member.as_str(), major)]
            }
            Adoption::HandOver { object, to } => vec![sql::own(object, to)],
            Adoption::Admit { database, role } => vec![sql::admit(database.as_str(), role.as_str())],
            Adoption::ShowPublic { role } => vec![sql::grant_use_of_public(role.as_str())],
            Adoption::RevokeDefaults { role, schema, objects, owner } => {
                let right = DefaultRight { role: role.clone(), schema: schema.clone(), objects: objects.clone() };
                vec![sql::revoke_default_right(&right, owner.as_str())]
            }
            Adoption::Take { object, owner, force_row_security } => {
                sql::take(object, owner.as_str(), *force_row_security)
            }
            Adoption::Dissolve { roles, owner } => {
                let roles: Vec<&str> = roles.iter().map(RoleName::as_str).collect();
                sql::dissolve(&roles, owner.as_str()).into()
            }
            Adoption::Reinstate { owner, login, database } => self.reinstate(owner, login, database),
            Adoption::GiveBack { database } => self.give_back(database),
        })
    }

    fn reinstate(&self, owner: &RoleName, login: &RoleName, database: &DatabaseName) -> Vec<String> {
        let Some(before) = self.before() else { return Vec::new() };
        let mut statements = vec![
            statements::unmark_role(owner.as_str()),
            statements::rename_role(owner.as_str(), login.as_str()),
            sql::login_again(login.as_str(), &before.attributes),
        ];
        for (place, settings) in [(None, &before.login_settings), (Some(database.as_str()), &before.local_settings)] {
            statements
                .extend(settings.iter().map(|(name, value)| sql::setting_again(login.as_str(), place, name, value)));
        }
        statements
    }

    fn give_back(&self, database: &DatabaseName) -> Vec<String> {
        let Some(before) = self.before() else { return Vec::new() };
        let name = database.as_str();
        let mut statements = vec![statements::own_database(name, &before.owner), sql::limit_again(name, before.limit)];
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
        if let Some(owner) = &before.public_owner {
            let public = ObjectName { kind: ObjectKind::Schema, identity: "public".to_owned() };
            statements.push(sql::own(&public, owner));
            statements.extend(sql::public_rights_again(&others, &before.public_access));
        }
        statements
            .extend(before.settings.iter().map(|(name, value)| sql::set_for_database(database.as_str(), name, value)));
        statements.push(sql::unmark_database(name));
        statements
    }
}

fn object(step: &Step) -> Option<&ObjectName> {
    match step {
        Step::Adopt(Adoption::Take { object, .. }) => Some(object),
        _ => None,
    }
}

/// The password as the server has it, if the role is the one that was looked at.
async fn stored(session: &AdminSession, login: &RoleName, oid: Option<u32>) -> Result<Option<Verifier>> {
    let row = session.value("read the login's stored password", &sql::stored_password(login.as_str())).await?;
    let row = row.unwrap_or_default();
    let (found, password) = row.split_once(' ').unwrap_or((&row, ""));
    if oid.is_some_and(|oid| oid.to_string() != found) {
        let message = format!("role {login} is another one than a moment ago");
        return Err(Error::conflict("concurrent_change", message).with_hint("nothing was changed; run it again"));
    }
    match password {
        "" => Ok(None),
        password => Verifier::stored(password).map(Some).ok_or_else(|| {
            Error::failed("password_unreadable", format!("the stored password of role {login} has an unknown form"))
        }),
    }
}

/// The last lock was in vain: who holds it.
async fn blocked(session: &AdminSession, objects: &[&ObjectName], error: Error) -> Error {
    let names = objects.first().map(ToString::to_string).unwrap_or_default();
    let holders = session.value("see who is in the way", &sql::blockers(objects)).await.ok().flatten();
    let holders = holders.unwrap_or_else(|| "a session that has just ended".to_owned());
    Error::timeout("objects_in_use", format!("{names} is in use by {holders}, so that it cannot change hands"))
        .with_hint("the app works as before; let that end, then run the same command again: it goes on from there")
        .with_source(error)
}
