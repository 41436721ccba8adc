//! What the suite stands on: real servers of its own, and ways to disturb them.
//!
//! Everything here panics when it cannot do its part: a test that cannot run has failed.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot run has failed")]

pub mod access;
pub mod api_proxy;
pub mod archive;
pub mod callers;
pub mod certificates;
pub mod clients;
pub mod cluster;
pub mod command;
pub mod conformance;
mod container;
pub mod daemon;
pub mod distance;
pub mod drivers;
pub mod entrypoint;
pub mod errand;
pub mod impostor;
pub mod journal;
pub mod kubeconfig;
mod kubelet;
mod kwok;
pub mod legacy;
pub mod live_cluster;
pub mod majors;
pub mod measure;
pub mod meters;
pub mod mount;
pub mod neighbour;
pub mod object_server;
pub mod picture;
pub mod pooler;
pub mod proxy;
pub mod python;
pub mod python_costs;
pub mod reaper;
pub mod refusal;
pub mod sample_data;
pub mod server;
pub mod token;
pub mod watch;
pub mod web_proxy;

pub use api_proxy::ApiProxy;
pub use callers::Callers;
pub use cluster::Cluster;
pub use command::{Output, shareddb};
pub use distance::Distance;
pub use entrypoint::Entrypoint;
pub use impostor::Impostor;
pub use live_cluster::LiveCluster;
pub use majors::ForeignServer;
pub use object_server::ObjectServer;
pub use picture::Picture;
pub use pooler::Pooler;
pub use server::TestServer;
pub use web_proxy::WebProxy;
