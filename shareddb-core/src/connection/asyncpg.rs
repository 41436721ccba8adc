//! The arguments of asyncpg's `connect` and `create_pool`.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::dialect::inexpressible;
use super::{ConnectionConfig, SslMode, options, url};
use crate::error::Result;

const ASYNCPG: &str = "asyncpg";

/// Keyword arguments for asyncpg.
#[derive(Clone)]
#[non_exhaustive]
pub struct AsyncpgArguments {
    /// `host`: a name, an address, or a socket directory.
    pub host: String,
    /// `port`.
    pub port: u16,
    /// `database`.
    pub database: String,
    /// `user`.
    pub user: String,
    /// `password`.
    pub password: Option<SecretString>,
    /// `ssl`, where there is no root certificate.
    pub ssl: Option<SslMode>,
    /// `dsn`: what asyncpg takes from there only, the root certificate and the mode with it; no part of the login.
    pub dsn: Option<String>,
    /// `timeout`, in seconds.
    pub timeout: Option<f64>,
    /// `server_settings`.
    pub server_settings: BTreeMap<String, String>,
}

impl ConnectionConfig {
    /// Keyword arguments for asyncpg.
    ///
    /// # Errors
    ///
    /// As [`Self::url`], and [`Error::InvalidInput`](crate::Error::InvalidInput) for what asyncpg has no word for: a
    /// `hostaddr`, verifying against the roots of the machine.
    pub fn asyncpg(&self) -> Result<AsyncpgArguments> {
        self.check()?;
        if self.hostaddr.is_some() {
            return Err(inexpressible(ASYNCPG, "hostaddr", "connect to the address as the host"));
        }
        let mut arguments = AsyncpgArguments {
            host: self.host.clone(),
            port: self.port,
            database: self.database.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            ssl: self.ssl_mode,
            dsn: None,
            timeout: self.connect_timeout.map(|timeout| timeout.as_secs_f64()),
            server_settings: self.options.clone(),
        };
        if let Some(name) = &self.application_name {
            arguments.server_settings.insert("application_name".to_owned(), name.clone());
        }
        if let Some(mode) = self.ssl_mode {
            match self.root_parameter(mode)?.as_deref() {
                Some("system") if self.root_certificate.is_none() => {
                    return Err(inexpressible(ASYNCPG, "sslrootcert=system", "pass ssl=ssl.create_default_context()"));
                }
                Some(path) => {
                    arguments.dsn = Some(format!("postgresql://?sslmode={mode}&sslrootcert={}", url::encode(path)));
                    arguments.ssl = None;
                }
                None => {}
            }
        }
        Ok(arguments)
    }
}

impl fmt::Debug for AsyncpgArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncpgArguments")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("password", &self.password)
            .field("ssl", &self.ssl)
            .field("dsn", &self.dsn)
            .field("timeout", &self.timeout)
            .field("server_settings", &options::shown(&self.server_settings))
            .finish()
    }
}

impl AsyncpgArguments {
    /// The arguments as a JSON object, password included: `connect(**json.loads(…))`.
    pub fn to_json(&self) -> SecretString {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
        put("host", json!(self.host));
        put("port", json!(self.port));
        put("database", json!(self.database));
        put("user", json!(self.user));
        if let Some(password) = &self.password {
            put("password", json!(password.expose_secret()));
        }
        if let Some(mode) = self.ssl {
            put("ssl", json!(mode.as_str()));
        }
        if let Some(dsn) = &self.dsn {
            put("dsn", json!(dsn));
        }
        if let Some(timeout) = self.timeout {
            put("timeout", json!(timeout));
        }
        if !self.server_settings.is_empty() {
            put("server_settings", json!(self.server_settings));
        }
        Value::Object(object).to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::RootCertificate;
    use std::time::Duration;

    #[test]
    fn arguments() {
        let config = ConnectionConfig::new("h", 1, "d", "u").with_password("m4rker".into());
        let plain = config.clone().with_tls(SslMode::Require, None).with_connect_timeout(Duration::from_millis(1500));
        let arguments = plain.with_option("search_path", "a, b").with_application_name("x").asyncpg().unwrap();
        assert!(!format!("{arguments:?}").contains("m4rker"));
        assert_eq!(
            arguments.to_json().expose_secret(),
            r#"{"database":"d","host":"h","password":"m4rker","port":1,"server_settings":{"application_name":"x","search_path":"a, b"},"ssl":"require","timeout":1.5,"user":"u"}"#
        );
        let verified = config.with_tls(SslMode::VerifyFull, Some(RootCertificate::file("/c a"))).asyncpg().unwrap();
        assert_eq!(verified.dsn.as_deref(), Some("postgresql://?sslmode=verify-full&sslrootcert=%2Fc%20a"));
        assert!(verified.ssl.is_none());
    }

    #[test]
    fn what_asyncpg_has_no_word_for() {
        let config = ConnectionConfig::new("h", 1, "d", "u");
        for (config, field) in [
            (config.clone().with_hostaddr("::1".parse().unwrap()), "hostaddr"),
            (config.clone().with_tls(SslMode::VerifyFull, None), "sslrootcert=system"),
            (config.clone().with_tls(SslMode::VerifyFull, Some(RootCertificate::pem("x"))), "sslrootcert"),
        ] {
            let error = config.asyncpg().unwrap_err();
            assert_eq!(error.code(), "not_expressible");
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
