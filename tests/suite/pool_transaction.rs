//! Transactions that are tried again while others are in their way, and those whose end nobody knows.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use shareddb_core::{Access, Error, Isolation, Pool, PoolOptions, Transaction, TransactionOptions};
use shareddb_tests::TestServer;
use shareddb_tests::server::unique;
use shareddb_tests::watch::eventually;

/// A pool of an app with a table, and functions that fail the first times they are called.
async fn pool() -> Pool {
    let config = TestServer::shared().await.app(&unique("tx")).await;
    let pool = Pool::with_options(config, PoolOptions { size: 3, ..PoolOptions::default() }).unwrap();
    let client = pool.get().await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (n bigint); CREATE SEQUENCE calls; \
             CREATE FUNCTION in_the_way(times int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
               IF nextval('calls') <= times THEN RAISE 'in the way' USING ERRCODE = '40001'; END IF; RETURN 1; END $$; \
             CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
               IF NEW.n = -1 THEN PERFORM pg_sleep(60); END IF; \
               IF NEW.n = -2 THEN PERFORM in_the_way(2); END IF; RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()",
        )
        .await
        .unwrap();
    drop(client);
    pool
}

async fn rows(pool: &Pool) -> i64 {
    pool.get().await.unwrap().query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_transaction_in_conflict_is_done_again_whatever_its_code_makes_of_it() {
    let pool = pool().await;
    let tries = AtomicU32::new(0);
    let count = &tries;
    let done: Result<u64, Error> = pool
        .transaction(|tx| async move {
            count.fetch_add(1, Ordering::Relaxed);
            // The error is swallowed.
            let _ = tx.query("SELECT in_the_way(2)", &[]).await;
            tx.execute("INSERT INTO t VALUES ($1)", &[&1_i64]).await.or(Ok(0))
        })
        .await;
    assert_eq!((done.unwrap(), tries.load(Ordering::Relaxed), rows(&pool).await), (1, 3, 1));
    // At the COMMIT as well.
    pool.get().await.unwrap().batch_execute("ALTER SEQUENCE calls RESTART").await.unwrap();
    tries.store(0, Ordering::Relaxed);
    let done: Result<u64, Error> = pool
        .transaction(|tx| async move {
            count.fetch_add(1, Ordering::Relaxed);
            tx.execute("INSERT INTO t VALUES (-2)", &[]).await
        })
        .await;
    assert_eq!((done.unwrap(), tries.load(Ordering::Relaxed), rows(&pool).await), (1, 3, 2));
    // Not for ever.
    pool.get().await.unwrap().batch_execute("ALTER SEQUENCE calls RESTART").await.unwrap();
    let error = pool.transaction(|tx| async move { tx.query("SELECT in_the_way(100)", &[]).await }).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)) && error.sqlstate() == Some("40001"), "{error:?}");
    let calls: i64 = pool.get().await.unwrap().query_one("SELECT last_value FROM calls", &[]).await.unwrap().get(0);
    assert_eq!(calls, 5);
}

#[tokio::test]
async fn writers_that_collide_all_get_through() {
    let pool = pool().await;
    pool.get().await.unwrap().execute("INSERT INTO t VALUES (0)", &[]).await.unwrap();
    let options = TransactionOptions {
        isolation: Some(Isolation::Serializable),
        access: Some(Access::ReadWrite),
        attempts: 50,
        ..TransactionOptions::default()
    };
    let name = "borrowed".to_owned();
    let writers = (0..8).map(|_| {
        let (pool, options, name) = (pool.clone(), options.clone(), name.clone());
        // In a task: the future has to be Send.
        tokio::spawn(async move {
            let name = &name;
            pool.transaction_with(options, |tx| async move {
                let row = tx.query_one("SELECT n, $1::text FROM t", &[name]).await?;
                let n: i64 = row.get(0);
                tx.execute("UPDATE t SET n = $1", &[&(n + 1)]).await?;
                Ok::<_, Error>(())
            })
            .await
        })
    });
    for writer in futures_util::future::join_all(writers).await {
        writer.unwrap().unwrap();
    }
    let n: i64 = pool.get().await.unwrap().query_one("SELECT n FROM t", &[]).await.unwrap().get(0);
    assert_eq!(n, 8);
}

#[tokio::test]
async fn a_connection_lost_in_the_commit_is_told_and_not_tried_again() {
    let pool = pool().await;
    let user: String = pool.get().await.unwrap().query_one("SELECT session_user::text", &[]).await.unwrap().get(0);
    let tries = AtomicU32::new(0);
    let count = &tries;
    let committing = pool.transaction(|tx| async move {
        count.fetch_add(1, Ordering::Relaxed);
        tx.execute("INSERT INTO t VALUES (-1)", &[]).await
    });
    let losing = async {
        let server = TestServer::shared().await;
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE usename = '{user}' AND query LIKE '%; COMMIT' AND state = 'active'"
        );
        eventually("it commits", async || server.value("postgres", &sql).await == "1").await;
    };
    let (result, ()) = tokio::join!(committing, losing);
    let error: Error = result.unwrap_err();
    assert_eq!(
        (error.code(), error.is_retryable(), tries.load(Ordering::Relaxed)),
        ("outcome_unknown", false, 1),
        "{error}"
    );
    assert_eq!(rows(&pool).await, 0);
}

#[tokio::test]
async fn nothing_is_committed_behind_an_error() {
    #[derive(Debug)]
    enum AppError {
        Own,
        #[expect(dead_code, reason = "it is only shown")]
        Database(Error),
    }
    impl From<Error> for AppError {
        fn from(error: Error) -> Self {
            Self::Database(error)
        }
    }
    let pool = pool().await;
    let own: Result<(), AppError> = pool
        .transaction(|tx| async move {
            tx.execute("INSERT INTO t VALUES (1)", &[]).await?;
            Err(AppError::Own)
        })
        .await;
    assert!(matches!(own, Err(AppError::Own)));
    // A server answers a COMMIT after a failed statement with a rollback, and calls that a success.
    let swallowed = pool
        .transaction(|tx| async move {
            tx.execute("INSERT INTO t VALUES (1)", &[]).await?;
            let _ = tx.execute("INSERT INTO nowhere VALUES (1)", &[]).await;
            Ok::<_, Error>(())
        })
        .await
        .unwrap_err();
    assert_eq!(swallowed.code(), "transaction_failed");
    let recovered: Result<(), Error> = pool
        .transaction(|tx| async move {
            tx.batch_execute("SAVEPOINT s").await?;
            let _ = tx.execute("INSERT INTO nowhere VALUES (1)", &[]).await;
            tx.batch_execute("ROLLBACK TO s").await?;
            tx.execute("INSERT INTO t VALUES (2)", &[]).await.map(drop)
        })
        .await;
    recovered.unwrap();
    let options = TransactionOptions { deadline: Duration::from_millis(300), ..TransactionOptions::default() };
    let late = pool
        .transaction_with(options, |tx| async move {
            tx.execute("INSERT INTO t VALUES (3)", &[]).await?;
            tx.query("SELECT pg_sleep(20)", &[]).await
        })
        .await
        .unwrap_err();
    assert_eq!(late.code(), "transaction_deadline");
    // One that is only begun and dropped.
    let begun = pool.begin(TransactionOptions::default()).await.unwrap();
    begun.execute("INSERT INTO t VALUES (4)", &[]).await.unwrap();
    drop(begun);
    let read_only = TransactionOptions { access: Some(Access::ReadOnly), ..TransactionOptions::default() };
    let refused = pool.begin(read_only).await.unwrap();
    assert_eq!(refused.execute("INSERT INTO t VALUES (5)", &[]).await.unwrap_err().sqlstate(), Some("25006"));
    refused.rollback().await.unwrap();
    let kept = pool.begin(TransactionOptions::default()).await.unwrap();
    kept.execute("INSERT INTO t VALUES (6)", &[]).await.unwrap();
    kept.commit().await.unwrap();
    assert_eq!(rows(&pool).await, 2);
    assert_eq!(pool.snapshot().in_use, 0);
}

/// However soon the server was through with it.
#[tokio::test]
async fn a_statement_that_was_given_up_is_not_committed() {
    let pool = pool().await;
    const INSERT: &str = "INSERT INTO t VALUES (7)";
    let give_up = async |tx: &Transaction| {
        assert!(tx.execute(INSERT, &[]).now_or_never().is_none());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for last in [false, true] {
        let tx = pool.begin(TransactionOptions::default()).await.unwrap();
        tx.query("SELECT 1", &[]).await.unwrap();
        give_up(&tx).await;
        if !last {
            assert_eq!(tx.query("SELECT 1", &[]).await.unwrap_err().sqlstate(), Some("25P02"));
        }
        assert_eq!(tx.commit().await.unwrap_err().code(), "transaction_failed");
    }
    // Nor is it where something else was still on its way, and the next one goes back to no further than itself.
    let tx = pool.begin(TransactionOptions::default()).await.unwrap();
    let mut beside = Box::pin(tx.query("SELECT pg_sleep(0.4)", &[]));
    assert!(beside.as_mut().now_or_never().is_none());
    give_up(&tx).await;
    let (beside, savepoint) = tokio::join!(beside, tx.batch_execute("SAVEPOINT s"));
    assert_eq!((beside.unwrap_err().code(), savepoint.unwrap_err().sqlstate()), ("query_cancelled", Some("25P02")));
    assert_eq!(tx.commit().await.unwrap_err().code(), "transaction_failed");
    let before = rows(&pool).await;
    let tx = pool.begin(TransactionOptions::default()).await.unwrap();
    tx.execute("INSERT INTO t VALUES (8)", &[]).await.unwrap();
    tx.batch_execute("SAVEPOINT s").await.unwrap();
    give_up(&tx).await;
    tx.batch_execute("ROLLBACK TO s").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(rows(&pool).await, before + 1);
}

#[tokio::test]
async fn a_begin_finds_a_connection_that_is_alive() {
    let server = TestServer::shared().await;
    let config = server.app(&unique("tx")).await;
    let pool = Pool::new(config.clone()).unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(pool.get().await.unwrap());
    }
    drop(clients);
    let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", config.user());
    server.sql("postgres", &sql).await;
    // They were idle for less than a second, and nobody has looked at them.
    let one: Result<i32, Error> =
        pool.transaction(|tx| async move { Ok(tx.query_one("SELECT 1", &[]).await?.get(0)) }).await;
    assert_eq!(one.unwrap(), 1);
}
