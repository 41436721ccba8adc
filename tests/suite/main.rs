//! The suite: one binary, a file per behaviour.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod crash;
mod create;
mod drift;
mod faults;
mod race;
mod store;
