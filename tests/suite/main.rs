//! The suite: one binary, a file per behaviour.
#![allow(missing_docs, clippy::panic, reason = "tests")]

mod create;
mod drift;
mod isolation;
mod ordinary;
mod secrecy;
mod store;
