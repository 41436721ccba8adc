//! Databases for many small applications on one shared PostgreSQL server.

pub mod app;
pub mod connection;
mod credentials;
#[cfg(feature = "local")]
mod environment;
pub mod error;
mod file;
#[cfg(feature = "local")]
pub mod local;
pub mod mark;
pub mod names;
pub mod password;
mod postgres;
pub mod provision;
pub mod secrets;
mod server;

pub use app::{App, AppSpec, Slot};
pub use connection::{ConnectionConfig, JdbcSettings, RootCertificate, Session, SslMode, Tls};
#[cfg(feature = "local")]
pub use environment::Environment;
pub use error::{Error, Fault, Result};
#[cfg(feature = "local")]
pub use local::{Binaries, LocalEndpoint, LocalHome, LocalServer, LocalState};
pub use mark::Mark;
pub use names::{
    AppName, DatabaseName, EnvironmentName, ExtensionName, LoginName, RoleName, SchemaName, SecretName, SettingName,
};
pub use provision::{Outcome, Plan, Provisioner, Report};
pub use secrets::{DirectoryStore, SecretData, SecretStore, SecretVersion, StoredSecret};
pub use server::Server;

/// The README's examples compile.
#[cfg(all(doctest, feature = "local"))]
#[doc = include_str!("../../README.md")]
struct Readme;
