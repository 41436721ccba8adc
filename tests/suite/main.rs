//! The suite: one binary, a file per behaviour.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod cli;
mod create;
mod drift;
mod examples;
mod ground;
mod names;
mod python;
mod store;
mod tidy;
