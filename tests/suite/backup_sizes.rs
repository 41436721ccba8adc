//! Much of one thing: tables, rows, large objects, letters in a name. All of it comes back, and the table of locks, which is
//! every app's, is left alone.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use shareddb_core::{
    AppName, AppSpec, BackupManager, BackupOptions, BackupStore, Choice, ConnectionConfig, Error, Manifest,
    RestoreOptions, Verdict, VerifyOptions,
};
use shareddb_tests::command::shareddb_command;
use shareddb_tests::majors::{ALL_MAY_TRY, ForeignServer};
use shareddb_tests::server::{session, sql, temporary_home, unique, value};
use shareddb_tests::{clients, neighbour::Neighbour};

/// Tables are made in transactions of this many, since each is locked until the end of its own.
const AT_A_TIME: usize = 500;
/// Less than this much memory, in MiB, is taken by a backup and by a restore of anything.
const MEMORY: u64 = 150;

struct Place {
    server: ForeignServer,
    name: AppName,
    config: ConnectionConfig,
    manager: BackupManager,
    folder: String,
    major: u32,
}

/// An app on a server of its own, and a store in a folder.
async fn place(major: u32, stem: &str, settings: &str) -> Place {
    let server = ForeignServer::start_with(major, ALL_MAY_TRY, settings).await;
    let provisioner = server.provisioner(server.superuser());
    let name = unique(stem);
    provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
    let config = provisioner.connection(&name).await.unwrap();
    let folder = temporary_home().display().to_string();
    let store = BackupStore::open(&format!("file://{folder}"), []).unwrap();
    let manager = BackupManager::new(provisioner.server().clone(), store).with_binaries(clients::programs(major));
    Place { server, name, config, manager, folder, major }
}

impl Place {
    async fn make_tables(&self, tables: usize) {
        let session = self.config.connect().await.unwrap();
        for first in (0..tables).step_by(AT_A_TIME) {
            let (last, schema) = ((first + AT_A_TIME).min(tables) - 1, first / 5000);
            session
                .batch_execute(&format!(
                    "CREATE SCHEMA IF NOT EXISTS s{schema}; DO $$ BEGIN FOR i IN {first}..{last} LOOP \
                     EXECUTE format('CREATE TABLE s{schema}.t%s (id int PRIMARY KEY, word text)', i); \
                     IF i % 10 = 0 THEN EXECUTE format('INSERT INTO s{schema}.t%s VALUES (1, ''x'')', i); END IF; \
                     END LOOP; END $$"
                ))
                .await
                .unwrap();
        }
    }

    async fn backup(&self) -> Result<Manifest, Error> {
        self.manager.backup(&self.name, &BackupOptions::default()).await
    }

    /// The newest backup.
    async fn newest(&self) -> Manifest {
        let shelf = self.manager.shelf(&self.name);
        shelf.manifest(&shelf.choose(&Choice::Latest).await.unwrap()).await.unwrap()
    }

    /// Has the command do something in a process of its own, whose memory is looked at until it ends.
    async fn by_command(&self, args: &[&str]) {
        let begun = Instant::now();
        let mut command = shareddb_command(&self.server.home_of(&self.server.superuser()));
        command.args(args).args([self.name.as_str(), "--timeout", "1h"]);
        command.env("SHAREDDB_PG_BIN", clients::programs(self.major));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let (mut peak, status) = (0, format!("/proc/{}/status", child.id()));
        let ended = loop {
            let text = fs::read_to_string(&status).unwrap_or_default();
            if let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:")) {
                peak = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10;
            }
            if let Some(ended) = child.try_wait().unwrap() {
                break ended;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(ended.success(), "{args:?}");
        println!("{} took {:.1} s and {peak} MiB of memory", args[0], begun.elapsed().as_secs_f64());
        assert!((1..MEMORY).contains(&peak), "{args:?}: {peak} MiB of memory");
    }

    async fn backup_by_command(&self) -> Manifest {
        self.by_command(&["backup", "--to", &self.folder]).await;
        self.newest().await
    }

    async fn restore_by_command(&self) {
        self.by_command(&["restore", "--from", &self.folder, "--no-safety-backup", "--confirm", self.name.as_str()])
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_tables_come_back() {
    let place = place(16, "tables", "max_locks_per_transaction = 256\n").await;
    place.make_tables(20_000).await;
    let manifest = place.backup_by_command().await;
    assert_eq!((manifest.tables.len(), manifest.tables.iter().map(|table| table.rows).sum::<u64>()), (20_000, 2000));
    sql(&place.config, place.config.database(), "DROP TABLE s3.t19990, s0.t0").await;
    place.restore_by_command().await;
    let now = session(&place.config, place.config.database()).await;
    assert_eq!(value(&now, "SELECT count(*)::text FROM pg_tables WHERE schemaname ~ '^s[0-3]$'").await, "20000");
    assert_eq!(value(&now, "SELECT word FROM s3.t19990").await, "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tables_than_the_server_has_locks_for_are_refused_before_one_is_locked() {
    // For 200 sessions: 2000 locks.
    let place = place(16, "locks", "max_locks_per_transaction = 10\n").await;
    place.make_tables(3000).await;
    let provisioner = place.server.provisioner(place.server.superuser());
    let other = unique("neighbour");
    provisioner.create(&AppSpec::new(other.clone())).await.unwrap();
    // It locks more than a session may without the table that all share.
    let tables: String = (0..40).map(|table| format!("CREATE TABLE n{table} (i int); ")).collect();
    let config = provisioner.connection(&other).await.unwrap();
    sql(&config, config.database(), &tables).await;
    let every = (0..40).map(|table| format!("INSERT INTO n{table} VALUES (1)")).collect::<Vec<_>>().join("; ");
    let neighbour = Neighbour::start(&config, &every).await;
    let error = place.backup().await.unwrap_err();
    assert_eq!(error.code(), "lock_table_small", "{error}");
    assert!(error.to_string().contains("locks 3000 tables"), "{error}");
    assert!(error.hint().unwrap().starts_with("raise max_locks_per_transaction from 10 to 32 and"), "{error:?}");
    neighbour.end("while a dump was refused").await;
    // What fits goes, and leaves enough to others.
    sql(
        &place.config,
        place.config.database(),
        "DO $$ BEGIN FOR i IN 1300..2999 LOOP EXECUTE format('DROP TABLE s0.t%s', i); \
         IF i % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$",
    )
    .await;
    let neighbour = Neighbour::start(&config, &every).await;
    let manifest = place.backup().await.unwrap();
    assert_eq!(manifest.tables.len(), 1300);
    assert_eq!(place.manager.verify(&manifest.id, &VerifyOptions::default()).await.unwrap().verdict, Verdict::Passed);
    neighbour.end("while 1300 tables were dumped and loaded").await;
}

/// On the majors where they are dumped in different ways.
async fn large_objects(major: u32) {
    let place = place(major, "large", "").await;
    let make = "SELECT count(lo_from_bytea(0, decode(repeat(md5(i::text), 1 + i % 5), 'hex'))) FROM generate_series(1, 100000) i; \
         SELECT lo_from_bytea(0, decode(repeat(md5('big'), 2000000), 'hex')) AS oid INTO big";
    sql(&place.config, place.config.database(), make).await;
    let digest = "SELECT md5(string_agg(md5(lo_get(oid)), '' ORDER BY oid)) FROM pg_largeobject_metadata";
    let before = value(&session(&place.config, place.config.database()).await, digest).await;
    let manifest = place.backup_by_command().await;
    assert_eq!(manifest.large_objects, 100_001);
    sql(&place.config, place.config.database(), "SELECT lo_unlink(oid) FROM big").await;
    place.restore_by_command().await;
    let after = value(&session(&place.config, place.config.database()).await, digest).await;
    assert_eq!(before, after, "{major}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_large_objects_come_back_on_16() {
    large_objects(16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_large_objects_come_back_on_18() {
    large_objects(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_as_long_and_strange_as_they_get_come_back() {
    // Sixty-three bytes of each, of quotes, line ends, what looks like syntax, and letters of several bytes.
    let strange = |start: &str| {
        let mut name = start.to_owned();
        for part in
            ["\n", "\"", "'", ";", "\\", "\t", "--", "$$", "\u{e4}", "\r\n", ")", " FROM stdin;", "\\."].iter().cycle()
        {
            if name.len() + part.len() > 63 {
                break;
            }
            name.push_str(part);
        }
        while name.len() < 63 {
            name.push('x');
        }
        name
    };
    let quoted = |start: &str| format!("\"{}\"", strange(start).replace('"', "\"\""));
    let [schema, table, column, other, sequence, kind, function, view, filled] =
        ["s", "t", "c", "d", "q", "k", "f", "v", "m"].map(quoted);
    let label = literal(&strange("k"));
    let place = place(16, "strange", "").await;
    let make = format!(
        "CREATE SCHEMA {schema}; CREATE TYPE {schema}.{kind} AS ENUM ({label}); CREATE SEQUENCE {schema}.{sequence}; \
         CREATE TABLE {schema}.{table} ({column} int PRIMARY KEY DEFAULT nextval({named}::regclass), {other} text, k {schema}.{kind}); \
         CREATE INDEX {other} ON {schema}.{table} ({other}); \
         CREATE FUNCTION {schema}.{function}() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
         CREATE VIEW {schema}.{view} AS SELECT {other} FROM {schema}.{table}; \
         CREATE MATERIALIZED VIEW {schema}.{filled} AS SELECT 1 AS {column}; \
         COMMENT ON TABLE {schema}.{table} IS {label}; GRANT SELECT ON {schema}.{table} TO PUBLIC; \
         INSERT INTO {schema}.{table} ({other}, k) SELECT E'a\\nb\\\\.' || i, {label} FROM generate_series(1, 100) i",
        named = literal(&format!("{schema}.{sequence}")),
    );
    sql(&place.config, place.config.database(), &make).await;
    let manifest = place.backup().await.unwrap();
    assert_eq!((manifest.tables.len(), manifest.tables[0].rows, manifest.tables[0].name.len()), (1, 100, 63));
    assert_eq!(
        place.manager.verify(&manifest.id, &VerifyOptions::default()).await.unwrap().findings,
        Vec::<String>::new()
    );
    sql(&place.config, place.config.database(), &format!("DROP SCHEMA {schema} CASCADE")).await;
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    place.manager.restore(&place.name, &options, place.name.as_str()).await.unwrap();
    let now = session(&place.config, place.config.database()).await;
    assert_eq!(value(&now, &format!("SELECT count(*)::text FROM {schema}.{view}")).await, "100");
    let insert = format!("INSERT INTO {schema}.{table} (k) VALUES ({label}) RETURNING {column}");
    assert_eq!(value(&now, &insert).await, "101");
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_of_a_gigabyte_takes_no_more_memory_than_a_small_one() {
    let place = place(16, "huge", "max_wal_size = 4GB\n").await;
    // Rows of two kilobytes that hardly compress.
    let make = "CREATE TABLE big AS SELECT i, p.noise || i AS noise FROM generate_series(1, 5000) i, \
         LATERAL (SELECT string_agg(md5(random()::text || g), '') AS noise FROM generate_series(1, 62) g WHERE i > 0) p; \
         INSERT INTO big SELECT i + 5000 * n, right(noise, -n) || left(noise, n) FROM big, generate_series(1, 99) n; \
         ALTER TABLE big ADD PRIMARY KEY (i)";
    sql(&place.config, place.config.database(), make).await;
    let manifest = place.backup_by_command().await;
    assert!(manifest.tables[0].bytes > 990_000_000 && manifest.tables[0].rows == 500_000, "{:?}", manifest.tables);
    place.restore_by_command().await;
}
