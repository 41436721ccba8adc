//! Backups by the command: what it prints where, how it ends, and what is left when it is cut short.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use shareddb_tests::command::{run, shareddb_command};
use shareddb_tests::server::{password, temporary_home};
use shareddb_tests::watch::eventually;
use shareddb_tests::{ObjectServer, Output, TestServer, shareddb};

/// What takes a moment to dump.
const BIG: &str = "CREATE TABLE big AS SELECT i, repeat(md5(i::text), 30) AS text FROM generate_series(1, 300000) i";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What a query says in an app's database, as the app.
fn ask(home: &Path, app: &str, sql: &str) -> String {
    shareddb(home, &["psql", app, "--", "-XAtqc", sql]).expect_code(0).stdout.trim().to_owned()
}

/// The names of an app's backups, the newest first.
fn ids(home: &Path, app: &str) -> Vec<String> {
    let list = shareddb(home, &["backups", app, "-o", "name"]).expect_code(0).stdout;
    list.lines().map(|line| line.strip_prefix("backup/").unwrap().to_owned()).collect()
}

/// A server with an app that has three rows.
async fn filled() -> TestServer {
    let server = TestServer::start().await;
    shareddb(server.home(), &["create", "myapp"]).expect_code(0);
    ask(server.home(), "myapp", "CREATE TABLE notes (id int PRIMARY KEY, text text)");
    ask(server.home(), "myapp", "INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 3) i");
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_of_the_readme() {
    let server = filled().await;
    let home = server.home();
    let none = shareddb(home, &["backups"]).expect_code(0);
    assert!(none.stdout.is_empty() && none.stderr.contains("shareddb backup myapp"), "{none:?}");
    let taken = shareddb(home, &["backup", "myapp"]).expect_code(0);
    let first = ids(home, "myapp").remove(0);
    assert!(taken.stdout.starts_with(&format!("backup/{first} created  3 rows  ")), "{}", taken.stdout);
    assert!(taken.stderr.contains("  . myapp: dumping") && taken.stderr.contains("/backups\n"), "{}", taken.stderr);
    let columns = || {
        let table = shareddb(home, &["backups"]).expect_code(0).stdout;
        let (heads, row) = table.split_once('\n').unwrap();
        assert_eq!(heads, "ID                      TAKEN  SIZE   ROWS  VERIFIED  KEPT");
        row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = columns();
    assert_eq!([&before[0], &before[3], &before[4], &before[5]], [first.as_str(), "3", "<none>", "<none>"]);
    let verified = shareddb(home, &["verify", "myapp"]).expect_code(0).stdout;
    assert!(verified.starts_with(&format!("backup/{first} passed  ")), "{verified}");
    assert_ne!(columns()[4], "<none>");

    ask(home, "myapp", "DELETE FROM notes WHERE id > 1");
    let plan = shareddb(home, &["restore", "myapp", "--dry-run", "--exit-code"]).expect_code(3).stdout;
    assert!(plan.contains(&format!("replaced by backup/{first}")) && plan.contains("Nothing was changed"), "{plan}");
    assert_eq!(ask(home, "myapp", "SELECT count(*) FROM notes"), "1");
    let restored = shareddb(home, &["restore", "myapp", "--confirm", "myapp"]).expect_code(0);
    let ids_then = ids(home, "myapp");
    let lines: Vec<&str> = restored.stdout.lines().collect();
    assert!(lines[0].starts_with(&format!("backup/{} created  1 row  ", ids_then[0])), "{lines:?}");
    assert_eq!(lines[1..], [format!("app/myapp restored from backup/{first}")]);
    assert!(restored.stderr.contains("Undo: shareddb restore myapp --undo --confirm myapp"), "{}", restored.stderr);
    assert_eq!(ask(home, "myapp", "SELECT count(*) FROM notes"), "3");

    let status = shareddb(home, &["status", "myapp"]).expect_code(0).stdout;
    assert!(status.contains("Kept: ") && status.contains(&format!("by the restore of {first}")), "{status}");
    let plan = shareddb(home, &["restore", "myapp", "--undo", "--dry-run"]).expect_code(0).stdout;
    assert!(plan.contains("replaced by shareddb_k_"), "{plan}");
    let undone = shareddb(home, &["restore", "myapp", "--undo", "--confirm", "myapp"]).expect_code(0);
    assert_eq!(undone.stdout, "app/myapp as before\n");
    assert_eq!(ask(home, "myapp", "SELECT count(*) FROM notes"), "1");

    // Neither goes: one is the newest and kept for a week, the other is the newest that is known to restore.
    let plan =
        shareddb(home, &["prune", "myapp", "--keep-last", "1", "--dry-run", "--exit-code"]).expect_code(0).stdout;
    assert!(plan.contains("newest-verified") && plan.contains("0 to delete"), "{plan}");
    shareddb(home, &["backup", "myapp"]).expect_code(0);
    shareddb(home, &["backup", "myapp"]).expect_code(0);
    let plan =
        shareddb(home, &["prune", "--all", "--keep-last", "1", "--dry-run", "--exit-code"]).expect_code(3).stdout;
    assert!(plan.contains("1 to delete") && plan.contains("Nothing was deleted (dry run)"), "{plan}");
    assert_eq!(ids(home, "myapp").len(), 4);
    let pruned = shareddb(home, &["prune", "--all", "--keep-last", "1"]).expect_code(0).stdout;
    assert!(pruned.contains("  deleted\n") && pruned.contains("1 deleted"), "{pruned}");
    assert_eq!(ids(home, "myapp").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_has_replaced_takes_no_backups_place() {
    let server = filled().await;
    let home = server.home();
    let foreign = "CREATE EXTENSION postgres_fdw; CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw";
    server.sql("myapp_db", foreign).await;
    shareddb(home, &["backup", "myapp"]).expect_code(0);
    let first = ids(home, "myapp").remove(0);
    let newest = || {
        json(&shareddb(home, &["status", "-o", "json"]).expect_code(0).stdout)["backups"]["apps"]["myapp"]["taken"]
            .clone()
    };
    let taken = newest();
    assert!(taken.is_string(), "{taken}");
    ask(home, "myapp", "DELETE FROM notes");
    shareddb(home, &["restore", "myapp", "--confirm", "myapp"]).expect_code(0);
    assert_eq!(newest(), taken);
    let pruned = shareddb(home, &["prune", "myapp", "--keep-last", "1"]).expect_code(0).stdout;
    assert!(pruned.contains("0 deleted"), "{pruned}");
    assert!(shareddb(home, &["backups", "myapp"]).expect_code(0).stdout.contains("  before-restore,until-"));
    let verified = shareddb(home, &["verify", "myapp", "--backup", "latest"]).expect_code(0).stdout;
    assert!(verified.starts_with(&format!("backup/{first} passed  ")), "{verified}");
    assert!(verified.contains("\n  not restored: SERVER elsewhere: "), "{verified}");
    // Where there is nothing else it is taken by its name only.
    fs::remove_file(home.join(format!("backups/local/myapp/{first}.manifest.json"))).unwrap();
    let none = shareddb(home, &["restore", "myapp", "--dry-run"]).expect_code(4).stderr;
    assert!(none.contains("but of what restores have replaced"), "{none}");
    shareddb(home, &["restore", "myapp", "--dry-run", "--backup", &ids(home, "myapp")[0]]).expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_can_come_back() {
    let server = filled().await;
    let home = server.home();
    let options = [
        "--extension",
        "citext",
        "--set",
        "statement_timeout=33s",
        "--connections",
        "12",
        "--search-path",
        "public,myapp",
    ];
    shareddb(home, &[&["create", "myapp"] as &[&str], &options].concat()).expect_code(0);
    let plan = shareddb(home, &["drop", "myapp", "--dry-run"]).expect_code(0).stdout;
    assert!(plan.starts_with("  + backup in file://"), "{plan}");
    let refused = shareddb(home, &["drop", "myapp"]).expect_code(5).stderr;
    assert!(refused.contains("error: dropping app myapp deletes all its data\nhint: "), "{refused}");
    assert!(ids(home, "myapp").is_empty(), "nobody said yes");

    // Without a backup nothing is dropped.
    let file = temporary_home().join("file");
    fs::write(&file, "").unwrap();
    let nowhere = file.join("x");
    let failed = shareddb(home, &["drop", "myapp", "--confirm", "myapp", "--to", nowhere.to_str().unwrap()]);
    assert!(failed.code != Some(0) && failed.stderr.contains("nothing was dropped"), "{failed:?}");
    assert_eq!(ask(home, "myapp", "SELECT count(*) FROM notes"), "3");

    let dropped = shareddb(home, &["drop", "myapp", "--confirm", "myapp"]).expect_code(0);
    let id = ids(home, "myapp").remove(0);
    let lines: Vec<&str> = dropped.stdout.lines().collect();
    assert!(lines[0].starts_with(&format!("backup/{id} created")) && lines[1] == "app/myapp dropped", "{lines:?}");
    let list = json(&shareddb(home, &["backups", "myapp", "-o", "json"]).expect_code(0).stdout);
    let item = &list["items"][0];
    assert_eq!((&item["reason"], &item["rows"]), (&"before-drop".into(), &3.into()), "{item}");
    assert!(shareddb(home, &["backups"]).expect_code(0).stdout.contains("  until-"), "{item}");

    let back = dropped.stderr.lines().find_map(|line| line.strip_prefix("Back: ")).unwrap();
    for command in back.split(" && ") {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        shareddb(home, &words).expect_code(0);
    }
    assert_eq!(ask(home, "myapp", "SELECT count(*) FROM notes"), "3");
    assert_eq!(ask(home, "myapp", "SELECT current_setting('statement_timeout') || 'A'::citext"), "33sA");
    let unchanged = shareddb(home, &[&["create", "myapp"] as &[&str], &options].concat()).expect_code(0).stdout;
    assert_eq!(unchanged, "app/myapp unchanged\n");
    shareddb(home, &["drop", "myapp", "--confirm", "myapp"]).expect_code(0);
    shareddb(home, &["create", "myapp", "--extension", "hstore"]).expect_code(0);
    let restored = shareddb(home, &["restore", "myapp", "--confirm", "myapp"]).expect_code(0).stderr;
    assert!(!restored.contains("not restored"), "{restored}");
    assert!(
        restored.contains("--extension citext --extension hstore\n") && restored.contains("(statement_timeout): "),
        "{restored}"
    );
    let dropped = shareddb(home, &["drop", "myapp", "--confirm", "myapp", "-o", "json"]).expect_code(0).stdout;
    let dropped = json(&dropped);
    assert_eq!((&dropped["kind"], &dropped["backup"]["reason"]), (&"Result".into(), &"before-drop".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_have_their_exit_codes() {
    let server = filled().await;
    let home = server.home();
    for (args, code) in [
        (&["backup"] as &[&str], 2),
        (&["backup", "nobody"], 4),
        (&["backup", "myapp", "--to", "s3:slip"], 2),
        (&["backup", "myapp", "--encrypt-to", "age1nonsense"], 2),
        (&["verify", "myapp"], 4),
        (&["restore", "myapp", "--confirm", "myapp"], 4),
        (&["restore", "nobody", "--confirm", "nobody"], 4),
        (&["restore", "myapp", "--undo", "--confirm", "myapp"], 4),
        (&["prune", "myapp"], 2),
        (&["backups", "nobody"], 0),
    ] {
        let output = shareddb(home, args).expect_code(code);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}: {output:?}");
    }
    shareddb(home, &["create", "other"]).expect_code(0);
    let several = shareddb(home, &["backup", "nobody", "myapp", "other", "-o", "json"]).expect_code(4);
    let document = json(&several.stdout);
    let taken: Vec<&Value> = document["items"].as_array().unwrap().iter().map(|item| &item["app"]).collect();
    assert_eq!(taken, ["myapp", "other"], "one that fails does not stop the others");
    assert_eq!(
        (&document["failed"][0]["app"], &document["failed"][0]["code"]),
        (&"nobody".into(), &"app_not_found".into())
    );
    assert!(several.stderr.lines().any(|line| line.starts_with('{') && json(line)["exit"] == 4), "{}", several.stderr);

    let id = ids(home, "myapp").remove(0);
    let refused = shareddb(home, &["restore", "myapp"]).expect_code(5).stderr;
    assert!(refused.contains("hint: say so by giving its name again: --confirm myapp"), "{refused}");
    shareddb(home, &["restore", "myapp", "--confirm", "other"]).expect_code(5);
    shareddb(home, &["restore", "other", "--backup", &id, "--confirm", "other"]).expect_code(5);
    shareddb(home, &["verify", "other", "--backup", &id]).expect_code(2);
    shareddb(home, &["restore", "myapp", "--at", "2001-01-01T00:00:00Z", "--confirm", "myapp"]).expect_code(4);
    let all = shareddb(home, &["verify", "--all", "--quick"]).expect_code(0).stdout;
    assert!(all.lines().count() == 2 && all.contains(&format!("backup/{id} read  ")), "{all}");

    // A byte of the dump is another.
    let folder = home.join("backups/local/myapp");
    let mut entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let dump = entries.find(|path| path.to_str().unwrap().ends_with(".dump.zst")).unwrap();
    let mut bytes = fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&dump, bytes).unwrap();
    let failed = shareddb(home, &["verify", "--all"]).expect_code(3).stdout;
    assert!(failed.contains(&format!("backup/{id} FAILED  ")) && failed.contains("\n  "), "{failed}");
    let document = json(&shareddb(home, &["verify", "myapp", "-o", "json"]).expect_code(3).stdout);
    assert_eq!((&document["kind"], &document["items"][0]["verdict"]), (&"VerificationList".into(), &"failed".into()));
    assert!(shareddb(home, &["backups", "myapp"]).expect_code(0).stdout.contains("  FAILED-"));
    let plan = shareddb(home, &["restore", "myapp", "--dry-run"]).expect_code(0).stdout;
    assert!(plan.contains("that it does NOT restore"), "{plan}");
    shareddb(home, &["restore", "myapp", "--confirm", "myapp"]).expect_code(1);
    assert_eq!(ask(home, "myapp", "SELECT count(*) FROM notes"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_and_secrets() {
    let server = filled().await;
    let home = server.home();
    let secrets = [
        password(&server.admin()),
        password(&server.provisioner().await.connection(&"myapp".parse().unwrap()).await.unwrap()),
    ];
    let key = temporary_home().join("key");
    let identity = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
    fs::write(&key, format!("# made for a test\n{identity}\n")).unwrap();
    let recipient = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    let key = key.to_str().unwrap();
    for (args, kind) in [
        (&["backup", "myapp", "--encrypt-to", recipient] as &[&str], "BackupList"),
        (&["backups"], "BackupList"),
        (&["verify", "myapp", "--identity", key], "VerificationList"),
        (&["prune", "--all", "--keep-daily", "7", "--dry-run"], "PruneList"),
        (&["restore", "myapp", "--dry-run"], "Plan"),
        (&["restore", "myapp", "--identity", key, "--confirm", "myapp"], "Restore"),
        (&["restore", "myapp", "--undo", "--confirm", "myapp"], "Restore"),
        (&["status"], "Status"),
    ] {
        let output = run(shareddb_command(home)
            .args(args)
            .args(["-o", "json", "-v"])
            .env("AWS_SECRET_ACCESS_KEY", "m4rker")
            .env("RUST_LOG", "trace"))
        .expect_code(0);
        let document = json(&output.stdout);
        assert_eq!((&document["apiVersion"], &document["kind"]), (&"shareddb/v1".into(), &kind.into()), "{args:?}");
        let all = output.stdout.clone() + &output.stderr;
        for secret in secrets.iter().map(String::as_str).chain([identity, "m4rker"]) {
            assert!(!all.contains(secret), "{args:?}: {all}");
        }
        let yaml = shareddb(home, &["backups", "-o", "yaml"]).expect_code(0).stdout;
        assert!(yaml.starts_with("apiVersion: shareddb/v1\nkind: BackupList\n"), "{yaml}");
    }
    let item = &json(&shareddb(home, &["backups", "-o", "json"]).expect_code(0).stdout)["items"][1];
    for (key, value) in [("app", "myapp"), ("reason", "manual")] {
        assert_eq!(item[key], value, "{item}");
    }
    assert_eq!((&item["encrypted"], &item["checked"]["verdict"]), (&true.into(), &"passed".into()), "{item}");
    let closed = shareddb(home, &["verify", "--backup", item["id"].as_str().unwrap()]).expect_code(2).stderr;
    assert!(closed.contains(recipient) && closed.contains("hint: "), "{closed}");

    for (app, code, ok) in [("myapp", 0, true), ("nobody", 4, false)] {
        let told = shareddb(home, &["backup", app, "--progress", "json"]).expect_code(code).stderr;
        let done = json(told.lines().rfind(|line| line.starts_with('{')).unwrap());
        assert_eq!((&done["type"], &done["app"], &done["ok"]), (&"done".into(), &app.into(), &ok.into()), "{told}");
        assert_eq!(told.contains("the backup before is encrypted, and this one is not"), ok, "{told}");
    }

    let status = json(&shareddb(home, &["status", "-o", "json"]).expect_code(0).stdout);
    assert!(status["backups"]["apps"]["myapp"]["verified"].is_string(), "{status}");
    let folder = home.join("backups");
    fs::rename(&folder, home.join("away")).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let unknown = shareddb(home, &["status"]).expect_code(0);
    assert!(unknown.stderr.contains("note: the age of backups is not known: "), "{unknown:?}");
    fs::remove_file(&folder).unwrap();
    fs::rename(home.join("away"), &folder).unwrap();
    let old = shareddb(home, &["status", "myapp", "--verified-age", "1s"]).expect_code(0).stdout;
    assert!(old.contains("known to restore is ") && old.contains(" old: shareddb verify myapp\n"), "{old}");
    let fine = shareddb(home, &["status", "--backup-age", "1h"]).expect_code(0).stdout;
    assert!(fine.contains("  BACKUP  VERIFIED  STATUS\n") && !fine.contains("  backup: "), "{fine}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_where_one_says() {
    let server = filled().await;
    let home = server.home();
    let folder = temporary_home();
    let run_in = |args: &[&str]| -> Output { run(shareddb_command(home).args(args).current_dir(&folder)) };
    run_in(&["backup", "myapp", "--to", "elsewhere", "--keep-until", "30d"]).expect_code(0);
    assert!(ids(home, "myapp").is_empty());
    let list = run_in(&["backups", "--from", "./elsewhere"]).expect_code(0).stdout;
    assert!(list.contains("myapp-") && list.contains("until-"), "{list}");
    let url = format!("file://{}/elsewhere", folder.display());
    run_in(&["verify", "myapp", "--from", &url]).expect_code(0);
    run_in(&["restore", "myapp", "--from", "elsewhere", "--confirm", "myapp"]).expect_code(0);
    assert!(folder.join("elsewhere/local/myapp").is_dir());

    // Of another environment the file says it; without that, the line for it is told.
    fs::write(
        folder.join("shareddb.toml"),
        "[env.shop]\nadmin_url = 'postgresql://a@127.0.0.1:1/d'\nstore = 'dir:s'\n",
    )
    .unwrap();
    let unset = run_in(&["backups", "-e", "shop"]).expect_code(2).stderr;
    assert!(unset.contains("backups = \"s3://BUCKET/FOLDER\"") && unset.contains("[env.shop]"), "{unset}");
    let text = fs::read_to_string(folder.join("shareddb.toml")).unwrap() + "backups = 'shop-backups'\n";
    fs::write(folder.join("shareddb.toml"), text).unwrap();
    let empty = run_in(&["backups", "-e", "shop"]).expect_code(0).stderr;
    assert!(empty.contains(&format!("{}/shop-backups", folder.display())), "no server is asked: {empty}");
    let none = run_in(&["prune", "-e", "shop", "--all", "--keep-last", "1"]).expect_code(0).stdout;
    assert_eq!(none, "0 deleted (0B), 0 kept\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bucket_is_reached_with_the_usual_variables() {
    let server = filled().await;
    let (home, objects) = (server.home(), ObjectServer::start().await);
    let url = objects.url();
    let command = || {
        let mut command = shareddb_command(home);
        command.envs(objects.settings());
        command
    };
    for args in [
        &["backup", "myapp", "--to", &url] as &[&str],
        &["backups", "--from", &url],
        &["verify", "myapp", "--from", &url],
        &["restore", "myapp", "--from", &url, "--confirm", "myapp"],
        &["prune", "myapp", "--from", &url, "--keep-last", "1"],
    ] {
        let output = run(command().args(args)).expect_code(0);
        assert!(!(output.stdout + &output.stderr).contains(objects.secret()), "{args:?}");
    }
    let denied = run(command().args(["backups", "--from", &url]).env("AWS_SECRET_ACCESS_KEY", "m4rker")).stderr;
    assert!(denied.starts_with("error: ") && !denied.contains("m4rker"), "{denied}");

    let before = objects.files();
    ask(home, "myapp", BIG);
    let mut child = dumping(command(), &["--to", &url]);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(ended(&mut child).await.code(), Some(130));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("hint: nothing of it was kept"), "{said}");
    assert_eq!(objects.files(), before);
}

/// A backup that has come to its dump.
fn dumping(mut command: Command, more: &[&str]) -> Child {
    let mut child = command
        .args(["backup", "myapp", "--progress", "json"])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let is_dumping = |line: &String| line.starts_with('{') && json(line)["phase"] == "dumping";
    assert!(lines.map(Result::unwrap).any(|line| is_dumping(&line)), "it comes to its dump");
    child
}

/// The end of a program, within a time that is longer than any clean end takes.
async fn ended(child: &mut Child) -> ExitStatus {
    let mut status = None;
    for _ in 0..600 {
        status = child.try_wait().unwrap();
        if status.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    status.expect("it ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_interrupted_leaves_nothing() {
    let server = filled().await;
    let home = server.home();
    ask(home, "myapp", BIG);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut child = dumping(shareddb_command(home), &[]);
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(ended(&mut child).await.code(), Some(code));
        assert!(ids(home, "myapp").is_empty());
        let left: Vec<_> = fs::read_dir(home.join("backups/local/myapp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let login = "SELECT concat_ws(' ', rolcanlogin, rolpassword) FROM pg_authid WHERE rolname = 'myapp_maint'";
        assert_eq!(server.value("postgres", login).await, "f");
    }
    // Killed, it cleans up nothing; the login closes by itself, and the next run does what is left.
    let mut child = dumping(shareddb_command(home), &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ids(home, "myapp").is_empty());
    eventually("its lock is free", async || shareddb(home, &["backup", "myapp", "--timeout", "5m"]).code == Some(0))
        .await;
    assert_eq!(ids(home, "myapp").len(), 1);
    let late = shareddb(home, &["verify", "myapp", "--timeout", "1s"]).expect_code(7).stderr;
    assert!(late.contains("--timeout"), "{late}");
    let scratches = "SELECT count(*)::text FROM pg_database WHERE datname LIKE 'shareddb\\_r\\_%'";
    assert_eq!(server.value("postgres", scratches).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_for_people_and_other_names() {
    let server = filled().await;
    let home = server.home();
    let file = home.join("app.sql.gz");
    let path = file.to_str().unwrap();
    let written = shareddb(home, &["backup", "myapp", "--output", path]).expect_code(0);
    assert!(written.stdout.starts_with(&format!("{path} written  3 rows  ")), "{}", written.stdout);
    assert!(written.stderr.contains(&format!("shareddb restore myapp --input {path}")), "{}", written.stderr);
    let document = json(&shareddb(home, &["backup", "myapp", "--output", path, "-o", "json"]).expect_code(0).stdout);
    assert_eq!((&document["kind"], &document["rows"]), (&"Dump".into(), &3.into()), "{document}");
    shareddb(home, &["backup", "myapp", "other", "--output", path]).expect_code(2);
    shareddb(home, &["backup", "myapp", "--output", path, "--to", "/tmp"]).expect_code(2);
    let packed = shareddb(home, &["backup", "myapp", "--output", "app.sql.bz2"]).expect_code(2).stderr;
    assert!(packed.contains(".bz2") && packed.contains(".sql.zst"), "{packed}");

    ask(home, "myapp", "DELETE FROM notes");
    let plan = shareddb(home, &["restore", "myapp", "--input", path, "--dry-run"]).expect_code(0).stdout;
    assert!(plan.contains(&format!("replaced by file {path} (a script, ")), "{plan}");
    shareddb(home, &["restore", "myapp", "--input", path]).expect_code(5);
    let restored = shareddb(home, &["restore", "myapp", "--input", path, "--confirm", "myapp"]).expect_code(0);
    assert!(restored.stdout.contains(&format!("app/myapp restored from {path}  3 rows\n")), "{}", restored.stdout);
    assert_eq!(ask(home, "myapp", "SELECT count(*) FROM notes"), "3");
    let missing = shareddb(home, &["restore", "myapp", "--input", "/no/such.sql", "--confirm", "myapp"]);
    missing.expect_code(4);

    // Another app, which is made for it: nothing is replaced, so nothing is confirmed.
    let first = shareddb(home, &["backup", "myapp", "-o", "name"]).expect_code(0).stdout;
    let plan = shareddb(home, &["restore", "myapp", "--as", "second", "--dry-run"]).expect_code(0).stdout;
    assert!(plan.contains("+ app/second"), "{plan}");
    shareddb(home, &["restore", "myapp", "--as", "second"]).expect_code(0);
    assert_eq!(ask(home, "second", "SELECT count(*) FROM notes"), "3");
    assert_eq!(ask(home, "second", "SELECT count(*) FROM second.notes"), "3");
    // The next time it would be replaced.
    shareddb(home, &["restore", "myapp", "--as", "second", "--confirm", "myapp"]).expect_code(5);
    let again = shareddb(home, &["restore", "myapp", "--as", "second", "--confirm", "second"]).expect_code(0);
    assert!(again.stdout.contains(&format!("app/second restored from {}", first.trim())), "{}", again.stdout);
    shareddb(home, &["drop", "myapp", "--no-backup", "--confirm", "myapp"]).expect_code(0);
    assert_eq!(ask(home, "second", "SELECT count(*) FROM notes"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_one_environment_into_another() {
    let (here, there) = (filled().await, TestServer::start().await);
    let store = format!("file://{}", temporary_home().display());
    // The other server is an environment of the file, reached by its address.
    let admin = there.admin();
    let file = format!(
        "[env.stage]\nadmin_url = 'postgresql://{}@127.0.0.1:{}/postgres'\n\
         admin_password_file = '{}'\nstore = 'dir:{}'\nbackups = '{store}'\n",
        admin.user(),
        admin.port(),
        there.endpoint().password_file.display(),
        there.local().home().secrets_dir().display()
    );
    fs::write(here.home().join("config.toml"), file).unwrap();
    let run_here = |args: &[&str]| run(shareddb_command(here.home()).current_dir(here.home()).args(args));
    run_here(&["create", "myapp", "-e", "stage"]).expect_code(0);
    let taken = run_here(&["backup", "myapp", "-o", "name"]).expect_code(0).stdout;
    let id = taken.trim().strip_prefix("backup/").unwrap();
    let verified = run_here(&["verify", "myapp", "--on", "stage"]).expect_code(0);
    assert!(verified.stdout.starts_with(&format!("backup/{id} passed")), "{}", verified.stdout);
    assert!(verified.stderr.starts_with("env stage"), "{}", verified.stderr);
    run_here(&["verify", "--all", "--on", "stage"]).expect_code(0);
    let line = ["restore", "myapp", "-e", "stage", "--from-env", "local", "--confirm", "myapp"];
    let restored = run_here(&line).expect_code(0);
    assert!(restored.stdout.contains(&format!("app/myapp restored from backup/{id}")), "{}", restored.stdout);
    assert!(restored.stderr.contains("3 rows of env local get into env stage"), "{}", restored.stderr);
    let counted = run_here(&["psql", "myapp", "-e", "stage", "--", "-XAtqc", "SELECT count(*) FROM notes"]);
    assert_eq!(counted.expect_code(0).stdout, "3\n");
    run_here(&["verify", "myapp", "--on", "nowhere"]).expect_code(4);
}

/// Where an app was made stands in its record; where its backups are is a matter of who takes them.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_backed_up_by_whichever_name_its_server_goes() {
    let server = filled().await;
    let (home, admin) = (server.home(), server.admin());
    let file = format!(
        "[env.shop]\nadmin_url = \"postgresql://{}@{}:{}/postgres\"\nadmin_password_file = \"local/admin-password\"\n\
         store = \"dir:local/secrets\"\nbackups = \"elsewhere\"\n",
        admin.user(),
        admin.host(),
        admin.port()
    );
    fs::write(home.join("shareddb.toml"), file).unwrap();
    let shop =
        |line: &str| run(shareddb_command(home).current_dir(home).args(["-e", "shop"]).args(line.split_whitespace()));
    let taken = shop("backup myapp").expect_code(0).stdout;
    assert!(taken.contains(" created  3 rows  "), "{taken}");
    assert!(shop("verify myapp").expect_code(0).stdout.contains(" passed  "));
    ask(home, "myapp", "DELETE FROM notes");
    shop("restore myapp --confirm myapp").expect_code(0);
    assert_eq!(ask(home, "myapp", "SELECT count(*) FROM notes"), "3");
    // By the other name, it has none.
    assert!(ids(home, "myapp").is_empty());
}
