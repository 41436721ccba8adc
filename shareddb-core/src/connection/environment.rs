//! Where an application's environment says its database is.

use std::cell::RefCell;
use std::path::Path;

use secrecy::ExposeSecret;

use super::directory::ATTEMPTS;
use super::draft::{Draft, Part, Shortfall};
use super::guard::GUARDS;
use super::mount::Mounts;
use super::provenance::Rotation;
use super::{ConnectionConfig, binding, keys, service_file, url};
use crate::error::{Error, Result};
use crate::file;

/// How a variable's value is found.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What one source yields; `None` when there is no trace of it.
pub(super) type Finding = Option<(String, Result<ConnectionConfig, Trouble>)>;

pub(super) enum Trouble {
    /// Something is missing and nothing is wrong: a later source may do.
    Incomplete(Shortfall),
    /// The source was meant, and is broken.
    Broken(Error),
}

const SUFFIXES: [(Part, &str); 7] = [
    (Part::Host, "HOST"),
    (Part::Port, "PORT"),
    (Part::Database, "NAME"),
    (Part::User, "USER"),
    (Part::Password, "PASSWORD"),
    (Part::SslMode, "SSLMODE"),
    (Part::SslRootCert, "SSLROOTCERT"),
];

const LIBPQ: [(Part, &str); 11] = [
    (Part::Host, "PGHOST"),
    (Part::HostAddr, "PGHOSTADDR"),
    (Part::Port, "PGPORT"),
    (Part::Database, "PGDATABASE"),
    (Part::User, "PGUSER"),
    (Part::Password, "PGPASSWORD"),
    (Part::SslMode, "PGSSLMODE"),
    (Part::SslRootCert, "PGSSLROOTCERT"),
    (Part::ApplicationName, "PGAPPNAME"),
    (Part::ConnectTimeout, "PGCONNECT_TIMEOUT"),
    (Part::Options, "PGOPTIONS"),
];

/// Reads this process's environment. A variable that is not UTF-8 is a fault once it is asked for.
pub(super) fn read_process() -> Result<ConnectionConfig> {
    let unreadable = RefCell::new(None);
    let outcome = read(&|name| match std::env::var_os(name)?.into_string() {
        Ok(value) => Some(value),
        Err(_) => {
            *unreadable.borrow_mut() = Some(name.to_owned());
            None
        }
    });
    match unreadable.into_inner() {
        Some(name) => Err(Error::invalid_input("connection_invalid", format!("the variable {name} is not UTF-8"))
            .with_hint(format!("set {name} to UTF-8 text, or unset it"))),
        None => outcome,
    }
}

/// Goes through the sources in order.
pub(super) fn read(variable: Lookup<'_>) -> Result<ConnectionConfig> {
    // Compose files and optional Secret keys leave empty variables behind.
    let variable: Lookup<'_> = &|name| variable(name).filter(|value| !value.is_empty());
    let sources: [fn(Lookup<'_>) -> Finding; 6] = [
        binding::secret_directory,
        binding::service_binding,
        database_url,
        |variable| family("DATABASE", variable),
        |variable| family("DB", variable),
        libpq,
    ];
    let mut chosen: Option<(String, ConnectionConfig)> = None;
    let mut incomplete: Vec<(String, Shortfall)> = Vec::new();
    for (name, verdict) in sources.into_iter().filter_map(|source| source(variable)) {
        match (verdict, &mut chosen) {
            (Ok(config), None) => chosen = Some((name, config)),
            (Ok(config), Some((first, first_config))) if !config.differences(first_config).is_empty() => {
                return Err(disagreement(first, first_config, &name, &config));
            }
            // The same place again, perhaps with an older password.
            (Ok(config), Some((first, first_config))) => {
                tracing::debug!(%first, passed_over = %name, "database settings");
                first_config.overshadow(&config);
            }
            (Err(Trouble::Broken(error)), None) => return Err(error),
            (Err(Trouble::Broken(_)), Some((first, first_config))) => {
                tracing::debug!(%first, broken = %name, "database settings");
                first_config.overshadow_unread(&name);
            }
            (Err(Trouble::Incomplete(shortfall)), _) => incomplete.push((name, shortfall)),
        }
    }
    let Some((_, mut config)) = chosen else {
        return Err(match incomplete.into_iter().next() {
            Some((name, shortfall)) => shortfall.into_error(&name),
            None => nothing(),
        });
    };
    incomplete.iter().for_each(|(_, shortfall)| config.overshadow_incomplete(shortfall));
    Ok(config)
}

/// Reads a directory beside which there is a URL, too.
pub(super) fn agreeing(directory: &Path, url: &str) -> Result<ConnectionConfig> {
    let (mut mounted, said) = (ConnectionConfig::from_directory(directory)?, ConnectionConfig::from_url(url)?);
    if !said.differences(&mounted).is_empty() {
        let name = format!("the directory {}", directory.display());
        return Err(disagreement(&name, &mounted, "the URL", &said));
    }
    mounted.overshadow(&said);
    Ok(mounted)
}

fn nothing() -> Error {
    Error::invalid_input("connection_missing", "the environment names no database").with_hint(
        "set DATABASE_URL, or mount the app's Secret and set SHAREDDB_SECRET_DIR to its directory; \
         `shareddb env APP` prints what to set",
    )
}

fn disagreement(first: &str, a: &ConnectionConfig, second: &str, b: &ConnectionConfig) -> Error {
    Error::invalid_input(
        "connection_ambiguous",
        format!("{first} and {second} name different databases: they differ in {}", a.differences(b).join(", ")),
    )
    .with_hint(format!("take away the one that is not meant: {first} or {second}"))
}

fn database_url(variable: Lookup<'_>) -> Finding {
    let mut draft = Draft::default();
    // Only for the faults of a _FILE; the part does not matter.
    if !put_variable(&mut draft, Part::Options, "DATABASE_URL", variable, &mut Mounts::default()) {
        return None;
    }
    let name = "DATABASE_URL";
    let verdict = match draft.into_value(Part::Options) {
        Ok((label, text, rotation)) => url::read(text.expose_secret(), &label, rotation),
        Err(shortfall) => Err(shortfall),
    };
    Some((name.to_owned(), verdict.map_err(|shortfall| Trouble::Broken(shortfall.into_error(name)))))
}

/// `PREFIX_HOST` and so on. A port alone is no trace: Kubernetes sets `DB_PORT` for a Service "db".
fn family(prefix: &str, variable: Lookup<'_>) -> Finding {
    for _ in 0..ATTEMPTS {
        let mut mounts = Mounts::default();
        let finding = members(prefix, variable, &mut mounts);
        if !mounts.has_moved() {
            return finding;
        }
    }
    let message = format!("the files that {prefix}_HOST_FILE and its like name change faster than they can be read");
    let error = Error::unavailable("directory_unstable", message).with_hint("see what keeps replacing them");
    Some((format!("{prefix}_HOST and its like"), Err(Trouble::Broken(error))))
}

/// What the variables say, or the files that they name.
fn members(prefix: &str, variable: Lookup<'_>, mounts: &mut Mounts) -> Finding {
    let mut draft = Draft::default();
    let mut traced = false;
    for (part, suffix) in SUFFIXES {
        let label = format!("{prefix}_{suffix}");
        let found = put_variable(&mut draft, part, &label, variable, mounts);
        traced |= found && matches!(part, Part::Host | Part::Database | Part::User | Part::Password);
        if !matches!(part, Part::Port | Part::SslMode | Part::SslRootCert) && !found {
            draft.require(part, label);
        }
    }
    traced.then(|| judged(format!("{prefix}_HOST and its like"), draft))
}

fn libpq(variable: Lookup<'_>) -> Finding {
    let mut draft = Draft::default();
    let mut traced = false;
    for (part, label) in LIBPQ {
        if let Some(value) = variable(label) {
            traced |= matches!(part, Part::Host | Part::HostAddr | Part::Database | Part::User | Part::Password);
            draft.put(part, label, value);
        }
    }
    for guard in &GUARDS {
        if let Some((name, value)) = guard.variable.and_then(|name| Some((name, variable(name)?))) {
            guard.judge(name, "", &value, &mut draft);
        }
    }
    if let Some(service) = variable("PGSERVICE") {
        traced = true;
        // As in libpq, the section comes before the variables.
        let candidates = [
            variable("PGSERVICEFILE").or_else(|| variable("HOME").map(|home| format!("{home}/.pg_service.conf"))),
            variable("PGSYSCONFDIR").map(|directory| format!("{directory}/pg_service.conf")),
        ];
        let found = candidates
            .iter()
            .flatten()
            .filter_map(|path| Some((Rotation::of_file(path.as_ref()), file::read_text(path.as_ref()).ok()?)))
            .any(|(rotation, text)| service_file::read(&text, &service, rotation, &mut draft));
        if !found {
            draft.fault_with(
                "no service file that can be read has the section that PGSERVICE names",
                "set PGSERVICEFILE to the file with that section, or unset PGSERVICE",
            );
        }
    }
    if !draft.has(Part::HostAddr) {
        draft.require(Part::Host, "PGHOST");
    }
    draft.require(Part::Database, "PGDATABASE");
    draft.require(Part::User, "PGUSER");
    traced.then(|| judged("PGHOST and its like".to_owned(), draft))
}

fn judged(name: String, draft: Draft) -> (String, Result<ConnectionConfig, Trouble>) {
    let verdict = draft.finish().map_err(|shortfall| {
        if shortfall.is_only_incomplete() {
            Trouble::Incomplete(shortfall)
        } else {
            Trouble::Broken(shortfall.into_error(&name))
        }
    });
    (name, verdict)
}

/// Reads `NAME`, or the file that `NAME_FILE` names. `true` when either is set.
fn put_variable(draft: &mut Draft, part: Part, name: &str, variable: Lookup<'_>, mounts: &mut Mounts) -> bool {
    let file_name = format!("{name}_FILE");
    match (variable(name), variable(&file_name)) {
        (None, None) => return false,
        (Some(_), Some(_)) => {
            draft.fault_with(format!("{name} and {file_name} are both set"), format!("unset {name} or {file_name}"));
        }
        (Some(value), None) => draft.put(part, name, value),
        (None, Some(path)) => match mounts.read(path.as_ref()).map(|bytes| keys::value(&bytes).map(str::to_owned)) {
            Ok(Some(value)) => draft.put_rotating(part, file_name, value, Rotation::of_file(path.as_ref())),
            Ok(None) => draft.fault(format!("the file that {file_name} names is not UTF-8")),
            // The path stays unsaid: somebody may have put the password itself there.
            Err(error) => draft.fault(format!("the file that {file_name} names cannot be read: {}", error.kind())),
        },
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::directory;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn from(variables: &[(&str, &str)]) -> Result<ConnectionConfig> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        ConnectionConfig::from_vars(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    const URL: (&str, &str) = ("DATABASE_URL", "postgresql://u:p@h/d");
    const GUIDE: [(&str, &str); 4] = [("DB_HOST", "h"), ("DB_NAME", "d"), ("DB_USER", "u2"), ("DB_PASSWORD", "p2")];

    #[test]
    fn every_source_alone() {
        let long = GUIDE.map(|(name, value)| (name.replace("DB_", "DATABASE_"), value));
        let long: Vec<(&str, &str)> = long.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let libpq = [("PGHOST", "h"), ("PGDATABASE", "d"), ("PGUSER", "u2")];
        let address = [("PGHOSTADDR", "::1"), ("PGDATABASE", "d"), ("PGUSER", "u2"), ("PGAPPNAME", "x")];
        for (variables, user, host) in [
            (&[URL][..], "u", "h"),
            (&GUIDE, "u2", "h"),
            (&long, "u2", "h"),
            (&libpq, "u2", "h"),
            (&address, "u2", "::1"),
        ] {
            let config = from(variables).unwrap();
            assert_eq!((config.user(), config.host(), config.port()), (user, host, 5432), "{variables:?}");
        }
    }

    #[test]
    fn the_first_source_wins_and_nothing_is_mixed() {
        let mut variables = vec![URL, ("DB_PORT", "5432"), ("PGPASSWORD", "other"), ("PGUSER", "other")];
        variables.extend(GUIDE);
        let config = from(&variables).unwrap();
        assert_eq!((config.user(), config.password().unwrap().expose_secret()), ("u", "p"));
        // No password is borrowed from a source that comes later.
        let config = from(&[("DATABASE_URL", "postgresql://u@h/d"), ("PGPASSWORD", "other")]).unwrap();
        assert!(config.password().is_none());
    }

    #[test]
    fn two_different_databases_are_refused() {
        for (name, value, field) in [("DB_HOST", "x", "host"), ("DB_PORT", "1", "port"), ("DB_NAME", "x", "database")] {
            let mut variables = vec![URL];
            variables.extend(GUIDE);
            variables.push((name, value));
            let error = from(&variables).unwrap_err();
            assert_eq!(error.code(), "connection_ambiguous");
            let text = error.to_string();
            assert!(text.contains("DATABASE_URL and DB_HOST") && text.ends_with(field), "{text}");
        }
        let mut variables = vec![URL, ("DB_HOST", "H.")];
        variables.extend(GUIDE.iter().skip(1));
        assert!(from(&variables).is_ok());
    }

    #[test]
    fn what_is_said_outright_counts() {
        let directory = tempfile::tempdir().unwrap();
        let files = [("DB_HOST", "h"), ("DB_NAME", "d"), ("DB_USER", "u2"), ("DB_PASSWORD", "new")];
        files.iter().for_each(|(name, value)| fs::write(directory.path().join(name), value).unwrap());
        let path = Some(directory.path());
        assert_eq!(ConnectionConfig::infer(Some(URL.1), None).unwrap().user(), "u");
        assert_eq!(ConnectionConfig::infer(None, path).unwrap().user(), "u2");
        let both = ConnectionConfig::infer(Some(URL.1), path).unwrap();
        assert_eq!((both.user(), both.password().unwrap().expose_secret()), ("u2", "new"));
        assert!(both.explain().to_string().contains("the URL"), "{}", both.explain());
        let error = ConnectionConfig::infer(Some("postgresql://u:m4rker@h/other"), path).unwrap_err();
        assert_eq!(error.code(), "connection_ambiguous");
        assert!(
            error.to_string().ends_with("differ in database") && !format!("{error:?}").contains("m4rker"),
            "{error}"
        );
    }

    #[test]
    fn incomplete_is_passed_over_and_broken_is_not() {
        assert_eq!(
            from(&[("DB_HOST", "other"), ("PGHOST", "h"), ("PGUSER", "u"), ("PGDATABASE", "d")]).unwrap().host(),
            "h"
        );
        let mut broken = vec![("DATABASE_URL", "mysql://m4rker@h/d")];
        broken.extend(GUIDE);
        let error = from(&broken).unwrap_err();
        assert!(error.to_string().starts_with("DATABASE_URL: "), "{error}");
        assert!(!format!("{error:?}").contains("m4rker"));
        let error = from(&[("DB_HOST", "h"), ("DB_PASSWORD", "m4rker")]).unwrap_err();
        assert!(error.to_string().contains("DB_NAME, DB_USER missing"), "{error}");
        assert!(!format!("{error:?}").contains("m4rker"));
        // Behind a complete source a broken one does not matter.
        assert!(from(&[URL, ("DB_HOST", "h"), ("DB_PORT", "x")]).is_ok());
    }

    #[test]
    fn nothing_found_says_what_to_set() {
        for variables in
            [&[][..], &[("DATABASE_URL", "")], &[("DB_PORT", "tcp://10.0.0.1:5432")], &[("PGSSLMODE", "x")]]
        {
            let error = from(variables).unwrap_err();
            assert_eq!(error.code(), "connection_missing");
            assert!(error.hint().unwrap().contains("DATABASE_URL"));
        }
        let mut linked = GUIDE.to_vec();
        linked.push(("DB_PORT", "tcp://10.0.0.1:5432"));
        assert!(from(&linked).unwrap_err().hint().unwrap().contains("enableServiceLinks"));
    }

    #[test]
    fn values_from_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            fs::write(directory.path().join(name), content).unwrap();
            directory.path().join(name).to_str().unwrap().to_owned()
        };
        let password = file(
            "password", b"p w
",
        );
        let url = file(
            "url",
            b"postgresql://u:p@h/d
",
        );
        let garbage = file("garbage", &[0xff]);
        let config = from(&[GUIDE[0], GUIDE[1], GUIDE[2], ("DB_PASSWORD_FILE", &password)]).unwrap();
        assert_eq!(config.password().unwrap().expose_secret(), "p w");
        assert_eq!(from(&[("DATABASE_URL_FILE", &url)]).unwrap().user(), "u");
        for (name, path, expected) in [
            ("DB_PASSWORD_FILE", password.as_str(), "DB_PASSWORD and DB_PASSWORD_FILE are both set"),
            ("DB_PORT_FILE", "/nonexistent", "DB_PORT_FILE names cannot be read"),
            ("DB_PORT_FILE", garbage.as_str(), "DB_PORT_FILE names is not UTF-8"),
        ] {
            let mut variables = GUIDE.to_vec();
            variables.push((name, path));
            let error = from(&variables).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let error = from(&[URL, ("DATABASE_URL_FILE", &url)]).unwrap_err();
        assert!(error.to_string().contains("both set"), "{error}");
    }

    #[test]
    fn files_of_one_folder_are_of_one_version() {
        directory::tests::assert_never_torn(20_000, |folder| {
            let kept = ["DB_HOST", "DB_NAME", "DB_USER", "DB_PASSWORD"];
            let file = |name: &str| kept.iter().find(|key| name.strip_suffix("_FILE") == Some(**key));
            ConnectionConfig::from_vars(|name| folder.join(file(name)?).to_str().map(str::to_owned)).unwrap()
        });
    }

    #[test]
    fn files_below_a_mounted_folder_and_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir_all(path("mount/..1/login")).unwrap();
        fs::write(path("mount/..1/login/user"), "u").unwrap();
        fs::write(path("mount/password"), "p").unwrap();
        symlink("..1", path("mount/..data")).unwrap();
        symlink("..data/login", path("mount/login")).unwrap();
        let (user, password) = (path("mount/login/user"), path("mount/password"));
        let config = from(&[GUIDE[0], GUIDE[1], ("DB_USER_FILE", &user), ("DB_PASSWORD_FILE", &password)]).unwrap();
        assert_eq!((config.user(), config.password().unwrap().expose_secret()), ("u", "p"));
    }

    #[test]
    fn what_guards_a_connection_is_not_dropped() {
        let libpq = [("PGHOST", "h"), ("PGDATABASE", "d"), ("PGUSER", "u")];
        for (name, value, harmless) in [
            ("PGCHANNELBINDING", "require", Some("prefer")),
            ("PGREQUIREAUTH", "scram-sha-256", None),
            ("PGSSLCERT", "/m4rker", None),
            ("PGSSLKEY", "/m4rker", None),
            ("PGSSLCERTMODE", "require", Some("allow")),
            ("PGSSLCRL", "/m4rker", None),
            ("PGSSLCRLDIR", "/m4rker", None),
            ("PGSSLNEGOTIATION", "direct", Some("postgres")),
            ("PGSSLMINPROTOCOLVERSION", "TLSv1.3", Some("TLSv1.2")),
            ("PGREQUIRESSL", "1", Some("0")),
            ("PGREQUIREPEER", "m4rker", None),
            ("PGGSSENCMODE", "require", Some("disable")),
            ("PGMINPROTOCOLVERSION", "latest", Some("3.0")),
            ("PGTARGETSESSIONATTRS", "read-write", Some("any")),
        ] {
            let with = |value| from(&[&libpq[..], &[(name, value)]].concat());
            let error = with(value).unwrap_err();
            let hint = error.hint().unwrap().to_owned();
            assert_eq!(error.code(), "connection_invalid");
            assert!(error.to_string().contains(name) && hint.contains(name), "{error} {hint}");
            assert!(!format!("{error:?}").contains("m4rker"), "{error:?}");
            assert!(harmless.is_none_or(|value| with(value).is_ok()), "{name}");
        }
        // They belong to libpq's variables, and to no other source.
        assert!(from(&[URL, ("PGCHANNELBINDING", "require")]).is_ok());
    }

    #[test]
    fn a_service_comes_before_the_variables() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pg_service.conf");
        fs::write(
            &path,
            "[app]
host=h
dbname=d
user=u
",
        )
        .unwrap();
        let file = ("PGSERVICEFILE", path.to_str().unwrap());
        let config = from(&[file, ("PGSERVICE", "app"), ("PGUSER", "other"), ("PGPASSWORD", "p")]).unwrap();
        assert_eq!((config.user(), config.password().unwrap().expose_secret()), ("u", "p"));
        assert!(from(&[file, ("PGSERVICE", "other")]).unwrap_err().hint().unwrap().contains("PGSERVICEFILE"));
    }
}
