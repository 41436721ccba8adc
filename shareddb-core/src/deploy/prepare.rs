//! From what a server is to be to what has to be sent for it, with the API server's own word on each object.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::change::Change;
use crate::deploy::certificates::{Certificates, Pair, vouch_alike};
use crate::deploy::decision::decide;
use crate::deploy::fields::{self, FieldChange};
use crate::deploy::manifests::{
    ADMIN_SECRET, AUTHORITY_SECRET, DEPLOYMENT, SERVICE, admin_secret_made, authority_secret, manifests,
};
use crate::deploy::observed::{AdminSecret, Observed, read_record};
use crate::deploy::plan::{ObjectChange, ServerPlan, What};
use crate::deploy::spec::{ServerRecord, ServerSpec};
use crate::deploy::{Ground, handover, look};
use crate::error::{Error, Result};
use crate::kubernetes::apply::Mode;
use crate::kubernetes::object::Object;
use crate::password;

/// A plan in the making.
struct Draft<'a> {
    ground: &'a Ground,
    observed: Observed,
    plan: ServerPlan,
    /// Whether the namespace is about to be made, so that nothing in it can be asked about.
    namespace_absent: bool,
}

/// Observes, decides, and has the API server answer for each object what it would become.
pub(crate) async fn prepare(ground: &Ground, spec: &ServerSpec) -> Result<ServerPlan> {
    match prepared(ground, spec, false).await {
        // Whether there is a namespace not everybody may ask; whether something can be made in it, everybody is told.
        Err(error) if error.code() == "namespace_not_found" && spec.create_namespace => {
            ground.objects.make(Mode::DryRun).await?;
            prepared(ground, spec, true).await
        }
        done => done,
    }
}

async fn prepared(ground: &Ground, spec: &ServerSpec, namespace_absent: bool) -> Result<ServerPlan> {
    let observed = if namespace_absent { Observed::default() } else { look::observe(&ground.objects, spec).await? };
    let record = decide(spec, &observed)?;
    let certificates = certificates(ground, &record, &observed)?;
    let mut wanted = manifests(&record, ground.objects.namespace(), certificates.as_ref());
    let plan = ServerPlan {
        environment: ground.environment.clone(),
        objects: Vec::new(),
        notices: Vec::new(),
        actions: Vec::new(),
        spec: spec.clone(),
    };
    let mut draft = Draft { ground, observed, plan, namespace_absent };
    draft.namespace();
    if !namespace_absent {
        look::rest(&ground.objects, &wanted, &mut draft.observed).await?;
        check_lasting(&draft.observed)?;
    }
    draft.admin(&record, &mut wanted).await?;
    draft.authority(certificates.as_ref()).await?;
    draft.rest(wanted).await?;
    draft.notices(&record, certificates.as_ref());
    Ok(draft.plan)
}

/// What is being deleted can still be changed, and is gone a moment later.
fn check_lasting(observed: &Observed) -> Result<()> {
    let going = observed.objects.iter().find(|(_, object)| !object["metadata"]["deletionTimestamp"].is_null());
    match going {
        None => Ok(()),
        Some((label, _)) => {
            Err(Error::conflict("object_terminating", format!("{label} is being deleted")).with_hint(format!(
                "once it is gone, run this again: kubectl wait --for=delete {label} --timeout=5m; what holds it up \
                 stands in its metadata.finalizers"
            )))
        }
    }
}

fn certificates(ground: &Ground, record: &ServerRecord, observed: &Observed) -> Result<Option<Certificates>> {
    if !record.tls {
        return Ok(None);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Certificates::settled(observed.authority.as_ref(), observed.certificate.as_ref(), &ground.names(), now).map(Some)
}

impl Draft<'_> {
    fn add(&mut self, object: String, op: Option<Change>, fields: Vec<FieldChange>, what: What) {
        self.plan.objects.push(ObjectChange { object, op, fields });
        self.plan.actions.push(what);
    }

    fn namespace(&mut self) {
        if self.namespace_absent {
            let label = format!("namespace/{}", self.ground.objects.namespace());
            self.add(label, Some(Change::Add), Vec::new(), What::MakeNamespace);
        }
    }

    /// The admin's password: made once, and with it what is not secret in the same Secret, which is applied otherwise. What two
    /// deploys make at once, the first one has made.
    async fn admin(&mut self, record: &ServerRecord, wanted: &mut Vec<Object>) -> Result<()> {
        if self.observed.admin != AdminSecret::Absent {
            return Ok(());
        }
        let found = self.observed.found.as_ref().map(|found| found.password.clone()).filter(|found| !found.is_empty());
        let password = match &found {
            Some(sources) => look::value(&self.ground.objects, sources).await?.ok_or_else(|| {
                Error::refused(
                    "adopt_unclear",
                    format!("the password of deployment/{DEPLOYMENT} is not where it says: {sources:?}"),
                )
                .with_hint(format!(
                    "make the Secret with it: kubectl create secret generic {ADMIN_SECRET} --from-literal=username={} \
                         --from-file=password=FILE",
                    record.admin()
                ))
            })?,
            None => password::generate()?.expose_secret().to_owned(),
        };
        let object = Object::of(ADMIN_SECRET, &admin_secret_made(record, self.ground.objects.namespace(), &password));
        let then = wanted.extract_if(.., |wanted| wanted.label() == object.label()).next();
        self.create(object, then).await
    }

    /// `then`: what is applied of the object, once it is made.
    async fn create(&mut self, object: Object, then: Option<Object>) -> Result<()> {
        if !self.namespace_absent {
            self.ground.objects.create(&object, Mode::DryRun).await?;
            if let Some(then) = &then {
                self.ground.objects.apply(then, Mode::DryRun).await?;
            }
        }
        self.add(object.label(), Some(Change::Add), Vec::new(), What::Create(object, then));
        Ok(())
    }

    /// Who vouches for the server: made once, and renewed under its key.
    async fn authority(&mut self, certificates: Option<&Certificates>) -> Result<()> {
        let Some(pair) = certificates.and_then(|certificates| certificates.new_authority.as_ref()) else {
            return Ok(());
        };
        let mut object = Object::of(AUTHORITY_SECRET, &authority(self.ground, pair));
        let Some(found) = self.observed.objects.get(&object.label()) else { return self.create(object, None).await };
        object.content["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
        let answer = self.ground.objects.replace(&object, Mode::DryRun).await?;
        let fields = fields::changes(found, &answer, true);
        self.add(object.label(), Some(Change::Change), fields, What::Replace(object));
        Ok(())
    }

    async fn rest(&mut self, wanted: Vec<Object>) -> Result<()> {
        let taken_over = self.observed.found.is_some().then(|| format!("deployment/{DEPLOYMENT}"));
        let answers = wanted.iter().map(|object| async {
            let label = object.label();
            if self.namespace_absent {
                return Ok(None);
            }
            match self.observed.objects.get(&label).filter(|_| taken_over.as_ref() == Some(&label)) {
                Some(before) => {
                    let rehearsal = handover::rehearsal(object, before);
                    self.ground.objects.merge(object.kind, &object.name, &rehearsal, Mode::DryRun).await.map(Some)
                }
                None => self.ground.objects.apply(object, Mode::DryRun).await.map(Some),
            }
        });
        let answers: Vec<Option<Value>> = futures_util::future::try_join_all(answers).await?;
        for (object, answer) in wanted.into_iter().zip(answers) {
            let label = object.label();
            let before = self.observed.objects.get(&label).cloned();
            let fields = match (&before, &answer) {
                (Some(before), Some(answer)) => fields::changes(before, answer, object.kind.name == "Secret"),
                _ => Vec::new(),
            };
            let op = match &before {
                None => Some(Change::Add),
                Some(_) if fields.is_empty() && taken_over.as_ref() != Some(&label) => None,
                Some(_) => Some(Change::Change),
            };
            let what = match before.filter(|_| taken_over.as_ref() == Some(&label)) {
                Some(before) => What::TakeOver(object, before),
                None if label == format!("deployment/{DEPLOYMENT}") => {
                    What::Follow(object, self.observed.standing().cloned())
                }
                None => What::Apply(object),
            };
            self.add(label, op, fields, what);
        }
        Ok(())
    }

    fn notices(&mut self, record: &ServerRecord, certificates: Option<&Certificates>) {
        if let Some(found) = &self.observed.found {
            let managers = found.managers.join(", ");
            let managers = if managers.is_empty() { "somebody else" } else { &managers };
            self.plan.notices.push(format!(
                "deployment/{DEPLOYMENT} was written by {managers}: whatever applies it again (a GitOps repository, a script) has \
                 to let go of it. What it has besides (variables, probes, other volumes) goes; claim {}, image and data directory stay",
                found.heritage.claim
            ));
            self.plan.notices.push(format!(
                "from then on it has {} of memory, {} processors and {} connections (--memory, --cpu, --max-connections), with settings \
                 of shareddb: postgresql.conf in its data directory does not count any more, nor does a library that it loads",
                record.memory, record.cpu, record.connections
            ));
            self.plan.notices.push(
                "pods of other namespaces cannot reach it any more, where the cluster enforces policies: --allow-namespace NAME".to_owned(),
            );
        }
        if !record.is_ours() {
            self.plan.notices.push(
                "logins that were made by hand may enter every database that lets them in, as before; when all apps are adopted, \
                 --secure-server ends that"
                    .to_owned(),
            );
        }
        let was_open = |kept: &ServerRecord| kept.adopted.as_ref().is_some_and(|adopted| adopted.open);
        let kept = self.observed.record().and_then(|text| read_record(text));
        if kept.as_ref().is_some_and(was_open) && record.is_ours() {
            self.plan.notices.push(
                "logins of apps that are not adopted cannot log in any more: `shareddb list` shows those that are"
                    .to_owned(),
            );
        }
        let stays_encrypted = kept.as_ref().is_some_and(|kept| kept.tls) && record.tls;
        if stays_encrypted && certificates.is_some_and(|certificates| is_another(&self.observed, certificates)) {
            self.plan.notices.push(
                "another authority vouches for the server from now on: apps cannot log in until `shareddb create APP` has given each \
                 its new Secret"
                    .to_owned(),
            );
        }
        if let Some(kept) = kept.filter(|kept| kept.tls != record.tls) {
            let (from, what) = if kept.tls { ("whose Secret asks for TLS", "off") } else { ("without TLS", "on") };
            self.plan.notices.push(format!(
                "TLS is switched {what}: apps {from} cannot log in until `shareddb create APP` has given each its new Secret"
            ));
        }
        if self.plan.restarts() {
            self.plan.notices.push(format!("the server behind {SERVICE} is started anew: all sessions end"));
        }
    }
}

/// Whether apps that trust the authority of before do not trust this one.
fn is_another(observed: &Observed, certificates: &Certificates) -> bool {
    match &observed.trusted {
        Some(trusted) => !vouch_alike(trusted, &certificates.authority),
        None => observed.authority.is_none(),
    }
}

fn authority(ground: &Ground, pair: &Pair) -> Secret {
    let mut secret = authority_secret(ground.objects.namespace());
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = secret.data.get_or_insert_default();
    data.insert("tls.crt".to_owned(), bytes(&pair.certificate));
    data.insert("tls.key".to_owned(), bytes(pair.key.expose_secret()));
    secret
}
