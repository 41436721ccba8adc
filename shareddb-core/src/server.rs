//! One environment's server within reach: how the admin logs in, and where Secrets are.

use std::fmt;
use std::sync::Arc;

use crate::app::App;
use crate::connection::{ConnectionConfig, SslMode};
use crate::credentials::{self, Stored};
use crate::error::{Error, Result};
use crate::names::{EnvironmentName, RoleName};
use crate::postgres::session::AdminSession;
use crate::postgres::version::ServerVersion;
use crate::secrets::{SecretData, SecretStore};
use secrecy::SecretString;

/// The server of an environment. Cheap to clone; it holds no session of its own.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    environment: EnvironmentName,
    admin: ConnectionConfig,
    store: Arc<dyn SecretStore>,
    password_hint: Option<String>,
}

impl Server {
    /// A server that `admin` logs in to as a superuser, in its maintenance database; apps reach it at the same host and
    /// port. Connects to nothing yet.
    pub fn new(environment: EnvironmentName, admin: ConnectionConfig, store: Arc<dyn SecretStore>) -> Self {
        Self(Arc::new(Inner { environment, admin, store, password_hint: None }))
    }

    /// The same server, where it is known what to do when it rejects the admin's password.
    #[cfg(feature = "local")]
    pub(crate) fn with_password_hint(self, hint: String) -> Self {
        let Inner { environment, admin, store, .. } = &*self.0;
        Self(Arc::new(Inner {
            environment: environment.clone(),
            admin: admin.clone(),
            store: Arc::clone(store),
            password_hint: Some(hint),
        }))
    }

    /// The environment's name.
    pub fn environment(&self) -> &EnvironmentName {
        &self.0.environment
    }

    /// How the admin logs in to the maintenance database.
    pub fn admin(&self) -> &ConnectionConfig {
        &self.0.admin
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
        match admin.hostaddr() {
            Some(address) => config.with_hostaddr(address),
            None => config,
        }
    }

    /// How the app in a Secret logs in, over the route in use from here.
    ///
    /// # Errors
    /// `NotFound` when there is no Secret, `Failed` when it is not complete: `create` repairs it.
    pub(crate) async fn stored_config(&self, app: &App) -> Result<ConnectionConfig> {
        let (_, stored) = load(self.secrets(), app).await?;
        Ok(self.app_config(app, &RoleName::existing(&stored.user)?, stored.password))
    }

    /// How an app logs in, as its Secret has it. An adopted app may know the server by another name.
    pub(crate) fn secret_config(&self, app: &App, login: &RoleName, password: SecretString) -> ConnectionConfig {
        let config = self.app_config(app, login, password).without_hostaddr();
        let Some(adopted) = &app.adopted else { return config };
        let config = adopted.host.iter().fold(config, |config, host| config.with_host(host));
        adopted.port.into_iter().fold(config, ConnectionConfig::with_port)
    }

    /// A session of the admin in the maintenance database.
    pub(crate) async fn session(&self) -> Result<AdminSession> {
        let admin = self.0.admin.clone().with_application_name(application_name());
        AdminSession::open(&admin).await.map_err(|error| self.explained(error))
    }

    /// A session of the admin in a tenant's database.
    pub(crate) async fn tenant_session(&self, database: &str, version: ServerVersion) -> Result<AdminSession> {
        let admin = self.0.admin.clone().with_application_name(application_name());
        AdminSession::open_tenant(&admin, database, version).await.map_err(|error| self.explained(error))
    }

    fn explained(&self, error: Error) -> Error {
        match &self.0.password_hint {
            Some(hint) if error.code() == "password_rejected" => error.with_hint(hint),
            _ => error,
        }
    }
}

/// An app's Secret, all of it and the login in it.
///
/// # Errors
/// `NotFound` when there is none, `Failed` when a key is missing or contradicts another.
pub(crate) async fn load(store: &dyn SecretStore, app: &App) -> Result<(SecretData, Stored)> {
    let (name, place) = (&app.name, store.describe(&app.secret));
    let Some(secret) = store.load(&app.secret).await?.filter(|secret| secret.app.as_ref() == Some(name)) else {
        return Err(Error::not_found("secret_missing", format!("there is no {place} of app {name}")).with_hint(
            format!("`shareddb create {name}` makes it, and keeps the data of an app that exists; `shareddb list` shows the apps"),
        ));
    };
    let stored = credentials::read(app, &secret.data);
    if !stored.complete {
        let message = format!("{place} is damaged: a key is missing or contradicts another");
        return Err(Error::failed("secret_incomplete", message)
            .with_hint(format!("`shareddb create {name}` mends it and keeps the data")));
    }
    Ok((secret.data, stored))
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
