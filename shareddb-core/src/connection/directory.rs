//! A Secret as a directory: the way kubelet mounts it, and the way the directory store writes it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::draft::{Draft, Part, Shortfall};
use super::{ConnectionConfig, RootCertificate, SslMode, url};
use crate::error::{Error, Result};
use crate::file;

/// The symbolic link whose replacement swaps all keys at once.
const VERSION_LINK: &str = "..data";
const CERTIFICATE_KEY: &str = "ca.crt";
/// A Secret changes about once a month; to see this many changes in a row something is broken.
const ATTEMPTS: usize = 100;

/// Keys that must agree when both are there, then keys that other writers use instead.
const KEYS: [(Part, [&str; 2], Option<&str>); 6] = [
    (Part::Host, ["DB_HOST", "host"], None),
    (Part::Port, ["DB_PORT", "port"], None),
    (Part::Database, ["DB_NAME", "database"], Some("dbname")),
    (Part::User, ["DB_USER", "username"], Some("user")),
    (Part::Password, ["DB_PASSWORD", "password"], None),
    (Part::SslMode, ["DB_SSLMODE", "sslmode"], None),
];
const URL_KEYS: [&str; 2] = ["DATABASE_URL", "uri"];

type Files = BTreeMap<&'static str, Vec<u8>>;

/// The outer error: the directory cannot be read. The inner: what it holds is no connection.
pub(super) fn read(directory: &Path) -> Result<Result<ConnectionConfig, Shortfall>> {
    Ok(keys_of(directory)?.map(|mut config| {
        config.directory = Some(directory.to_owned());
        config
    }))
}

fn keys_of(directory: &Path) -> Result<Result<ConnectionConfig, Shortfall>> {
    let files = snapshot(directory)?;
    // The path is the one that stays, so that who is told of it follows a replaced certificate.
    let certificate = files
        .get(CERTIFICATE_KEY)
        .map(|pem| RootCertificate::pem(pem.clone()).with_path(directory.join(CERTIFICATE_KEY)));
    Ok(from_files(&files, certificate))
}

/// The keys of a Secret that nobody has mounted.
#[cfg(all(feature = "kubernetes", feature = "pool"))]
pub(super) fn from_keys<'a>(key: impl Fn(&str) -> Option<&'a [u8]>) -> Result<ConnectionConfig, Shortfall> {
    let files: Files = known_keys().filter_map(|name| Some((name, key(name)?.to_owned()))).collect();
    let certificate = files.get(CERTIFICATE_KEY).map(|pem| RootCertificate::pem(pem.clone()));
    from_files(&files, certificate)
}

fn from_files(files: &Files, certificate: Option<RootCertificate>) -> Result<ConnectionConfig, Shortfall> {
    let mut draft = Draft::default();
    let text = |key: &'static str| files.get(key).map(|bytes| (key, value(bytes)));
    let has_parts = KEYS
        .iter()
        .filter(|(part, ..)| *part != Part::SslMode)
        .any(|(_, keys, other)| keys.iter().chain(other).any(|key| files.contains_key(key)));
    if let (false, Some((key, value))) = (has_parts, URL_KEYS.into_iter().find_map(text)) {
        return from_url(key, value, certificate);
    }
    for (part, [first, second], other) in KEYS {
        match (text(first), text(second), other.and_then(text)) {
            (Some((_, Some(a))), Some((_, Some(b))), _) if a != b => {
                draft.fault_with(format!("{first} and {second} differ"), "make both keys agree, or remove one of them");
                draft.put(part, first, a);
            }
            (Some((key, value)), _, _) | (None, Some((key, value)), _) | (None, None, Some((key, value))) => {
                match value {
                    Some(value) => draft.put(part, key, value),
                    None => draft.fault(format!("{key} is not UTF-8")),
                }
            }
            (None, None, None) => {}
        }
        if !matches!(part, Part::Port | Part::SslMode) {
            draft.require(part, first);
        }
    }
    if let Some(certificate) = certificate {
        draft.put_certificate(certificate);
    }
    draft.finish()
}

fn from_url(
    key: &str,
    value: Option<&str>,
    certificate: Option<RootCertificate>,
) -> Result<ConnectionConfig, Shortfall> {
    let Some(value) = value else {
        let mut draft = Draft::default();
        draft.fault(format!("{key} is not UTF-8"));
        return draft.finish();
    };
    let config = url::read(value)?;
    Ok(match (certificate, config.ssl_mode) {
        (Some(certificate), mode) => config.with_tls(mode.unwrap_or(SslMode::VerifyFull), Some(certificate)),
        (None, _) => config,
    })
}

/// A file's value: one newline at the end is the editor's, not the value's.
pub(super) fn value(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    Some(text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text)))
}

/// All keys of one version.
///
/// A writer removes an old version only after the link points to a new one. So when the link has
/// not moved after the listing, the listing was whole, and a file that is then missing means: again.
fn snapshot(directory: &Path) -> Result<Files> {
    for _ in 0..ATTEMPTS {
        let version = version(directory)?;
        let base = version.as_ref().map_or_else(|| directory.to_owned(), |target| directory.join(target));
        let listed = list(&base);
        if self::version(directory)? != version {
            continue;
        }
        let keys = listed.map_err(|source| Error::from_io(format!("cannot read {}", directory.display()), source))?;
        match keys.into_iter().map(|key| Ok((key, file::read(&base.join(key))?))).collect::<io::Result<Files>>() {
            Ok(files) => return Ok(files),
            Err(error) if error.kind() == ErrorKind::NotFound && self::version(directory)? != version => {}
            Err(source) => {
                return Err(Error::from_io(format!("cannot read a file in {}", directory.display()), source));
            }
        }
    }
    Err(Error::unavailable("directory_unstable", format!("{} changes faster than it can be read", directory.display()))
        .with_hint("see what keeps replacing it"))
}

fn version(directory: &Path) -> Result<Option<PathBuf>> {
    match fs::read_link(directory.join(VERSION_LINK)) {
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
        let name = entry?.file_name();
        keys.extend(known_keys().find(|key| name == **key));
    }
    Ok(keys)
}

fn known_keys() -> impl Iterator<Item = &'static str> {
    let parts = KEYS.iter().flat_map(|(_, keys, other)| keys.iter().chain(other));
    parts.chain(&URL_KEYS).chain([&CERTIFICATE_KEY]).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

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

    fn publish(directory: &Path, generation: usize) {
        let name = format!("..{generation}");
        let version = directory.join(&name);
        fs::create_dir(&version).unwrap();
        for (key, value) in [("DB_HOST", "h"), ("DB_NAME", "d")] {
            fs::write(version.join(key), value).unwrap();
        }
        fs::write(version.join("DB_USER"), format!("u{generation}")).unwrap();
        fs::write(version.join("DB_PASSWORD"), format!("p{generation}")).unwrap();
        symlink(&name, directory.join("..next")).unwrap();
        fs::rename(directory.join("..next"), directory.join("..data")).unwrap();
        if generation > 0 {
            fs::remove_dir_all(directory.join(format!("..{}", generation - 1))).unwrap();
        }
    }

    #[test]
    fn no_torn_pair_is_read_while_versions_change() {
        let directory = tempfile::tempdir().unwrap();
        publish(directory.path(), 0);
        let finished = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for generation in 1..500 {
                    publish(directory.path(), generation);
                }
                finished.store(true, Ordering::Release);
            });
            while !finished.load(Ordering::Acquire) {
                let config = ConnectionConfig::from_directory(directory.path()).unwrap();
                assert_eq!(config.user()[1..], config.password().unwrap().expose_secret()[1..]);
            }
        });
        assert_eq!(ConnectionConfig::from_directory(directory.path()).unwrap().user(), "u499");
    }
}
