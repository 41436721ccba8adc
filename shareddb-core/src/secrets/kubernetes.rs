//! Secrets in the Kubernetes API.

use std::collections::BTreeMap;
use std::future::Future;

use async_trait::async_trait;
use futures_util::future::try_join;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use kube::Resource as _;
use kube::core::Request;
use kube::core::params::{DeleteParams, GetParams, PostParams};
use secrecy::{ExposeSecret as _, SecretString};

use super::{SecretData, SecretStore, SecretVersion, StoredSecret, Workload, writer};
use crate::error::{Error, Result};
use crate::kubernetes::apply::Objects;
use crate::kubernetes::takers::{Inhabitants, Taken, takers};
use crate::kubernetes::{Answer, Namespace, Task, restart};
use crate::names::{AppName, SecretName};

/// Says whose a Secret is. Labels can be other people's; nobody else has a reason to write this one.
const APP: &str = "shareddb/app";
/// Made anew for each write, so that one whose answer was lost is known again.
const WRITE: &str = "shareddb/write";
const MANAGER: &str = "shareddb";
const RESOURCE: &str = "secrets";
/// As the service binding specification (servicebinding.io) has types of Secrets.
const TYPE: &str = "servicebinding.io/postgresql";

/// Secrets in a namespace of a Kubernetes cluster.
///
/// Written by POST, and by PUT with the version that was read; never by apply, which would take over what others own.
/// Of a Secret that was there before, the type, labels, annotations and keys that are not ours stay. A write whose answer
/// is lost is looked for.
#[derive(Clone, Debug)]
pub struct KubernetesStore {
    namespace: Namespace,
}

impl KubernetesStore {
    /// The store of this namespace. Nothing is sent yet.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace }
    }

    fn requests(&self) -> Request {
        Request::new(Secret::url_path(&(), Some(self.namespace.name().as_str())))
    }

    async fn call(
        &self,
        verb: &'static str,
        name: &SecretName,
        request: impl Future<Output = kube::Result<String>>,
    ) -> Result<Answer<String>> {
        let role = Task::Secrets.role(self.namespace.name().as_str());
        self.namespace.call(verb, (RESOURCE, name.as_str()), &role, request).await
    }

    async fn get(&self, name: &SecretName) -> Result<Option<Secret>> {
        let request = self.requests().get(name.as_str(), &GetParams::default()).map_err(unbuilt)?;
        match self.call("get", name, self.namespace.send(request)).await? {
            Answer::Done(text) => self.parsed(name, &text).map(Some),
            Answer::Absent => Ok(None),
            Answer::Exists | Answer::Moved => Err(self.changed(name)),
        }
    }

    /// Returns when a Secret may no longer be as it was at this version, or after a few minutes: whether it may not. Takes the
    /// right to `watch` it.
    #[cfg(feature = "pool")]
    pub(crate) async fn moved(&self, name: &SecretName, version: &SecretVersion) -> Result<bool> {
        use futures_util::TryStreamExt as _;
        use kube::core::{PartialObjectMeta, WatchEvent};
        let params = kube::core::params::WatchParams::default().fields(&format!("metadata.name={name}"));
        // From now on, with what is there first: the API forgets what came after the version of an object that has not changed
        // for long.
        let request = self.requests().watch_metadata(&params, "0").map_err(unbuilt)?;
        let role = Task::Secrets.role(self.namespace.name().as_str());
        let watching = async {
            let mut events = std::pin::pin!(self.namespace.events::<PartialObjectMeta<Secret>>(request).await?);
            while let Some(event) = events.try_next().await? {
                match event {
                    WatchEvent::Bookmark(_) => {}
                    WatchEvent::Added(now) | WatchEvent::Modified(now)
                        if now.metadata.resource_version.as_deref() == Some(version.as_str()) => {}
                    WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
                    WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_) => return Ok(true),
                }
            }
            Ok(false)
        };
        let namespace = self.namespace.name().as_str();
        let context = self.namespace.context();
        watching.await.map_err(|source| {
            let request =
                crate::error::ApiRequest { verb: "watch", resource: RESOURCE, namespace, context, role: &role };
            Error::from_kube(request, source)
        })
    }

    async fn post(&self, name: &SecretName, secret: &Secret, dry_run: bool) -> Result<Answer<String>> {
        let request = self.requests().create(&params(dry_run), self.body(name, secret)?).map_err(unbuilt)?;
        self.call("create", name, self.namespace.send(request)).await
    }

    async fn put(&self, name: &SecretName, secret: &Secret, dry_run: bool) -> Result<Answer<String>> {
        let body = self.body(name, secret)?;
        let request = self.requests().replace(name.as_str(), &params(dry_run), body).map_err(unbuilt)?;
        self.call("update", name, self.namespace.send(request)).await
    }

    fn body(&self, name: &SecretName, secret: &Secret) -> Result<Vec<u8>> {
        serde_json::to_vec(secret)
            .map_err(|_| Error::failed("internal", format!("cannot write {}", self.describe(name))))
    }

    /// Reads what a write came to. An answer can be lost after the deed, also to something in between that repeats requests
    /// by itself and is then told that the object exists or has moved.
    async fn settle(
        &self,
        name: &SecretName,
        written: &Secret,
        answer: Result<Answer<String>>,
    ) -> Result<SecretVersion> {
        let refusal = match answer {
            Ok(Answer::Done(text)) => return version(&self.parsed(name, &text)?),
            Ok(Answer::Exists) => {
                Error::conflict("secret_exists", format!("there is a {} already", self.describe(name)))
            }
            Ok(Answer::Moved | Answer::Absent) => self.changed(name),
            Err(error @ (Error::Unavailable(_) | Error::Timeout(_))) => error,
            Err(error) => return Err(error),
        };
        match self.get(name).await {
            Ok(Some(found)) if annotation(&found, WRITE) == annotation(written, WRITE) => version(&found),
            _ => Err(refusal),
        }
    }

    /// Parsed here, since the client would log what it cannot parse. A Secret that is about to go is neither there nor
    /// gone: whoever counts on it would lose it.
    fn parsed(&self, name: &SecretName, text: &str) -> Result<Secret> {
        let secret: Secret = serde_json::from_str(text).map_err(|_| unreadable("it is no Secret"))?;
        if secret.metadata.name.as_deref() != Some(name.as_str()) {
            return Err(unreadable("it is another Secret"));
        }
        match secret.metadata.deletion_timestamp {
            Some(_) => Err(self.terminating(name)),
            None => Ok(secret),
        }
    }

    fn terminating(&self, name: &SecretName) -> Error {
        Error::conflict(
            "secret_terminating",
            format!("{} is being deleted, and something holds it up", self.describe(name)),
        )
        .with_hint(format!("its finalizers say what: kubectl get secret {name} -n {} -o yaml", self.namespace.name()))
    }

    fn changed(&self, name: &SecretName) -> Error {
        let message = format!("{} was changed by another program meanwhile", self.describe(name));
        Error::conflict("concurrent_change", message).with_hint("nothing was written; run it again")
    }

    /// What no write can change.
    fn check_mutable(&self, name: &SecretName, secret: &Secret) -> Result<()> {
        if secret.immutable != Some(true) {
            return Ok(());
        }
        Err(Error::conflict("secret_immutable", format!("{} is immutable", self.describe(name)))
            .with_hint("delete it, or give it another name, and run this again: what it holds cannot be changed"))
    }
}

#[async_trait]
impl SecretStore for KubernetesStore {
    async fn check(&self, name: &SecretName) -> Result<()> {
        let answer = match self.get(name).await? {
            Some(found) => {
                self.check_mutable(name, &found)?;
                self.put(name, &found, true).await?
            }
            None => self.post(name, &made(name, None, &SecretData::new()), true).await?,
        };
        match answer {
            Answer::Done(_) | Answer::Exists | Answer::Moved | Answer::Absent => Ok(()),
        }
    }

    async fn load(&self, name: &SecretName) -> Result<Option<StoredSecret>> {
        let Some(secret) = self.get(name).await? else { return Ok(None) };
        let version = version(&secret)?;
        let app = annotation(&secret, APP).and_then(|app| app.parse().ok());
        // What is no text is nothing of ours, and a write leaves it alone.
        let text = |(key, ByteString(value)): (String, ByteString)| {
            String::from_utf8(value).ok().map(|value| (key, SecretString::from(value)))
        };
        Ok(Some(StoredSecret { data: secret.data.into_iter().flatten().filter_map(text).collect(), version, app }))
    }

    async fn create(&self, name: &SecretName, app: &AppName, data: &SecretData) -> Result<SecretVersion> {
        writer::validate(data)?;
        let secret = made(name, Some(app), data);
        let answer = self.post(name, &secret, false).await;
        self.settle(name, &secret, answer).await
    }

    async fn replace(
        &self,
        name: &SecretName,
        app: &AppName,
        data: &SecretData,
        version: &SecretVersion,
    ) -> Result<SecretVersion> {
        writer::validate(data)?;
        let found =
            self.get(name).await?.filter(|found| found.metadata.resource_version.as_deref() == Some(version.as_str()));
        let Some(mut secret) = found else { return Err(self.changed(name)) };
        self.check_mutable(name, &secret)?;
        secret.data.get_or_insert_default().extend(bytes(data));
        mark(&mut secret.metadata, app);
        let answer = self.put(name, &secret, false).await;
        self.settle(name, &secret, answer).await
    }

    async fn delete(&self, name: &SecretName) -> Result<()> {
        let request = self.requests().delete(name.as_str(), &DeleteParams::default()).map_err(unbuilt)?;
        match self.call("delete", name, self.namespace.send(request)).await {
            // It answers with a Status when it is gone, and with the Secret when something holds it up.
            Ok(Answer::Done(text)) => match serde_json::from_str::<Status>(&text) {
                Ok(Status { status: Some(word), .. }) if word == "Success" => Ok(()),
                _ => match self.get(name).await? {
                    None => Ok(()),
                    Some(_) => Err(unreadable("it is no word of the deletion")),
                },
            },
            Ok(Answer::Absent) => Ok(()),
            Ok(Answer::Exists | Answer::Moved) => Err(self.changed(name)),
            Err(error @ (Error::Unavailable(_) | Error::Timeout(_))) => match self.get(name).await {
                Ok(None) => Ok(()),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn workloads(&self, name: &SecretName) -> Result<Option<Vec<Workload>>> {
        let objects = Objects::new(self.namespace.clone(), Task::Workloads);
        let (there, secret) = try_join(Inhabitants::read(&objects), self.get(name)).await?;
        let annotations = secret.and_then(|secret| secret.metadata.annotations);
        Ok(Some(takers(&there, Taken { name: name.as_str(), annotations: &annotations })))
    }

    async fn restart(&self, workload: &Workload) -> Result<()> {
        restart::restart(&Objects::new(self.namespace.clone(), Task::Workloads), workload).await
    }

    fn describe(&self, name: &SecretName) -> String {
        format!("secret/{name} in namespace {} (context {})", self.namespace.name(), self.namespace.context())
    }
}

/// A Secret that was not there before.
fn made(name: &SecretName, app: Option<&AppName>, data: &SecretData) -> Secret {
    let mut metadata = ObjectMeta { name: Some(name.to_string()), ..ObjectMeta::default() };
    if let Some(app) = app {
        mark(&mut metadata, app);
    }
    let data = Some(bytes(data).collect());
    Secret { metadata, data, type_: Some(TYPE.to_owned()), ..Secret::default() }
}

/// Says whose it is. Labels that others gave it stay as they are.
fn mark(metadata: &mut ObjectMeta, app: &AppName) {
    let labels = metadata.labels.get_or_insert_default();
    for (key, value) in [
        ("name", "postgresql"),
        ("instance", app.as_str()),
        ("component", "database"),
        ("part-of", app.as_str()),
        ("managed-by", MANAGER),
    ] {
        labels.entry(format!("app.kubernetes.io/{key}")).or_insert_with(|| value.to_owned());
    }
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(APP.to_owned(), app.to_string());
    annotations.insert(WRITE.to_owned(), format!("{:016x}", rand::random::<u64>()));
}

fn bytes(data: &SecretData) -> impl Iterator<Item = (String, ByteString)> {
    data.iter().map(|(key, value)| (key.clone(), ByteString(value.expose_secret().as_bytes().to_vec())))
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a String> {
    secret.metadata.annotations.as_ref().and_then(|annotations: &BTreeMap<_, _>| annotations.get(key))
}

fn version(secret: &Secret) -> Result<SecretVersion> {
    let version = secret.metadata.resource_version.as_deref();
    version.map(SecretVersion::new).ok_or_else(|| unreadable("it has no version"))
}

fn unreadable(reason: &str) -> Error {
    Error::failed("api_answer_unreadable", format!("the answer of the Kubernetes API cannot be read: {reason}"))
}

fn unbuilt(source: kube::core::request::Error) -> Error {
    Error::failed("internal", "the request to the Kubernetes API cannot be made").with_source(source)
}

fn params(dry_run: bool) -> PostParams {
    PostParams { dry_run, field_manager: Some(MANAGER.to_owned()) }
}
