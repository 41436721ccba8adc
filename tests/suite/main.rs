//! The suite: one binary, a file per behaviour.
#![allow(missing_docs, clippy::panic, reason = "tests")]

mod crash;
mod create;
mod drift;
mod faults;
mod race;
mod store;
