//! Settings on their way from a source: collected one by one, judged all at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::provenance::{Origin, Provenance, Rotation, Shadow};
use super::tls::{RootCertificate, SslMode};
use super::{ConnectionConfig, DEFAULT_PORT, options};
use crate::error::Error;

/// What a source may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Host,
    HostAddr,
    Port,
    Database,
    User,
    Password,
    SslMode,
    SslRootCert,
    ApplicationName,
    ConnectTimeout,
    Options,
}

/// Values with the names under which the source has them, and what is wrong so far.
pub(super) struct Draft {
    values: BTreeMap<Part, (String, SecretString)>,
    origins: BTreeMap<Part, Origin>,
    rotation: Rotation,
    certificate: Option<RootCertificate>,
    shortfall: Shortfall,
}

/// Why a source gives no connection. No value is ever in here, whatever key it was under.
#[derive(Debug, Default)]
pub(super) struct Shortfall {
    missing: Vec<String>,
    faults: Vec<String>,
    remedies: Vec<String>,
    origins: BTreeMap<Part, Origin>,
}

impl Default for Draft {
    fn default() -> Self {
        Self::new(Rotation::Fixed)
    }
}

impl Shortfall {
    /// What was said nevertheless, and under which names.
    pub(super) fn labels(&self) -> impl Iterator<Item = (Part, &str)> {
        self.origins.iter().map(|(part, origin)| (*part, origin.label.as_str()))
    }

    /// Nothing is wrong, there is only not enough of it.
    pub(super) fn is_only_incomplete(&self) -> bool {
        self.faults.is_empty()
    }

    /// One error for everything.
    pub(super) fn into_error(mut self, source: &str) -> Error {
        if !self.missing.is_empty() {
            let missing = self.missing.join(", ");
            self.faults.push(format!("{missing} missing"));
            self.remedies.push(format!("provide {missing}"));
        }
        let error = Error::invalid_input("connection_invalid", format!("{source}: {}", self.faults.join("; ")));
        if self.remedies.is_empty() { error } else { error.with_hint(self.remedies.join("; ")) }
    }
}

impl Draft {
    /// An empty one, for values that reach a running process like this.
    pub(super) fn new(rotation: Rotation) -> Self {
        Self {
            values: BTreeMap::new(),
            origins: BTreeMap::new(),
            rotation,
            certificate: None,
            shortfall: Shortfall::default(),
        }
    }

    pub(super) fn put(&mut self, part: Part, label: impl Into<String>, value: impl Into<SecretString>) {
        self.put_rotating(part, label, value, self.rotation);
    }

    /// A value that reaches a running process in another way than the others.
    pub(super) fn put_rotating(
        &mut self,
        part: Part,
        label: impl Into<String>,
        value: impl Into<SecretString>,
        rotation: Rotation,
    ) {
        let (label, value) = (label.into(), value.into());
        let mut origin = Origin::new(label.as_str(), rotation);
        // Who said it before does not count any more.
        origin.shadows.extend(self.values.get(&part).map(|(source, shadowed)| {
            let same = shadowed.expose_secret() == value.expose_secret();
            Shadow { source: source.clone(), same: Some(same) }
        }));
        self.origins.insert(part, origin);
        self.values.insert(part, (label, value));
    }

    /// Something else says this part, and does not count.
    pub(super) fn shadow(&mut self, part: Part, shadow: Shadow) {
        if let Some(origin) = self.origins.get_mut(&part) {
            origin.shadows.push(shadow);
        }
    }

    /// What is in here so far came from a single text of this name.
    pub(super) fn rename(&mut self, label: &str) {
        self.origins.values_mut().for_each(|origin| label.clone_into(&mut origin.label));
    }

    pub(super) fn has(&self, part: Part) -> bool {
        self.values.contains_key(&part)
    }

    /// A certificate that was read already; it comes before one that is only named.
    pub(super) fn put_certificate(&mut self, label: &str, certificate: RootCertificate) {
        self.origins.insert(Part::SslRootCert, Origin::new(label, self.rotation));
        self.certificate = Some(certificate);
    }

    pub(super) fn require(&mut self, part: Part, label: impl Into<String>) {
        if !self.has(part) {
            self.shortfall.missing.push(label.into());
        }
    }

    pub(super) fn fault(&mut self, text: impl Into<String>) {
        self.shortfall.faults.push(text.into());
    }

    /// A fault with what to do about it.
    pub(super) fn fault_with(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        let remedy = remedy.into();
        if !self.shortfall.remedies.contains(&remedy) {
            self.shortfall.remedies.push(remedy);
        }
        self.fault(text);
    }

    /// The single value of a source that is one text, such as a URL, with its name.
    pub(super) fn into_value(mut self, part: Part) -> Result<(String, SecretString, Rotation), Shortfall> {
        let rotation = self.origins.get(&part).map_or(self.rotation, |origin| origin.rotation);
        self.take(part).map(|(label, value)| (label, value, rotation)).ok_or(self.shortfall)
    }

    /// Judges what came together.
    pub(super) fn finish(mut self) -> Result<ConnectionConfig, Shortfall> {
        let port = self.port();
        let hostaddr: Option<IpAddr> = self.parsed(Part::HostAddr, "is not an IP address");
        // libpq shows an address as the host when no host was named, and so do we.
        let host = self.text(Part::Host).or_else(|| hostaddr.map(|address| address.to_string()));
        let [database, user] = [Part::Database, Part::User].map(|part| self.text(part));
        // What is missing has been noted; a stand-in keeps the other checks going.
        let stand_in = || "missing".to_owned();
        let mut config = ConnectionConfig::new(
            host.unwrap_or_else(stand_in),
            port,
            database.unwrap_or_else(stand_in),
            user.unwrap_or_else(stand_in),
        );
        config.hostaddr = hostaddr;
        config.password = self.values.get(&Part::Password).map(|(_, value)| value.clone());
        config.application_name = self.text(Part::ApplicationName);
        config.connect_timeout = self.timeout();
        if let Some((label, value)) = self.take(Part::Options) {
            match options::parse(value.expose_secret()) {
                Ok(options) => config.options = options,
                Err(reason) => self.fault(format!("{label} {reason}")),
            }
        }
        config = self.encrypt(config);
        config.provenance = self.provenance(&config);
        self.shortfall.faults.extend(config.faults());
        let Shortfall { missing, faults, .. } = &self.shortfall;
        if missing.is_empty() && faults.is_empty() {
            return Ok(config);
        }
        self.shortfall.origins = config.provenance.origins;
        Err(self.shortfall)
    }

    fn provenance(&mut self, config: &ConnectionConfig) -> Provenance {
        let mut origins = std::mem::take(&mut self.origins);
        if let (Some(_), Some(root)) = (config.ssl_mode, origins.get(&Part::SslRootCert)) {
            let derived = Origin::new(format!("{}, which asks for it", root.label), root.rotation);
            origins.entry(Part::SslMode).or_insert(derived);
        }
        if config.root_certificate.is_none() && config.ssl_mode == Some(SslMode::Disable) {
            origins.remove(&Part::SslRootCert);
        }
        Provenance::of(origins)
    }

    fn encrypt(&mut self, config: ConnectionConfig) -> ConnectionConfig {
        let mode = self.take(Part::SslMode).and_then(|(label, value)| match value.expose_secret().parse::<SslMode>() {
            Ok(mode) => Some(mode),
            Err(error) => {
                self.fault_with(format!("{label}: {error}"), error.hint().unwrap_or_default());
                None
            }
        });
        let mut machine_roots = false;
        let mut certificate = self.certificate.take();
        if let Some((label, path)) = self.take(Part::SslRootCert) {
            // libpq's word for the roots of the machine, which it allows with full verification only.
            machine_roots = path.expose_secret() == "system";
            if machine_roots && mode.is_some_and(|mode| mode != SslMode::VerifyFull) {
                self.fault_with(
                    format!("{label} is \"system\", which is no protection without checking the name"),
                    "use sslmode=verify-full with sslrootcert=system",
                );
            } else if path.expose_secret().is_empty() {
                self.fault(format!("{label} is empty"));
            } else if !machine_roots && certificate.is_none() {
                certificate = Some(RootCertificate::file(path.expose_secret()));
            }
        }
        match mode {
            Some(mode) => config.with_tls(mode, certificate),
            None if certificate.is_some() || machine_roots => config.with_tls(SslMode::VerifyFull, certificate),
            None => config,
        }
    }

    fn port(&mut self) -> u16 {
        let Some((label, value)) = self.take(Part::Port) else {
            return DEFAULT_PORT;
        };
        let text = value.expose_secret();
        if text.starts_with("tcp://") {
            // Kubernetes sets DB_PORT=tcp://… in every pod beside a Service named "db".
            self.fault_with(
                format!("{label} is a URL, as Kubernetes sets it for a Service of that name"),
                format!("set {label} to the port number, or enableServiceLinks: false"),
            );
            return DEFAULT_PORT;
        }
        let digits = text.chars().all(|c| c.is_ascii_digit());
        match text.parse() {
            Ok(port) if digits && port != 0 => port,
            _ => {
                self.fault(format!("{label} is not a number from 1 to 65535"));
                DEFAULT_PORT
            }
        }
    }

    fn timeout(&mut self) -> Option<Duration> {
        let (label, value) = self.take(Part::ConnectTimeout)?;
        match value.expose_secret().parse::<u32>() {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds.into())),
            _ => {
                // libpq reads 0 and less as "wait for ever".
                self.fault_with(format!("{label} is not a positive number of seconds"), "use connect_timeout=5");
                None
            }
        }
    }

    fn parsed<T: std::str::FromStr>(&mut self, part: Part, reason: impl Display) -> Option<T> {
        let (label, value) = self.take(part)?;
        let parsed = value.expose_secret().parse().ok();
        if parsed.is_none() {
            self.fault(format!("{label} {reason}"));
        }
        parsed
    }

    fn take(&mut self, part: Part) -> Option<(String, SecretString)> {
        self.values.remove(&part)
    }

    fn text(&mut self, part: Part) -> Option<String> {
        self.take(part).map(|(_, value)| value.expose_secret().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(values: &[(Part, &str)]) -> Draft {
        let mut draft = Draft::default();
        for (part, value) in [(Part::Host, "h"), (Part::Database, "d"), (Part::User, "u")].iter().chain(values) {
            draft.put(*part, format!("{part:?}"), *value);
        }
        draft
    }

    #[test]
    fn all_faults_in_one_error_and_no_value() {
        let bad = [
            (Part::Port, "m4rker"),
            (Part::HostAddr, "m4rker"),
            (Part::ConnectTimeout, "-1"),
            (Part::SslMode, "m4rker"),
            (Part::Options, "m4rker"),
            (Part::Database, ""),
        ];
        let error = draft(&bad).finish().unwrap_err().into_error("here");
        let text = error.to_string();
        assert!(text.starts_with("here: "), "{text}");
        for part in ["Port", "HostAddr", "ConnectTimeout", "SslMode", "Options", "database is empty"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!format!("{error:?}").contains("m4rker"));
    }

    #[test]
    fn ports() {
        assert_eq!(draft(&[]).finish().unwrap().port(), 5432);
        assert_eq!(draft(&[(Part::Port, "1")]).finish().unwrap().port(), 1);
        for port in ["", "0", "65536", "+5", "-1", " 5432", "5432x", "tcp://10.0.0.1:5432"] {
            assert!(draft(&[(Part::Port, port)]).finish().is_err(), "{port}");
        }
    }

    #[test]
    fn tls_follows_what_is_known() {
        let mode = |values: &[(Part, &str)]| draft(values).finish().map(|config| config.ssl_mode());
        assert_eq!(mode(&[]).unwrap(), SslMode::Disable);
        assert_eq!(mode(&[(Part::SslRootCert, "/ca.crt")]).unwrap(), SslMode::VerifyFull);
        assert_eq!(mode(&[(Part::SslRootCert, "system")]).unwrap(), SslMode::VerifyFull);
        assert_eq!(mode(&[(Part::SslRootCert, "/ca.crt"), (Part::SslMode, "require")]).unwrap(), SslMode::VerifyCa);
        assert!(mode(&[(Part::SslRootCert, "system"), (Part::SslMode, "require")]).is_err());
        assert!(mode(&[(Part::SslMode, "prefer")]).is_err());
    }

    #[test]
    fn an_address_can_stand_for_the_host() {
        let mut draft = Draft::default();
        for (part, value) in [(Part::HostAddr, "::1"), (Part::Database, "d"), (Part::User, "u")] {
            draft.put(part, "x", value);
        }
        assert_eq!(draft.finish().unwrap().host(), "::1");
    }
}
