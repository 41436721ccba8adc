//! Whether a directory may be written to, and by nobody else.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::disk;
use super::layout::{Folder, lost};
use crate::error::{Error, Result};
use crate::file::own_uid;

/// Finds out whether a write would succeed, and whether the directory is only ours, without touching the Secret.
pub(super) fn prove(root: &Path, folder: &Folder) -> Result<()> {
    let metadata = match fs::metadata(root) {
        Ok(metadata) => metadata,
        // The first write will make it: what has to be writable is the nearest folder above.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let above = root.ancestors().skip(1).map(or_here).find(|path| path.exists());
            let hint = format!("`sudo install -d -m 700 -o $(id -u) '{}'` makes one of yours", root.display());
            return probe(above.unwrap_or(root), hint).map(drop);
        }
        Err(error) => return Err(disk::fault("look at", root, error)),
    };
    if !metadata.is_dir() {
        return Err(disk::not_a_folder(root));
    }
    private(root, &metadata)?;
    let us = probe(root, own(root))?;
    owned(root, &metadata, us)?;
    let Some(metadata) = folder.metadata()? else { return Ok(()) };
    private(folder.path(), &metadata)?;
    owned(folder.path(), &metadata, us)
}

/// Makes and removes a file, and tells whose it was: ours.
fn probe(dir: &Path, hint: String) -> Result<u32> {
    let path = disk::temporary_in(dir);
    let probed = disk::private_file().create_new(true).open(&path).and_then(|file| file.metadata());
    let removed = disk::remove(&path);
    match probed {
        Ok(metadata) => removed.map(|()| metadata.uid()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(disk::fault("write to", dir, error).with_hint(hint))
        }
        Err(error) => Err(disk::fault("write to", dir, error)),
    }
}

/// Refuses a folder that others may write to.
pub(super) fn exclusive(path: &Path) -> Result<()> {
    fs::metadata(path)
        .map_err(|error| disk::fault("look at", path, error))
        .and_then(|metadata| private(path, &metadata))
}

fn private(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    let mode = metadata.permissions().mode() & 0o777;
    let fault = match mode {
        _ if mode & 0o022 != 0 => "others may write to",
        _ if mode & 0o300 != 0o300 => "its owner may not write to",
        _ => return Ok(()),
    };
    let message = format!("{fault} {} (mode {mode:o})", path.display());
    Err(Error::permission_denied("secret_folder_mode", message)
        .with_hint(format!("`chmod 700 '{}'` leaves it to its owner", path.display())))
}

fn owned(path: &Path, metadata: &fs::Metadata, us: u32) -> Result<()> {
    if metadata.uid() == us {
        return Ok(());
    }
    let message = format!("{} belongs to user id {}, and this is user id {us}", path.display(), metadata.uid());
    Err(Error::permission_denied("secret_folder_owner", message).with_hint(own(path)))
}

/// Whether a folder is ours and lets in nobody else.
pub(super) fn is_closed(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|metadata| is_ours(&metadata) && metadata.mode() & 0o011 == 0)
}

/// Refuses a file of the Secret in `folder` that others may read or that belongs to one of them.
pub(super) fn unexposed(folder: &Path, file: &Path) -> Result<()> {
    let metadata = fs::metadata(file).map_err(|error| lost(file, error))?;
    if is_ours(&metadata) && metadata.mode() & 0o044 == 0 {
        return Ok(());
    }
    let folder = folder.display();
    let message = format!("{} is readable by others, or not ours (mode {:o})", file.display(), metadata.mode() & 0o777);
    Err(Error::permission_denied("secret_exposed", message).with_hint(format!(
        "`sudo chown -R $(id -u) '{folder}' && chmod -R go= '{folder}'` closes it; take the password for known to others"
    )))
}

fn is_ours(metadata: &fs::Metadata) -> bool {
    metadata.uid() == own_uid()
}

fn own(path: &Path) -> String {
    let path = path.display();
    format!("`sudo chown $(id -u) '{path}' && chmod 700 '{path}'` makes it yours; or choose another folder")
}

/// Makes the directory of a store with all above it, for its owner only. That it exists is not an error.
pub(super) fn make_root(root: &Path) -> Result<()> {
    match disk::private_dir().create(root) {
        Ok(()) => disk::sync(root.parent().map_or(Path::new("/"), or_here)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => match root.parent() {
            Some(above) if error.kind() == ErrorKind::NotFound && !above.as_os_str().is_empty() => {
                make_root(above)?;
                make_root(root)
            }
            _ => Err(disk::fault("make", root, error)),
        },
    }
}

/// The parent of a bare name is where we are.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::chown;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn outcome(root: &Path) -> Result<()> {
        prove(root, &Folder::at(root.join("s")))
    }

    #[test]
    fn a_private_directory_will_do_and_is_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("s")).unwrap();
        mode(&dir.path().join("s"), 0o755);
        outcome(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(dir.path().join("s")).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_directory_is_made_by_the_first_write_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        outcome(&root).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        make_root(&root).unwrap();
        make_root(&root).unwrap();
        for path in [&root, root.parent().unwrap()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn others_must_not_be_able_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("s");
        fs::create_dir(&inner).unwrap();
        for (path, bits) in [(dir.path(), 0o770), (dir.path(), 0o1777), (dir.path(), 0o500), (&inner, 0o702)] {
            mode(path, bits);
            let error = outcome(dir.path()).unwrap_err();
            assert_eq!(error.code(), "secret_folder_mode", "{bits:o}");
            assert!(matches!(error, Error::PermissionDenied(_)));
            assert!(error.hint().unwrap().contains(&format!("chmod 700 '{}'", path.display())));
            mode(path, 0o700);
        }
        outcome(dir.path()).unwrap();
    }

    #[test]
    fn somebody_elses_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        // Only root can give a folder away; everybody else has one that is not theirs.
        let root = if chown(dir.path(), Some(12345), None).is_ok() { dir.path() } else { Path::new("/usr") };
        let error = outcome(root).unwrap_err();
        assert!(matches!(error, Error::PermissionDenied(_)), "{error:?}");
        assert!(error.hint().unwrap().contains("chown"));
    }

    #[test]
    fn a_password_that_others_can_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("s");
        let version = folder.join("..1767225600000.0123456789abcdef");
        let file = version.join("DB_PASSWORD");
        fs::create_dir_all(&version).unwrap();
        fs::write(&file, "p").unwrap();
        fs::write(version.join("..shareddb"), "app").unwrap();
        std::os::unix::fs::symlink(version.file_name().unwrap(), folder.join("..data")).unwrap();
        let read = || Folder::at(folder.clone()).read();
        for (root, inner, last, bits, told) in [
            (0o700, 0o755, 0o755, 0o644, false),
            (0o755, 0o700, 0o755, 0o644, false),
            (0o755, 0o755, 0o700, 0o644, false),
            (0o755, 0o755, 0o755, 0o600, false),
            (0o755, 0o755, 0o755, 0o644, true),
            (0o711, 0o710, 0o711, 0o640, true),
        ] {
            for (path, bits) in [(dir.path(), root), (&folder, inner), (&version, last), (&file, bits)] {
                mode(path, bits);
            }
            let error = read().err();
            assert_eq!(error.is_some(), told, "{root:o} {inner:o} {last:o} {bits:o}");
            let Some(error) = error else { continue };
            assert_eq!(error.code(), "secret_exposed");
            assert!(matches!(error, Error::PermissionDenied(_)));
            assert!(error.hint().unwrap().contains(&format!("chmod -R go= '{}'", folder.display())));
        }
        mode(&file, 0o600);
        read().unwrap();
        // Only root can give a file away.
        if chown(&file, Some(12345), None).is_ok() {
            assert_eq!(read().unwrap_err().code(), "secret_exposed");
        }
        fs::remove_file(version.join("..shareddb")).unwrap();
        assert!(read().unwrap().is_some(), "a Secret of somebody else");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn where_nothing_can_be_written_the_right_is_missing() {
        for root in ["/sys", "/sys/none/secrets"] {
            let error = outcome(Path::new(root)).unwrap_err();
            assert!(matches!(error, Error::PermissionDenied(_)), "{error:?}");
            let hint = error.hint().unwrap();
            assert!(!hint.contains("chown $(id -u) '/sys"), "a folder above is not ours to take: {hint}");
        }
    }

    #[test]
    fn a_file_in_the_place_is_a_conflict() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s");
        fs::write(&file, "x").unwrap();
        for root in [&file, &file.join("below"), &dir.path().to_path_buf()] {
            assert!(matches!(outcome(root), Err(Error::Conflict(_))), "{}", root.display());
        }
    }
}
