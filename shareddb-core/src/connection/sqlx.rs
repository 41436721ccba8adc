//! The URL as sqlx reads it.

use secrecy::SecretString;

use super::dialect::inexpressible;
use super::{ConnectionConfig, SslMode};
use crate::error::Result;

const SQLX: &str = "an sqlx URL";

impl ConnectionConfig {
    /// A URL for sqlx's `PgPool` and `PgConnectOptions`, which passes over options that it does not know.
    ///
    /// # Errors
    ///
    /// As [`Self::url`], and [`Error::InvalidInput`](crate::Error::InvalidInput) for what sqlx has no word for: a `hostaddr`
    /// beside a host, a `connect_timeout` (see [`Self::without_connect_timeout`]), the roots of the machine by name, an IPv6
    /// address with a zone.
    pub fn sqlx_url(&self) -> Result<SecretString> {
        self.check()?;
        if self.hostaddr.is_some() {
            return Err(inexpressible(SQLX, "hostaddr", "connect to the address as the host"));
        }
        if self.host.contains('%') {
            return Err(inexpressible(SQLX, "an address with a zone as the host", "name a host"));
        }
        if self.connect_timeout.is_some() {
            let remedy = "leave it out, and set acquire_timeout of sqlx's PoolOptions";
            return Err(inexpressible(SQLX, "connect_timeout", remedy));
        }
        if self.ssl_mode == Some(SslMode::VerifyFull) && self.root_certificate.is_none() {
            return Err(inexpressible(SQLX, "sslrootcert=system", "name the server's root certificate"));
        }
        if [".", ".."].contains(&self.database.as_str()) {
            // A step in a path, to its reader.
            return Err(inexpressible(SQLX, "a database of this name", "set it with PgConnectOptions::database"));
        }
        self.url()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;
    use std::time::Duration;

    #[test]
    fn what_sqlx_has_no_word_for() {
        let config = ConnectionConfig::new("h", 1, "d", "u").with_password("p@/".into());
        assert_eq!(config.sqlx_url().unwrap().expose_secret(), "postgresql://u:p%40%2F@h:1/d");
        for (config, field) in [
            (config.clone().with_hostaddr("127.0.0.1".parse().unwrap()), "hostaddr"),
            (config.clone().with_connect_timeout(Duration::from_secs(1)), "connect_timeout"),
            (config.clone().with_tls(SslMode::VerifyFull, None), "sslrootcert=system"),
            (config.clone().with_database(".."), "database"),
            (config.clone().with_host("fe80::1%eth0"), "zone"),
        ] {
            let error = config.sqlx_url().unwrap_err();
            assert_eq!(error.code(), "not_expressible");
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
