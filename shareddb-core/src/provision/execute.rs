//! Doing what a plan says, phase by phase.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use secrecy::SecretString;

use crate::app::{App, Slot};
use crate::connection::ConnectionConfig;
use crate::credentials::{self, Issue};
use crate::error::{Error, Result};
use crate::mark::{Mark, Progress, RotationRecord};
use crate::names::RoleName;
use crate::password::{self, Verifier};
use crate::postgres::catalog::PROOF;
use crate::postgres::lock::AppLock;
use crate::postgres::login_end;
use crate::postgres::marks::Bearer;
use crate::postgres::session::AdminSession;
use crate::postgres::statements as sql;
use crate::provision::admission;
use crate::provision::event::{Event, Listener};
use crate::provision::observe::Observation;
use crate::provision::plan::Plan;
use crate::provision::proof::{self, Proof};
use crate::provision::script::Script;
use crate::provision::step::{PasswordSource, Phase, Step};
use crate::secrets::Workload;
use crate::server::Server;

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    pub(crate) proof: Option<Proof>,
    /// Until when the login works that the Secret does not name any more.
    pub(crate) old_login_ends: Option<Timestamp>,
    pub(crate) restarted: Vec<Workload>,
    /// What did not come about and stopped nothing.
    pub(crate) notices: Vec<String>,
}

/// As often is somebody who comes back at once put out before that counts as a failure.
const EVICTIONS: u32 = 20;

/// Longer than a server takes from letting somebody in to listing the session.
const LATECOMERS: Duration = Duration::from_millis(300);

/// One run of a plan, under the app's lock.
pub(crate) struct Execution<'a> {
    server: &'a Server,
    lock: &'a AppLock,
    listener: &'a Listener,
    pub(in crate::provision) app: &'a App,
    pub(in crate::provision) observation: Observation,
    /// The session inside the app's database, once there is one.
    inside: Option<AdminSession>,
    rotation: Option<RotationRecord>,
    done: Done,
    /// The password at hand was made by this run.
    issued: bool,
    /// What time it was by the server's clock when that was asked last.
    time: Timestamp,
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
        Self {
            server,
            lock,
            listener,
            app: &plan.app,
            observation,
            inside: None,
            rotation: plan.rotation,
            done: Done::default(),
            issued: false,
            time: Timestamp::UNIX_EPOCH,
            patience,
            deadline: None,
        }
    }

    /// Does every step in order, and stops at the first that fails: what is done stays done, and the same run again goes on.
    pub(crate) async fn run(mut self, steps: &[Step]) -> Result<Done> {
        for group in groups(steps) {
            let phase = group[0].phase();
            if phase > Phase::Roles {
                self.lock.release_shared().await?;
            }
            group.iter().for_each(|step| self.listener.tell(Event::Begun(step)));
            match group {
                [Step::Prove { login, open, left }] => self.prove(login, open, *left).await?,
                [Step::PublishSecret { slot, replace, .. }] => self.publish(*slot, *replace).await?,
                [step @ Step::Evict { login, beside }] => self.evict(login, beside, &format!("do: {step}")).await?,
                [Step::Restart { workload }] => self.restart(workload).await,
                [Step::DeleteSecret { secret }] => self.server.secrets().delete(secret).await?,
                [step @ Step::TakeRights { database, .. }] => self.elsewhere(database, step).await?,
                steps if phase == Phase::Swap => self.swap(steps).await?,
                steps if matches!(phase, Phase::TakeAlone | Phase::TakeTogether) => self.take(steps).await?,
                steps => self.statements(phase, steps).await?,
            }
            group.iter().for_each(|step| self.listener.tell(Event::Done(step)));
        }
        Ok(self.done)
    }

    async fn statements(&mut self, phase: Phase, steps: &[Step]) -> Result<()> {
        if steps.iter().any(|step| matches!(step, Step::SetExpiry { .. })) {
            self.time = self.lock.session().time().await?;
        }
        let mut statements = Vec::new();
        for step in steps {
            statements.extend(self.sql(step)?);
        }
        let what = what(steps);
        let session = self.lock.session();
        match phase {
            Phase::Inside => self.inside().await?.run_transaction(&what, &statements).await,
            Phase::Password => {
                let silence = sql::silence_log(&self.observation.observed.server);
                session.run_silently(&what, silence, &statements).await
            }
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
        self.server.tenant_session(database, &self.observation.observed.server).await
    }

    async fn elsewhere(&mut self, database: &str, step: &Step) -> Result<()> {
        let statements = self.sql(step)?;
        let what = format!("do: {step}");
        let session = match self.tenant_session(database).await {
            // What a restore has put aside is closed, and while it is open nobody but an admin has the right to enter.
            Err(error) if error.sqlstate() == Some("55000") && self.is_copy(database) => {
                self.lock.session().run(&what, &sql::allow_connections(database, true)).await?;
                let entered = self.tenant_session(database).await;
                self.lock.session().run(&what, &sql::allow_connections(database, false)).await?;
                entered?
            }
            session => session?,
        };
        session.run_transaction(&what, &statements).await
    }

    fn is_copy(&self, database: &str) -> bool {
        self.observation.observed.marks.copies.iter().any(|(name, _)| name == database)
    }

    async fn prove(&mut self, login: &RoleName, open: &[String], left: Option<Progress>) -> Result<()> {
        // A session of ours inside would count against nobody, but has no use any more.
        self.inside = None;
        let leaked = self.rotation.is_some_and(|rotation| rotation.now);
        let config = self
            .app_config(login, self.password()?)
            .with_application_name(PROOF)
            // What is proven is who may do what, not how fast; only locks are not waited for.
            .with_option("statement_timeout", "0")
            .with_option("lock_timeout", if leaked { "1s" } else { "10s" });
        let proof = match proof::prove(&config, self.app, &self.forbidden(open)).await {
            // Whoever has the leaked password can lock what is tried.
            Err(error) if leaked && error.sqlstate() == Some("55P03") => Proof::Incomplete,
            proof => proof?,
        };
        self.done.proof = Some(proof);
        let record = self.record(self.rotation, self.app.closed, left);
        self.lock.session().run("record what was proven", &record).await
    }

    /// Records what is left to do after the proof.
    fn record(&self, rotation: Option<RotationRecord>, closed: Option<Slot>, left: Option<Progress>) -> String {
        let progress = match self.done.proof {
            // It goes into service all the same: from here on it has something to lose.
            Some(Proof::Incomplete) => Some(left.map_or(Progress::Changing, |_| Progress::Adopting)),
            Some(Proof::Complete) | None => left,
        };
        let mark = Mark { closed, rotation, ..self.app.mark() };
        let mark = progress.map_or_else(|| mark.clone(), |progress| mark.clone().while_in(progress));
        sql::mark_role(self.app.owner.as_str(), &mark)
    }

    /// How a login of the app's logs in.
    pub(in crate::provision) fn app_config(&self, login: &RoleName, password: SecretString) -> ConnectionConfig {
        self.server.app_config(self.app, login, password)
    }

    /// The commit of a create: everything before it is of no use to anybody, everything after it works.
    async fn publish(&mut self, slot: Slot, replace: bool) -> Result<()> {
        self.time = self.lock.assert_held().await?;
        let config = self.server.secret_config(self.app, self.app.login(slot), self.password()?);
        let mut data = credentials::write(self.app, &config)?;
        if self.issued {
            Issue::write(self.app.generation, self.time, self.app, &mut data);
        }
        if let Some(stored) = &self.observation.stored {
            data = credentials::missing(self.app, stored, &data);
        }
        let (store, secret, name) = (self.server.secrets(), &self.app.secret, &self.app.name);
        match (&self.observation.version, replace) {
            (Some(version), true) => store.replace(secret, name, &data, version).await.map(drop),
            _ => store.create(secret, name, &data).await.map(drop),
        }
    }

    /// Whoever is in as this login may hold its row, take its locks and set its password, over and over.
    async fn evict(&self, login: &RoleName, beside: &[RoleName], what: &str) -> Result<()> {
        let roles = std::iter::once(login).chain(beside).cloned().collect();
        let script = Script::of_admin(self.app, &self.observation.observed.server);
        let ended = script.statements(&Step::EndSessions { roles });
        let session = self.lock.session();
        let end = async || {
            for statement in &ended {
                session.run(what, statement).await?;
            }
            Ok::<_, Error>(())
        };
        let change = async |statement: String| {
            let mut attempt = 1;
            loop {
                end().await?;
                match session.run_transaction(what, &[login_end::BRIEF_LOCKS.to_owned(), statement.clone()]).await {
                    Err(error) if attempt < EVICTIONS && is_contended(&error) => attempt += 1,
                    done => return done,
                }
            }
        };
        change(login_end::close_login(login.as_str())).await?;
        end().await?;
        // One that had passed the server's look at the role just before is not listed at once.
        tokio::time::sleep(LATECOMERS).await;
        change(login_end::clear_password(login.as_str())).await
    }

    /// The password is changed by now, whether or not everybody has it.
    async fn restart(&mut self, workload: &Workload) {
        match self.server.secrets().restart(workload).await {
            Ok(()) => self.done.restarted.push(workload.clone()),
            Err(error) => {
                let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
                self.done.notices.push(format!("{workload} was not restarted: {error}{hint}"));
            }
        }
    }

    pub(in crate::provision) fn password(&self) -> Result<SecretString> {
        self.observation
            .password
            .clone()
            .ok_or_else(|| Error::failed("internal", "the plan uses a password that it does not have"))
    }

    /// Databases that the app must not get into: those of the server that are not open to everybody, and one of another app.
    fn forbidden(&self, open: &[String]) -> Vec<String> {
        let observed = &self.observation.observed;
        let hosts = admission::hosts(self.app, observed);
        let neighbour = observed
            .marks
            .readable
            .iter()
            .find(|fact| {
                fact.bearer == Bearer::Database && fact.mark.app != self.app.name && !hosts.contains(&fact.name)
            })
            .map(|fact| fact.name.clone());
        let of_server = [self.server.admin().database().to_owned(), "template1".to_owned()];
        of_server.into_iter().filter(|database| !open.contains(database)).chain(neighbour).collect()
    }

    fn verifier(&mut self, source: PasswordSource) -> Result<Verifier> {
        if source == PasswordSource::New {
            self.observation.password = Some(password::generate()?);
            self.issued = true;
        }
        Verifier::of(&self.password()?)
    }

    pub(in crate::provision) fn sql(&mut self, step: &Step) -> Result<Vec<String>> {
        match step {
            Step::SetPassword { login, source } => {
                Ok(vec![sql::set_password(login.as_str(), &self.verifier(*source)?)])
            }
            Step::SetExpiry { login, grace } => {
                // The time is that of the second that has begun: a grace is not cut short by the rest of it.
                let seconds = grace + u64::from(*grace > 0);
                let end = self.time.checked_add(Duration::from_secs(seconds));
                let end = end.map_err(|_| Error::invalid_input("grace_invalid", "there is no such point in time"))?;
                self.done.old_login_ends = Some(end);
                Ok(vec![login_end::set_expiry(login.as_str(), &end.to_string())])
            }
            Step::EndRotation { closed, left, .. } => Ok(vec![self.record(None, *closed, *left)]),
            step => Ok(Script::of_admin(self.app, &self.observation.observed.server).statements(step)),
        }
    }
}

/// Whether somebody else holds what was to be changed, or has just changed it.
fn is_contended(error: &Error) -> bool {
    ["55P03", "XX000", "40001", "40P01"].map(Some).contains(&error.sqlstate())
}

/// What an error says could not be done.
pub(in crate::provision) fn what(steps: &[Step]) -> String {
    match steps {
        [step] => format!("do: {step}"),
        steps => format!("do {} changes together, beginning with: {}", steps.len(), steps[0]),
    }
}

/// Runs of steps that are done together: neighbours of one phase, where the phase is a transaction.
fn groups(steps: &[Step]) -> impl Iterator<Item = &[Step]> {
    steps.chunk_by(|one, next| {
        let phase = one.phase();
        phase == next.phase() && phase.is_transaction()
    })
}
