//! What is scarce or belongs to others while an app is backed up and restored: disk, the neighbours' time, tools that are not
//! ours.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use shareddb_core::reading::{ArchiveReader, Contents};
use shareddb_core::{BackupManager, BackupOptions, RestoreOptions, Verdict, VerifyOptions};
use shareddb_tests::TestServer;
use shareddb_tests::command::run;
use shareddb_tests::neighbour::Neighbour;
use shareddb_tests::reaper::Reaper;
use shareddb_tests::server::{password, session, sql, temporary_home, value};

use crate::backup::filled;
use crate::backup_faults::{assert_tidy, heavy, memory};

const WRITE: &str = "INSERT INTO log VALUES (now()); UPDATE log SET at = at WHERE at > now() - interval '10 ms'";

async fn neighbour_of(server: &TestServer) -> Neighbour {
    let app = server.made("neighbour").await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    sql(&config, config.database(), "CREATE TABLE log (at timestamptz); CREATE INDEX ON log (at)").await;
    Neighbour::start(&config, WRITE).await
}

fn without_safety() -> RestoreOptions {
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_notice_nothing() {
    let server = TestServer::shared().await;
    let app = heavy(server, "busy", 50_000).await;
    let manager = BackupManager::new(server.server().await, memory());
    let neighbour = neighbour_of(server).await;
    let id = manager.backup(&app.name, &BackupOptions::default()).await.unwrap().id;
    assert_eq!(manager.verify(&id, &VerifyOptions::default()).await.unwrap().verdict, Verdict::Passed);
    manager.restore(&app.name, &without_safety(), app.name.as_str()).await.unwrap();
    manager.undo(&app.name, app.name.as_str()).await.unwrap();
    let latency = neighbour.end("while 50 MB were dumped, checked, restored and taken back").await;
    assert!(latency.statements > 100, "{latency:?}");
}

/// A file system of so many megabytes that the server may write to; gone with this value.
struct SmallDisk {
    path: PathBuf,
    _reaper: Reaper,
}

impl SmallDisk {
    fn of(megabytes: usize) -> Self {
        let path = temporary_home();
        let options = format!("size={megabytes}m,mode=700,uid=postgres");
        let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path));
        let reaper = Reaper::of(&path);
        assert_eq!(mounted.code, Some(0), "this test mounts a small file system, as root: {}", mounted.stderr);
        Self { path, _reaper: reaper }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_in_the_middle_of_a_load_harms_nobody() {
    let disk = SmallDisk::of(24);
    let server = TestServer::start().await;
    let app = heavy(&server, "full", 40_000).await;
    let neighbour = neighbour_of(&server).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    let manager = BackupManager::new(server.server().await, memory());
    let id = manager.backup(&app.name, &BackupOptions::default()).await.unwrap().id;
    // From here on new tables are where there is little room.
    server.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", disk.path.display())).await;
    server.sql("postgres", "GRANT CREATE ON TABLESPACE small TO PUBLIC").await;
    server.sql("postgres", "ALTER SYSTEM SET default_tablespace = 'small'").await;
    server.sql("postgres", "SELECT pg_reload_conf()").await;

    let error = manager.verify(&id, &VerifyOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "tool_hindered", "{error}");
    assert!(error.to_string().contains("No space left on device"), "{error}");
    let error = manager.restore(&app.name, &without_safety(), app.name.as_str()).await.unwrap_err();
    assert_eq!(error.code(), "tool_hindered", "{error}");
    assert_tidy(&server, &app, &manager, 1).await;
    let now = session(&config, config.database()).await;
    assert_eq!(value(&now, "SELECT count(*)::text FROM big").await, "40000");
    drop(now);
    neighbour.end("while a disk was full").await;

    // With room again the same goes.
    server.sql("postgres", "ALTER SYSTEM RESET default_tablespace").await;
    server.sql("postgres", "SELECT pg_reload_conf()").await;
    manager.restore(&app.name, &without_safety(), app.name.as_str()).await.unwrap();
    assert_tidy(&server, &app, &manager, 1).await;
    server.sql("postgres", "DROP TABLESPACE small").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_limits_an_apps_temporary_files_limits_no_load() {
    let server = TestServer::start().await;
    let app = heavy(&server, "sorted", 40_000).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    sql(&config, config.database(), "CREATE INDEX by_noise ON big (left(noise, 900))").await;
    let manager = BackupManager::new(server.server().await, memory());
    manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    for setting in ["temp_file_limit = '1MB'", "maintenance_work_mem = '1MB'", "max_parallel_maintenance_workers = 0"] {
        server.sql("postgres", &format!("ALTER SYSTEM SET {setting}")).await;
    }
    server.sql("postgres", "SELECT pg_reload_conf()").await;
    let index = format!("CREATE INDEX another ON {}.big (left(noise, 900))", app.schema);
    let limited = server.session(config.database()).await.batch_execute(&index).await.unwrap_err();
    assert_eq!(limited.code().unwrap().code(), "53400", "an index as large is beyond the limit");
    manager.restore(&app.name, &without_safety(), app.name.as_str()).await.unwrap();
}

fn contents(bytes: &[u8]) -> Contents {
    let mut reader = ArchiveReader::new();
    reader.feed(bytes).unwrap();
    reader.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_are_not_ours_restore_the_same() {
    let server = TestServer::shared().await;
    let app = filled(server, "stock").await;
    let folder = temporary_home();
    let store = shareddb_core::BackupStore::open(&format!("file://{}", folder.display()), []).unwrap();
    let manager = BackupManager::new(server.server().await, store);
    let manifest = manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    let object = folder.join(format!("local/{}/{}", app.name, manifest.data.object));

    let sum = run(Command::new("sha256sum").arg(&object)).expect_code(0).stdout;
    assert_eq!(sum.split(' ').next(), Some(manifest.data.sha256.as_str()));
    server.sql("postgres", "CREATE DATABASE by_hand TEMPLATE template0 ENCODING UTF8").await;
    let (admin, programs) = (server.admin(), server.endpoint().binaries.dir.display().to_string());
    let script = |script: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("set -eo pipefail; {script}"), "bash"]).arg(&object).stdin(Stdio::null());
        command.env("PGHOST", admin.host()).env("PGPORT", admin.port().to_string()).env("PGUSER", admin.user());
        command.env("PGPASSWORD", password(&admin)).env("PGOPTIONS", "-c timezone=UTC");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{script}: {said}");
        output.stdout
    };
    script(&format!("zstd -dc \"$1\" | {programs}/pg_restore --exit-on-error --no-owner -d by_hand"));
    manager.restore(&app.name, &without_safety(), app.name.as_str()).await.unwrap();
    let [by_hand, ours] = ["by_hand", app.database.as_str()]
        .map(|database| contents(&script(&format!("{programs}/pg_dump -Fc -Z0 --no-tablespaces -d {database}"))));
    assert_eq!(by_hand.large_objects, ours.large_objects);
    let digests = |contents: &Contents| {
        let tables =
            contents.toc.entries().iter().filter_map(|entry| {
                Some((format!("{}.{}", entry.namespace, entry.tag), *contents.tables.get(&entry.id)?))
            });
        tables.collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(digests(&by_hand), digests(&ours));
    // Owners differ, as whoever restores by hand owns what that makes; so do rights, which name them, and the databases.
    let definitions = |contents: &Contents| {
        let differs = ["ACL", "DEFAULT ACL", "DATABASE", "DATABASE PROPERTIES"];
        let entries = contents.toc.entries().iter().filter(|entry| {
            !differs.contains(&entry.kind.as_str()) && !entry.tag.starts_with("DATABASE ") && entry.tag != "public"
        });
        let mut all: Vec<String> = entries.map(|entry| format!("{entry} {}", entry.definition)).collect();
        all.sort();
        all
    };
    assert_eq!(definitions(&by_hand), definitions(&ours));
    assert_eq!(fs::metadata(&object).unwrap().len(), manifest.data.bytes);
    server.sql("postgres", "DROP DATABASE by_hand").await;
}
