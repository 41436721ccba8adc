//! Objects of a namespace: read, made, and applied by the server itself, with every field's owner in view.

use futures_util::TryFutureExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::{NamespaceResourceScope, Resource};
use kube::core::Request;
#[cfg(feature = "backup")]
use kube::core::params::{DeleteParams, Preconditions, PropagationPolicy};
use kube::core::params::{GetParams, ListParams, Patch, PatchParams, PostParams, ValidationDirective};
use kube::core::subresource::LogParams;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::field_path::{self, may_hold_a_password};
use super::object::{Kind, Object};
use super::{Answer, Namespace, Task};
use crate::error::{ApiRequest, Error, Result, is_disputed, shortened};
use crate::names::NamespaceName;

/// Whom the API server writes down as the owner of what we apply.
pub(crate) const MANAGER: &str = "shareddb";
/// Of a pod's last words, what fits on a screen.
const LOG_LINES: i64 = 15;
const LOG_BYTES: i64 = 8 << 10;
/// So many objects are asked for at once.
const PAGE: u32 = 100;

/// Whether a request changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It does.
    Real,
    /// The server answers as if it did.
    DryRun,
}

/// The objects of a namespace, for one task: what that asks for is told where a right is missing.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    namespace: Namespace,
    task: Task,
}

impl Objects {
    pub(crate) fn new(namespace: Namespace, task: Task) -> Self {
        Self { namespace, task }
    }

    /// The same objects, for another task.
    pub(crate) fn for_task(&self, task: Task) -> Self {
        Self { task, ..self.clone() }
    }

    /// The namespace's name.
    pub(crate) fn namespace(&self) -> &NamespaceName {
        self.namespace.name()
    }

    /// The context by which it is reached.
    pub(crate) fn context(&self) -> &str {
        self.namespace.context()
    }

    /// Reads one object. `None` only when the server says that there is none.
    pub(crate) async fn read(&self, kind: Kind, name: &str) -> Result<Option<Value>> {
        let request = self.requests(kind).get(name, &GetParams::default()).map_err(unbuilt)?;
        let answer = self.call("get", (kind.plural, name), request).await?;
        match answer {
            Answer::Done(text) => parsed(kind, name, &text).map(Some),
            Answer::Absent => Ok(None),
            Answer::Exists | Answer::Moved => Err(unexpected(kind, name)),
        }
    }

    /// Reads those with these labels, `a=b,c=d`; all of them where that is empty.
    pub(crate) async fn list(&self, kind: Kind, labels: &str) -> Result<Vec<Value>> {
        self.listed(kind, &ListParams::default().labels(labels)).await
    }

    /// What happened to one object, in no order of time.
    pub(crate) async fn events(&self, kind: Kind, name: &str) -> Result<Vec<Value>> {
        let selector = format!("involvedObject.kind={},involvedObject.name={name}", kind.name);
        let events = Kind::of::<k8s_openapi::api::core::v1::Event>();
        self.listed(events, &ListParams::default().fields(&selector)).await
    }

    /// Reads all of a kind, as its type has them.
    pub(crate) async fn all<K>(&self) -> Result<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + DeserializeOwned,
    {
        let kind = Kind::of::<K>();
        let found = self.list(kind, "").await?;
        found.into_iter().map(|one| serde_json::from_value(one).map_err(|_| unexpected(kind, "list"))).collect()
    }

    /// Page by page: what is read of one answer has an end.
    async fn listed(&self, kind: Kind, params: &ListParams) -> Result<Vec<Value>> {
        let mut params = params.clone().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let request = self.requests(kind).list(&params).map_err(unbuilt)?;
            let Answer::Done(text) = self.call("list", (kind.plural, ""), request).await? else {
                return Err(unexpected(kind, "list"));
            };
            let mut list: Value = serde_json::from_str(&text).map_err(|_| unexpected(kind, "list"))?;
            match list.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => found.extend(items),
                // As Go writes an empty list.
                Some(Value::Null) => {}
                _ => return Err(unexpected(kind, "list")),
            }
            match list["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => params = params.continue_token(token),
                _ => return Ok(found),
            }
        }
    }

    /// Applies what is wanted of an object, which may come to be by that. The answer is the whole object as it then is.
    ///
    /// # Errors
    /// `Conflict` (`field_owned`) when somebody else owns a field that would change; `Refused` (`field_fixed`) when it cannot change.
    pub(crate) async fn apply(&self, object: &Object, mode: Mode) -> Result<Value> {
        let params = PatchParams {
            dry_run: mode != Mode::Real,
            force: false,
            field_manager: Some(MANAGER.to_owned()),
            field_validation: Some(ValidationDirective::Strict),
        };
        let request = self.requests(object.kind).patch(&object.name, &params, &Patch::Apply(&object.content));
        self.changed(object, "patch", request.map_err(unbuilt)?).await
    }

    /// Makes an object. `None` when it is there already.
    pub(crate) async fn create(&self, object: &Object, mode: Mode) -> Result<Option<Value>> {
        let params = PostParams { dry_run: mode != Mode::Real, field_manager: Some(MANAGER.to_owned()) };
        let body = serde_json::to_vec(&object.content).map_err(|_| unexpected(object.kind, &object.name))?;
        let request = self.requests(object.kind).create(&params, body).map_err(unbuilt)?;
        let named = (object.kind.plural, object.name.as_str());
        match self.call("create", named, request).await? {
            Answer::Done(text) => parsed(object.kind, &object.name, &text).map(Some),
            Answer::Exists => Ok(None),
            Answer::Absent | Answer::Moved => Err(unexpected(object.kind, &object.name)),
        }
    }

    /// Replaces an object that is still at the version which its content names.
    pub(crate) async fn replace(&self, object: &Object, mode: Mode) -> Result<Value> {
        let params = PostParams { dry_run: mode != Mode::Real, field_manager: Some(MANAGER.to_owned()) };
        let body = serde_json::to_vec(&object.content).map_err(|_| unexpected(object.kind, &object.name))?;
        let request = self.requests(object.kind).replace(&object.name, &params, body).map_err(unbuilt)?;
        self.changed(object, "update", request).await
    }

    /// Changes what a patch names of an object, which is still at the version that the patch names, if it names one.
    pub(crate) async fn merge(&self, kind: Kind, name: &str, patch: &Value, mode: Mode) -> Result<Value> {
        let params = PatchParams {
            dry_run: mode != Mode::Real,
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let request = self.requests(kind).patch(name, &params, &Patch::Merge(patch)).map_err(unbuilt)?;
        let object = Object { kind, name: name.to_owned(), content: Value::Null };
        self.changed(&object, "patch", request).await
    }

    /// Deletes an object that is still the one of this uid, and what it owns after it. That it is gone already is not an error.
    ///
    /// # Errors
    /// `Conflict` when another one has its name by now.
    #[cfg(feature = "backup")]
    pub(crate) async fn delete(&self, kind: Kind, name: &str, uid: &str, mode: Mode) -> Result<()> {
        let params = DeleteParams {
            dry_run: mode != Mode::Real,
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        let request = self.requests(kind).delete(name, &params).map_err(unbuilt)?;
        match self.call("delete", (kind.plural, name), request).await? {
            Answer::Done(_) | Answer::Absent => Ok(()),
            Answer::Exists | Answer::Moved => {
                let message = format!("{} was made anew by another program meanwhile", kind.label(name));
                Err(Error::conflict("concurrent_change", message).with_hint("run it again"))
            }
        }
    }

    /// Makes the namespace itself; whether there was none.
    pub(crate) async fn make(&self, mode: Mode) -> Result<bool> {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace().as_str()}});
        let params = PostParams { dry_run: mode != Mode::Real, field_manager: Some(MANAGER.to_owned()) };
        let body = namespace.to_string().into_bytes();
        let request = Request::new("/api/v1/namespaces").create(&params, body).map_err(unbuilt)?;
        match self.call("create", ("namespaces", self.namespace().as_str()), request).await? {
            Answer::Done(_) => Ok(true),
            Answer::Exists | Answer::Absent | Answer::Moved => Ok(false),
        }
    }

    /// The last lines of a pod's container: of the one before, where that is what is wanted.
    pub(crate) async fn log(&self, pod: &str, container: &str, previous: bool) -> Result<String> {
        let params = LogParams {
            container: Some(container.to_owned()),
            previous,
            tail_lines: Some(LOG_LINES),
            limit_bytes: Some(LOG_BYTES),
            ..LogParams::default()
        };
        let kind = Kind::of::<Pod>();
        let request = self.requests(kind).logs(pod, &params).map_err(unbuilt)?;
        match self.call("get", ("pods/log", pod), request).await? {
            Answer::Done(text) => Ok(text),
            _ => Err(unexpected(kind, pod)),
        }
    }

    async fn changed(&self, object: &Object, verb: &'static str, request: http::Request<Vec<u8>>) -> Result<Value> {
        // What speaks against a change stands in the whole of the answer.
        let sent = self.namespace.send(request).map_ok(Ok).or_else(|error| async {
            match error {
                kube::Error::Api(status) if matches!(status.code, 409 | 422) => Ok(Err(status)),
                error => Err(error),
            }
        });
        let named = (object.kind.plural, object.name.as_str());
        match self.namespace.call(verb, named, &self.role(), sent).await? {
            Answer::Done(Ok(text)) => parsed(object.kind, &object.name, &text),
            Answer::Done(Err(status)) => {
                let (namespace, context) = (self.namespace().as_str(), self.context());
                let request = ApiRequest { verb, resource: object.kind.plural, namespace, context, role: "" };
                let present = match is_disputed(&status) {
                    true => self.read(object.kind, &object.name).await.ok().flatten().unwrap_or_default(),
                    false => Value::Null,
                };
                let values = |field: &str| dispute(object, &present, field);
                Err(Error::from_rejection(request, &object.label(), &status, &values))
            }
            Answer::Absent | Answer::Exists | Answer::Moved => Err(unexpected(object.kind, &object.name)),
        }
    }

    async fn call(
        &self,
        verb: &'static str,
        named: (&'static str, &str),
        request: http::Request<Vec<u8>>,
    ) -> Result<Answer<String>> {
        self.namespace.call(verb, named, &self.role(), self.namespace.send(request)).await
    }

    fn role(&self) -> String {
        self.task.role(self.namespace().as_str())
    }

    fn requests(&self, kind: Kind) -> Request {
        Request::new(kind.path(self.namespace().as_str()))
    }
}

/// What a field is and what it is to be, where that may be shown.
fn dispute(wanted: &Object, present: &Value, field: &str) -> Option<String> {
    if wanted.kind.name == "Secret" || may_hold_a_password(field) {
        return None;
    }
    let shown = |object| field_path::value(object, field).map(|value| shortened(&value.to_string()));
    let (is, to_be) = (shown(present), shown(&wanted.content)?);
    Some(format!("is {}, to be {to_be}", is.as_deref().unwrap_or("not there")))
}

fn parsed(kind: Kind, name: &str, text: &str) -> Result<Value> {
    let object: Value = serde_json::from_str(text).map_err(|_| unexpected(kind, name))?;
    match object["metadata"]["name"] == *name {
        true => Ok(object),
        false => Err(unexpected(kind, name)),
    }
}

fn unexpected(kind: Kind, name: &str) -> Error {
    Error::failed("api_answer_unreadable", format!("the API's answer about {} is not understood", kind.label(name)))
}

fn unbuilt(source: kube::core::request::Error) -> Error {
    Error::failed("internal", "a request to the Kubernetes API cannot be made").with_source(source)
}
