//! An environment whose server runs elsewhere: its address, its admin, the place of its Secrets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

#[cfg(feature = "kubernetes")]
use super::entry::ADMIN_SECRET;
use super::way::Route;
#[cfg(feature = "kubernetes")]
use super::way::{flags, resolves, through, tunnel};
use crate::connection::{ConnectionConfig, RootCertificate, SslMode};
use crate::credentials;
#[cfg(feature = "kubernetes")]
use crate::error::shell_word;
use crate::error::{Error, Result};
use crate::file::{self, blocking};
#[cfg(feature = "kubernetes")]
use crate::kubernetes::{Cluster, Namespace};
#[cfg(all(feature = "kubernetes", feature = "backup"))]
use crate::kubernetes::{Task, Volume, apply::Objects};
use crate::names::{EnvironmentName, NamespaceName, SecretName};
#[cfg(feature = "kubernetes")]
use crate::secrets::KubernetesStore;
use crate::secrets::{DirectoryStore, SecretData, SecretStore};
use crate::server::Server;

/// The guide's Service.
pub(crate) const SERVICE: &str = "postgres-service";
/// The guide's Deployment.
#[cfg(all(feature = "kubernetes", feature = "backup"))]
const DEPLOYMENT: &str = "postgres";
const PORT: u16 = 5432;
/// The admin of an image that was told nothing else.
const ADMIN: &str = "postgres";
/// The database that every server has, unless somebody dropped it.
const DATABASE: &str = "postgres";
/// Where the password stands in a Secret: in ours, in those for the official image, in those of a common chart.
const PASSWORD_KEYS: [&str; 3] = ["password", "POSTGRES_PASSWORD", "postgres-password"];
const USER_KEYS: [&str; 2] = ["username", "POSTGRES_USER"];
/// Who made the server, and who vouches for its certificate: as a deploy writes them.
pub(crate) const PROVIDER_KEY: &str = "provider";
pub(crate) const PROVIDER: &str = "shareddb";
pub(crate) const AUTHORITY_KEY: &str = "ca.crt";

/// What the file and the flags say. Nothing is read or asked yet.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    /// How the admin logs in, without its password; where none was said, its host is the namespace's Service.
    pub(super) admin: Option<ConnectionConfig>,
    pub(super) password: Password,
    /// The host by which apps reach the server.
    pub(super) host: Option<String>,
    /// The port by which apps reach the server.
    pub(super) port: Option<u16>,
    /// The way from here, where the host cannot be looked up.
    pub(super) route: Option<Route>,
    /// The server is reached through a tunnel, whether its name means something here or not.
    #[cfg(feature = "kubernetes")]
    pub(super) tunnelled: bool,
    pub(super) maintenance_database: Option<String>,
    pub(super) cluster_domain: String,
    #[cfg(feature = "kubernetes")]
    pub(super) cluster: Cluster,
    pub(super) namespace: Option<NamespaceName>,
    pub(super) store: Store,
}

/// Where the admin's password is.
#[derive(Clone, Debug)]
pub(super) enum Password {
    /// The server asks for none.
    Unset,
    File(PathBuf),
    Variable {
        name: String,
        value: Option<SecretString>,
    },
    Secret {
        name: SecretName,
        key: Option<String>,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Store {
    Kubernetes,
    Directory(PathBuf),
}

impl Remote {
    /// Whether anything of it is in Kubernetes.
    pub(super) fn needs_cluster(&self) -> bool {
        matches!(self.store, Store::Kubernetes)
            || matches!(self.password, Password::Secret { .. })
            || self.admin.is_none()
    }

    /// Whether the server is the namespace's own, with the admin's password where a deploy keeps it.
    #[cfg(feature = "kubernetes")]
    pub(super) fn is_deployable(&self) -> bool {
        let keeps = matches!(&self.password, Password::Secret { name, key: None } if name.as_str() == ADMIN_SECRET);
        // Where it is somewhere else than its Service is, a deploy would not be how to get there.
        self.admin.is_none() && self.host.is_none() && self.port.is_none() && keeps
    }

    /// The server is that of another namespace now, unless a URL says which it is.
    #[cfg(feature = "kubernetes")]
    pub(super) fn lose_way(&mut self) {
        if self.admin.is_none() {
            self.route = None;
        }
    }

    pub(super) async fn secrets(&self) -> Result<Arc<dyn SecretStore>> {
        match &self.store {
            Store::Directory(path) => Ok(Arc::new(DirectoryStore::new(path))),
            #[cfg(feature = "kubernetes")]
            Store::Kubernetes => Ok(Arc::new(KubernetesStore::new(self.reach().await?))),
            #[cfg(not(feature = "kubernetes"))]
            Store::Kubernetes => Err(without_kubernetes()),
        }
    }

    /// How kubectl is told where the Secrets are.
    #[cfg(feature = "kubernetes")]
    pub(super) fn kubectl_place(&self) -> String {
        let named = |flag: &str, value: Option<&str>| value.map(|value| format!(" {flag} {}", shell_word(value)));
        let place =
            [named("--context", self.cluster.context()), named("-n", self.namespace.as_ref().map(AsRef::as_ref))];
        match &self.store {
            Store::Kubernetes => place.into_iter().flatten().collect(),
            Store::Directory(_) => String::new(),
        }
    }

    pub(super) async fn connect(&self, environment: &EnvironmentName) -> Result<Server> {
        let surroundings = self.surroundings().await?;
        let Login { config: admin, ours } = self.login(&surroundings, environment).await?;
        let (host, port) = self.published();
        let way = admin.hostaddr().map(|address| format!(" by way of {}", SocketAddr::new(address, admin.port())));
        let place = format!("{}{host}:{port}", surroundings.place);
        #[cfg(feature = "kubernetes")]
        if let Some(namespace) = self.beyond(&surroundings).await {
            let tunnel = tunnel(namespace, self.service_port(), environment).await?;
            let secrets = Arc::clone(&surroundings.secrets);
            let server = Server::new(environment.clone(), through(&tunnel, admin), secrets);
            let server = server.with_tunnel(tunnel).with_place(format!("{place} by way of a tunnel"));
            let server = if ours { server.ours() } else { server };
            #[cfg(feature = "backup")]
            let server = server.with_volume(volume(namespace));
            return Ok(server.with_published(host, port).with_hint("server_unreachable", self.way()));
        }
        let server = Server::new(environment.clone(), admin, surroundings.secrets).with_published(host, port);
        #[cfg(all(feature = "kubernetes", feature = "backup"))]
        let server = match surroundings.namespace.as_ref().filter(|_| self.can_be_tunnelled()) {
            Some(namespace) => server.with_volume(volume(namespace)),
            None => server,
        };
        let server = if ours { server.ours() } else { server };
        let place = format!("{place}{}", way.unwrap_or_default());
        Ok(server.with_place(place).with_hint("server_unreachable", self.way()))
    }

    /// How the admin logs in where the server's name means something, or as the file says. Asks for the password only.
    pub(super) async fn stored_admin(&self, environment: &EnvironmentName) -> Result<ConnectionConfig> {
        self.login(&self.surroundings().await?, environment).await.map(|login| login.config)
    }

    /// Whether the server is the namespace's Service and no way leads there but one through the API.
    #[cfg(feature = "kubernetes")]
    pub(super) fn can_be_tunnelled(&self) -> bool {
        self.admin.is_none()
    }

    /// The namespace, where the server in it is to be reached through a tunnel.
    #[cfg(feature = "kubernetes")]
    async fn beyond<'a>(&self, surroundings: &'a Surroundings) -> Option<&'a Namespace> {
        let namespace = surroundings.namespace.as_ref()?;
        // A host that the file names may be another way in than the Service.
        let direct = !self.can_be_tunnelled() || self.route.is_some() || self.host.is_some();
        let away = self.tunnelled || !direct && !resolves(&self.published().0).await;
        away.then_some(namespace)
    }

    /// The port of the Service, as far as it is known.
    #[cfg(feature = "kubernetes")]
    fn service_port(&self) -> u16 {
        self.port.filter(|_| self.host.is_none()).unwrap_or(PORT)
    }

    #[cfg(feature = "kubernetes")]
    async fn surroundings(&self) -> Result<Surroundings> {
        if !self.needs_cluster() {
            let secrets = self.secrets().await?;
            return Ok(Surroundings { secrets, cluster: None, namespace: None, place: String::new() });
        }
        let namespace = self.reach().await?;
        let place = format!("context {} · namespace {} · ", namespace.context(), namespace.name());
        let cluster = KubernetesStore::new(namespace.clone());
        let secrets: Arc<dyn SecretStore> = match &self.store {
            Store::Kubernetes => Arc::new(cluster.clone()),
            Store::Directory(path) => Arc::new(DirectoryStore::new(path)),
        };
        Ok(Surroundings { secrets, cluster: Some(Arc::new(cluster)), namespace: Some(namespace), place })
    }

    #[cfg(not(feature = "kubernetes"))]
    async fn surroundings(&self) -> Result<Surroundings> {
        if self.needs_cluster() {
            return Err(without_kubernetes());
        }
        Ok(Surroundings { secrets: self.secrets().await?, cluster: None, place: String::new() })
    }

    #[cfg(feature = "kubernetes")]
    pub(super) async fn reach(&self) -> Result<Namespace> {
        match &self.namespace {
            Some(namespace) => self.cluster.namespace(namespace).await,
            None => Err(Error::invalid_input("namespace_missing", "it is not said in which namespace the Secrets are")
                .with_hint("say it: -n NAME, or namespace = \"NAME\" in shareddb.toml")),
        }
    }

    /// The host and port that Secrets name.
    pub(super) fn published(&self) -> (String, u16) {
        let host = self.host.clone().or_else(|| self.admin.as_ref().map(|admin| admin.host().to_owned()));
        let port = self.port.or_else(|| self.admin.as_ref().map(ConnectionConfig::port));
        (host.unwrap_or_else(|| self.service()), port.unwrap_or(PORT))
    }

    /// The full name of the namespace's Service, which is the same in all of the cluster.
    fn service(&self) -> String {
        let namespace = self.namespace.as_ref().map_or("default", NamespaceName::as_str);
        format!("{SERVICE}.{namespace}.svc.{}", self.cluster_domain)
    }

    /// How the admin logs in from here.
    async fn login(&self, surroundings: &Surroundings, environment: &EnvironmentName) -> Result<Login> {
        let (host, port) = self.published();
        let mut config = self.admin.clone().unwrap_or_else(|| ConnectionConfig::new(host, port, DATABASE, ADMIN));
        if let Some(database) = &self.maintenance_database {
            config = config.with_database(database);
        }
        if let Some(route) = self.route {
            let port = route.port.unwrap_or(config.port());
            config = config.with_hostaddr(route.address).with_port(port);
        }
        // Apps get the certificate itself, as they cannot read this machine's files.
        if let Some(root) = config.root_certificate().cloned() {
            let (mode, path) = (config.ssl_mode(), root.path().map(Path::to_owned));
            let root = RootCertificate::pem(blocking(move || root.text()).await?);
            config = config.with_tls(mode, Some(path.into_iter().fold(root, RootCertificate::with_path)));
        }
        self.with_password(config, surroundings, environment).await
    }

    async fn with_password(
        &self,
        config: ConnectionConfig,
        surroundings: &Surroundings,
        environment: &EnvironmentName,
    ) -> Result<Login> {
        let missing = |message: String| Error::not_found("admin_password_missing", message);
        match &self.password {
            Password::Unset => Ok(config.into()),
            Password::File(path) => from_file(path).await.map(|password| config.with_password(password).into()),
            Password::Variable { value: Some(value), .. } => Ok(config.with_password(value.clone()).into()),
            Password::Variable { name, value: None } => {
                Err(missing(format!("the variable {name}, which holds the admin's password, is not set"))
                    .with_hint(format!("set {name}; shareddb.toml names it as admin_password_env")))
            }
            Password::Secret { name, key } => {
                let Some(cluster) = &surroundings.cluster else { return Err(without_kubernetes()) };
                let place = cluster.describe(name);
                let Some(secret) = cluster.load(name).await? else {
                    return Err(missing(format!("there is no {place}, which holds the admin's password")).with_hint(format!(
                        "`shareddb deploy{}` makes the server with it; if it is there, are context and namespace right? another Secret is \
                         named in shareddb.toml: admin_password_secret = \"NAME/KEY\"",
                        surroundings.flags(environment)
                    )));
                };
                // A URL names the admin already.
                let user = USER_KEYS.iter().find_map(|key| secret.data.get(*key)).filter(|_| self.admin.is_none());
                let config = user
                    .into_iter()
                    .fold(config, |config, user| config.with_user(credentials::trimmed(user.expose_secret())));
                let config = config.with_password(of_secret(&secret.data, key.as_deref(), &place)?);
                Ok(self.deployed(config, &secret.data))
            }
        }
    }

    /// What the Secret says of a server that was deployed with it.
    fn deployed(&self, config: ConnectionConfig, data: &SecretData) -> Login {
        // A URL says itself how its server is reached, and that it is somebody else's.
        if self.admin.is_some() {
            return config.into();
        }
        let ours = data.get(PROVIDER_KEY).is_some_and(|provider| provider.expose_secret() == PROVIDER);
        let config = match data.get(AUTHORITY_KEY) {
            Some(root) => config.with_tls(SslMode::VerifyFull, Some(RootCertificate::pem(root.expose_secret()))),
            None => config,
        };
        Login { config, ours }
    }

    /// What to do when the server does not answer.
    fn way(&self) -> String {
        match (&self.admin, &self.route) {
            (None, None) => {
                "`shareddb status` shows where it should be; outside the cluster, --tunnel goes by way of the \
                             Kubernetes API"
                    .to_owned()
            }
            _ => "does the server run, and is there a way to it from here? hostaddr in shareddb.toml says where it is"
                .to_owned(),
        }
    }
}

/// The volume of the server that a namespace has.
#[cfg(all(feature = "kubernetes", feature = "backup"))]
fn volume(namespace: &Namespace) -> Volume {
    Volume::of(Objects::new(namespace.clone(), Task::Look), DEPLOYMENT)
}

/// How the admin logs in.
struct Login {
    config: ConnectionConfig,
    /// Whether the server was made for shareddb.
    ours: bool,
}

impl From<ConnectionConfig> for Login {
    fn from(config: ConnectionConfig) -> Self {
        Self { config, ours: false }
    }
}

/// What stands around a server.
struct Surroundings {
    secrets: Arc<dyn SecretStore>,
    /// The Secrets of its namespace, where it has one.
    cluster: Option<Arc<dyn SecretStore>>,
    #[cfg(feature = "kubernetes")]
    namespace: Option<Namespace>,
    /// Where that is, for people.
    place: String,
}

impl Surroundings {
    /// What a command needs to act there.
    fn flags(&self, environment: &EnvironmentName) -> String {
        #[cfg(feature = "kubernetes")]
        if let Some(namespace) = &self.namespace {
            return flags(environment, namespace);
        }
        format!(" -e {environment}")
    }
}

async fn from_file(path: &Path) -> Result<SecretString> {
    let path = path.to_owned();
    blocking(move || {
        let text = file::read_text(&path).map_err(|error| {
            Error::from_io(format!("cannot read the admin's password in {}", path.display()), error)
        })?;
        Ok(SecretString::from(credentials::trimmed(&text)))
    })
    .await
}

fn of_secret(data: &SecretData, key: Option<&str>, place: &str) -> Result<SecretString> {
    let found = match key {
        Some(key) => data.get(key),
        None => PASSWORD_KEYS.iter().find_map(|key| data.get(*key)),
    };
    found.map(|password| SecretString::from(credentials::trimmed(password.expose_secret()))).ok_or_else(|| {
        let wanted = key.map_or(PASSWORD_KEYS.join(", "), str::to_owned);
        let keys = data.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        Error::not_found("admin_password_missing", format!("{place} has no key {wanted}")).with_hint(format!(
            "it has {keys}; name the right one in shareddb.toml: admin_password_secret = \"NAME/KEY\""
        ))
    })
}

fn without_kubernetes() -> Error {
    Error::invalid_input("not_built_in", "this program was built without Kubernetes")
        .with_hint("build it with the feature `kubernetes`, or use store = \"dir:PATH\"")
}
