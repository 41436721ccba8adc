//! Bad ground: each fault is a clear error with a hint and the right exit code, and nothing is left half open.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use shareddb_core::{AppSpec, ConnectionConfig, Provisioner, SecretStore as _};
use shareddb_tests::command::{run, shareddb_command};
use shareddb_tests::reaper::Reaper;
use shareddb_tests::server::{temporary_home, unique};
use shareddb_tests::{Output, TestServer, shareddb};

#[track_caller]
fn refused(output: Output, code: i32, words: &[&str]) {
    let output = output.expect_code(code);
    for word in words.iter().chain(&["error:", "hint:"]) {
        assert!(output.stderr.contains(word), "{word:?} is missing in:\n{}", output.stderr);
    }
}

/// A home that goes with the test.
fn home() -> (PathBuf, Reaper) {
    let home = temporary_home();
    let reaper = Reaper::of(&home);
    (home, reaper)
}

#[test]
fn postgresql_is_missing() {
    let (home, _reaper) = home();
    let nowhere = run(shareddb_command(&home).args(["deploy"]).env("SHAREDDB_PG_BIN", "/nonexistent"));
    refused(nowhere, 6, &["/nonexistent"]);
    let empty = tempfile::tempdir().unwrap();
    let incomplete = run(shareddb_command(&home).args(["create", "app"]).env("SHAREDDB_PG_BIN", empty.path()));
    refused(incomplete, 6, &[empty.path().to_str().unwrap()]);
    assert!(!home.join("local/data").exists());
}

#[tokio::test]
async fn the_port_is_taken() {
    let (home, _reaper) = home();
    shareddb(&home, &["deploy"]).expect_code(0);
    shareddb(&home, &["create", "app"]).expect_code(0);
    shareddb(&home, &["deploy", "--stop"]).expect_code(0);
    let port: u16 = fs::read_to_string(home.join("local/port")).unwrap().trim().parse().unwrap();
    let squatter = TcpListener::bind(("127.0.0.1", port)).unwrap();
    refused(shareddb(&home, &["deploy"]), 5, &[&port.to_string()]);
    drop(squatter);
    shareddb(&home, &["deploy"]).expect_code(0);
    shareddb(&home, &["psql", "app", "--", "-c", "SELECT 1"]).expect_code(0);
}

#[tokio::test]
async fn another_port_is_drift_of_the_secret() {
    let (home, _reaper) = home();
    shareddb(&home, &["create", "app"]).expect_code(0);
    shareddb(&home, &["deploy", "--stop"]).expect_code(0);
    fs::remove_file(home.join("local/port")).unwrap();
    shareddb(&home, &["deploy"]).expect_code(0);
    shareddb(&home, &["create", "app", "--dry-run", "--exit-code"]).expect_code(3);
    let before = shareddb(&home, &["env", "app", "--key", "DB_PASSWORD"]).stdout;
    assert!(shareddb(&home, &["create", "app"]).expect_code(0).stdout.contains("configured"));
    assert_eq!(shareddb(&home, &["env", "app", "--key", "DB_PASSWORD"]).stdout, before);
    shareddb(&home, &["psql", "app", "--", "-c", "SELECT 1"]).expect_code(0);
}

#[test]
fn data_of_another_major_and_half_made_data() {
    let (home, _reaper) = home();
    let data = home.join("local/data");
    shareddb(&home, &["deploy"]).expect_code(0);
    shareddb(&home, &["deploy", "--stop"]).expect_code(0);
    let version = fs::read_to_string(data.join("PG_VERSION")).unwrap();
    fs::write(data.join("PG_VERSION"), "13\n").unwrap();
    refused(shareddb(&home, &["deploy"]), 5, &["13"]);
    fs::remove_file(data.join("PG_VERSION")).unwrap();
    refused(shareddb(&home, &["deploy"]), 5, &[data.to_str().unwrap()]);
    fs::write(data.join("PG_VERSION"), version).unwrap();
    own_as(&data, &data.join("PG_VERSION"));
    shareddb(&home, &["deploy"]).expect_code(0);
}

/// Gives a file the owner of another.
fn own_as(model: &Path, file: &Path) {
    let reference = format!("--reference={}", model.display());
    run(Command::new("chown").arg(reference).arg(file)).expect_code(0);
}

#[test]
fn the_home_is_open_to_others() {
    let (home, _reaper) = home();
    fs::create_dir(home.join("local")).unwrap();
    fs::set_permissions(home.join("local"), fs::Permissions::from_mode(0o777)).unwrap();
    refused(shareddb(&home, &["deploy"]), 1, &["chmod"]);
    assert!(!home.join("local/data").exists());
}

#[tokio::test]
async fn the_server_does_not_run() {
    let (home, _reaper) = home();
    refused(shareddb(&home, &["list"]), 6, &["shareddb deploy"]);
    refused(shareddb(&home, &["create", "app", "--dry-run"]), 6, &["shareddb deploy"]);
    shareddb(&home, &["create", "app"]).expect_code(0);
    shareddb(&home, &["deploy", "--stop"]).expect_code(0);
    for args in
        [&["list"] as &[&str], &["status"], &["psql", "app"], &["drop", "app", "--no-backup", "--confirm", "app"]]
    {
        refused(shareddb(&home, args), 6, &["shareddb deploy"]);
    }
    shareddb(&home, &["env", "app"]).expect_code(0);
    let created = shareddb(&home, &["create", "app"]).expect_code(0);
    assert!(created.stdout.contains("unchanged"), "create starts the server: {}", created.stdout);
}

#[tokio::test]
async fn the_admins_password_is_wrong() {
    let (home, _reaper) = home();
    shareddb(&home, &["create", "app"]).expect_code(0);
    let file = home.join("local/admin-password");
    let password = fs::read(&file).unwrap();
    fs::write(&file, "wrong").unwrap();
    for args in [&["create", "other"] as &[&str], &["list"], &["deploy"]] {
        refused(shareddb(&home, args), 1, &["28P01", file.to_str().unwrap(), "write the right one"]);
    }
    fs::write(&file, "\n").unwrap();
    for args in [&["create", "other"] as &[&str], &["list"], &["deploy"]] {
        refused(shareddb(&home, args), 5, &[file.to_str().unwrap(), "is empty"]);
    }
    fs::remove_file(&file).unwrap();
    refused(shareddb(&home, &["list"]), 5, &["admin-password"]);
    fs::write(&file, password).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    shareddb(&home, &["list"]).expect_code(0);
}

#[tokio::test]
async fn nobody_listens_where_the_server_should_be() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = TestServer::shared().await;
    let nowhere = ConnectionConfig::new("127.0.0.1", port, "postgres", "postgres");
    let store = std::sync::Arc::new(server.secrets());
    let provisioner = Provisioner::new(server.server_with(nowhere, store.clone()));
    let name = unique("nowhere");
    let error = provisioner.create(&AppSpec::new(name.clone())).await.unwrap_err();
    assert_eq!(error.code(), "server_unreachable");
    assert!(error.is_retryable() && error.hint().is_some());
    assert!(store.load(&format!("{name}-db-secret").parse().unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn the_admin_is_no_superuser() {
    let server = TestServer::start().await;
    server
        .sql("postgres", "CREATE ROLE clerk LOGIN CREATEROLE PASSWORD 'x'; GRANT CONNECT ON DATABASE postgres TO clerk")
        .await;
    // Our pg_hba.conf lets nobody into that database but the admin.
    server.set_access_rules("host all all 127.0.0.1/32 scram-sha-256\n").await;
    let clerk = server.admin().with_user("clerk").with_password("x".into());
    let store = std::sync::Arc::new(server.secrets());
    let before = server.catalog().await;
    let error =
        Provisioner::new(server.server_with(clerk, store)).create(&AppSpec::new(unique("clerk"))).await.unwrap_err();
    assert_eq!(error.code(), "admin_unfit", "{error}");
    assert!(error.hint().is_some());
    assert_eq!(server.catalog().await, before);
}

#[tokio::test]
async fn the_budget_is_spent() {
    let server = TestServer::start().await;
    let home = server.home();
    refused(shareddb(home, &["create", "big", "--connections", "97"]), 5, &["more than half", "--allow-overcommit"]);
    for app in 0..7 {
        shareddb(home, &["create", &format!("app-{app}"), "--connections", "96"]).expect_code(0);
    }
    // 7 of 100 are promised, of 768.
    refused(shareddb(home, &["create", "last", "--connections", "90"]), 5, &["68 of 768", "needs 94"]);
    shareddb(home, &["create", "last", "--connections", "64"]).expect_code(0);
    refused(shareddb(home, &["create", "last", "--connections", "65"]), 5, &["--allow-overcommit"]);
    shareddb(home, &["create", "last", "--connections", "65", "--allow-overcommit"]).expect_code(0);
    // What is recorded needs no permission any more.
    assert!(shareddb(home, &["create", "last"]).expect_code(0).stdout.contains("unchanged"));
    assert!(shareddb(home, &["status"]).expect_code(0).stdout.contains("769/768 promised"));
}

#[tokio::test]
async fn the_disk_is_full() {
    let home = temporary_home();
    let mounted = run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m,mode=711", "tmpfs"]).arg(&home));
    let _reaper = Reaper::of(&home);
    assert_eq!(mounted.code, Some(0), "this test mounts a small file system, as root: {}", mounted.stderr);
    shareddb(&home, &["create", "first"]).expect_code(0);
    let ballast = home.join("ballast");
    fill(&ballast);
    refused(shareddb(&home, &["create", "second"]), 6, &["disk"]);
    shareddb(&home, &["env", "second"]).expect_code(4);

    // Room again: everything is there, nothing is open that has no Secret, and the same command finishes it.
    fs::remove_file(ballast).unwrap();
    shareddb(&home, &["psql", "first", "--", "-c", "SELECT 1"]).expect_code(0);
    let open = ["psql", "--admin", "--", "-Atc", "SELECT datname FROM pg_database WHERE datallowconn"];
    assert!(!shareddb(&home, &open).expect_code(0).stdout.contains("second_db"));
    shareddb(&home, &["create", "second"]).expect_code(0);
    shareddb(&home, &["psql", "second", "--", "-c", "CREATE TABLE t (x int)"]).expect_code(0);
}

/// A home under a second path, as a bind mount shows it; gone with this value.
struct SecondPath(PathBuf);

impl SecondPath {
    fn to(home: &Path) -> Self {
        let path = temporary_home();
        let mounted = run(Command::new("mount").arg("--bind").arg(home).arg(&path));
        assert_eq!(mounted.code, Some(0), "this test mounts a folder, as root: {}", mounted.stderr);
        Self(path)
    }
}

impl Drop for SecondPath {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(&self.0));
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn a_home_under_two_paths_has_one_server() {
    let (first, _reaper) = home();
    let second = SecondPath::to(&first);
    let second = second.0.as_path();
    let file = first.join("local/data/postmaster.pid");
    for (one, other) in [(first.as_path(), second), (second, first.as_path())] {
        shareddb(one, &["create", "app"]).expect_code(0);
        let process = fs::read_to_string(&file).unwrap();
        assert_eq!(shareddb(other, &["deploy"]).expect_code(0).stdout, "server/local unchanged\n");
        assert_eq!(fs::read_to_string(&file).unwrap(), process, "the server's file stays as it is");
        for path in [one, other] {
            shareddb(path, &["psql", "app", "--", "-c", "SELECT 1"]).expect_code(0);
            shareddb(path, &["list"]).expect_code(0);
        }
        assert_eq!(shareddb(other, &["deploy", "--stop"]).expect_code(0).stdout, "server/local stopped\n");
        assert!(!file.exists());
        assert_eq!(shareddb(one, &["deploy", "--stop"]).expect_code(0).stdout, "server/local unchanged\n");
    }
}

#[tokio::test]
async fn a_copy_of_a_home_leaves_the_server_of_the_original_alone() {
    let (original, _reaper) = home();
    let (copy, _reaper_of_copy) = home();
    shareddb(&original, &["deploy"]).expect_code(0);
    run(Command::new("cp").arg("-a").arg(original.join("local")).arg(&copy)).expect_code(0);
    let file = copy.join("local/data/postmaster.pid");
    refused(shareddb(&copy, &["list"]), 6, &["shareddb deploy"]);
    refused(shareddb(&copy, &["deploy"]), 5, &[file.to_str().unwrap(), "process "]);
    assert!(file.exists());
    assert_eq!(shareddb(&copy, &["deploy", "--stop"]).expect_code(0).stdout, "server/local unchanged\n");
    assert_eq!(shareddb(&original, &["deploy"]).expect_code(0).stdout, "server/local unchanged\n");
    // What the reaper of the copy would take for the copy's server.
    fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn a_home_is_moved_while_its_server_runs() {
    let (old, _reaper) = home();
    let (new, _reaper_of_new) = home();
    shareddb(&old, &["deploy"]).expect_code(0);
    fs::rename(old.join("local"), new.join("local")).unwrap();
    let again = shareddb(&new, &["deploy"]).expect_code(0);
    assert_eq!(again.stdout, "server/local unchanged\n");
    assert!(again.stderr.contains("shareddb deploy --stop"), "{}", again.stderr);
    assert_eq!(shareddb(&new, &["deploy", "--stop"]).expect_code(0).stdout, "server/local stopped\n");
    let started = shareddb(&new, &["deploy"]).expect_code(0);
    assert_eq!(started.stdout, "server/local started\n");
    assert!(!started.stderr.contains("--stop"), "{}", started.stderr);
    let settings = ["psql", "--admin", "--", "-Atc", "SHOW hba_file"];
    let access = shareddb(&new, &settings).expect_code(0).stdout;
    assert_eq!(Path::new(access.trim()), new.join("local/pg_hba.conf").canonicalize().unwrap());
    shareddb(&new, &["create", "app"]).expect_code(0);
}

/// Puts a pipe that nobody writes to in the place of a file; opening it without care waits for ever.
fn pipe_at(file: &Path) -> Vec<u8> {
    let content = fs::read(file).unwrap();
    fs::remove_file(file).unwrap();
    run(Command::new("mkfifo").arg("-m600").arg(file)).expect_code(0);
    own_as(file.parent().unwrap(), file);
    content
}

#[tokio::test]
async fn a_pipe_in_the_place_of_a_file_is_told_at_once() {
    let (home, _reaper) = home();
    shareddb(&home, &["create", "app"]).expect_code(0);
    let told = |args: &[&str], file: &Path| {
        let begun = std::time::Instant::now();
        let args = [args, &["--timeout", "20s"]].concat();
        // A version of a Secret has another name than the link to it.
        let name = file.file_name().unwrap().to_str().unwrap();
        refused(shareddb(&home, &args), 5, &[name, "not a regular file"]);
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    };
    for (name, args) in [
        ("admin-password", &["list"] as &[&str]),
        ("admin-password", &["deploy"]),
        ("data/PG_VERSION", &["list"]),
        ("data/postmaster.pid", &["list"]),
        ("lock", &["deploy"]),
        ("secrets/app-db-secret/..data/..shareddb", &["env", "app"]),
    ] {
        let file = home.join("local").join(name);
        let content = pipe_at(&file);
        told(args, &file);
        fs::remove_file(&file).unwrap();
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        own_as(file.parent().unwrap(), &file);
    }
    shareddb(&home, &["deploy", "--stop"]).expect_code(0);
    for name in ["port", "server.log"] {
        let file = home.join("local").join(name);
        let content = pipe_at(&file);
        told(&["deploy"], &file);
        fs::remove_file(&file).unwrap();
        fs::write(&file, content).unwrap();
    }
    shareddb(&home, &["deploy"]).expect_code(0);
}

/// Leaves half a megabyte: enough for a few rows in a catalog, not for a database. What it writes in vain is then so
/// little that the retry needs no new segment of the server's log of changes.
fn fill(ballast: &Path) {
    let mut file = fs::File::create(ballast).unwrap();
    while file.write_all(&[1; 1 << 16]).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length - (1 << 19)).unwrap();
}
