//! The Kubernetes API: which cluster, as whom, and a namespace of it within reach.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::time::timeout;

use crate::error::{ApiRequest, Error, Result};
use crate::file::blocking;
use crate::names::NamespaceName;

/// What a call may take; longer than an API server needs to restart.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a login in a pod is called, where there is no kubeconfig and so no context.
const IN_CLUSTER: &str = "in-cluster";

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
        let client = made(config, &context).await?;
        Ok(Namespace { client, context, name: name.clone() })
    }

    async fn config(&self) -> Result<(Config, String)> {
        let path = self.kubeconfig.clone();
        let read = blocking(move || {
            Ok(match path {
                Some(path) => Kubeconfig::read_from(path),
                None => Kubeconfig::read(),
            })
        });
        let kubeconfig = match read.await? {
            Ok(kubeconfig) => kubeconfig,
            Err(error) => return self.in_cluster(error),
        };
        let place = self.kubeconfig.as_ref().map_or("the kubeconfig".to_owned(), |path| format!("{}", path.display()));
        let context = self.context.clone().or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
        let known: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        if !context.is_empty() && !known.contains(&context.as_str()) {
            let message = format!("{place} has no context {context:?}");
            return Err(
                Error::not_found("context_not_found", message).with_hint(format!("it has: {}", known.join(", ")))
            );
        }
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        Ok((config.map_err(|error| Error::from_kubeconfig(&place, error))?, context))
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
async fn made(config: Config, context: &str) -> Result<Client> {
    let work = blocking(move || Ok(Client::try_from(config)));
    match timeout(PATIENCE, work).await {
        Ok(Ok(Ok(client))) => Ok(client),
        Ok(Ok(Err(error))) => Err(Error::from_client(context, error)),
        // The client panics over what cannot stand in a header, such as a token of two lines.
        Ok(Err(_)) => Err(Error::invalid_input(
            "kubeconfig_invalid",
            format!("the credentials of context {context} are of no use"),
        )),
        Err(_) => Err(Error::timeout("api_login_failed", format!("the login of context {context} does not end"))
            .with_hint("the kubeconfig names a program for it, which may be waiting for somebody to type")),
    }
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

    /// The client, which knows nothing of the namespace.
    pub(crate) fn client(&self) -> &Client {
        &self.client
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
