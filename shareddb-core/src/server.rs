//! One environment's server within reach: how the admin logs in, and where Secrets are.

use std::fmt;
use std::sync::Arc;

use crate::app::App;
use crate::connection::{ConnectionConfig, SslMode};
use crate::credentials;
use crate::error::{Error, Result};
use crate::names::{EnvironmentName, RoleName};
use crate::postgres::session::AdminSession;
use crate::postgres::version::ServerVersion;
use crate::secrets::SecretStore;
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
        let secret = self.secrets().load(&app.secret).await?.filter(|secret| secret.app.as_ref() == Some(&app.name));
        let repair = format!("`shareddb create {}` makes it anew and keeps the data", app.name);
        let Some(secret) = secret else {
            return Err(
                Error::not_found("secret_missing", format!("there is no Secret {}", app.secret)).with_hint(repair)
            );
        };
        let stored = credentials::read(app, &secret.data);
        if !stored.complete {
            let place = self.secrets().describe(&app.secret);
            return Err(Error::failed("secret_incomplete", format!("{place} is not complete")).with_hint(repair));
        }
        Ok(self.app_config(app, &stored.user.parse()?, stored.password))
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
