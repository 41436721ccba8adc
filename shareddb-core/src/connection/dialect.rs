//! The same settings in other programs' words: exact, or an error that says what has no word.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config as driver;

use super::{ConnectionConfig, SslMode, Tls, options, url};
use crate::error::{Error, Result};

/// libpq reads a service file in lines of this many bytes.
const SERVICE_LINE_MAX: usize = 1022;

/// What a JDBC driver is given. The password is apart: URLs end up in logs.
#[derive(Clone)]
#[non_exhaustive]
pub struct JdbcSettings {
    /// `jdbc:postgresql://…`, without user and password.
    pub url: String,
    /// The property `user`.
    pub user: String,
    /// The property `password`.
    pub password: Option<SecretString>,
}

impl fmt::Debug for JdbcSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Within values an equals sign is encoded, and the options come last.
        let (url, options) = self.url.split_once("options=").unwrap_or((&self.url, ""));
        f.debug_struct("JdbcSettings")
            .field("url", &url)
            .field("options", &options::shown_text(&url::decode(options).unwrap_or_default()))
            .field("user", &self.user)
            .field("password", &self.password)
            .finish()
    }
}

impl ConnectionConfig {
    /// libpq's keyword string, `host='…' port='…' …`, as psycopg, psql and `pg_dump --dbname` take it.
    ///
    /// # Errors
    ///
    /// As [`Self::url`].
    pub fn libpq(&self) -> Result<SecretString> {
        Ok(quoted(&self.keywords()?).into())
    }

    /// A section of a libpq service file (`pg_service.conf`), newline at the end.
    ///
    /// # Errors
    ///
    /// As [`Self::url`], and [`Error::InvalidInput`] for what such a file cannot hold: a value with
    /// a line break, with a blank at either end, or too long for a line; a name with a bracket.
    pub fn service_section(&self, name: &str) -> Result<SecretString> {
        if name.is_empty() || name.contains([']', '\n', '\r', '\0']) {
            return Err(inexpressible("a service file", "the section's name", "use the app's name"));
        }
        let mut section = format!("[{name}]\n");
        for (keyword, value) in self.keywords()? {
            let value = value.expose_secret();
            let is_blank = |c: char| c.is_ascii_whitespace() || c == '\x0b';
            if value.contains(['\n', '\r']) || value.starts_with(is_blank) || value.ends_with(is_blank) {
                let remedy = "choose a value without line breaks, and without blanks at its ends";
                return Err(inexpressible("a service file", keyword, remedy));
            }
            let line = format!("{keyword}={value}\n");
            if line.len() > SERVICE_LINE_MAX {
                return Err(inexpressible("a service file", keyword, "choose a shorter value"));
            }
            section.push_str(&line);
        }
        Ok(section.into())
    }

    /// URL and properties for the PostgreSQL JDBC driver.
    ///
    /// # Errors
    ///
    /// As [`Self::url`], and [`Error::InvalidInput`] for what that driver has no word for: a
    /// `hostaddr`, a socket directory, verifying against the roots of the machine.
    pub fn jdbc(&self) -> Result<JdbcSettings> {
        const JDBC: &str = "a JDBC URL";
        self.check()?;
        if self.hostaddr.is_some() {
            return Err(inexpressible(JDBC, "hostaddr", "connect to the address as the host, or use psql"));
        }
        if self.is_socket() {
            return Err(inexpressible(JDBC, "a socket directory as the host", "name a host"));
        }
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { url::encode(&self.host) };
        let mut text = format!("jdbc:postgresql://{host}:{}/{}", self.port, url::encode(&self.database));
        for (index, (keyword, value)) in self.parameters()?.iter().enumerate() {
            let property = match *keyword {
                // The driver would look into Java's own places.
                "sslrootcert" if value == "system" => {
                    return Err(inexpressible(JDBC, "sslrootcert=system", "name the server's root certificate"));
                }
                "application_name" => "ApplicationName",
                "connect_timeout" => "loginTimeout",
                same => same,
            };
            let separator = if index == 0 { '?' } else { '&' };
            text.push_str(&format!("{separator}{property}={}", url::encode(value)));
        }
        Ok(JdbcSettings { url: text, user: self.user.clone(), password: self.password.clone() })
    }

    /// libpq's environment variables, `PGHOST` and so on, `PGPASSWORD` among them.
    ///
    /// A child process should inherit no other `PG…` variable: libpq would mix them in.
    ///
    /// # Errors
    ///
    /// As [`Self::url`].
    pub fn environ(&self) -> Result<BTreeMap<&'static str, SecretString>> {
        let variable = |keyword| match keyword {
            "host" => "PGHOST",
            "hostaddr" => "PGHOSTADDR",
            "port" => "PGPORT",
            "dbname" => "PGDATABASE",
            "user" => "PGUSER",
            "password" => "PGPASSWORD",
            "sslmode" => "PGSSLMODE",
            "sslrootcert" => "PGSSLROOTCERT",
            "application_name" => "PGAPPNAME",
            "connect_timeout" => "PGCONNECT_TIMEOUT",
            _ => "PGOPTIONS",
        };
        let keywords = self.keywords()?;
        if keywords.iter().any(|(_, value)| value.expose_secret().contains('\0')) {
            return Err(inexpressible("the environment", "a NUL character", "choose another value"));
        }
        Ok(keywords.into_iter().map(|(keyword, value)| (variable(keyword), value)).collect())
    }

    /// Settings for [`tokio_postgres`], and what encrypts: `config.connect(tls)`.
    ///
    /// Dead servers are noticed: the TCP connect is limited by [`Self::connect_timeout`],
    /// unanswered data by 30 seconds, and a silent connection is probed after 30 seconds, every
    /// 10, three times. [`Self::connect`] limits the whole login, which the driver cannot.
    ///
    /// The two belong together: it is through `tls` that also a connection without TLS gives no password away in clear
    /// text, which the driver has no setting for.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when a value or the root certificate is invalid,
    /// [`Error::NotFound`] when the certificate's file is missing.
    pub fn tokio_postgres(&self) -> Result<(tokio_postgres::Config, Tls)> {
        self.check()?;
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .dbname(&self.database)
            .user(&self.user)
            .connect_timeout(self.connect_timeout())
            .tcp_user_timeout(Duration::from_secs(30))
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3);
        if let Some(address) = self.hostaddr {
            config.hostaddr(address);
        }
        if let Some(password) = &self.password {
            config.password(password.expose_secret());
        }
        if let Some(name) = &self.application_name {
            config.application_name(name);
        }
        if let Some(options) = options::render(&self.options) {
            config.options(options);
        }
        // Nothing lies between the ends of a socket in a directory; PostgreSQL encrypts none.
        let mode = if self.is_socket() { SslMode::Disable } else { self.ssl_mode() };
        config.ssl_mode(if self.is_socket() { driver::SslMode::Disable } else { driver::SslMode::Require });
        if mode == SslMode::Disable {
            // Nothing is negotiated: `Tls` gets the connection as it is, and watches over it.
            config.ssl_negotiation(driver::SslNegotiation::Direct);
        }
        Ok((config, Tls::new(mode, self.root_certificate.as_ref(), self.admits_clear_password())?))
    }

    /// Everything, under libpq's keywords.
    pub(super) fn keywords(&self) -> Result<Vec<(&'static str, SecretString)>> {
        self.check()?;
        let mut keywords = vec![
            ("host", self.host.as_str().into()),
            ("port", self.port.to_string().into()),
            ("dbname", self.database.as_str().into()),
            ("user", self.user.as_str().into()),
        ];
        keywords.extend(self.password.clone().map(|password| ("password", password)));
        keywords.extend(self.parameters()?.into_iter().map(|(keyword, value)| (keyword, value.into())));
        Ok(keywords)
    }

    /// What is not host, port, database, user or password, under libpq's keywords.
    pub(super) fn parameters(&self) -> Result<Vec<(&'static str, String)>> {
        let mut parameters = Vec::new();
        parameters.extend(self.hostaddr.map(|address: IpAddr| ("hostaddr", address.to_string())));
        if let Some(mode) = self.ssl_mode {
            parameters.push(("sslmode", mode.to_string()));
            parameters.extend(self.root_parameter(mode)?.map(|path| ("sslrootcert", path)));
        }
        parameters.extend(self.application_name.clone().map(|name| ("application_name", name)));
        if let Some(timeout) = self.connect_timeout {
            // libpq reads 0 as "wait for ever".
            if timeout.subsec_nanos() != 0 || timeout.is_zero() {
                return Err(inexpressible("libpq", "connect_timeout", "use whole seconds, at least one"));
            }
            parameters.push(("connect_timeout", timeout.as_secs().to_string()));
        }
        parameters.extend(options::render(&self.options).map(|options| ("options", options)));
        Ok(parameters)
    }

    pub(super) fn root_parameter(&self, mode: SslMode) -> Result<Option<String>> {
        let Some(certificate) = &self.root_certificate else {
            return match mode {
                SslMode::Disable | SslMode::Require => Ok(None),
                // Since libpq 16; an older one finds no file of this name and refuses to connect.
                SslMode::VerifyFull => Ok(Some("system".to_owned())),
                SslMode::VerifyCa => Err(inexpressible(
                    "libpq",
                    "sslmode verify-ca without a root certificate",
                    "use verify-full, or name the root certificate",
                )),
            };
        };
        match certificate.path().map(|path| path.to_str()) {
            Some(Some(path)) => Ok(Some(path.to_owned())),
            Some(None) => Err(inexpressible("libpq", "sslrootcert, whose path is not UTF-8", "rename the file")),
            None => Err(inexpressible(
                "libpq",
                "sslrootcert, since the certificate is in no file",
                "write the certificate to a file and name that",
            )),
        }
    }
}

/// Keywords and values as libpq reads them in one string.
pub(super) fn quoted(keywords: &[(&'static str, SecretString)]) -> String {
    let quote = |value: &str| value.replace('\\', r"\\").replace('\'', r"\'");
    let words = keywords.iter().map(|(keyword, value)| format!("{keyword}='{}'", quote(value.expose_secret())));
    words.collect::<Vec<_>>().join(" ")
}

pub(super) fn inexpressible(target: &str, field: &str, remedy: &str) -> Error {
    Error::invalid_input("not_expressible", format!("{target} cannot express {field}")).with_hint(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::RootCertificate;

    const HOSTILE: &str = "p@ss/w#r?d%:& +'\"\\ é";

    fn full() -> ConnectionConfig {
        ConnectionConfig::new("db.example", 6543, "my_app_db", "me")
            .with_password(HOSTILE.into())
            .with_tls(SslMode::VerifyFull, Some(RootCertificate::file("/ca.crt")))
            .with_application_name("it's")
            .with_connect_timeout(Duration::from_secs(7))
            .with_option("search_path", "a, b")
    }

    #[test]
    fn keyword_strings_are_quoted() {
        let small = ConnectionConfig::new("h", 1, "d b", "u").with_password(r"a'b\c".into());
        assert_eq!(
            small.libpq().unwrap().expose_secret(),
            r"host='h' port='1' dbname='d b' user='u' password='a\'b\\c'"
        );
        // The driver reads the same form, except for what it has no mode for.
        let text = full().with_tls(SslMode::Require, None).with_password(HOSTILE.into()).libpq().unwrap();
        let config: tokio_postgres::Config = text.expose_secret().parse().unwrap();
        assert_eq!(config.get_password(), Some(HOSTILE.as_bytes()));
        assert_eq!(config.get_application_name(), Some("it's"));
        assert_eq!(config.get_options(), Some("-c search_path=a,\\ b"));
    }

    #[test]
    fn a_service_section_takes_what_fits_in_lines() {
        let section = full().service_section("my-app").unwrap();
        let expected = format!(
            "[my-app]\nhost=db.example\nport=6543\ndbname=my_app_db\nuser=me\npassword={HOSTILE}\nsslmode=verify-full\n\
             sslrootcert=/ca.crt\napplication_name=it's\nconnect_timeout=7\noptions=-c search_path=a,\\ b\n"
        );
        assert_eq!(section.expose_secret(), expected);
        for password in ["a\nb", " a", "a ", "a\t", "a\r", &"a".repeat(1100)] {
            let error = full().with_password(password.into()).service_section("x").unwrap_err();
            assert_eq!(error.code(), "not_expressible");
            assert!(error.to_string().ends_with("password"), "{error}");
        }
        for name in ["", "a]b", "a\nb"] {
            assert!(full().service_section(name).is_err());
        }
    }

    #[test]
    fn jdbc_keeps_the_password_apart() {
        let jdbc = full().jdbc().unwrap();
        assert_eq!(
            jdbc.url,
            "jdbc:postgresql://db.example:6543/my_app_db?sslmode=verify-full&sslrootcert=%2Fca.crt\
             &ApplicationName=it%27s&loginTimeout=7&options=-c%20search_path%3Da%2C%5C%20b"
        );
        assert_eq!(jdbc.password.as_ref().unwrap().expose_secret(), HOSTILE);
        assert!(!format!("{jdbc:?}").contains(HOSTILE));
        let addressed = full().with_hostaddr("127.0.0.1".parse().unwrap());
        for (config, field) in [
            (addressed, "hostaddr"),
            (ConnectionConfig::new("/run", 1, "d", "u"), "socket"),
            (full().with_tls(SslMode::VerifyFull, None), "sslrootcert=system"),
        ] {
            let error = config.jdbc().unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn environment_variables() {
        let environ = full().with_hostaddr("127.0.0.1".parse().unwrap()).environ().unwrap();
        let value = |name: &str| environ[name].expose_secret();
        assert_eq!(environ.len(), 11);
        assert_eq!(value("PGPASSWORD"), HOSTILE);
        assert_eq!(value("PGHOSTADDR"), "127.0.0.1");
        assert_eq!(value("PGSSLROOTCERT"), "/ca.crt");
        let mut names: Vec<&str> = ConnectionConfig::new("h", 1, "d", "u").environ().unwrap().into_keys().collect();
        names.sort_unstable();
        assert_eq!(names, ["PGDATABASE", "PGHOST", "PGPORT", "PGUSER"]);
    }

    #[test]
    fn what_libpq_has_no_word_for() {
        let pem = RootCertificate::pem("x");
        for (config, field) in [
            (full().with_tls(SslMode::VerifyCa, None), "verify-ca"),
            (full().with_tls(SslMode::VerifyFull, Some(pem.clone())), "sslrootcert"),
            (full().with_connect_timeout(Duration::from_millis(1500)), "connect_timeout"),
            (full().with_connect_timeout(Duration::ZERO), "connect_timeout"),
        ] {
            for error in [config.url().unwrap_err(), config.libpq().unwrap_err(), config.environ().unwrap_err()] {
                assert_eq!(error.code(), "not_expressible");
                assert!(error.to_string().contains(field), "{error}");
            }
        }
        let placed = full().with_tls(SslMode::VerifyFull, Some(pem.with_path("/etc/shareddb/x/ca.crt")));
        assert!(placed.url().unwrap().expose_secret().contains("sslrootcert=%2Fetc%2Fshareddb%2Fx%2Fca.crt"));
    }

    #[test]
    fn the_driver_is_given_limits() {
        let config = full().with_tls(SslMode::Require, None).with_hostaddr("127.0.0.1".parse().unwrap());
        let (given, _) = config.tokio_postgres().unwrap();
        assert_eq!(given.get_ssl_mode(), driver::SslMode::Require);
        assert_eq!(given.get_ssl_negotiation(), driver::SslNegotiation::Postgres);
        assert_eq!(given.get_hostaddrs().len(), 1);
        assert_eq!(given.get_keepalives_retries(), Some(3));
        let socket = ConnectionConfig::new("/run", 1, "d", "u").with_tls(SslMode::Require, None);
        let (given, _) = socket.tokio_postgres().unwrap();
        assert_eq!(given.get_ssl_mode(), driver::SslMode::Disable);
        assert_eq!(given.get_connect_timeout(), Some(&Duration::from_secs(5)));
    }
}
