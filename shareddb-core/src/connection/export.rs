//! Names and values written for a shell, a dotenv file, or a program that reads JSON.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::ConnectionConfig;
use super::dialect::inexpressible;
use crate::error::Result;

/// How variables are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Export {
    /// `NAME=value` as dotenv files have it: bare, in single or in double quotes, as python-dotenv, dotenv of Node.js, Docker
    /// Compose and a POSIX shell all read it. What they do not read alike is refused.
    Dotenv,
    /// `export NAME='value'` for a POSIX shell.
    Shell,
    /// One JSON object.
    Json,
}

impl Export {
    /// Writes names and values, newline at the end.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) for a value that readers of dotenv files do not agree about in any
    /// quotes, such as one with `${` or with both kinds of them.
    ///
    /// ```
    /// use secrecy::ExposeSecret;
    /// use shareddb_core::Export;
    ///
    /// let text = Export::Dotenv.write([("DB_HOST", "db.example"), ("DB_PASSWORD", "a b")])?;
    /// assert_eq!(text.expose_secret(), "DB_HOST=db.example\nDB_PASSWORD='a b'\n");
    /// # Ok::<(), shareddb_core::Error>(())
    /// ```
    pub fn write<'a>(self, variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<SecretString> {
        Ok(match self {
            Self::Dotenv => {
                let line = |(name, value)| match dotenv(value) {
                    Some(word) => Ok(format!("{name}={word}\n")),
                    None => Err(inexpressible("a dotenv file", name, "write it for a shell or as JSON")),
                };
                variables.into_iter().map(line).collect::<Result<String>>()?.into()
            }
            Self::Shell => shell(variables),
            Self::Json => {
                let object = variables.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
                format!("{:#}\n", Value::Object(object)).into()
            }
        })
    }
}

impl ConnectionConfig {
    /// libpq's variables, `PGHOST` and so on, written so that something else reads them; `PGPASSWORD` among them.
    ///
    /// # Errors
    ///
    /// As [`Self::environ`] and [`Export::write`].
    pub fn export(&self, form: Export) -> Result<SecretString> {
        let variables: BTreeMap<&str, SecretString> = self.environ()?;
        form.write(variables.iter().map(|(name, value)| (*name, value.expose_secret())))
    }
}

pub(super) fn shell<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> SecretString {
    let line = |(name, value)| format!("export {name}={}\n", word(value));
    variables.into_iter().map(line).collect::<String>().into()
}

/// One word of a POSIX shell.
pub(super) fn word(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// `None` where readers differ.
fn dotenv(value: &str) -> Option<String> {
    let has = |bad: &[char]| value.contains(bad);
    if value.chars().all(|c| c.is_ascii_alphanumeric() || "_-.,:/@%+=".contains(c)) {
        return Some(value.to_owned());
    }
    // python-dotenv fills in variables in any quotes, and takes one of two backslashes; others see an escaped quote at the end.
    let lone = !value.contains(r"\\") && !value.ends_with('\\');
    if lone && !value.contains("${") && !has(&['\'', '\r', '\0']) {
        return Some(format!("'{value}'"));
    }
    (!has(&['"', '\\', '$', '`', '\r', '\0'])).then(|| format!("\"{value}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn dotenv_values_are_quoted_when_they_need_it() {
        let written = |value| dotenv(value).unwrap();
        assert_eq!(written("postgresql://u:p%40@127.0.0.1:5432/d"), "postgresql://u:p%40@127.0.0.1:5432/d");
        assert_eq!(written(""), "");
        assert_eq!(written("a b"), "'a b'");
        assert_eq!(written("a#b"), "'a#b'");
        assert_eq!(written("p$x\"y\\z`\n"), "'p$x\"y\\z`\n'");
        assert_eq!(written("it's"), "\"it's\"");
        for value in ["${HOME}", r"a\\b", r"a b\", "it's $x", "'\"", "'`", "a\r", "'${x}'"] {
            assert_eq!(dotenv(value), None, "{value}");
        }
        let error = Export::Dotenv.write([("DB_PASSWORD", "m4rker ${x}")]).unwrap_err();
        assert_eq!(error.code(), "not_expressible");
        assert!(error.to_string().ends_with("DB_PASSWORD") && !format!("{error:?}").contains("m4rker"), "{error}");
    }

    #[test]
    fn a_shell_reads_back_what_was_exported() {
        let hostile = "$(id) `id` \\ \" it's\na";
        let config = ConnectionConfig::new("h", 1, "d", "u").with_password(hostile.into());
        let script = format!("{}printf %s \"$PGPASSWORD\"", config.export(Export::Shell).unwrap().expose_secret());
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), hostile);
        let json: Value = serde_json::from_str(config.export(Export::Json).unwrap().expose_secret()).unwrap();
        assert_eq!((json["PGPASSWORD"].as_str(), json["PGPORT"].as_str()), (Some(hostile), Some("1")));
    }
}
