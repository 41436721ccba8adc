//! What `shareddb.toml` says of one environment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};

use super::remote::{Password, Remote, Store};
use super::way::Route;
use super::{backups, invalid};
use crate::connection::{ConnectionConfig, RootCertificate};
use crate::error::Result;
use crate::home;
#[cfg(feature = "kubernetes")]
use crate::kubernetes::Cluster;
use crate::names::{EnvironmentName, NamespaceName, SecretName};

/// Where the admin's password is kept unless the file says otherwise.
pub(crate) const ADMIN_SECRET: &str = "postgres-admin";
const CLUSTER_DOMAIN: &str = "cluster.local";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    context: Option<String>,
    namespace: Option<NamespaceName>,
    #[serde(default)]
    pub(super) protected: bool,
    #[serde(default, deserialize_with = "secret")]
    backups: Option<SecretString>,
    pub(super) backup_image: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    admin_url: Option<SecretString>,
    admin_password_file: Option<PathBuf>,
    pub(super) admin_password_env: Option<String>,
    admin_password_secret: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    hostaddr: Option<String>,
    maintenance_database: Option<String>,
    cluster_domain: Option<String>,
    store: Option<String>,
}

/// Somebody may write a password into a URL; it does not get into any output of ours.
fn secret<'de, D: Deserializer<'de>>(text: D) -> Result<Option<SecretString>, D::Error> {
    String::deserialize(text).map(|text| Some(text.into()))
}

impl Entry {
    /// Where the environment's backups are, as a URL. Paths are relative to `folder`.
    ///
    /// # Errors
    /// `InvalidInput` when that is no place.
    pub(super) fn backups(&self, name: &EnvironmentName, folder: Option<&Path>) -> Result<Option<String>> {
        let url = |text: &SecretString| {
            backups::url(text.expose_secret(), folder)
                .map_err(|source| invalid(format!("[env.{name}] backups cannot be used")).with_source(source))
        };
        self.backups.as_ref().map(url).transpose()
    }

    /// Where the environment is. Paths are relative to `folder`.
    ///
    /// # Errors
    /// `InvalidInput` when what is said of it cannot be.
    pub(super) fn remote(
        self,
        name: &EnvironmentName,
        folder: Option<&Path>,
        passwords: &BTreeMap<String, SecretString>,
    ) -> Result<Remote> {
        let fault = |text: &str| invalid(format!("[env.{name}] {text}"));
        let admin = self.admin_url.as_ref().map(|url| admin(url, name, folder)).transpose()?;
        let route = self.hostaddr.as_deref().map(|text| {
            Route::parse(text).ok_or_else(|| fault("hostaddr is no address: write 10.0.0.7 or 127.0.0.1:15432"))
        });
        let password = self.password(name, folder, passwords)?;
        let store = match self.store.as_deref() {
            Some("kubernetes") => Store::Kubernetes,
            Some(text) => match text.strip_prefix("dir:").filter(|path| !path.is_empty()) {
                Some(path) => Store::Directory(relative(folder, Path::new(path))),
                None => return Err(fault("store is neither \"kubernetes\" nor \"dir:PATH\"")),
            },
            None if admin.is_none() || self.namespace.is_some() || self.context.is_some() => Store::Kubernetes,
            None => Store::Directory(home::from_env()?.join(name.as_str()).join("secrets")),
        };
        // Found now, and not when it is written into a Secret.
        let (host, port) = (self.host.as_deref().unwrap_or("host"), self.port.unwrap_or(1));
        ConnectionConfig::new(host, port, "database", "user")
            .url()
            .map_err(|source| fault("host or port is not possible").with_source(source))?;
        if host.contains([':', '%']) && host.parse::<IpAddr>().is_err() {
            return Err(fault("host is neither a name nor an address; a port has a key of its own"));
        }
        if self.cluster_domain.as_deref().is_some_and(|domain| !is_domain(domain)) {
            return Err(fault("cluster_domain is no domain: write cluster.local"));
        }
        // A namespace of the same name, unless nothing points to Kubernetes at all.
        let namespace = self.namespace.or_else(|| admin.is_none().then(|| name.as_str().parse().ok()).flatten());
        Ok(Remote {
            admin,
            password,
            host: self.host,
            port: self.port,
            route: route.transpose()?,
            #[cfg(feature = "kubernetes")]
            tunnelled: false,
            maintenance_database: self.maintenance_database,
            cluster_domain: self.cluster_domain.unwrap_or_else(|| CLUSTER_DOMAIN.to_owned()),
            #[cfg(feature = "kubernetes")]
            cluster: self.context.into_iter().fold(Cluster::infer(), Cluster::with_context),
            namespace,
            store,
        })
    }

    fn password(
        &self,
        name: &EnvironmentName,
        folder: Option<&Path>,
        passwords: &BTreeMap<String, SecretString>,
    ) -> Result<Password> {
        let Self { admin_password_file: file, admin_password_env: variable, admin_password_secret: secret, .. } = self;
        let in_secret = |text: &str| -> Result<Password> {
            let (secret, key) = text.split_once('/').map_or((text, None), |(secret, key)| (secret, Some(key)));
            let name: SecretName = secret.parse()?;
            Ok(Password::Secret { name, key: key.map(str::to_owned) })
        };
        match (file, variable, secret) {
            (Some(path), None, None) => Ok(Password::File(relative(folder, path))),
            (None, Some(name), None) => {
                Ok(Password::Variable { name: name.clone(), value: passwords.get(name).cloned() })
            }
            (None, None, Some(text)) => in_secret(text),
            (None, None, None) if self.admin_url.is_some() => Ok(Password::Unset),
            (None, None, None) => in_secret(ADMIN_SECRET),
            _ => Err(invalid(format!(
                "[env.{name}] the admin's password has one place only: admin_password_file, admin_password_env or \
                 admin_password_secret"
            ))),
        }
    }
}

fn admin(url: &SecretString, name: &EnvironmentName, folder: Option<&Path>) -> Result<ConnectionConfig> {
    let config = ConnectionConfig::from_url(url.expose_secret())
        .map_err(|source| invalid(format!("[env.{name}] admin_url cannot be used")).with_source(source))?;
    if config.password().is_some() {
        let message = format!("[env.{name}] admin_url holds a password, which everybody can read who reads the file");
        return Err(invalid(message).with_hint(
            "take it out, and say where it is: admin_password_file, admin_password_env or admin_password_secret",
        ));
    }
    let root = config.root_certificate().and_then(RootCertificate::path).map(|path| relative(folder, path));
    let mode = config.ssl_mode();
    Ok(root.into_iter().fold(config, |config, path| config.with_tls(mode, Some(RootCertificate::file(path)))))
}

fn relative(folder: Option<&Path>, path: &Path) -> PathBuf {
    folder.map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

/// Whether a name can stand behind that of a Service.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.split('.').all(is_label)
}
