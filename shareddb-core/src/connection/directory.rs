//! A Secret as a directory: the way kubelet mounts it, and the way the directory store writes it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::draft::Shortfall;
use super::keys::{self, CERTIFICATE, Values};
use super::mount::{self, VERSION_LINK};
use super::provenance::Rotation;
use super::{ConnectionConfig, RootCertificate};
use crate::error::{Error, Result};
use crate::file;

/// A Secret changes about once a month; to see this many changes in a row something is broken.
pub(super) const ATTEMPTS: usize = 100;

/// The outer error: the directory cannot be read. The inner: what it holds is no connection.
pub(super) fn read(directory: &Path) -> Result<Result<ConnectionConfig, Shortfall>> {
    let values = snapshot(directory)?;
    // The path is the one that stays, so that who is told of it follows a replaced certificate.
    let certificate =
        values.get(CERTIFICATE).map(|pem| RootCertificate::pem(pem.clone()).with_path(directory.join(CERTIFICATE)));
    Ok(keys::read(&values, certificate, Rotation::of_folder(directory)).map(|mut config| {
        config.provenance = config.provenance.within(&directory.display().to_string());
        config.provenance.directory = Some(directory.to_owned());
        config
    }))
}

/// All keys of one version.
///
/// A writer removes an old version only after the link points to a new one. So when the link has
/// not moved after the listing, the listing was whole, and a file that is then missing means: again.
fn snapshot(directory: &Path) -> Result<Values> {
    for _ in 0..ATTEMPTS {
        let version = version_of(directory)?;
        let base = version.as_ref().map_or_else(|| directory.to_owned(), |target| directory.join(target));
        let listed = list(&base);
        if version_of(directory)? != version {
            continue;
        }
        let keys = listed.map_err(|source| Error::from_io(format!("cannot read {}", directory.display()), source))?;
        match keys.into_iter().map(|key| Ok((key, file::read(&base.join(key))?))).collect::<io::Result<Values>>() {
            Ok(values) => return Ok(values),
            Err(error) if error.kind() == ErrorKind::NotFound && version_of(directory)? != version => {}
            Err(source) => {
                return Err(Error::from_io(format!("cannot read a file in {}", directory.display()), source));
            }
        }
    }
    Err(Error::unavailable("directory_unstable", format!("{} changes faster than it can be read", directory.display()))
        .with_hint("see what keeps replacing it"))
}

fn version_of(directory: &Path) -> Result<Option<PathBuf>> {
    match mount::version(directory) {
        Ok(target) => Ok(Some(target)),
        // No link: plain files, or a copy in which the link became a directory.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(Some(VERSION_LINK.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::from_io(format!("cannot read {}", directory.display()), source)),
    }
}

fn list(base: &Path) -> io::Result<Vec<&'static str>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(base)? {
        keys.extend(entry?.file_name().to_str().and_then(keys::known));
    }
    Ok(keys)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::connection::SslMode;
    use secrecy::ExposeSecret;
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (key, value) in files {
            fs::write(directory.path().join(key), value).unwrap();
        }
        directory
    }

    const GUIDE: [(&str, &str); 5] =
        [("DB_HOST", "h"), ("DB_PORT", "6543"), ("DB_NAME", "d"), ("DB_USER", "u"), ("DB_PASSWORD", "p\n")];

    #[test]
    fn both_families_of_keys() {
        let guide = ConnectionConfig::from_directory(directory(&GUIDE).path()).unwrap();
        assert_eq!(guide.url().unwrap().expose_secret(), "postgresql://u:p@h:6543/d");
        let binding =
            [("type", "postgresql"), ("host", "h"), ("database", "d"), ("username", "u"), ("password", "p\n\n")];
        let binding = ConnectionConfig::from_directory(directory(&binding).path()).unwrap();
        assert_eq!((binding.port(), binding.password().unwrap().expose_secret()), (5432, "p\n"));
        let url = directory(&[("uri", "postgresql://u:p@h/d\n"), ("ca.crt", "x")]);
        assert_eq!(ConnectionConfig::from_directory(url.path()).unwrap().ssl_mode(), SslMode::VerifyFull);
    }

    #[test]
    fn a_copied_mount_still_reads() {
        let copied = tempfile::tempdir().unwrap();
        fs::create_dir(copied.path().join("..data")).unwrap();
        for (key, value) in GUIDE {
            fs::write(copied.path().join("..data").join(key), value).unwrap();
        }
        assert_eq!(ConnectionConfig::from_directory(copied.path()).unwrap().user(), "u");
    }

    #[test]
    fn a_certificate_is_verified_unless_told_otherwise() {
        for (word, mode) in [
            (None, SslMode::VerifyFull),
            (Some("require"), SslMode::VerifyCa),
            (Some("verify-ca\n"), SslMode::VerifyCa),
            (Some("disable"), SslMode::Disable),
        ] {
            let directory = directory(&GUIDE);
            fs::write(directory.path().join("ca.crt"), "x").unwrap();
            if let Some(word) = word {
                fs::write(directory.path().join("DB_SSLMODE"), word).unwrap();
            }
            let config = ConnectionConfig::from_directory(directory.path()).unwrap();
            assert_eq!(config.ssl_mode(), mode);
            let path = config.root_certificate().map(|certificate| certificate.path().unwrap().to_owned());
            assert_eq!(path, (mode != SslMode::Disable).then(|| directory.path().join("ca.crt")));
        }
    }

    #[test]
    fn all_faults_in_one_error() {
        let faulty = directory(&[("DB_HOST", "h"), ("host", "x"), ("DB_PORT", "m4rker"), ("DB_PASSWORD", "")]);
        fs::write(faulty.path().join("DB_USER"), [0xff]).unwrap();
        let error = ConnectionConfig::from_directory(faulty.path()).unwrap_err();
        let text = error.to_string();
        for expected in ["DB_HOST and host differ", "DB_PORT", "password is empty", "DB_USER is not UTF-8", "DB_NAME"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("m4rker"));
        let missing = ConnectionConfig::from_directory(Path::new("/nonexistent")).unwrap_err();
        assert!(matches!(missing, Error::NotFound(_)));
    }

    /// One version more, put in place as kubelet does it: a folder, a link beside `..data` that takes its place, and the
    /// old folder goes.
    fn publish(directory: &Path, generation: usize) {
        let name = format!("..2026_01_01_00_00_00.{generation}");
        let version = directory.join(&name);
        fs::create_dir(&version).unwrap();
        for (key, value) in
            [("DB_HOST", "h".to_owned()), ("DB_NAME", "d".to_owned()), ("DB_USER", format!("u{generation}"))]
        {
            fs::write(version.join(key), value).unwrap();
        }
        fs::write(version.join("DB_PASSWORD"), format!("p{generation}")).unwrap();
        let before = fs::read_link(directory.join(VERSION_LINK)).ok();
        symlink(&name, directory.join("..data_tmp")).unwrap();
        fs::rename(directory.join("..data_tmp"), directory.join(VERSION_LINK)).unwrap();
        match before {
            Some(before) => fs::remove_dir_all(directory.join(before)).unwrap(),
            None => {
                for key in ["DB_HOST", "DB_NAME", "DB_USER", "DB_PASSWORD"] {
                    symlink(Path::new(VERSION_LINK).join(key), directory.join(key)).unwrap();
                }
            }
        }
    }

    /// Reads a folder while it has one version after the other. No user may come with another's password.
    pub(in crate::connection) fn assert_never_torn(reads: usize, of: impl Fn(&Path) -> ConnectionConfig) {
        let directory = tempfile::tempdir().unwrap();
        publish(directory.path(), 0);
        let (mut torn, mut seen) = (0, BTreeSet::new());
        let written = std::thread::scope(|scope| {
            // Dropped also where reading panics, which would otherwise wait for the writer.
            let reading = Arc::new(());
            let read = Arc::downgrade(&reading);
            let folder = directory.path();
            let writer = scope.spawn(move || {
                let mut generation = 0;
                while read.strong_count() > 0 {
                    generation += 1;
                    publish(folder, generation);
                }
                generation
            });
            for _ in 0..reads {
                let config = of(directory.path());
                torn += usize::from(config.user()[1..] != config.password().unwrap().expose_secret()[1..]);
                seen.insert(config.user().to_owned());
            }
            drop(reading);
            writer.join().unwrap()
        });
        assert_eq!(torn, 0, "of {reads} reads during {written} changes");
        assert!(seen.len() > 100, "{} of {written} versions were seen", seen.len());
    }

    #[test]
    fn no_torn_pair_in_40_000_reads_while_versions_change() {
        assert_never_torn(40_000, |directory| ConnectionConfig::from_directory(directory).unwrap());
    }
}
