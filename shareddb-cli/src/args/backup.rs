//! What was typed for commands about backups. The comments are the help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as Group, ValueEnum};
use jiff::Timestamp;
use shareddb_core::{Choice, Quota, Reason};

use super::{DryRun, Format};
use crate::moments;

/// How a long piece of work is followed.
#[derive(Group, Debug, Clone, Copy)]
pub(crate) struct Telling {
    /// How progress is told on standard error: a bar on a terminal and else a line every 15 seconds, one JSON object a line,
    /// or not at all
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) progress: ProgressForm,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProgressForm {
    #[default]
    Auto,
    Json,
    None,
}

#[derive(Group, Debug)]
pub(crate) struct Backup {
    /// The apps
    #[arg(value_name = "APP", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) apps: Vec<String>,
    /// Every app of the environment
    #[arg(long)]
    pub(crate) all: bool,
    /// Where the backups go, instead of the environment's store: a URL or a folder
    #[arg(long, value_name = "URL", conflicts_with = "file")]
    pub(crate) to: Option<String>,
    /// Write a plain dump of one app into this file instead, as pg_dump > FILE does: for people, and in no store. It is there when it
    /// is whole, and compressed if it is called .gz or .zst
    #[arg(id = "file", long = "output", value_name = "FILE", conflicts_with_all = ["all", "encrypt_to", "keep_until", "reason"])]
    pub(crate) output: Option<PathBuf>,
    /// How to print the result; with json an error is one JSON object, too
    // The global one, without its long form. It is read there.
    #[arg(id = "output", short, value_enum, default_value_t, value_name = "FORMAT", help_heading = super::GLOBAL)]
    o: Format,
    /// Encrypt for the holder of the private key to this public one of age's, `age1…`; repeat it, or separate by commas
    #[arg(long, value_name = "RECIPIENT", value_delimiter = ',')]
    pub(crate) encrypt_to: Vec<String>,
    /// What their manifests say that they are for
    #[arg(long, value_enum, default_value_t, value_name = "WHY")]
    pub(crate) reason: Why,
    /// Give way to a statement that has waited for a table this long, and begin again; `never` gives way to none
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = moments::parse_patience)]
    pub(crate) yield_after: Duration,
    /// Let no policy delete them before this time: 2027-02-20, 2027-02-20T02:00:00Z, or 90d from now
    #[arg(long, value_name = "TIME", value_parser = moments::parse_future)]
    pub(crate) keep_until: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) telling: Telling,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Why {
    #[default]
    Manual,
    Schedule,
}

impl From<Why> for Reason {
    fn from(why: Why) -> Self {
        match why {
            Why::Manual => Self::Manual,
            Why::Schedule => Self::Schedule,
        }
    }
}

#[derive(Group, Debug)]
pub(crate) struct Backups {
    /// Only those of this app
    pub(crate) app: Option<String>,
    /// Where the backups are, instead of the environment's store: a URL or a folder
    #[arg(long, value_name = "URL")]
    pub(crate) from: Option<String>,
}

#[derive(Group, Debug)]
pub(crate) struct Verify {
    /// The app
    #[arg(required_unless_present_any = ["all", "backup"], conflicts_with = "all")]
    pub(crate) app: Option<String>,
    /// The newest backup of every app of the environment
    #[arg(long)]
    pub(crate) all: bool,
    /// Which backup: its name, or latest
    #[arg(long, value_name = "ID", conflicts_with = "all", value_parser = parse_choice)]
    pub(crate) backup: Option<Choice>,
    /// Only read it to its end and compare checksums and rows; nothing is restored, and nothing is proven of that
    #[arg(long)]
    pub(crate) quick: bool,
    /// Where the backups are, instead of the environment's store: a URL or a folder
    #[arg(long, value_name = "URL")]
    pub(crate) from: Option<String>,
    /// Load it on the server of this environment, where an app of that name has to be; its data are not touched
    #[arg(long, value_name = "ENV", conflicts_with = "quick")]
    pub(crate) on: Option<String>,
    #[command(flatten)]
    pub(crate) keys: Keys,
    #[command(flatten)]
    pub(crate) telling: Telling,
}

/// What opens backups that are encrypted.
#[derive(Group, Debug)]
pub(crate) struct Keys {
    /// A file with private keys of age's, for what is encrypted; repeat it for more
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
}

#[derive(Group, Debug)]
pub(crate) struct Restore {
    /// The app
    pub(crate) app: String,
    /// Which backup: its name, or latest
    #[arg(long, value_name = "ID", default_value = "latest", value_parser = parse_choice)]
    pub(crate) backup: Choice,
    /// The newest backup that was taken at this time or before, but for what restores have replaced: 2026-11-22T02:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moments::parse_moment, conflicts_with = "backup")]
    pub(crate) at: Option<Timestamp>,
    /// A dump that was made elsewhere, by pg_dump, instead of a backup: a script, also .gz or .zst, or an archive of -Fc, -Fd or
    /// -Ft. No psql reads it, and it is loaded with no more rights than the app has
    #[arg(long, value_name = "FILE", conflicts_with_all = ["backup", "at", "identity", "from", "from_env", "other"])]
    pub(crate) input: Option<PathBuf>,
    /// Restore it as this app, which is made if there is none; APP itself is not touched
    #[arg(long = "as", value_name = "OTHER")]
    pub(crate) other: Option<String>,
    /// Take the app's backup from this environment, and its store
    #[arg(long, value_name = "ENV")]
    pub(crate) from_env: Option<String>,
    /// Take back the last restore: the database that it replaced is the app's again, and the restored one is kept
    #[arg(long, conflicts_with_all = [
        "backup", "at", "input", "other", "from_env", "identity", "from", "no_safety_backup", "skip_grants_to_missing", "keep_grants",
    ])]
    pub(crate) undo: bool,
    /// The name of the app whose data are replaced, again; without it a terminal is asked
    #[arg(long, value_name = "APP")]
    pub(crate) confirm: Option<String>,
    /// Leave out rights and policies for roles that the server lacks, and tell them
    #[arg(long)]
    pub(crate) skip_grants_to_missing: bool,
    /// With --as: keep rights and policies for roles other than the app's
    #[arg(long, requires = "other")]
    pub(crate) keep_grants: bool,
    /// Take no backup of what is there now; it is kept as a database in any case
    #[arg(long)]
    pub(crate) no_safety_backup: bool,
    /// Where the backups are, instead of the environment's store: a URL or a folder
    #[arg(long, value_name = "URL")]
    pub(crate) from: Option<String>,
    #[command(flatten)]
    pub(crate) keys: Keys,
    #[command(flatten)]
    pub(crate) telling: Telling,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

const RULES: &str = "Rules; a backup stays if any keeps it";

/// Whatever the rules: the newest stays, the newest that is known to restore, and what is held. What restores have replaced takes no
/// place in them, and stays for 7 days.
#[derive(Group, Debug)]
pub(crate) struct Prune {
    /// The app
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) app: Option<String>,
    /// Every app that has backups in the environment
    #[arg(long)]
    pub(crate) all: bool,
    /// So many of the newest, or all
    #[arg(long, value_name = "N", value_parser = parse_quota, help_heading = RULES)]
    pub(crate) keep_last: Option<Quota>,
    /// The newest of each hour, for so many hours that have one
    #[arg(long, value_name = "N", value_parser = parse_quota, help_heading = RULES)]
    pub(crate) keep_hourly: Option<Quota>,
    /// The newest of each day
    #[arg(long, value_name = "N", value_parser = parse_quota, help_heading = RULES)]
    pub(crate) keep_daily: Option<Quota>,
    /// The newest of each week, Monday to Sunday
    #[arg(long, value_name = "N", value_parser = parse_quota, help_heading = RULES)]
    pub(crate) keep_weekly: Option<Quota>,
    /// The newest of each month
    #[arg(long, value_name = "N", value_parser = parse_quota, help_heading = RULES)]
    pub(crate) keep_monthly: Option<Quota>,
    /// The newest of each year. Hours, days and so on are those of UTC
    #[arg(long, value_name = "N", value_parser = parse_quota, help_heading = RULES)]
    pub(crate) keep_yearly: Option<Quota>,
    /// Where the backups are, instead of the environment's store: a URL or a folder
    #[arg(long, value_name = "URL")]
    pub(crate) from: Option<String>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

fn parse_choice(text: &str) -> Result<Choice, String> {
    match text {
        "latest" => Ok(Choice::Latest),
        text => text.parse().map(Choice::Id).map_err(|_| {
            "a backup is called like my-app-20261122T020056Z, and the newest latest; `shareddb backups` lists them"
                .to_owned()
        }),
    }
}

fn parse_quota(text: &str) -> Result<Quota, String> {
    match text {
        "all" => Ok(Quota::All),
        text => text.parse().map(Quota::Of).map_err(|_| "write a number, or all".to_owned()),
    }
}
