//! What was typed for a schedule. The comments are the help.

use clap::Args as Group;
use shareddb_core::{Cores, Size};

use super::DryRun;

const WHEN: &str = "When, and what stays [default: as scheduled, else as said here]. Times are those of UTC";
const WHERE: &str = "Where from and where to [default: as scheduled, else the environment's]";

/// What is left out stays as it is scheduled.
#[derive(Group, Debug)]
pub(crate) struct Schedule {
    /// The app
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) app: Option<String>,
    /// Every app that the environment has at that time
    #[arg(long)]
    pub(crate) all: bool,
    /// When backups are taken, and then those deleted that are not to stay: "0 2 * * *", every day at 02:00
    #[arg(long, value_name = "CRON", help_heading = WHEN, allow_hyphen_values = true)]
    pub(crate) cron: Option<String>,
    /// When the newest is proven by restoring it, or never: "0 4 * * 0", on Sundays at 04:00
    #[arg(long, value_name = "CRON", help_heading = WHEN, allow_hyphen_values = true)]
    pub(crate) verify_cron: Option<String>,
    /// Which backups stay, by the rules of prune, or all: 7d,4w,6m, the newest of 7 days, 4 weeks and 6 months; also h and y, and a
    /// bare number for so many of the newest
    #[arg(long, value_name = "RULES", help_heading = WHEN)]
    pub(crate) keep: Option<String>,
    /// The image with this command and PostgreSQL's client programs; backup_image in shareddb.toml
    #[arg(long, value_name = "IMAGE", help_heading = WHERE)]
    pub(crate) image: Option<String>,
    /// Where the backups go: a URL; backups in shareddb.toml
    #[arg(long, value_name = "URL", help_heading = WHERE)]
    pub(crate) to: Option<String>,
    /// A Secret of the namespace whose keys are the variables that lead there, such as AWS_ACCESS_KEY_ID; none where the account of
    /// the pods does
    #[arg(long, value_name = "NAME", help_heading = WHERE)]
    pub(crate) credentials_secret: Option<String>,
    /// Encrypt for the holder of the private key to this public one of age's, `age1…`; repeat it, or separate by commas. The list given
    /// replaces the scheduled one, and `none` is the empty list
    #[arg(long, value_name = "RECIPIENT", value_delimiter = ',', help_heading = WHERE)]
    pub(crate) encrypt_to: Option<Vec<String>>,
    /// The most memory that a run may use, half of which is reserved: 512Mi
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Size>,
    /// The most of the processors that a run may use, half of which is reserved: 1
    #[arg(long, value_name = "CORES")]
    pub(crate) cpu: Option<Cores>,
    /// Print the objects as YAML, or with -o json as a list, for kubectl apply --server-side or a GitOps repository: of these options,
    /// else the defaults. No cluster is asked
    #[arg(long, conflicts_with_all = ["dry_run", "off"])]
    pub(crate) print: bool,
    /// End the schedule, and a run that is going on: everything that was made for it goes. Backups stay
    #[arg(long, conflicts_with_all = [
        "cron", "verify_cron", "keep", "image", "to", "credentials_secret", "encrypt_to", "memory", "cpu",
    ])]
    pub(crate) off: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}
