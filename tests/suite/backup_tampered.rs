//! Programs between us and the server that change what they pass on, or are of another version.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use shareddb_core::{AppSpec, BackupManager, BackupOptions, Error, RestoreOptions, Verdict, VerifyOptions};
use shareddb_tests::clients::programs;
use shareddb_tests::server::{session, sql, temporary_home, unique, value};
use shareddb_tests::{ForeignServer, TestServer};

use crate::backup_faults::{assert_tidy, memory};

/// Programs of which one runs its original in a pipe with a filter, which is a line of Python about `data`.
fn with_filter(real: &Path, changed: &str, filter: &str) -> PathBuf {
    let folder = temporary_home();
    let python = format!("import sys; data = sys.stdin.buffer.read(); {filter}; sys.stdout.buffer.write(data)");
    let original = format!("'{}' \"$@\"", real.join(changed).display());
    let pipe = match changed {
        "pg_dump" => format!("{original} | python3 -c \"{python}\""),
        _ => format!("python3 -c \"{python}\" | {original}"),
    };
    // What is asked for its version answers without a pipe.
    let script = format!("#!/bin/bash\nset -o pipefail\n[ \"$1\" = --version ] && exec {original}\n{pipe}\n");
    fs::write(folder.join(changed), script).unwrap();
    fs::set_permissions(folder.join(changed), fs::Permissions::from_mode(0o755)).unwrap();
    let other = if changed == "pg_dump" { "pg_restore" } else { "pg_dump" };
    symlink(real.join(other), folder.join(other)).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_on_the_way_is_no_backup_or_no_restore() {
    let server = TestServer::shared().await;
    let app = server.made("changed").await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    sql(&config, config.database(), "CREATE TABLE t AS SELECT generate_series(101, 110) AS i").await;
    let real = &server.endpoint().binaries.dir;
    let manager = BackupManager::new(server.server().await, memory());

    // One row becomes part of the row before it.
    let losing = with_filter(real, "pg_dump", r"data = data.replace(b'105\n', b'105 ')");
    let error = manager.clone().with_binaries(losing).backup(&app.name, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), "dump_differs", "{error}");
    assert!(error.to_string().contains("10 rows, and the dump has 9"), "{error}");
    assert_tidy(server, &app, &manager, 0).await;

    // One row is loaded with another value.
    let id = manager.backup(&app.name, &BackupOptions::default()).await.unwrap().id;
    let changing = with_filter(real, "pg_restore", r"data = data.replace(b'105\n106\n', b'105\n107\n')");
    let tampered = manager.clone().with_binaries(changing);
    let checked = tampered.verify(&id, &VerifyOptions::default()).await.unwrap();
    assert_eq!(checked.verdict, Verdict::Failed);
    assert!(checked.findings.iter().any(|finding| finding.contains("digest")), "{:?}", checked.findings);
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    let error = tampered.restore(&app.name, &options, app.name.as_str()).await.unwrap_err();
    assert_eq!(error.code(), "backup_differs", "{error}");
    let sum = "SELECT sum(i)::text FROM t";
    assert_eq!(value(&session(&config, config.database()).await, sum).await, "1055");
    assert_tidy(server, &app, &manager, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_another_version_say_which_are_wanted() {
    let server = ForeignServer::shared(17).await;
    let provisioner = server.provisioner(server.superuser());
    let spec = AppSpec::new(unique("version"));
    provisioner.create(&spec).await.unwrap();
    let manager = BackupManager::new(provisioner.server().clone(), memory());
    let older = manager.clone().with_binaries(programs(16));
    let error = older.backup(&spec.name, &BackupOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)) && error.code() == "tool_missing", "{error:?}");
    assert!(error.to_string().contains("PostgreSQL 17"), "{error}");
    // A newer pg_dump does; a newer pg_restore says what an older server does not know.
    let newer = manager.with_binaries(programs(18));
    newer.backup(&spec.name, &BackupOptions::default()).await.unwrap();
    let error = newer.restore(&spec.name, &RestoreOptions::default(), spec.name.as_str()).await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)) && error.code() == "client_mismatch", "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("postgresql-client-17")), "{error:?}");
}
