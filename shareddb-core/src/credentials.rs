//! What a Secret says: the keys of an app's credentials, written and read.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};

use crate::app::App;
use crate::connection::{ConnectionConfig, RootCertificate, SslMode};
use crate::error::Result;
use crate::names::AppName;
use crate::secrets::SecretData;

/// Writes every key of a Secret: the guide's, those of service binding (servicebinding.io), URIs, and a service file for
/// libpq with one section named after the app. `config` is how the app reaches its database from where it runs.
///
/// # Errors
/// `InvalidInput` when a value cannot be written in one of the forms.
pub(crate) fn write(app: &App, config: &ConnectionConfig) -> Result<SecretData> {
    let password = config.password().cloned().unwrap_or_default();
    let uri = config.url()?;
    let service = config.service_section(app.name.as_str())?;
    let plain = |text: &str| SecretString::from(text);
    let mut entries = vec![
        ("DB_HOST", plain(config.host())),
        ("DB_PORT", SecretString::from(config.port().to_string())),
        ("DB_NAME", plain(config.database())),
        ("DB_USER", plain(config.user())),
        ("DB_PASSWORD", password.clone()),
        ("DB_SCHEMA", plain(app.schema.as_str())),
        ("DATABASE_URL", uri.clone()),
        ("type", plain("postgresql")),
        ("provider", plain("shareddb")),
        ("host", plain(config.host())),
        ("port", SecretString::from(config.port().to_string())),
        ("database", plain(config.database())),
        ("username", plain(config.user())),
        ("password", password),
        ("uri", uri),
        ("pg_service.conf", service),
    ];
    if config.ssl_mode() != SslMode::Disable {
        entries.push(("DB_SSLMODE", plain(config.ssl_mode().as_str())));
    }
    if let Some(root) = config.root_certificate() {
        entries.push(("ca.crt", SecretString::from(root.text()?)));
    }
    Ok(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The same certificate, where an app's pod finds it when its Secret is mounted at the documented path.
pub(crate) fn mounted(root: RootCertificate, app: &AppName) -> RootCertificate {
    root.with_path(format!("/etc/shareddb/{app}/ca.crt"))
}

/// What a Secret in the store says about its login.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) user: String,
    pub(crate) password: SecretString,
    /// All our keys are there and say the same.
    pub(crate) complete: bool,
}

/// Reads a Secret. Whatever is missing makes it incomplete; that is not an error.
pub(crate) fn read(app: &App, data: &SecretData) -> Stored {
    let value = |key: &str| data.get(key).map(|value| value.expose_secret().to_owned()).unwrap_or_default();
    let (user, password) = (value("DB_USER"), SecretString::from(value("DB_PASSWORD")));
    let port = value("DB_PORT").parse().unwrap_or_default();
    let config =
        ConnectionConfig::new(value("DB_HOST"), port, value("DB_NAME"), user.clone()).with_password(password.clone());
    let config = match value("DB_SSLMODE").parse() {
        Ok(mode) => {
            let root = data.get("ca.crt").map(|pem| RootCertificate::pem(pem.expose_secret()));
            config.with_tls(mode, root.map(|root| mounted(root, &app.name)))
        }
        Err(_) => config,
    };
    let complete =
        !password.expose_secret().is_empty() && write(app, &config).is_ok_and(|expected| contains(data, &expected));
    Stored { user, password, complete }
}

/// Whether a Secret has all these keys with these values; more keys do not matter.
pub(crate) fn contains(data: &SecretData, expected: &SecretData) -> bool {
    let exposed = |data: &SecretData| -> BTreeMap<String, String> {
        data.iter().map(|(key, value)| (key.clone(), value.expose_secret().to_owned())).collect()
    };
    let data = exposed(data);
    exposed(expected).iter().all(|(key, value)| data.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppSpec;

    fn app() -> App {
        App::derive(&AppSpec::new("my-app".parse().unwrap()), &"local".parse().unwrap(), None).unwrap()
    }

    fn secret() -> SecretData {
        let config = ConnectionConfig::new("db.example", 5432, "my_app_db", "my_app_user")
            .with_password(SecretString::from("secret"));
        write(&app(), &config).unwrap()
    }

    #[test]
    fn what_was_written_is_complete() {
        let stored = read(&app(), &secret());
        assert!(stored.complete);
        assert_eq!((stored.user.as_str(), stored.password.expose_secret()), ("my_app_user", "secret"));
        assert_eq!(secret().len(), 16);
    }

    #[test]
    fn any_edited_or_missing_key_makes_it_incomplete() {
        for key in secret().keys() {
            let mut edited = secret();
            edited.insert(key.clone(), SecretString::from("edited"));
            assert!(!read(&app(), &edited).complete, "{key} edited");
            edited.remove(key);
            assert!(!read(&app(), &edited).complete, "{key} missing");
        }
    }

    #[test]
    fn keys_of_others_do_not_matter() {
        let mut data = secret();
        data.insert("MINE".into(), SecretString::from("x"));
        assert!(read(&app(), &data).complete);
    }
}
