//! Apps that somebody made by hand, with the guide's statements, and what is read of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use shareddb_core::{Adopt, AppName, AppSpec, ConnectionConfig, Session};

use crate::TestServer;
use crate::server::{rows, unique};

/// What such servers have: no wall but the password.
pub const OPEN_RULES: &str = "local all postgres peer\nhost all all 127.0.0.1/32 scram-sha-256\n";

/// A hand-made app: names of its own, a password, five files.
#[derive(Debug, Clone)]
pub struct Legacy {
    /// The app's name.
    pub name: AppName,
    /// Its database.
    pub database: String,
    /// Its login.
    pub user: String,
    /// The password of the login.
    pub password: String,
}

impl Legacy {
    /// Makes one on a server whose access rules are open, as the guide's script does.
    pub async fn make(server: &TestServer, stem: &str) -> Self {
        let name = unique(stem);
        let stem = name.as_str().replace('-', "_");
        let legacy = Self {
            database: format!("{stem}_db"),
            user: format!("{stem}_user"),
            password: format!("hand-made {stem}"),
            name,
        };
        let Self { database, user, password, .. } = &legacy;
        for statement in [
            format!("CREATE DATABASE {database}"),
            format!("CREATE USER {user} WITH PASSWORD '{password}'"),
            format!("GRANT ALL PRIVILEGES ON DATABASE {database} TO {user}"),
        ] {
            server.sql("postgres", &statement).await;
        }
        server.sql(database, &format!("GRANT ALL ON SCHEMA public TO {user}")).await;
        legacy
    }

    /// The spec that adopts it, with no consent to anything.
    pub fn spec(&self) -> AppSpec {
        let mut spec = AppSpec::new(self.name.clone());
        spec.adopt = Some(Adopt::default());
        spec
    }

    /// How programs that have the password by hand log in.
    pub fn config(&self, server: &TestServer) -> ConnectionConfig {
        server.admin().with_database(&self.database).with_user(&self.user).with_password(self.password.as_str().into())
    }

    /// A session of such a program.
    pub async fn session(&self, server: &TestServer) -> Session {
        self.config(server).connect().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Where its Secret is.
    pub fn folder(&self, server: &TestServer) -> PathBuf {
        let home = server.local().home().secrets_dir();
        home.join(format!("{}-db-secret", self.name))
    }

    /// Lays the guide's five keys into a folder, and more beside them.
    pub fn write_secret(&self, server: &TestServer, more: &[(&str, &str)]) {
        let guide = self.keys(server);
        let guide: Vec<(&str, &str)> = guide.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        self.write_keys(server, &[&guide, more].concat());
    }

    /// Lays these keys into a folder.
    pub fn write_keys(&self, server: &TestServer, keys: &[(&str, &str)]) {
        write_keys(&self.folder(server), keys);
    }

    /// A key as programs read it.
    pub fn key(&self, server: &TestServer, key: &str) -> String {
        fs::read_to_string(self.folder(server).join(key)).unwrap_or_else(|error| panic!("{key}: {error}"))
    }

    /// Every object of the database with its owner.
    pub async fn owners(&self, server: &TestServer) -> Vec<String> {
        rows(&server.session(&self.database).await, OWNERS).await
    }

    /// What is the app's on the server, one object a line, with `APP` for its name: equal for equal apps.
    pub async fn state(&self, server: &TestServer) -> Vec<String> {
        let ours = |line: &String| line.contains(self.name.as_str()) || line.contains(&self.stem());
        let mut lines: Vec<String> = server.catalog().await.into_iter().filter(ours).collect();
        lines.extend(self.owners(server).await);
        let mut lines: Vec<String> = lines.iter().map(|line| self.nameless(line)).collect();
        lines.sort();
        lines
    }

    /// A text with `APP` for the app's name.
    pub fn nameless(&self, text: &str) -> String {
        text.replace(&self.stem(), "APP").replace(self.name.as_str(), "APP")
    }

    fn stem(&self) -> String {
        self.name.as_str().replace('-', "_")
    }

    /// The guide's five keys.
    pub fn keys(&self, server: &TestServer) -> BTreeMap<String, String> {
        let admin = server.admin();
        [
            ("DB_HOST", admin.host().to_owned()),
            ("DB_PORT", admin.port().to_string()),
            ("DB_NAME", self.database.clone()),
            ("DB_USER", self.user.clone()),
            ("DB_PASSWORD", self.password.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// How many things of any kind hang on a role in the database.
    pub async fn dependencies(&self, server: &TestServer, role: &str) -> String {
        let sql = format!(
            "SELECT count(*) FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid JOIN pg_database d ON d.oid = s.dbid \
             WHERE s.refclassid = 'pg_authid'::regclass AND d.datname = '{}' AND r.rolname = '{role}'",
            self.database
        );
        server.value("postgres", &sql).await
    }
}

/// Lays keys into the folder of a Secret that nobody has made yet.
pub fn write_keys(folder: &Path, keys: &[(&str, &str)]) {
    fs::create_dir_all(folder).expect("the folder can be made");
    for dir in [folder.parent().expect("it has one"), folder] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).expect("it is ours");
    }
    for (key, value) in keys {
        fs::write(folder.join(key), value).expect("the file can be written");
    }
}

const OWNERS: &str = "
    SELECT concat_ws(' ', i.type, i.identity, pg_get_userbyid(d.owner)) FROM (
        SELECT 'pg_class'::regclass::oid AS classid, oid, relowner AS owner FROM pg_class WHERE relkind IN ('r','p','f','v','m','S')
        UNION ALL SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc
        UNION ALL SELECT 'pg_type'::regclass, oid, typowner FROM pg_type WHERE typtype IN ('e', 'd', 'r')
        UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner FROM pg_namespace
        UNION ALL SELECT 'pg_extension'::regclass, oid, extowner FROM pg_extension
        UNION ALL SELECT 'pg_publication'::regclass, oid, pubowner FROM pg_publication
        UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxowner FROM pg_statistic_ext
        UNION ALL SELECT 'pg_largeobject'::regclass, oid, lomowner FROM pg_largeobject_metadata) d,
        pg_identify_object(d.classid, d.oid, 0) i
     WHERE (d.oid >= 16384 OR i.identity IN ('public', '4711'))
       AND NOT EXISTS (SELECT FROM pg_depend p WHERE (p.classid, p.objid) = (d.classid, d.oid) AND p.deptype = 'e')
     ORDER BY 1";

/// Statements that fill a hand-made database as its login.
pub fn filled_by_login() -> &'static str {
    "CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text NOT NULL, noted text DEFAULT 'x');
     INSERT INTO orders (word) SELECT 'order ' || n FROM generate_series(1, 50) n;
     CREATE TABLE schema_migrations (version text PRIMARY KEY); INSERT INTO schema_migrations VALUES ('1');
     CREATE VIEW recent AS SELECT * FROM orders ORDER BY id DESC LIMIT 5;
     CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE SEQUENCE counter;
     CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql AS 'SELECT i * 2';
     CREATE EXTENSION pg_trgm;
     CREATE TABLE notes (id int, owner_id int); ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
     ALTER TABLE notes FORCE ROW LEVEL SECURITY;
     CREATE POLICY mine ON notes USING (owner_id = 1) WITH CHECK (true);
     INSERT INTO notes VALUES (1, 1), (2, 2);
     ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO CURRENT_USER"
}

/// Statements that fill it as the admin, as after a restore; USER stands for the login.
pub fn filled_by_admin(user: &str) -> String {
    "CREATE SCHEMA archive; CREATE TABLE archive.old (id serial PRIMARY KEY, v text); INSERT INTO archive.old (v) VALUES ('a'), ('b');
     CREATE TABLE customers (id int PRIMARY KEY, name text); INSERT INTO customers VALUES (1, 'one');
     CREATE TABLE parted (id int) PARTITION BY RANGE (id); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
     CREATE VIEW customer_names AS SELECT name FROM customers; CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM customers;
     CREATE SEQUENCE \"Odd \"\"Seq\"; CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE span AS RANGE (subtype = int);
     CREATE FUNCTION look() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM public.customers';
     CREATE PROCEDURE nothing() LANGUAGE sql AS ''; CREATE AGGREGATE most (int) (sfunc = int4larger, stype = int);
     CREATE FUNCTION same(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';
     CREATE OPERATOR === (leftarg = int, rightarg = int, function = same);
     CREATE STATISTICS stats ON id, name FROM customers; CREATE COLLATION german (provider = libc, locale = 'C');
     CREATE TEXT SEARCH CONFIGURATION words (copy = simple); CREATE PUBLICATION pub FOR TABLE customers; CREATE PUBLICATION whole FOR TABLES IN SCHEMA archive;
     CREATE EXTENSION hstore; SELECT lo_create(4711);
     CREATE TABLE guarded (id int, owner_id int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
     INSERT INTO guarded VALUES (1, 1), (2, 2); CREATE POLICY own ON guarded TO USER USING (owner_id = 1);
     GRANT ALL ON ALL TABLES IN SCHEMA public, archive TO USER; GRANT USAGE ON SCHEMA archive TO USER;
     GRANT ALL ON ALL SEQUENCES IN SCHEMA public, archive TO USER; GRANT ALL ON LARGE OBJECT 4711 TO USER;
     ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO USER; ALTER DEFAULT PRIVILEGES IN SCHEMA archive GRANT SELECT ON TABLES TO USER"
        .replace("USER", user)
}
