//! A command line for psql, without its secrets.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

use super::ConnectionConfig;
use super::dialect::quoted;
use super::export;
use crate::error::Result;

/// How to start psql. Its `Display` is the command line for a shell, in which neither the password nor a setting of the
/// server is, which may be a secret as well: everybody may read the arguments of a process.
#[derive(Clone)]
pub struct PsqlCommand {
    conninfo: String,
    environment: BTreeMap<&'static str, SecretString>,
}

impl ConnectionConfig {
    /// psql's argument and environment for this login.
    ///
    /// # Errors
    ///
    /// As [`Self::url`].
    pub fn psql(&self) -> Result<PsqlCommand> {
        let (secret, open): (Vec<_>, Vec<_>) =
            self.keywords()?.into_iter().partition(|(keyword, _)| ["password", "options"].contains(keyword));
        let variable = |keyword| if keyword == "password" { "PGPASSWORD" } else { "PGOPTIONS" };
        Ok(PsqlCommand {
            conninfo: quoted(&open),
            environment: secret.into_iter().map(|(keyword, value)| (variable(keyword), value)).collect(),
        })
    }
}

impl PsqlCommand {
    /// The arguments after `psql`; the first of those that somebody adds comes after them.
    pub fn arguments(&self) -> [&str; 1] {
        [&self.conninfo]
    }

    /// What psql needs in its environment: `PGPASSWORD` and `PGOPTIONS`. It should inherit no other `PG…` variable.
    pub fn environment(&self) -> &BTreeMap<&'static str, SecretString> {
        &self.environment
    }

    /// The variables as lines for a shell, secrets included.
    pub fn exports(&self) -> SecretString {
        export::shell(self.environment.iter().map(|(name, value)| (*name, value.expose_secret())))
    }
}

impl fmt::Display for PsqlCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "psql {}", export::word(&self.conninfo))
    }
}

impl fmt::Debug for PsqlCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PsqlCommand").field(&self.conninfo).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_no_argument() {
        let config = ConnectionConfig::new("h", 1, "it's", "u").with_password("m4r'ker".into());
        let command = config.psql().unwrap();
        assert_eq!(command.arguments(), [r"host='h' port='1' dbname='it\'s' user='u'"]);
        assert_eq!(command.to_string(), r"psql 'host='\''h'\'' port='\''1'\'' dbname='\''it\'\''s'\'' user='\''u'\'''");
        assert!(!format!("{command} {command:?}").contains("m4r"));
        assert_eq!(command.exports().expose_secret(), "export PGPASSWORD='m4r'\\''ker'\n");
        assert_eq!(command.environment()["PGPASSWORD"].expose_secret(), "m4r'ker");
    }
}
