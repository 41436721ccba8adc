//! PostgreSQL servers of every supported major as other people run them: nothing on them was made by shareddb.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use shareddb_core::{ConnectionConfig, DirectoryStore, Provisioner, Server, Session};
use tokio::sync::OnceCell;

use crate::archive;
use crate::command::run;
use crate::reaper::Reaper;
use crate::server::{self, temporary_home};

/// The majors that are supported.
pub const MAJORS: [u32; 5] = [14, 15, 16, 17, 18];

/// Access rules as most servers have them: whoever has a password may try every database, so that rights alone keep
/// apps apart.
pub const ALL_MAY_TRY: &str = "host all all 127.0.0.1/32 scram-sha-256\n";

/// Access rules that are a wall by themselves.
pub const OWN_ONLY: &str = "\
host all      postgres,adm    127.0.0.1/32 scram-sha-256
host all      +shareddb_maint 127.0.0.1/32 scram-sha-256
host samerole all             127.0.0.1/32 scram-sha-256
";

/// An admin who is no superuser: `LOGIN CREATEDB CREATEROLE`, and nothing else.
pub const PLAIN_ADMIN: &str = "adm";

/// The password of every admin here.
const PASSWORD: &str = "of no use elsewhere";

/// A server that somebody else made.
#[derive(Debug)]
pub struct ForeignServer {
    home: PathBuf,
    port: u16,
    _reaper: Reaper,
}

static SHARED: [OnceCell<ForeignServer>; MAJORS.len()] = [const { OnceCell::const_new() }; MAJORS.len()];

impl ForeignServer {
    /// The one of a major for tests that disturb nobody: each uses apps of its own.
    pub async fn shared(major: u32) -> &'static Self {
        let place = MAJORS.iter().position(|known| *known == major).expect("a supported major");
        SHARED[place].get_or_init(|| Self::start(major, ALL_MAY_TRY)).await
    }

    /// One for a test that disturbs others, with its `pg_hba.conf`.
    pub async fn start(major: u32, rules: &str) -> Self {
        Self::start_with(major, rules, "").await
    }

    /// The same with lines of its own in `postgresql.conf`.
    pub async fn start_with(major: u32, rules: &str, lines: &str) -> Self {
        let programs = archive::programs(major).await;
        let home = temporary_home();
        let reaper = Reaper::of(&home);
        let account = Account::of_servers();
        let local = home.join("local");
        fs::DirBuilder::new().mode(0o755).create(&local).expect("the home is ours");
        account.own(&local);
        let data = local.join("data");
        initialise(&programs, &account, &home, &data);
        write(&account, &data.join("pg_hba.conf"), rules);
        let port = free_port();
        let mut settings = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).expect("it was made");
        write!(settings, "{}{lines}", postgresql_conf(port)).expect("it can be written");
        account.run(Command::new(programs.join("pg_ctl")).args(["start", "--wait", "--silent"]).args([
            "--pgdata".as_ref(),
            data.as_os_str(),
            "--log".as_ref(),
            local.join("log").as_os_str(),
        ]));
        let server = Self { home, port, _reaper: reaper };
        // Before 16, such a role cannot be kept from what it must not do, and is no use.
        if major >= 16 {
            let sql = format!("CREATE ROLE {PLAIN_ADMIN} LOGIN CREATEDB CREATEROLE PASSWORD '{PASSWORD}'");
            server.sql("postgres", &sql).await;
        }
        server
    }

    /// How the superuser logs in.
    pub fn superuser(&self) -> ConnectionConfig {
        ConnectionConfig::new("127.0.0.1", self.port, "postgres", "postgres").with_password(PASSWORD.into())
    }

    /// How the admin without superuser logs in; from 16 on.
    pub fn plain_admin(&self) -> ConnectionConfig {
        self.superuser().with_user(PLAIN_ADMIN)
    }

    /// The server as core sees it, with one of the admins.
    pub fn server(&self, admin: ConnectionConfig) -> Server {
        Server::new("foreign".parse().expect("a name"), admin, Arc::new(self.secrets()))
    }

    /// A provisioner with one of the admins.
    pub fn provisioner(&self, admin: ConnectionConfig) -> Provisioner {
        Provisioner::new(self.server(admin))
    }

    /// Where Secrets are.
    pub fn secrets(&self) -> DirectoryStore {
        DirectoryStore::new(self.secrets_folder())
    }

    /// The folder of all Secrets.
    pub fn secrets_folder(&self) -> PathBuf {
        self.home.join("secrets")
    }

    /// What `SHAREDDB_HOME` has to be for a command to use this server as one of the admins.
    pub fn home_of(&self, admin: &ConnectionConfig) -> PathBuf {
        let home = self.home.join(admin.user());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&home).expect("the home is ours");
        let password = home.join("password");
        write(&Account(None), &password, PASSWORD);
        let text = format!(
            "default = 'foreign'\n[env.foreign]\nadmin_url = 'postgresql://{}@{}:{}/postgres'\nadmin_password_file = '{}'\n\
             store = 'dir:{}'\n",
            admin.user(),
            admin.host(),
            admin.port(),
            password.display(),
            self.home.join("secrets").display()
        );
        fs::write(home.join("config.toml"), text).expect("the home is ours");
        home
    }

    /// A session of the superuser.
    pub async fn session(&self, database: &str) -> Session {
        server::session(&self.superuser(), database).await
    }

    /// Runs statements as the superuser; several of one text are one transaction.
    pub async fn sql(&self, database: &str, sql: &str) {
        server::sql(&self.superuser(), database, sql).await;
    }

    /// The first column of a query's first row, as text, as the superuser sees it.
    pub async fn value(&self, database: &str, sql: &str) -> String {
        server::value(&self.session(database).await, sql).await
    }

    /// Everything on the server that provisioning could change, as [`crate::TestServer::catalog`] has it.
    pub async fn catalog(&self) -> Vec<String> {
        server::catalog(&self.superuser()).await
    }
}

/// As a distribution's package does it.
fn initialise(programs: &Path, account: &Account, home: &Path, data: &Path) {
    let password = home.join("password");
    write(account, &password, PASSWORD);
    account.run(
        Command::new(programs.join("initdb"))
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .args(["--pgdata".as_ref(), data.as_os_str(), "--pwfile".as_ref(), password.as_os_str()]),
    );
}

/// Nobody else's server is as fast as one that need not outlive its test.
fn postgresql_conf(port: u16) -> String {
    format!(
        "\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nfsync = off\n\
         password_encryption = scram-sha-256\nmax_connections = 200\nshared_buffers = 16MB\n"
    )
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A file that the server's account alone can read.
fn write(account: &Account, path: &Path, text: &str) {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.write_all(text.as_bytes()).expect("it can be written");
    account.own(path);
}

/// The operating system's account that servers run as: ours, or as root that of `postgres`.
pub(crate) struct Account(pub(crate) Option<(u32, u32)>);

impl Account {
    pub(crate) fn of_servers() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").expect("it can be read");
        let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("an account `postgres`");
        let id = |field| line.split(':').nth(field).and_then(|text| text.parse().ok()).expect("a number");
        Self(Some((id(2), id(3))))
    }

    fn own(&self, path: &Path) {
        if let Some((uid, gid)) = self.0 {
            chown(path, Some(uid), Some(gid)).expect("root may");
        }
    }

    fn run(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.0 {
            command.gid(gid).uid(uid);
        }
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").current_dir("/");
        run(command).expect_code(0);
    }
}
