//! What the benchmarks have in common.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use secrecy::ExposeSecret as _;
use shareddb_core::{AppName, AppSpec, Outcome, Provisioner};

use crate::TestServer;

/// A duration, and its ratio to another.
pub fn line(duration: Duration, reference: Duration) -> String {
    let ratio = duration.as_secs_f64() / reference.as_secs_f64();
    format!("{:9.1} ms   {ratio:5.2} of ours", duration.as_secs_f64() * 1000.0)
}

/// The middle one.
pub fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

/// How long it takes.
pub fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// An app's name.
pub fn name(stem: &str, number: usize) -> AppName {
    format!("{stem}-{number}").parse().expect("a name")
}

/// Makes an app that is not there; how long that takes.
pub async fn create(provisioner: &Provisioner, name: &AppName) -> Duration {
    let mut spec = AppSpec::new(name.clone());
    spec.allow_overcommit = true;
    let start = Instant::now();
    let report = provisioner.create(&spec).await.expect("a create");
    let duration = start.elapsed();
    assert_eq!(report.outcome, Outcome::Created);
    duration
}

/// Makes an app that is there; how long that takes.
pub async fn again(provisioner: &Provisioner, name: &AppName) -> Duration {
    let start = Instant::now();
    let report = provisioner.create(&AppSpec::new(name.clone())).await.expect("a create");
    let duration = start.elapsed();
    assert_eq!(report.outcome, Outcome::Unchanged);
    duration
}

/// Makes so many apps by so many workers at once.
pub async fn by_workers(provisioner: &Provisioner, stem: &str, apps: usize, workers: usize) -> Duration {
    let start = Instant::now();
    join_all((0..workers).map(|worker| {
        let provisioner = provisioner.clone();
        async move {
            for app in (worker..apps).step_by(workers) {
                create(&provisioner, &name(stem, app)).await;
            }
        }
    }))
    .await;
    start.elapsed()
}

/// Each statement in a psql of its own, as a shell script does it.
pub fn script(server: &TestServer, statements: &[(String, String)]) {
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
pub fn guide_statements(app: &str) -> Vec<(String, String)> {
    let (postgres, database) = ("postgres".to_owned(), format!("{app}_db"));
    vec![
        (postgres.clone(), format!("CREATE DATABASE {app}_db")),
        (postgres.clone(), format!("CREATE USER {app}_user WITH PASSWORD 'benchmark'")),
        (postgres, format!("GRANT ALL PRIVILEGES ON DATABASE {app}_db TO {app}_user")),
        (database.clone(), format!("CREATE SCHEMA {app} AUTHORIZATION {app}_user")),
        (database, format!("GRANT ALL ON SCHEMA public TO {app}_user")),
    ]
}
