//! The suite: one binary, a file per behaviour.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod abroad;
mod adopt;
mod adopt_crash;
mod adopt_majors;
mod adopt_refusals;
mod adopt_undo;
mod cli;
mod cluster;
mod corners;
mod crash;
mod create;
mod drift;
mod environments;
mod examples;
mod extensions;
mod faults;
mod forbidden;
mod foreign;
mod ground;
mod isolation;
mod kubernetes;
mod kubernetes_store;
mod loss;
mod matrix;
mod names;
mod ordinary;
mod proof;
mod python;
mod race;
mod records;
mod rounds;
mod secrecy;
mod store;
mod tidy;
mod traps;
