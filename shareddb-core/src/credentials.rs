//! What a Secret says: the keys of an app's credentials, written and read.

use std::collections::BTreeSet;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use crate::app::App;
use crate::connection::{ConnectionConfig, RootCertificate, SslMode, keys};
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
        entries.push((SSL_MODE, plain(config.ssl_mode().as_str())));
    }
    if let Some(root) = config.root_certificate() {
        entries.push(("ca.crt", SecretString::from(root.text()?)));
    }
    Ok(entries.into_iter().filter(|(key, _)| !app.keeps_key(key)).map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Which of an app's passwords a Secret holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Issue {
    /// Its number, where the Secret says so.
    pub(crate) generation: Option<u32>,
    /// Since when it is the one.
    pub(crate) since: Option<Timestamp>,
}

const GENERATION: &str = "generation";
const SINCE: &str = "rotated_at";

impl Issue {
    /// What a Secret says of itself.
    pub(crate) fn of(app: &App, data: &SecretData) -> Self {
        let value = |key: &str| data.get(key).filter(|_| !app.keeps_key(key)).map(|value| value.expose_secret());
        Self {
            generation: value(GENERATION).and_then(|number| number.parse().ok()),
            since: value(SINCE).and_then(|time| time.parse().ok()),
        }
    }

    /// Says it in a Secret, unless keys of these names are its app's own.
    pub(crate) fn write(generation: u32, since: Timestamp, app: &App, data: &mut SecretData) {
        for (key, value) in [(GENERATION, generation.to_string()), (SINCE, since.to_string())] {
            if !app.keeps_key(key) {
                data.insert(key.to_owned(), SecretString::from(value));
            }
        }
    }
}

/// The same certificate, where an app's pod finds it when its Secret is mounted at the documented path.
pub(crate) fn mounted(root: RootCertificate, app: &AppName) -> RootCertificate {
    root.with_path(format!("/etc/shareddb/{app}/ca.crt"))
}

/// The host and port that a Secret names.
pub(crate) fn place(data: &SecretData) -> String {
    let value = |key: &str| data.get(key).map_or("", |value| value.expose_secret());
    format!("{}:{}", value("DB_HOST"), value("DB_PORT"))
}

/// What a Secret in the store says about its login.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) user: String,
    pub(crate) password: SecretString,
    /// All our keys are there and say the same.
    pub(crate) complete: bool,
}

impl Stored {
    /// What a Secret says that somebody else wrote; it lacks keys of ours.
    pub(crate) fn by_hand(data: &SecretData) -> Self {
        let Foreign { user, password, .. } = read_foreign(data);
        Self { user: user.unwrap_or_default(), password: password.unwrap_or_default(), complete: false }
    }
}

/// Reads a Secret. Whatever is missing makes it incomplete; that is not an error.
pub(crate) fn read(app: &App, data: &SecretData) -> Stored {
    let adopted = app.adopted.is_some();
    let value = |key: &str| {
        let value = data.get(key).map(|value| value.expose_secret()).unwrap_or_default();
        if adopted { trimmed(value).to_owned() } else { value.to_owned() }
    };
    let (user, password) = (value("DB_USER"), SecretString::from(value("DB_PASSWORD")));
    let port = value("DB_PORT").parse().unwrap_or_default();
    let config =
        ConnectionConfig::new(value("DB_HOST"), port, value("DB_NAME"), user.clone()).with_password(password.clone());
    let config = with_tls(app, data, config);
    let complete = !password.expose_secret().is_empty()
        && write(app, &config).is_ok_and(|expected| missing(app, data, &expected).is_empty());
    Stored { user, password, complete }
}

fn with_tls(app: &App, data: &SecretData, config: ConnectionConfig) -> ConnectionConfig {
    let Some(Ok(mode)) = data.get(SSL_MODE).map(|mode| mode.expose_secret().parse()) else { return config };
    if mode == SslMode::Disable {
        return config;
    }
    let root = data.get("ca.crt").map(|pem| RootCertificate::pem(pem.expose_secret()));
    config.with_tls(mode, root.map(|root| mounted(root, &app.name)))
}

/// Whether a Secret is whole, as far as that can be told without the app's record: all our keys say what the guide's five
/// say, if in words of somebody else's.
pub(crate) fn is_sound(app: &App, data: &SecretData) -> bool {
    let Some(config) = by_keys(app, data) else { return false };
    // The schema is a matter of the record.
    let says = |key: &str, value: &SecretString| {
        key == "DB_SCHEMA" || data.get(key).is_some_and(|stored| agrees(true, key, stored, value))
    };
    write(app, &config).is_ok_and(|expected| expected.iter().all(|(key, value)| says(key, value)))
}

/// How the app in a Secret logs in from where it runs; `None` when one of the guide's five is missing. `DATABASE_URL` counts
/// where it names the same login, as it may say more than they do; an adopted app may have one that is about something else.
pub(crate) fn connection(app: &App, data: &SecretData) -> Option<ConnectionConfig> {
    let keys = by_keys(app, data)?;
    let url = data.get("DATABASE_URL").and_then(|url| ConnectionConfig::from_url(trimmed(url.expose_secret())).ok());
    Some(match url.filter(|url| identity(url) == identity(&keys)) {
        Some(url) => with_tls(app, data, url),
        None => keys,
    })
}

fn by_keys(app: &App, data: &SecretData) -> Option<ConnectionConfig> {
    let Foreign { host, port, database, user, password } = read_foreign(data);
    let config = ConnectionConfig::new(host?, port?, database?, user?).with_password(password?);
    Some(with_tls(app, data, config))
}

/// Those of the expected keys that a Secret lacks, or that say something else in it; more keys do not matter. No key leaves a
/// Secret, so one that asks for TLS which there is no more comes to say that.
pub(crate) fn missing(app: &App, data: &SecretData, expected: &SecretData) -> SecretData {
    let agrees = |key: &String, value: &SecretString| {
        data.get(key).is_some_and(|stored| agrees(app.adopted.is_some(), key, stored, value))
    };
    let off = SecretString::from(SslMode::Disable.as_str());
    let asks = data.get(SSL_MODE).is_some_and(|mode| mode.expose_secret() != off.expose_secret());
    let ended =
        (asks && !expected.contains_key(SSL_MODE) && !app.keeps_key(SSL_MODE)).then(|| (SSL_MODE.to_owned(), off));
    let lacking = expected.iter().filter(|(key, value)| !agrees(key, value));
    lacking.map(|(key, value)| (key.clone(), value.clone())).chain(ended).collect()
}

/// Whether a key says what is expected. What somebody else wrote may say it in other words.
fn agrees(by_hand: bool, key: &str, stored: &SecretString, expected: &SecretString) -> bool {
    let (stored, expected) = (stored.expose_secret(), expected.expose_secret());
    let same_place = || match [stored, expected].map(|url| ConnectionConfig::from_url(trimmed(url))) {
        [Ok(one), Ok(other)] => identity(&one) == identity(&other),
        _ => false,
    };
    stored == expected || by_hand && (trimmed(stored) == expected || URL_KEYS.contains(&key) && same_place())
}

const SSL_MODE: &str = "DB_SSLMODE";
const URL_KEYS: [&str; 2] = ["DATABASE_URL", "uri"];

fn identity(config: &ConnectionConfig) -> (&str, u16, &str, &str, Option<&str>) {
    let password = config.password().map(|password| password.expose_secret());
    (config.host(), config.port(), config.database(), config.user(), password)
}

/// One newline at the end is an editor's.
pub(crate) fn trimmed(value: &str) -> &str {
    value.strip_suffix('\n').map_or(value, |value| value.strip_suffix('\r').unwrap_or(value))
}

/// What a Secret says that somebody else wrote, under whichever names.
#[derive(Default)]
pub(crate) struct Foreign {
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) database: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<SecretString>,
}

/// Reads a Secret that somebody else wrote: the guide's keys come first, then those of others, then a URL.
pub(crate) fn read_foreign(data: &SecretData) -> Foreign {
    let of = |keys: &[&str]| {
        let values = keys.iter().filter_map(|key| data.get(*key)).map(|value| trimmed(value.expose_secret()));
        values.map(str::to_owned).find(|value| !value.is_empty())
    };
    let url = of(&keys::URL).and_then(|url| ConnectionConfig::from_url(&url).ok());
    let part = |value: fn(&ConnectionConfig) -> &str| url.as_ref().map(|url| value(url).to_owned());
    Foreign {
        host: of(&keys::HOST).or_else(|| part(ConnectionConfig::host)),
        port: of(&keys::PORT).and_then(|port| port.parse().ok()).or_else(|| url.as_ref().map(ConnectionConfig::port)),
        database: of(&keys::DATABASE).or_else(|| part(ConnectionConfig::database)),
        user: of(&keys::USER).or_else(|| part(ConnectionConfig::user)),
        password: of(&keys::PASSWORD)
            .map(SecretString::from)
            .or_else(|| url.as_ref().and_then(|url| url.password().cloned())),
    }
}

/// Keys that hold the password and are not ours to change.
pub(crate) fn copies(data: &SecretData, password: &SecretString) -> BTreeSet<String> {
    const OURS: [&str; 5] = ["DB_PASSWORD", "DATABASE_URL", "password", "uri", "pg_service.conf"];
    let password = password.expose_secret();
    let holds = |value: &SecretString| !password.is_empty() && value.expose_secret().contains(password);
    let copies = data.iter().filter(|(key, value)| !OURS.contains(&key.as_str()) && holds(value));
    copies.map(|(key, _)| key.clone()).collect()
}

/// Keys with names of ours in a Secret that somebody else wrote, which say something else than the login in it.
pub(crate) fn foreign_keys(data: &SecretData, expected: &SecretData) -> BTreeSet<String> {
    // Where the app makes its tables is its own affair, and which password it is nobody else counts as we do.
    let differs = |key: &&String| {
        ["DB_SCHEMA", GENERATION, SINCE].contains(&key.as_str())
            || expected.get(*key).is_some_and(|value| !agrees(true, key, &data[*key], value))
    };
    data.keys().filter(differs).cloned().collect()
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
    fn a_secret_of_somebody_else_is_understood() {
        let of = |pairs: &[(&str, &str)]| -> SecretData {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretString::from(*value))).collect()
        };
        let url = of(&[("DATABASE_URL", "postgres://u:p%20w@h:1/d?sslmode=disable\n"), ("PGUSER", "v")]);
        let found = read_foreign(&url);
        assert_eq!((found.host.as_deref(), found.port, found.database.as_deref()), (Some("h"), Some(1), Some("d")));
        assert_eq!((found.user.as_deref(), found.password.unwrap().expose_secret()), (Some("v"), "p w"));
        let image = read_foreign(&of(&[("POSTGRES_PASSWORD", "p\n"), ("POSTGRES_DB", "d")]));
        assert_eq!((image.password.unwrap().expose_secret(), image.database.as_deref()), ("p", Some("d")));
        let config = ConnectionConfig::new("h", 1, "d", "u").with_password(SecretString::from("p w"));
        let expected = write(&app(), &config).unwrap();
        let mut data = url.clone();
        data.extend(of(&[("type", "mine"), ("DB_SCHEMA", "my_app"), ("host", "h"), ("MINE", "p w!")]));
        assert_eq!(foreign_keys(&data, &expected), ["DB_SCHEMA".to_owned(), "type".to_owned()].into());
        assert_eq!(copies(&data, &SecretString::from("p w")), ["MINE".to_owned()].into());
    }

    #[test]
    fn the_url_says_more_where_it_names_the_same_login() {
        let mut data = secret();
        let url = |data: &SecretData| connection(&app(), data).unwrap().url().unwrap().expose_secret().to_owned();
        assert_eq!(url(&data), data["DATABASE_URL"].expose_secret());
        let more = "postgres://my_app_user:secret@db.example/my_app_db?application_name=shop&sslmode=require\n";
        data.insert("DATABASE_URL".into(), SecretString::from(more));
        assert!(
            url(&data).contains("application_name=shop") && url(&data).contains("sslmode=require"),
            "{}",
            url(&data)
        );
        for elsewhere in ["postgres://my_app_user:other@db.example/my_app_db?application_name=shop", "no URL"] {
            data.insert("DATABASE_URL".into(), SecretString::from(elsewhere));
            assert_eq!(url(&data), secret()["DATABASE_URL"].expose_secret(), "{elsewhere}");
        }
        data.remove("DB_HOST");
        data.insert("host".into(), SecretString::from(""));
        assert!(connection(&app(), &data).is_none());
    }

    #[test]
    fn keys_of_others_do_not_matter() {
        let mut data = secret();
        data.insert("MINE".into(), SecretString::from("x"));
        assert!(read(&app(), &data).complete);
    }
}
