//! The façade: the server of an environment in its Kubernetes namespace.

use std::fmt;
use std::sync::Arc;

use crate::environment::Environment;
use crate::error::{Error, Result, shell_word};
use crate::kubernetes::apply::{Mode, Objects};
use crate::kubernetes::object::Object;
use crate::kubernetes::{IN_CLUSTER, Task};
use crate::names::EnvironmentName;

mod certificates;
mod configuration;
mod decision;
pub(crate) mod fields;
mod handover;
mod heritage;
mod image;
mod look;
mod manifests;
mod observed;
mod plan;
pub(crate) mod pod;
mod prepare;
pub(crate) mod reference;
mod rollout;
mod spec;
mod state;
mod variables;
mod wait;
mod words;

pub use crate::kubernetes::quantity::{Cores, Size};
pub use fields::FieldChange;
pub use image::Image;
use plan::What;
pub use plan::{ObjectChange, ServerPlan};
use spec::ServerRecord;
pub use spec::{AccessMode, ServerSpec};
pub use state::{ClaimState, PodState, ServerState, ServiceState};

/// How often a deploy begins again because another one was quicker.
const ROUNDS: usize = 3;
/// A command of kubectl's in a hint that says not yet where.
const BARE: &str = "kubectl ";
/// How often a Deployment is read again because its status has changed meanwhile.
const READS: usize = 5;
/// Somebody else was quicker, and what was seen of the namespace is no longer so.
const RACE: &str = "concurrent_change";

/// Deploys the server of an environment, and says how it is.
pub struct Deployer {
    environment: Environment,
    ground: Ground,
    listener: Arc<Listener>,
}

type Listener = dyn Fn(DeployEvent<'_>) + Send + Sync;

/// Where a server stands.
pub(crate) struct Ground {
    environment: EnvironmentName,
    objects: Objects,
    cluster_domain: String,
}

/// Something that happened during a deploy.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum DeployEvent<'a> {
    /// What is about to be done, with what a person should know before.
    Planned(&'a ServerPlan),
    /// An object has become what it is to be.
    Applied(&'a ObjectChange),
    /// What is awaited now.
    Awaiting(&'a str),
    /// What keeps the server from starting, for now; waiting goes on.
    Trouble(&'a str),
}

/// A server that serves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ready {
    /// The version of PostgreSQL.
    pub version: String,
    /// Where it is, for people.
    pub place: String,
}

impl Ground {
    /// The names by which the server is known, the full one first.
    fn names(&self) -> Vec<String> {
        let (service, namespace) = (manifests::SERVICE, self.objects.namespace());
        vec![
            format!("{service}.{namespace}.svc.{}", self.cluster_domain),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}"),
            service.to_owned(),
        ]
    }
}

impl Deployer {
    /// For this environment. Reads the kubeconfig; nothing is sent yet.
    ///
    /// # Errors
    /// `InvalidInput` when its server is not one that is deployed to a namespace; those of [`crate::Cluster::namespace`].
    pub async fn new(environment: &Environment) -> Result<Self> {
        let (namespace, cluster_domain) = environment.ground().await?;
        let objects = Objects::new(namespace, Task::Deploy);
        let ground = Ground { environment: environment.name().clone(), objects, cluster_domain };
        Ok(Self { environment: environment.clone(), ground, listener: Arc::new(|_| {}) })
    }

    /// The objects of this environment's server, for those who make it by other means, such as a GitOps repository: each as a
    /// map in the form of the API. Its Secrets are not among them, and nothing is asked of a cluster.
    ///
    /// # Errors
    /// `InvalidInput` when no server could run that way, it needs a certificate, or the environment has no namespace.
    pub fn manifests(environment: &Environment, spec: &ServerSpec) -> Result<Vec<serde_json::Value>> {
        let record = ServerRecord::guide()?.changed(spec)?;
        if record.tls {
            return Err(Error::invalid_input("print_with_tls", "a server with TLS has a key, which is not printed")
                .with_hint("print the objects without --tls, or have shareddb deploy it"));
        }
        let objects = manifests::manifests(&record, environment.namespace_name()?, None).into_iter();
        Ok(objects.filter(|object| object.kind.name != "Secret").map(|object| object.content).collect())
    }

    /// Has somebody told what happens. It is called in between and ought to be quick.
    #[must_use]
    pub fn on_event(mut self, listener: impl Fn(DeployEvent<'_>) + Send + Sync + 'static) -> Self {
        self.listener = Arc::new(listener);
        self
    }

    /// Where it acts, for people: context and namespace.
    pub fn place(&self) -> String {
        format!("context {} · namespace {}", self.ground.objects.context(), self.ground.objects.namespace())
    }

    /// What a deploy would change. Each object was dry-run by the API server, so that rights and conflicts are known.
    ///
    /// # Errors
    /// `Refused` when it would lose data or take what is somebody else's, `Conflict` when fields belong to somebody else,
    /// `NotFound` when there is no namespace, `PermissionDenied` with the rule that is missing.
    pub async fn plan(&self, spec: &ServerSpec) -> Result<ServerPlan> {
        prepare::prepare(&self.ground, spec).await.map_err(|error| match error.code() {
            "namespace_not_found" => error.with_hint("make it with --create-namespace, or name another: -n"),
            _ => self.placed(error),
        })
    }

    /// The commands of a hint act where the error comes from, wherever kubectl would act by itself.
    fn placed(&self, error: Error) -> Error {
        let (context, namespace) = (self.ground.objects.context(), self.ground.objects.namespace());
        let context = if context == IN_CLUSTER { String::new() } else { format!("--context {} ", shell_word(context)) };
        // What says already where, and a Role, which says it itself.
        let is_placed = |hint: &str| hint.contains("kubectl --context") || hint.contains("(kubectl apply -f -)");
        let bare = error.hint().filter(|hint| !is_placed(hint));
        let placed = bare.map(|hint| hint.replace(BARE, &format!("kubectl {context}-n {namespace} ")));
        placed.into_iter().fold(error, Error::with_hint)
    }

    /// Makes the server what it is to be; gives what was changed for that. It does not wait for the server.
    ///
    /// # Errors
    /// As [`Self::plan`]. What is done stays done, and the next deploy goes on from there.
    pub async fn deploy(&self, spec: &ServerSpec) -> Result<ServerPlan> {
        for _ in 1..ROUNDS {
            let plan = self.plan(spec).await?;
            (self.listener)(DeployEvent::Planned(&plan));
            match self.apply(&plan).await {
                Err(error) if error.code() == RACE => {}
                done => return done.map(|()| plan),
            }
        }
        let plan = self.plan(spec).await?;
        (self.listener)(DeployEvent::Planned(&plan));
        self.apply(&plan).await.map(|()| plan)
    }

    /// Carries a plan out.
    ///
    /// # Errors
    /// `Conflict` with the code `concurrent_change` when something has changed since the plan was made: make another.
    pub async fn apply(&self, plan: &ServerPlan) -> Result<()> {
        for (what, line) in plan.pending() {
            self.act(what).await.map_err(|error| self.placed(error))?;
            (self.listener)(DeployEvent::Applied(line));
        }
        Ok(())
    }

    async fn act(&self, what: &What) -> Result<()> {
        let objects = &self.ground.objects;
        match what {
            What::MakeNamespace => drop(objects.make(Mode::Real).await?),
            What::Create(object, then) => {
                if objects.create(object, Mode::Real).await?.is_none() {
                    let message = format!("{} was made by another program meanwhile", object.label());
                    return Err(Error::conflict(RACE, message).with_hint("run it again"));
                }
                if let Some(then) = then {
                    objects.apply(then, Mode::Real).await?;
                }
            }
            What::Replace(object) => drop(objects.replace(object, Mode::Real).await?),
            What::TakeOver(object, before) => {
                objects.merge(object.kind, &object.name, &handover::patch(before), Mode::Real).await?;
                objects.apply(object, Mode::Real).await?;
            }
            What::Apply(object) => drop(objects.apply(object, Mode::Real).await?),
            What::Follow(object, standing) => self.follow(object, standing.as_ref()).await?,
        }
        Ok(())
    }

    /// Applies the Deployment if it bears this record still. Options of a deploy that was quicker would be lost otherwise.
    async fn follow(&self, object: &Object, standing: Option<&String>) -> Result<()> {
        let objects = &self.ground.objects;
        let mut reads = 1;
        loop {
            let found = look::deployment(objects).await?.map(|deployment| deployment.metadata);
            let record = found.as_ref().and_then(|found| found.annotations.as_ref()?.get(manifests::RECORD));
            if record != standing {
                let message = "another deploy has changed the server meanwhile";
                return Err(Error::conflict(RACE, message).with_hint("run it again"));
            }
            let mut guarded = object.clone();
            if let Some(version) = found.as_ref().and_then(|found| found.resource_version.as_deref()) {
                guarded.content["metadata"]["resourceVersion"] = version.into();
            }
            match objects.apply(&guarded, Mode::Real).await {
                // Its status changes as well.
                Err(error) if error.code() == RACE && reads < READS => reads += 1,
                done => return done.map(drop),
            }
        }
    }

    /// How the server is: its pods, its Service, its volume.
    ///
    /// # Errors
    /// Those of reading these.
    pub async fn state(&self) -> Result<ServerState> {
        state::state(&self.ground.objects.for_task(Task::Look)).await
    }
}

impl fmt::Debug for Deployer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deployer({})", self.place())
    }
}
