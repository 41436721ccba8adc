//! The server's process: starting it, waiting for it, ending it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use tokio::time::{Instant, sleep};

use super::account::Account;
use super::binaries::Binaries;
use super::home::LocalHome;
use super::log::ServerLog;
use super::postmaster::{self, Postmaster};
use super::{ADMIN, LocalEndpoint, admin_config, admin_password, port, settings};
use crate::error::{Error, Result};
use crate::file::blocking;

const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(20);
const LOGIN_PATIENCE: Duration = Duration::from_secs(10);

/// Starts the server on a whole data directory unless it runs, and logs in. The caller holds the lock.
pub(super) async fn launch(
    home: LocalHome,
    account: Account,
    binaries: Binaries,
    created: bool,
) -> Result<LocalEndpoint> {
    let files = home.clone();
    let (data, password) = blocking(move || Ok((real_data(&files)?, admin_password::read(&files)?))).await?;
    // Somebody ended it by hand, and it is not gone yet.
    if server_on(&data).await?.is_some_and(|server| server.is_stopping()) {
        wait_until_gone(&data).await?;
    }
    let mut started = false;
    if server_on(&data).await?.is_none() {
        start(&home, account, &binaries, &data).await?;
        started = true;
    }
    let mut reached = log_in(&home, &data, &password).await;
    // One that was found may end before it takes logins, such as one whose recovery met a full disk.
    if !started && reached.as_ref().is_err_and(|error| error.code() == "server_ended") {
        start(&home, account, &binaries, &data).await?;
        started = true;
        reached = log_in(&home, &data, &password).await;
    }
    let (server, version) = reached?;
    let (files, found) = (home.clone(), server.clone());
    let moved = blocking(move || {
        keep_port(&files, found.port)?;
        Ok(found.reads_settings_elsewhere(&files.settings_file()))
    })
    .await?;
    Ok(LocalEndpoint {
        port: server.port,
        admin: ADMIN.into(),
        password,
        password_file: home.password_file(),
        version,
        pid: server.pid,
        binaries,
        started,
        created,
        moved,
    })
}

/// Ends the server; `false` when none runs. The caller holds the lock.
pub(super) async fn end(home: LocalHome) -> Result<bool> {
    // Also on data that are not whole, and that no start would accept.
    let data = blocking(move || match real_data(&home) {
        Ok(data) => Ok(Some(data)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    });
    let Some(data) = data.await? else { return Ok(false) };
    let Some(server) = server_on(&data).await? else { return Ok(false) };
    server.interrupt()?;
    wait_until_gone(&data).await?;
    Ok(true)
}

async fn start(home: &LocalHome, account: Account, binaries: &Binaries, data: &Path) -> Result<()> {
    let (files, directory) = (home.clone(), data.to_owned());
    let (port, log, complaints) = blocking(move || {
        postmaster::remove_stale(&directory, port::stored(&files)?)?;
        let port = port::reserve(&files)?;
        // Readable by the server's account; there is no secret in them.
        files.write(&files.settings_file(), &settings::postgresql_conf(&files, port), 0o644)?;
        files.write(&files.access_file(), settings::PG_HBA, 0o644)?;
        let log = ServerLog::open(&files, &account)?;
        let complaints = log.appender()?;
        Ok((port, log, complaints))
    })
    .await?;

    let status = account
        .command(&binaries.program("pg_ctl"))
        .args(["start", "--silent", "--wait", "--timeout"])
        .arg(PATIENCE.as_secs().to_string())
        .arg("--pgdata")
        .arg(data)
        .arg("--log")
        .arg(home.log_file())
        .arg("--options")
        // LocalHome refuses paths that mean something to a shell between these quotes.
        .arg(format!("-c config_file=\"{}\"", home.settings_file().display()))
        // A file, not a pipe: what inherits a pipe keeps its reader waiting.
        .stderr(complaints)
        // Ctrl-C in the terminal is not for the server; pg_ctl gives it a session of its own as well.
        .process_group(0)
        .status()
        .await
        .map_err(|e| Error::from_io("cannot run pg_ctl", e))?;
    if status.success() {
        return Ok(());
    }
    // pg_ctl also gives up on a server that goes on, such as one that recovers after a crash, or one
    // that a call which was dropped had begun: whether it takes logins is found out next.
    match server_on(data).await? {
        Some(_) => Ok(()),
        None => {
            let (home, directory) = (home.clone(), data.to_owned());
            Err(blocking(move || {
                let error = log.explain(&home, port);
                Ok(match postmaster::hint_if_damaged(&directory) {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                })
            })
            .await?)
        }
    }
}

/// Logs in as the admin: proof that the server is ours, takes sessions, and fits the password file.
async fn log_in(home: &LocalHome, data: &Path, password: &SecretString) -> Result<(Postmaster, String)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Some(server) = server_on(data).await? else {
            return Err(Error::unavailable("server_ended", "the local server ended while it was waited for")
                .with_hint("server.log beside the data directory says why; run this again"));
        };
        let error = match try_log_in(server.port, password).await {
            Ok(version) => return Ok((server, version)),
            Err(error) => error,
        };
        match error.code() {
            "server_not_ready" | "server_unreachable" => {}
            "password_rejected" => {
                return Err(error.with_hint(admin_password::rejected_hint(home)));
            }
            _ => return Err(error),
        }
        if Instant::now() >= deadline {
            return Err(Error::timeout(
                "server_start_slow",
                format!("the local server, process {}, still starts up", server.pid),
            )
            .with_hint("after a crash it first replays its log; run this again later")
            .with_source(error));
        }
        sleep(INTERVAL).await;
    }
}

async fn try_log_in(port: u16, password: &SecretString) -> Result<String> {
    let admin = admin_config(port, password.clone()).with_application_name("shareddb");
    let (config, tls) = admin.tokio_postgres()?;
    let Ok(login) = tokio::time::timeout(LOGIN_PATIENCE, config.connect(tls)).await else {
        let what = format!("cannot log in to the local server on port {port}");
        return Err(Error::unavailable("server_not_ready", what));
    };
    let (client, connection) = login.map_err(|error| admin.login_error(error))?;
    let version = connection.parameter("server_version").unwrap_or_default().to_owned();
    // Without a client the connection says goodbye, which keeps the log clean.
    drop(client);
    let _ = connection.await;
    Ok(version)
}

async fn server_on(data: &Path) -> Result<Option<Postmaster>> {
    let data = data.to_owned();
    blocking(move || postmaster::find(&data)).await
}

async fn wait_until_gone(data: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while let Some(server) = server_on(data).await? {
        if Instant::now() >= deadline {
            return Err(Error::timeout(
                "server_stop_slow",
                format!("the local server, process {}, still shuts down", server.pid),
            )
            .with_hint("it writes what it holds in memory to the disk; run this again later"));
        }
        sleep(INTERVAL).await;
    }
    Ok(())
}

/// A server's process shows the real path.
fn real_data(home: &LocalHome) -> Result<PathBuf> {
    let data = home.data_dir();
    fs::canonicalize(&data).map_err(|e| Error::from_io(format!("cannot look at {}", data.display()), e))
}

/// A server that runs without its port file would come back on another port.
fn keep_port(home: &LocalHome, used: u16) -> Result<()> {
    if port::stored(home)?.is_none() { port::store(home, used) } else { Ok(()) }
}
