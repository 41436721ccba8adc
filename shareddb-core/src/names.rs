//! Names that are safe by construction.
//!
//! Each type here is text that passed its grammar, so that nothing further on has to ask. What is chosen here is ASCII: two
//! names that look alike are alike. What exists already may have any printable name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An app name may have this many bytes; every name derived from it then fits PostgreSQL's 63.
pub(crate) const APP_NAME_MAX: usize = 40;
/// PostgreSQL cuts identifiers after this many bytes.
pub(crate) const IDENTIFIER_MAX: usize = 63;
/// A login leaves room for the suffix of the second slot.
pub(crate) const LOGIN_NAME_MAX: usize = IDENTIFIER_MAX - SECOND_SLOT_SUFFIX.len();
pub(crate) const SECOND_SLOT_SUFFIX: &str = "_2";

const RESERVED: [&str; 8] =
    ["pg", "public", "postgres", "template0", "template1", "information_schema", "none", "current_user"];
/// What means more than one database or user in pg_hba.conf.
const ACCESS_WORDS: [&str; 5] = ["all", "replication", "samegroup", "samerole", "sameuser"];
const RESERVED_PREFIXES: [&str; 2] = ["pg_", "shareddb"];

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $parse:expr) => {
        name_type! { $(#[$doc])* $name, $parse, |text| text.parse::<$name>().map(drop) }
    };
    // The names of what may have been made by hand: what is chosen has the first grammar, what exists the second.
    ($(#[$doc:meta])* $name:ident, $parse:expr, existing $existing:expr) => {
        name_type! { $(#[$doc])* $name, $parse, $existing }

        impl $name {
            /// The name of something that exists, for an app that was made by hand: any printable text, as long as it is
            /// no reserved word.
            ///
            /// # Errors
            /// `InvalidInput` when it is empty, too long, reserved, or holds what cannot be printed.
            pub fn existing(text: &str) -> Result<Self> {
                Self::try_from(text.to_owned())
            }
        }
    };
    ($(#[$doc:meta])* $name:ident, $parse:expr, $recorded:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                let check: fn(&str) -> Result<()> = $parse;
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                let check: fn(&str) -> Result<()> = $recorded;
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type! {
    /// An application's name: a lower-case RFC 1123 label that starts with a letter, at most 40 bytes.
    ///
    /// ```
    /// use shareddb_core::AppName;
    /// assert!("my-app".parse::<AppName>().is_ok());
    /// assert!("My_App".parse::<AppName>().is_err());
    /// ```
    AppName, |text| {
        check_label(text, "app name", APP_NAME_MAX)?;
        check_reserved("app name", text)
    }
}

name_type! {
    /// A database's name, which is also its owner role's: `[a-z][a-z0-9_]*`, at most 63 bytes.
    DatabaseName, |text| {
        check(text, "database name", IDENTIFIER_MAX, '_')?;
        check_whole("database name", text)
    }, existing |text| {
        check_printable(text, "database name")?;
        check_whole("database name", text)
    }
}

name_type! {
    /// The name of the first login slot: `[a-z][a-z0-9_]*`, at most 61 bytes.
    LoginName, |text| {
        check(text, "user name", LOGIN_NAME_MAX, '_')?;
        check_whole("user name", text)
    }, existing |text| {
        check_printable(text, "user name")?;
        check_whole("user name", text)
    }
}

name_type! {
    /// A role of ours, whichever its purpose: `[a-z][a-z0-9_]*`, at most 63 bytes.
    RoleName, |text| check(text, "role name", IDENTIFIER_MAX, '_'),
    existing |text| check_printable(text, "role name")
}

name_type! {
    /// A schema on a search path: `_?[a-z][a-z0-9_]*`, at most 63 bytes.
    SchemaName, |text| {
        let rest = text.strip_prefix('_').filter(|rest| !rest.is_empty());
        check(rest.unwrap_or(text), "schema name", IDENTIFIER_MAX - usize::from(rest.is_some()), '_')
    }, existing |text| check_printable(text, "schema name")
}

name_type! {
    /// An extension's name as `pg_available_extensions` has it.
    ExtensionName, |text| {
        check_with(text, "extension name", IDENTIFIER_MAX, &['_', '-'])
    }
}

name_type! {
    /// The name of a Secret: a lower-case DNS label, at most 63 bytes.
    SecretName, |text| check_label(text, "Secret name", IDENTIFIER_MAX)
}

name_type! {
    /// The name of an environment, such as `production`: a lower-case DNS label, at most 63 bytes.
    EnvironmentName, |text| check_label(text, "environment name", IDENTIFIER_MAX)
}

name_type! {
    /// A Kubernetes namespace: an RFC 1123 label, which may start with a digit, at most 63 bytes.
    NamespaceName, |text| {
        // As other labels, except that a digit may come first.
        let rest = text.strip_prefix(|c: char| c.is_ascii_digit()).map(|rest| format!("a{rest}"));
        check_label(rest.as_deref().unwrap_or(text), "namespace", IDENTIFIER_MAX).map_err(|_| {
            invalid("namespace", text, "only a to z, 0 to 9 and, in between, '-' are allowed, at most 63 bytes")
        })
    }
}

name_type! {
    /// The name of a server setting that an app may have for itself, such as `work_mem` or `app.tenant`.
    SettingName, |text| {
        for part in text.split('.') {
            check(part, "setting name", IDENTIFIER_MAX, '_')?;
        }
        if MANAGED_SETTINGS.contains(&text) || text.ends_with("_preload_libraries") {
            return Err(invalid("setting name", text, "shareddb sets this one itself, or it would lock the app out"));
        }
        Ok(())
    }
}

const MANAGED_SETTINGS: [&str; 7] = [
    "role",
    "session_authorization",
    "search_path",
    "is_superuser",
    "transaction_isolation",
    "transaction_read_only",
    "transaction_deferrable",
];

/// A DNS label that starts with a letter.
fn check_label(text: &str, what: &str, max: usize) -> Result<()> {
    check(text, what, max, '-')?;
    if text.ends_with('-') { Err(invalid(what, text, "it ends with a hyphen")) } else { Ok(()) }
}

fn check(text: &str, what: &str, max: usize, joiner: char) -> Result<()> {
    check_with(text, what, max, &[joiner])
}

fn check_with(text: &str, what: &str, max: usize, joiners: &[char]) -> Result<()> {
    let fault = |reason: &str| Err(invalid(what, text, reason));
    let Some(first) = text.chars().next() else {
        return fault("it is empty");
    };
    if text.len() > max {
        return fault(&format!("it has {} bytes, at most {max} are allowed", text.len()));
    }
    if !first.is_ascii_lowercase() {
        return fault("it must start with a letter from a to z");
    }
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || joiners.contains(&c);
    match text.chars().find(|c| !allowed(*c)) {
        Some(c) => {
            let joiners: Vec<String> = joiners.iter().map(|joiner| format!("{joiner:?}")).collect();
            fault(&format!("{c:?} is not allowed: only a to z, 0 to 9 and {}", joiners.join(" and ")))
        }
        None => Ok(()),
    }
}

/// What somebody else has named, as long as it can be shown and quoted.
fn check_printable(text: &str, what: &str) -> Result<()> {
    let unseen = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if text.is_empty() || text.len() > IDENTIFIER_MAX {
        let length = text.len();
        return Err(invalid(what, text, &format!("it has {length} bytes, 1 to {IDENTIFIER_MAX} are possible")));
    }
    match text.chars().find(|c| unseen(*c)) {
        Some(c) => Err(invalid(what, text, &format!("{c:?} cannot be printed"))),
        None => Ok(()),
    }
}

fn check_reserved(what: &str, text: &str) -> Result<()> {
    let sql = text.replace('-', "_");
    if RESERVED.contains(&sql.as_str()) {
        return Err(invalid(what, text, "this name is reserved"));
    }
    match RESERVED_PREFIXES.iter().find(|prefix| sql.starts_with(**prefix)) {
        Some(prefix) => Err(invalid(what, text, &format!("names that start with {prefix:?} are reserved"))),
        None => Ok(()),
    }
}

/// As [`check_reserved`], for what is a name as it stands, and no part of one.
fn check_whole(what: &str, text: &str) -> Result<()> {
    check_reserved(what, text)?;
    if ACCESS_WORDS.contains(&text) {
        Err(invalid(what, text, "pg_hba.conf has another meaning for it"))
    } else {
        Ok(())
    }
}

fn invalid(what: &str, text: &str, reason: &str) -> Error {
    let example = match what {
        "app name" => "my-app",
        "environment name" => "production",
        "setting name" => "work_mem",
        "extension name" => "pg_trgm",
        "schema name" => "my_app",
        "Secret name" => "my-app-db-secret",
        "namespace" => "production",
        _ => "my_app_prod",
    };
    Error::invalid_input("name_invalid", format!("{what} {} is not valid: {reason}", quoted(text)))
        .with_hint(format!("a good {what} looks like {example:?}"))
}

/// Shows hostile text without letting it act on a terminal, cut to a readable length.
fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let head: String = text.chars().take(SHOWN).collect();
    let more = if head.len() < text.len() { "…" } else { "" };
    format!("\"{}{more}\"", head.escape_default())
}

/// A setting's value as plans and reports show it. A name of two parts is an extension's or anybody's, so that what it
/// holds can be a password.
pub(crate) fn shown_value<'a>(setting: &str, value: &'a str) -> Option<&'a str> {
    (!setting.contains('.')).then_some(value)
}

impl SettingName {
    /// Whether what it is set to is not shown: a name of two parts is an extension's or anybody's.
    pub fn may_hold_a_secret(&self) -> bool {
        shown_value(self.as_str(), "").is_none()
    }
}

/// What stands for a value that is not shown.
pub(crate) const HIDDEN: &str = "…";

impl DatabaseName {
    /// That of a database beside an app's own, which has a name that nobody may choose.
    pub(crate) fn of_copy(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_app_names() {
        for name in ["a", "my-app", "select", "user", "a1-2", &"a".repeat(APP_NAME_MAX)] {
            assert!(name.parse::<AppName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn hostile_app_names() {
        let long = "a".repeat(APP_NAME_MAX + 1);
        let hostile = [
            "",
            "-a",
            "a-",
            "1a",
            "A",
            "my_app",
            "a b",
            "a;drop",
            "a'b",
            "a\"b",
            "../a",
            "a/b",
            "a.b",
            "dbname=x",
            "postgresql://h/d",
            "\u{430}pp",
            "a\u{202e}b",
            "a\0",
            "a\n",
            "pg-x",
            "shareddb",
            "shareddb-x",
            "public",
            "postgres",
            "template0",
            "template1",
            "information-schema",
            "none",
            "current-user",
            "--help",
            &long,
        ];
        for name in hostile {
            let error = name.parse::<AppName>().unwrap_err();
            assert_eq!(error.code(), "name_invalid", "{name}");
            assert!(error.hint().is_some());
            assert!(error.to_string().is_ascii() || name.len() > 80, "{error}");
        }
    }

    #[test]
    fn lengths_count_bytes() {
        assert!("d".repeat(63).parse::<DatabaseName>().is_ok());
        assert!("d".repeat(64).parse::<DatabaseName>().is_err());
        assert!("u".repeat(61).parse::<LoginName>().is_ok());
        assert!("u".repeat(62).parse::<LoginName>().is_err());
    }

    #[test]
    fn settings_that_would_break_the_model_are_refused() {
        for name in ["role", "search_path", "local_preload_libraries", "session_authorization", "work_mem; x", ""] {
            assert!(name.parse::<SettingName>().is_err(), "{name}");
        }
        for name in ["work_mem", "statement_timeout", "app.tenant"] {
            assert!(name.parse::<SettingName>().is_ok(), "{name}");
        }
    }

    #[test]
    fn extensions_keep_their_hyphens() {
        assert_eq!("uuid-ossp".parse::<ExtensionName>().unwrap().as_str(), "uuid-ossp");
        let error = "uuid-ossp\"".parse::<ExtensionName>().unwrap_err().to_string();
        assert!(error.contains("uuid-ossp"), "{error}");
    }

    #[test]
    fn namespaces_may_start_with_a_digit() {
        for good in ["a", "7", "2-b", "production", &"1".repeat(63)] {
            assert!(good.parse::<NamespaceName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "1-", "A", "a_b", "a/b", &"1".repeat(64)] {
            assert_eq!(bad.parse::<NamespaceName>().unwrap_err().code(), "name_invalid", "{bad}");
        }
    }

    #[test]
    fn labels_end_with_a_letter_or_a_digit() {
        assert!("a-1".parse::<SecretName>().is_ok() && "a-b".parse::<EnvironmentName>().is_ok());
        assert!("a-".parse::<SecretName>().is_err());
        assert!("a-".parse::<EnvironmentName>().is_err());
    }

    #[test]
    fn what_exists_may_have_any_name_that_can_be_shown() {
        for name in ["MyApp", "app-user", "a\"b", "a'b", "größe", "1", &"x".repeat(63)] {
            assert!(DatabaseName::existing(name).is_ok() && LoginName::existing(name).is_ok(), "{name}");
            assert!(name.len() == 63 || name.parse::<LoginName>().is_err(), "{name}");
        }
        for name in ["", "a\nb", "a\u{202e}b", "postgres", "pg_x", "shareddb", "all", &"x".repeat(64)] {
            assert!(DatabaseName::existing(name).is_err() && LoginName::existing(name).is_err(), "{name}");
        }
        let recorded: LoginName = serde_json::from_str("\"app-user\"").unwrap();
        assert_eq!(recorded.as_str(), "app-user");
        assert!(serde_json::from_str::<AppName>("\"My_App\"").is_err());
    }

    #[test]
    fn words_of_access_rules_are_names_of_apps_only() {
        for word in ACCESS_WORDS {
            assert!(word.parse::<AppName>().is_ok(), "{word}");
            assert!(word.parse::<DatabaseName>().is_err() && word.parse::<LoginName>().is_err(), "{word}");
        }
    }
}
