//! Calls that are given up, in transactions and beside others; and what statements do to those that are prepared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::process::{Pid, Signal, kill_process};
use shareddb_core::{Error, Pool, PoolOptions, PooledClient, Transaction, TransactionOptions};
use shareddb_tests::TestServer;
use shareddb_tests::server::unique;
use tokio::time::timeout;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

const SHORT: Duration = Duration::from_millis(50);
/// Far less than what is given up would take, far more than ending it does.
const SOON: Duration = Duration::from_secs(4);

async fn pool(size: usize) -> Pool {
    let config = TestServer::shared().await.app(&unique("given")).await;
    let pool = Pool::with_options(config, PoolOptions { size, ..PoolOptions::default() }).unwrap();
    pool.get().await.unwrap().batch_execute("CREATE TABLE t (n int UNIQUE)").await.unwrap();
    pool
}

async fn text(client: &PooledClient, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}")).get(0)
}

async fn rows(pool: &Pool) -> String {
    text(&pool.get().await.unwrap(), "SELECT count(*)::text FROM t").await
}

async fn begin(pool: &Pool) -> Transaction {
    let tx = pool.begin(TransactionOptions::default()).await.unwrap();
    tx.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
    tx
}

#[tokio::test]
async fn no_commit_says_that_it_was_done_when_it_was_not() {
    let pool = pool(2).await;
    for given_up in [
        "SELECT 1 / (n - n) FROM (SELECT 1 AS n, pg_sleep(0.2)) s",
        "INSERT INTO t SELECT 1 FROM pg_sleep(0.2)",
        "INSERT INTO t SELECT 2 FROM pg_sleep(20)",
    ] {
        let done: Result<(), Error> = pool
            .transaction(|tx| async move {
                tx.execute("INSERT INTO t VALUES (1)", &[]).await?;
                let _ = timeout(SHORT, tx.execute(given_up, &[])).await;
                Ok(())
            })
            .await;
        assert_eq!((done.unwrap_err().code(), rows(&pool).await.as_str()), ("transaction_failed", "0"), "{given_up}");

        let tx = begin(&pool).await;
        let _ = timeout(SHORT, tx.execute(given_up, &[])).await;
        // Given up as well, while it ends the first one.
        let _ = timeout(Duration::from_millis(1), tx.query("SELECT pg_sleep(20)", &[])).await;
        let error = tx.commit().await.unwrap_err();
        assert_eq!((error.code(), rows(&pool).await.as_str()), ("transaction_failed", "0"), "{given_up}");
    }
    // What the server gives up counts as well.
    let tx = begin(&pool).await;
    tx.batch_execute("SET LOCAL statement_timeout = '100ms'").await.unwrap();
    assert!(tx.query("SELECT pg_sleep(20)", &[]).await.is_err());
    assert_eq!(tx.commit().await.unwrap_err().code(), "transaction_failed");
    // A savepoint saves the rest.
    let tx = begin(&pool).await;
    tx.batch_execute("SAVEPOINT here").await.unwrap();
    let _ = timeout(SHORT, tx.execute("INSERT INTO t SELECT 2 FROM pg_sleep(20)", &[])).await;
    tx.batch_execute("ROLLBACK TO here").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(rows(&pool).await, "1");
}

#[tokio::test]
async fn giving_up_takes_no_time() {
    let pool = pool(1).await;
    let started = Instant::now();
    let gave_up: Result<(), Error> = pool
        .transaction(|tx| async move {
            let _ = timeout(SHORT, tx.query("SELECT pg_sleep(60)", &[])).await;
            Err(Error::timeout("mine", "given up"))
        })
        .await;
    assert_eq!(gave_up.unwrap_err().code(), "mine");
    let tx = begin(&pool).await;
    let _ = timeout(SHORT, tx.query("SELECT pg_sleep(60)", &[])).await;
    tx.rollback().await.unwrap();
    let mut client = pool.get().await.unwrap();
    let _ = timeout(SHORT, client.query("SELECT pg_sleep(60)", &[])).await;
    client.raw().await.unwrap().query("SELECT 1", &[]).await.unwrap();
    let _ = timeout(SHORT, client.raw().await.unwrap().query("SELECT pg_sleep(60)", &[])).await;
    drop(client);
    assert_eq!(rows(&pool).await, "0");
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_meets_only_what_was_given_up() {
    let pool = pool(1).await;
    for _ in 0..60 {
        let client = Arc::new(pool.get().await.unwrap());
        let _ = timeout(Duration::from_millis(3), client.query("SELECT pg_sleep(60)", &[])).await;
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let client = Arc::clone(&client);
                tokio::spawn(async move { client.query("SELECT pg_sleep(0.005)", &[]).await.map(drop) })
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_behind_the_end_of_a_transaction() {
    let pool = pool(2).await;
    pool.get().await.unwrap().batch_execute("ALTER TABLE t DROP CONSTRAINT t_n_key").await.unwrap();
    for _ in 0..40 {
        let gave_up: Result<(), Error> = pool
            .transaction(|tx| async move {
                let pause = Duration::from_millis(2);
                tokio::spawn(async move { while tx.execute("INSERT INTO t VALUES (7)", &[]).await.is_ok() {} });
                tokio::time::sleep(pause).await;
                Err(Error::timeout("mine", "given up"))
            })
            .await;
        assert_eq!(gave_up.unwrap_err().code(), "mine");
    }
    assert_eq!(rows(&pool).await, "0");
    // What other tasks have begun is part of what is committed.
    let committed: Result<(), Error> = pool
        .transaction(|tx| async move {
            let tx = Arc::new(tx);
            let other = Arc::clone(&tx);
            tokio::spawn(async move { other.execute("INSERT INTO t SELECT 1 FROM pg_sleep(0.2)", &[]).await });
            tokio::time::sleep(SHORT).await;
            Ok(())
        })
        .await;
    committed.unwrap();
    assert_eq!(rows(&pool).await, "1");
}

#[tokio::test]
async fn a_closure_does_not_end_its_transaction() {
    let pool = pool(2).await;
    let ended = pool.transaction(|tx| async move {
        tx.execute("INSERT INTO t VALUES (1)", &[]).await?;
        tx.commit().await
    });
    assert_eq!((ended.await.unwrap_err().code(), rows(&pool).await.as_str()), ("transaction_lent", "0"));
    let options = TransactionOptions { deadline: Duration::MAX, ..TransactionOptions::default() };
    let write = |tx: Transaction| async move { tx.execute("INSERT INTO t VALUES (1)", &[]).await };
    assert_eq!(pool.transaction_with(options, write).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_holds_up_no_end() {
    let pool = pool(1).await;
    for ends in ["commits", "rolls back", "returns an error"] {
        let tx = begin(&pool).await;
        let pid: i32 = tx.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let backend = Pid::from_raw(pid).unwrap();
        let failed = tx.query("SELECT 1 / 0", &[]).await.is_err();
        assert!(failed);
        kill_process(backend, Signal::STOP).unwrap();
        let started = Instant::now();
        match ends {
            "commits" => assert!(tx.commit().await.is_err()),
            "rolls back" => assert!(tx.rollback().await.is_err()),
            _ => drop(tx),
        }
        let next = timeout(Duration::from_secs(20), rows(&pool)).await;
        kill_process(backend, Signal::CONT).unwrap();
        assert_eq!(next.expect("somebody gets a connection"), "0", "{ends}");
        assert!(started.elapsed() < Duration::from_secs(12), "{ends}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn statements_about_statements_disturb_nobody() {
    let pool = pool(1).await;
    for _ in 0..2 {
        pool.get().await.unwrap().batch_execute("PREPARE find AS SELECT 1").await.unwrap();
        let client = pool.get().await.unwrap();
        assert_eq!(text(&client, "SELECT count(*)::text FROM pg_prepared_statements WHERE from_sql").await, "0");
        client.batch_execute("DISCARD ALL").await.unwrap();
        assert_eq!(text(&client, "SELECT count(*)::text FROM t").await, "0");
        client.execute("DEALLOCATE ALL", &[]).await.unwrap();
        assert_eq!(text(&client, "SELECT count(*)::text FROM t").await, "0");
    }
    let tx = begin(&pool).await;
    tx.commit().await.unwrap();
    assert_eq!(rows(&pool).await, "1");
}

/// A word as a value of whatever type the server wants.
#[derive(Debug)]
struct Word(&'static str);

impl ToSql for Word {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

#[tokio::test]
async fn what_is_prepared_follows_types_that_were_replaced() {
    let pool = pool(1).await;
    const MAKE: &str = "CREATE TYPE kind AS ENUM ('a', 'b'); CREATE TABLE e (k kind)";
    const MIGRATE: &str = "CREATE TYPE next AS ENUM ('a', 'b', 'c'); ALTER TABLE e ALTER k TYPE next USING k::text::next; \
                           DROP TYPE kind; ALTER TYPE next RENAME TO kind";
    pool.get().await.unwrap().batch_execute(MAKE).await.unwrap();
    let add = async || pool.get().await.unwrap().execute("INSERT INTO e VALUES ($1)", &[&Word("a")]).await;
    for _ in 0..2 {
        // Used again it is known to have been in order.
        add().await.unwrap();
        add().await.unwrap();
        pool.get().await.unwrap().batch_execute(MIGRATE).await.unwrap();
        add().await.unwrap();
        add().await.unwrap();
        pool.get().await.unwrap().batch_execute(MIGRATE).await.unwrap();
        let tx = |tx: Transaction| async move { tx.execute("INSERT INTO e VALUES ($1)", &[&Word("a")]).await };
        assert_eq!(pool.transaction(tx).await.unwrap(), 1);
    }
    let wrong = pool.get().await.unwrap().execute("INSERT INTO e VALUES ($1)", &[&Word("d")]).await.unwrap_err();
    assert_eq!(wrong.sqlstate(), Some("22P02"));
}
