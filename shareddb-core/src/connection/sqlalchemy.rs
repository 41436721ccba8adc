//! The URL as SQLAlchemy reads it, for each of its drivers.

use secrecy::{ExposeSecret as _, SecretString};

use super::dialect::inexpressible;
use super::{ConnectionConfig, url};
use crate::error::Result;

/// What SQLAlchemy connects with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SqlAlchemyDriver {
    /// psycopg 3, sync and async.
    Psycopg,
    /// psycopg2.
    Psycopg2,
    /// asyncpg, which is not on libpq.
    Asyncpg,
}

impl SqlAlchemyDriver {
    /// SQLAlchemy's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Psycopg => "psycopg",
            Self::Psycopg2 => "psycopg2",
            Self::Asyncpg => "asyncpg",
        }
    }
}

impl ConnectionConfig {
    /// A URL for SQLAlchemy's `create_engine`, with the password.
    ///
    /// What is no part of the login stands in the query, from where SQLAlchemy hands it to the driver; for asyncpg within a
    /// `dsn` that says nothing else.
    ///
    /// # Errors
    ///
    /// As [`Self::url`]; [`Error::InvalidInput`](crate::Error::InvalidInput) for an empty value, which SQLAlchemy drops,
    /// and, with asyncpg, for what [`Self::asyncpg`] refuses and for a `connect_timeout`.
    pub fn sqlalchemy_url(&self, driver: SqlAlchemyDriver) -> Result<SecretString> {
        self.check()?;
        let mut query: Vec<(&str, String)> = match driver {
            SqlAlchemyDriver::Psycopg | SqlAlchemyDriver::Psycopg2 => self.parameters()?,
            SqlAlchemyDriver::Asyncpg => self.dsn()?.map(|dsn| ("dsn", dsn)).into_iter().collect(),
        };
        // Up to SQLAlchemy 2.0 nothing is decoded in these places.
        let mut host = String::new();
        match self.host.as_str() {
            path if path.starts_with('/') => query.push(("host", path.to_owned())),
            address if address.contains(':') => host = format!("[{address}]"),
            name => name.clone_into(&mut host),
        }
        let mut database = url::encode(&self.database);
        if database != self.database {
            let keyword = if driver == SqlAlchemyDriver::Asyncpg { "database" } else { "dbname" };
            query.push((keyword, self.database.clone()));
            database.clear();
        }
        if let Some((keyword, _)) = query.iter().find(|(_, value)| value.is_empty()) {
            return Err(inexpressible("a SQLAlchemy URL", &format!("an empty {keyword}"), "leave it out"));
        }
        let password = self.password.as_ref().map(|password| format!(":{}", url::encode(password.expose_secret())));
        let query: Vec<String> =
            query.iter().map(|(keyword, value)| format!("{keyword}={}", url::encode(value))).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        Ok(format!(
            "postgresql+{}://{}{}@{host}:{}/{database}{mark}{}",
            driver.as_str(),
            url::encode(&self.user),
            password.unwrap_or_default(),
            self.port,
            query.join("&")
        )
        .into())
    }

    /// What asyncpg takes from a DSN only, and the rest of what is no part of the login.
    fn dsn(&self) -> Result<Option<String>> {
        let arguments = self.asyncpg()?;
        if arguments.timeout.is_some() {
            let remedy = "leave it out, and give create_engine connect_args={\"timeout\": seconds}";
            return Err(inexpressible("a SQLAlchemy URL for asyncpg", "connect_timeout", remedy));
        }
        let mut words: Vec<String> = arguments.ssl.map(|mode| format!("sslmode={mode}")).into_iter().collect();
        let rest = arguments.dsn.as_deref().and_then(|dsn| dsn.split_once('?'));
        words.extend(rest.map(|(_, query)| query.to_owned()));
        for (name, value) in &arguments.server_settings {
            if value.is_empty() {
                return Err(inexpressible("a SQLAlchemy URL for asyncpg", &format!("an empty {name}"), "leave it out"));
            }
            words.push(format!("{}={}", url::encode(name), url::encode(value)));
        }
        Ok((!words.is_empty()).then(|| format!("postgresql://?{}", words.join("&"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{RootCertificate, SslMode};
    use std::time::Duration;

    fn url(config: &ConnectionConfig, driver: SqlAlchemyDriver) -> String {
        config.sqlalchemy_url(driver).unwrap().expose_secret().to_owned()
    }

    #[test]
    fn everything_has_its_place() {
        let plain = ConnectionConfig::new("db.example", 1, "d", "u").with_password("p@/".into());
        assert_eq!(url(&plain, SqlAlchemyDriver::Psycopg2), "postgresql+psycopg2://u:p%40%2F@db.example:1/d");
        assert_eq!(url(&plain, SqlAlchemyDriver::Asyncpg), "postgresql+asyncpg://u:p%40%2F@db.example:1/d");
        let full = plain
            .with_host("/run")
            .with_database("d?")
            .with_tls(SslMode::VerifyFull, Some(RootCertificate::file("/ca")))
            .with_application_name("a b");
        assert_eq!(
            url(&full, SqlAlchemyDriver::Psycopg),
            "postgresql+psycopg://u:p%40%2F@:1/?sslmode=verify-full&sslrootcert=%2Fca&application_name=a%20b\
             &host=%2Frun&dbname=d%3F"
        );
        assert_eq!(
            url(&full, SqlAlchemyDriver::Asyncpg),
            "postgresql+asyncpg://u:p%40%2F@:1/?dsn=postgresql%3A%2F%2F%3Fsslmode%3Dverify-full%26sslrootcert%3D%252Fca\
             %26application_name%3Da%2520b&host=%2Frun&database=d%3F"
        );
    }

    #[test]
    fn what_has_no_word() {
        let config = ConnectionConfig::new("h", 1, "d", "u");
        let timeout = config.clone().with_connect_timeout(Duration::from_secs(1));
        assert!(timeout.sqlalchemy_url(SqlAlchemyDriver::Psycopg).is_ok());
        for (config, driver, field) in [
            (timeout, SqlAlchemyDriver::Asyncpg, "connect_timeout"),
            (config.clone().with_application_name(""), SqlAlchemyDriver::Psycopg, "application_name"),
            (config.clone().with_option("search_path", ""), SqlAlchemyDriver::Asyncpg, "search_path"),
            (config.clone().with_hostaddr("::1".parse().unwrap()), SqlAlchemyDriver::Asyncpg, "hostaddr"),
        ] {
            let error = config.sqlalchemy_url(driver).unwrap_err();
            assert_eq!(error.code(), "not_expressible");
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
