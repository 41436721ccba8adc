//! One environment's server within reach: how the admin logs in, and where Secrets are.

use std::fmt;
#[cfg(feature = "local")]
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::try_join;

use crate::app::App;
use crate::connection::{ConnectionConfig, SslMode};
use crate::credentials;
use crate::error::{Error, Result};
#[cfg(feature = "backup")]
use crate::file;
#[cfg(feature = "kubernetes")]
use crate::kubernetes::Tunnel;
#[cfg(all(feature = "kubernetes", feature = "backup"))]
use crate::kubernetes::Volume;
use crate::names::{AppName, EnvironmentName, RoleName};
use crate::postgres::facts::ServerFacts;
use crate::postgres::marks::Marks;
#[cfg(feature = "backup")]
use crate::postgres::requirements;
use crate::postgres::session::AdminSession;
use crate::postgres::{catalog, powers, visitors};
use crate::secrets::{SecretData, SecretStore};
use secrecy::SecretString;

/// The code of an error about a Secret that lacks a key, or contradicts itself.
pub(crate) const DAMAGED: &str = "secret_incomplete";

/// The server of an environment. Cheap to clone; it holds no session of its own. Where it is reached through a tunnel, the tunnel
/// ends with the last clone.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    environment: EnvironmentName,
    admin: ConnectionConfig,
    store: Arc<dyn SecretStore>,
    published: (String, u16),
    place: String,
    /// What to do when the admin's login fails with a certain code.
    hints: Vec<(&'static str, String)>,
    ours: bool,
    /// A folder of the server's data, where they are on this machine.
    #[cfg(feature = "local")]
    data: Option<PathBuf>,
    #[cfg(feature = "kubernetes")]
    tunnel: Option<Arc<Tunnel>>,
    /// The volume of its data, where that is in Kubernetes.
    #[cfg(all(feature = "kubernetes", feature = "backup"))]
    volume: Option<Volume>,
}

impl Server {
    /// A server that `admin` logs in to, in its maintenance database: as a superuser, or from 16 on as a role with CREATEDB
    /// and CREATEROLE. Apps reach it at the same host and port, unless [`with_published`](Self::with_published) says
    /// otherwise. It counts as somebody else's: what others may do there is not taken from them unasked. Connects to
    /// nothing yet.
    pub fn new(environment: EnvironmentName, admin: ConnectionConfig, store: Arc<dyn SecretStore>) -> Self {
        let published = (admin.host().to_owned(), admin.port());
        let place = format!("{}:{}", published.0, published.1);
        Self(Arc::new(Inner {
            environment,
            admin,
            store,
            published,
            place,
            hints: Vec::new(),
            ours: false,
            #[cfg(feature = "local")]
            data: None,
            #[cfg(feature = "kubernetes")]
            tunnel: None,
            #[cfg(all(feature = "kubernetes", feature = "backup"))]
            volume: None,
        }))
    }

    /// The same server, where it was made for shareddb: nobody else has business there, so that it is closed to PUBLIC.
    #[must_use]
    pub fn ours(self) -> Self {
        self.with(|inner| inner.ours = true)
    }

    /// The same server, where apps reach it at another host or port than the admin does from here. That is what Secrets say.
    #[must_use]
    pub fn with_published(self, host: impl Into<String>, port: u16) -> Self {
        self.with(|inner| inner.published = (host.into(), port))
    }

    /// The same server, where people know it by more than its address.
    pub(crate) fn with_place(self, place: String) -> Self {
        self.with(|inner| inner.place = place)
    }

    /// The same server, where it is known what to do when the admin's login fails with `code`.
    pub(crate) fn with_hint(self, code: &'static str, hint: String) -> Self {
        self.with(|inner| inner.hints.push((code, hint)))
    }

    /// The same server, where the way of `admin` leads through a tunnel, which ends with it.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn with_tunnel(self, tunnel: Tunnel) -> Self {
        self.with(|inner| inner.tunnel = Some(Arc::new(tunnel)))
    }

    /// The same server, where its data are in a folder of this machine.
    #[cfg(feature = "local")]
    pub(crate) fn with_data(self, folder: PathBuf) -> Self {
        self.with(|inner| inner.data = Some(folder))
    }

    /// The same server, where its data are on this volume.
    #[cfg(all(feature = "kubernetes", feature = "backup"))]
    pub(crate) fn with_volume(self, volume: Volume) -> Self {
        self.with(|inner| inner.volume = Some(volume))
    }

    /// Bytes that are free where its data are; `None` where that cannot be seen from here. Of a volume in Kubernetes it is what
    /// databases leave: nobody outside its pod sees more.
    ///
    /// # Errors
    /// Those of reading how large the databases are.
    #[cfg(feature = "backup")]
    pub(crate) async fn free_space(&self, admin: &AdminSession) -> Result<Option<u64>> {
        if let Some(folder) = &self.0.data {
            return Ok(file::free_space(folder));
        }
        let Some(volume) = self.volume_bytes().await else { return Ok(None) };
        Ok(Some(volume.saturating_sub(requirements::bytes_of_databases(admin).await?)))
    }

    #[cfg(all(feature = "kubernetes", feature = "backup"))]
    async fn volume_bytes(&self) -> Option<u64> {
        self.0.volume.as_ref()?.bytes().await
    }

    #[cfg(all(not(feature = "kubernetes"), feature = "backup"))]
    async fn volume_bytes(&self) -> Option<u64> {
        None
    }

    fn with(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// The environment's name.
    pub fn environment(&self) -> &EnvironmentName {
        &self.0.environment
    }

    /// How the admin logs in to the maintenance database.
    pub fn admin(&self) -> &ConnectionConfig {
        &self.0.admin
    }

    /// Where it is, for people: address, and context and namespace where it has them.
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// Why the last connection through the tunnel did not come about or was cut, once; `None` where there is no tunnel.
    pub fn take_trouble(&self) -> Option<Error> {
        #[cfg(feature = "kubernetes")]
        return self.0.tunnel.as_ref()?.take_trouble();
        #[cfg(not(feature = "kubernetes"))]
        None
    }

    /// Where Secrets are kept.
    pub fn secrets(&self) -> &dyn SecretStore {
        self.0.store.as_ref()
    }

    /// How an app logs in, as one of its logins, over the route in use from here.
    pub(crate) fn app_config(&self, app: &App, login: &RoleName, password: SecretString) -> ConnectionConfig {
        let admin = &self.0.admin;
        let config = ConnectionConfig::new(admin.host(), admin.port(), app.database.as_str(), login.as_str())
            .with_password(password);
        let config = match admin.ssl_mode() {
            SslMode::Disable => config,
            mode => config.with_tls(mode, admin.root_certificate().cloned()),
        };
        let Some(address) = admin.hostaddr() else { return config };
        let config = config.with_hostaddr(address);
        #[cfg(feature = "kubernetes")]
        if self.0.tunnel.is_some() {
            // It may have to wait for a pod, as the admin's login.
            return config.with_connect_timeout(admin.connect_timeout());
        }
        config
    }

    /// How an app logs in from where it runs: what its Secret says.
    pub(crate) fn published_config(&self, app: &App, login: &RoleName, password: SecretString) -> ConnectionConfig {
        let (host, port) = &self.0.published;
        let config = ConnectionConfig::new(host, *port, app.database.as_str(), login.as_str()).with_password(password);
        let admin = &self.0.admin;
        match admin.ssl_mode() {
            SslMode::Disable => config,
            mode => config
                .with_tls(mode, admin.root_certificate().map(|root| credentials::mounted(root.clone(), &app.name))),
        }
    }

    /// How the app in a Secret logs in, over the route in use from here.
    ///
    /// # Errors
    /// `NotFound` when there is no Secret, `Failed` when it is not complete: `create` repairs it.
    pub(crate) async fn stored_config(&self, app: &App) -> Result<ConnectionConfig> {
        let (_, stored) = load(self.secrets(), app).await?;
        let password = stored.password().cloned().unwrap_or_default();
        Ok(self.app_config(app, &RoleName::existing(stored.user())?, password))
    }

    /// How an app logs in, as its Secret has it. An adopted app may know the server by another name.
    pub(crate) fn secret_config(&self, app: &App, login: &RoleName, password: SecretString) -> ConnectionConfig {
        let config = self.published_config(app, login, password);
        let Some(adopted) = &app.adopted else { return config };
        let config = adopted.host.iter().fold(config, |config, host| config.with_host(host));
        adopted.port.into_iter().fold(config, ConnectionConfig::with_port)
    }

    /// A session of the admin in the maintenance database.
    pub(crate) async fn session(&self) -> Result<AdminSession> {
        let admin = self.0.admin.clone().with_application_name(application_name());
        AdminSession::open(&admin).await.map_err(|error| self.explained(error))
    }

    /// An app as it is recorded.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub(crate) async fn recorded(&self, name: &AppName) -> Result<App> {
        let session = self.session().await?;
        let marks = Marks::read(&session).await?;
        match marks.records().remove(name) {
            Some(mark) => App::recorded(mark),
            None => Err(marks.no_such_app(name, self.environment())),
        }
    }

    /// What the server is and what the admin may do there: one round trip for a superuser, two for others.
    pub(crate) async fn facts(&self, session: &AdminSession) -> Result<ServerFacts> {
        let visitors = async { if self.0.ours { Ok(Default::default()) } else { visitors::visitors(session).await } };
        let (mut facts, (visitors, temporary)) = try_join(catalog::server(session), visitors).await?;
        (facts.ours, facts.visitors, facts.temporary) = (self.0.ours, visitors, temporary);
        if !facts.superuser && facts.version.has_plain_admins() {
            facts.powers = powers::powers(session).await?;
        }
        Ok(facts)
    }

    /// A session of the admin in a tenant's database.
    pub(crate) async fn tenant_session(&self, database: &str, server: &ServerFacts) -> Result<AdminSession> {
        let admin = self.0.admin.clone().with_application_name(application_name());
        AdminSession::open_tenant(&admin, database, server).await.map_err(|error| self.explained(error))
    }

    /// An error as it is, and what the tunnel says of it where the way was lost.
    pub fn with_trouble(&self, error: Error) -> Error {
        if !["server_unreachable", "timeout"].contains(&error.code()) {
            return error;
        }
        match self.take_trouble() {
            // The same again might succeed.
            Some(trouble) if trouble.is_retryable() => match trouble.hint().map(ToOwned::to_owned) {
                Some(hint) => error.with_hint(hint).with_source(trouble),
                None => error.with_source(trouble),
            },
            Some(trouble) => trouble,
            None => error,
        }
    }

    fn explained(&self, error: Error) -> Error {
        let error = match self.0.hints.iter().find(|(code, _)| *code == error.code()) {
            Some((_, hint)) => error.with_hint(hint),
            None => error,
        };
        self.with_trouble(error)
    }
}

/// An app's Secret, all of it, and how the app logs in from where it runs.
///
/// # Errors
/// `NotFound` when there is none, `Failed` when a key is missing or contradicts another.
pub(crate) async fn load(store: &dyn SecretStore, app: &App) -> Result<(SecretData, ConnectionConfig)> {
    load_whole(store, app, |data| credentials::read(app, data).complete).await
}

/// The same where the app's record is not known: an adopted app has words of its own.
///
/// # Errors
/// As [`load`].
pub(crate) async fn load_unrecorded(store: &dyn SecretStore, app: &App) -> Result<(SecretData, ConnectionConfig)> {
    load_whole(store, app, |data| credentials::is_sound(app, data)).await
}

async fn load_whole(
    store: &dyn SecretStore,
    app: &App,
    is_whole: impl Fn(&SecretData) -> bool,
) -> Result<(SecretData, ConnectionConfig)> {
    let data = held(store, app).await?;
    match credentials::connection(app, &data).filter(|_| is_whole(&data)) {
        Some(config) => Ok((data, config)),
        None => Err(damaged(store, app)),
    }
}

async fn held(store: &dyn SecretStore, app: &App) -> Result<SecretData> {
    let (name, environment, place) = (&app.name, &app.environment, store.describe(&app.secret));
    let Some(secret) = store.load(&app.secret).await?.filter(|secret| secret.app.as_ref() == Some(name)) else {
        return Err(Error::not_found("secret_missing", format!("there is no {place} of app {name}")).with_hint(
            format!(
                "`shareddb create {name} -e {environment}` makes it, and keeps the data of an app that exists; \
                 `shareddb list -e {environment}` shows the apps"
            ),
        ));
    };
    Ok(secret.data)
}

fn damaged(store: &dyn SecretStore, app: &App) -> Error {
    let (name, environment, place) = (&app.name, &app.environment, store.describe(&app.secret));
    Error::failed(DAMAGED, format!("{place} is damaged: a key is missing or contradicts another"))
        .with_hint(format!("`shareddb create {name} -e {environment}` mends it and keeps the data"))
}

/// Whoever waits for a lock of ours is told this name.
fn application_name() -> String {
    format!("shareddb {}", std::process::id())
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("environment", &self.0.environment)
            .field("admin", &self.0.admin)
            .field("store", &self.0.store)
            .finish()
    }
}
