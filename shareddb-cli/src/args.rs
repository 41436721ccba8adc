//! What was typed. The comments are the help.

mod backup;
mod rotate;
mod schedule;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as Group, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use shareddb_core::{Cores, Image, Size};

pub(crate) use backup::{Backup, Backups, ProgressForm, Prune, Restore, Telling, Verify};
pub(crate) use rotate::Rotate;
pub(crate) use schedule::Schedule;

use crate::units;

const GLOBAL: &str = "Global options";

/// Databases for many small applications on one shared PostgreSQL server
#[derive(Parser, Debug)]
#[command(name = "shareddb", version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(after_help = "Example: shareddb create myapp && shareddb psql myapp")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Group, Debug, Default)]
pub(crate) struct Globals {
    /// The environment to work on [default: $SHAREDDB_ENV, else that of shareddb.toml, else local]
    #[arg(short, long, global = true, value_name = "NAME", help_heading = GLOBAL)]
    pub(crate) env: Option<String>,
    /// The Kubernetes namespace, instead of the environment's
    #[arg(short, long, global = true, value_name = "NAME", help_heading = GLOBAL)]
    pub(crate) namespace: Option<String>,
    /// The context of the kubeconfig, instead of the environment's or the current one
    #[arg(long, global = true, value_name = "NAME", help_heading = GLOBAL)]
    pub(crate) context: Option<String>,
    /// The kubeconfig [default: $KUBECONFIG, else ~/.kube/config; in a pod its own account]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Reach the server through the Kubernetes API; by itself only where the name of its Service means nothing
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub(crate) tunnel: bool,
    /// How to print the result; with json an error is one JSON object, too
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = GLOBAL)]
    pub(crate) output: Format,
    /// How long the whole command may take: 90s, 15m, 1h30m [default: 5m; where there is a backup to take, check or restore,
    /// 1h for each]
    #[arg(long, global = true, value_parser = units::parse_duration, value_name = "TIME")]
    #[arg(allow_hyphen_values = true, help_heading = GLOBAL)]
    pub(crate) timeout: Option<Duration>,
    /// Tell no progress, only results, notes and errors
    #[arg(short, long, global = true, help_heading = GLOBAL)]
    pub(crate) quiet: bool,
    /// Tell what begins, not only what is done
    #[arg(short, long, global = true, conflicts_with = "quiet", help_heading = GLOBAL)]
    pub(crate) verbose: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", help_heading = GLOBAL)]
    pub(crate) color: Color,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// In the order of use.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Start the environment's server, make it the first time, and wait until it serves
    #[command(after_help = "Example: shareddb deploy -e production --memory 1Gi")]
    Deploy(Box<Deploy>),
    /// Give an app its database, logins, schema and Secret, or repair them
    #[command(after_help = "Example: shareddb create myapp --connections 20 --extension pg_trgm")]
    Create(Create),
    /// List the apps
    #[command(after_help = "Example: shareddb list -o wide")]
    List,
    /// Show the server and how each app compares with its record
    #[command(after_help = "Example: shareddb status myapp")]
    Status(Status),
    /// Print an app's connection settings, password included
    #[command(after_help = "Example: shareddb env myapp > .env")]
    Env(Env),
    /// Show where a process with these variables would connect, where each setting comes from, and whether it can rotate
    #[command(after_help = "Example: shareddb explain --directory /etc/shareddb/myapp")]
    Explain(Explain),
    /// Open psql in an app's database, as the app
    #[command(after_help = "Example: shareddb psql myapp -- -c 'select current_user'")]
    Psql(Psql),
    /// Give apps new passwords, while they work
    #[command(after_help = "Example: shareddb rotate myapp -e production --grace 2d --restart")]
    Rotate(Rotate),
    /// Back up apps, one after the other, while they work
    #[command(after_help = "Example: shareddb backup --all -e production")]
    Backup(Backup),
    /// List the backups of an app, or of all
    #[command(after_help = "Example: shareddb backups myapp -o wide")]
    Backups(Backups),
    /// Prove that backups restore, by restoring them into a database of their own
    #[command(after_help = "Example: shareddb verify --all")]
    Verify(Verify),
    /// Put a backup in the place of an app's database, which is kept for --undo
    #[command(after_help = "Example: shareddb restore myapp --backup myapp-20261122T020056Z --confirm myapp")]
    Restore(Restore),
    /// Delete backups that no rule keeps. Needs no server
    #[command(after_help = "Example: shareddb prune --all --keep-daily 7 --keep-weekly 4 --keep-monthly 6 --dry-run")]
    Prune(Prune),
    /// Have backups taken, pruned and proven regularly, by CronJobs beside the server
    #[command(after_help = "Example: shareddb schedule --all -e production --image registry.example/shareddb:0.1 \
                            --credentials-secret backup-store")]
    Schedule(Box<Schedule>),
    /// Remove an app with all its data, after a last backup
    #[command(after_help = "Example: shareddb drop myapp --confirm myapp")]
    Drop(Drop),
    /// Print a completion script for a shell
    #[command(after_help = "Example: shareddb completion bash > /etc/bash_completion.d/shareddb")]
    Completion(Completion),
}

/// What a command takes that neither waits for a database nor moves one.
const USUAL: Duration = Duration::from_secs(5 * 60);

impl Command {
    /// How long the command may take unless somebody says otherwise. `None`: as long as each of its parts may.
    pub(crate) fn limit(&self) -> Option<Duration> {
        match self {
            Self::Backup(_) | Self::Verify(_) | Self::Restore(_) => None,
            Self::Drop(drop) if !drop.no_backup => None,
            _ => Some(USUAL),
        }
    }
}

#[derive(Group, Debug, Clone, Copy)]
pub(crate) struct DryRun {
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// With --dry-run: exit with 3 when something would be done
    #[arg(long, requires = "dry_run")]
    pub(crate) exit_code: bool,
}

const SERVER: &str = "Server (Kubernetes) [default: as deployed, else the guide's]";

/// What is left out stays as it is deployed.
#[derive(Group, Debug)]
pub(crate) struct Deploy {
    /// The image: postgres:15-alpine
    #[arg(long, value_name = "IMAGE", help_heading = SERVER)]
    pub(crate) image: Option<Image>,
    /// The most memory it may use, half of which is reserved: 512Mi
    #[arg(long, value_name = "SIZE", help_heading = SERVER)]
    pub(crate) memory: Option<Size>,
    /// The most of the processors it may use, half of which is reserved: 500m
    #[arg(long, value_name = "CORES", help_heading = SERVER)]
    pub(crate) cpu: Option<Cores>,
    /// The size of its volume, which can grow where the storage class lets it: 10Gi
    #[arg(long, value_name = "SIZE", help_heading = SERVER)]
    pub(crate) storage: Option<Size>,
    /// The storage class of its volume, fixed once that is made: the cluster's default
    #[arg(long, value_name = "NAME", help_heading = SERVER)]
    pub(crate) storage_class: Option<String>,
    /// How its volume is mounted, fixed once that is made: ReadWriteOnce
    #[arg(long, value_enum, value_name = "MODE", help_heading = SERVER)]
    pub(crate) access_mode: Option<Access>,
    /// Sessions at once: 100
    #[arg(long, value_name = "N", help_heading = SERVER)]
    pub(crate) max_connections: Option<u16>,
    /// Whether sessions have to be encrypted, with a certificate made for the server; the first time they need not
    #[arg(long, value_enum, value_name = "ON|OFF", num_args = 0..=1, default_missing_value = "on", require_equals = true)]
    #[arg(help_heading = SERVER)]
    pub(crate) tls: Option<Switch>,
    /// A namespace whose pods may reach it besides those of its own; repeat it, or separate by commas. The list given replaces
    /// the deployed one, and `none` is the empty list
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = SERVER)]
    pub(crate) allow_namespace: Option<Vec<String>>,
    /// Make the namespace if there is none
    #[arg(long)]
    pub(crate) create_namespace: bool,
    /// Take over a Deployment `postgres` that somebody else made, with its claim, image and data directory
    #[arg(long)]
    pub(crate) adopt: bool,
    /// On a server that was taken over: let a login into databases of its own only. Those of apps that are not adopted lose access
    #[arg(long)]
    pub(crate) secure_server: bool,
    /// Print the objects as YAML, or with -o json as a list, for kubectl apply --server-side or a GitOps repository: of these options,
    /// else the guide's. No cluster is asked
    #[arg(long, conflicts_with_all = ["dry_run", "stop", "adopt", "create_namespace", "secure_server"])]
    pub(crate) print: bool,
    /// Stop the embedded server of `local`; its data stay
    #[arg(long)]
    pub(crate) stop: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    #[value(name = "ReadWriteOnce")]
    Once,
    #[value(name = "ReadWriteOncePod")]
    OncePod,
    #[value(name = "ReadWriteMany")]
    Many,
}

#[derive(Group, Debug)]
pub(crate) struct Create {
    /// The app: lower-case letters, digits and hyphens
    pub(crate) app: String,
    /// Another name than APP_db for the database; fixed once the app exists
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Another name than APP_user for the login; fixed once the app exists
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Sessions that each of the app's logins may have [default: as recorded, else 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    #[arg(allow_negative_numbers = true)]
    pub(crate) connections: Option<u16>,
    /// An extension that an admin has to make; repeat it, or separate by commas. The list given replaces the recorded
    /// one, and `none` is the empty list
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) extension: Option<Vec<String>>,
    /// A server setting of the app's sessions; repeat it for more. The set given replaces the recorded one, and `none`
    /// is the empty set
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Option<Vec<String>>,
    /// Schemas searched for unqualified names, in order [default: as recorded, else the app's own, public]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) search_path: Option<Vec<String>>,
    /// Promise more sessions than the server's budget has
    #[arg(long)]
    pub(crate) allow_overcommit: bool,
    /// On a server that was not made for shareddb: take from PUBLIC what everybody has on the server's own databases. With
    /// --dry-run it tells who loses access by that
    #[arg(long)]
    pub(crate) secure_server: bool,
    #[command(flatten)]
    pub(crate) adoption: Adoption,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

const ADOPTION: &str = "Adoption";

/// Without --adopt, --undo-adopt is the only one that means anything.
#[derive(Group, Debug)]
pub(crate) struct Adoption {
    /// Take over a database that was made by hand, with its login and Secret, in place and while the app works
    #[arg(long, help_heading = ADOPTION)]
    pub(crate) adopt: bool,
    /// The login may lose SUPERUSER, CREATEROLE, REPLICATION and BYPASSRLS
    #[arg(long, requires = "adopt", help_heading = ADOPTION)]
    pub(crate) demote: bool,
    /// The login's memberships and members pass to the owner role
    #[arg(long, requires = "adopt", help_heading = ADOPTION)]
    pub(crate) keep_memberships: bool,
    /// A role whose objects in the database become the app's; repeat it for more
    #[arg(long, requires = "adopt", value_name = "ROLE", help_heading = ADOPTION)]
    pub(crate) take_from: Vec<String>,
    /// Roles of other apps keep what they were granted, and may enter the database
    #[arg(long, requires = "adopt", help_heading = ADOPTION)]
    pub(crate) keep_grants: bool,
    /// A role that may go on entering the database, which only PUBLIC's right lets in; repeat it for more
    #[arg(long, requires = "adopt", value_name = "ROLE", help_heading = ADOPTION)]
    pub(crate) allow_connect: Vec<String>,
    /// Roles that only PUBLIC's right lets into the database may lose it
    #[arg(long, requires = "adopt", help_heading = ADOPTION)]
    pub(crate) yes: bool,
    /// Policies may see another current_user than the names that rows have stored
    #[arg(long, requires = "adopt", help_heading = ADOPTION)]
    pub(crate) accept_name_change: bool,
    /// The app's sessions may be ended at the moment of the change
    #[arg(long, requires = "adopt", help_heading = ADOPTION)]
    pub(crate) end_sessions: bool,
    /// Take the login's rights to enter other databases
    #[arg(long, requires = "adopt", help_heading = ADOPTION)]
    pub(crate) drop_foreign_grants: bool,
    /// Give an adopted app back as it was, as long as its second login was never issued
    #[arg(long, conflicts_with_all = [
        "database", "user", "connections", "extension", "set", "search_path", "allow_overcommit", "secure_server", "adopt",
        "demote", "keep_memberships", "take_from", "keep_grants", "allow_connect", "yes", "accept_name_change", "end_sessions",
        "drop_foreign_grants",
    ])]
    #[arg(help_heading = ADOPTION)]
    pub(crate) undo_adopt: bool,
}

#[derive(Group, Debug)]
pub(crate) struct Status {
    /// Only this app, with its details
    pub(crate) app: Option<String>,
    /// Warn when an app's newest backup is older [default: 24h; on `local`, never]
    #[arg(long, value_parser = units::parse_duration, value_name = "TIME")]
    pub(crate) backup_age: Option<Duration>,
    /// Warn when an app's newest backup that is known to restore is older [default: 8d; on `local`, never]
    #[arg(long, value_parser = units::parse_duration, value_name = "TIME")]
    pub(crate) verified_age: Option<Duration>,
}

#[derive(Group, Debug)]
pub(crate) struct Env {
    /// The app
    #[arg(required_unless_present = "admin")]
    pub(crate) app: Option<String>,
    /// The settings of the server's admin instead of an app's
    #[arg(long, conflicts_with = "app")]
    pub(crate) admin: bool,
    /// How to write them; json has every key of the Secret, k8s refers to the Secret and shows no value
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<EnvFormat>,
    /// Print the value of this key and nothing else
    #[arg(long, value_name = "KEY", conflicts_with = "format")]
    pub(crate) key: Option<String>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EnvFormat {
    Dotenv,
    Shell,
    Json,
    Url,
    Libpq,
    Service,
    Pgpass,
    Psql,
    Jdbc,
    Sqlx,
    Sqlalchemy,
    Django,
    Asyncpg,
    K8s,
}

#[derive(Group, Debug)]
pub(crate) struct Explain {
    /// A mounted Secret to read instead of the variables
    #[arg(long, value_name = "FOLDER")]
    pub(crate) directory: Option<PathBuf>,
}

#[derive(Group, Debug)]
pub(crate) struct Psql {
    /// The app
    #[arg(required_unless_present = "admin")]
    pub(crate) app: Option<String>,
    /// Open the maintenance database as the server's admin instead
    #[arg(long, conflicts_with = "app")]
    pub(crate) admin: bool,
    /// Arguments for psql
    #[arg(last = true)]
    pub(crate) args: Vec<OsString>,
}

#[derive(Group, Debug)]
pub(crate) struct Drop {
    /// The app
    pub(crate) app: String,
    /// The app's name again; without it a terminal is asked
    #[arg(long, value_name = "APP")]
    pub(crate) confirm: Option<String>,
    /// Take no backup first. The one that is taken otherwise is kept for 90 days, whatever the policy
    #[arg(long)]
    pub(crate) no_backup: bool,
    /// Where that backup goes, instead of the environment's store: a URL or a folder
    #[arg(long, value_name = "URL", conflicts_with = "no_backup")]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) telling: Telling,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

#[derive(Group, Debug)]
pub(crate) struct Completion {
    /// The shell
    pub(crate) shell: Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Args::command().get_subcommands() {
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(example.starts_with(&format!("Example: shareddb {}", command.get_name())), "{example:?}");
        }
    }

    #[test]
    fn global_options_stand_on_either_side() {
        for line in ["shareddb -e stage -o json list", "shareddb list -e stage -o json"] {
            let globals = parse(line).unwrap().globals;
            assert_eq!((globals.env.as_deref(), globals.output), (Some("stage"), Format::Json), "{line}");
        }
    }

    #[test]
    fn arguments_after_the_dashes_are_for_psql() {
        let Command::Psql(psql) = parse("shareddb psql myapp -- -c select -q").unwrap().command else { panic!() };
        assert_eq!((psql.app.as_deref(), psql.args.len()), (Some("myapp"), 3));
        let Command::Psql(psql) = parse("shareddb psql --admin -- -l").unwrap().command else { panic!() };
        assert_eq!((psql.app, psql.args.len()), (None, 1));
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "shareddb psql",
            "shareddb psql a --admin",
            "shareddb env",
            "shareddb env a --key K --format url",
            "shareddb create a --exit-code",
            "shareddb create a --connections 0",
            "shareddb create --help-me",
            "shareddb list --timeout 5",
            "shareddb list -o xml",
            "shareddb list -q -v",
            "shareddb create a --undo-adopt --adopt",
            "shareddb backup",
            "shareddb backup a --all",
            "shareddb backup a --yield-after soon",
            "shareddb verify",
            "shareddb verify --all --backup a-20261122T020056Z",
            "shareddb restore",
            "shareddb restore a --backup latest --at 2026-11-22T02:00:00Z",
            "shareddb restore a --undo --backup latest",
            "shareddb restore a --at yesterday",
            "shareddb prune --keep-last 1",
            "shareddb prune a --keep-last some",
            "shareddb drop a --no-backup --to x",
            "shareddb rotate",
            "shareddb rotate a --all",
            "shareddb rotate a --now --grace 1h",
            "shareddb rotate a --grace soon",
            "shareddb schedule",
            "shareddb schedule a --all",
            "shareddb schedule --all --off --keep 7d",
            "shareddb schedule --all --off --print",
            "shareddb schedule --all --print --dry-run",
            "shareddb schedule --all --memory much",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    /// An option that is new is not forgotten: `--undo-adopt` would pass it over in silence.
    #[test]
    fn undo_adopt_stands_alone() {
        let mut whole = Args::command();
        whole.build();
        let create = whole.find_subcommand("create").unwrap();
        let undo = create.get_arguments().find(|arg| arg.get_id() == "undo_adopt").unwrap();
        let excluded: Vec<&str> =
            create.get_arg_conflicts_with(undo).into_iter().map(|arg| arg.get_id().as_str()).collect();
        let fits = ["app", "undo_adopt", "dry_run", "exit_code", "help", "version"];
        let options = create.get_arguments().filter(|arg| !arg.is_global_set());
        for option in options.map(|arg| arg.get_id().as_str()).filter(|id| !fits.contains(id)) {
            assert!(excluded.contains(&option), "{option}");
        }
        for option in fits {
            assert!(!excluded.contains(&option), "{option}");
        }
    }

    #[test]
    fn lists_are_repeated_or_separated_by_commas() {
        let line = "shareddb create a --extension x,y --extension z --set work_mem=1MB --set a.b=1,2";
        let Command::Create(create) = parse(line).unwrap().command else { panic!() };
        assert_eq!(create.extension.unwrap(), ["x", "y", "z"]);
        assert_eq!(create.set.unwrap(), ["work_mem=1MB", "a.b=1,2"]);
    }
}
