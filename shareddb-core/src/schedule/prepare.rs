//! From what is to happen regularly to what has to be sent for it, with the API server's own word on each object.

use futures_util::future::{try_join, try_join_all};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use super::manifests::{Names, SELECTOR, manifests};
use super::observed::{Observed, is_going, is_own};
use super::plan::{Run, SchedulePlan, What};
use super::spec::{NextRuns, ScheduleRecord, ScheduleSpec, vendor};
use crate::change::Change;
use crate::deploy::{ObjectChange, fields};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::kubernetes::apply::{Mode, Objects};
use crate::kubernetes::object::{Kind, Object};
use crate::names::{AppName, SecretName};

const CRON_JOBS: Kind = Kind::of::<CronJob>();
const SECRETS: Kind = Kind::of::<Secret>();

/// What would change for this schedule to be.
pub(crate) async fn prepare(environment: &Environment, objects: &Objects, spec: &ScheduleSpec) -> Result<SchedulePlan> {
    let names = Names::of(spec.app.as_ref());
    let observed = observe(objects, &names).await?;
    let record = match observed.record(&names)? {
        Some(record) => record,
        None => ScheduleRecord::usual(spec.app.clone())?,
    };
    let record = record.changed(spec)?;
    let site = record.site(environment)?;
    let mut draft = Draft::new(environment);
    let wanted = manifests(&record, &site)?;
    observed.check(&names, &wanted)?;
    let answers = wanted.iter().map(|object| answer(objects, object, &observed));
    for (object, answer) in wanted.iter().zip(try_join_all(answers).await?) {
        draft.apply(object, observed.objects.get(&object.label()), answer.as_ref());
    }
    // After what is wanted, so that the credentials are asked for of a namespace that is there.
    if let Some(secret) = &record.credentials {
        check_credentials(objects, secret, &site.store).await?;
    }
    draft.drop_verify(objects, &names, &observed, &wanted).await?;
    draft.runs(&names, &observed, NextRuns::after(Timestamp::now(), &record)?);
    draft.notices(&record, &observed);
    Ok(draft.plan)
}

/// What would go with this schedule.
pub(crate) async fn prepare_end(
    environment: &Environment,
    objects: &Objects,
    app: Option<&AppName>,
) -> Result<SchedulePlan> {
    let names = Names::of(app);
    let observed = observe(objects, &names).await?;
    let mut draft = Draft::new(environment);
    // What is owned goes before what it stands on.
    for (kind, name) in names.objects().into_iter().rev() {
        let label = kind.label(name);
        match observed.objects.get(&label) {
            Some(found) if !is_own(found, &names) => {
                draft.plan.notices.push(format!("{label} was not made by shareddb, and stays"));
                draft.add(label, None, Vec::new(), What::Nothing);
            }
            Some(found) if !is_going(found) => draft.delete(objects, kind, name, found).await?,
            Some(_) | None => {}
        }
    }
    draft.runs(&names, &observed, NextRuns::default());
    Ok(draft.plan)
}

async fn observe(objects: &Objects, names: &Names) -> Result<Observed> {
    let wanted = names.objects();
    let read = try_join_all(wanted.iter().map(|(kind, name)| objects.read(*kind, name)));
    let (read, cron_jobs) = try_join(read, objects.list(CRON_JOBS, SELECTOR)).await?;
    let found = wanted.iter().zip(read).filter_map(|((kind, name), found)| Some((kind.label(name), found?)));
    Ok(Observed { objects: found.collect(), cron_jobs })
}

/// What an object would be. `None` where that cannot be asked: a binding to a Role that is yet to be made is refused to whoever has
/// no right to bind any.
async fn answer(objects: &Objects, object: &Object, observed: &Observed) -> Result<Option<Value>> {
    let role = format!("role/{}", object.name);
    if object.kind.name == "RoleBinding" && !observed.objects.contains_key(&role) {
        return Ok(None);
    }
    objects.apply(object, Mode::DryRun).await.map(Some)
}

/// A run whose variables are not there begins never.
async fn check_credentials(objects: &Objects, name: &SecretName, store: &str) -> Result<()> {
    let (namespace, vendor) = (objects.namespace(), vendor(store)?);
    let make = format!("kubectl -n {namespace} create secret generic {name} --from-env-file=FILE");
    let Some(secret) = objects.read(SECRETS, name.as_str()).await? else {
        let message = format!("there is no secret/{name} with the variables that lead to the store");
        return Err(Error::not_found("credentials_missing", message).with_hint(format!(
            "make it of lines such as {vendor}…=…: {make}; or name another: --credentials-secret"
        )));
    };
    let keys = || secret["data"].as_object().into_iter().flat_map(serde_json::Map::keys);
    if keys().any(|key| key.starts_with(vendor)) {
        return Ok(());
    }
    let message = format!("secret/{name} has no key {vendor}…, and its keys are the variables that lead to {store}");
    Err(Error::invalid_input("credentials_missing", message).with_hint(format!(
        "it has {}; make one of lines such as {vendor}…=…: {make}",
        keys().cloned().collect::<Vec<_>>().join(", ")
    )))
}

/// A plan in the making.
struct Draft {
    plan: SchedulePlan,
}

impl Draft {
    fn new(environment: &Environment) -> Self {
        let plan = SchedulePlan {
            environment: environment.name().clone(),
            runs: Vec::new(),
            objects: Vec::new(),
            notices: Vec::new(),
            actions: Vec::new(),
        };
        Self { plan }
    }

    fn add(&mut self, object: String, op: Option<Change>, fields: Vec<fields::FieldChange>, what: What) {
        self.plan.objects.push(ObjectChange { object, op, fields });
        self.plan.actions.push(what);
    }

    fn apply(&mut self, object: &Object, before: Option<&Value>, answer: Option<&Value>) {
        let fields = match (before, answer) {
            (Some(before), Some(answer)) => fields::changes(before, answer, false),
            _ => Vec::new(),
        };
        let op = match before {
            None => Some(Change::Add),
            Some(_) if fields.is_empty() => None,
            Some(_) => Some(Change::Change),
        };
        self.add(object.label(), op, fields, What::Apply(object.clone()));
    }

    async fn delete(&mut self, objects: &Objects, kind: Kind, name: &str, found: &Value) -> Result<()> {
        let uid = found["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        objects.delete(kind, name, &uid, Mode::DryRun).await?;
        self.add(kind.label(name), Some(Change::Remove), Vec::new(), What::Delete { kind, name: name.to_owned(), uid });
        Ok(())
    }

    /// What proves no backups any more goes.
    async fn drop_verify(
        &mut self,
        objects: &Objects,
        names: &Names,
        observed: &Observed,
        wanted: &[Object],
    ) -> Result<()> {
        let label = CRON_JOBS.label(&names.verify);
        let unwanted = observed.objects.get(&label).filter(|_| wanted.iter().all(|object| object.label() != label));
        match unwanted.filter(|found| is_own(found, names) && !is_going(found)) {
            Some(found) => self.delete(objects, CRON_JOBS, &names.verify, found).await,
            None => Ok(()),
        }
    }

    fn runs(&mut self, names: &Names, observed: &Observed, next: NextRuns) {
        for (name, next) in [(&names.backup, next.backup), (&names.verify, next.verify)] {
            let label = CRON_JOBS.label(name);
            let mut lines = self.plan.objects.iter().zip(&self.plan.actions);
            let ours = lines.find(|(line, what)| line.object == label && !matches!(what, What::Nothing));
            let Some(op) = ours.map(|(line, _)| line.op) else { continue };
            let stays = op != Some(Change::Remove);
            let suspended = observed.objects.get(&label).is_some_and(|job| job["spec"]["suspend"] == true);
            if suspended && stays {
                self.plan.notices.push(format!(
                    "{label} is suspended, and does not run until somebody lets it: kubectl patch {label} -p \
                     '{{\"spec\":{{\"suspend\":false}}}}'"
                ));
            }
            self.plan.runs.push(Run { name: label, op, next: next.filter(|_| stays && !suspended) });
        }
    }

    fn notices(&mut self, record: &ScheduleRecord, observed: &Observed) {
        if record.verify.is_none() && !record.encrypt_to.is_empty() {
            self.plan.notices.push(
                "encrypted backups are not proven in a pod, which has no key to them: shareddb verify --all --identity FILE, where the \
                 key is"
                    .to_owned(),
            );
        }
        for other in observed.others(record.app.as_ref()) {
            let (which, off) = match other {
                Some(app) => (format!("app {app} has a schedule of its own"), app),
                None => ("all apps have a schedule, too".to_owned(), "--all".to_owned()),
            };
            self.plan.notices.push(format!(
                "{which}: its backups are taken by both, and what either does not keep goes (shareddb schedule {off} --off)"
            ));
        }
    }
}
