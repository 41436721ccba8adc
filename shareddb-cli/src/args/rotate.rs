//! What was typed for a rotation. The comments are the help.

use std::time::Duration;

use clap::Args as Group;

use super::DryRun;
use crate::units;

#[derive(Group, Debug)]
pub(crate) struct Rotate {
    /// The apps
    #[arg(value_name = "APP", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) apps: Vec<String>,
    /// Every app of the environment
    #[arg(long)]
    pub(crate) all: bool,
    /// How long the old password goes on working: 7d, 36h, 0s. Programs that do not read the Secret again have to be restarted
    /// by then; the server ends it by itself, and sessions that are there stay
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = units::parse_grace, conflicts_with = "now")]
    pub(crate) grace: Duration,
    /// The password has got into wrong hands: close the old login at once and end its sessions
    #[arg(long)]
    pub(crate) now: bool,
    /// Restart the workloads that take the password from their variables, as kubectl rollout restart does
    #[arg(long)]
    pub(crate) restart: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}
