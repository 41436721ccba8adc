//! One piece of work on an app: under its lock, with its maintenance login open, and closed again whatever happens.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use secrecy::SecretString;

use crate::app::App;
use crate::backup::BackupManager;
use crate::backup::event::{BackupEvent, Listener};
use crate::connection::ConnectionConfig;
use crate::error::{Error, Result};
use crate::local::Binaries;
use crate::mark::Progress;
use crate::names::AppName;
use crate::password::{self, Verifier};
use crate::postgres::facts::ServerFacts;
use crate::postgres::lock::AppLock;
use crate::postgres::maintenance;
use crate::postgres::marks::Marks;
use crate::postgres::session::AdminSession;
use crate::server::Server;

/// What the login's sessions call themselves.
const APPLICATION: &str = "shareddb backup";
/// A database that is far away or busy takes a moment to let somebody in.
const LOGIN: Duration = Duration::from_secs(30);

/// The work, and what it is about.
pub(crate) struct Job<'a> {
    pub(crate) server: &'a Server,
    pub(crate) app: App,
    pub(crate) facts: ServerFacts,
    pub(crate) binaries: Binaries,
    listener: &'a Listener,
    lock: AppLock,
    password: SecretString,
    /// When its logins let nobody in any more.
    until: String,
    /// What has begun is not to be ended half-way.
    decisive: AtomicBool,
    /// The app's own logins were closed.
    shut: AtomicBool,
}

impl<'a> Job<'a> {
    /// Takes the app's lock and opens its maintenance login for `budget`.
    ///
    /// # Errors
    /// `NotFound` when there is no such app, `Refused` while it is half made or half gone, `Timeout` naming who holds the
    /// lock, `Unavailable` where PostgreSQL's programs are missing.
    pub(crate) async fn begin(manager: &'a BackupManager, name: &AppName) -> Result<Self> {
        let server = &manager.server;
        let lock = AppLock::take(server.session().await?, name, manager.lock_patience).await?;
        // Others may decide about their apps; this one stays locked.
        let begun = match lock.release_shared().await {
            Ok(()) => Self::prepare(manager, &lock, name).await,
            Err(error) => Err(error),
        };
        match begun {
            Ok((app, facts, binaries, password, until)) => Ok(Self {
                server,
                app,
                facts,
                binaries,
                listener: &manager.listener,
                lock,
                password,
                until,
                decisive: AtomicBool::new(false),
                shut: AtomicBool::new(false),
            }),
            Err(error) => {
                lock.release().await;
                Err(server.with_trouble(error))
            }
        }
    }

    async fn prepare(
        manager: &BackupManager,
        lock: &AppLock,
        name: &AppName,
    ) -> Result<(App, ServerFacts, Binaries, SecretString, String)> {
        let (server, session) = (&manager.server, lock.session());
        let app = recorded(session, server, name).await?;
        let facts = server.facts(session).await?;
        facts.version.check()?;
        let major = u16::try_from(facts.version.major()).unwrap_or(u16::MAX);
        let binaries = Binaries::clients(major, manager.binaries.as_deref())?;
        let inside = server.tenant_session(app.database.as_str(), &facts).await?;
        maintenance::gather(&inside, &facts, &app).await?;
        drop(inside);
        let password = password::generate()?;
        let until = maintenance::open(session, &facts, &app, &Verifier::of(&password)?, manager.budget).await?;
        Ok((app, facts, binaries, password, until))
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self, event: BackupEvent<'_>) {
        self.listener.tell(&self.app.name, event);
    }

    /// The admin's session, which holds the lock.
    pub(crate) fn admin(&self) -> &AdminSession {
        self.lock.session()
    }

    /// Which data directory the server has; empty where the admin may not see it.
    pub(crate) async fn system_identifier(&self) -> Result<String> {
        match maintenance::system_identifier(self.admin()).await {
            Err(error) if error.sqlstate() == Some("42501") => Ok(String::new()),
            found => found,
        }
    }

    /// How the maintenance login reads a database: as itself, since the owner does not see rows that its own policies hide. Where
    /// code of the app may run meanwhile, the transaction only reads: in another it could change the login.
    pub(crate) fn reading(&self, database: &str) -> ConnectionConfig {
        self.login(self.app.maintenance.as_str(), self.password.clone(), database).with_option("role", "none")
    }

    /// How the login of a load enters its database: as the owner, in the start-up packet, which nothing in a dump takes back.
    pub(crate) fn loading(&self, database: &str, password: &SecretString) -> ConnectionConfig {
        self.login(database, password.clone(), database)
            .with_option("role", self.app.owner.as_str())
            // A scratch that a crash cuts short is dropped anyway, and the commit that puts it in the app's place waits for all
            // that was written before it.
            .with_option("synchronous_commit", "off")
    }

    /// When the logins let nobody in any more, as the server writes it.
    pub(crate) fn until(&self) -> &str {
        &self.until
    }

    fn login(&self, user: &str, password: SecretString, database: &str) -> ConnectionConfig {
        let config = self.server.app_config(&self.app, &self.app.maintenance, password);
        config
            .with_user(user)
            .with_database(database)
            .with_application_name(APPLICATION)
            .with_connect_timeout(LOGIN)
            // The tenant's code that runs in a load can change the login's own settings.
            .with_option("statement_timeout", "0")
            // What rows look like as text, and so what their digests are: pg_dump itself sees to the rest.
            .with_option("timezone", "UTC")
            .with_option("bytea_output", "hex")
            .with_option("lc_monetary", "C")
    }

    /// From here on the work is done to its end, whoever wants it to end early.
    pub(crate) fn decide(&self) {
        self.decisive.store(true, Ordering::Relaxed);
    }

    /// Returns when the work may be cut short; not at all once it is decided.
    pub(crate) async fn undecided(&self) {
        if self.decisive.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Closes the app's own logins and ends their sessions.
    pub(crate) async fn shut(&self) -> Result<()> {
        self.shut.store(true, Ordering::Relaxed);
        maintenance::shut(self.admin(), &self.facts, &self.app).await
    }

    /// Opens them again, if they were closed. Where the session that has the lock is lost, so is the lock: it is taken anew, and
    /// waited for so long.
    pub(crate) async fn reopen(&self, patience: Duration) -> Result<()> {
        if !self.shut.load(Ordering::Relaxed) || maintenance::reopen(self.admin(), &self.app).await.is_ok() {
            return Ok(());
        }
        let lock = AppLock::take(self.server.session().await?, &self.app.name, patience).await?;
        let opened = maintenance::reopen(lock.session(), &self.app).await;
        lock.release().await;
        opened
    }

    /// Closes the login and gives back the lock.
    pub(crate) async fn end(self) -> Result<()> {
        let closed = maintenance::close(self.admin(), &self.facts, &self.app).await;
        self.lock.release().await;
        closed
    }
}

async fn recorded(session: &AdminSession, server: &Server, name: &AppName) -> Result<App> {
    let marks = Marks::read(session).await?;
    let mark = match marks.records().remove(name) {
        Some(mark) => mark.clone(),
        None => return Err(marks.no_such_app(name, server.environment())),
    };
    match mark.progress {
        Some(progress @ (Progress::Creating | Progress::Dropping | Progress::Adopting)) => {
            let environment = server.environment();
            let finish = match progress {
                Progress::Dropping => format!("finish that: shareddb drop {name} -e {environment} --confirm {name}"),
                _ => format!("finish that: shareddb create {name} -e {environment}"),
            };
            let message = format!("app {name} is {}, or was when that was cut short", progress.as_str());
            Err(Error::refused("app_unfinished", message).with_hint(finish))
        }
        _ => App::recorded(&mark),
    }
}
