//! What the suite stands on: real servers of its own, and ways to disturb them.
//!
//! Everything here panics when it cannot do its part: a test that cannot run has failed.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot run has failed")]

pub mod command;
pub mod conformance;
pub mod legacy;
pub mod proxy;
pub mod reaper;
pub mod refusal;
pub mod server;
pub mod watch;

pub use command::{Output, shareddb};
pub use server::TestServer;
