//! Through PgBouncer in transaction mode, where consecutive statements meet different sessions.

use std::time::Duration;

use shareddb_core::{Error, Pool, PoolOptions, PooledClient, Statements};
use shareddb_tests::server::unique;
use shareddb_tests::{Pooler, TestServer};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_between_is_no_obstacle() {
    let server = TestServer::shared().await;
    let config = server.app(&unique("bouncer")).await;
    let pooler = Pooler::before(&config).await;
    let behind = pooler.instead_of(&config);
    let options = PoolOptions { size: 6, statements: Statements::Unnamed, ..PoolOptions::default() };
    let pool = Pool::with_options(behind.clone(), options.clone()).unwrap();
    pool.get().await.unwrap().batch_execute("CREATE TABLE t (n int8, word text, at timestamptz)").await.unwrap();
    // Six connections over two sessions; statements with names would meet the wrong one.
    let callers = (0..6).map(|caller| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let words = vec!["a".to_owned(), "b".to_owned()];
            for n in 0..20_i64 {
                let client = pool.get().await?;
                let now = std::time::SystemTime::now();
                client.execute("INSERT INTO t VALUES ($1, $2, $3)", &[&n, &"word", &Some(now)]).await?;
                let row = client
                    .query_one(
                        "SELECT $1 + 1, word FROM t WHERE word = $2 AND 'b' = ANY($3) LIMIT $4",
                        &[&caller, &"word", &words, &1_i64],
                    )
                    .await?;
                assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (caller + 1, "word"));
                let counted = pool.transaction(|tx| async move {
                    tx.execute("INSERT INTO t VALUES ($1, NULL, NULL)", &[&n]).await?;
                    Ok::<i64, Error>(
                        tx.query_one("SELECT count(*) FROM t WHERE n = $1 AND word IS NULL", &[&n]).await?.get(0),
                    )
                });
                drop(client);
                assert!(counted.await? > 0);
            }
            Ok::<_, Error>(())
        })
    });
    for caller in futures_util::future::join_all(callers).await {
        caller.unwrap().unwrap_or_else(|error| panic!("{error}: {}", pooler.log()));
    }
    let client = pool.get().await.unwrap();
    let rows: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(rows, 6 * 20 * 2);
    // A transaction left open, and a query that was abandoned: both end.
    client.execute("BEGIN", &[]).await.unwrap();
    client.execute("DELETE FROM t", &[]).await.unwrap();
    drop(client);
    let client = pool.get().await.unwrap();
    timeout(Duration::from_millis(200), client.query("SELECT pg_sleep(30)", &[])).await.unwrap_err();
    drop(client);
    let after: i64 = pool.get().await.unwrap().query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(after, rows);
    let sleeping = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND query LIKE '%pg_sleep(30)%' AND state = 'active'",
        config.user()
    );
    shareddb_tests::watch::eventually("the abandoned query has ended", async || {
        server.value("postgres", &sleeping).await == "0"
    })
    .await;

    // The driver asks for what it does not know of a type by statements with names, which can meet the wrong session.
    client_of(&pool)
        .await
        .batch_execute("CREATE TYPE mood AS ENUM ('glad'); CREATE TABLE moods (mood mood)")
        .await
        .unwrap();
    let inserts = (0..24).map(|number| {
        let pool = pool.clone();
        async move {
            let (client, sql) = (client_of(&pool).await, "INSERT INTO moods VALUES ('glad') RETURNING mood");
            if number % 2 == 0 {
                assert_eq!(client.execute(sql, &[]).await.unwrap(), 1);
            } else {
                // It may fail, and then says why.
                let failure = client.query(sql, &[]).await.err();
                assert!(failure.is_none_or(|error| error.hint().is_some_and(|hint| hint.contains("cast"))));
            }
        }
    });
    futures_util::future::join_all(inserts).await;
    let moods: i64 = client_of(&pool).await.query_one("SELECT count(*) FROM moods", &[]).await.unwrap().get(0);
    assert_eq!(moods, 24, "nothing is done twice");

    // What cannot be is told before anything is sent.
    let untyped = pool.get().await.unwrap().query("SELECT $1::inet", &[&std::net::IpAddr::from([127, 0, 0, 1])]).await;
    assert!(untyped.is_ok(), "addresses are of a type that every server has");
    let refused = Pool::with_options(behind.with_option("statement_timeout", "5s"), options).unwrap_err();
    assert!(matches!(refused, Error::InvalidInput(_)) && refused.to_string().contains("pooler"), "{refused}");
}

async fn client_of(pool: &Pool) -> PooledClient {
    pool.get().await.unwrap()
}
