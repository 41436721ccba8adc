//! An entry of Django's `DATABASES`.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::{ConnectionConfig, options};
use crate::error::Result;

/// Django's settings for one database. `ENGINE` is `django.db.backends.postgresql`.
#[derive(Clone)]
#[non_exhaustive]
pub struct DjangoSettings {
    /// `HOST`: a name, an address, or a socket directory.
    pub host: String,
    /// `PORT`.
    pub port: u16,
    /// `NAME`.
    pub name: String,
    /// `USER`.
    pub user: String,
    /// `PASSWORD`.
    pub password: Option<SecretString>,
    /// `OPTIONS`, which Django hands to psycopg: libpq's keywords.
    pub options: BTreeMap<&'static str, String>,
}

impl ConnectionConfig {
    /// An entry of Django's `DATABASES`. For a password that changes, `"OPTIONS": {"service": APP}` with `PGSERVICEFILE` at
    /// the mounted `pg_service.conf` does more: Django reads that anew with each connection.
    ///
    /// # Errors
    ///
    /// As [`Self::url`].
    pub fn django(&self) -> Result<DjangoSettings> {
        self.check()?;
        Ok(DjangoSettings {
            host: self.host.clone(),
            port: self.port,
            name: self.database.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            options: self.parameters()?.into_iter().collect(),
        })
    }
}

impl fmt::Debug for DjangoSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(keyword, value): (&&'static str, &String)| match *keyword {
            "options" => ("options", options::shown_text(value)),
            keyword => (keyword, value.clone()),
        };
        f.debug_struct("DjangoSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("name", &self.name)
            .field("user", &self.user)
            .field("password", &self.password)
            .field("options", &self.options.iter().map(shown).collect::<BTreeMap<_, _>>())
            .finish()
    }
}

impl DjangoSettings {
    /// The entry as a JSON object, password included.
    pub fn to_json(&self) -> SecretString {
        let password = self.password.as_ref().map(|password| password.expose_secret()).unwrap_or_default();
        json!({
            "ENGINE": "django.db.backends.postgresql",
            "HOST": self.host,
            "PORT": self.port,
            "NAME": self.name,
            "USER": self.user,
            "PASSWORD": password,
            "OPTIONS": self.options,
        })
        .to_string()
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{RootCertificate, SslMode};

    #[test]
    fn an_entry() {
        let root = RootCertificate::file("/ca.crt");
        let config = ConnectionConfig::new("h", 1, "d", "u").with_password("m4rker".into());
        let settings = config.with_tls(SslMode::VerifyFull, Some(root)).django().unwrap();
        assert!(!format!("{settings:?}").contains("m4rker"));
        assert_eq!(
            settings.to_json().expose_secret(),
            r#"{"ENGINE":"django.db.backends.postgresql","HOST":"h","NAME":"d","OPTIONS":{"sslmode":"verify-full","sslrootcert":"/ca.crt"},"PASSWORD":"m4rker","PORT":1,"USER":"u"}"#
        );
    }
}
