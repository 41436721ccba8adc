//! The command: what it prints where, and how it ends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::Value;
use shareddb_core::SecretStore as _;
use shareddb_tests::command::{program, run, shareddb_command};
use shareddb_tests::server::{password, unique};
use shareddb_tests::{TestServer, shareddb};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn the_life_of_an_app() {
    let server = TestServer::start().await;
    let home = server.home();
    let created = shareddb(home, &["create", "myapp"]).expect_code(0);
    assert_eq!(created.stdout, "app/myapp created\n");
    assert!(created.stderr.contains("env local"), "{}", created.stderr);
    assert_eq!(shareddb(home, &["create", "myapp"]).expect_code(0).stdout, "app/myapp unchanged\n");

    let list = shareddb(home, &["list"]).expect_code(0).stdout;
    assert!(list.starts_with("NAME ") && list.contains("\nmyapp "), "{list}");
    assert_eq!(shareddb(home, &["list", "-o", "name"]).stdout, "app/myapp\n");
    let status = shareddb(home, &["status"]).expect_code(0).stdout;
    assert!(status.contains("14/768 promised") && status.contains("myapp_user"), "{status}");
    assert!(shareddb(home, &["status", "myapp"]).expect_code(0).stdout.contains("myapp-db-secret"));
    shareddb(home, &["status", "nobody"]).expect_code(4);

    let who = ["psql", "myapp", "--", "-Atc", "SELECT current_user, session_user, current_database()"];
    assert_eq!(shareddb(home, &who).expect_code(0).stdout, "myapp_db|myapp_user|myapp_db\n");
    assert_eq!(shareddb(home, &["psql", "--admin", "--", "-Atc", "SELECT current_database()"]).stdout, "postgres\n");
    shareddb(home, &["psql", "myapp", "--", "-c", "SELECT 1/0"]).expect_code(1);
    let stopped = ["psql", "myapp", "--", "-v", "ON_ERROR_STOP=1", "-f", "/dev/stdin"];
    let mut child = shareddb_command(home).args(stopped).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT nonsense;").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "psql's own code");

    shareddb(home, &["drop", "myapp"]).expect_code(5);
    shareddb(home, &["drop", "myapp", "--no-backup"]).expect_code(5);
    shareddb(home, &["drop", "myapp", "--no-backup", "--confirm", "other"]).expect_code(5);
    let dropped = shareddb(home, &["drop", "myapp", "--no-backup", "--confirm", "myapp"]).expect_code(0);
    assert_eq!(dropped.stdout, "app/myapp dropped\n");
    for none in [
        &["drop", "myapp", "--no-backup", "--confirm", "myapp"] as &[&str],
        &["drop", "myapp", "--no-backup", "--confirm", "other"],
        &["drop", "myapp", "--no-backup"],
        &["drop", "myapp"],
        &["drop", "myapp", "--dry-run"],
        &["env", "myapp"],
        &["psql", "myapp"],
    ] {
        shareddb(home, none).expect_code(4);
    }
    let empty = shareddb(home, &["list"]).expect_code(0);
    assert!(empty.stdout.is_empty() && empty.stderr.contains("shareddb create"), "{empty:?}");
}

#[tokio::test]
async fn a_dry_run_shows_what_the_run_does_and_changes_nothing() {
    let server = TestServer::start().await;
    let home = server.home();
    let before = server.catalog().await;
    let plan = shareddb(home, &["create", "app", "--dry-run"]).expect_code(0);
    assert!(
        plan.stdout.contains("+ database/app_db") && plan.stdout.contains("Nothing was changed"),
        "{}",
        plan.stdout
    );
    assert_eq!(server.catalog().await, before);
    shareddb(home, &["create", "app", "--dry-run", "--exit-code"]).expect_code(3);
    shareddb(home, &["create", "app"]).expect_code(0);
    shareddb(home, &["create", "app", "--dry-run", "--exit-code"]).expect_code(0);
    server.sql("postgres", "ALTER ROLE app_user CREATEDB").await;
    let drift = shareddb(home, &["create", "app", "--dry-run", "--exit-code"]).expect_code(3);
    assert!(drift.stdout.contains("~ role/app_user"), "{}", drift.stdout);
    assert!(shareddb(home, &["status"]).expect_code(0).stdout.contains("DRIFT 1"));
    assert_eq!(shareddb(home, &["create", "app"]).expect_code(0).stdout, "app/app configured\n");

    let middle = server.catalog().await;
    let drop = shareddb(home, &["drop", "app", "--dry-run"]).expect_code(0);
    assert!(drop.stdout.contains("- database/app_db"), "{}", drop.stdout);
    assert_eq!(server.catalog().await, middle);
}

#[tokio::test]
async fn documents_for_programs() {
    let server = TestServer::shared().await;
    let home = server.home();
    let app = unique("json");
    let result = json(&shareddb(home, &["create", app.as_str(), "-o", "json"]).expect_code(0).stdout);
    assert_eq!((&result["apiVersion"], &result["kind"]), (&"shareddb/v1".into(), &"Result".into()));
    for (args, kind) in
        [(&["list"] as &[&str], "AppList"), (&["status"], "Status"), (&["create", "x", "--dry-run"], "Plan")]
    {
        let args = [args, &["-o", "json"]].concat();
        let document = json(&shareddb(home, &args).expect_code(0).stdout);
        assert_eq!(document["kind"], kind);
        assert!(!document.to_string().contains("\"search_path\":"), "names are in one style: {document}");
        let yaml = [&args[..args.len() - 1], &["yaml"]].concat();
        assert!(shareddb(home, &yaml).expect_code(0).stdout.contains(&format!("kind: {kind}")));
    }
    let error = shareddb(home, &["status", "nobody", "-o", "json"]).expect_code(4);
    let error = json(error.stderr.lines().last().unwrap());
    assert_eq!((&error["code"], &error["exit"]), (&"app_not_found".into(), &4.into()));
}

/// The words under STATUS, the last column of a table, by what stands in the first.
fn states(table: &str) -> BTreeMap<&str, &str> {
    let rows = table.lines().skip_while(|line| !line.ends_with("STATUS")).skip(1);
    rows.take_while(|line| !line.is_empty())
        .map(|line| (line.split("  ").next().unwrap(), line.rsplit("  ").next().unwrap()))
        .collect()
}

#[tokio::test]
async fn list_and_status_say_the_same_of_each_app() {
    let server = TestServer::start().await;
    let home = server.home();
    // That the server's version is an old one is a note of its own, on some machines.
    let notes = |stderr: &str| -> Vec<String> {
        stderr.lines().filter(|line| !line.starts_with("note: PostgreSQL ")).map(str::to_owned).collect()
    };
    shareddb(home, &["create", "well"]).expect_code(0);
    assert!(notes(&shareddb(home, &["list"]).stderr).is_empty());
    for app in ["drifted", "gone", "half", "renamed"] {
        shareddb(home, &["create", app]).expect_code(0);
    }
    server.sql("postgres", "ALTER ROLE drifted_user CREATEDB").await;
    assert_eq!(notes(&shareddb(home, &["list"]).stderr), ["note: `shareddb status drifted` tells more"]);
    server.sql("postgres", "ALTER ROLE renamed_db RENAME TO other").await;
    server.sql("postgres", "DROP DATABASE gone_db WITH (FORCE)").await;
    drop_half(&server, "half").await;

    let list = shareddb(home, &["list"]).expect_code(0);
    let expected =
        [("drifted", "DRIFT 1"), ("gone", "NO DATABASE"), ("half", "dropping"), ("renamed", "PROBLEM"), ("well", "OK")];
    assert_eq!(states(&list.stdout), expected.into());
    let status = shareddb(home, &["status"]).expect_code(0);
    assert_eq!(states(&status.stdout), expected.into());
    assert_eq!(notes(&list.stderr), ["note: drifted, gone, half, renamed: `shareddb status` tells more"]);

    let document = json(&shareddb(home, &["list", "-o", "json"]).expect_code(0).stdout);
    let drifted = &document["items"][0];
    assert_eq!(drifted["app"]["name"], "drifted");
    let steps = drifted["drift"].as_array().unwrap().iter().map(|step| &step["step"]);
    assert!(steps.collect::<Vec<_>>().contains(&&"alter-role".into()) && drifted["dropping"] == false, "{drifted}");
    let finish = status.stdout.matches("shareddb drop half -e local --no-backup --confirm half").count();
    assert_eq!(finish, 1, "{}", status.stdout);

    server.sql("postgres", "GRANT CONNECT ON DATABASE postgres TO PUBLIC").await;
    let open = notes(&shareddb(home, &["list"]).stderr);
    assert_eq!(open[0], "note: wall rights is missing: PUBLIC has rights on postgres: the next create takes them");
}

/// Leaves of an app what a drop leaves that is killed when the data are gone.
async fn drop_half(server: &TestServer, app: &str) {
    let mark = format!("SELECT shobj_description('{app}_db'::regrole, 'pg_authid')");
    let mark = server.value("postgres", &mark).await;
    let dropping = format!("{},\"progress\":\"dropping\"}}", mark.strip_suffix('}').unwrap());
    server.sql("postgres", &format!("COMMENT ON ROLE {app}_db IS '{dropping}'")).await;
    server.sql("postgres", &format!("DROP DATABASE {app}_db WITH (FORCE)")).await;
}

#[test]
fn wrong_usage_is_an_object_for_programs_too() {
    let nowhere = tempfile::tempdir().unwrap();
    for (line, message, hint) in [
        ("create a b -o json", "unexpected argument 'b' found", "shareddb create"),
        ("-o json list -e", "a value is required for '--env <NAME>' but none was supplied", "'--help'"),
        ("-ojson creat", "unrecognized subcommand 'creat'", "a similar subcommand exists: 'create'"),
        ("--output=json create", "the following required arguments were not provided: <APP>", "shareddb create"),
        ("list -qvo json", "cannot be used with", "shareddb list"),
        ("list -o=json --output xml", "cannot be used multiple times", "shareddb list"),
    ] {
        let output = shareddb(nowhere.path(), &line.split(' ').collect::<Vec<_>>()).expect_code(2);
        let error = json(&output.stderr);
        assert_eq!((&error["code"], &error["exit"]), (&"usage".into(), &2.into()), "{line}");
        assert!(error["message"].as_str().unwrap().contains(message), "{line}: {error}");
        assert!(error["hint"].as_str().unwrap().contains(hint), "{line}: {error}");
        assert!(output.stdout.is_empty() && output.stderr.lines().count() == 1, "{output:?}");
    }
    let plain = shareddb(nowhere.path(), &["psql", "--", "-o", "json"]).expect_code(2);
    assert!(plain.stderr.starts_with("error: the following"), "what is for psql is not for us: {}", plain.stderr);
    for flag in ["--help", "--version"] {
        let output = shareddb(nowhere.path(), &["-o", "json", flag]).expect_code(0);
        assert!(output.stdout.contains("shareddb") && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_value_that_begins_with_a_hyphen_is_told_what_is_wrong_with_it() {
    let nowhere = tempfile::tempdir().unwrap();
    for (line, told) in [
        ("create a --connections -1", "-1 is not in 1..=1000"),
        ("list --timeout -5m", "'-5m' for '--timeout <TIME>'"),
        ("create a --set -1", "--set=-1"),
        ("create a --database -x", "--database=-x"),
        ("env a --key -x --admin", "--key=-x"),
    ] {
        let output = shareddb(nowhere.path(), &line.split(' ').collect::<Vec<_>>()).expect_code(2);
        assert!(output.stderr.contains(told) && !output.stderr.contains("'-- "), "{line}: {}", output.stderr);
    }
}

#[tokio::test]
async fn a_damaged_secret_is_not_used_and_create_mends_it() {
    let server = TestServer::shared().await;
    let home = server.home();
    let app = unique("damaged");
    let password = password(&server.app(&app).await);
    let secret = server.secrets().describe(&format!("{app}-db-secret").parse().unwrap());
    let folder = server.local().home().secrets_dir().join(format!("{app}-db-secret"));
    fs::write(folder.join("DB_PASSWORD"), "0ther-Text").unwrap();
    for args in [&["env", app.as_str()] as &[&str], &["env", app.as_str(), "--key", "DB_HOST"], &["psql", app.as_str()]]
    {
        let output = shareddb(home, args).expect_code(1);
        assert!(output.stdout.is_empty() && output.stderr.contains(&secret), "{args:?}: {output:?}");
        assert!(
            output.stderr.contains(&format!("hint: `shareddb create {app} -e local`")),
            "{args:?}: {}",
            output.stderr
        );
        assert!(!output.stderr.contains("0ther-Text") && !output.stderr.contains(&password), "{}", output.stderr);
    }
    shareddb(home, &["create", app.as_str()]).expect_code(0);
    shareddb(home, &["env", app.as_str()]).expect_code(0);
}

#[tokio::test]
async fn a_damaged_secret_of_an_app_that_the_server_does_not_know_is_mended_the_same_way() {
    let server = TestServer::start().await;
    let app = "stray".parse().unwrap();
    let login = server.app(&app).await;
    let database = login.database();
    server
        .sql("postgres", &format!("COMMENT ON ROLE {database} IS NULL; COMMENT ON DATABASE {database} IS NULL"))
        .await;
    fs::write(server.local().home().secrets_dir().join("stray-db-secret/DB_PASSWORD"), "0ther-Text").unwrap();
    let damaged = shareddb(server.home(), &["env", "stray"]).expect_code(1).stderr;
    assert!(damaged.contains("is damaged") && damaged.contains("hint: `shareddb create stray -e local`"), "{damaged}");
    assert!(!damaged.contains("cannot be asked") && !damaged.contains("there is no app"), "{damaged}");
}

#[tokio::test]
async fn a_login_that_no_rule_admits_is_told_what_to_look_at() {
    let server = TestServer::start().await;
    let config = server.app(&"lone".parse().unwrap()).await;
    let refusal = config.clone().with_database("postgres").connect().await.unwrap_err();
    assert!(refusal.hint().unwrap().contains("a line of the server's pg_hba.conf refuses"), "{refusal:?}");
    server.set_access_rules("host all postgres 127.0.0.1/32 scram-sha-256\n").await;
    let refusal = config.connect().await.unwrap_err();
    let hint = refusal.hint().unwrap();
    for told in ["pg_hba.conf", "sslmode", "shareddb deploy -e local --stop"] {
        assert!(hint.contains(told), "{hint}");
    }
    shareddb(server.home(), &["deploy", "--stop"]).expect_code(0);
    shareddb(server.home(), &["deploy"]).expect_code(0);
    shareddb(server.home(), &["psql", "lone", "--", "-c", "SELECT 1"]).expect_code(0);
}

#[tokio::test]
async fn every_form_of_env_logs_in() {
    let server = TestServer::shared().await;
    let home = server.home();
    let name = unique("env");
    let config = server.app(&name).await;
    let env = |format: &str| shareddb(home, &["env", name.as_str(), "--format", format]).expect_code(0).stdout;
    let psql = server.endpoint().binaries.program("psql");
    let logs_in = |command: &mut Command| {
        let output = run(command.env("PSQL", &psql)).expect_code(0);
        assert_eq!(output.stdout.trim(), config.user(), "{}", output.stderr);
    };
    let query = "-XAtc 'SELECT session_user'";

    logs_in(Command::new(&psql).arg(env("url").trim()).args(["-XAtc", "SELECT session_user"]));
    logs_in(Command::new(&psql).arg(env("libpq").trim()).args(["-XAtc", "SELECT session_user"]));
    let variables = "PGHOST=$DB_HOST PGPORT=$DB_PORT PGDATABASE=$DB_NAME PGUSER=$DB_USER PGPASSWORD=$DB_PASSWORD";
    logs_in(Command::new("bash").arg("-c").arg(format!("{}\n{variables} $PSQL {query}", env("shell"))));
    logs_in(
        Command::new("bash")
            .arg("-c")
            .arg(format!("set -a\n{}\nset +a\n$PSQL \"$DATABASE_URL\" {query}", env("dotenv"))),
    );
    logs_in(
        Command::new("bash")
            .arg("-c")
            .arg(format!("{} {query}", env("psql").trim_end().replace("\npsql ", "\n$PSQL "))),
    );
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("service"), env("service")).unwrap();
    logs_in(
        Command::new(&psql)
            .env("PGSERVICEFILE", folder.path().join("service"))
            .arg(format!("service={name}"))
            .args(["-XAtc", "SELECT session_user"]),
    );
    assert_eq!(env("sqlx"), env("url"));
    assert!(env("sqlalchemy").starts_with("postgresql+psycopg://"));
    for (format, key) in [("django", "PASSWORD"), ("asyncpg", "password")] {
        assert_eq!(json(&env(format))[key], password(&config));
    }
    assert!(env("pgpass").ends_with(&format!(":{}\n", password(&config))));
    let all = json(&env("json"));
    logs_in(
        Command::new(&psql)
            .arg(all["uri"].as_str().or(all["data"]["uri"].as_str()).unwrap())
            .args(["-XAtc", "SELECT session_user"]),
    );
    let jdbc = env("jdbc");
    assert!(jdbc.contains("jdbc:postgresql://127.0.0.1:"), "{jdbc}");
    assert!(!jdbc.lines().next().unwrap().contains(&password(&config)), "the URL is without password");
    let k8s = env("k8s");
    assert!(k8s.contains("secretKeyRef") && !k8s.contains(&password(&config)), "{k8s}");
    let key = shareddb(home, &["env", name.as_str(), "--key", "DB_PASSWORD"]).expect_code(0);
    assert_eq!(key.stdout.trim(), password(&config));
    let admin = shareddb(home, &["env", "--admin", "--format", "url"]).expect_code(0).stdout;
    assert_eq!(run(Command::new(&psql).arg(admin.trim()).args(["-XAtc", "SELECT 1"])).expect_code(0).stdout, "1\n");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let server = TestServer::shared().await;
    server.app(&unique("pipe")).await;
    let mut child =
        shareddb_command(server.home()).args(["status", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    assert!(matches!(child.wait().unwrap().code(), Some(0)));
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    let nowhere = tempfile::tempdir().unwrap();
    let home = nowhere.path();
    for args in [
        &["nonsense"] as &[&str],
        &["create"],
        &["create", "a", "b"],
        &["list", "-o", "xml"],
        &["create", "a", "--timeout", "soon"],
    ] {
        let output = shareddb(home, args).expect_code(2);
        assert!(output.stdout.is_empty());
    }
    let unknown = shareddb(home, &["list", "-e", "elsewhere"]).expect_code(4);
    assert!(unknown.stderr.contains("local"), "{}", unknown.stderr);
    let help = shareddb(home, &["--help"]).expect_code(0).stdout;
    for command in [
        "deploy",
        "create",
        "list",
        "status",
        "env",
        "psql",
        "backup",
        "backups",
        "verify",
        "restore",
        "prune",
        "drop",
        "completion",
    ] {
        assert!(help.contains(command));
        assert!(shareddb(home, &[command, "--help"]).expect_code(0).stdout.contains("Example: "), "{command}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(shareddb(home, &["completion", shell]).expect_code(0).stdout.contains("shareddb"), "{shell}");
    }
    assert_eq!(home.read_dir().unwrap().count(), 0, "none of this touches the home");
}

// The session that holds the lock has to be carried while the command runs.
#[tokio::test(flavor = "multi_thread")]
async fn time_runs_out() {
    let server = TestServer::start().await;
    // Somebody holds everything that create has to wait for.
    let busy = server.session("postgres").await;
    busy.simple_query("SELECT pg_advisory_lock(1936221282, 0)").await.unwrap();
    let output = shareddb(server.home(), &["create", "app", "--timeout", "1s"]).expect_code(7);
    assert!(output.stderr.contains("hint:"), "{}", output.stderr);
    drop(busy);
    shareddb(server.home(), &["create", "app"]).expect_code(0);
}

#[tokio::test]
async fn several_homes_stand_side_by_side() {
    let (one, two) = (TestServer::start().await, TestServer::start().await);
    shareddb(one.home(), &["create", "app"]).expect_code(0);
    assert!(shareddb(two.home(), &["list", "-o", "name"]).expect_code(0).stdout.is_empty());
    assert_ne!(one.endpoint().port, two.endpoint().port);
    assert!(program("shareddb").exists());
}
