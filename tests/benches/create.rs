//! How long `create` takes, against the guide's way of doing it, in one interleaved run on one private server.
//!
//! `cargo bench -p shareddb-tests` prints medians and ratios. `ROUNDS=n` sets how many rounds (15).
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot run has failed"
)]

use std::time::Instant;

use shareddb_tests::TestServer;
use shareddb_tests::measure::{again, by_workers, create, guide_statements, line, median, name, script, time};
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
    let together = by_workers(&provisioner, "shared", APPS, WORKERS).await;

    let [guide, same, cold, second] = [guide, same, cold, second].map(median);
    println!("PostgreSQL {}, medians of {rounds} rounds", server.endpoint().version);
    println!("the guide's statements, one psql each        {}", line(guide, cold));
    println!("the same objects as create, one psql each    {}", line(same, cold));
    println!("create, cold, with proof and Secret          {}", line(cold, cold));
    println!("create again, unchanged                      {}", line(second, cold));
    println!("{APPS} creates one after the other              {}", line(one_by_one, together));
    println!("{APPS} creates by {WORKERS} workers                     {}", line(together, together));
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
