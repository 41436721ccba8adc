//! Sources that are directories: a mounted Secret, and service bindings (servicebinding.io).

use std::fs;
use std::path::{Path, PathBuf};

use super::environment::{Finding, Lookup, Trouble};
use super::{ConnectionConfig, directory, keys};
use crate::error::{Error, Result};
use crate::file;

/// The directory that is named outright.
pub(super) fn secret_directory(variable: Lookup<'_>) -> Finding {
    let path = variable("SHAREDDB_SECRET_DIR")?;
    Some(mounted("SHAREDDB_SECRET_DIR".to_owned(), Path::new(&path)))
}

fn mounted(name: String, path: &Path) -> (String, Result<ConnectionConfig, Trouble>) {
    let verdict = match directory::read(path) {
        Ok(Ok(config)) => Ok(config),
        Ok(Err(shortfall)) => Err(Trouble::Broken(shortfall.into_error(&format!("{name} ({})", path.display())))),
        Err(error) => Err(Trouble::Broken(error.with_hint(format!("is {name} set to the mounted Secret?")))),
    };
    (name, verdict)
}

/// The one binding that is a PostgreSQL.
pub(super) fn service_binding(variable: Lookup<'_>) -> Finding {
    let root = PathBuf::from(variable("SERVICE_BINDING_ROOT")?);
    let broken = |error: Error| Some(("SERVICE_BINDING_ROOT".to_owned(), Err(Trouble::Broken(error))));
    if let Some(name) = variable("SERVICE_BINDING_NAME") {
        // Such names would leave the root.
        if name.contains('/') || name.starts_with("..") || !is_postgresql(&root.join(&name)) {
            let message = "SERVICE_BINDING_NAME: there is no such service binding whose type is postgresql";
            return broken(
                Error::invalid_input("connection_invalid", message)
                    .with_hint("set it to the name of a directory in SERVICE_BINDING_ROOT, or unset it"),
            );
        }
        return Some(mounted("SERVICE_BINDING_ROOT".to_owned(), &root.join(name)));
    }
    let mut names = match fs::read_dir(&root) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !name.starts_with("..") && is_postgresql(&root.join(name)))
            .collect::<Vec<_>>(),
        Err(source) => {
            return broken(
                Error::from_io("cannot read SERVICE_BINDING_ROOT", source)
                    .with_hint("set SERVICE_BINDING_ROOT to the directory of the bindings, or unset it"),
            );
        }
    };
    names.sort();
    match names.as_slice() {
        // Bindings of other kinds are none of our business.
        [] => None,
        [name] => Some(mounted("SERVICE_BINDING_ROOT".to_owned(), &root.join(name))),
        several => broken(
            Error::invalid_input(
                "connection_ambiguous",
                format!("SERVICE_BINDING_ROOT has several databases: {}", several.join(", ")),
            )
            .with_hint("set SERVICE_BINDING_NAME to one of them"),
        ),
    }
}

fn is_postgresql(binding: &Path) -> bool {
    file::read(&binding.join("type")).is_ok_and(|bytes| keys::value(&bytes) == Some("postgresql"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings(entries: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, kind) in entries {
            let binding = root.path().join(name);
            fs::create_dir(&binding).unwrap();
            let values = [("type", *kind), ("host", *name), ("database", "d"), ("username", "u"), ("password", "p")];
            for (key, value) in values {
                fs::write(binding.join(key), format!("{value}\n")).unwrap();
            }
        }
        root
    }

    fn read(root: &Path, name: Option<&str>) -> Result<ConnectionConfig> {
        ConnectionConfig::from_vars(|variable| match variable {
            "SERVICE_BINDING_ROOT" => Some(root.to_str().unwrap().to_owned()),
            "SERVICE_BINDING_NAME" => name.map(str::to_owned),
            _ => None,
        })
    }

    #[test]
    fn the_only_postgresql_is_taken() {
        let root = bindings(&[("cache", "redis"), ("main", "postgresql")]);
        assert_eq!(read(root.path(), None).unwrap().host(), "main");
        let none = bindings(&[("cache", "redis")]);
        assert_eq!(read(none.path(), None).unwrap_err().code(), "connection_missing");
    }

    #[test]
    fn several_need_a_choice() {
        let root = bindings(&[("b", "postgresql"), ("a", "postgresql"), ("c", "redis")]);
        let error = read(root.path(), None).unwrap_err();
        assert_eq!(error.code(), "connection_ambiguous");
        assert!(error.to_string().ends_with("a, b"), "{error}");
        assert_eq!(read(root.path(), Some("b")).unwrap().host(), "b");
        for wrong in ["c", "d", "../x", "..", "a/../b"] {
            assert_eq!(read(root.path(), Some(wrong)).unwrap_err().code(), "connection_invalid", "{wrong}");
        }
    }

    #[test]
    fn a_directory_that_is_named_must_serve() {
        assert!(matches!(read(Path::new("/nonexistent"), None).unwrap_err(), Error::NotFound(_)));
        let root = bindings(&[("main", "postgresql")]);
        fs::remove_file(root.path().join("main/password")).unwrap();
        let error = ConnectionConfig::from_vars(|variable| match variable {
            "SHAREDDB_SECRET_DIR" => Some(root.path().join("main").to_str().unwrap().to_owned()),
            "DATABASE_URL" => Some("postgresql://u:p@h/d".to_owned()),
            _ => None,
        })
        .unwrap_err();
        assert!(error.to_string().contains("DB_PASSWORD missing"), "{error}");
    }
}
