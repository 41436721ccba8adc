//! The admin's sessions, which no tenant can lead astray.

use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

use crate::connection::{ConnectionConfig, Session};
use crate::error::{Error, Result};
use crate::postgres::facts::ServerFacts;
use crate::postgres::statements::LOCK_TIMEOUT;

/// Settings pinned in the start-up packet, where they beat whatever ALTER DATABASE or ALTER ROLE says. Without the
/// search path, a tenant's function would run with the admin's rights by having the right name (CVE-2018-1058).
const PINNED: [(&str, &str); 14] = [
    ("search_path", "pg_catalog, pg_temp"),
    // Whatever ALTER ROLE says of the admin, what it makes is its own, and made as everywhere.
    ("role", "none"),
    ("default_table_access_method", "heap"),
    ("default_tablespace", ""),
    ("standard_conforming_strings", "on"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "0"),
    ("lock_timeout", LOCK_TIMEOUT),
    ("idle_in_transaction_session_timeout", "0"),
    // The session that holds a lock waits while others work.
    ("idle_session_timeout", "0"),
    // A warning is how the server says that it did not do something.
    ("client_min_messages", "warning"),
    ("row_security", "on"),
    ("jit", "off"),
];

fn pinned(config: ConnectionConfig) -> ConnectionConfig {
    PINNED.iter().fold(config, |config, (name, value)| config.with_option(*name, *value))
}

/// A session of the admin.
pub(crate) struct AdminSession {
    session: Session,
}

impl AdminSession {
    /// Opens a session in the maintenance database, where no tenant gets in.
    pub(crate) async fn open(admin: &ConnectionConfig) -> Result<Self> {
        Self::connect(&pinned(admin.clone())).await
    }

    /// Opens a session in a tenant's database. Only a superuser can make event triggers, and only one can switch them off.
    pub(crate) async fn open_tenant(admin: &ConnectionConfig, database: &str, server: &ServerFacts) -> Result<Self> {
        let mut config = pinned(admin.clone().with_database(database));
        if server.superuser && server.version.major() >= 17 {
            config = config.with_option("event_triggers", "off");
        }
        Self::connect(&config).await
    }

    async fn connect(config: &ConnectionConfig) -> Result<Self> {
        let session = config.connect().await?;
        // Said at login, such as a collation version mismatch: nothing that a statement of ours did.
        session.take_warnings();
        Ok(Self { session })
    }

    /// Reads rows in one round trip. `what` completes "cannot …" in an error.
    pub(crate) async fn read(
        &self,
        what: &str,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>> {
        self.session
            .query_typed(sql, parameters)
            .await
            .map_err(|source| Error::from_postgres(format_args!("cannot {what}"), source))
    }

    /// Runs statements that stand or fall together, except those that refuse to be in a transaction with others.
    ///
    /// # Errors
    /// Also when the server only warns: "no privileges could be revoked" means a wall that is not there.
    pub(crate) async fn run(&self, what: &str, sql: &str) -> Result<()> {
        // Only what this statement is warned of counts against it.
        self.session.take_warnings();
        let result = self.session.simple_query(sql).await;
        let warnings = self.session.take_warnings();
        result.map_err(|source| Error::from_postgres(format_args!("cannot {what}"), source))?;
        match warnings.first() {
            None => Ok(()),
            Some(warning) => {
                Err(Error::failed("server_warned", format!("cannot {what}: the server warned: {warning}")))
            }
        }
    }

    /// Runs statements in a transaction of their own. A failure, or a mere warning, rolls it back.
    pub(crate) async fn run_transaction(&self, what: &str, statements: &[String]) -> Result<()> {
        self.in_transaction(what, "", statements).await
    }

    async fn in_transaction(&self, what: &str, before: &str, statements: &[String]) -> Result<()> {
        let mut done = self.begin(what, before).await;
        if done.is_ok() {
            done = self.run_all(what, statements).await;
        }
        self.end(what, done).await
    }

    /// Begins a transaction in which statements follow one another; [`end`](Self::end) ends it. `before` is run first.
    pub(crate) async fn begin(&self, what: &str, before: &str) -> Result<()> {
        self.run(what, &["BEGIN", before].join("; ")).await
    }

    /// Runs statements one after the other.
    pub(crate) async fn run_all(&self, what: &str, statements: &[String]) -> Result<()> {
        if statements.is_empty() {
            return Ok(());
        }
        self.run(what, &statements.join(";\n")).await
    }

    /// Commits what was done, or takes it back.
    pub(crate) async fn end(&self, what: &str, done: Result<()>) -> Result<()> {
        match done {
            Ok(()) => self.run(what, "COMMIT").await,
            Err(error) => {
                // The first error counts; a rollback fails only with the session, which then ends the transaction too.
                let _ = self.session.simple_query("ROLLBACK").await;
                Err(error)
            }
        }
    }

    /// Takes back what is not committed, if there is anything.
    #[cfg(feature = "backup")]
    pub(crate) async fn abandon(&self) {
        // That there was no transaction is a warning, and a session that has ended has none.
        let _ = self.session.simple_query("ROLLBACK").await;
    }

    /// As [`run_transaction`](Self::run_transaction), for statements that must not appear in the server's log. That is
    /// switched off by a message of its own, `silence`: the log gets a whole message before any of it is run.
    pub(crate) async fn run_silently(&self, what: &str, silence: &str, statements: &[String]) -> Result<()> {
        self.in_transaction(what, silence, statements).await
    }

    /// What time it is by the server's clock, to the second.
    pub(crate) async fn time(&self) -> Result<Timestamp> {
        let second =
            self.value("read the server's clock", "SELECT floor(extract(epoch FROM clock_timestamp()))::int8").await?;
        let second = second.and_then(|second| second.parse().ok());
        second
            .and_then(|second| Timestamp::from_second(second).ok())
            .ok_or_else(|| Error::failed("server_answer", "the server says a time that there is not"))
    }

    /// Runs one statement and returns the first column of its first row.
    pub(crate) async fn value(&self, what: &str, sql: &str) -> Result<Option<String>> {
        let messages = self
            .session
            .simple_query(sql)
            .await
            .map_err(|source| Error::from_postgres(format_args!("cannot {what}"), source))?;
        Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }
}
