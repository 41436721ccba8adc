//! A login for a program that stands on libpq: `psql`, `pg_dump`, `pg_restore`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;

use secrecy::SecretString;
use tempfile::NamedTempFile;

use super::ConnectionConfig;
use crate::error::{Error, Result};

/// The environment of such a program. To be kept until it has ended, as it may log in again.
pub struct LibpqEnvironment {
    variables: BTreeMap<&'static str, SecretString>,
    /// The root certificate, which libpq takes from a file only.
    _certificate: Option<NamedTempFile>,
}

impl ConnectionConfig {
    /// The login in the variables that libpq reads, as everybody may read the arguments of a process. A root certificate that is
    /// in no file is written into one.
    ///
    /// # Errors
    /// As [`Self::environ`], and when that file cannot be written.
    pub fn libpq_environment(&self) -> Result<LibpqEnvironment> {
        let inline = self.root_certificate().filter(|root| root.path().is_none());
        let (config, certificate) = match inline {
            None => (self.clone(), None),
            Some(root) => {
                let failed = |error| Error::from_io("cannot write the server's root certificate to a file", error);
                let mut file = NamedTempFile::with_prefix("shareddb-ca-").map_err(failed)?;
                file.write_all(root.text()?.as_bytes()).map_err(failed)?;
                let root = root.clone().with_path(file.path());
                (self.clone().with_tls(self.ssl_mode(), Some(root)), Some(file))
            }
        };
        let mut variables = config.environ()?;
        if !config.admits_clear_password() {
            // As for our own logins. A libpq before 16 does not know it.
            variables.insert("PGREQUIREAUTH", "!password".into());
        }
        Ok(LibpqEnvironment { variables, _certificate: certificate })
    }
}

impl LibpqEnvironment {
    /// Names and values. A program should inherit no other `PG…` variable: libpq would mix them in.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &SecretString)> {
        self.variables.iter().map(|(name, value)| (*name, value))
    }
}

impl fmt::Debug for LibpqEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::connection::{RootCertificate, SslMode};

    #[test]
    fn a_certificate_in_no_file_gets_one_that_goes_with_it() {
        let root = RootCertificate::pem("-----BEGIN CERTIFICATE-----");
        let config = ConnectionConfig::new("h", 1, "d", "u").with_password("m4rker".into());
        let environment = config.with_tls(SslMode::VerifyFull, Some(root)).libpq_environment().unwrap();
        let of = |name: &str| environment.variables().find(|(other, _)| *other == name).map(|(_, value)| value);
        let path = of("PGSSLROOTCERT").unwrap().expose_secret().to_owned();
        assert_eq!(fs::read_to_string(&path).unwrap(), "-----BEGIN CERTIFICATE-----");
        assert!(of("PGREQUIREAUTH").is_none(), "whoever shows who it is may ask for it");
        assert!(!format!("{environment:?}").contains("m4rker"));
        drop(environment);
        assert!(!fs::exists(path).unwrap());
    }

    #[test]
    fn nobody_unknown_may_ask_for_the_password_in_clear_text() {
        let environment = ConnectionConfig::new("h", 1, "d", "u").libpq_environment().unwrap();
        assert!(
            environment
                .variables()
                .any(|(name, value)| name == "PGREQUIREAUTH" && value.expose_secret() == "!password")
        );
    }
}
