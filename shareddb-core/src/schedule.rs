//! The façade: backups that are taken regularly, by CronJobs in the namespace of an environment's server.
//!
//! It is none of [`crate::BackupManager`]'s: that one holds a server and a store with credentials, and a schedule needs neither of
//! them here; whoever schedules may have no way to the store at all.

use std::fmt;
use std::sync::Arc;

use crate::deploy::ObjectChange;
use crate::environment::Environment;
use crate::error::{Error, Result, shell_word};
use crate::kubernetes::Task;
use crate::kubernetes::apply::{Mode, Objects};
use crate::names::AppName;

mod cron;
mod keep;
mod manifests;
mod observed;
mod plan;
mod pod;
mod prepare;
mod spec;
mod state;

pub use cron::Cron;
pub use keep::Keep;
use plan::What;
pub use plan::{Run, SchedulePlan};
use spec::ScheduleRecord;
pub use spec::{Proving, ScheduleSpec};
pub use state::ScheduleState;

/// Has backups of an environment taken regularly.
pub struct Scheduler {
    environment: Environment,
    objects: Objects,
    listener: Arc<Listener>,
}

type Listener = dyn Fn(&ObjectChange) + Send + Sync;

impl Scheduler {
    /// For this environment. Reads the kubeconfig; nothing is sent yet.
    ///
    /// # Errors
    /// `InvalidInput` when its server is not one that is deployed to a namespace; those of [`crate::Cluster::namespace`].
    pub async fn new(environment: &Environment) -> Result<Self> {
        let (namespace, _) = environment.ground().await?;
        let objects = Objects::new(namespace, Task::Schedule);
        Ok(Self { environment: environment.clone(), objects, listener: Arc::new(|_| {}) })
    }

    /// Has somebody told of each object that has become what it is to be. It is called in between and ought to be quick.
    #[must_use]
    pub fn on_change(mut self, listener: impl Fn(&ObjectChange) + Send + Sync + 'static) -> Self {
        self.listener = Arc::new(listener);
        self
    }

    /// The objects of a schedule, for those who make it by other means, such as a GitOps repository: each as a map in the form
    /// of the API. Nothing is asked of a cluster, and what is left out is the default, whatever is scheduled.
    ///
    /// # Errors
    /// `InvalidInput` when it could not run that way, with the code `image_missing` when no image is named, and `store_in_pod` when
    /// backups go to a folder.
    pub fn manifests(environment: &Environment, spec: &ScheduleSpec) -> Result<Vec<serde_json::Value>> {
        let record = ScheduleRecord::usual(spec.app.clone())?.changed(spec)?;
        let objects = manifests::manifests(&record, &record.site(environment)?)?;
        Ok(objects.into_iter().map(|object| object.content).collect())
    }

    /// The same schedule as lines for cron on a machine with the command, for an environment that is in no cluster.
    ///
    /// # Errors
    /// `InvalidInput` when it could not run that way.
    pub fn crontab(environment: &Environment, spec: &ScheduleSpec) -> Result<Vec<String>> {
        let record = ScheduleRecord::usual(spec.app.clone())?.changed(spec)?;
        let place = |flag: &'static str| record.to.iter().flat_map(move |place| [flag.to_owned(), place.clone()]);
        let name = environment.name().to_string();
        let command = |words: Vec<String>, flag| {
            let words = ["shareddb".to_owned()].into_iter().chain(words).chain(["-e".to_owned(), name.clone()]);
            let words: Vec<String> = words.chain(place(flag)).map(|word| shell_word(&word)).collect();
            // To cron it ends the command, quoted or not.
            words.join(" ").replace('%', r"\%")
        };
        let backup = command(pod::backup_words(&record), "--to");
        let prune = pod::prune_words(&record).map(|words| format!(" && {}", command(words, "--from")));
        let verify = record.proving()?.map(|cron| format!("{cron} {}", command(pod::verify_words(&record), "--from")));
        let backup = format!("{} {backup}{}", record.cron, prune.unwrap_or_default());
        Ok([backup].into_iter().chain(verify).collect())
    }

    /// Where it acts, for people: context and namespace.
    pub fn place(&self) -> String {
        format!("context {} · namespace {}", self.objects.context(), self.objects.namespace())
    }

    /// What a schedule would change. Each object was dry-run by the API server, so that rights and conflicts are known. An app
    /// that is named is looked up on the server.
    ///
    /// # Errors
    /// `InvalidInput` when it could not run that way, `NotFound` when there is no namespace, no such app or no Secret with the
    /// credentials, `Refused` when an object with its name is somebody else's, `Conflict` when fields belong to somebody else,
    /// `PermissionDenied` with the rule that is missing.
    pub async fn plan(&self, spec: &ScheduleSpec) -> Result<SchedulePlan> {
        let plan =
            prepare::prepare(&self.environment, &self.objects, spec).await.map_err(|error| self.placed(error))?;
        if let Some(app) = &spec.app {
            self.environment.connect().await?.recorded(app).await?;
        }
        Ok(plan)
    }

    /// What would go if a schedule ended: everything that was made for it, and nothing else. Backups stay.
    ///
    /// # Errors
    /// Those of reading what there is; `PermissionDenied` with the rule that is missing.
    pub async fn plan_end(&self, app: Option<&AppName>) -> Result<SchedulePlan> {
        let plan = prepare::prepare_end(&self.environment, &self.objects, app).await;
        plan.map_err(|error| self.placed(error))
    }

    /// Carries a plan out. What is done stays done, and the next run goes on from there.
    ///
    /// # Errors
    /// As [`Self::plan`], where something has changed since the plan was made.
    pub async fn apply(&self, plan: &SchedulePlan) -> Result<()> {
        for (what, line) in plan.pending() {
            let done = match what {
                What::Apply(object) => self.objects.apply(object, Mode::Real).await.map(drop),
                What::Delete { kind, name, uid } => self.objects.delete(*kind, name, uid, Mode::Real).await,
                What::Nothing => Ok(()),
            };
            done.map_err(|error| self.placed(error))?;
            (self.listener)(line);
        }
        Ok(())
    }

    /// Every schedule of the environment, and when it last did its work.
    ///
    /// # Errors
    /// Those of reading the CronJobs.
    pub async fn state(&self) -> Result<Vec<ScheduleState>> {
        state::state(&self.objects.for_task(Task::Look)).await
    }

    /// A namespace that is not there has no server either.
    fn placed(&self, error: Error) -> Error {
        match error.code() {
            "namespace_not_found" => error.with_hint(format!(
                "`shareddb deploy --create-namespace -e {} -n {}` makes it, with the server in it; or name another: -n",
                self.environment.name(),
                self.objects.namespace()
            )),
            _ => error,
        }
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scheduler({})", self.place())
    }
}
