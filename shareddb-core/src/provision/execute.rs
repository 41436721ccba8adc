//! Doing what a plan says, phase by phase.

use std::time::{Duration, Instant};

use secrecy::SecretString;

use crate::app::{App, Slot};
use crate::credentials;
use crate::error::{Error, Result};
use crate::mark::Progress;
use crate::names::RoleName;
use crate::password::{self, Verifier};
use crate::postgres::catalog::PROOF;
use crate::postgres::lock::AppLock;
use crate::postgres::marks::Bearer;
use crate::postgres::session::AdminSession;
use crate::postgres::statements as sql;
use crate::provision::event::{Event, Listener};
use crate::provision::observe::Observation;
use crate::provision::plan::Plan;
use crate::provision::proof::{self, Proof};
use crate::provision::step::{PasswordSource, Phase, Step};
use crate::server::Server;

/// One run of a plan, under the app's lock.
pub(crate) struct Execution<'a> {
    server: &'a Server,
    lock: &'a AppLock,
    listener: &'a Listener,
    pub(in crate::provision) app: &'a App,
    pub(in crate::provision) observation: Observation,
    /// The session inside the app's database, once there is one.
    inside: Option<AdminSession>,
    proof: Option<Proof>,
    /// How long objects in use are waited for, and when that ends.
    pub(in crate::provision) patience: Duration,
    pub(in crate::provision) deadline: Option<Instant>,
}

impl<'a> Execution<'a> {
    /// `plan` must have been made from `observation`.
    pub(crate) fn new(
        server: &'a Server,
        lock: &'a AppLock,
        listener: &'a Listener,
        plan: &'a Plan,
        observation: Observation,
        patience: Duration,
    ) -> Self {
        let app = &plan.app;
        Self { server, lock, listener, app, observation, inside: None, proof: None, patience, deadline: None }
    }

    /// Does every step in order, and stops at the first that fails: what is done stays done, and the same run again goes on.
    pub(crate) async fn run(mut self, steps: &[Step]) -> Result<Option<Proof>> {
        for group in groups(steps) {
            let phase = group[0].phase();
            if phase > Phase::Roles {
                self.lock.release_shared().await?;
            }
            group.iter().for_each(|step| self.listener.tell(Event::Begun(step)));
            match group {
                [Step::Prove { login }] => self.prove(login).await?,
                [Step::PublishSecret { slot, replace, .. }] => self.publish(*slot, *replace).await?,
                [Step::DeleteSecret { secret }] => self.server.secrets().delete(secret).await?,
                [step @ Step::TakeRights { database, .. }] => self.elsewhere(database, step).await?,
                steps if phase == Phase::Swap => self.swap(steps).await?,
                steps if matches!(phase, Phase::TakeAlone | Phase::TakeTogether) => self.take(steps).await?,
                steps => self.statements(phase, steps).await?,
            }
            group.iter().for_each(|step| self.listener.tell(Event::Done(step)));
        }
        Ok(self.proof)
    }

    async fn statements(&mut self, phase: Phase, steps: &[Step]) -> Result<()> {
        let mut statements = Vec::new();
        for step in steps {
            statements.extend(self.sql(step)?);
        }
        let what = match steps {
            [step] => format!("do: {step}"),
            steps => format!("do {} changes together, beginning with: {}", steps.len(), steps[0]),
        };
        let session = self.lock.session();
        match phase {
            Phase::Inside => self.inside().await?.run_transaction(&what, &statements).await,
            Phase::Password => session.run_silently(&what, &statements).await,
            phase if phase.is_transaction() => session.run_transaction(&what, &statements).await,
            _ => {
                for statement in &statements {
                    session.run(&what, statement).await?;
                }
                Ok(())
            }
        }
    }

    pub(in crate::provision) async fn inside(&mut self) -> Result<&AdminSession> {
        let session = match self.inside.take() {
            Some(session) => session,
            None => self.tenant_session(self.app.database.as_str()).await?,
        };
        Ok(self.inside.insert(session))
    }

    pub(in crate::provision) async fn tenant_session(&self, database: &str) -> Result<AdminSession> {
        self.server.tenant_session(database, self.observation.observed.server.version).await
    }

    async fn elsewhere(&mut self, database: &str, step: &Step) -> Result<()> {
        let statements = self.sql(step)?;
        self.tenant_session(database).await?.run_transaction(&format!("do: {step}"), &statements).await
    }

    async fn prove(&mut self, login: &RoleName) -> Result<()> {
        // A session of ours inside would count against nobody, but has no use any more.
        self.inside = None;
        let config = self
            .server
            .app_config(self.app, login, self.password()?)
            .with_application_name(PROOF)
            // What is proven is who may do what, not how fast; only locks are not waited for.
            .with_option("statement_timeout", "0")
            .with_option("lock_timeout", "10s");
        let proof = proof::prove(&config, self.app, &self.forbidden()).await?;
        let mark = match proof {
            Proof::Complete => self.app.mark(),
            // It goes into service all the same: from here on it has something to lose.
            Proof::Incomplete => self.app.mark().while_in(Progress::Changing),
        };
        let record = sql::mark_role(self.app.owner.as_str(), &mark);
        self.lock.session().run("record what was proven", &record).await?;
        self.proof = Some(proof);
        Ok(())
    }

    /// The commit of a create: everything before it is of no use to anybody, everything after it works.
    async fn publish(&mut self, slot: Slot, replace: bool) -> Result<()> {
        self.lock.assert_held().await?;
        let config = self.server.secret_config(self.app, self.app.login(slot), self.password()?);
        let mut data = credentials::write(self.app, &config)?;
        if let Some(stored) = &self.observation.stored {
            data = credentials::missing(self.app, stored, &data);
        }
        let (store, secret, name) = (self.server.secrets(), &self.app.secret, &self.app.name);
        match (&self.observation.version, replace) {
            (Some(version), true) => store.replace(secret, name, &data, version).await.map(drop),
            _ => store.create(secret, name, &data).await.map(drop),
        }
    }

    fn password(&self) -> Result<SecretString> {
        self.observation
            .password
            .clone()
            .ok_or_else(|| Error::failed("internal", "the plan uses a password that it does not have"))
    }

    /// Databases that the app must not get into: those of the server, and one of another app.
    fn forbidden(&self) -> Vec<String> {
        let observed = &self.observation.observed;
        let neighbour = observed
            .marks
            .readable
            .iter()
            .find(|fact| fact.bearer == Bearer::Database && fact.mark.app != self.app.name)
            .map(|fact| fact.name.clone());
        [self.server.admin().database().to_owned(), "template1".to_owned()].into_iter().chain(neighbour).collect()
    }

    fn mark_owner(&self, role: &RoleName, progress: Progress) -> String {
        sql::mark_role(role.as_str(), &self.app.mark().while_in(progress))
    }

    fn verifier(&mut self, source: PasswordSource) -> Result<Verifier> {
        if source == PasswordSource::New {
            self.observation.password = Some(password::generate()?);
        }
        Verifier::of(&self.password()?)
    }

    pub(in crate::provision) fn sql(&mut self, step: &Step) -> Result<Vec<String>> {
        let admin = &self.observation.observed.server.admin;
        Ok(match step {
            Step::CreateMaintenanceGroup => vec![sql::create_maintenance_group()],
            Step::CloseToPublic { database } => vec![sql::close_to_public(database)],
            Step::CreateOwner { role, shape, progress } => {
                vec![sql::create_role(role.as_str(), shape), self.mark_owner(role, *progress)]
            }
            Step::CreateLogin { role, shape } => vec![sql::create_role(role.as_str(), shape)],
            Step::AlterRole { role, shape } => vec![sql::alter_role(role.as_str(), shape)],
            Step::ClearPassword { role } => vec![sql::clear_password(role.as_str())],
            Step::RevokeMembership { group, member } => vec![sql::revoke_membership(group, member)],
            Step::GrantMembership { group, member } => vec![sql::grant_membership(group, member.as_str())],
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
            Step::MarkOwner { role, progress } => vec![self.mark_owner(role, *progress)],
            Step::DropDatabase { database } => vec![sql::drop_database(database.as_str())],
            Step::CreateDatabase { database, connections } => {
                vec![sql::create_database(database.as_str(), *connections)]
            }
            Step::MarkDatabase { database, dropping } => {
                let mark = self.app.mark();
                let mark = if *dropping { mark.while_in(Progress::Dropping) } else { mark };
                vec![sql::mark_database(database.as_str(), &mark)]
            }
            Step::OwnDatabase { database } => vec![sql::own_database(database.as_str(), admin)],
            Step::SetAccess { database, owner, revoke } => {
                sql::set_access(database.as_str(), owner.as_str(), revoke.iter().map(String::as_str))
            }
            Step::LimitDatabase { database, connections } => vec![sql::limit_database(database.as_str(), *connections)],
            Step::ResetForDatabase { database, name } => vec![sql::reset_for_database(database.as_str(), name)],
            Step::EndSessions { roles } => vec![sql::end_sessions(roles.iter().map(AsRef::as_ref))],
            Step::EndStrangers { database, own } => {
                vec![sql::end_strangers(database.as_str(), own.iter().map(AsRef::as_ref))]
            }
            Step::EndAbroad { own } => {
                vec![sql::end_abroad(self.app.database.as_str(), own.iter().map(AsRef::as_ref))]
            }
            Step::OpenDatabase { database } => vec![sql::allow_connections(database.as_str(), true)],
            Step::CloseDatabase { database } => vec![sql::allow_connections(database.as_str(), false)],
            Step::OwnPublicSchema { owner } => sql::own_public_schema(owner.as_str()).into(),
            Step::CreateSchema { schema, owner } => sql::create_schema(schema.as_str(), owner.as_str()).into(),
            Step::CreateExtensionSchema { schema, owner } => {
                sql::create_extension_schema(schema, owner.as_str()).into()
            }
            Step::CreateExtension { extension, schema } => vec![sql::create_extension(extension, schema)],
            Step::ReassignStrays { login, owner } => vec![sql::reassign_owned(login.as_str(), owner.as_str())],
            Step::SetPassword { login, source } => vec![sql::set_password(login.as_str(), &self.verifier(*source)?)],
            Step::EndExpiry { login } => vec![sql::end_expiry(login.as_str())],
            Step::DropRole { role } => sql::drop_role(role.as_str(), admin).into(),
            Step::TakeRights { roles, .. } => vec![sql::drop_owned(roles.iter().map(AsRef::as_ref))],
            Step::Adopt(adoption) => self.adoption_sql(adoption)?,
            Step::Prove { .. } | Step::PublishSecret { .. } | Step::DeleteSecret { .. } => Vec::new(),
        })
    }
}

/// Runs of steps that are done together: neighbours of one phase, where the phase is a transaction.
fn groups(steps: &[Step]) -> impl Iterator<Item = &[Step]> {
    steps.chunk_by(|one, next| {
        let phase = one.phase();
        phase == next.phase() && phase.is_transaction()
    })
}
