//! What a pool costs: checkout, a cached `SELECT 1`, return; by one caller and by sixteen, in one interleaved run on one
//! private server.
//!
//! `cargo bench -p shareddb-tests --bench pool` prints the median time of a call and the median of its ratios to raw
//! tokio-postgres in the same round. `ROUNDS=n` sets how many rounds (15), `CALLS=n` how many calls a round has (800).
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot run has failed"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bb8_postgres::PostgresConnectionManager;
use bb8_postgres::bb8;
use deadpool_postgres::{ManagerConfig, RecyclingMethod};
use futures_util::future::join_all;
use shareddb_core::{ConnectionConfig, Pool, PoolOptions, Statements};
use shareddb_tests::TestServer;
use shareddb_tests::measure::median;
use shareddb_tests::server::{password, temporary_home, unique};
use tokio_postgres::NoTls;

const SIZE: usize = 8;
const SQL: &str = "SELECT 1";

/// One way to ask.
#[derive(Clone)]
enum Way {
    /// One connection that all callers share, and a statement that is prepared.
    Raw(Arc<(tokio_postgres::Client, tokio_postgres::Statement)>),
    Ours(Pool),
    Deadpool(deadpool_postgres::Pool),
    Bb8(bb8::Pool<PostgresConnectionManager<NoTls>>),
    Sqlx(sqlx::PgPool),
}

impl Way {
    async fn ask(&self) {
        let one: i32 = match self {
            Self::Raw(raw) => raw.0.query_one(&raw.1, &[]).await.unwrap().get(0),
            Self::Ours(pool) => pool.get().await.unwrap().query_one(SQL, &[]).await.unwrap().get(0),
            Self::Deadpool(pool) => {
                let client = pool.get().await.unwrap();
                let statement = client.prepare_cached(SQL).await.unwrap();
                client.query_one(&statement, &[]).await.unwrap().get(0)
            }
            // It keeps no statements: a simple query is its quickest.
            Self::Bb8(pool) => {
                pool.get().await.unwrap().simple_query(SQL).await.unwrap();
                1
            }
            Self::Sqlx(pool) => sqlx::query_scalar(SQL).fetch_one(pool).await.unwrap(),
        };
        assert_eq!(one, 1);
    }
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let number =
        |name: &str, otherwise| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let (rounds, calls): (usize, usize) = (number("ROUNDS", 15), number("CALLS", 800));
    let server = TestServer::in_home(temporary_home()).await;
    let config = server.app(&unique("bench")).await;
    // Each pool alone would fill what one login may have.
    server.sql("postgres", &format!("ALTER ROLE {} CONNECTION LIMIT 80", config.user())).await;
    server.sql("postgres", &format!("ALTER DATABASE {} CONNECTION LIMIT 80", config.database())).await;
    let mut ways = ways(&config).await;
    if let Ok(only) = std::env::var("ONLY") {
        ways.retain(|(name, _)| name.contains(only.as_str()) || name.contains("raw"));
    }
    if std::env::var("SIZES").is_ok() {
        let pool = Pool::new(config.clone()).unwrap();
        println!("get {}", std::mem::size_of_val(&pool.get()));
        let client = pool.get().await.unwrap();
        println!(
            "client {} query_one {}",
            std::mem::size_of_val(&client),
            std::mem::size_of_val(&client.query_one(SQL, &[]))
        );
    }

    for callers in [1, 16] {
        let mut times = vec![Vec::new(); ways.len()];
        let mut ratios = vec![Vec::new(); ways.len()];
        for round in 0..=rounds {
            let mut taken = vec![Duration::ZERO; ways.len()];
            for offset in 0..ways.len() {
                let way = (round + offset) % ways.len();
                taken[way] = run(&ways[way].1, callers, calls).await;
            }
            // The first round opens connections and prepares.
            if round == 0 {
                continue;
            }
            for (way, time) in taken.iter().enumerate() {
                times[way].push(*time);
                ratios[way].push(time.as_secs_f64() / taken[0].as_secs_f64());
            }
        }
        println!(
            "PostgreSQL {}, {callers} callers, medians of {rounds} rounds of {calls} calls",
            server.endpoint().version
        );
        for (way, (name, _)) in ways.iter().enumerate() {
            ratios[way].sort_by(f64::total_cmp);
            let each = median(times[way].clone()).as_secs_f64() * 1e6 / calls as f64;
            println!("{name:44} {each:8.1} µs   {:5.2} of raw", ratios[way][rounds / 2]);
        }
    }
}

/// How long so many calls by so many callers take.
async fn run(way: &Way, callers: usize, calls: usize) -> Duration {
    let start = Instant::now();
    let tasks = (0..callers).map(|_| {
        let way = way.clone();
        tokio::spawn(async move {
            for _ in 0..calls / callers {
                way.ask().await;
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("no call fails");
    }
    start.elapsed()
}

async fn ways(config: &ConnectionConfig) -> Vec<(&'static str, Way)> {
    let mut driver = tokio_postgres::Config::new();
    driver
        .host(config.host())
        .port(config.port())
        .dbname(config.database())
        .user(config.user())
        .password(password(config));
    let (client, connection) = driver.connect(NoTls).await.expect("a login");
    tokio::spawn(connection);
    let statement = client.prepare(SQL).await.expect("a statement");
    let deadpool = |recycling_method| {
        let manager =
            deadpool_postgres::Manager::from_config(driver.clone(), NoTls, ManagerConfig { recycling_method });
        Way::Deadpool(deadpool_postgres::Pool::builder(manager).max_size(SIZE).build().expect("a pool"))
    };
    let bb8 = bb8::Pool::builder().max_size(u32::try_from(SIZE).expect("it is small"));
    let sqlx = sqlx::postgres::PgConnectOptions::new()
        .host(config.host())
        .port(config.port())
        .database(config.database())
        .username(config.user())
        .password(&password(config));
    let ours = |statements| {
        let options = PoolOptions { size: SIZE, replicas: 1, statements, ..PoolOptions::default() };
        Way::Ours(Pool::with_options(config.clone(), options).expect("a pool"))
    };
    vec![
        ("raw tokio-postgres, one connection", Way::Raw(Arc::new((client, statement)))),
        ("ours, every safety on", ours(Statements::Cached)),
        ("ours, without names for a pooler", ours(Statements::Unnamed)),
        ("deadpool-postgres, Fast", deadpool(RecyclingMethod::Fast)),
        ("deadpool-postgres, Verified", deadpool(RecyclingMethod::Verified)),
        (
            "bb8-postgres, simple query",
            Way::Bb8(bb8.build(PostgresConnectionManager::new(driver.clone(), NoTls)).await.expect("a pool")),
        ),
        (
            "sqlx",
            Way::Sqlx(
                sqlx::postgres::PgPoolOptions::new()
                    .max_connections(SIZE as u32)
                    .connect_with(sqlx)
                    .await
                    .expect("a pool"),
            ),
        ),
    ]
}
