//! The PostgreSQL side: what SQL is sent, and what is read back.
//!
//! SQL text stands under this module only, and passes every name through [`sql::identifier`] and every value
//! through [`sql::literal`].

#[cfg(feature = "provision")]
pub(crate) mod adopt_statements;
#[cfg(feature = "backup")]
pub(crate) mod blockers;
#[cfg(feature = "provision")]
pub(crate) mod catalog;
#[cfg(feature = "backup")]
pub(crate) mod census;
#[cfg(feature = "provision")]
pub(crate) mod clients;
#[cfg(feature = "backup")]
pub(crate) mod copies;
#[cfg(feature = "provision")]
pub(crate) mod extensions;
#[cfg(feature = "provision")]
pub(crate) mod facts;
#[cfg(feature = "provision")]
pub(crate) mod inventory;
#[cfg(feature = "provision")]
pub(crate) mod legacy;
#[cfg(feature = "backup")]
pub(crate) mod loader;
#[cfg(feature = "provision")]
pub(crate) mod lock;
#[cfg(feature = "backup")]
pub(crate) mod maintenance;
#[cfg(feature = "provision")]
pub(crate) mod marks;
#[cfg(feature = "pool")]
pub(crate) mod pooling;
#[cfg(feature = "provision")]
pub(crate) mod powers;
#[cfg(feature = "backup")]
pub(crate) mod renaming;
#[cfg(feature = "backup")]
pub(crate) mod requirements;
#[cfg(feature = "provision")]
pub(crate) mod session;
#[cfg(any(feature = "pool", feature = "provision"))]
pub(crate) mod session_name;
#[cfg(feature = "provision")]
pub(crate) mod sql;
#[cfg(feature = "provision")]
pub(crate) mod statements;
#[cfg(feature = "provision")]
pub(crate) mod version;
#[cfg(feature = "provision")]
pub(crate) mod visitors;
