//! Databases for many small applications on one shared PostgreSQL server.

pub mod error;
pub mod names;

pub use error::{Error, Fault, Result};
pub use names::{
    AppName, DatabaseName, EnvironmentName, ExtensionName, LoginName, RoleName, SchemaName, SecretName, SettingName,
};
