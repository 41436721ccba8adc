//! Looking at an app that was made by hand.

use std::collections::BTreeMap;

use secrecy::SecretString;

use crate::app::{App, AppSpec, Slot};
use crate::connection::ConnectionConfig;
use crate::credentials::{self, Foreign};
use crate::error::{Error, Result};
use crate::names::{DatabaseName, LoginName};
use crate::password;
use crate::postgres::catalog::PROOF;
use crate::postgres::facts::DatabaseFacts;
use crate::postgres::inventory;
use crate::postgres::legacy::{FoundSecret, Inventory, Legacy, NoInside, Outside};
use crate::postgres::marks::Bearer;
use crate::postgres::session::AdminSession;
use crate::provision::admission;
use crate::provision::adopt::finding::{self, Finding};
use crate::provision::adopt::refusals;
use crate::provision::observed::Observed;
use crate::provision::proof;
use crate::secrets::StoredSecret;
use crate::server::Server;

/// The Secret of a hand-made app, and the names that follow from it.
pub(crate) struct Trace {
    pub(crate) spec: AppSpec,
    pub(crate) secret: Option<StoredSecret>,
    foreign: Foreign,
}

/// Reads the Secret that the app's would be; names that the caller has not given are its.
///
/// # Errors
/// `Refused` when a name in it is one that no app may have, such as that of the maintenance database.
pub(crate) async fn look(server: &Server, spec: &AppSpec) -> Result<Trace> {
    let secret_name = App::derive(spec, server.environment(), None)?.secret;
    let secret = server.secrets().load(&secret_name).await?;
    let theirs = secret.as_ref().filter(|secret| secret.app.as_ref().is_none_or(|app| *app == spec.name));
    let foreign = theirs.map(|secret| credentials::read_foreign(&secret.data)).unwrap_or_default();
    let mut spec = spec.clone();
    let mut findings = Vec::new();
    let unfit = |name: &str, what: &str, cure: &str, error: &Error| {
        Finding::new("name_unfit", format!("Secret {secret_name} names the {what} {name:?}: {error}"), cure)
    };
    if let (None, Some(name)) = (&spec.database, &foreign.database) {
        match DatabaseName::existing(name) {
            Ok(found) => spec.database = Some(found),
            Err(error) => findings.push(unfit(name, "database", "move its tables into one of its own", &error)),
        }
    }
    if let (None, Some(name)) = (&spec.user, &foreign.user) {
        match LoginName::existing(name) {
            Ok(found) => spec.user = Some(found),
            Err(error) => findings.push(unfit(name, "user", "give the app a login of its own first", &error)),
        }
    }
    match finding::error(&spec.name, findings) {
        Some(error) => Err(error),
        None => Ok(Trace { spec, secret, foreign }),
    }
}

impl Trace {
    /// Reads the rest: first from outside, and inside only when nothing there can act on us.
    pub(crate) async fn follow(
        &self,
        server: &Server,
        session: &AdminSession,
        app: &App,
        observed: &Observed,
        verifiers: &BTreeMap<String, String>,
    ) -> Result<Legacy> {
        let ours: Vec<String> = admission::roles_of_others(&app.name, observed).into_iter().collect();
        let (login, database) = (app.login(Slot::One).as_str(), app.database.as_str());
        let superuser = observed.server.superuser;
        let mut outside = inventory::outside(session, superuser, login, database, &ours).await?;
        let works = if superuser {
            let password = self.foreign.password.clone().unwrap_or_default();
            verifiers.get(login).is_some_and(|verifier| password::accepts(verifier, login, &password))
        } else {
            let path = self.path_of_login(server, app, observed).await?;
            let works = path.is_some();
            // That session's path is what counts, whoever has set it.
            outside.default_path = path.unwrap_or_default();
            works
        };
        let inside = if may_enter(app, observed, &outside) {
            inside(server, app, observed).await?
        } else {
            Err(NoInside::Forbidden)
        };
        Ok(Legacy {
            database: app.database.clone(),
            user: app.user.clone(),
            outside,
            secret: self.found(server, app, works),
            inside,
        })
    }

    /// The password in the Secret.
    pub(crate) fn password(&self) -> Option<&SecretString> {
        self.foreign.password.as_ref()
    }

    /// Logs in as a program with the Secret does, where the stored password cannot be read: the search path that it gets, or
    /// `None` when that password is not the login's.
    async fn path_of_login(&self, server: &Server, app: &App, observed: &Observed) -> Result<Option<String>> {
        let login = app.login(Slot::One);
        let Some(password) = &self.foreign.password else { return Ok(None) };
        if !observed.roles.get(login.as_str()).is_some_and(|facts| facts.shape.login) {
            return Ok(None);
        }
        let config = server.app_config(app, login, password.clone()).with_application_name(PROOF);
        match config.connect().await {
            Ok(_) if !proof::is_asked(&config).await? => Err(proof::not_asked(login.as_str())),
            Ok(session) => {
                let row = session.query_one("SHOW search_path", &[]).await;
                let row = row.map_err(|source| Error::from_postgres("cannot read the app's search path", source))?;
                Ok(Some(row.get(0)))
            }
            Err(error) if proof::is_wrong_password(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn found(&self, server: &Server, app: &App, works: bool) -> FoundSecret {
        let Some(secret) = &self.secret else { return FoundSecret::Absent };
        if let Some(other) = secret.app.as_ref().filter(|other| **other != app.name) {
            return FoundSecret::Foreign(other.clone());
        }
        let login = app.login(Slot::One);
        let password = self.foreign.password.clone().unwrap_or_default();
        let place = |config: ConnectionConfig| {
            let config = self.foreign.host.iter().fold(config, |config, host| config.with_host(host));
            self.foreign.port.into_iter().fold(config, ConnectionConfig::with_port)
        };
        let copies = credentials::copies(&secret.data, &password);
        let published = server.secret_config(app, login, password);
        let config = place(published.clone());
        // Elsewhere a host that differs may be another server.
        let elsewhere = works && (config.host(), config.port()) != (published.host(), published.port());
        let kept_keys = credentials::write(app, &config)
            .map(|expected| credentials::foreign_keys(&secret.data, &expected))
            .unwrap_or_default();
        FoundSecret::Found {
            database: self.foreign.database.clone(),
            user: self.foreign.user.clone(),
            works,
            kept_keys,
            copies,
            host: elsewhere.then(|| config.host().to_owned()),
            port: elsewhere.then(|| config.port()),
        }
    }
}

/// Settings of a database reach the admin's session, too; what would be loaded into it cannot be overridden.
fn may_enter(app: &App, observed: &Observed, outside: &Outside) -> bool {
    let admitted = |facts: &DatabaseFacts| {
        observed.server.superuser || facts.owner == observed.server.admin && !facts.login_trigger
    };
    let open = |facts: &DatabaseFacts| facts.allows_connections && !facts.template && !facts.invalid;
    observed.database.as_ref().is_some_and(|facts| open(facts) && admitted(facts))
        && observed.marks.on(Bearer::Database, app.database.as_str()).is_none()
        && !outside.settings.contains_key(refusals::PRELOAD)
}

async fn inside(server: &Server, app: &App, observed: &Observed) -> Result<Result<Inventory, NoInside>> {
    /// What a name is that is none in the client's encoding.
    const NOT_UTF8: &str = "22021";
    let version = observed.server.version;
    let session = server.tenant_session(app.database.as_str(), &observed.server).await?;
    match inventory::inside(&session, app.login(Slot::One).as_str(), version).await {
        Ok(inventory) => Ok(Ok(inventory)),
        Err(error) if error.sqlstate() == Some(NOT_UTF8) => Ok(Err(NoInside::Unreadable)),
        Err(error) => Err(error),
    }
}
