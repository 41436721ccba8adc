//! Environments: where a shared server is, as a value.

#[cfg(feature = "local")]
use std::path::Path;
#[cfg(any(feature = "local", feature = "kubernetes"))]
use std::path::PathBuf;
use std::sync::Arc;

use crate::app::{App, AppSpec};
use crate::connection::ConnectionConfig;
use crate::error::{Error, Result};
#[cfg(feature = "local")]
use crate::local::{LocalEndpoint, LocalHome, LocalServer};
#[cfg(feature = "kubernetes")]
use crate::names::NamespaceName;
use crate::names::{AppName, EnvironmentName};
#[cfg(feature = "local")]
use crate::secrets::DirectoryStore;
use crate::secrets::{SecretData, SecretStore};
use crate::server::{self, Server};

mod backups;
mod entry;
mod file;
mod location;
mod remote;
mod way;

#[cfg(feature = "kubernetes")]
pub(crate) use entry::ADMIN_SECRET;
pub use file::Environments;
use remote::Remote;
#[cfg(feature = "kubernetes")]
pub(crate) use remote::{AUTHORITY_KEY, PROVIDER, PROVIDER_KEY, SERVICE};

/// One shared server and its place. A value: it holds no connection.
#[derive(Clone, Debug)]
pub struct Environment {
    name: EnvironmentName,
    protected: bool,
    /// Where its backups are, where that is known.
    backups: Option<String>,
    /// The image with which backups are scheduled, where the file names one.
    backup_image: Option<String>,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    #[cfg(feature = "local")]
    Local(LocalServer),
    Remote(Box<Remote>),
}

/// The environment of the embedded server.
const LOCAL: &str = "local";

impl Environment {
    /// The environment `local`: the embedded server, with Secrets and backups in directories beside it.
    #[cfg(feature = "local")]
    pub fn local(home: LocalHome) -> Result<Self> {
        let backups = Some(backups::folder_url(&home.backups_dir())?);
        let place = Place::Local(LocalServer::new(home));
        Ok(Self { name: LOCAL.parse()?, protected: false, backups, backup_image: None, place })
    }

    /// The name.
    pub fn name(&self) -> &EnvironmentName {
        &self.name
    }

    /// Whether what destroys something here has to be confirmed in the command itself.
    pub fn is_protected(&self) -> bool {
        self.protected
    }

    /// The URL of the store with its backups.
    ///
    /// # Errors
    /// `InvalidInput` (`backups_unset`) when nobody has said where they are, with the line for `shareddb.toml`.
    pub fn backups(&self) -> Result<&str> {
        self.backups.as_deref().ok_or_else(|| backups::unset(&self.name))
    }

    /// The same environment with its backups elsewhere: at a URL, or in a folder of this machine.
    ///
    /// # Errors
    /// `InvalidInput` for what is neither, or holds more than a place.
    pub fn with_backups(mut self, place: &str) -> Result<Self> {
        self.backups = Some(backups::url(place, None)?);
        Ok(self)
    }

    /// The image with which its backups are scheduled, as `shareddb.toml` says.
    pub fn backup_image(&self) -> Option<&str> {
        self.backup_image.as_deref()
    }

    /// The embedded server, where this is `local`.
    #[cfg(feature = "local")]
    pub fn local_server(&self) -> Option<&LocalServer> {
        match &self.place {
            Place::Local(server) => Some(server),
            Place::Remote(_) => None,
        }
    }

    /// The same environment by another kubeconfig, which is taken for that of another cluster: what the file says of the way to
    /// the server is the way to another one then.
    ///
    /// # Errors
    /// `InvalidInput` when nothing of it is in Kubernetes, as for [`Self::with_context`] and [`Self::with_namespace`].
    #[cfg(feature = "kubernetes")]
    pub fn with_kubeconfig(self, path: impl Into<PathBuf>) -> Result<Self> {
        self.in_cluster("a kubeconfig", |remote| {
            remote.lose_way();
            remote.cluster = remote.cluster.clone().with_kubeconfig(path);
        })
    }

    /// The same environment by another context of the kubeconfig. What the file says of the way to the server is the way to
    /// another one then.
    #[cfg(feature = "kubernetes")]
    pub fn with_context(self, context: impl Into<String>) -> Result<Self> {
        self.in_cluster("a context", |remote| {
            let context = context.into();
            if remote.cluster.context() != Some(&context) {
                remote.lose_way();
            }
            remote.cluster = remote.cluster.clone().with_context(context);
        })
    }

    /// The same environment in another namespace. A server that was not named otherwise is that namespace's, and what the
    /// file says of the way to it is the way to another one.
    #[cfg(feature = "kubernetes")]
    pub fn with_namespace(self, namespace: NamespaceName) -> Result<Self> {
        self.in_cluster("a namespace", |remote| {
            if remote.namespace.as_ref() != Some(&namespace) {
                remote.lose_way();
            }
            remote.namespace = Some(namespace);
        })
    }

    /// The same environment, whose server is reached through a tunnel of the Kubernetes API also where there is another way.
    /// Without this, a tunnel is opened where the name of the namespace's Service means nothing.
    ///
    /// # Errors
    /// `InvalidInput` when the server is no Service of a namespace.
    #[cfg(feature = "kubernetes")]
    pub fn with_tunnel(self) -> Result<Self> {
        match &self.place {
            Place::Remote(remote) if !remote.can_be_tunnelled() => Err(self.not_in_kubernetes("a tunnel")),
            _ => self.in_cluster("a tunnel", |remote| {
                remote.lose_way();
                remote.tunnelled = true;
            }),
        }
    }

    #[cfg(feature = "kubernetes")]
    fn not_in_kubernetes(&self, what: &str) -> Error {
        let message = format!("{what} means nothing to environment {}", self.name);
        Error::invalid_input("not_in_kubernetes", message)
            .with_hint("leave it out, or choose an environment in Kubernetes: -e NAME")
    }

    #[cfg(feature = "kubernetes")]
    fn in_cluster(mut self, what: &str, change: impl FnOnce(&mut Remote)) -> Result<Self> {
        match &mut self.place {
            Place::Remote(remote) if remote.needs_cluster() => {
                change(remote);
                Ok(self)
            }
            _ => Err(self.not_in_kubernetes(what)),
        }
    }

    /// The namespace in which the server is deployed, and the domain of its cluster.
    ///
    /// # Errors
    /// As [`Self::namespace_name`], and those of [`crate::Cluster::namespace`].
    #[cfg(feature = "kubernetes")]
    pub(crate) async fn ground(&self) -> Result<(crate::kubernetes::Namespace, String)> {
        let remote = self.deployable()?;
        Ok((remote.reach().await?, remote.cluster_domain.clone()))
    }

    /// The name of the namespace in which the server is deployed.
    ///
    /// # Errors
    /// `InvalidInput` when the server is not one that is deployed to a namespace.
    #[cfg(feature = "kubernetes")]
    pub fn namespace_name(&self) -> Result<&NamespaceName> {
        self.deployable()?.namespace.as_ref().ok_or_else(|| {
            Error::invalid_input("namespace_missing", "it is not said in which namespace the server is")
                .with_hint("say it: -n NAME, or namespace = \"NAME\" in shareddb.toml")
        })
    }

    /// The words by which kubectl finds what has to do with the Secrets of apps, such as ` --context prod -n shop`: as far as they
    /// are named and not just those of the kubeconfig.
    #[cfg(feature = "kubernetes")]
    pub fn kubectl_place(&self) -> String {
        match &self.place {
            Place::Remote(remote) => remote.kubectl_place(),
            #[cfg(feature = "local")]
            Place::Local(_) => String::new(),
        }
    }

    /// The domain of the cluster in which the server is deployed.
    ///
    /// # Errors
    /// `InvalidInput` when the server is not one that is deployed to a namespace.
    #[cfg(all(feature = "backup", feature = "kubernetes"))]
    pub(crate) fn cluster_domain(&self) -> Result<&str> {
        Ok(&self.deployable()?.cluster_domain)
    }

    #[cfg(feature = "kubernetes")]
    fn deployable(&self) -> Result<&Remote> {
        match &self.place {
            Place::Remote(remote) if remote.is_deployable() => Ok(remote),
            _ => Err(Error::invalid_input(
                "not_deployable",
                format!("the server of environment {} is not one that is deployed to a namespace", self.name),
            )
            .with_hint(
                "one without admin_url, host, port and admin_password_* in shareddb.toml is; others are made by other means",
            )),
        }
    }

    /// The place of Secrets. Nothing is asked of it yet.
    ///
    /// # Errors
    /// As [`Self::connect`], as far as Secrets are concerned.
    pub async fn secrets(&self) -> Result<Arc<dyn SecretStore>> {
        match &self.place {
            #[cfg(feature = "local")]
            Place::Local(server) => Ok(Arc::new(DirectoryStore::new(server.home().secrets_dir()))),
            Place::Remote(remote) => remote.secrets().await,
        }
    }

    /// Every key of an app's Secret. The server need not run, unless the app was adopted with keys that have names of ours
    /// and say something else.
    ///
    /// # Errors
    /// `NotFound` when there is no Secret of that app, `Failed` when it is damaged: `create` mends it.
    pub async fn credentials(&self, app: &AppName) -> Result<SecretData> {
        self.stored(app).await.map(|(data, _)| data)
    }

    /// How an app logs in from where it runs, as its Secret says. From here there may be another way:
    /// [`Provisioner::connection`](crate::Provisioner::connection).
    ///
    /// # Errors
    /// As [`Self::credentials`].
    pub async fn stored_connection(&self, app: &AppName) -> Result<ConnectionConfig> {
        self.stored(app).await.map(|(_, config)| config)
    }

    async fn stored(&self, app: &AppName) -> Result<(SecretData, ConnectionConfig)> {
        // The Secret's name does not depend on the app's record.
        let app = App::derive(&AppSpec::new(app.clone()), &self.name, None)?;
        let store = self.secrets().await?;
        let damaged = match server::load_unrecorded(store.as_ref(), &app).await {
            Err(damaged) if damaged.code() == server::DAMAGED => damaged,
            stored => return stored,
        };
        let recorded = async { self.connect().await?.recorded(&app.name).await };
        match recorded.await {
            Ok(recorded) => server::load(store.as_ref(), &recorded).await,
            // No app, and so none that was adopted.
            Err(error) if error.code() == "app_not_found" => Err(damaged),
            Err(error) => Err(damaged.with_source(error).with_hint(
                "an adopted app may have keys of its own there, as its record says, but the server cannot be asked",
            )),
        }
    }

    /// The directory of PostgreSQL's programs, where somebody has chosen one: for the embedded server, else for this process.
    ///
    /// # Errors
    /// As [`LocalHome::from_env`].
    #[cfg(feature = "local")]
    pub fn binaries(&self) -> Result<Option<PathBuf>> {
        let home = match &self.place {
            Place::Local(server) => server.home().clone(),
            Place::Remote(_) => LocalHome::from_env()?,
        };
        Ok(home.binaries_override().map(Path::to_owned))
    }

    /// Makes the server serve: starts it, and makes it the first time. That it serves already is not an error.
    ///
    /// # Errors
    /// As [`LocalServer::start`], and `InvalidInput` when the server is not the embedded one.
    #[cfg(feature = "local")]
    pub async fn deploy(&self) -> Result<LocalEndpoint> {
        match &self.place {
            Place::Local(server) => server.start().await,
            Place::Remote(_) => Err(Error::invalid_input(
                "not_embedded",
                format!("the server of environment {} is not the embedded one", self.name),
            )
            .with_hint(
                "one that is a namespace of Kubernetes is deployed by a Deployer, as by the command shareddb deploy",
            )),
        }
    }

    /// How the admin logs in, as it stays true when this process ends: a [`Server`] from here may be at the end of a tunnel.
    ///
    /// # Errors
    /// As [`Self::connect`], as far as the password is concerned.
    pub async fn stored_admin(&self) -> Result<ConnectionConfig> {
        match &self.place {
            #[cfg(feature = "local")]
            Place::Local(_) => Ok(self.connect().await?.admin().clone()),
            Place::Remote(remote) => remote.stored_admin(&self.name).await,
        }
    }

    /// Finds the server. Nobody logs in yet; of a cluster, the admin's password is read and, where the name of the Service
    /// means nothing or [`with_tunnel`](Self::with_tunnel) was said, a tunnel opened. It is in a tokio runtime, which carries
    /// the tunnel from then on, and the tunnel ends with the last clone of the [`Server`].
    ///
    /// # Errors
    /// `Unavailable` when the embedded server does not run, a cluster cannot be reached or no pod is ready; `NotFound` and
    /// `InvalidInput` when the admin's password, the Service or the kubeconfig is not where it should be; `PermissionDenied`
    /// when a right in the namespace is missing, with a Role that has it.
    pub async fn connect(&self) -> Result<Server> {
        match &self.place {
            #[cfg(feature = "local")]
            Place::Local(server) => {
                let Some(admin) = server.admin()? else {
                    return Err(Error::unavailable(
                        "server_not_running",
                        format!("the server of environment {} does not run", self.name),
                    )
                    .with_hint(format!("start it: shareddb deploy -e {}", self.name)));
                };
                let secrets = self.secrets().await?;
                Ok(Server::new(self.name.clone(), admin, secrets)
                    .ours()
                    .with_data(server.home().data_dir())
                    .with_hint("password_rejected", server.rejected_hint()))
            }
            Place::Remote(remote) => remote.connect(&self.name).await,
        }
    }
}

/// What is wrong in the file `shareddb.toml`.
fn invalid(message: String) -> Error {
    Error::invalid_input("env_file_invalid", message)
}
