//! Environments: where a shared server is, as a value.

use std::sync::Arc;

use crate::app::{App, AppSpec};
use crate::error::{Error, Result};
use crate::local::{LocalEndpoint, LocalHome, LocalServer};
use crate::names::{AppName, EnvironmentName};
use crate::secrets::{DirectoryStore, SecretData};
use crate::server::{self, Server};

/// One shared server and its place. A value: it holds no connection.
#[derive(Clone, Debug)]
pub struct Environment {
    name: EnvironmentName,
    local: LocalServer,
}

impl Environment {
    /// The environment `local`: the embedded server, with Secrets in a directory beside it.
    pub fn local(home: LocalHome) -> Result<Self> {
        Ok(Self { name: LOCAL.parse()?, local: LocalServer::new(home) })
    }

    /// The name.
    pub fn name(&self) -> &EnvironmentName {
        &self.name
    }

    /// The embedded server.
    pub fn local_server(&self) -> &LocalServer {
        &self.local
    }

    /// The place of Secrets.
    pub fn secrets(&self) -> DirectoryStore {
        DirectoryStore::new(self.local.home().secrets_dir())
    }

    /// Every key of an app's Secret. The server need not run.
    ///
    /// # Errors
    /// `NotFound` when there is no Secret of that app, `Failed` when it is damaged: `create` mends it.
    pub async fn credentials(&self, app: &AppName) -> Result<SecretData> {
        // The Secret's name and the words of its keys do not depend on the app's record.
        let app = App::derive(&AppSpec::new(app.clone()), &self.name, None)?;
        server::load(&self.secrets(), &app).await.map(|(data, _)| data)
    }

    /// Makes the server serve: starts it, and makes it the first time. That it serves already is not an error.
    ///
    /// # Errors
    /// As [`LocalServer::start`].
    pub async fn deploy(&self) -> Result<LocalEndpoint> {
        self.local.start().await
    }

    /// Finds the server. It has to run; nobody logs in yet.
    ///
    /// # Errors
    /// `Unavailable` when it does not run.
    pub async fn connect(&self) -> Result<Server> {
        let Some(admin) = self.local.admin()? else {
            return Err(Error::unavailable(
                "server_not_running",
                format!("the server of environment {} does not run", self.name),
            )
            .with_hint(format!("start it: shareddb deploy -e {}", self.name)));
        };
        Ok(Server::new(self.name.clone(), admin, Arc::new(self.secrets()))
            .ours()
            .with_password_hint(self.local.rejected_hint()))
    }
}

const LOCAL: &str = "local";
