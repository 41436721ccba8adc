//! The commands, one file each.

pub(crate) mod backup;
pub(crate) mod backups;
pub(crate) mod completion;
pub(crate) mod create;
pub(crate) mod deploy;
mod deploy_kubernetes;
mod deploy_local;
pub(crate) mod drop;
pub(crate) mod env;
pub(crate) mod explain;
pub(crate) mod list;
pub(crate) mod prune;
pub(crate) mod psql;
pub(crate) mod restore;
pub(crate) mod rotate;
pub(crate) mod schedule;
mod several;
pub(crate) mod status;
pub(crate) mod verify;
