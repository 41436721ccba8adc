//! However much an app has, its adoption is short, locks little at a time, and is not felt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shareddb_core::{Outcome, Session};
use shareddb_tests::TestServer;
use shareddb_tests::legacy::{Legacy, OPEN_RULES};
use shareddb_tests::server::value;
use shareddb_tests::watch::create_until_unchanged;
use tokio::task::JoinHandle;

const TABLES: usize = 1000;

/// So many tables of whoever runs it, each with an index, a sequence and space for long texts.
fn tables() -> String {
    format!(
        "DO $$ BEGIN FOR i IN 1..{TABLES} LOOP EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, word text)', i); \
         END LOOP; END $$"
    )
}

/// Four thousand other things of the admin's.
const OTHERS: &str = "DO $$ BEGIN FOR i IN 1..1000 LOOP \
         EXECUTE format('CREATE FUNCTION f%s() RETURNS int LANGUAGE sql AS ''SELECT 1''', i); \
         EXECUTE format('CREATE TYPE kind%s AS ENUM (''a'', ''b'')', i); \
         EXECUTE format('CREATE VIEW v%s AS SELECT * FROM t%s', i, i); \
         EXECUTE format('CREATE DOMAIN word%s AS text', i); \
     END LOOP; END $$";

async fn made(stem: &str) -> (TestServer, Legacy) {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    let legacy = Legacy::make(&server, stem).await;
    legacy.write_secret(&server, &[]);
    (server, legacy)
}

#[tokio::test]
async fn tables_of_the_login_are_not_touched_however_many() {
    let (server, legacy) = made("own").await;
    let app = legacy.session(&server).await;
    app.batch_execute(&tables()).await.unwrap();
    // Whoever waited for one of them would wait for ever.
    let all: Vec<String> = (1..=TABLES).map(|number| format!("t{number}")).collect();
    let holder = server.session(&legacy.database).await;
    holder.batch_execute(&format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", all.join(", "))).await.unwrap();
    let impatient = server.provisioner().await.with_lock_patience(Duration::ZERO);
    let begun = Instant::now();
    let report = impatient.create(&legacy.spec()).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    println!("{TABLES} tables of the login: adopted in {:?}", begun.elapsed());
    assert_eq!(report.outcome, Outcome::Adopted);
    holder.batch_execute("COMMIT").await.unwrap();
    let owners = "SELECT count(*) FROM pg_tables WHERE tableowner = current_user AND tablename ~ '^t[0-9]+$'";
    assert_eq!(value(&legacy.session(&server).await, owners).await, TABLES.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_thousand_objects_of_the_admins_change_hands_while_the_app_works() {
    let (server, legacy) = made("many").await;
    server.sql(&legacy.database, &tables()).await;
    server.sql(&legacy.database, OTHERS).await;
    let grant = format!(
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {0}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {0}",
        legacy.user
    );
    server.sql(&legacy.database, &grant).await;
    let stop = Arc::new(AtomicBool::new(false));
    let working = works(legacy.session(&server).await, Arc::clone(&stop));
    let watching = counts_locks(server.session("postgres").await, Arc::clone(&stop));

    let begun = Instant::now();
    let report = server.provisioner().await.create(&legacy.spec()).await;
    let report = report.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    let took = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (mut latencies, locks) = (working.await.unwrap(), watching.await.unwrap());
    latencies.sort();
    println!(
        "{} steps in {took:?}; {} statements meanwhile: p99 {:?}, longest {:?}; {locks} locks at most",
        report.steps.len(),
        latencies.len(),
        latencies[latencies.len() * 99 / 100],
        latencies[latencies.len() - 1]
    );
    assert!((100..=1000).contains(&locks), "{locks} locks of one session at once");
    let left = "SELECT (SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'v', 'S') AND relowner = 10 AND oid >= 16384) \
        + (SELECT count(*) FROM pg_proc WHERE proowner = 10 AND oid >= 16384) \
        + (SELECT count(*) FROM pg_type WHERE typowner = 10 AND oid >= 16384)";
    assert_eq!(server.value(&legacy.database, left).await, "0");
    let provisioner = server.provisioner().await;
    create_until_unchanged(&provisioner, &legacy.spec()).await;
}

/// Uses one table after the other, and gives how long each statement took.
fn works(session: Session, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Duration>> {
    tokio::spawn(async move {
        let mut latencies = Vec::new();
        for number in (1..=TABLES).cycle() {
            let begun = Instant::now();
            let statement = format!("INSERT INTO t{number} (word) VALUES ('x'); SELECT count(*) FROM v{number}");
            session.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{:?}", error.as_db_error()));
            latencies.push(begun.elapsed());
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        latencies
    })
}

/// How many locks one session of ours had at most, as often as it can be looked.
fn counts_locks(session: Session, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let count = "SELECT coalesce(max(locks), 0) FROM (SELECT count(*) AS locks FROM pg_locks JOIN pg_stat_activity USING (pid) \
            WHERE application_name LIKE 'shareddb%' AND pid <> pg_backend_pid() GROUP BY pid) counted";
        let mut most = 0;
        while !stop.load(Ordering::Relaxed) {
            most = most.max(value(&session, count).await.parse().expect("a number"));
        }
        most
    })
}
