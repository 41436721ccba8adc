//! How long `create` takes, against the guide's way of doing it, in one interleaved run on one private server.
//!
//! `cargo bench -p shareddb-tests` prints medians and ratios. `ROUNDS=n` sets how many rounds (15).
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot run has failed"
)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use secrecy::ExposeSecret as _;
use shareddb_core::{AppName, AppSpec, Outcome, Provisioner};
use shareddb_tests::TestServer;
use shareddb_tests::server::temporary_home;

const APPS: usize = 50;
const WORKERS: usize = 8;

#[tokio::main]
async fn main() {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    // Statement logging, which the suite's servers have, would count against whoever sends more of them.
    let server = TestServer::in_home(temporary_home()).await;
    let provisioner = server.provisioner().await;
    create(&provisioner, &name("warm", 0)).await;

    let [mut guide, mut same, mut cold, mut second] = [const { Vec::new() }; 4];
    for round in 0..rounds {
        guide.push(time(|| script(&server, &guide_statements(&format!("guide_{round}")))));
        same.push(time(|| script(&server, &same_objects(&format!("same_{round}")))));
        let app = name("cold", round);
        cold.push(create(&provisioner, &app).await);
        second.push(again(&provisioner, &app).await);
    }

    let one_by_one = Instant::now();
    for app in 0..APPS {
        create(&provisioner, &name("single", app)).await;
    }
    let one_by_one = one_by_one.elapsed();
    let together = Instant::now();
    join_all((0..WORKERS).map(|worker| {
        let provisioner = provisioner.clone();
        async move {
            for app in (worker..APPS).step_by(WORKERS) {
                create(&provisioner, &name("shared", app)).await;
            }
        }
    }))
    .await;
    let together = together.elapsed();

    let [guide, same, cold, second] = [guide, same, cold, second].map(median);
    println!("PostgreSQL {}, medians of {rounds} rounds", server.endpoint().version);
    println!("the guide's statements, one psql each        {}", line(guide, cold));
    println!("the same objects as create, one psql each    {}", line(same, cold));
    println!("create, cold, with proof and Secret          {}", line(cold, cold));
    println!("create again, unchanged                      {}", line(second, cold));
    println!("{APPS} creates one after the other              {}", line(one_by_one, together));
    println!("{APPS} creates by {WORKERS} workers                     {}", line(together, together));
}

fn line(duration: Duration, reference: Duration) -> String {
    let ratio = duration.as_secs_f64() / reference.as_secs_f64();
    format!("{:9.1} ms   {ratio:5.2} of ours", duration.as_secs_f64() * 1000.0)
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn name(stem: &str, number: usize) -> AppName {
    format!("{stem}-{number}").parse().expect("a name")
}

async fn create(provisioner: &Provisioner, name: &AppName) -> Duration {
    let mut spec = AppSpec::new(name.clone());
    spec.allow_overcommit = true;
    let start = Instant::now();
    let report = provisioner.create(&spec).await.expect("a create");
    let duration = start.elapsed();
    assert_eq!(report.outcome, Outcome::Created);
    duration
}

async fn again(provisioner: &Provisioner, name: &AppName) -> Duration {
    let start = Instant::now();
    let report = provisioner.create(&AppSpec::new(name.clone())).await.expect("a create");
    let duration = start.elapsed();
    assert_eq!(report.outcome, Outcome::Unchanged);
    duration
}

/// Each statement in a psql of its own, as a shell script does it.
fn script(server: &TestServer, statements: &[(String, String)]) {
    let admin = server.admin();
    let password = admin.password().expect("a password").expose_secret();
    for (database, statement) in statements {
        let status = Command::new(server.endpoint().binaries.program("psql"))
            .env_clear()
            .env("PGHOST", admin.host())
            .env("PGPORT", admin.port().to_string())
            .env("PGUSER", admin.user())
            .env("PGPASSWORD", password)
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement])
            .stdout(Stdio::null())
            .status()
            .expect("psql");
        assert!(status.success(), "{statement}");
    }
}

/// What the guide's script does: a database, a user, rights, a schema.
fn guide_statements(app: &str) -> Vec<(String, String)> {
    let (postgres, database) = ("postgres".to_owned(), format!("{app}_db"));
    vec![
        (postgres.clone(), format!("CREATE DATABASE {app}_db")),
        (postgres.clone(), format!("CREATE USER {app}_user WITH PASSWORD 'benchmark'")),
        (postgres, format!("GRANT ALL PRIVILEGES ON DATABASE {app}_db TO {app}_user")),
        (database.clone(), format!("CREATE SCHEMA {app} AUTHORIZATION {app}_user")),
        (database, format!("GRANT ALL ON SCHEMA public TO {app}_user")),
    ]
}

/// The objects that `create` makes, without proof, lock and Secret.
fn same_objects(app: &str) -> Vec<(String, String)> {
    let outside = [
        format!("CREATE ROLE {app}_db NOLOGIN"),
        format!("COMMENT ON ROLE {app}_db IS 'benchmark'"),
        format!("CREATE ROLE {app}_user LOGIN CONNECTION LIMIT 10 IN ROLE {app}_db"),
        format!("CREATE ROLE {app}_user_2 LOGIN CONNECTION LIMIT 10 IN ROLE {app}_db"),
        format!("CREATE ROLE {app}_maint NOLOGIN CONNECTION LIMIT 4 IN ROLE {app}_db, shareddb_maint"),
        format!("ALTER ROLE {app}_user SET role = {app}_db"),
        format!("ALTER ROLE {app}_user SET temp_file_limit = '1GB'"),
        format!("ALTER ROLE {app}_user_2 SET role = {app}_db"),
        format!("ALTER ROLE {app}_user_2 SET temp_file_limit = '1GB'"),
        format!("ALTER ROLE {app}_maint SET temp_file_limit = -1"),
        format!("CREATE DATABASE {app}_db TEMPLATE template0 ALLOW_CONNECTIONS false CONNECTION LIMIT 14"),
        format!("COMMENT ON DATABASE {app}_db IS 'benchmark'"),
        format!("REVOKE ALL ON DATABASE {app}_db FROM PUBLIC"),
        format!("GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {app}_db TO {app}_db"),
        format!("ALTER ROLE {app}_user IN DATABASE {app}_db SET search_path = {app}, public"),
        format!("ALTER ROLE {app}_user_2 IN DATABASE {app}_db SET search_path = {app}, public"),
        format!("ALTER DATABASE {app}_db ALLOW_CONNECTIONS true"),
        format!("ALTER ROLE {app}_user PASSWORD 'benchmark'"),
    ];
    let inside = [
        format!("ALTER SCHEMA public OWNER TO {app}_db"),
        "REVOKE ALL ON SCHEMA public FROM PUBLIC".to_owned(),
        format!("CREATE SCHEMA {app} AUTHORIZATION {app}_db"),
    ];
    let database = format!("{app}_db");
    outside
        .into_iter()
        .map(|statement| ("postgres".to_owned(), statement))
        .chain(inside.into_iter().map(|statement| (database.clone(), statement)))
        .collect()
}
