//! The façade: the server of an environment in its Kubernetes namespace.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::environment::Environment;
use crate::error::{Error, Result, shell_word};
use crate::kubernetes::apply::{Handover, Mode, Objects};
use crate::kubernetes::{IN_CLUSTER, Task};
use crate::names::EnvironmentName;

mod certificates;
mod configuration;
mod decision;
mod fields;
mod heritage;
mod image;
mod look;
mod manifests;
mod observed;
mod plan;
mod pod;
mod prepare;
mod quantity;
mod rollout;
mod spec;
mod state;

pub use fields::FieldChange;
pub use image::Image;
use plan::What;
pub use plan::{ObjectChange, ServerPlan};
pub use quantity::{Cores, Size};
use rollout::{Stage, Trouble};
use spec::ServerRecord;
pub use spec::{AccessMode, ServerSpec};
pub use state::{ClaimState, PodState, ServerState, ServiceState};

/// How often a server that starts is looked at.
const PULSE: Duration = Duration::from_millis(300);
/// For how long it is looked at that often.
const EAGER: Duration = Duration::from_secs(10);
/// How often after that.
const SLOW_PULSE: Duration = Duration::from_secs(1);
/// How long a trouble is there before waiting ends: it may be that of a pod which is about to go.
const MOMENT: Duration = Duration::from_secs(1);
/// The same where the server is as it was before: whoever deploys it again has mended something, maybe, and the cluster tries again
/// after a while.
const SECOND_CHANCE: Duration = Duration::from_secs(30);
/// How often a deploy begins again because another one was quicker.
const ROUNDS: usize = 3;
/// A command of kubectl's in a hint that says not yet where.
const BARE: &str = "kubectl ";
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
        let bare = error.hint().filter(|hint| !hint.contains("kubectl --context"));
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
            if let Some(line) = line {
                (self.listener)(DeployEvent::Applied(line));
            }
        }
        Ok(())
    }

    async fn act(&self, what: &What) -> Result<()> {
        let objects = &self.ground.objects;
        match what {
            What::MakeNamespace => drop(objects.make(Mode::Real).await?),
            What::Create(object) => {
                if objects.create(object, Mode::Real).await?.is_none() {
                    let message = format!("{} was made by another program meanwhile", object.label());
                    return Err(Error::conflict(RACE, message).with_hint("run it again"));
                }
            }
            What::Replace(object) => drop(objects.replace(object, Mode::Real).await?),
            What::TakeOver(object, before) => {
                let handover: Handover = heritage::handover(before);
                objects.merge(object.kind, &object.name, &handover, Mode::Real).await?;
                objects.apply(object, Mode::Real).await?;
            }
            What::Apply(object) => drop(objects.apply(object, Mode::Real).await?),
        }
        Ok(())
    }

    /// Waits until the server is available and its admin can log in, for at most `patience`, after this plan was carried out.
    ///
    /// # Errors
    /// `Unavailable` with what a person would look for when it does not start: an image, a node, a volume, a quota, and the
    /// last lines of its log; `Timeout` when it is still on its way; `PermissionDenied` when the admin's password is not that of the
    /// data.
    pub async fn wait(&self, plan: &ServerPlan, patience: Duration) -> Result<Ready> {
        let begun = Instant::now();
        let deadline = begun + patience;
        let mut told = String::new();
        let grace = if plan.renews() { MOMENT } else { SECOND_CHANCE };
        let mut held = None;
        loop {
            let seen = look::sight(&self.ground.objects).await;
            let late = Instant::now() >= deadline;
            let stage = match seen {
                Err(error) if error.is_retryable() && !late => {
                    self.tell(&mut told, error.to_string(), DeployEvent::Trouble);
                    pause(begun, deadline).await;
                    continue;
                }
                seen => rollout::stage(&seen?),
            };
            held = held_since(&stage, held);
            let lasts = held.is_some_and(|(_, since)| since.elapsed() >= grace);
            match stage {
                Stage::Available => break,
                Stage::Stuck(trouble) if late || trouble.lasting && lasts => return Err(self.stuck(trouble).await),
                Stage::Stuck(trouble) => self.tell(&mut told, trouble.message, DeployEvent::Trouble),
                Stage::Coming(what) if late => {
                    return Err(Error::timeout(
                        "server_not_ready",
                        format!("not ready after {patience:?}; still awaited: {what}"),
                    )
                    .with_hint(format!(
                        "kubectl get pods -n {} -l app=postgres; it may yet come: run the same command again",
                        self.ground.objects.namespace()
                    )));
                }
                Stage::Coming(what) => self.tell(&mut told, what, DeployEvent::Awaiting),
            }
            pause(begun, deadline).await;
        }
        self.tell(&mut told, "a login as its admin".to_owned(), DeployEvent::Awaiting);
        self.login(deadline).await
    }

    /// Tells what is new.
    fn tell<'a>(&self, told: &'a mut String, text: String, event: impl FnOnce(&'a str) -> DeployEvent<'a>) {
        if *told != text {
            *told = text;
            (self.listener)(event(told));
        }
    }

    async fn stuck(&self, trouble: Trouble) -> Error {
        let log = match &trouble.log {
            Some(log) => look::log(&self.ground.objects, log).await,
            None => None,
        };
        let lines = log.map(|log| format!("\n{log}")).unwrap_or_default();
        let namespace = self.ground.objects.namespace();
        Error::unavailable(trouble.code, format!("{}{lines}", trouble.message))
            .with_hint(format!("{} (-n {namespace})", trouble.hint))
    }

    /// A server that is ready says so to everybody; one that serves lets its admin in.
    async fn login(&self, deadline: Instant) -> Result<Ready> {
        loop {
            let tried = async {
                let server = self.environment.connect().await?;
                let facts = server.facts(&server.session().await?).await?;
                Ok::<_, Error>(Ready { version: facts.version.to_string(), place: server.place().to_owned() })
            };
            match tried.await {
                Err(error) if error.is_retryable() && Instant::now() < deadline => sleep(PULSE).await,
                Err(error) if error.code() == "password_rejected" => {
                    let message = format!(
                        "the server runs, and the password in secret/{} is not its admin's",
                        manifests::ADMIN_SECRET
                    );
                    return Err(Error::permission_denied("admin_password_wrong", message).with_source(error).with_hint(
                        "put the right one into the Secret, or set it in the pod: kubectl exec -it deployment/postgres -- psql \
                         -U postgres -c '\\password'",
                    ));
                }
                done => return done,
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

/// Until the next look; the last one is at the deadline.
async fn pause(begun: Instant, deadline: Instant) {
    let pulse = if begun.elapsed() < EAGER { PULSE } else { SLOW_PULSE };
    sleep_until(deadline.min(Instant::now() + pulse)).await;
}

/// By which trouble a server is held up, and since when.
fn held_since(stage: &Stage, before: Option<(&'static str, Instant)>) -> Option<(&'static str, Instant)> {
    match stage {
        Stage::Stuck(trouble) => {
            before.filter(|(code, _)| *code == trouble.code).or_else(|| Some((trouble.code, Instant::now())))
        }
        Stage::Available | Stage::Coming(_) => None,
    }
}

impl fmt::Debug for Deployer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deployer({})", self.place())
    }
}
