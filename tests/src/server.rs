//! A PostgreSQL server of the suite's own, started by the launcher that users have.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use secrecy::ExposeSecret as _;
use shareddb_core::{
    App, AppName, AppSpec, ConnectionConfig, DirectoryStore, Environment, Error, LocalEndpoint, LocalHome, LocalServer,
    Provisioner, SecretStore, Server, Session,
};
use tokio::sync::OnceCell;

use crate::certificates::Authority;
use crate::reaper::Reaper;
use crate::watch::eventually;

/// A server, its home, and whoever ends it.
#[derive(Debug)]
pub struct TestServer {
    home: PathBuf,
    environment: Environment,
    endpoint: LocalEndpoint,
    _reaper: Reaper,
}

static SHARED: OnceCell<TestServer> = OnceCell::const_new();

impl TestServer {
    /// The one for tests that disturb nobody: each uses apps of its own. It logs every statement.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(Self::roomy).await
    }

    /// One that has room for an app of every test.
    async fn roomy() -> Self {
        let mut server = Self::start().await;
        server.sql("postgres", "ALTER SYSTEM SET max_connections = 2000").await;
        server.local().stop().await.expect("it can be stopped");
        server.endpoint = server.environment.deploy().await.expect("it starts again");
        server
    }

    /// One for a test that disturbs others. It logs every statement.
    pub async fn start() -> Self {
        let server = Self::in_home(temporary_home()).await;
        server.sql("postgres", "ALTER SYSTEM SET log_statement = 'all'").await;
        server.sql("postgres", "SELECT pg_reload_conf()").await;
        server
    }

    /// One in a home that exists; the home goes with the server.
    pub async fn in_home(home: PathBuf) -> Self {
        Self::in_home_with(home, None).await
    }

    /// The same with chosen programs.
    pub async fn in_home_with(home: PathBuf, programs: Option<&Path>) -> Self {
        let reaper = Reaper::of(&home);
        let place = LocalHome::at(home.join("local"));
        let place = programs.into_iter().fold(place, LocalHome::with_binaries);
        let environment = Environment::local(place).expect("the name is fixed");
        let endpoint = environment.deploy().await.unwrap_or_else(|error| panic!("{error}: {:?}", error.hint()));
        Self { home, environment, endpoint, _reaper: reaper }
    }

    /// What `SHAREDDB_HOME` has to be for a command to use this server.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The environment.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The embedded server that it is.
    pub fn local(&self) -> &LocalServer {
        self.environment.local_server().expect("it is the embedded one")
    }

    /// The place of its Secrets.
    pub fn secrets(&self) -> DirectoryStore {
        DirectoryStore::new(self.local().home().secrets_dir())
    }

    /// Where it listens and what its programs are.
    pub fn endpoint(&self) -> &LocalEndpoint {
        &self.endpoint
    }

    /// The server as core sees it.
    pub async fn server(&self) -> Server {
        self.environment.connect().await.expect("the server runs")
    }

    /// The same server with another store of Secrets, or reached through another port.
    pub fn server_with(&self, admin: ConnectionConfig, store: Arc<dyn SecretStore>) -> Server {
        Server::new(self.environment.name().clone(), admin, store).ours()
    }

    /// A provisioner.
    pub async fn provisioner(&self) -> Provisioner {
        Provisioner::new(self.server().await)
    }

    /// How the admin logs in.
    pub fn admin(&self) -> ConnectionConfig {
        self.local().admin().expect("the home is whole").expect("the server runs")
    }

    /// A session of the admin.
    pub async fn session(&self, database: &str) -> Session {
        session(&self.admin(), database).await
    }

    /// Runs statements as the admin; several of one text are one transaction.
    pub async fn sql(&self, database: &str, sql: &str) {
        self::sql(&self.admin(), database, sql).await;
    }

    /// The first column of a query's first row, as text.
    pub async fn value(&self, database: &str, sql: &str) -> String {
        value(&self.session(database).await, sql).await
    }

    /// Makes an app with defaults and returns how it logs in.
    pub async fn app(&self, name: &AppName) -> ConnectionConfig {
        let provisioner = self.provisioner().await;
        provisioner.create(&AppSpec::new(name.clone())).await.unwrap_or_else(|error| panic!("{error}"));
        provisioner.connection(name).await.expect("a Secret that exists works")
    }

    /// Makes an app of a name that no other test has, and returns its names.
    pub async fn made(&self, stem: &str) -> App {
        let name = unique(stem);
        self.app(&name).await;
        self.provisioner().await.app(&name).await.expect("it was made")
    }

    /// The server's log, from a position on.
    pub fn log_since(&self, position: usize) -> String {
        let log = fs::read(self.local().home().log_file()).expect("the log can be read");
        String::from_utf8_lossy(&log[position..]).into_owned()
    }

    /// The end of the server's log at this moment.
    pub fn log_position(&self) -> usize {
        self.log_since(0).len()
    }

    /// Puts other rules into `pg_hba.conf` and waits until they count.
    pub async fn set_access_rules(&self, rules: &str) {
        fs::write(self.local().home().access_file(), rules).expect("the file can be written");
        // A session that begins after the reload is done has the new rules; the postmaster reads them on its own time.
        let lines = rules.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).count();
        let before = self.value("postgres", "SELECT pg_conf_load_time()").await;
        self.sql("postgres", "SELECT pg_reload_conf()").await;
        for _ in 0..500 {
            let loaded = self.value("postgres", "SELECT pg_conf_load_time()").await;
            if loaded != before {
                let count = self.value("postgres", "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NULL").await;
                assert_eq!(count, lines.to_string(), "every rule must be understood");
                return;
            }
        }
        panic!("the server did not take the new rules");
    }

    /// Turns TLS on, with a certificate of this authority.
    pub async fn encrypt(&self, authority: &Authority) {
        let identity = authority.server(&["localhost"]);
        let data = self.local().home().data_dir();
        let owner = fs::metadata(&data).expect("the server has one");
        for (name, text) in [("server.crt", &identity.certificate), ("server.key", &identity.key)] {
            let file = data.join(name);
            fs::write(&file, text).expect("the folder can be written");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
            chown(&file, Some(owner.uid()), Some(owner.gid())).expect("it is ours");
        }
        self.sql("postgres", "ALTER SYSTEM SET ssl = on").await;
        self.sql("postgres", "SELECT pg_reload_conf()").await;
        eventually("TLS is on", async || self.value("postgres", "SHOW ssl").await == "on").await;
    }

    /// Everything on the server that provisioning could change, one object a line, without what differs between equals
    /// (object ids, salts, how many passwords there have been).
    pub async fn catalog(&self) -> Vec<String> {
        catalog(&self.admin()).await
    }
}

const CLUSTER_CATALOG: &str = "
    SELECT concat_ws(' ', 'role', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication,
           rolbypassrls, rolconnlimit, nullif(rolvaliduntil, 'infinity'), rolpassword IS NOT NULL,
           regexp_replace(shobj_description(oid, 'pg_authid'), ',\"generation\":[0-9]+', ''))
      FROM pg_authid WHERE rolname !~ '^pg_'
    UNION ALL SELECT concat_ws(' ', 'member', roleid::regrole, member::regrole, admin_option)
      FROM pg_auth_members WHERE roleid >= 16384
    UNION ALL SELECT concat_ws(' ', 'database', datname, pg_get_userbyid(datdba), datallowconn, datconnlimit, datistemplate,
           ARRAY(SELECT concat_ws('=', CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END, privilege_type)
                   FROM aclexplode(datacl) ORDER BY 1), shobj_description(oid, 'pg_database'))
      FROM pg_database
    UNION ALL SELECT concat_ws(' ', 'setting', coalesce(d.datname, '*'), coalesce(r.rolname, '*'),
           ARRAY(SELECT unnest(setconfig) ORDER BY 1))
      FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = setdatabase LEFT JOIN pg_roles r ON r.oid = setrole
    ORDER BY 1";

const DATABASE_CATALOG: &str = "
    SELECT concat_ws(' ', 'schema', nspname, pg_get_userbyid(nspowner), nspacl) FROM pg_namespace WHERE nspname !~ '^pg_'
    UNION ALL SELECT concat_ws(' ', 'relation', c.oid::regclass, relkind, pg_get_userbyid(relowner))
      FROM pg_class c WHERE c.oid >= 16384
    UNION ALL SELECT concat_ws(' ', 'extension', extname, extnamespace::regnamespace) FROM pg_extension
    ORDER BY 1";

/// A session of an admin's in any database.
pub async fn session(admin: &ConnectionConfig, database: &str) -> Session {
    admin.clone().with_database(database).connect().await.unwrap_or_else(|error| panic!("{error}"))
}

/// Runs statements as an admin; several of one text are one transaction.
pub async fn sql(admin: &ConnectionConfig, database: &str, sql: &str) {
    let result = session(admin, database).await.simple_query(sql).await;
    result.unwrap_or_else(|error| panic!("{sql}: {error}: {:?}", error.as_db_error()));
}

/// Everything on a server that provisioning could change, as a superuser sees it, one object a line.
pub async fn catalog(admin: &ConnectionConfig) -> Vec<String> {
    let outside = session(admin, "postgres").await;
    let mut lines = rows(&outside, CLUSTER_CATALOG).await;
    let databases = "SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY 1";
    for database in rows(&outside, databases).await {
        let inside = session(admin, &database).await;
        lines.extend(rows(&inside, DATABASE_CATALOG).await.into_iter().map(|line| format!("{database}: {line}")));
    }
    lines
}

/// The first column of every row.
pub async fn rows(session: &Session, sql: &str) -> Vec<String> {
    let messages =
        session.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}: {:?}", error.as_db_error()));
    let row = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// The first column of the first row.
pub async fn value(session: &Session, sql: &str) -> String {
    rows(session, sql).await.into_iter().next().unwrap_or_else(|| panic!("no row: {sql}"))
}

/// A home under the system's folder of temporary files that the operating system's user `postgres` can enter.
pub fn temporary_home() -> PathBuf {
    let home = tempfile::Builder::new().prefix("shareddb-test-").tempdir().expect("a temporary folder").keep();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o711)).expect("it is ours");
    home
}

/// An app name that no other test has.
pub fn unique(stem: &str) -> AppName {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{stem}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    name.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// The spec that leaves an app as it is recorded.
pub fn spec_of(app: &App) -> AppSpec {
    AppSpec::new(app.name.clone())
}

/// The statement that a hint ends with.
pub fn statement(error: &Error) -> String {
    let hint = error.hint().unwrap_or_else(|| panic!("{error} has no hint"));
    hint.rsplit_once(": ").expect("a statement after a colon").1.to_owned()
}

/// The clear text of a config's password.
pub fn password(config: &ConnectionConfig) -> String {
    config.password().expect("a password").expose_secret().to_owned()
}
