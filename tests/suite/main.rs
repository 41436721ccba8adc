//! The suite: one binary, a file per behaviour.
#![allow(missing_docs, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod create;
mod drift;
mod isolation;
mod ordinary;
mod secrecy;
mod store;
