//! What pg_dump of every major writes is read as its own pg_restore reads it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use shareddb_core::reading::{
    ArchiveReader, Contents, Entry, LoadList, MissingRoles, Piece, RowCounter, Rows, ScriptReader, ScriptTarget,
    Target, difference, schema_digest,
};
use shareddb_tests::clients::programs;
use shareddb_tests::majors::{ForeignServer, MAJORS};
use shareddb_tests::server::password;

/// Rows that look like the end, names that look like syntax, objects of every section.
const FILL: &str = r#"
    CREATE SCHEMA s;
    CREATE EXTENSION citext SCHEMA s;
    CREATE TABLE s.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, twice int GENERATED ALWAYS AS (length(body) * 2) STORED);
    INSERT INTO s.t (body) SELECT repeat(chr(97 + n % 26), n) FROM generate_series(1, 3000) n;
    INSERT INTO s.t (body) VALUES (NULL), (''), ('\.'), (E'\\.\n'), (E'tab\there'), (E'two\nlines'), (E'\\'), ('Größe');
    CREATE TABLE s.bare ();
    INSERT INTO s.bare DEFAULT VALUES; INSERT INTO s.bare DEFAULT VALUES;
    CREATE TABLE s.one (x text);
    INSERT INTO s.one VALUES ('\.'), (''), (E'\n'), ('\.'), (repeat('x', 3000000));
    CREATE TABLE s.empty (x int);
    CREATE TABLE s."odd; ""name""
here" (x int);
    INSERT INTO s."odd; ""name""
here" VALUES (7);
    CREATE TABLE s.split (day date, x int) PARTITION BY RANGE (day);
    CREATE TABLE s.split_1 PARTITION OF s.split FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO s.split VALUES ('2026-03-01', 1), ('2026-04-01', 2);
    CREATE INDEX ON s.t (body text_pattern_ops) WHERE length(body) < 100;
    CREATE VIEW s.v AS SELECT id FROM s.t;
    CREATE MATERIALIZED VIEW s.m AS SELECT count(*) FROM s.t;
    CREATE FUNCTION s.f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 ELSE 2 END; SELECT 3; END;
    REVOKE ALL ON FUNCTION s.f() FROM PUBLIC;
    CREATE FUNCTION s.tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE ';'; RETURN new; END $$;
    CREATE TRIGGER tell BEFORE UPDATE ON s.t FOR EACH ROW EXECUTE FUNCTION s.tell();
    CREATE RULE r AS ON INSERT TO s.v DO INSTEAD (SELECT 1; SELECT 2;);
    ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON s.t USING (body <> ';');
    GRANT SELECT ON s.t TO pg_monitor;
    COMMENT ON TABLE s.t IS 'it''s; a comment';
    SELECT lo_from_bytea(4000000000, 'large'), lo_from_bytea(16999, repeat('y', 100000)::bytea), lo_create(17000);
"#;

/// A database of a server, and the programs of its major.
#[derive(Clone, Copy)]
struct Source<'a> {
    server: &'a ForeignServer,
    major: u32,
    database: &'a str,
}

impl Source<'_> {
    fn program(&self, name: &str) -> Command {
        let config = self.server.superuser();
        let mut command = Command::new(programs(self.major).join(name));
        command.env_clear().env("PGPASSWORD", password(&config)).env("PGOPTIONS", "-c timezone=UTC").env("LC_ALL", "C");
        command.env("PGHOST", config.host()).env("PGPORT", config.port().to_string()).env("PGUSER", config.user());
        command.env("PGDATABASE", self.database);
        command
    }

    /// What a program writes, given these arguments.
    fn output(&self, name: &str, args: &[&str]) -> Vec<u8> {
        let output = self.program(name).args(args).stdin(Stdio::null()).output().expect("the program is there");
        assert!(output.status.success(), "{}: {}", self.major, String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// What COPY writes for a table, as psql passes it on.
    fn copied(&self, entry: &Entry) -> Vec<u8> {
        let statement = entry.copy_statement.replace("FROM stdin", "TO stdout");
        self.output("psql", &["--no-psqlrc", "--quiet", "-c", statement.trim()])
    }
}

fn read(bytes: &[u8], slice: usize) -> Contents {
    let mut reader = ArchiveReader::new();
    bytes.chunks(slice).for_each(|slice| reader.feed(slice).unwrap_or_else(|error| panic!("{error}")));
    reader.finish().unwrap_or_else(|error| panic!("{error}"))
}

fn count(text: &[u8]) -> Rows {
    let mut counter = RowCounter::of_stream();
    counter.feed(text).unwrap();
    counter.finish().unwrap()
}

/// Every line the other way round, so that equal sums are no accident of order.
fn turned(text: &[u8]) -> Vec<u8> {
    text.split_inclusive(|byte| *byte == b'\n').rev().flatten().copied().collect()
}

/// The numbers at the beginnings of lines of `pg_restore -l`; names may have lines of their own.
fn numbers(list: &str) -> Vec<i32> {
    let lines = list.lines().filter(|line| !line.starts_with(';'));
    lines.filter_map(|line| line.split_once("; ")?.0.parse().ok()).collect()
}

#[tokio::test]
async fn archives_of_every_major_are_read_to_the_row() {
    for major in MAJORS {
        let server = ForeignServer::shared(major).await;
        server.sql("postgres", "CREATE DATABASE archived").await;
        server.sql("archived", FILL).await;
        let source = Source { server, major, database: "archived" };
        let bytes = source.output("pg_dump", &["-Fc", "-Z0"]);
        let contents = read(&bytes, 64 << 10);
        assert_eq!(contents, read(&bytes, 1), "{major}");
        // Where the machine has no older client, a newer one wrote it.
        let client: u32 = contents.toc.dump_version.split('.').next().unwrap().parse().unwrap();
        assert!(client >= major, "{client}");
        let minor = match client {
            ..=15 => "1.14",
            16 => "1.15",
            _ => "1.16",
        };
        assert_eq!(contents.toc.version.to_string(), minor, "{major}");
        assert!(contents.toc.server_version.starts_with(&major.to_string()), "{}", contents.toc.server_version);
        assert_eq!((contents.bytes, contents.large_objects), (bytes.len() as u64, 3), "{major}");

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("archive");
        fs::write(&file, &bytes).unwrap();
        let list = source.output("pg_restore", &["-l", file.to_str().unwrap()]);
        // What is always set, and the database itself, is in no list.
        let unlisted = ["ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE"];
        let entries = contents.toc.entries().iter().filter(|entry| !unlisted.contains(&entry.kind.as_str()));
        let ids: Vec<_> = entries.map(|entry| entry.id).collect();
        assert_eq!(ids, numbers(&String::from_utf8(list).unwrap()), "{major}");

        let tables: Vec<_> = contents.toc.entries().iter().filter(|entry| entry.kind == "TABLE DATA").collect();
        assert_eq!(tables.len(), 6, "{major}");
        for table in tables {
            let text = source.copied(table);
            let rows = contents.tables[&table.id];
            assert_eq!(rows, count(&turned(&text)), "{major}: {table}");
            assert_eq!(rows.bytes, text.len() as u64, "{major}: {table}");
            let quoted = format!("s.\"{}\"", table.tag.replace('"', "\"\""));
            let counted = server.value("archived", &format!("SELECT count(*) FROM {quoted}")).await;
            assert_eq!(rows.rows.to_string(), counted, "{major}: {table}");
        }
        other_forms(&source, &contents, folder.path());
        println!("{major}: {} entries, {} bytes", ids.len(), bytes.len());
    }
}

/// With offsets in it, without data, and what is not read.
fn other_forms(source: &Source<'_>, contents: &Contents, folder: &Path) {
    let path = folder.join("seekable");
    source.output("pg_dump", &["-Fc", "-Z0", "-f", path.to_str().unwrap()]);
    let seekable = read(&fs::read(&path).unwrap(), 4096);
    assert_eq!((&seekable.tables, seekable.large_objects), (&contents.tables, contents.large_objects));
    let schema = read(&source.output("pg_dump", &["-Fc", "--schema-only"]), 4096);
    assert!(schema.tables.is_empty());
    assert_eq!(difference(&contents.toc, &schema.toc), Vec::<String>::new());
    assert_eq!(schema_digest(&contents.toc), schema_digest(&schema.toc));
    for (option, code) in [("-Z1", "archive_compressed"), ("--inserts", "archive_inserts")] {
        let bytes = source.output("pg_dump", &["-Fc", if option == "-Z1" { "-Z1" } else { "-Z0" }, option]);
        assert_eq!(ArchiveReader::new().feed(&bytes).unwrap_err().code(), code, "{option}");
    }
}

/// Loads an archive from a pipe with a list.
fn load(target: &Source<'_>, archive: &Path, list: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), list).unwrap();
    let mut command = target.program("pg_restore");
    command.args(["-d", target.database, "--no-owner", "--exit-on-error", "-L"]).arg(file.path());
    let output = command.stdin(fs::File::open(archive).unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", target.major);
}

#[tokio::test]
async fn a_load_by_the_list_brings_everything_back() {
    for major in MAJORS {
        let server = ForeignServer::shared(major).await;
        for database in ["listed", "listed_whole", "listed_twice"] {
            server.sql("postgres", &format!("CREATE DATABASE {database}")).await;
        }
        server.sql("listed", FILL).await;
        server.sql("listed", "CREATE TABLE s.settings (x int); INSERT INTO s.settings VALUES (1);").await;
        // As the script of an extension would have it.
        server.sql("listed", "ALTER EXTENSION citext ADD TABLE s.settings; UPDATE pg_extension SET extconfig = ARRAY['s.settings'::regclass::oid], extcondition = ARRAY[''] WHERE extname = 'citext'").await;
        let source = Source { server, major, database: "listed" };
        let bytes = source.output("pg_dump", &["-Fc", "-Z0"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        let contents = read(&bytes, 4096);
        let made = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let target = Target {
            extensions: made(&["citext"]),
            schemas: made(&["s"]),
            roles: made(&["postgres"]),
            members: BTreeMap::from([(("s".to_owned(), "settings".to_owned()), "citext".to_owned())]),
            ..Target::default()
        };
        let list = LoadList::of(&contents.toc, &target);
        let left: Vec<_> = list.left_out().iter().map(|left| format!("{}: {}", left.what, left.why)).collect();
        assert_eq!(
            left,
            [
                "SCHEMA s: it is there already",
                "EXTENSION citext: it is there already",
                "COMMENT EXTENSION citext: it is there already",
                "ACL s.TABLE t: it grants rights to pg_monitor",
                "TABLE DATA s.settings: it belongs to the extension citext",
            ],
            "{major}"
        );
        for (database, lists) in [("listed_whole", vec![list.whole()]), ("listed_twice", list.passes().to_vec())] {
            server.sql(database, "CREATE SCHEMA s; CREATE EXTENSION citext SCHEMA s").await;
            let copy = Source { database, ..source };
            lists.iter().for_each(|list| load(&copy, file.path(), list));
            let found = read(&copy.output("pg_dump", &["-Fc", "-Z0"]), 4096);
            assert_eq!(difference(list.comparable(&contents.toc), list.comparable(&found.toc)), Vec::<String>::new());
            let digests = |contents: &Contents| -> BTreeMap<String, Rows> {
                let named = contents.toc.entries().iter().filter(|entry| entry.tag != "settings");
                named.filter_map(|entry| Some((entry.tag.clone(), *contents.tables.get(&entry.id)?))).collect()
            };
            assert_eq!(digests(&contents), digests(&found), "{major}: {database}");
            assert_eq!(contents.large_objects, found.large_objects);
        }
    }
}

#[tokio::test]
async fn plain_dumps_of_every_major_are_read_as_psql_reads_them() {
    for major in MAJORS {
        let server = ForeignServer::shared(major).await;
        for database in ["scripted", "scripted_copy"] {
            server.sql("postgres", &format!("CREATE DATABASE {database}")).await;
        }
        server.sql("scripted", FILL).await;
        let source = Source { server, major, database: "scripted" };
        let target =
            ScriptTarget { owner: "postgres".to_owned(), missing_roles: MissingRoles::Skip, ..ScriptTarget::default() };
        // Without its data, which the session of a test does not stream.
        let mut statements = 0;
        let session = server.session("scripted_copy").await;
        let mut data: Vec<Vec<u8>> = Vec::new();
        let mut skipped = Vec::new();
        let script = source.output("pg_dump", &["--create"]);
        let mut reader = ScriptReader::new(target);
        for slice in script.chunks(1000) {
            for piece in reader.feed(slice).unwrap_or_else(|error| panic!("{major}: {error}")) {
                match piece {
                    Piece::Statement(statement) => {
                        session.batch_execute(&statement).await.unwrap_or_else(|error| {
                            panic!("{major}: {statement}: {error:?}");
                        });
                        statements += 1;
                    }
                    Piece::Skipped { what, .. } => skipped.push(what),
                    Piece::CopyIn { .. } => data.push(Vec::new()),
                    Piece::CopyData(bytes) => data.last_mut().expect("a COPY has begun").extend_from_slice(&bytes),
                    _ => {}
                }
            }
        }
        reader.finish().unwrap_or_else(|error| panic!("{major}: {error}"));
        assert!(statements > 40, "{major}: {statements}");
        for what in
            ["CREATE DATABASE scripted", "\\connect scripted", "ALTER TABLE s.t OWNER TO", "GRANT SELECT ON TABLE s.t"]
        {
            assert!(skipped.iter().any(|skipped| skipped.starts_with(what)), "{major}: {what}: {skipped:#?}");
        }
        let archive = read(&source.output("pg_dump", &["-Fc", "-Z0"]), 4096);
        let mut digests: Vec<_> = archive.tables.values().map(|rows| rows.digest.to_string()).collect();
        let mut found: Vec<_> = data.iter().map(|text| count(text).digest.to_string()).collect();
        digests.sort();
        found.sort();
        assert_eq!(digests, found, "{major}");
        let copy = Source { database: "scripted_copy", ..source };
        let schema = |source: &Source<'_>| read(&source.output("pg_dump", &["-Fc", "-s", "--no-acl"]), 4096).toc;
        assert_eq!(difference(&schema(&source), &schema(&copy)), Vec::<String>::new(), "{major}");
    }
}
