//! Waiting for a server that was deployed.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::deploy::rollout::{self, Sight, Stage, Trouble};
use crate::deploy::spec::{ADMIN, ServerRecord};
use crate::deploy::{DeployEvent, Deployer, Ready, ServerPlan, look, manifests};
use crate::error::{Error, Result};

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

impl Deployer {
    /// Waits until the server is available and its admin can log in, for at most `patience`, after this plan was carried out.
    ///
    /// # Errors
    /// `Unavailable` with what a person would look for when it does not start: an image, a node, a volume, a quota, and the
    /// last lines of its log; `Timeout` when it is still on its way; `PermissionDenied` when the admin's password is not that of the
    /// data; `Conflict` when another deploy has undone meanwhile what was asked for. That the API does not answer for a while is not
    /// an error.
    pub async fn wait(&self, plan: &ServerPlan, patience: Duration) -> Result<Ready> {
        let deadline = Instant::now() + patience;
        let waited = async {
            let mut told = String::new();
            self.come_up(plan, patience, &mut told).await?;
            self.tell(&mut told, "a login as its admin".to_owned(), DeployEvent::Awaiting);
            let ready = self.login(deadline).await?;
            self.check_kept(plan).await.map(|()| ready)
        };
        waited.await.map_err(|error| self.placed(error))
    }

    /// Two deploys that make the server at once know nothing of each other's options.
    async fn check_kept(&self, plan: &ServerPlan) -> Result<()> {
        let found = look::deployment(&self.ground.objects).await?;
        let record = found.as_ref().and_then(look::record_of);
        let is_kept = |record: ServerRecord| record.clone().changed(&plan.spec).is_ok_and(|wanted| wanted == record);
        if record.is_some_and(is_kept) {
            return Ok(());
        }
        let message = "another deploy was there meanwhile: the server is not what was asked for";
        Err(Error::conflict("deploy_overtaken", message).with_hint("run it again"))
    }

    async fn come_up(&self, plan: &ServerPlan, patience: Duration, told: &mut String) -> Result<()> {
        let begun = Instant::now();
        let deadline = begun + patience;
        let grace = if plan.renews() { MOMENT } else { SECOND_CHANCE };
        let mut held = None;
        loop {
            let late = Instant::now() >= deadline;
            let sight = match look::sight(&self.ground.objects).await {
                Err(error) if error.is_retryable() && !late => {
                    self.tell(told, error.to_string(), DeployEvent::Trouble);
                    pause(begun, deadline).await;
                    continue;
                }
                seen => seen?,
            };
            let stage = rollout::stage(&sight);
            held = held_since(&stage, held);
            let lasts = held.is_some_and(|(_, since)| since.elapsed() >= grace);
            match stage {
                Stage::Available => return Ok(()),
                Stage::Stuck(trouble) if late || trouble.lasting && lasts => return Err(self.stuck(trouble).await),
                Stage::Stuck(trouble) => self.tell(told, trouble.message, DeployEvent::Trouble),
                Stage::Coming(what) if late => return Err(self.slow(&what, patience, &sight).await),
                Stage::Coming(what) => self.tell(told, what, DeployEvent::Awaiting),
            }
            pause(begun, deadline).await;
        }
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
        Error::unavailable(trouble.code, format!("{}{lines}", trouble.message)).with_hint(trouble.hint)
    }

    /// It may yet come: what its pod is warned of, and what it says.
    async fn slow(&self, what: &str, patience: Duration, sight: &Sight) -> Error {
        let mut message = format!("not ready after {} s; still awaited: {what}", patience.as_secs());
        if let Some(log) = rollout::awaited(sight) {
            let warning = look::warning(&self.ground.objects, &log.pod).await;
            let lines = look::log(&self.ground.objects, &log).await;
            message.extend(warning.into_iter().chain(lines).map(|text| format!("\n{text}")));
        }
        Error::timeout("server_not_ready", message)
            .with_hint("kubectl describe pods -l app=postgres; it may yet come: run the same command again")
    }

    /// A server that is ready says so to everybody; one that serves lets its admin in.
    async fn login(&self, deadline: Instant) -> Result<Ready> {
        let mut told = "";
        loop {
            let tried = async {
                let server = self.environment.connect().await?;
                let facts = server.facts(&server.session().await?).await?;
                Ok::<_, Error>(Ready { version: facts.version.to_string(), place: server.place().to_owned() })
            };
            match tried.await {
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    // Its text may name another port at each attempt.
                    if error.code() != told {
                        told = error.code();
                        (self.listener)(DeployEvent::Trouble(&error.to_string()));
                    }
                    sleep(PULSE).await;
                }
                Err(error) if error.code() == "password_rejected" => {
                    let message = format!(
                        "the server runs, and the password in secret/{} is not its admin's",
                        manifests::ADMIN_SECRET
                    );
                    let seen = look::sight(&self.ground.objects).await.ok();
                    let record = seen.as_ref().and_then(look::record);
                    let admin = record.as_ref().map_or(ADMIN, |record| record.admin());
                    let hint = format!(
                        "put the right one into the Secret, or set it in the pod: kubectl exec -it deployment/postgres -- psql -U \
                         {admin} -d postgres -c '\\password'"
                    );
                    return Err(Error::permission_denied("admin_password_wrong", message)
                        .with_source(error)
                        .with_hint(hint));
                }
                done => return done,
            }
        }
    }
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

/// Until the next look; the last one is at the deadline.
async fn pause(begun: Instant, deadline: Instant) {
    let pulse = if begun.elapsed() < EAGER { PULSE } else { SLOW_PULSE };
    sleep_until(deadline.min(Instant::now() + pulse)).await;
}
