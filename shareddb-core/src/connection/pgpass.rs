//! A line of libpq's password file.

use secrecy::{ExposeSecret as _, SecretString};

use super::ConnectionConfig;
use super::dialect::inexpressible;
use crate::error::Result;

const PGPASS: &str = "a password file";
/// Where libpq looks for a socket unless told, as Debian builds it and as it comes.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

impl ConnectionConfig {
    /// A line of libpq's password file (`~/.pgpass`, `PGPASSFILE`), newline at the end: `host:port:database:user:password`.
    /// For the socket in `/var/run/postgresql` or `/tmp` a second one, since the one or the other is `localhost` to libpq, as
    /// it was built. asyncpg, which has a reader of its own, calls every folder `localhost`, and takes an escaped colon or
    /// backslash for two letters.
    ///
    /// Such a file has to be closed to everybody else (0600), which a mounted Secret with an `fsGroup` is not; there
    /// [`Self::service_section`] does. What is no part of the login is not in it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`](crate::Error::InvalidInput) when a value is invalid, when there is no password, and for a
    /// line break in a value.
    pub fn pgpass(&self) -> Result<SecretString> {
        self.check()?;
        let Some(password) = &self.password else {
            return Err(inexpressible(PGPASS, "a login without a password", "set one, or leave the file alone"));
        };
        let port = self.port.to_string();
        let mut lines = String::new();
        let local = SOCKET_FOLDERS.contains(&self.host.as_str()).then_some("localhost");
        for host in [self.host.as_str()].into_iter().chain(local) {
            let fields = [
                ("host", host),
                ("port", &port),
                ("dbname", &self.database),
                ("user", &self.user),
                ("password", password.expose_secret()),
            ];
            let mut words = Vec::new();
            for (keyword, value) in fields {
                if value.contains(['\n', '\r']) {
                    return Err(inexpressible(PGPASS, keyword, "choose a value without line breaks"));
                }
                words.push(escape(value));
            }
            lines.push_str(&(words.join(":") + "\n"));
        }
        Ok(lines.into())
    }
}

/// A lone asterisk would stand for everything.
fn escape(value: &str) -> String {
    match value {
        "*" => r"\*".to_owned(),
        value => value.replace('\\', r"\\").replace(':', r"\:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parts_the_fields_is_escaped() {
        let config = ConnectionConfig::new("::1", 1, "*", r"a\b").with_password("p:\\*#".into());
        assert_eq!(config.pgpass().unwrap().expose_secret(), "\\:\\:1:1:\\*:a\\\\b:p\\:\\\\*#\n");
    }

    #[test]
    fn libpq_calls_its_own_socket_folder_localhost() {
        for folder in ["/var/run/postgresql", "/tmp"] {
            let config = ConnectionConfig::new(folder, 1, "d", "u").with_password("p".into());
            assert_eq!(config.pgpass().unwrap().expose_secret(), &format!("{folder}:1:d:u:p\nlocalhost:1:d:u:p\n"));
        }
        let other = ConnectionConfig::new("/run/x", 1, "d", "u").with_password("p".into());
        assert_eq!(other.pgpass().unwrap().expose_secret(), "/run/x:1:d:u:p\n");
    }

    #[test]
    fn what_such_a_line_cannot_hold() {
        let config = ConnectionConfig::new("h", 1, "d", "u");
        for (config, field) in
            [(config.clone(), "without a password"), (config.with_password("m4rker\n".into()), "password")]
        {
            let error = config.pgpass().unwrap_err();
            assert_eq!(error.code(), "not_expressible");
            assert!(error.to_string().ends_with(field) && !format!("{error:?}").contains("m4rker"), "{error}");
        }
    }
}
