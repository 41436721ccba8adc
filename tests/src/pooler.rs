//! A PgBouncer in transaction mode, in front of a server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use shareddb_core::ConnectionConfig;

use crate::daemon::Daemon;
use crate::reaper::Reaper;
use crate::server::{password, temporary_home};
use crate::watch::eventually;

/// Two sessions on the server, for however many clients.
#[derive(Debug)]
pub struct Pooler {
    daemon: Daemon,
    port: u16,
    _reaper: Reaper,
}

impl Pooler {
    /// One that knows this login only.
    pub async fn before(config: &ConnectionConfig) -> Self {
        let home = temporary_home();
        let reaper = Reaper::over(&home, &["pgbouncer.pid"]);
        let port = free_port();
        let (users, settings) = (home.join("users.txt"), home.join("pgbouncer.ini"));
        fs::write(&users, format!("\"{}\" \"{}\"\n", config.user(), password(config))).expect("the home is ours");
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 2\n",
            config.host(),
            config.port(),
            users.display()
        );
        fs::write(&settings, text).expect("the home is ours");
        for file in [&users, &settings] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("the home is ours");
        }
        let mut arguments = vec![settings.display().to_string()];
        if rustix::process::getuid().is_root() {
            // It refuses to run as root.
            arguments.insert(0, "--user=postgres".to_owned());
        }
        let pooler = Self { daemon: Daemon::start(&home, &program(), &arguments), port, _reaper: reaper };
        let behind = pooler.instead_of(config);
        eventually("PgBouncer answers", async || behind.connect().await.is_ok()).await;
        pooler
    }

    /// The same login through the pooler.
    pub fn instead_of(&self, config: &ConnectionConfig) -> ConnectionConfig {
        config.clone().with_port(self.port)
    }

    /// What it has written.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

fn program() -> PathBuf {
    let sbin = Path::new("/usr/sbin/pgbouncer");
    assert!(sbin.exists(), "PgBouncer is missing; ./test installs it");
    sbin.to_owned()
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it listens").port()
}
