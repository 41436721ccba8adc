//! The PostgreSQL side: what SQL is sent, and what is read back.
//!
//! SQL text stands under this module only, and passes every name through [`sql::identifier`] and every value
//! through [`sql::literal`].

pub(crate) mod adopt_statements;
pub(crate) mod catalog;
pub(crate) mod extensions;
pub(crate) mod facts;
pub(crate) mod inventory;
pub(crate) mod legacy;
pub(crate) mod lock;
pub(crate) mod marks;
pub(crate) mod powers;
pub(crate) mod session;
pub(crate) mod sql;
pub(crate) mod statements;
pub(crate) mod version;
pub(crate) mod visitors;
