//! The embedded PostgreSQL of the `local` environment.
//!
//! The server is a process of its own: it outlives the command that started it and ends with
//! [`LocalServer::stop`] or the machine. What is known about it stands in files under a [`LocalHome`].

mod account;
mod admin_password;
mod binaries;
mod data_directory;
mod home;
mod launch;
mod lock;
mod log;
mod os_release;
mod port;
mod postmaster;
mod settings;

use std::path::PathBuf;

use secrecy::SecretString;

pub use binaries::Binaries;
pub use home::LocalHome;

use crate::connection::ConnectionConfig;
use crate::error::Result;
use crate::file::blocking;
use account::Account;
use lock::Lock;

/// The admin role that initdb makes.
const ADMIN: &str = "postgres";
/// Where the server listens.
const HOST: &str = "127.0.0.1";

/// The embedded server: where its things are. Holds no process and no open file.
#[derive(Debug, Clone)]
pub struct LocalServer {
    home: LocalHome,
}

/// How to reach the running server, on 127.0.0.1 and without TLS.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LocalEndpoint {
    /// The TCP port on 127.0.0.1; the same at every start.
    pub port: u16,
    /// The superuser's name.
    pub admin: String,
    /// The superuser's password.
    pub password: SecretString,
    /// The file of mode 0600 that keeps the password.
    pub password_file: PathBuf,
    /// What the server calls its version, such as `15.20 (Debian 15.20-0+deb12u1)`.
    pub version: String,
    /// The server's process.
    pub pid: u32,
    /// The programs that fit this server.
    pub binaries: Binaries,
    /// Whether this call started it; `false` when it was running.
    pub started: bool,
    /// Whether this call made the data directory.
    pub created: bool,
    /// Whether the home was moved since the server started: it serves, but cannot read its settings anew before it
    /// is stopped and started.
    pub moved: bool,
}

impl LocalEndpoint {
    /// The address that the server listens on.
    pub fn host(&self) -> &'static str {
        HOST
    }
}

/// What is there, found without starting anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalState {
    /// No data directory: the first start makes one.
    Absent,
    /// Data, and no server on it.
    Stopped {
        /// The PostgreSQL major version of the data.
        major: u16,
    },
    /// A server process on the data.
    Running {
        /// The PostgreSQL major version of the data.
        major: u16,
        /// The TCP port on 127.0.0.1.
        port: u16,
        /// The server's process.
        pid: u32,
        /// `false` while it starts up, recovers or shuts down.
        ready: bool,
    },
}

impl LocalServer {
    /// The server that lives in `home`. Touches nothing.
    pub fn new(home: LocalHome) -> Self {
        Self { home }
    }

    /// Where its things are.
    pub fn home(&self) -> &LocalHome {
        &self.home
    }

    /// Starts the server unless it runs, and waits until the admin can log in.
    ///
    /// The first start makes the data directory with a new admin password and chooses a port.
    /// A running server is not an error, nor are several starts at once, nor what a killed start,
    /// a killed server or a machine that lost power left behind.
    ///
    /// Dropping the future ends an initdb that it began; a server that it began goes on starting.
    ///
    /// # Errors
    /// - `Unavailable`: PostgreSQL's programs (`tool_missing`) or, as root, the operating system's
    ///   user `postgres` (`os_user_missing`) are not there; the disk is full (`disk_full`); the server
    ///   ended again at once (`server_ended`).
    /// - `Refused` (`major_mismatch`): the data are of a major version whose programs are not there.
    /// - `Conflict`: another program has the port (`port_taken`), the data directory is not whole
    ///   (`data_incomplete`), its password file is gone or empty (`admin_password_missing`), a file is no file
    ///   (`file_unfit`), or something answers on the port while the server's process file names another process
    ///   (`server_unclear`).
    /// - `PermissionDenied`: home or data directory belong to somebody else or are open to others
    ///   (`home_unsafe`), the user `postgres` cannot enter them (`home_closed`), or the password
    ///   file does not fit the server (`password_rejected`).
    /// - `InvalidInput` (`path_invalid`): the home's path has quotes or the like.
    /// - `Timeout`: another start or stop goes on for a minute (`local_busy`), or the server recovers
    ///   for longer than that (`server_start_slow`); the same call later finds it.
    /// - `ToolFailed`: initdb or the server ended with an error; the message ends with its last lines.
    pub async fn start(&self) -> Result<LocalEndpoint> {
        let home = self.home.clone();
        let (home, account) = blocking(move || {
            let account = Account::of_servers()?;
            Ok((home.opened(&account)?, account))
        })
        .await?;
        let _lock = Lock::acquire(&home.lock_file()).await?;

        let (home, account, existing, binaries) = blocking(move || {
            data_directory::remove_leftovers(&home);
            let existing = data_directory::inspect(&home, &account)?;
            let explicit = home.binaries_override();
            let binaries = match existing {
                Some(major) => Binaries::of_major(major, explicit)?,
                None => Binaries::find(explicit)?,
            };
            account.must_enter(&binaries.dir, &binaries.program("postgres"))?;
            Ok((home, account, existing, binaries))
        })
        .await?;

        if existing.is_none() {
            data_directory::create(&home, &account, &binaries).await?;
        }
        launch::launch(home, account, binaries, existing.is_none()).await
    }

    /// Ends the server: sessions are cut off, what they committed is kept. `false` when it was not
    /// running or never was.
    ///
    /// Needs none of PostgreSQL's programs.
    ///
    /// # Errors
    /// `PermissionDenied` when home or server belong to another user, `Timeout` when another start or
    /// stop goes on (`local_busy`) or the server is not gone after a minute (`server_stop_slow`).
    pub async fn stop(&self) -> Result<bool> {
        let home = self.home.clone();
        let Some(home) = blocking(move || home.existing()).await? else { return Ok(false) };
        let _lock = Lock::acquire(&home.lock_file()).await?;
        launch::end(home).await
    }

    /// How the admin logs in, when the server runs. Starts nothing, and does not try to log in.
    ///
    /// # Errors
    /// As [`state`](Self::state), and `Conflict` when the admin's password is gone. That it does not run is `Ok(None)`.
    pub fn admin(&self) -> Result<Option<ConnectionConfig>> {
        match self.state()? {
            LocalState::Running { port, .. } => {
                let home = self.home.existing()?.unwrap_or_else(|| self.home.clone());
                let password = admin_password::read(&home)?;
                Ok(Some(admin_config(port, password)))
            }
            LocalState::Absent | LocalState::Stopped { .. } => Ok(None),
        }
    }

    /// What to do when the server rejects the admin's password.
    pub(crate) fn rejected_hint(&self) -> String {
        admin_password::rejected_hint(&self.home)
    }

    /// What is there. Starts nothing, creates nothing, reads a few small files.
    ///
    /// # Errors
    /// `Conflict` when the data directory is not whole, `PermissionDenied` when it is another user's.
    pub fn state(&self) -> Result<LocalState> {
        let Some(home) = self.home.existing()? else { return Ok(LocalState::Absent) };
        let Some(major) = data_directory::major(&home)? else { return Ok(LocalState::Absent) };
        Ok(match postmaster::find(&home.data_dir())? {
            Some(server) => LocalState::Running { major, port: server.port, pid: server.pid, ready: server.is_ready() },
            None => LocalState::Stopped { major },
        })
    }
}

/// How the admin logs in to the server on `port`.
fn admin_config(port: u16, password: SecretString) -> ConnectionConfig {
    ConnectionConfig::new(HOST, port, "postgres", ADMIN).with_password(password)
}
