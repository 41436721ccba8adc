//! A config that is read again: what stays, and whether anything has changed.

use secrecy::ExposeSecret as _;

use super::ConnectionConfig;

impl ConnectionConfig {
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
    pub(crate) fn has_options(&self) -> bool {
        !self.options.is_empty()
    }
}
