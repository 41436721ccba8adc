//! PostgreSQL's programs, found on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[cfg(feature = "backup")]
use super::os_release::client_install_hint;
use super::os_release::install_hint;
use crate::error::{Error, Result};

const MAJORS: std::ops::RangeInclusive<u16> = 14..=18;
/// The version that production servers are deployed with.
const PREFERRED: u16 = 15;
const DEBIAN_LAYOUT: &str = "/usr/lib/postgresql";
const NEEDED: [&str; 6] = ["postgres", "initdb", "pg_ctl", "psql", "pg_dump", "pg_restore"];
/// What it takes to work on a server that runs elsewhere.
#[cfg(feature = "backup")]
const CLIENTS: [&str; 2] = ["pg_dump", "pg_restore"];

/// A directory with PostgreSQL's server and client programs of one major version, 14 to 18.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Binaries {
    /// Where they are.
    pub dir: PathBuf,
    /// Their major version.
    pub major: u16,
}

impl Binaries {
    /// The programs to use: those in `explicit` when given, else the first whole set among what
    /// `pg_config --bindir` names, `/usr/lib/postgresql/<major>/bin` (15, then from 18 down) and `PATH`.
    ///
    /// Runs some of them for their version; blocks for some milliseconds.
    ///
    /// # Errors
    /// `Unavailable` (`tool_missing`) with the line that installs them. An `explicit` directory that
    /// lacks one is such an error too: nothing else is tried then.
    pub fn find(explicit: Option<&Path>) -> Result<Self> {
        Self::first(explicit, |_| true).map_err(|rejected| {
            let hint = match explicit {
                Some(_) => format!("SHAREDDB_PG_BIN must name the directory of all of {}", NEEDED.join(", ")),
                None => install_hint(None),
            };
            Error::unavailable("tool_missing", tools_missing(&rejected)).with_hint(hint)
        })
    }

    /// Like [`Binaries::find`], for data of version `major`.
    ///
    /// # Errors
    /// `Refused` (`major_mismatch`) naming both versions when there are whole sets, but of others only.
    pub fn of_major(major: u16, explicit: Option<&Path>) -> Result<Self> {
        if let Ok(found) = Self::first(explicit, |found| found.major == major) {
            return Ok(found);
        }
        let error = Self::find(explicit)?.unfit_for(major);
        Err(match explicit {
            Some(_) => error.with_hint(format!("unset SHAREDDB_PG_BIN, or point it at programs of PostgreSQL {major}")),
            None => error,
        })
    }

    /// The client programs for work on a server of version `major` that may run elsewhere: those of the same version, else of
    /// a newer one, since older ones do not understand it.
    ///
    /// # Errors
    /// `Unavailable` (`tool_missing`) with the line that installs them.
    #[cfg(feature = "backup")]
    pub fn clients(major: u16, explicit: Option<&Path>) -> Result<Self> {
        let found = Self::directories(explicit).filter_map(|dir| Self::clients_in(dir).ok());
        let fit = found.filter(|found| found.major >= major);
        fit.min_by_key(|found| found.major).ok_or_else(|| {
            let message = format!("{} of PostgreSQL {major} were not found", CLIENTS.join(" and "));
            Error::unavailable("tool_missing", message).with_hint(match explicit {
                Some(_) => format!("SHAREDDB_PG_BIN must name the directory of {}", CLIENTS.join(" and ")),
                None => client_install_hint(major),
            })
        })
    }

    /// Those in one directory.
    #[cfg(feature = "backup")]
    fn clients_in(dir: PathBuf) -> Result<Self, String> {
        let versions = CLIENTS.map(|name| version_of(&dir.join(name)));
        match versions {
            [Ok(dump), Ok(restore)] if dump == restore => Ok(Self { dir, major: dump }),
            [Ok(dump), Ok(restore)] => Err(format!("{} mixes versions {dump} and {restore}", dir.display())),
            [Err(reason), _] | [_, Err(reason)] => Err(reason),
        }
    }

    fn unfit_for(&self, major: u16) -> Error {
        let message =
            format!("the data are of PostgreSQL {major}, the programs in {} of {}", self.dir.display(), self.major);
        Error::refused("major_mismatch", message).with_hint(install_hint(Some(major)))
    }

    /// The path of one of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The first set that fits, or why each directory was passed over.
    fn first(explicit: Option<&Path>, fits: impl Fn(&Self) -> bool) -> Result<Self, Vec<String>> {
        let mut rejected = Vec::new();
        for dir in Self::directories(explicit) {
            match Self::in_directory(dir, version_of) {
                Ok(found) if fits(&found) => return Ok(found),
                Ok(_) => {}
                Err(reason) => rejected.push(reason),
            }
        }
        Err(rejected)
    }

    fn directories(explicit: Option<&Path>) -> Box<dyn Iterator<Item = PathBuf>> {
        match explicit {
            Some(dir) => Box::new(std::iter::once(dir.to_owned())),
            // Lazy: the shell is asked for PATH only when nothing before it fits.
            None => Box::new(
                pg_config_bindir()
                    .into_iter()
                    .chain(debian_directories())
                    .chain(std::iter::once_with(directory_on_path).flatten()),
            ),
        }
    }

    /// The set in `dir`, or what keeps it from being one.
    fn in_directory(dir: PathBuf, version_of: impl Fn(&Path) -> Result<u16, String>) -> Result<Self, String> {
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !dir.join(name).is_file()).collect();
        if !missing.is_empty() {
            return Err(format!("{} has no {}", dir.display(), missing.join(", ")));
        }
        // Server and client programs come in separate packages, so both are asked.
        let (server, client) = (version_of(&dir.join("postgres"))?, version_of(&dir.join("pg_dump"))?);
        if server != client {
            return Err(format!("{} mixes versions {server} and {client}", dir.display()));
        }
        if !MAJORS.contains(&server) {
            return Err(format!("{} is version {server}, not 14 to 18", dir.display()));
        }
        Ok(Self { dir, major: server })
    }
}

fn tools_missing(rejected: &[String]) -> String {
    let mut message = "PostgreSQL's programs (server and clients, 14 to 18) were not found".to_owned();
    if !rejected.is_empty() {
        message.push_str(": ");
        message.push_str(&rejected.join("; "));
    }
    message
}

fn pg_config_bindir() -> Option<PathBuf> {
    let dir = output_of(Command::new("pg_config").arg("--bindir"))?;
    Path::new(&dir).is_dir().then(|| dir.into())
}

fn debian_directories() -> Vec<PathBuf> {
    let mut majors: Vec<u16> = MAJORS.collect();
    majors.sort_by_key(|major| (*major != PREFERRED, std::cmp::Reverse(*major)));
    let dirs = majors.into_iter().map(|major| Path::new(DEBIAN_LAYOUT).join(major.to_string()).join("bin"));
    dirs.filter(|dir| dir.is_dir()).collect()
}

/// The directory of the `postgres`, or else the `pg_dump`, on PATH. The shell looks it up: the environment is not ours to
/// read. Links are followed, as a lone link may lead to a whole directory.
fn directory_on_path() -> Option<PathBuf> {
    let found = output_of(Command::new("/bin/sh").args(["-c", "command -v postgres || command -v pg_dump"]))?;
    Some(fs::canonicalize(found).ok()?.parent()?.to_owned())
}

fn version_of(program: &Path) -> Result<u16, String> {
    output_of(Command::new(program).arg("--version"))
        .and_then(|text| parse_major(&text))
        .ok_or_else(|| format!("{} --version does not tell a version", program.display()))
}

fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The major version in `postgres (PostgreSQL) 15.20 (Debian …)`, `… 18beta1` or `… 17devel`.
fn parse_major(text: &str) -> Option<u16> {
    let word = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    word[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files that hold what the programs would print: a test that runs what it has just written fails
    /// now and then while another one forks (ETXTBSY).
    fn directory_with(programs: &[(&str, &str)]) -> Result<Binaries, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, version) in programs {
            fs::write(dir.path().join(name), format!("{name} (PostgreSQL) {version}\n")).unwrap();
        }
        let version_of = |path: &Path| parse_major(&fs::read_to_string(path).unwrap()).ok_or_else(String::new);
        Binaries::in_directory(dir.path().to_owned(), version_of)
    }

    #[test]
    fn versions_of_all_kinds_are_read() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 17devel"), Some(17));
        assert_eq!(parse_major("psql (EnterpriseDB) 16.4.1"), Some(16));
        assert_eq!(parse_major("postgres: not found"), None);
        assert_eq!(parse_major(""), None);
    }

    #[test]
    fn a_directory_counts_only_when_whole_and_of_one_known_version() {
        let all = |version| NEEDED.map(|name| (name, version));
        assert_eq!(directory_with(&all("16.2")).unwrap().major, 16);
        let reason = directory_with(&all("16.2")[..5]).unwrap_err();
        assert!(reason.ends_with("has no pg_restore"), "{reason}");
        let mut mixed = all("16.2");
        mixed[4].1 = "15.1";
        assert!(directory_with(&mixed).unwrap_err().contains("mixes versions 16 and 15"));
        assert!(directory_with(&all("13.9")).unwrap_err().contains("not 14 to 18"));
    }

    #[test]
    fn a_chosen_directory_is_the_only_one_tried() {
        let error = Binaries::find(Some(Path::new("/nonexistent"))).unwrap_err();
        assert_eq!(error.code(), "tool_missing");
        assert!(error.to_string().contains("/nonexistent has no postgres"), "{error}");
        assert!(error.hint().unwrap().contains("SHAREDDB_PG_BIN"));
    }

    #[test]
    fn other_versions_are_refused_by_name() {
        let error = Binaries { dir: "/opt/pg/bin".into(), major: 16 }.unfit_for(14);
        assert!(matches!(error, Error::Refused(_)));
        assert!(error.to_string().contains("PostgreSQL 14") && error.to_string().contains("of 16"), "{error}");
        assert!(error.hint().unwrap().contains("14"));
    }
}
