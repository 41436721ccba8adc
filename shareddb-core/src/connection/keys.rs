//! The keys of a Secret, whoever wrote it: ours, those of service bindings, and those of operators and images.

use std::collections::BTreeMap;

use secrecy::ExposeSecret as _;

use super::draft::{Draft, Part, Shortfall};
use super::provenance::{Rotation, Shadow};
use super::{ConnectionConfig, RootCertificate, url};

pub(crate) const HOST: [&str; 5] = ["DB_HOST", "DATABASE_HOST", "PGHOST", "POSTGRES_HOST", "host"];
pub(crate) const PORT: [&str; 5] = ["DB_PORT", "DATABASE_PORT", "PGPORT", "POSTGRES_PORT", "port"];
pub(crate) const DATABASE: [&str; 6] = ["DB_NAME", "DATABASE_NAME", "PGDATABASE", "POSTGRES_DB", "database", "dbname"];
pub(crate) const USER: [&str; 6] = ["DB_USER", "DATABASE_USER", "PGUSER", "POSTGRES_USER", "username", "user"];
pub(crate) const PASSWORD: [&str; 5] =
    ["DB_PASSWORD", "DATABASE_PASSWORD", "PGPASSWORD", "POSTGRES_PASSWORD", "password"];
const SSL_MODE: [&str; 4] = ["DB_SSLMODE", "DATABASE_SSLMODE", "PGSSLMODE", "sslmode"];
/// Those with the host's full name come first.
pub(crate) const URL: [&str; 4] = ["DATABASE_URL", "fqdn-uri", "uri", "POSTGRES_URL"];
pub(super) const CERTIFICATE: &str = "ca.crt";

/// The keys of each part, first that counts first. The first and that of service bindings, both of which we write, have to agree.
const PARTS: [(Part, &[&str], &str); 6] = [
    (Part::Host, &HOST, "host"),
    (Part::Port, &PORT, "port"),
    (Part::Database, &DATABASE, "database"),
    (Part::User, &USER, "username"),
    (Part::Password, &PASSWORD, "password"),
    (Part::SslMode, &SSL_MODE, "sslmode"),
];

/// What was read, by key.
pub(super) type Values = BTreeMap<&'static str, Vec<u8>>;

/// The keys that count.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    let parts = PARTS.iter().flat_map(|(_, keys, _)| keys.iter());
    parts.chain(&URL).chain([&CERTIFICATE]).copied()
}

/// The key of this name, if it is one that counts.
pub(super) fn known(name: &str) -> Option<&'static str> {
    all().find(|key| name == *key)
}

/// A file's value: one newline at the end is the editor's, not the value's.
pub(super) fn value(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text)))
}

/// Makes a configuration of them. The single keys count; where they are not enough, as in a service binding that has no
/// key for the database, a URL does, and they have to agree with it.
pub(super) fn read(
    values: &Values,
    certificate: Option<RootCertificate>,
    rotation: Rotation,
) -> Result<ConnectionConfig, Shortfall> {
    let mut draft = Draft::new(rotation);
    let url = URL.into_iter().find_map(|key| values.get(key).map(|bytes| (key, value(bytes))));
    match url.filter(|_| !is_whole(values)) {
        Some((key, Some(text))) => from_url(values, key, text, &mut draft),
        Some((key, None)) => draft.fault(format!("{key} is not UTF-8")),
        None => from_parts(values, &mut draft),
    }
    if let Some(certificate) = certificate {
        draft.put_certificate(CERTIFICATE, certificate);
    }
    let mut config = draft.finish()?;
    if is_whole(values) {
        shadow_urls(values, &mut config);
    }
    Ok(config)
}

/// Beside keys that are enough a URL does not count.
fn shadow_urls(values: &Values, config: &mut ConnectionConfig) {
    for (key, text) in URL.into_iter().filter_map(|key| Some((key, value(values.get(key)?)?))) {
        match url::read(text, key, Rotation::Fixed) {
            Ok(said) => config.overshadow(&said),
            Err(shortfall) => config.overshadow_incomplete(&shortfall),
        }
    }
}

/// Whether the single keys say all that there has to be.
fn is_whole(values: &Values) -> bool {
    let needed = PARTS.iter().filter(|(part, ..)| !matches!(part, Part::Port | Part::SslMode));
    needed.into_iter().all(|(_, keys, _)| keys.iter().any(|key| values.contains_key(key)))
}

fn from_parts(values: &Values, draft: &mut Draft) {
    for (part, keys, binding) in PARTS {
        let mut present = keys.iter().filter_map(|key| values.get(key).map(|bytes| (*key, value(bytes))));
        match present.next() {
            Some((key, Some(first))) => {
                draft.put(part, key, first);
                for (other, text) in present {
                    let same = text == Some(first);
                    if !same && key == keys[0] && other == binding {
                        let remedy = "make both keys agree, or remove one of them";
                        draft.fault_with(format!("{key} and {other} differ"), remedy);
                    }
                    draft.shadow(part, Shadow { source: other.to_owned(), same: Some(same) });
                }
            }
            Some((key, None)) => {
                draft.fault(format!("{key} is not UTF-8"));
                draft.put(part, key, "unreadable");
            }
            None => {}
        }
        if !matches!(part, Part::Port | Part::SslMode) {
            draft.require(part, keys[0]);
        }
    }
}

fn from_url(values: &Values, key: &'static str, text: &str, draft: &mut Draft) {
    let mut read = Draft::default();
    url::fill(text, &mut read);
    let judged = read.finish();
    url::fill(text, draft);
    draft.rename(key);
    let Ok(config) = judged else { return };
    let port = config.port().to_string();
    let password = config.password().map(|password| password.expose_secret()).unwrap_or_default();
    for (part, keys, _) in PARTS {
        let said = match part {
            Part::Host => config.host(),
            Part::Port => &port,
            Part::Database => config.database(),
            Part::User => config.user(),
            Part::Password => password,
            _ => "",
        };
        for (other, text) in keys.iter().filter_map(|other| Some((*other, value(values.get(other)?)))) {
            if part == Part::SslMode {
                // No part of the identity: what the URL does not say may stand beside it.
                match text {
                    Some(text) if !draft.has(part) => draft.put(part, other, text),
                    _ => {}
                }
            } else if text != Some(said) && !(part == Part::Password && password.is_empty()) {
                draft.fault_with(format!("{other} and {key} differ"), "make both keys agree, or remove one of them");
            } else if part == Part::Password && password.is_empty() && !draft.has(part) {
                draft.put(part, other, text.unwrap_or_default());
            } else {
                draft.shadow(part, Shadow { source: other.to_owned(), same: Some(true) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<ConnectionConfig, String> {
        let values = pairs.iter().map(|(key, value)| (known(key).unwrap(), value.as_bytes().to_vec())).collect();
        read(&values, None, Rotation::AtOnce).map_err(|shortfall| shortfall.into_error("it").to_string())
    }

    fn login(config: &ConnectionConfig) -> (&str, u16, &str, &str, &str) {
        let password = config.password().unwrap().expose_secret();
        (config.host(), config.port(), config.database(), config.user(), password)
    }

    #[test]
    fn secrets_of_operators_and_images() {
        let cloud_native = [
            ("username", "u"),
            ("user", "u"),
            ("password", "p"),
            ("dbname", "d"),
            ("host", "main-rw"),
            ("port", "5432"),
            ("uri", "postgresql://u:p@main-rw.shop:5432/d"),
        ];
        assert_eq!(login(&of(&cloud_native).unwrap()), ("main-rw", 5432, "d", "u", "p"));
        let image = [("POSTGRES_HOST", "h"), ("POSTGRES_DB", "d"), ("POSTGRES_USER", "u"), ("POSTGRES_PASSWORD", "p")];
        assert_eq!(login(&of(&image).unwrap()), ("h", 5432, "d", "u", "p"));
        let libpq = [("PGHOST", "h"), ("PGPORT", "1"), ("PGDATABASE", "d"), ("PGUSER", "u"), ("PGPASSWORD", "p")];
        assert_eq!(login(&of(&libpq).unwrap()), ("h", 1, "d", "u", "p"));
        let zalando = of(&[("username", "u"), ("password", "p")]).unwrap_err();
        assert!(zalando.contains("DB_HOST, DB_NAME missing"), "{zalando}");
    }

    #[test]
    fn a_binding_has_its_database_in_the_uri_only() {
        let binding = [("host", "h"), ("port", "1"), ("username", "u"), ("password", "p")];
        let with = |uri: &'static str| of(&[&binding[..], &[("uri", uri)]].concat());
        assert_eq!(login(&with("postgresql://u:p@h:1/d").unwrap()), ("h", 1, "d", "u", "p"));
        assert_eq!(login(&with("postgresql://u@h:1/d\n").unwrap()), ("h", 1, "d", "u", "p"));
        for (uri, key) in [
            ("postgresql://u:p@other:1/d", "host"),
            ("postgresql://u:p@h/d", "port"),
            ("postgresql://v:p@h:1/d", "username"),
            ("postgresql://u:m4rker@h:1/d", "password"),
        ] {
            let error = with(uri).unwrap_err();
            assert!(error.contains(&format!("{key} and uri differ")) && !error.contains("m4rker"), "{error}");
        }
        assert!(with("postgresql://u:m4r/ker@h:1/d").unwrap_err().contains("ambiguous"));
    }

    #[test]
    fn the_mode_may_stand_beside_a_url() {
        let config = of(&[("DATABASE_URL", "postgresql://u:p@h/d"), ("DB_SSLMODE", "require")]).unwrap();
        assert_eq!(config.ssl_mode().as_str(), "require");
        let config =
            of(&[("DATABASE_URL", "postgresql://u:p@h/d?sslmode=disable"), ("DB_SSLMODE", "require")]).unwrap();
        assert_eq!(config.ssl_mode().as_str(), "disable");
    }
}
