//! The words by which somebody has a server started: a container's command and its arguments.

use k8s_openapi::api::core::v1::Container;

use crate::deploy::heritage::unclear;
use crate::deploy::variables::expanded;
use crate::error::Result;

/// What an image starts by itself, in this order.
const PROGRAMS: [&str; 2] = ["docker-entrypoint.sh", "postgres"];

/// How many sessions the server was started for, where its words say so.
///
/// # Errors
/// `Refused` when they say where the data are, or what they start is not known here.
pub(crate) fn connections(container: &Container) -> Result<Option<u16>> {
    let words = container.command.iter().chain(&container.args).flatten();
    let words = words.map(|word| expanded("a word of its command", word)).collect::<Result<Vec<String>>>()?;
    if words.iter().any(|word| names_data(word)) {
        return Err(unclear(
            "its command says where its data are",
            "have PGDATA say that instead, let its pod come up so, and run this again",
        ));
    }
    let mut options = words.as_slice();
    for program in PROGRAMS {
        match options.split_first() {
            Some((first, rest)) if first.rsplit('/').next() == Some(program) => options = rest,
            _ => {}
        }
    }
    if let Some(other) = options.first().filter(|word| !word.starts_with('-')) {
        return Err(unclear(
            &format!("it starts {other:?}, and what that does with the data is not known here"),
            "let the image start its server by itself: no command, and settings as args (-c, NAME=VALUE); let its pod come up so, and \
             run this again",
        ));
    }
    Ok(settings(options)
        .filter(|(name, _)| is(name, "max_connections"))
        .filter_map(|(_, value)| value.parse().ok())
        .last())
}

/// Whether a word, or a script in one, names a data directory.
fn names_data(word: &str) -> bool {
    let mut parts = word.split(|c: char| c.is_whitespace() || "\"';&|()".contains(c));
    parts.any(|part| {
        let name = part.split('=').next().unwrap_or_default();
        let name = name.strip_prefix("--").or_else(|| name.strip_prefix("-c")).unwrap_or(name);
        part.starts_with("-D") || is(name, "data_directory")
    })
}

/// The settings among the options of `postgres`, in order.
fn settings(options: &[String]) -> impl Iterator<Item = (&str, &str)> {
    let before = std::iter::once("").chain(options.iter().map(String::as_str));
    before.zip(options).filter_map(|(before, word)| {
        let setting = match before {
            "-c" => word,
            "-N" => return Some(("max_connections", word.trim())),
            _ => match word.strip_prefix("-N").filter(|number| !number.is_empty()) {
                Some(number) => return Some(("max_connections", number.trim())),
                None => word.strip_prefix("--").or_else(|| word.strip_prefix("-c"))?,
            },
        };
        let (name, value) = setting.split_once('=')?;
        Some((name.trim(), value.trim().trim_matches('\'')))
    })
}

/// As PostgreSQL compares names of settings, where hyphens stand for underscores.
fn is(name: &str, setting: &str) -> bool {
    name.replace('-', "_").eq_ignore_ascii_case(setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(command: &[&str], args: &[&str]) -> Result<Option<u16>> {
        let words = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
        connections(&Container { command: words(command), args: words(args), ..Container::default() })
    }

    #[test]
    fn the_number_of_sessions_is_read_as_postgres_reads_it() {
        for args in [
            &["-c", "max_connections=300"] as &[&str],
            &["postgres", "-c", "max_connections=300", "-c", "shared_buffers=1GB"],
            &["-N", "300"],
            &["-N300"],
            &["--max-connections=300"],
            &["--max_connections=300"],
            &["-c", "max_connections = 300"],
            &["-c", "Max_Connections='300'"],
            &["-cmax_connections=300"],
            &["-cmax_connections=200", "-N", "300"],
        ] {
            assert_eq!(of(&[], args).unwrap(), Some(300), "{args:?}");
        }
        assert_eq!(of(&["/usr/local/bin/docker-entrypoint.sh"], &["postgres", "-N", "300"]).unwrap(), Some(300));
        assert_eq!(of(&["postgres"], &["-c", "log_connections=on"]).unwrap(), None);
        assert_eq!(of(&[], &[]).unwrap(), None);
    }

    #[test]
    fn words_that_may_put_the_data_elsewhere_are_not_guessed_at() {
        let refused = |command: &[&str], args: &[&str]| {
            let error = of(command, args).unwrap_err();
            assert_eq!(error.code(), "adopt_unclear", "{command:?} {args:?}");
            assert!(error.hint().unwrap().contains("run this again"), "{error:?}");
            error.to_string()
        };
        for args in [
            &["-D", "/var/lib/postgresql/data/x"] as &[&str],
            &["-D/var/lib/postgresql/data/x"],
            &["postgres", "--data-directory=/x"],
            &["-c", "data_directory=/x"],
            &["-c", "DATA_DIRECTORY = /x"],
            &["-cdata_directory=/x"],
            &["sh", "-c", "exec postgres -D /x"],
            &["sh", "-c", "exec postgres --data_directory='/x'"],
        ] {
            assert!(refused(&[], args).contains("where its data are"), "{args:?}");
            assert!(refused(args, &[]).contains("where its data are"), "{args:?}");
        }
        assert!(refused(&["/bin/sh", "-c"], &["exec docker-entrypoint.sh postgres"]).contains("/bin/sh"));
        assert!(refused(&[], &["bash", "-c", "docker-entrypoint.sh postgres"]).contains("bash"));
        assert!(refused(&["/start.sh"], &[]).contains("/start.sh"));
        assert!(refused(&[], &["-c", "max_connections=$(SESSIONS)"]).contains("variables"));
    }
}
