//! How to reach a database: read from where applications keep it, written as other programs want it.
//!
//! A [`ConnectionConfig`] comes from exactly one source, remembers which, and is never a mixture. Each conversion is
//! exact, or an error that names what the target cannot express. No `Debug`, `Display` or error
//! shows a password.

#[cfg(feature = "provision")]
mod asyncpg;
mod binding;
mod dialect;
mod directory;
#[cfg(feature = "provision")]
mod django;
mod draft;
mod environment;
mod explanation;
#[cfg(feature = "provision")]
mod export;
mod faults;
mod fingerprint;
mod guard;
pub(crate) mod keys;
#[cfg(feature = "backup")]
mod libpq;
mod mount;
mod options;
mod pgpass;
mod provenance;
#[cfg(feature = "provision")]
mod psql;
mod renewal;
#[cfg(test)]
mod round_trips;
#[cfg(feature = "provision")]
mod secret;
mod service_file;
mod session;
#[cfg(feature = "provision")]
mod sqlalchemy;
mod sqlx;
mod tls;
mod url;
mod verifier;
mod watched_stream;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;

#[cfg(feature = "provision")]
pub use asyncpg::AsyncpgArguments;
pub use dialect::JdbcSettings;
#[cfg(feature = "provision")]
pub use django::DjangoSettings;
pub use explanation::{ExplainedField, Explanation};
#[cfg(feature = "provision")]
pub use export::Export;
#[cfg(feature = "backup")]
pub use libpq::LibpqEnvironment;
pub use provenance::{Rotation, Shadow};
#[cfg(feature = "provision")]
pub use psql::PsqlCommand;
pub use session::Session;
#[cfg(feature = "provision")]
pub use sqlalchemy::SqlAlchemyDriver;
pub use tls::{RootCertificate, SslMode, Tls};

use self::draft::Part;
use self::provenance::Provenance;
use crate::error::{Error, Result};

/// The port of a PostgreSQL server unless it says otherwise.
const DEFAULT_PORT: u16 = 5432;
/// Longer than any login on a busy server, shorter than anyone's patience.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything needed to log in to one database as one user.
///
/// ```
/// use shareddb_core::ConnectionConfig;
///
/// let config = ConnectionConfig::new("db.example", 5432, "my_app_db", "my_app_user")
///     .with_password("p@ss/word".into())
///     .with_option("statement_timeout", "5s");
/// assert_eq!(config.to_string(), "my_app_db at db.example:5432 as my_app_user");
/// assert!(!format!("{config:?}").contains("p@ss/word"));
/// ```
#[derive(Clone)]
pub struct ConnectionConfig {
    host: String,
    hostaddr: Option<IpAddr>,
    port: u16,
    database: String,
    user: String,
    password: Option<SecretString>,
    ssl_mode: Option<SslMode>,
    root_certificate: Option<RootCertificate>,
    application_name: Option<String>,
    connect_timeout: Option<Duration>,
    options: BTreeMap<String, String>,
    provenance: Provenance,
}

impl ConnectionConfig {
    /// The four things without which there is no connection.
    ///
    /// `host` is a host name, an IP address, or the absolute path of a socket directory. Nothing
    /// is checked here; a conversion or [`Self::connect`] does.
    pub fn new(host: impl Into<String>, port: u16, database: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            hostaddr: None,
            port,
            database: database.into(),
            user: user.into(),
            password: None,
            ssl_mode: None,
            root_certificate: None,
            application_name: None,
            connect_timeout: None,
            options: BTreeMap::new(),
            provenance: Provenance::code([Part::Host, Part::Port, Part::Database, Part::User]),
        }
    }

    /// Reads a URL, strictly.
    ///
    /// A password pasted in unencoded makes parsers disagree about where the host begins, and some
    /// then send a piece of it to the DNS; such a URL is refused here, not guessed at.
    ///
    /// Known options: `sslmode`, `sslrootcert`, `application_name`, `connect_timeout`, `hostaddr`,
    /// `options`. A missing port is 5432 and a missing password is none; neither is an error.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] with every fault found. Neither the URL nor any piece of it is in
    /// the text.
    ///
    /// ```
    /// use shareddb_core::ConnectionConfig;
    ///
    /// let config = ConnectionConfig::from_url("postgresql://me:p%40ss@db.example/my_app_db")?;
    /// assert_eq!((config.host(), config.port()), ("db.example", 5432));
    /// assert!(ConnectionConfig::from_url("postgresql://me:p@ss@db.example/my_app_db").is_err());
    /// # Ok::<(), shareddb_core::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        url::read(url, "the URL", Rotation::Fixed).map_err(|shortfall| shortfall.into_error("the database URL"))
    }

    /// Reads a directory as Kubernetes mounts a Secret, with `..data` or without.
    ///
    /// All values come from one version of the Secret, also while it is being replaced. Keys are
    /// ours (`DB_HOST` …, `DB_SSLMODE`, `ca.crt`), those of service bindings (`host`, `port`,
    /// `database`, `username`, `password`), or else those of CloudNativePG (`dbname`, `user`), of images (`POSTGRES_DB` …)
    /// and of libpq (`PGHOST` …). Where they are not enough a `DATABASE_URL` or `uri` counts, with which they have to
    /// agree. One newline at the end of a value
    /// is not part of it. With `ca.crt` and no word about TLS the mode is [`SslMode::VerifyFull`].
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] with every fault, [`Error::NotFound`] or
    /// [`Error::PermissionDenied`] when the directory cannot be read. Unknown keys are not an error.
    pub fn from_directory(directory: &Path) -> Result<Self> {
        let what = format!("the directory {}", directory.display());
        directory::read(directory)?.map_err(|shortfall| shortfall.into_error(&what))
    }

    /// Reads the first source that `variable` knows of; see [`Self::from_env`].
    ///
    /// ```
    /// use shareddb_core::ConnectionConfig;
    ///
    /// let config = ConnectionConfig::from_vars(|name| match name {
    ///     "DATABASE_URL" => Some("postgresql://me:secret@db.example/my_app_db".to_owned()),
    ///     _ => None,
    /// })?;
    /// assert_eq!(config.user(), "me");
    /// # Ok::<(), shareddb_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Self::from_env`].
    pub fn from_vars(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        environment::read(&variable)
    }

    /// Reads this process's environment. One source supplies everything; in order:
    ///
    /// 1. `SHAREDDB_SECRET_DIR`, a mounted Secret
    /// 2. `SERVICE_BINDING_ROOT`: the entry whose `type` is `postgresql`; `SERVICE_BINDING_NAME` picks one of several
    /// 3. `DATABASE_URL` or `DATABASE_URL_FILE`
    /// 4. `DATABASE_HOST`, `DATABASE_PORT`, `DATABASE_NAME`, `DATABASE_USER`, `DATABASE_PASSWORD`, each also with `_FILE`
    /// 5. `DB_HOST` and so on
    /// 6. `PGSERVICE` and `PGHOST` and so on, as libpq reads them, except that nothing is guessed
    ///
    /// Sources 4 to 6 are passed over while something is missing and a later source is complete.
    /// An empty variable counts as unset. What libpq would guard a connection with beyond our settings (`PGCHANNELBINDING`,
    /// `PGSSLCERT`, `PGTARGETSESSIONATTRS` …, and their like in a service section) is a fault, and not passed over. Two complete sources that differ in user or password
    /// only are not an error: the first wins, because variables go stale when a password changes
    /// and files do not.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when nothing is found, when the source has faults (all in one
    /// error), and when two complete sources name different databases. [`Error::NotFound`] or
    /// [`Error::PermissionDenied`] when a directory that is named cannot be read.
    pub fn from_env() -> Result<Self> {
        environment::read_process()
    }

    /// Where a program may be told its database: by this URL or this directory, or else by its environment.
    ///
    /// What is said outright counts alone: the environment is not read then. Of both a URL and a directory the directory
    /// counts, because a URL goes stale when a password changes; they have to name the same database.
    ///
    /// # Errors
    ///
    /// Those of [`Self::from_url`], [`Self::from_directory`] and [`Self::from_env`]; [`Error::InvalidInput`] when the two
    /// name different databases.
    pub fn infer(url: Option<&str>, directory: Option<&Path>) -> Result<Self> {
        match (url, directory) {
            (Some(url), Some(directory)) => environment::agreeing(directory, url),
            (Some(url), None) => Self::from_url(url),
            (None, Some(directory)) => Self::from_directory(directory),
            (None, None) => Self::from_env(),
        }
    }

    /// Sets the password.
    #[must_use]
    pub fn with_password(mut self, password: SecretString) -> Self {
        self.password = Some(password);
        self.provenance.set_in_code(Part::Password);
        self
    }

    /// Sets the address to connect to instead of looking up the host name, which still is what a
    /// certificate must be for. It belongs to this moment (a tunnel), so do not store it.
    #[must_use]
    pub fn with_hostaddr(mut self, hostaddr: IpAddr) -> Self {
        self.hostaddr = Some(hostaddr);
        self.provenance.set_in_code(Part::HostAddr);
        self
    }

    /// Forgets the address: the host name is looked up again.
    #[must_use]
    pub fn without_hostaddr(mut self) -> Self {
        self.hostaddr = None;
        self.provenance.set_in_code(Part::HostAddr);
        self
    }

    /// Sets the host: another name of the same server.
    pub(crate) fn with_host(mut self, host: impl Into<String>) -> Self {
        self.host = host.into();
        self.provenance.set_in_code(Part::Host);
        self
    }

    /// Sets the port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self.provenance.set_in_code(Part::Port);
        self
    }

    /// Sets the database.
    #[must_use]
    pub fn with_database(mut self, database: impl Into<String>) -> Self {
        self.database = database.into();
        self.provenance.set_in_code(Part::Database);
        self
    }

    /// Sets the user. The password stays as it is.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self.provenance.set_in_code(Part::User);
        self
    }

    /// Sets how far the connection is encrypted and what the server's certificate must descend
    /// from; `None` means the roots of this machine.
    ///
    /// [`SslMode::Require`] beside a root certificate becomes [`SslMode::VerifyCa`], as in libpq.
    /// Sockets in a directory are never encrypted, as in libpq.
    #[must_use]
    pub fn with_tls(mut self, mode: SslMode, certificate: Option<RootCertificate>) -> Self {
        self.ssl_mode = Some(mode.beside(certificate.as_ref()));
        self.root_certificate = certificate.filter(|_| mode != SslMode::Disable);
        self.provenance.set_in_code(Part::SslMode);
        self.provenance.set_in_code(Part::SslRootCert);
        self
    }

    /// Sets the name under which sessions show in the server's activity view.
    #[must_use]
    pub fn with_application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = Some(name.into());
        self.provenance.set_in_code(Part::ApplicationName);
        self
    }

    /// Forgets the limit for logins, which not every target has a word for: it is 5 seconds again.
    #[must_use]
    pub fn without_connect_timeout(mut self) -> Self {
        self.connect_timeout = None;
        self.provenance.set_in_code(Part::ConnectTimeout);
        self
    }

    /// Limits how long a login may take, from looking up the host to the server's welcome.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self.provenance.set_in_code(Part::ConnectTimeout);
        self
    }

    /// Sets a server setting for the whole session. It is sent with the login, so that it
    /// survives `RESET ALL`.
    #[must_use]
    pub fn with_option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.provenance.set_option_in_code(&name);
        self.options.insert(name, value.into());
        self
    }

    /// The host name, address, or socket directory.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address that stands in for looking up the host.
    pub fn hostaddr(&self) -> Option<IpAddr> {
        self.hostaddr
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password.
    pub fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// How far connections from here are encrypted: [`SslMode::Disable`] when nothing was said.
    ///
    /// A dialect does not mention what was never said; other programs then use their own default.
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl_mode.unwrap_or(SslMode::Disable)
    }

    /// What the server's certificate must descend from; `None`: the roots of this machine.
    pub fn root_certificate(&self) -> Option<&RootCertificate> {
        self.root_certificate.as_ref()
    }

    /// The name shown in the server's activity view.
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// How long a login may take: 5 seconds when nothing was said.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT)
    }

    /// The same, when something was said.
    #[cfg(feature = "pool")]
    pub(crate) fn own_connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// Whether a password may be sent in clear text when the server asks for it so: where it has shown who it is, and on
    /// sockets of this machine. [`Self::connect`] refuses it elsewhere, as anybody could be asking.
    pub fn admits_clear_password(&self) -> bool {
        self.is_socket() || self.ssl_mode().verifies()
    }

    fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Where the two point to different databases; user and password do not count.
    fn differences(&self, other: &Self) -> Vec<&'static str> {
        let host = |config: &Self| config.host.trim_end_matches('.').to_ascii_lowercase();
        let differs = [
            ("host", host(self) != host(other)),
            ("port", self.port != other.port),
            ("database", self.database != other.database),
        ];
        differs.into_iter().filter_map(|(field, differs)| differs.then_some(field)).collect()
    }

    fn check(&self) -> Result<()> {
        let faults = self.faults();
        if faults.is_empty() {
            return Ok(());
        }
        Err(Error::invalid_input("connection_invalid", format!("the connection settings: {}", faults.join("; "))))
    }
}

impl fmt::Display for ConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{} at {open}{}{close}:{} as {}", self.database, self.host, self.port, self.user)
    }
}

impl fmt::Debug for ConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionConfig")
            .field("host", &self.host)
            .field("hostaddr", &self.hostaddr)
            .field("port", &self.port)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| format_args!("[redacted]")))
            .field("ssl_mode", &self.ssl_mode)
            .field("root_certificate", &self.root_certificate)
            .field("application_name", &self.application_name)
            .field("connect_timeout", &self.connect_timeout)
            .field("options", &options::shown(&self.options))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: &str = "m4rker-s3cret";

    #[test]
    fn nothing_shows_the_password() {
        let config = ConnectionConfig::new("h", 5432, "d", "u").with_password(MARKER.into());
        for text in [format!("{config}"), format!("{config:?}"), format!("{config:#?}")] {
            assert!(!text.contains(MARKER), "{text}");
        }
        let broken = config.with_password(format!("{MARKER}\0").into()).with_database("");
        let error = broken.url().unwrap_err();
        assert!(!format!("{error} {error:?} {:?}", error.hint()).contains(MARKER));
    }

    #[test]
    fn every_fault_is_found() {
        let good = ConnectionConfig::new("h", 1, "d", "u");
        assert!(good.check().is_ok());
        assert!(ConnectionConfig::new("/run/postgresql", 1, "d", "u").check().is_ok());
        assert!(ConnectionConfig::new("fe80::1%eth0", 1, "d", "u").check().is_ok());
        let cases: [(ConnectionConfig, &str); 12] = [
            (ConnectionConfig::new("", 1, "d", "u"), "host is empty"),
            (ConnectionConfig::new("a,b", 1, "d", "u"), "several hosts"),
            (ConnectionConfig::new("/tmp/a,b", 1, "d", "u"), "comma"),
            (ConnectionConfig::new("a@b", 1, "d", "u"), "no host name has"),
            (ConnectionConfig::new("h\n", 1, "d", "u"), "control"),
            (ConnectionConfig::new("h", 0, "d", "u"), "port"),
            (good.clone().with_database(""), "database is empty"),
            (good.clone().with_user("u".repeat(64)), "more than 63"),
            (good.clone().with_password("".into()), "password is empty"),
            (good.clone().with_option("a b", "1"), "option"),
            (good.clone().with_application_name("a\0"), "application name"),
            (ConnectionConfig::new("/run", 1, "d", "u").with_hostaddr("127.0.0.1".parse().unwrap()), "no address"),
        ];
        for (config, expected) in cases {
            let error = config.check().unwrap_err();
            assert_eq!(error.code(), "connection_invalid");
            assert!(error.to_string().contains(expected), "{error}");
        }
        let error = ConnectionConfig::new("", 0, "", "").check().unwrap_err().to_string();
        assert_eq!(error.matches(';').count(), 3, "{error}");
    }

    #[test]
    fn a_root_certificate_is_always_verified() {
        let config = ConnectionConfig::new("h", 1, "d", "u");
        assert_eq!(config.ssl_mode(), SslMode::Disable);
        let certificate = || Some(RootCertificate::file("/ca.crt"));
        assert_eq!(config.clone().with_tls(SslMode::Require, certificate()).ssl_mode(), SslMode::VerifyCa);
        assert_eq!(config.clone().with_tls(SslMode::Require, None).ssl_mode(), SslMode::Require);
        assert!(config.with_tls(SslMode::Disable, certificate()).root_certificate().is_none());
    }
}
