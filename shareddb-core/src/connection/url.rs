//! The URL form, read so strictly that no two parsers can disagree about what was accepted.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};

use super::ConnectionConfig;
use super::draft::{Draft, Part, Shortfall};
use super::provenance::Rotation;
use crate::error::Result;

/// All but RFC 3986's "unreserved": nothing is left that a parser could give a meaning to.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const OPTIONS: [(&str, Part); 6] = [
    ("sslmode", Part::SslMode),
    ("sslrootcert", Part::SslRootCert),
    ("application_name", Part::ApplicationName),
    ("connect_timeout", Part::ConnectTimeout),
    ("hostaddr", Part::HostAddr),
    ("options", Part::Options),
];

const ENCODE: &str = "percent-encode the user and the password: % as %25, @ as %40, / as %2F, ? as %3F, # as %23, : as %3A, blank as %20";

impl ConnectionConfig {
    /// The URL form. Everything outside RFC 3986's unreserved characters is percent-encoded, so
    /// that any parser reads the same; libpq and this library accept all of it, other drivers may
    /// not know `hostaddr` or `sslrootcert`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) when a value is invalid or cannot be said to libpq: a root
    /// certificate without a file, verify-ca without a certificate, a timeout of less than a second.
    ///
    /// ```
    /// use secrecy::ExposeSecret;
    /// use shareddb_core::ConnectionConfig;
    ///
    /// let config = ConnectionConfig::new("db.example", 5432, "my_app_db", "me").with_password("p@ss/word".into());
    /// assert_eq!(config.url()?.expose_secret(), "postgresql://me:p%40ss%2Fword@db.example:5432/my_app_db");
    /// # Ok::<(), shareddb_core::Error>(())
    /// ```
    pub fn url(&self) -> Result<SecretString> {
        self.check()?;
        let mut url = format!("postgresql://{}", encode(&self.user));
        if let Some(password) = &self.password {
            url.push(':');
            url.push_str(&encode(password.expose_secret()));
        }
        url.push('@');
        if self.host.contains(':') {
            url.push_str(&format!("[{}]", self.host.replace('%', "%25")));
        } else {
            url.push_str(&encode(&self.host));
        }
        url.push_str(&format!(":{}/{}", self.port, encode(&self.database)));
        for (index, (keyword, value)) in self.parameters()?.iter().enumerate() {
            let separator = if index == 0 { '?' } else { '&' };
            url.push_str(&format!("{separator}{keyword}={}", encode(value)));
        }
        Ok(url.into())
    }
}

pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Reads a URL. The faults hold no piece of it, since any piece may be one of the password.
pub(super) fn read(url: &str, source: &str, rotation: Rotation) -> Result<ConnectionConfig, Shortfall> {
    let mut draft = Draft::new(rotation);
    fill(url, &mut draft);
    draft.rename(source);
    draft.finish()
}

/// Puts what a URL says into the draft.
pub(super) fn fill(url: &str, draft: &mut Draft) {
    let Some(rest) = url.strip_prefix("postgresql://").or_else(|| url.strip_prefix("postgres://")) else {
        draft.fault_with("it does not begin with postgresql://", "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE");
        return;
    };
    if !split(rest, draft) {
        // Where the parts begin is unknown, so to complain about each of them would be guessing.
        return;
    }
    for (part, label) in [(Part::User, "the user"), (Part::Host, "the host"), (Part::Database, "the database name")] {
        draft.require(part, label);
    }
}

/// Says whether the parts could be told apart.
fn split(rest: &str, draft: &mut Draft) -> bool {
    if rest.chars().any(|c| c.is_control() || c.is_whitespace()) {
        draft.fault_with("it contains a blank or a control character", ENCODE);
        return false;
    }
    if rest.contains('#') {
        draft.fault_with("it contains a raw '#'", ENCODE);
        return false;
    }
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, rest),
    };
    for c in ['@', '/', '?'] {
        if login.is_some_and(|login| login.contains(c)) {
            draft.fault_with(format!("it contains a raw '{c}' before the last '@', so the host is ambiguous"), ENCODE);
            return false;
        }
    }
    if let Some(login) = login {
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        put(draft, Part::User, "the user", user);
        if let Some(password) = password {
            put(draft, Part::Password, "the password", password);
        }
    }
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    split_authority(authority, draft);
    if path.contains('/') {
        draft.fault("the database name contains a raw '/'");
    } else if !path.is_empty() {
        put(draft, Part::Database, "the database name", path);
    }
    for (index, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        split_option(index + 1, pair, draft);
    }
    true
}

fn split_authority(authority: &str, draft: &mut Draft) {
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let Some((host, after)) = bracketed.split_once(']') else {
            draft.fault("the host begins with '[' and never ends");
            return;
        };
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => {
                draft.fault("something other than a port follows the ']'");
                return;
            }
        }
    } else {
        match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                draft.fault_with("the host contains several ':'", "write an IPv6 address in brackets");
                return;
            }
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    if !host.is_empty() {
        put(draft, Part::Host, "the host", host);
    }
    if let Some(port) = port {
        draft.put(Part::Port, "the port", port);
    }
}

fn split_option(number: usize, pair: &str, draft: &mut Draft) {
    let Some((name, value)) = pair.split_once('=') else {
        draft.fault(format!("query option {number} has no '='"));
        return;
    };
    if ["host", "port", "user", "password", "dbname"].contains(&name) {
        draft.fault_with(
            format!("the query option {name} is not read, since each part has one place"),
            "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
        );
        return;
    }
    let Some((known, part)) = OPTIONS.iter().find(|(known, _)| *known == name) else {
        let all = OPTIONS.map(|(known, _)| known).join(", ");
        match nearest(name) {
            Some(known) => {
                draft.fault_with(format!("query option {number} is not known"), format!("perhaps {known} was meant"));
            }
            None => draft.fault_with(format!("query option {number} is not known"), format!("known are: {all}")),
        }
        return;
    };
    if draft.has(*part) {
        draft.fault(format!("the query option {known} is given twice"));
    } else if value.contains('+') {
        draft.fault_with(
            format!("the query option {known} contains a raw '+', which some read as a blank"),
            "write %2B for '+' and %20 for a blank",
        );
    } else {
        put(draft, *part, known, value);
    }
}

fn put(draft: &mut Draft, part: Part, label: &str, encoded: &str) {
    match decode(encoded) {
        Some(value) => draft.put(part, label, value),
        None => {
            draft.fault_with(format!("{label} has a '%' that is no escape, or is not UTF-8"), ENCODE);
            // So that it does not count as missing as well.
            draft.put(part, label, "unreadable");
        }
    }
}

/// Unlike most decoders, takes no '%' for itself.
pub(super) fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let [high, low, after @ ..] = after else {
                return None;
            };
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

fn nearest(name: &str) -> Option<&'static str> {
    let (known, _) = OPTIONS.iter().min_by_key(|(known, _)| distance(name, known))?;
    (distance(name, known) <= 3 && !name.is_empty()).then_some(*known)
}

/// How many letters to insert, drop or replace.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(!x.eq_ignore_ascii_case(&y));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{RootCertificate, SslMode};
    use std::time::Duration;

    fn password(config: &ConnectionConfig) -> &str {
        config.password().unwrap().expose_secret()
    }

    #[test]
    fn hostile_values_come_back() {
        for hostile in ["p@ss/w#r?d%:& +'\"\\ é", "%41", "a\nb\t", "+", ":", "[::1]", "💩", "%"] {
            let config = ConnectionConfig::new("db.example", 6543, "d/?#@", "u@:/%é")
                .with_password(hostile.into())
                .with_tls(SslMode::VerifyFull, Some(RootCertificate::file("/a b/ca&=.crt")))
                .with_application_name("a&b=c +%é")
                .with_connect_timeout(Duration::from_secs(7))
                .with_hostaddr("::1".parse().unwrap())
                .with_option("search_path", "\"a b\", c\\d");
            let url = config.url().unwrap();
            let back = ConnectionConfig::from_url(url.expose_secret()).unwrap();
            assert_eq!(password(&back), hostile);
            assert_eq!(format!("{back:?}"), format!("{config:?}"));
            assert_eq!(back.url().unwrap().expose_secret(), url.expose_secret());
        }
    }

    #[test]
    fn good_urls() {
        let read = |url: &str| ConnectionConfig::from_url(url).unwrap();
        let plain = read("postgres://u@h/d");
        assert_eq!((plain.host(), plain.port(), plain.database(), plain.user()), ("h", 5432, "d", "u"));
        assert!(plain.password().is_none());
        assert_eq!(password(&read("postgresql://u:p:q+@h:1/d")), "p:q+");
        assert_eq!(read("postgresql://u@[::1]:1/d").host(), "::1");
        assert_eq!(read("postgresql://u@%2Frun%2Fpostgresql/d").host(), "/run/postgresql");
        let tls = read("postgresql://u@h/d?sslmode=verify-ca&sslrootcert=%2Fca&options=-c%20x.y%3D1");
        assert_eq!(tls.ssl_mode(), SslMode::VerifyCa);
        assert_eq!(tls.root_certificate().unwrap().path().unwrap().to_str(), Some("/ca"));
        assert_eq!(tls.options["x.y"], "1");
    }

    #[test]
    fn refused_urls_are_not_repeated() {
        let cases = [
            ("mysql://u:M4RKER@h/d", "postgresql://"),
            ("u:M4RKER@h/d", "postgresql://"),
            ("postgresql://u:M4RKER@x@h/d", "raw '@'"),
            ("postgresql://u:M4RKER/x@h/d", "raw '/'"),
            ("postgresql://u:M4RKER?x@h/d", "raw '?'"),
            ("postgresql://u:M4RKER#x@h/d", "raw '#'"),
            ("postgresql://u@h/d?application_name=M4RKER@x", "ambiguous"),
            ("postgresql://u:M4RKER%ss@h/d", "escape"),
            ("postgresql://u:M4RKER%@h/d", "escape"),
            ("postgresql://u:M4RKER%ff@h/d", "UTF-8"),
            ("postgresql://u:M4RKER%00@h/d", "NUL"),
            ("postgresql://u:M4RKER x@h/d", "blank"),
            ("postgresql://u:M4RKER\n@h/d", "control"),
            ("postgresql://u:@h/d", "password is empty"),
            ("postgresql://:M4RKER@h/d", "user is empty"),
            ("postgresql://h/d", "the user missing"),
            ("postgresql://u@/d", "the host missing"),
            ("postgresql://u@h", "database name missing"),
            ("postgresql://u@h/", "database name missing"),
            ("postgresql://u@h/a/b", "raw '/'"),
            ("postgresql://u@h/d%0A", "control"),
            ("postgresql://u@h:0/d", "1 to 65535"),
            ("postgresql://u@h:65536/d", "1 to 65535"),
            ("postgresql://u@h:/d", "1 to 65535"),
            ("postgresql://u@h:M4RKER/d", "1 to 65535"),
            ("postgresql://u@::1/d", "several ':'"),
            ("postgresql://u@[::1/d", "never ends"),
            ("postgresql://u@[::1]M4RKER/d", "follows"),
            ("postgresql://u@h1,h2/d", "several hosts"),
            ("postgresql://u@h/d?M4RKER", "no '='"),
            ("postgresql://u@h/d?M4RKER=1", "option 1"),
            ("postgresql://u@h/d?password=M4RKER", "one place"),
            ("postgresql://u@h/d?sslmode=M4RKER", "sslmode"),
            ("postgresql://u@h/d?sslmode=prefer", "prefer"),
            ("postgresql://u@h/d?sslmode=require&sslmode=disable", "twice"),
            ("postgresql://u@h/d?application_name=a+b", "raw '+'"),
            ("postgresql://u@h/d?connect_timeout=0", "connect_timeout"),
        ];
        for (url, expected) in cases {
            let error = ConnectionConfig::from_url(url).unwrap_err();
            assert_eq!(error.code(), "connection_invalid");
            assert!(error.to_string().contains(expected), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("M4RKER"), "{error:?}");
        }
    }

    #[test]
    fn near_misses_are_named() {
        for (wrong, right) in [("ssl_mode", "sslmode"), ("applicationname", "application_name"), ("option", "options")]
        {
            let error = ConnectionConfig::from_url(&format!("postgresql://u@h/d?{wrong}=x")).unwrap_err();
            assert_eq!(error.hint(), Some(format!("perhaps {right} was meant").as_str()));
        }
        let error = ConnectionConfig::from_url("postgresql://u@h/d?target_session_attrs=any").unwrap_err();
        assert!(error.hint().unwrap().starts_with("known are: sslmode"), "{error:?}");
    }
}
