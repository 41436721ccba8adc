//! What a caller says beside the four things that a connection needs.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use shareddb_core::{ConnectionConfig, Error, Result, RootCertificate, SslMode};

use crate::dialects::chosen;
use crate::names::Words;
use crate::whole::Whole;

const MODES: [SslMode; 4] = [SslMode::Disable, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull];

/// Python's named arguments, one for one; what was left out stays as it is.
#[derive(Default)]
pub(crate) struct Changes<'a> {
    pub(crate) port: Option<Whole>,
    pub(crate) database: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) hostaddr: Option<&'a str>,
    pub(crate) sslmode: Option<&'a str>,
    pub(crate) sslrootcert: Option<PathBuf>,
    pub(crate) application_name: Option<String>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) options: Option<Words>,
}

impl Changes<'_> {
    /// # Errors
    /// `InvalidInput` for a word that means nothing.
    pub(crate) fn applied(self, config: ConnectionConfig) -> Result<ConnectionConfig> {
        let config = self.port.map(port).transpose()?.into_iter().fold(config, ConnectionConfig::with_port);
        let config = self.database.into_iter().fold(config, ConnectionConfig::with_database);
        let config = self.user.into_iter().fold(config, ConnectionConfig::with_user);
        let config = self.password.into_iter().fold(config, |config, password| config.with_password(password.into()));
        let config = self.hostaddr.map(address).transpose()?.into_iter().fold(config, ConnectionConfig::with_hostaddr);
        let config = self.application_name.into_iter().fold(config, ConnectionConfig::with_application_name);
        let config = self.connect_timeout.into_iter().fold(config, ConnectionConfig::with_connect_timeout);
        let options = self.options.into_iter().flat_map(|options| options.0);
        let config = options.fold(config, |config, (name, value)| config.with_option(name, value));
        let mode = self.sslmode.map(|word| chosen("sslmode", word, &MODES, |mode| mode.as_str())).transpose()?;
        if mode.is_none() && self.sslrootcert.is_none() {
            return Ok(config);
        }
        let mode = mode.unwrap_or_else(|| config.ssl_mode());
        let certificate = match self.sslrootcert {
            Some(path) => Some(RootCertificate::file(path)),
            None => config.root_certificate().cloned(),
        };
        Ok(config.with_tls(mode, certificate))
    }
}

/// Core judges what fits its type.
pub(crate) fn port(number: Whole) -> Result<u16> {
    number.fit("connection_invalid", "a port")
}

fn address(text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| Error::invalid_input("hostaddr_invalid", format!("{text:?} is no IP address")))
}
