//! The file `shareddb.toml`, which names environments.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;

use super::entry::Entry;
use super::location::{NAME, places, trusted};
use super::{Environment, LOCAL, Place, invalid};
use crate::error::{Error, Result};
use crate::file;
#[cfg(feature = "local")]
use crate::local::LocalHome;
use crate::names::EnvironmentName;

const VARIABLE: &str = "SHAREDDB_ENV";
/// These exist without a file, as namespaces of the same name.
const KNOWN: [&str; 2] = ["production", "stage"];

/// The environments that are known here: those of `shareddb.toml`, `production` and `stage`, and `local`.
///
/// ```
/// use shareddb_core::Environments;
///
/// let text = r#"
///     default = "shop"
///     [env.shop]
///     admin_url = "postgresql://postgres@db.example:5432/postgres?sslmode=verify-full"
///     admin_password_env = "SHOP_ADMIN_PASSWORD"
///     store = "dir:/srv/secrets"
/// "#;
/// let environments = Environments::parse(text, |_| None)?;
/// assert_eq!(environments.chosen()?.as_str(), "shop");
/// # Ok::<(), shareddb_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Environments {
    /// The file itself, for messages, and for paths that are relative to it.
    path: Option<PathBuf>,
    file: File,
    /// What the variable said, when it was set.
    variable: Option<String>,
    passwords: BTreeMap<String, SecretString>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Option<EnvironmentName>,
    #[serde(default)]
    env: BTreeMap<EnvironmentName, Entry>,
}

impl Environments {
    /// Reads the file `shareddb.toml` in the working directory or the nearest folder above it; else `config.toml` in
    /// `SHAREDDB_HOME`, or, where that is not set, in `shareddb` under `$XDG_CONFIG_HOME` or `~/.config`. `SHAREDDB_ENV`
    /// chooses an environment. That there is no file is not an error; an empty variable counts as unset.
    ///
    /// # Errors
    /// `InvalidInput` when the file cannot be understood, and those of reading it.
    pub fn from_env() -> Result<Self> {
        if let Some(value) = env::var_os(VARIABLE).filter(|value| value.to_str().is_none()) {
            let message = format!("{VARIABLE} holds {value:?}, which no environment is called");
            return Err(Error::invalid_input("name_invalid", message));
        }
        for path in places() {
            match file::read_text(&path) {
                Ok(text) => return Self::read(path, &text),
                // A link that leads nowhere is somebody's mistake.
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) && !path.is_symlink() => {
                }
                Err(error) => return Err(unreadable(&path, error)),
            }
        }
        Self::parse("", variable)
    }

    /// Reads this file and looks for no other. `SHAREDDB_ENV` chooses an environment, as for [`Self::from_env`].
    ///
    /// # Errors
    /// `NotFound` when it is not there, `InvalidInput` when it cannot be understood, and those of reading it.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let text = file::read_text(&path).map_err(|error| unreadable(&path, error))?;
        Self::read(path, &text)
    }

    fn read(path: PathBuf, text: &str) -> Result<Self> {
        trusted(&path)?;
        let mut environments = Self::parse(text, variable).map_err(|error| within(&path, error))?;
        environments.path = Some(path);
        Ok(environments)
    }

    /// Reads the text of such a file. `variable` knows environment variables: `SHAREDDB_ENV`, and those that the text
    /// names for passwords.
    ///
    /// # Errors
    /// `InvalidInput` with the line that cannot be understood.
    pub fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let file: File = toml::from_str(text).map_err(|error| {
            // Not the whole error: it shows the line, and there may be a password on it.
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            invalid(format!("line {line}: {}", without_values(error.message())))
        })?;
        if file.env.keys().any(|name| name.as_str() == LOCAL) {
            return Err(invalid(format!("[env.{LOCAL}] cannot be changed: it is the embedded server")));
        }
        let names = file.env.values().filter_map(|entry| entry.admin_password_env.clone());
        let passwords = names.filter_map(|name| variable(&name).map(|value| (name, value.into()))).collect();
        Ok(Self { path: None, variable: variable(VARIABLE), passwords, file })
    }

    /// The file that was read, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The environment to use when nobody says otherwise: the one in `SHAREDDB_ENV`, else the file's default, else `local`.
    ///
    /// # Errors
    /// `InvalidInput` when no environment can have that name.
    pub fn chosen(&self) -> Result<EnvironmentName> {
        match (&self.variable, &self.file.default) {
            (Some(name), _) => name.parse(),
            (None, Some(name)) => Ok(name.clone()),
            (None, None) => LOCAL.parse(),
        }
    }

    /// Every name that [`Self::environment`] knows.
    pub fn names(&self) -> Vec<String> {
        let named = self.file.env.keys().map(ToString::to_string).filter(|name| !KNOWN.contains(&name.as_str()));
        [LOCAL].iter().chain(&KNOWN).map(ToString::to_string).chain(named).collect()
    }

    /// One environment. Nothing is asked or connected to.
    ///
    /// # Errors
    /// `NotFound` when there is none of that name, `InvalidInput` when what the file says of it cannot be.
    pub fn environment(&self, name: &EnvironmentName) -> Result<Environment> {
        if name.as_str() == LOCAL {
            #[cfg(feature = "local")]
            return Environment::local(LocalHome::from_env()?);
            #[cfg(not(feature = "local"))]
            return Err(Error::not_found("env_unknown", "this program was built without the embedded server"));
        }
        let entry = match self.file.env.get(name) {
            Some(entry) => entry.clone(),
            None if KNOWN.contains(&name.as_str()) => Entry::default(),
            None => {
                return Err(Error::not_found("env_unknown", format!("there is no environment {name}"))
                    .with_hint(format!("there are {}; {NAME} can name more: [env.{name}]", self.names().join(", "))));
            }
        };
        let (protected, backup_image) = (entry.protected, entry.backup_image.clone());
        let folder = self.path.as_deref().and_then(Path::parent);
        let in_file = |error: Error| match &self.path {
            Some(path) => within(path, error),
            None => error,
        };
        let backups = entry.backups(name, folder).map_err(in_file)?;
        let remote = entry.remote(name, folder, &self.passwords).map_err(in_file)?;
        let place = Place::Remote(Box::new(remote));
        Ok(Environment { name: name.clone(), protected, backups, backup_image, place })
    }
}

/// A message of the parser without what it quotes: in the wrong place that may be a URL with a password.
fn without_values(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &message[..first], &message[last + 1..]),
        _ => message.to_owned(),
    }
}

/// A variable of this process; an empty one counts as unset.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::from_io(format!("cannot read {}", path.display()), error)
}

/// The same error, with the file that it is in.
fn within(path: &Path, error: Error) -> Error {
    let hint = error.hint().map(str::to_owned);
    let error = invalid(format!("{} is not valid", path.display())).with_source(error);
    hint.into_iter().fold(error, Error::with_hint)
}

#[cfg(test)]
mod tests {
    use super::super::entry::ADMIN_SECRET;
    use super::super::remote::{Password, Remote, Store};
    use super::*;

    fn parse(text: &str) -> Result<Environments> {
        Environments::parse(text, |name| (name == "SET").then(|| "m4rker".to_owned()))
    }

    fn environment(text: &str, name: &str) -> Result<Environment> {
        parse(text)?.environment(&name.parse()?)
    }

    fn remote(text: &str, name: &str) -> Remote {
        match environment(text, name).unwrap().place {
            Place::Remote(remote) => *remote,
            #[cfg(feature = "local")]
            Place::Local(_) => panic!("{name} is local"),
        }
    }

    #[test]
    fn production_and_stage_exist_without_a_file() {
        for name in KNOWN {
            let remote = remote("", name);
            assert_eq!(remote.namespace.as_ref().unwrap().as_str(), name);
            assert_eq!(remote.published(), (format!("postgres-service.{name}.svc.cluster.local"), 5432));
            assert!(matches!(&remote.password, Password::Secret { name, key: None } if name.as_str() == ADMIN_SECRET));
            assert!(matches!(remote.store, Store::Kubernetes) && remote.needs_cluster());
        }
        let error = environment("", "else").unwrap_err();
        assert_eq!(error.code(), "env_unknown");
        assert!(error.hint().unwrap().contains("local, production, stage"));
    }

    #[test]
    fn a_file_can_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.toml");
        assert!(matches!(Environments::from_file(&path), Err(Error::NotFound(_))));
        std::fs::write(&path, "default = 'shop'\n[env.shop]\nadmin_url = 'postgresql://a@h/d'\nstore = 'dir:s'")
            .unwrap();
        let environments = Environments::from_file(&path).unwrap();
        assert_eq!(environments.path(), Some(path.as_path()));
        assert!(environments.environment(&"shop".parse().unwrap()).is_ok());
        std::fs::write(&path, "[env.shop]\nm4rker = 1").unwrap();
        let error = Environments::from_file(&path).unwrap_err();
        assert!(error.code() == "env_file_invalid" && error.to_string().contains("other.toml"), "{error:?}");
    }

    #[test]
    fn the_variable_comes_before_the_file() {
        let chosen = |text: &str, variable: Option<&str>| {
            let environments =
                Environments::parse(text, |name| variable.filter(|_| name == VARIABLE).map(str::to_owned));
            environments.unwrap().chosen().map(|name| name.to_string())
        };
        assert_eq!(chosen("", None).unwrap(), "local");
        assert_eq!(chosen("default = 'stage'", None).unwrap(), "stage");
        assert_eq!(chosen("default = 'stage'", Some("production")).unwrap(), "production");
        assert!(chosen("", Some("No Name")).is_err());
    }

    #[test]
    fn what_is_said_of_a_namespace_counts() {
        let text = "[env.production]\ncontext = 'c'\nnamespace = '7-n'\nprotected = true\nhostaddr = '127.0.0.1:15432'\n\
                    cluster_domain = 'k8s.example'\nadmin_password_secret = 'pg/POSTGRES_PASSWORD'\nbackups = 's3://b'";
        let found = remote(text, "production");
        assert_eq!(found.published(), ("postgres-service.7-n.svc.k8s.example".to_owned(), 5432));
        assert!(matches!(&found.password, Password::Secret { key: Some(key), .. } if key == "POSTGRES_PASSWORD"));
        assert!(found.route.is_some());
        assert!(environment(text, "production").unwrap().is_protected());
        assert_eq!(environment(text, "production").unwrap().backups().unwrap(), "s3://b");
        let unset = environment(text, "stage").unwrap().backups().unwrap_err();
        assert!(unset.code() == "backups_unset" && unset.hint().unwrap().contains("[env.stage]"), "{unset:?}");
        let elsewhere = environment(text, "stage").unwrap().with_backups("/srv/b").unwrap();
        assert_eq!(elsewhere.backups().unwrap(), "file:///srv/b");
        assert!(!environment(text, "stage").unwrap().is_protected());
    }

    #[test]
    fn a_plain_server_has_its_own_names() {
        let text = "[env.shop]\nadmin_url = 'postgresql://adm@db.example:6432/defaultdb?sslmode=require'\nhost = 'db'\n\
                    port = 5433\nadmin_password_env = 'SET'\nstore = 'dir:secrets'";
        let found = remote(text, "shop");
        assert_eq!(found.published(), ("db".to_owned(), 5433));
        assert!(!found.needs_cluster());
        assert!(matches!(&found.store, Store::Directory(path) if path.ends_with("secrets")));
        assert!(matches!(&found.password, Password::Variable { value: Some(_), .. }));
        assert!(!format!("{:?}", parse(text).unwrap()).contains("m4rker"));
        let kubernetes = text.replace("dir:secrets", "kubernetes").replace("host = 'db'", "namespace = 'n'");
        assert!(remote(&kubernetes, "shop").needs_cluster());
        assert_eq!(remote(&kubernetes, "shop").published(), ("db.example".to_owned(), 5433));
    }

    #[test]
    fn what_cannot_be_is_refused_and_shows_no_password() {
        for (text, expected) in [
            ("[env.x]\nnamespaec = 'n'", "line 2"),
            ("[env.local]\n", "embedded server"),
            ("[env.x]\nadmin_url = 'postgresql://a:m4rker@h/d'", "holds a password"),
            ("[env.x]\nadmin_url = 'postgresql://a:m4r@ker@h/d'", "cannot be used"),
            ("[env.x]\nbackups = 's3://a:m4rker@b'", "backups cannot be used"),
            ("[env.x]\nbackups = 's3://b?m4rker'", "a place and nothing else"),
            ("[env.x]\nadmin_url = 'm4rker", "line 2"),
            ("[env.x]\nadmin_url = 7", "line 2"),
            ("[env.x]\nadmin_password_file = 'a'\nadmin_password_env = 'B'", "one place only"),
            ("[env.x]\nhostaddr = 'db.example'", "no address"),
            ("[env.x]\nstore = 'etcd'", "neither"),
            ("[env.x]\ncluster_domain = 'k8s example'", "no domain"),
            ("[env.x]\ncluster_domain = 'k8s.'", "no domain"),
            ("[env.x]\nhost = 'a b'", "host or port"),
            ("[env.x]\nhost = ''", "host or port"),
            ("[env.x]\nhost = 'h:1'", "a port has a key"),
            ("[env.x]\nport = 0", "host or port"),
            ("[env]\nx = 'postgresql://a:m4rker@h/d'", "line 2"),
            ("[env.x]\nport = 'postgresql://a:m4rker@h/d'", "line 2"),
            ("default = 'postgresql://a:m4rker@h/d'", "line 1"),
            ("[env.x]\nnamespace = 'No'", "line 2"),
            ("[env.'No']\n", "line 1"),
            ("[env.x]\nport = 70000", "line 2"),
        ] {
            let error = environment(text, "x").unwrap_err();
            let shown = format!("{error} {:?} {:?} {error:?}", error.hint(), error.causes());
            assert!(matches!(error, Error::InvalidInput(_)) && shown.contains(expected), "{text}: {shown}");
            assert!(!shown.contains("m4r") && !shown.contains("ker"), "{text}: {shown}");
        }
    }

    #[test]
    fn flags_of_a_cluster_mean_nothing_elsewhere() {
        let plain = environment("[env.x]\nadmin_url = 'postgresql://a@h/d'\nstore = 'dir:s'", "x").unwrap();
        #[cfg(feature = "kubernetes")]
        {
            assert_eq!(plain.clone().with_context("c").unwrap_err().code(), "not_in_kubernetes");
            let moved = environment("", "stage").unwrap().with_namespace("other".parse().unwrap()).unwrap();
            assert!(format!("{moved:?}").contains("other"));

            let routed = || environment("[env.stage]\nhostaddr = '127.0.0.1'\ncontext = 'c'", "stage").unwrap();
            let has_way = |environment: Result<Environment>| match environment.unwrap().place {
                Place::Remote(remote) => remote.route.is_some(),
                #[cfg(feature = "local")]
                Place::Local(_) => panic!("it is not local"),
            };
            assert!(has_way(Ok(routed())) && has_way(routed().with_context("c")));
            assert!(has_way(routed().with_namespace("stage".parse().unwrap())));
            assert!(!has_way(routed().with_context("d")) && !has_way(routed().with_kubeconfig("/k")));
            assert!(!has_way(routed().with_namespace("other".parse().unwrap())));
        }
        assert_eq!(plain.name().as_str(), "x");
    }
}
