//! A config that is read again: what stays, and whether anything has changed.

use secrecy::ExposeSecret as _;

use super::ConnectionConfig;
use super::draft::Part;
use crate::error::Result;

impl ConnectionConfig {
    /// What is by now in the folder that this was read from, for pools of other libraries. Name, address, limit and options
    /// stay where they were set in code. `None` when that is what it has, and where it came from no folder: see
    /// [`Self::source_directory`].
    ///
    /// # Errors
    /// As [`Self::from_directory`].
    pub fn renewed(&self) -> Result<Option<Self>> {
        let Some(directory) = self.source_directory() else { return Ok(None) };
        let read = Self::from_directory(directory)?.with_manners_of(self);
        Ok((!read.is_same_login(self)).then_some(read))
    }

    /// Whether both log in to the same database over the same way, as the same user with the same password and settings.
    pub(crate) fn is_same_login(&self, other: &Self) -> bool {
        let password = |config: &Self| config.password.as_ref().map(|password| password.expose_secret().to_owned());
        let root = |config: &Self| config.root_certificate.as_ref().and_then(|root| root.text().ok());
        self.differences(other).is_empty()
            && self.hostaddr == other.hostaddr
            && self.user == other.user
            && self.options == other.options
            && self.application_name == other.application_name
            && self.connect_timeout == other.connect_timeout
            && self.ssl_mode == other.ssl_mode
            && password(self) == password(other)
            && root(self) == root(other)
    }

    /// With what belongs to this program and not to the login: address, name, limit and settings that were set in code.
    pub(crate) fn with_manners_of(mut self, other: &Self) -> Self {
        let code = &other.provenance;
        if code.is_code(Part::HostAddr) {
            self.hostaddr = other.hostaddr;
            self.provenance.set_in_code(Part::HostAddr);
        }
        if code.is_code(Part::ApplicationName) {
            self.application_name.clone_from(&other.application_name);
            self.provenance.set_in_code(Part::ApplicationName);
        }
        if code.is_code(Part::ConnectTimeout) {
            self.connect_timeout = other.connect_timeout;
            self.provenance.set_in_code(Part::ConnectTimeout);
        }
        let options = code.options().filter_map(|name| other.options.get_key_value(name));
        options.fold(self, |config, (name, value)| config.with_option(name, value))
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

    #[test]
    fn what_code_has_set_stays_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let write = |place: &str, query: &str| {
            std::fs::write(folder.path().join("uri"), format!("postgresql://u:p@{place}/d?{query}")).unwrap();
        };
        let settings = |path: &str| format!("options=-c%20search_path%3D{path}%20-c%20work_mem%3D1MB");
        let option = |config: &ConnectionConfig, name: &str| config.options.get(name).cloned();
        write("h", &format!("hostaddr=10.0.0.1&application_name=theirs&{}", settings("old")));
        let read = ConnectionConfig::from_directory(folder.path()).unwrap();
        let config = read.clone().with_option("work_mem", "2MB").with_option("jit", "off");
        let named = config.clone().with_application_name("ours");

        write("h2", &format!("hostaddr=10.0.0.2&{}", settings("new")));
        let renewed = named.renewed().unwrap().unwrap();
        assert_eq!((renewed.host(), renewed.hostaddr()), ("h2", Some("10.0.0.2".parse().unwrap())));
        assert_eq!(renewed.application_name(), Some("ours"));
        assert_eq!(config.renewed().unwrap().unwrap().application_name(), None);
        for (name, value) in [("search_path", "new"), ("work_mem", "2MB"), ("jit", "off")] {
            assert_eq!(option(&renewed, name).as_deref(), Some(value), "{name}");
        }
        assert!(renewed.renewed().unwrap().is_none());

        // An address or a setting alone is a change as well, and what code has set still is.
        write("h2", &format!("hostaddr=10.0.0.3&{}", settings("new")));
        let renewed = renewed.renewed().unwrap().unwrap();
        assert_eq!(renewed.hostaddr(), Some("10.0.0.3".parse().unwrap()));
        write("h2", "hostaddr=10.0.0.3");
        let renewed = renewed.renewed().unwrap().unwrap();
        assert_eq!((option(&renewed, "search_path"), option(&renewed, "jit").as_deref()), (None, Some("off")));
        assert_eq!(renewed.application_name(), Some("ours"));

        let tunnelled = renewed.clone().with_hostaddr("127.0.0.1".parse().unwrap());
        let looked_up = renewed.without_hostaddr();
        write("h3", "hostaddr=10.0.0.4&connect_timeout=3");
        assert_eq!(tunnelled.renewed().unwrap().unwrap().hostaddr(), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(looked_up.renewed().unwrap().unwrap().hostaddr(), None);
        assert_eq!(looked_up.renewed().unwrap().unwrap().connect_timeout().as_secs(), 3);
    }
}
