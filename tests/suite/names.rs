//! Names cannot hurt: what is outside the grammar is refused before anything is touched.

use shareddb_tests::server::{rows, unique};
use shareddb_tests::{TestServer, shareddb};

fn hostile() -> Vec<String> {
    let text = [
        "",
        " ",
        "-",
        "-x",
        "--help-me",
        "a-",
        "1a",
        "A",
        "myApp",
        "my_app",
        "my app",
        "my.app",
        "my/app",
        "../etc",
        "..",
        ".",
        "a'b",
        "a''b",
        "a\"b",
        "a\\b",
        "a;b",
        "a;DROP DATABASE postgres",
        "a--b;",
        "a/*b*/",
        "a$b",
        "a%b",
        "a\tb",
        "a\nb",
        "a\rb",
        "a\u{7f}",
        "a\u{1b}[2J",
        "dbname=postgres",
        "host=evil",
        "postgresql://evil/x",
        "a@b",
        "a:b",
        "a=b",
        "a,b",
        "a(b)",
        "a*",
        "\u{430}pp",
        "a\u{440}p",
        "app\u{200b}",
        "a\u{202e}ppa",
        "\u{ff41}pp",
        "ａpp",
        "é",
        "app😀",
        "pg-x",
        "pg-",
        "shareddb",
        "shareddb-x",
        "public",
        "postgres",
        "template0",
        "template1",
        "information-schema",
        "none",
        "current-user",
    ];
    let long = ["a".repeat(41), "a".repeat(63), "a".repeat(64), "a".repeat(10_000)];
    text.iter().map(|name| (*name).to_owned()).chain(long).collect()
}

#[tokio::test]
async fn hostile_app_names_leave_no_trace() {
    let server = TestServer::start().await;
    server.app(&unique("innocent")).await;
    let before = server.catalog().await;
    let position = server.log_position();
    for name in hostile() {
        for command in ["create", "drop"] {
            let args = [command, "--", name.as_str()];
            let output = shareddb(server.home(), &args).expect_code(2);
            assert!(output.stdout.is_empty(), "{name:?}");
            assert!(
                output.stderr.contains("is not valid: ") || output.stderr.contains("Usage:"),
                "{name:?}: {}",
                output.stderr
            );
            assert!(
                !output.stderr.contains('\u{1b}') && !output.stderr.contains('\u{202e}'),
                "{name:?} acts on the terminal"
            );
        }
    }
    assert_eq!(server.log_since(position), "", "nobody asked the server anything");
    assert_eq!(server.catalog().await, before);
}

#[tokio::test]
async fn hostile_database_and_user_names_leave_no_trace() {
    let server = TestServer::start().await;
    let before = server.catalog().await;
    let position = server.log_position();
    let more = ["a-b", "information_schema", "current_user", "pg_x", "shareddb_maint"].map(str::to_owned);
    for name in hostile()
        .into_iter()
        .chain(more)
        .filter(|name| name != "my_app" && !name.is_empty() && name.len() != 63 && name.len() != 41)
    {
        for option in ["--database", "--user"] {
            let argument = format!("{option}={name}");
            let output = shareddb(server.home(), &["create", "fine", &argument]).expect_code(2);
            assert!(output.stderr.contains("is not valid: "), "{name:?}: {}", output.stderr);
        }
    }
    shareddb(server.home(), &["create", "fine", "--database", "same", "--user", "same"]).expect_code(2);
    assert_eq!(server.catalog().await, before);
    // Only the equal names had to be compared with what is recorded.
    let log = server.log_since(position);
    assert!(!log.contains("CREATE") && !log.contains("ALTER"), "{log}");
}

#[tokio::test]
async fn odd_names_that_are_good_work() {
    let server = TestServer::start().await;
    let longest = "z".repeat(40);
    for name in ["select", "user", "table", "a", "x-1-y", "all", "sameuser", "replication", "true", longest.as_str()] {
        shareddb(server.home(), &["create", name]).expect_code(0);
        let output =
            shareddb(server.home(), &["psql", name, "--", "-Atc", "CREATE TABLE t (x int); SELECT current_user"])
                .expect_code(0);
        assert!(output.stdout.contains(&format!("{}_db", name.replace('-', "_"))), "{name}: {}", output.stdout);
        assert!(shareddb(server.home(), &["create", name]).expect_code(0).stdout.contains("unchanged"));
    }
    let user = "u".repeat(61);
    let database = "d".repeat(63);
    shareddb(server.home(), &["create", "long", "--database", &database, "--user", &user]).expect_code(0);
    assert!(shareddb(server.home(), &["create", "long"]).expect_code(0).stdout.contains("unchanged"));
}

#[tokio::test]
async fn names_that_are_somebody_elses_are_a_conflict_and_stay_as_they_are() {
    let server = TestServer::start().await;
    let home = server.home();
    server.sql("postgres", "CREATE ROLE their_role LOGIN PASSWORD 'theirs' CREATEDB").await;
    server.sql("postgres", "CREATE DATABASE their_db").await;
    server.sql("postgres", "CREATE ROLE halfway_user").await;
    shareddb(home, &["create", "other"]).expect_code(0);
    let before = server.catalog().await;
    for args in [
        &["create", "fine", "--user", "their_role"] as &[&str],
        &["create", "fine", "--user", "other_user"],
        &["create", "fine", "--user", "other_user_2"],
        &["create", "fine", "--user", "other_maint"],
        &["create", "fine", "--user", "other_db"],
        &["create", "fine", "--database", "their_db"],
        &["create", "fine", "--database", "their_role"],
        &["create", "fine", "--database", "other_db"],
        &["create", "fine", "--database", "other_user"],
        &["create", "their"],
        &["create", "halfway"],
        &["create", "other", "--user", "their_role"],
    ] {
        let output = shareddb(home, args).expect_code(5);
        assert!(output.stderr.contains("hint:"), "{}", output.stderr);
        assert_eq!(server.catalog().await, before, "{args:?}");
    }
    // One suffix further: the second login of a user that another app has.
    shareddb(home, &["create", "second", "--user", "x", "--database", "y"]).expect_code(0);
    shareddb(home, &["create", "third", "--user", "x_2", "--database", "z"]).expect_code(5);
}

#[tokio::test]
async fn names_from_the_server_cannot_act_on_a_terminal() {
    let server = TestServer::start().await;
    shareddb(server.home(), &["create", "app"]).expect_code(0);
    server.sql("postgres", "CREATE ROLE \"evil\u{1b}[2Jx\ny\"").await;
    server.sql("postgres", "GRANT CONNECT ON DATABASE app_db TO \"evil\u{1b}[2Jx\ny\"").await;
    let strange =
        rows(&server.session("postgres").await, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'evil%'").await;
    assert_eq!(strange.len(), 1);
    for args in [&["create", "app", "--dry-run"] as &[&str], &["status"], &["create", "app"]] {
        let output = shareddb(server.home(), args).expect_code(0);
        assert!(!output.stdout.contains('\u{1b}') && !output.stderr.contains('\u{1b}'), "{args:?}");
        assert!(format!("{}{}", output.stdout, output.stderr).contains("evil"), "{args:?}");
    }
}
