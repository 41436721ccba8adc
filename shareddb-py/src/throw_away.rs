//! `ThrowAway`: the folder of an embedded server that is gone with its block.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pyo3::prelude::*;
use shareddb_core::{Environment, Error, LocalEndpoint, Result};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::runtime::wait;
use crate::work::Work;

/// How often a removal begins again because a server that did not end has written meanwhile.
const ATTEMPTS: usize = 10;

/// The folder of an embedded server that is gone with its block. It is made when the server is.
#[derive(Clone)]
pub(crate) struct ThrowAway {
    folder: PathBuf,
    /// Whether we have made the folder. Whoever has the lock makes, starts, stops or removes: one of them ends before the next
    /// begins, also when nobody waits for it any more.
    made: Arc<Mutex<bool>>,
}

impl ThrowAway {
    /// A folder for temporary files that nobody has: its name cannot be guessed.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let above: PathBuf = py.import("tempfile")?.call_method0("gettempdir")?.extract()?;
        let word: String = py.import("secrets")?.call_method1("token_hex", (8,))?.extract()?;
        Ok(Self { folder: above.join(format!("shareddb-{word}")), made: Arc::default() })
    }

    /// Where the server's home is.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("local")
    }

    /// Starts the server, and removes what it made for that when it cannot. A wait that is ended early leaves all this to itself.
    pub(crate) fn start(&self, py: Python<'_>, environment: &Environment) -> PyResult<LocalEndpoint> {
        let (environment, folder) = (environment.clone(), self.folder.clone());
        let mut made = self.turn(py)?;
        let start = async move {
            if *made {
                return environment.deploy().await;
            }
            make(&folder)?;
            *made = true;
            let started = environment.deploy().await;
            if started.is_err() {
                // What kept it from starting is what is to be told.
                *made = end(&environment, folder).await.is_err();
            }
            started
        };
        Work::whole(start).wait(py)
    }

    /// Ends the server, if it can be, and removes the folder in any case.
    pub(crate) fn end(&self, environment: &Environment) -> Work<()> {
        let (environment, folder, made) = (environment.clone(), self.folder.clone(), self.made.clone());
        Work::whole(async move {
            let mut made = made.lock_owned().await;
            if *made {
                end(&environment, folder).await?;
                *made = false;
            }
            Ok(())
        })
    }

    fn turn(&self, py: Python<'_>) -> PyResult<OwnedMutexGuard<bool>> {
        let made = self.made.clone();
        wait(py, async { Ok(made.lock_owned().await) })
    }
}

fn make(folder: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).create(folder);
    // As root the server runs as another user, who must get through.
    let opened = made.and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o711)));
    opened.map_err(|error| Error::from_io(format!("cannot make the folder {}", folder.display()), error))
}

async fn end(environment: &Environment, folder: PathBuf) -> Result<()> {
    if let Some(server) = environment.local_server() {
        // One that does not end notices within a minute that its data are gone.
        let _ = server.stop().await;
    }
    let removed = tokio::task::spawn_blocking(move || removed(&folder)).await;
    removed
        .unwrap_or_else(|broken| Err(broken.into()))
        .map_err(|error| Error::from_io("cannot remove the server", error))
}

fn removed(folder: &Path) -> io::Result<()> {
    for _ in 0..ATTEMPTS {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            result => return result,
        }
    }
    fs::remove_dir_all(folder)
}
