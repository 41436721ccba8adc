//! What a pool costs: checkout, a cached `SELECT 1`, return; by one caller and by sixteen, in one interleaved run on one
//! private server.
//!
//! `cargo bench -p shareddb-tests --bench pool` prints the median time of a call and the median of its ratios to raw
//! tokio-postgres, and to deadpool-postgres without checks, in the same round. `ROUNDS=n` sets how many rounds (400), `CALLS=n`
//! how many calls a round has (64): many short ones, so that what else the machine does meets all of a round alike. Ten times
//! in between all of them get new connections, as it makes a difference where their backends run. Then what a caller meets after a query that was
//! given up, after its backend was ended, and while the password changes.
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
use shareddb_tests::measure::median;
use shareddb_tests::mount::Mount;
use shareddb_tests::server::{password, temporary_home, unique};
use shareddb_tests::watch::eventually;
use shareddb_tests::{Callers, TestServer};
use tokio::time::timeout;
use tokio_postgres::NoTls;

const SIZE: usize = 8;
const SQL: &str = "SELECT 1";
const SETS: usize = 10;
/// What the others are compared with.
const RAW: &str = "raw tokio-postgres, one connection";
const FAST: &str = "deadpool-postgres, Fast";

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
    let (rounds, calls): (usize, usize) = (number("ROUNDS", 400), number("CALLS", 64));
    let server = TestServer::in_home(temporary_home()).await;
    let config = server.app(&unique("bench")).await;
    // Each pool alone would fill what one login may have.
    server.sql("postgres", &format!("ALTER ROLE {} CONNECTION LIMIT 80", config.user())).await;
    server.sql("postgres", &format!("ALTER DATABASE {} CONNECTION LIMIT 80", config.database())).await;
    for callers in [1, 16] {
        let mut tally = Tally::default();
        for _ in 0..SETS {
            let ways = ways(&config).await;
            tally.add(&ways, callers, rounds.div_ceil(SETS), calls).await;
            drop(ways);
            sessions_end(&server, &config).await;
        }
        println!(
            "PostgreSQL {}, {callers} callers, medians of {} rounds",
            server.endpoint().version,
            tally.taken.len()
        );
        tally.print(calls);
    }
    after_an_abandoned_query(&config).await;
    after_all_backends_have_ended(&server, &config).await;
    during_rotations(&server, &config).await;
}

/// What the ways took, by round.
#[derive(Default)]
struct Tally {
    names: Vec<&'static str>,
    taken: Vec<Vec<Duration>>,
}

impl Tally {
    /// So many rounds over one set of connections.
    async fn add(&mut self, ways: &[(&'static str, Way)], callers: usize, rounds: usize, calls: usize) {
        self.names = ways.iter().map(|(name, _)| *name).collect();
        for round in 0..=rounds {
            let mut taken = vec![Duration::ZERO; ways.len()];
            // Each of them comes after each other one as often: seven have no stride in common.
            let stride = 1 + round % (ways.len() - 1);
            for offset in 0..ways.len() {
                let way = (round + offset * stride) % ways.len();
                taken[way] = run(&ways[way].1, callers, calls).await;
            }
            // The first round opens connections and prepares.
            if round > 0 {
                self.taken.push(taken);
            }
        }
    }

    fn print(&self, calls: usize) {
        let [raw, fast] =
            [RAW, FAST].map(|name| self.names.iter().position(|other| *other == name).expect("it is there"));
        for (way, name) in self.names.iter().enumerate() {
            let each = median(self.taken.iter().map(|round| round[way]).collect()).as_secs_f64() * 1e6 / calls as f64;
            let (raw, fast) = (self.ratio(way, raw), self.ratio(way, fast));
            println!("{name:44} {each:8.1} µs   {raw:5.2} of raw   {fast:5.2} of Fast");
        }
    }

    /// The median over the rounds of what one way takes of another one's time.
    fn ratio(&self, way: usize, other: usize) -> f64 {
        let ratio = |round: &Vec<Duration>| round[way].as_secs_f64() / round[other].as_secs_f64();
        let mut ratios: Vec<f64> = self.taken.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

/// Returns when the connections of a set are closed: the next one is to have the server for itself.
async fn sessions_end(server: &TestServer, config: &ConnectionConfig) {
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'", config.user());
    eventually("the sessions end", async || server.value("postgres", &count).await == "0").await;
}

/// How long the next caller waits where the one before gave up a query that had long to go.
async fn after_an_abandoned_query(config: &ConnectionConfig) {
    const TIMES: usize = 20;
    let pool = Pool::with_options(config.clone(), PoolOptions { size: 1, ..PoolOptions::default() }).expect("a pool");
    let mut waits = Vec::new();
    for _ in 0..TIMES {
        let client = pool.get().await.expect("a connection");
        let given_up = timeout(Duration::from_millis(20), client.query("SELECT pg_sleep(3)", &[])).await;
        assert!(given_up.is_err());
        let start = Instant::now();
        drop(client);
        Way::Ours(pool.clone()).ask().await;
        waits.push(start.elapsed());
    }
    let longest = waits.iter().max().copied().unwrap_or_default();
    println!("the next caller after a query that was given up: {:.1?}, at most {longest:.1?}", median(waits));
}

/// How many of a pool's next callers fail after its idle connections were ended on the server.
async fn after_all_backends_have_ended(server: &TestServer, config: &ConnectionConfig) {
    let options = PoolOptions { size: SIZE, ..PoolOptions::default() };
    let pool = Pool::with_options(config.clone(), options).expect("a pool");
    let taken = join_all((0..SIZE).map(|_| pool.get())).await;
    assert!(taken.iter().all(Result::is_ok));
    drop(taken);
    // An idle connection is looked at from this age on.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", config.user());
    server.sql("postgres", &end).await;
    let calls = (0..SIZE).map(|_| async { pool.get().await?.query_one(SQL, &[]).await });
    let failed = join_all(calls).await.iter().filter(|call| call.is_err()).count();
    println!("{failed} of {SIZE} calls fail after all backends were ended while idle for a second");
}

/// The longest that a checkout takes while the password changes ten times.
async fn during_rotations(server: &TestServer, config: &ConnectionConfig) {
    const TIMES: u64 = 10;
    let (one, other) = (config.clone(), server.app(&unique("other")).await);
    // Another app's login, which stands for the other one of the same.
    let mount = Mount::of(&one);
    let pool = Pool::new(ConnectionConfig::from_directory(mount.path()).expect("a mount")).expect("a pool");
    let callers = Callers::of(&pool, 16);
    callers.go_on().await;
    callers.take();
    for round in 1..=TIMES {
        mount.swap(if round % 2 == 1 { &other } else { &one });
        eventually("all connections are new", async || {
            let snapshot = pool.snapshot();
            snapshot.generation == round && snapshot.of_older_credentials == 0
        })
        .await;
    }
    let tally = callers.end().await;
    assert!(tally.failures.is_empty(), "{tally:?}");
    println!("{TIMES} rotations under load: the longest checkout took {:.1?}", tally.longest_checkout);
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
        (RAW, Way::Raw(Arc::new((client, statement)))),
        ("ours, every safety on", ours(Statements::Cached)),
        ("ours, without names for a pooler", ours(Statements::Unnamed)),
        (FAST, deadpool(RecyclingMethod::Fast)),
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
