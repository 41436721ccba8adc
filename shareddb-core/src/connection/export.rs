//! Names and values written for a shell, a dotenv file, or a program that reads JSON.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::ConnectionConfig;
use crate::error::Result;

/// How variables are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Export {
    /// `NAME=value` as dotenv files have it: bare where every reader takes it so, else in double quotes.
    Dotenv,
    /// `export NAME='value'` for a POSIX shell.
    Shell,
    /// One JSON object.
    Json,
}

impl Export {
    /// Writes names and values, newline at the end.
    ///
    /// ```
    /// use secrecy::ExposeSecret;
    /// use shareddb_core::Export;
    ///
    /// let text = Export::Dotenv.write([("DB_HOST", "db.example"), ("DB_PASSWORD", "a b")]);
    /// assert_eq!(text.expose_secret(), "DB_HOST=db.example\nDB_PASSWORD=\"a b\"\n");
    /// ```
    pub fn write<'a>(self, variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> SecretString {
        match self {
            Self::Dotenv => {
                let line = |(name, value)| format!("{name}={}\n", dotenv(value));
                variables.into_iter().map(line).collect::<String>().into()
            }
            Self::Shell => shell(variables),
            Self::Json => {
                let object = variables.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
                format!("{:#}\n", Value::Object(object)).into()
            }
        }
    }
}

impl ConnectionConfig {
    /// libpq's variables, `PGHOST` and so on, written so that something else reads them; `PGPASSWORD` among them.
    ///
    /// # Errors
    ///
    /// As [`Self::environ`].
    pub fn export(&self, form: Export) -> Result<SecretString> {
        let variables: BTreeMap<&str, SecretString> = self.environ()?;
        Ok(form.write(variables.iter().map(|(name, value)| (*name, value.expose_secret()))))
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

fn dotenv(value: &str) -> String {
    if value.chars().all(|c| c.is_ascii_alphanumeric() || "_-.,:/@%+=".contains(c)) {
        return value.to_owned();
    }
    let mut quoted = String::from('"');
    for c in value.chars() {
        match c {
            '\\' | '"' | '$' | '`' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn dotenv_values_are_quoted_when_they_need_it() {
        assert_eq!(dotenv("postgresql://u:p%40@127.0.0.1:5432/d"), "postgresql://u:p%40@127.0.0.1:5432/d");
        assert_eq!(dotenv(""), "");
        assert_eq!(dotenv("a b"), "\"a b\"");
        assert_eq!(dotenv("a#b"), "\"a#b\"");
        assert_eq!(dotenv("p$x\"y\\z`\n"), r#""p\$x\"y\\z\`\n""#);
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
