//! Where a store is, as a URL says it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::error::{Error, Result};

/// One part of an upload has to get through in this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(180);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// With the pauses in between that is some twenty seconds of a store that answers nothing.
const RETRIES: usize = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// A store and the folder in it.
pub(crate) struct Location {
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) root: Path,
    /// The URL, for people.
    pub(crate) shown: String,
    /// The folder on this machine's disk, if it is one.
    pub(crate) folder: Option<PathBuf>,
}

/// Which kind of store an address is of, and where in it.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
}

impl<'a> Address<'a> {
    fn parse(url: &'a str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| unknown(url))?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        // What is behind these is no part of a place, and may be a password.
        if rest.contains(['@', '?', '#', '\\']) || rest.chars().any(char::is_control) {
            return Err(Error::invalid_input("store_url_invalid", "the URL of a store is a place and nothing else")
                .with_hint("credentials are given by the environment: AWS_…, GOOGLE_…, AZURE_…"));
        }
        Ok(Self { scheme, host, path })
    }

    /// The address with a bucket in it.
    fn bucket(&self) -> Result<&'a str> {
        if self.host.is_empty() {
            return Err(Error::invalid_input(
                "store_url_invalid",
                format!("{}:// is followed by no bucket", self.scheme),
            )
            .with_hint(format!("write {}://BUCKET/FOLDER", self.scheme)));
        }
        Ok(self.host)
    }
}

/// The place that `url` names, reached with these settings: the variables that the programs of the vendors read.
///
/// # Errors
/// `InvalidInput` for a URL of another kind, or settings that contradict each other. Nothing is touched yet.
pub(crate) fn locate(url: &str, settings: &[(String, String)]) -> Result<Location> {
    let address = Address::parse(url)?;
    let failed = |source| Error::from_store(format!("cannot use {}", shown(&address)), source);
    let objects: Arc<dyn ObjectStore> = match address.scheme {
        "file" => return folder(&address),
        "memory" => Arc::new(InMemory::new()),
        "s3" => {
            let builder = AmazonS3Builder::new()
                .with_bucket_name(address.bucket()?)
                .with_client_options(client())
                .with_retry(retry());
            let builder =
                chosen("AWS_", settings).fold(builder, |builder, (key, value)| builder.with_config(key, value));
            Arc::new(builder.build().map_err(failed)?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::new()
                .with_bucket_name(address.bucket()?)
                .with_client_options(client())
                .with_retry(retry());
            let builder =
                chosen("GOOGLE_", settings).fold(builder, |builder, (key, value)| builder.with_config(key, value));
            Arc::new(builder.build().map_err(failed)?)
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::new()
                .with_container_name(address.bucket()?)
                .with_client_options(client())
                .with_retry(retry());
            let builder =
                chosen("AZURE_", settings).fold(builder, |builder, (key, value)| builder.with_config(key, value));
            Arc::new(builder.build().map_err(failed)?)
        }
        _ => return Err(unknown(url)),
    };
    Ok(Location { objects, root: root(address.path)?, shown: shown(&address), folder: None })
}

/// The settings that are for this vendor. What it does not know is some other program's.
fn chosen<K: std::str::FromStr>(
    prefix: &'static str,
    settings: &[(String, String)],
) -> impl Iterator<Item = (K, String)> {
    let of_vendor = settings.iter().filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty());
    of_vendor.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.clone())))
}

fn client() -> ClientOptions {
    ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT)
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: FIRST_PAUSE, base: 3.0, ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: RETRIES, ..RetryConfig::default() }
}

fn folder(address: &Address<'_>) -> Result<Location> {
    if !address.host.is_empty() {
        let message = format!("{} names a machine, and a folder is on this one", shown(address));
        return Err(
            Error::invalid_input("store_url_invalid", message).with_hint("write three slashes: file:///path/to/folder")
        );
    }
    let root = root(address.path)?;
    // From the root of the disk, since a prefix would have to be there already.
    let files = LocalFileSystem::new().with_fsync(true);
    let folder = files
        .path_to_filesystem(&root.clone().join("x"))
        .map_err(|source| Error::from_store(shown(address), source))?;
    let folder = folder.parent().map(PathBuf::from);
    Ok(Location { objects: Arc::new(files), root, shown: shown(address), folder })
}

fn root(path: &str) -> Result<Path> {
    Path::from_url_path(path).map_err(|_| {
        Error::invalid_input("store_url_invalid", format!("{path:?} is no folder of a store"))
            .with_hint("write its path without . and .., and other bytes than letters and digits as %20")
    })
}

fn shown(address: &Address<'_>) -> String {
    format!("{}://{}/{}", address.scheme, address.host, address.path)
}

fn unknown(url: &str) -> Error {
    // The scheme alone: what follows may be anything.
    let scheme = url.split_once("://").map_or("a path", |(scheme, _)| scheme);
    Error::invalid_input("store_url_invalid", format!("{scheme:?} is no kind of store that is known here"))
        .with_hint("write file:///path/to/folder, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or az://CONTAINER/FOLDER")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn urls_are_places() {
        for (url, root) in [
            ("file:///var/lib/backups", "var/lib/backups"),
            ("file:///with%20space", "with space"),
            ("memory:///", ""),
            ("s3://bucket", ""),
            ("s3://bucket/a/b/", "a/b"),
            ("gs://bucket/a", "a"),
        ] {
            let settings = settings(&[("AWS_REGION", "eu-central-1"), ("GOOGLE_SKIP_SIGNATURE", "true")]);
            assert_eq!(locate(url, &settings).unwrap().root.as_ref(), root, "{url}");
        }
        let folder = locate("file:///with%20space/x", &[]).unwrap().folder.unwrap();
        assert_eq!(folder, PathBuf::from("/with space/x"));
    }

    #[test]
    fn what_is_more_than_a_place_is_refused_and_not_repeated() {
        for url in [
            "",
            "/var/lib/backups",
            "backups",
            "ftp://host/m4rker",
            "https://host/m4rker",
            "file://host/folder",
            "file:///a/../b",
            "s3://",
            "s3:///folder",
            "s3://key:m4rker@bucket/folder",
            "s3://bucket/folder?token=m4rker",
            "s3://bucket/folder#m4rker",
            "az://",
        ] {
            let error = locate(url, &[]).err().unwrap();
            assert_eq!(error.code(), "store_url_invalid", "{url}: {error:?}");
            assert!(error.hint().is_some() && !format!("{error:?}").contains("m4rker"), "{error:?}");
        }
    }

    #[test]
    fn settings_of_others_are_not_used() {
        let given = settings(&[
            ("AWS_REGION", "x"),
            ("REGION", "y"),
            ("TIMEOUT", "soon"),
            ("AWS_PAGER", "less"),
            ("AWS_BUCKET", ""),
        ]);
        let used: Vec<_> = chosen::<object_store::aws::AmazonS3ConfigKey>("AWS_", &given).collect();
        assert_eq!(used.len(), 1, "{used:?}");
    }
}
