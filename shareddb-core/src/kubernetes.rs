//! The Kubernetes API: which cluster, as whom, and a namespace of it within reach.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::proxy::matcher::Matcher;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Portforwarder};
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Status;
use kube::{Client, Config};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tower::util::MapResponseLayer;

use crate::error::{API_ANSWER_MAX, ApiRequest, Error, Result};
use crate::names::NamespaceName;

pub(crate) mod apply;
mod backend;
pub(crate) mod field_path;
mod inhabitants;
mod mention;
pub(crate) mod object;
pub(crate) mod quantity;
mod reloader;
pub(crate) mod restart;
mod role;
pub(crate) mod takers;
mod tunnel;
#[cfg(feature = "backup")]
mod volume;

pub(crate) use role::Task;
pub(crate) use tunnel::PATIENCE as TUNNEL_PATIENCE;
pub use tunnel::Tunnel;
#[cfg(feature = "backup")]
pub(crate) use volume::Volume;

/// What a call may take; longer than an API server needs to restart.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the client gives as the reason in an error that it could not read.
const UNPARSED: &str = "Failed to parse error data";
/// What a login in a pod is called, where there is no kubeconfig and so no context.
pub(crate) const IN_CLUSTER: &str = "in-cluster";

/// Which cluster, and as whom. A value: nothing is read or connected to.
///
/// By default it is found as kubectl finds it: the current context of the files in `KUBECONFIG`, else of
/// `~/.kube/config`; where there are none and this is a pod, its service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
}

/// One namespace of a cluster within reach, with the client that gets there. Cheap to clone.
#[derive(Clone)]
pub struct Namespace {
    client: Client,
    context: String,
    name: NamespaceName,
}

/// What became of a request that was understood.
pub(crate) enum Answer<T> {
    Done(T),
    /// There is no such object: the API server says so of exactly this one.
    Absent,
    /// It could not be made, since it exists.
    Exists,
    /// It could not be changed, since it is no longer at the version named.
    Moved,
}

impl Cluster {
    /// Found as kubectl finds it.
    pub fn infer() -> Self {
        Self::default()
    }

    /// The one in this kubeconfig.
    #[must_use]
    pub fn with_kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        self.kubeconfig = Some(path.into());
        self
    }

    /// By this context of the kubeconfig.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// The context that was chosen, if one was.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// A namespace of it. Reads the kubeconfig; nothing is sent yet, so that it need not exist.
    ///
    /// # Errors
    /// `NotFound` when there is no kubeconfig and this is no pod, or no such context; `InvalidInput` when it cannot be
    /// understood.
    pub async fn namespace(&self, name: &NamespaceName) -> Result<Namespace> {
        let (mut config, context) = self.config().await?;
        // The client would ask a busy server again and again, for longer than anybody waits.
        config.default_retry = false;
        let client = client(config, &context).await?;
        Ok(Namespace { client, context, name: name.clone() })
    }

    async fn config(&self) -> Result<(Config, String)> {
        let path = self.kubeconfig.clone();
        let place = self.kubeconfig.as_ref().map_or("the kubeconfig".to_owned(), |path| format!("{}", path.display()));
        let read = on_own_thread(PATIENCE, move || match path {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        });
        let kubeconfig = match read.await {
            Ok(Ok(kubeconfig)) => kubeconfig,
            Ok(Err(error)) => return self.in_cluster(error),
            Err(Unfinished::Panicked) => return Err(Error::failed("internal", format!("cannot read {place}"))),
            Err(Unfinished::Late) => {
                return Err(Error::timeout(
                    "kubeconfig_timeout",
                    format!("reading {place} does not end in {PATIENCE:?}"),
                )
                .with_hint("is it a pipe into which nobody writes, or on a file system that hangs?"));
            }
        };
        let context = self.context.clone().or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
        let known: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        if !context.is_empty() && !known.contains(&context.as_str()) {
            let message = format!("{place} has no context {context:?}");
            return Err(
                Error::not_found("context_not_found", message).with_hint(format!("it has: {}", known.join(", ")))
            );
        }
        let proxy_is_named = names_proxy(&kubeconfig, &context);
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let mut config = config.map_err(|error| Error::from_kubeconfig(&place, error))?;
        config.proxy_url = config.proxy_url.filter(|_| proxy_is_named || is_proxied(&config.cluster_url));
        Ok((config, context))
    }

    /// A pod has no kubeconfig. Who names one, or a context, means that one and no other.
    fn in_cluster(&self, error: KubeconfigError) -> Result<(Config, String)> {
        let absent = matches!(&error, KubeconfigError::FindPath)
            || matches!(&error, KubeconfigError::ReadConfig(error, _) if error.kind() == std::io::ErrorKind::NotFound);
        if absent
            && *self == Self::default()
            && let Ok(config) = Config::incluster()
        {
            return Ok((config, IN_CLUSTER.to_owned()));
        }
        Err(Error::from_kubeconfig("the kubeconfig", error))
    }
}

/// Makes a client; that can run the program that a kubeconfig names for logging in, which may hang, and may say anything.
async fn client(config: Config, context: &str) -> Result<Client> {
    let runtime = Handle::current();
    let made = on_own_thread(PATIENCE, move || {
        let _within = runtime.enter();
        // No more is read of an answer than one can have; the client itself reads those to port-forwards that fail.
        let ended = MapResponseLayer::new(|answer: Response<_>| answer.map(|body| Limited::new(body, API_ANSWER_MAX)));
        Ok(ClientBuilder::try_from(config)?.with_layer(&ended).build())
    });
    match made.await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(Error::from_client(context, error)),
        // The client panics over what cannot stand in a header, such as a token of two lines.
        Err(Unfinished::Panicked) => Err(Error::invalid_input(
            "kubeconfig_invalid",
            format!("the credentials of context {context} are of no use"),
        )),
        Err(Unfinished::Late) => {
            Err(Error::timeout("api_login_failed", format!("the login of context {context} does not end"))
                .with_hint("the kubeconfig names a program for it, which may be waiting for somebody to type"))
        }
    }
}

/// Why there is no result of work.
pub(crate) enum Unfinished {
    Panicked,
    Late,
}

/// Runs what may wait for ever: a kubeconfig can be a pipe. On a thread that nobody waits for when the runtime ends, as the
/// threads for such work are waited for.
pub(crate) async fn on_own_thread<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::result::Result<T, Unfinished> {
    let (sender, done) = oneshot::channel();
    std::thread::spawn(move || sender.send(work()));
    match timeout(patience, done).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(Unfinished::Panicked),
        Err(_) => Err(Unfinished::Late),
    }
}

/// Whether the environment has a proxy for this server. The client does not ask whether `NO_PROXY` names the server: it
/// looks there for the proxy.
fn is_proxied(server: &Uri) -> bool {
    Matcher::from_env().intercept(server).is_some()
}

/// Whether a kubeconfig itself names the proxy of a context; then the environment's does not count.
fn names_proxy(kubeconfig: &Kubeconfig, context: &str) -> bool {
    let context = kubeconfig.contexts.iter().find(|named| named.name == context);
    let cluster = context.and_then(|named| named.context.as_ref()).map(|context| context.cluster.as_str());
    let cluster = kubeconfig.clusters.iter().find(|named| Some(named.name.as_str()) == cluster);
    let proxy = cluster.and_then(|named| named.cluster.as_ref()?.proxy_url.as_deref());
    proxy.is_some_and(|proxy| !proxy.is_empty())
}

/// Reads an answer. An error is read here as well: the client would log it, and what something on the way says about a
/// request can be the request.
async fn read_answer(answer: Response<Body>) -> kube::Result<String> {
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    let text = String::from_utf8(body.into()).map_err(kube::Error::FromUtf8)?;
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(text);
    }
    let status = serde_json::from_str(&text).unwrap_or_else(|_| Status::failure("", "").with_code(status.as_u16()));
    Err(kube::Error::Api(status.boxed()))
}

impl Namespace {
    /// Its name.
    pub fn name(&self) -> &NamespaceName {
        &self.name
    }

    /// The context of the kubeconfig by which it is reached; `in-cluster` for a pod's own account.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// Sends a request, for [`Self::call`] to wait for.
    pub(crate) async fn send(&self, request: Request<Vec<u8>>) -> kube::Result<String> {
        read_answer(self.client.send(request.map(Body::from)).await?).await
    }

    /// What changes, as it changes. Ask for metadata only: the client logs what it cannot read.
    #[cfg(feature = "pool")]
    pub(crate) async fn events<T: Clone + serde::de::DeserializeOwned>(
        &self,
        request: Request<Vec<u8>>,
    ) -> kube::Result<impl futures_util::Stream<Item = kube::Result<kube::core::WatchEvent<T>>> + use<T>> {
        self.client.request_events(request).await
    }

    /// Opens a stream to a port of a pod, for [`Self::call`] to wait for.
    pub(crate) async fn forward(&self, pod: &str, port: u16) -> kube::Result<Portforwarder> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.name.as_str());
        pods.portforward(pod, &[port]).await.map_err(|error| match error {
            // What is no answer of an API server can be the request, and the client repeats it.
            kube::Error::Api(status) if status.reason == UNPARSED => {
                kube::Error::Api(Status::failure("", "").with_code(status.code).boxed())
            }
            error => error,
        })
    }

    /// Waits for a request about one object. `role` is what allows all requests of that kind.
    ///
    /// # Errors
    /// Everything but the four answers. `Unavailable` and `Timeout` leave open whether a change was made.
    pub(crate) async fn call<T>(
        &self,
        verb: &'static str,
        (resource, object): (&'static str, &str),
        role: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<Answer<T>> {
        let (namespace, context) = (self.name.as_str(), self.context.as_str());
        let Ok(answer) = timeout(PATIENCE, request).await else {
            let message = format!("cannot {verb} {resource} in namespace {namespace} (context {context}): no answer");
            return Err(Error::timeout("api_timeout", format!("{message} in {PATIENCE:?}"))
                .with_hint("is the API server overloaded, or a firewall in between? run it again"));
        };
        match answer {
            Ok(done) => Ok(Answer::Done(done)),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Answer::Exists),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(Answer::Moved),
            // A 404 can come from something in between, or be about the namespace.
            Err(kube::Error::Api(status))
                if status.reason == kube::core::response::reason::NOT_FOUND
                    && status
                        .details
                        .as_ref()
                        .is_some_and(|details| details.kind == resource && details.name == object) =>
            {
                Ok(Answer::Absent)
            }
            Err(source) => Err(Error::from_kube(ApiRequest { verb, resource, namespace, context, role }, source)),
        }
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({}, context {})", self.name, self.context)
    }
}
