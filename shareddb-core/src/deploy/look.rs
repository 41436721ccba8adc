//! Reading what there is of a server.

use futures_util::future::{join_all, try_join, try_join_all, try_join3};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, PersistentVolumeClaim, Pod, Secret};
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::{Date, OffsetDateTime};

use crate::credentials;
use crate::deploy::certificates::{self, Pair};
use crate::deploy::heritage::{self, Found};
use crate::deploy::manifests::{
    ADMIN_SECRET, AUTHORITY_SECRET, CERTIFICATE_SECRET, CLAIM, CONFIGURATION, DEPLOYMENT, RECORD, labels_of, selector,
};
use crate::deploy::observed::{AdminSecret, Observed, read_record};
use crate::deploy::rollout::{self, Log, Sight};
use crate::deploy::spec::{ServerRecord, ServerSpec};
use crate::deploy::variables::Source;
use crate::environment::AUTHORITY_KEY;
use crate::error::{Error, Result};
use crate::kubernetes::apply::Objects;
use crate::kubernetes::object::{Kind, Object};

const DEPLOYMENTS: Kind = Kind::of::<Deployment>();
const CLAIMS: Kind = Kind::of::<PersistentVolumeClaim>();
const SECRETS: Kind = Kind::of::<Secret>();
const CONFIG_MAPS: Kind = Kind::of::<ConfigMap>();
const PODS: Kind = Kind::of::<Pod>();

/// Reads what a decision needs.
pub(crate) async fn observe(objects: &Objects, spec: &ServerSpec) -> Result<Observed> {
    let (deployment, configuration) =
        try_join(objects.read(DEPLOYMENTS, DEPLOYMENT), objects.read(CONFIG_MAPS, CONFIGURATION)).await?;
    let mut observed = Observed {
        deployment: typed(deployment.as_ref())?,
        configuration: typed(configuration.as_ref())?,
        ..Observed::default()
    };
    if observed.record().is_none()
        && spec.adopt
        && let Some(deployment) = &observed.deployment
    {
        observed.found = Some(resolved(objects, heritage::found(deployment)?).await?);
    }
    let claim = claim_name(&observed);
    let secret = |name: &'static str| objects.read(SECRETS, name);
    let (claim, (admin, authority), certificate) = try_join3(
        objects.read(CLAIMS, &claim),
        try_join(secret(ADMIN_SECRET), secret(AUTHORITY_SECRET)),
        secret(CERTIFICATE_SECRET),
    )
    .await?;
    observed.claim = typed(claim.as_ref())?;
    let admin_secret: Option<Secret> = typed(admin.as_ref())?;
    observed.admin = admin_state(admin_secret.as_ref());
    observed.trusted = admin_secret.as_ref().and_then(|secret| text(secret, AUTHORITY_KEY));
    observed.authority = pair(typed(authority.as_ref())?.as_ref());
    observed.certificate = pair(typed(certificate.as_ref())?.as_ref());
    if observed.record().is_none() && observed.deployment.is_none() {
        observed.strangers = strangers(&all(objects.list(PODS, &format!("app={DEPLOYMENT}")).await?)?);
    }
    let read = [deployment, configuration, claim, admin, authority, certificate].into_iter().flatten();
    observed.objects = read.filter_map(|object| Some((label(&object)?, object))).collect();
    Ok(observed)
}

/// Who owns these pods.
fn strangers(pods: &[Pod]) -> Vec<String> {
    let owner = |pod: &Pod| {
        let owner = pod.metadata.owner_references.iter().flatten().next();
        let owner = owner.map(|owner| format!("{}/{}", owner.kind.to_ascii_lowercase(), owner.name));
        owner.unwrap_or_else(|| format!("pod/{}", pod.metadata.name.as_deref().unwrap_or_default()))
    };
    let mut owners: Vec<String> =
        pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(owner).collect();
    owners.sort();
    owners.dedup();
    owners
}

/// Reads the rest of what may be applied.
pub(crate) async fn rest(objects: &Objects, wanted: &[Object], observed: &mut Observed) -> Result<()> {
    let unread: Vec<&Object> = wanted.iter().filter(|object| !observed.objects.contains_key(&object.label())).collect();
    let read = try_join_all(unread.iter().map(|object| objects.read(object.kind, &object.name))).await?;
    let found = unread.iter().zip(read).filter_map(|(object, found)| Some((object.label(), found?)));
    observed.objects.extend(found.collect::<Vec<_>>());
    Ok(())
}

/// What can be seen of a server on its way.
pub(crate) async fn sight(objects: &Objects) -> Result<Sight> {
    let deployment: Option<Deployment> = typed(objects.read(DEPLOYMENTS, DEPLOYMENT).await?.as_ref())?;
    let record = deployment.as_ref().and_then(record_of);
    let labels = record.as_ref().map_or_else(|| format!("app={DEPLOYMENT}"), |record| labels_of(&selector(record)));
    let adopted = record.and_then(|record| record.adopted).map(|adopted| adopted.claim);
    let claim_name = adopted.as_deref().unwrap_or(CLAIM);
    let (pods, claim) = try_join(objects.list(PODS, &labels), objects.read(CLAIMS, claim_name)).await?;
    let claim: Option<PersistentVolumeClaim> = typed(claim.as_ref())?;
    let is_pending = |claim: &PersistentVolumeClaim| {
        claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending")
    };
    // They say more where they may be read, and are no reason to fail where they may not.
    let events = match claim.as_ref().filter(|claim| is_pending(claim)) {
        Some(_) => objects.events(CLAIMS, claim_name).await.unwrap_or_default(),
        None => Vec::new(),
    };
    Ok(Sight { deployment, pods: all(pods)?, claim, claim_events: all::<Event>(events)? })
}

/// The record that a Deployment bears.
pub(crate) fn record_of(deployment: &Deployment) -> Option<ServerRecord> {
    read_record(deployment.metadata.annotations.as_ref()?.get(RECORD)?)
}

/// The Deployment of the server, as it is at this moment.
pub(crate) async fn deployment(objects: &Objects) -> Result<Option<Deployment>> {
    typed(objects.read(DEPLOYMENTS, DEPLOYMENT).await?.as_ref())
}

/// The record of a server that was looked at.
pub(crate) fn record(sight: &Sight) -> Option<ServerRecord> {
    record_of(sight.deployment.as_ref()?)
}

/// The day on which the server's certificate ends.
pub(crate) async fn certificate_end(objects: &Objects) -> Result<Option<Date>> {
    let secret: Option<Secret> = typed(objects.read(SECRETS, CERTIFICATE_SECRET).await?.as_ref())?;
    let end = pair(secret.as_ref()).and_then(|pair| certificates::end(&pair.certificate));
    let moment = end.and_then(|end| OffsetDateTime::from_unix_timestamp(i64::try_from(end).ok()?).ok());
    Ok(moment.map(OffsetDateTime::date))
}

/// What a pod was warned of last, as far as that may be read.
pub(crate) async fn warning(objects: &Objects, pod: &str) -> Option<String> {
    let events: Vec<Event> = all(objects.events(PODS, pod).await.ok()?).ok()?;
    let warnings = events.into_iter().filter(|event| event.type_.as_deref() == Some("Warning"));
    let last = warnings.max_by_key(rollout::moment)?;
    Some(format!("{}: {}", last.reason.unwrap_or_default(), last.message.unwrap_or_default()))
}

/// The last lines of a log, as far as it can be had.
pub(crate) async fn log(objects: &Objects, log: &Log) -> Option<String> {
    let read = |previous| objects.log(&log.pod, &log.container, previous);
    let texts = join_all([read(log.previous), read(false)]).await;
    texts.into_iter().flatten().map(|text| text.trim_end().to_owned()).find(|text| !text.is_empty())
}

/// The claim that the record, or what was found, names.
fn claim_name(observed: &Observed) -> String {
    let recorded = observed.record().and_then(|text| read_record(text)?.adopted).map(|adopted| adopted.claim);
    let found = observed.found.as_ref().map(|found| found.heritage.claim.clone());
    recorded.or(found).unwrap_or_else(|| CLAIM.to_owned())
}

/// What a Deployment says may stand somewhere else.
async fn resolved(objects: &Objects, found: Found) -> Result<Found> {
    let (user, data) = try_join(value(objects, &found.user), value(objects, &found.data)).await?;
    found.with(user, data)
}

/// What a container's variable comes to: the first of these that is there. `None` when none is.
pub(crate) async fn value(objects: &Objects, sources: &[Source]) -> Result<Option<String>> {
    for source in sources {
        let found = match source {
            Source::Literal(text) => Some(text.clone()),
            Source::Secret { name, key } => {
                let secret: Option<Secret> = typed(objects.read(SECRETS, name).await?.as_ref())?;
                secret.and_then(|secret| text(&secret, key))
            }
            Source::ConfigMap { name, key } => {
                let map: Option<ConfigMap> = typed(objects.read(CONFIG_MAPS, name).await?.as_ref())?;
                map.and_then(|map| map.data?.get(key).cloned())
            }
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn admin_state(secret: Option<&Secret>) -> AdminSecret {
    match secret {
        None => AdminSecret::Absent,
        Some(secret) if text(secret, "password").is_some_and(|password| !password.is_empty()) => {
            AdminSecret::Complete { user: text(secret, "username").map(|user| credentials::trimmed(&user).to_owned()) }
        }
        Some(_) => AdminSecret::Incomplete,
    }
}

fn pair(secret: Option<&Secret>) -> Option<Pair> {
    let secret = secret?;
    Some(Pair { certificate: text(secret, "tls.crt")?, key: text(secret, "tls.key")?.into() })
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.clone()).ok()
}

/// As kubectl names an object. Those of a list have no kind; nobody asks for them here.
fn label(object: &Value) -> Option<String> {
    let kind = object["kind"].as_str()?;
    Some(format!("{}/{}", kind.to_ascii_lowercase(), object["metadata"]["name"].as_str()?))
}

pub(crate) fn typed<T: DeserializeOwned>(object: Option<&Value>) -> Result<Option<T>> {
    object.map(|object| T::deserialize(object)).transpose().map_err(|_| {
        Error::failed("api_answer_unreadable", "the Kubernetes API describes an object in a way that is not understood")
    })
}

pub(crate) fn all<T: DeserializeOwned>(objects: Vec<Value>) -> Result<Vec<T>> {
    let typed = objects.into_iter().map(|object| typed(Some(&object)));
    typed.filter_map(Result::transpose).collect()
}
