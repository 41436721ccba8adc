//! The suite: one binary, a file per behaviour.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod cli;
mod corners;
mod crash;
mod create;
mod drift;
mod examples;
mod extensions;
mod faults;
mod forbidden;
mod ground;
mod isolation;
mod names;
mod ordinary;
mod python;
mod race;
mod secrecy;
mod store;
mod tidy;
mod traps;
