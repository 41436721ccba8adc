//! A config that is read again: what stays, and whether anything has changed.

use secrecy::ExposeSecret as _;

use super::ConnectionConfig;
use crate::error::Result;

impl ConnectionConfig {
    /// The same connection with the login that is by now in the folder that it was read from, for pools of other libraries;
    /// name, address, limit and options stay. `None` when that is the login it has, and where it came from no folder: see
    /// [`Self::source_directory`].
    ///
    /// # Errors
    /// As [`Self::from_directory`].
    pub fn renewed(&self) -> Result<Option<Self>> {
        let Some(directory) = self.source_directory() else { return Ok(None) };
        let read = Self::from_directory(directory)?;
        Ok((!read.is_same_login(self)).then(|| read.with_manners_of(self)))
    }

    /// Whether both log in to the same database as the same user with the same password.
    pub(crate) fn is_same_login(&self, other: &Self) -> bool {
        let password = |config: &Self| config.password.as_ref().map(|password| password.expose_secret().to_owned());
        let root = |config: &Self| config.root_certificate.as_ref().and_then(|root| root.text().ok());
        self.differences(other).is_empty()
            && self.user == other.user
            && self.ssl_mode == other.ssl_mode
            && password(self) == password(other)
            && root(self) == root(other)
    }

    /// With what belongs to this program and not to the login: address, name, limit, settings.
    pub(crate) fn with_manners_of(mut self, other: &Self) -> Self {
        self.hostaddr = other.hostaddr.or(self.hostaddr);
        self.application_name = other.application_name.clone().or(self.application_name);
        self.connect_timeout = other.connect_timeout.or(self.connect_timeout);
        self.options.extend(other.options.clone());
        self
    }

    /// Whether settings of the server are sent with the login, which a pooler would refuse.
    #[cfg(feature = "pool")]
    pub(crate) fn has_options(&self) -> bool {
        !self.options.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_login_in_the_folder_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, value: &str| std::fs::write(folder.path().join(name), value).unwrap();
        for (name, value) in
            [("DB_HOST", "h"), ("DB_PORT", "1"), ("DB_NAME", "d"), ("DB_USER", "u"), ("DB_PASSWORD", "one")]
        {
            write(name, value);
        }
        let config = ConnectionConfig::from_directory(folder.path()).unwrap().with_application_name("worker");
        assert!(config.renewed().unwrap().is_none());
        write("DB_USER", "u_2");
        write("DB_PASSWORD", "two");
        let renewed = config.renewed().unwrap().unwrap();
        assert_eq!((renewed.user(), renewed.application_name()), ("u_2", Some("worker")));
        assert_eq!(renewed.password().unwrap().expose_secret(), "two");
        assert!(renewed.renewed().unwrap().is_none());
        std::fs::remove_file(folder.path().join("DB_USER")).unwrap();
        assert!(renewed.renewed().is_err());
        assert!(ConnectionConfig::new("h", 1, "d", "u").renewed().unwrap().is_none());
    }
}
