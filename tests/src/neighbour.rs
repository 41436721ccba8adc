//! Somebody else on the same server, who must notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shareddb_core::ConnectionConfig;
use tokio::task::JoinHandle;

/// Between two of its statements.
const PACE: Duration = Duration::from_millis(5);

/// An app that works, at a pace.
#[derive(Debug)]
pub struct Neighbour {
    stop: Arc<AtomicBool>,
    working: JoinHandle<Vec<Duration>>,
}

/// How long a neighbour's statements took.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// How many there were.
    pub statements: usize,
    /// Of half of them, at most.
    pub median: Duration,
    /// Of all but one in a hundred, at most.
    pub most: Duration,
    /// Of the slowest.
    pub longest: Duration,
}

impl Neighbour {
    /// Runs statements, one transaction at a time, in one session, until it is told to end.
    pub async fn start(config: &ConnectionConfig, statements: &str) -> Self {
        let session = config.connect().await.unwrap_or_else(|error| panic!("{error}"));
        let (stop, statements) = (Arc::new(AtomicBool::new(false)), statements.to_owned());
        let stopped = Arc::clone(&stop);
        let working = tokio::spawn(async move {
            let mut latencies = Vec::new();
            while !stopped.load(Ordering::Relaxed) || latencies.is_empty() {
                let begun = Instant::now();
                let done = session.batch_execute(&statements).await;
                done.unwrap_or_else(|error| panic!("a neighbour noticed: {:?}", error.as_db_error()));
                latencies.push(begun.elapsed());
                tokio::time::sleep(PACE).await;
            }
            latencies
        });
        Self { stop, working }
    }

    /// Ends it, and says how long its statements took. Panics if one has failed.
    pub async fn end(self, when: &str) -> Latency {
        self.stop.store(true, Ordering::Relaxed);
        let mut latencies = self.working.await.expect("no statement of a neighbour fails");
        latencies.sort();
        let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        let latency = Latency { statements: latencies.len(), median: at(50), most: at(99), longest: at(100) };
        println!("a neighbour {when}: {latency:.1?}");
        latency
    }
}
