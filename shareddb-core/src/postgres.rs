//! The PostgreSQL side: what SQL is sent, and what is read back.
//!
//! SQL text stands under this module only, and passes every name through [`sql::identifier`] and every value
//! through [`sql::literal`].

pub(crate) mod adopt_statements;
#[cfg(feature = "backup")]
pub(crate) mod blockers;
pub(crate) mod catalog;
#[cfg(feature = "backup")]
pub(crate) mod census;
#[cfg(feature = "backup")]
pub(crate) mod copies;
pub(crate) mod extensions;
pub(crate) mod facts;
pub(crate) mod inventory;
pub(crate) mod legacy;
#[cfg(feature = "backup")]
pub(crate) mod loader;
pub(crate) mod lock;
#[cfg(feature = "backup")]
pub(crate) mod maintenance;
pub(crate) mod marks;
pub(crate) mod powers;
#[cfg(feature = "backup")]
pub(crate) mod renaming;
#[cfg(feature = "backup")]
pub(crate) mod requirements;
pub(crate) mod session;
pub(crate) mod sql;
pub(crate) mod statements;
pub(crate) mod version;
pub(crate) mod visitors;
