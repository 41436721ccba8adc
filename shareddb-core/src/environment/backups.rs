//! Where an environment's backups are, as a URL.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::error::{Error, Result};
use crate::names::EnvironmentName;

/// What stands in the path of a URL as it is.
const BARE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The URL of a place: one already, or a folder of this machine, as a path or as `file:PATH`. Paths are relative to `folder`.
///
/// # Errors
/// `InvalidInput` for what is neither, or holds more than a place; it is not repeated, as that may be a password.
pub(super) fn url(text: &str, folder: Option<&Path>) -> Result<String> {
    if let Some((scheme, place)) = text.split_once("://") {
        if scheme == "memory" {
            return Err(invalid("what is kept in memory is gone when the command ends"));
        }
        // What is behind these is no part of a place.
        if place.contains(['@', '?', '#']) {
            return Err(Error::invalid_input("store_url_invalid", "the URL of a store is a place and nothing else")
                .with_hint("credentials are given by the environment: AWS_…, GOOGLE_…, AZURE_…"));
        }
        return Ok(text.to_owned());
    }
    let path = text.strip_prefix("file:").unwrap_or(text);
    if path.is_empty() || is_half_a_url(path) {
        return Err(invalid("that is neither the URL of a store nor a folder"));
    }
    folder_url(&folder.map_or_else(|| PathBuf::from(path), |folder| folder.join(path)))
}

/// The URL of a folder.
///
/// # Errors
/// `InvalidInput` when it is relative and there is no working directory.
pub(super) fn folder_url(path: &Path) -> Result<String> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Error::from_io(format!("cannot resolve {}", path.display()), error))?;
    let mut plain = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    Ok(format!("file://{}", percent_encode(plain.as_os_str().as_bytes(), BARE)))
}

/// `s3:bucket` is a slip and no folder.
fn is_half_a_url(path: &str) -> bool {
    let scheme = path.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| {
        scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    })
}

/// Nobody has said where.
pub(super) fn unset(environment: &EnvironmentName) -> Error {
    let message = format!("it is not said where the backups of environment {environment} are");
    Error::invalid_input("backups_unset", message).with_hint(format!(
        "write backups = \"s3://BUCKET/FOLDER\" (or gs://, az://, a folder) under [env.{environment}] in shareddb.toml, or \
         say it once: --to URL, --from URL"
    ))
}

fn invalid(text: &str) -> Error {
    Error::invalid_input("store_url_invalid", text)
        .with_hint("write s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, az://CONTAINER/FOLDER or a folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<String> {
        url(text, Some(Path::new("/etc/shareddb")))
    }

    #[test]
    fn paths_are_relative_to_the_folder_of_the_file() {
        for (text, expected) in [
            ("backups", "file:///etc/shareddb/backups"),
            ("file:backups", "file:///etc/shareddb/backups"),
            ("./a/../b c", "file:///etc/shareddb/b%20c"),
            ("../b", "file:///etc/b"),
            ("/srv/100%/a@b", "file:///srv/100%25/a%40b"),
            ("file:/srv/x", "file:///srv/x"),
            ("file:///srv/x%20y", "file:///srv/x%20y"),
            ("s3://bucket/folder", "s3://bucket/folder"),
        ] {
            assert_eq!(at(text).unwrap(), expected, "{text}");
        }
        assert!(url("x", None).unwrap().starts_with("file:///"));
    }

    #[test]
    fn what_is_no_place_is_refused_and_not_repeated() {
        for text in ["", "file:", "s3:m4rker", "memory://m4rker", "s3://m4rker:m4rker@bucket", "s3://bucket?m4rker"] {
            let error = at(text).unwrap_err();
            assert_eq!(error.code(), "store_url_invalid", "{text}");
            assert!(error.hint().is_some() && !format!("{error:?}").contains("m4rker"), "{error:?}");
        }
    }
}
