//! What the Python package costs: calls beside the same calls in Rust, its import, and apps that are made from Python, by the
//! command, and by the script that people write with psycopg and the client of Kubernetes.
//!
//! `cargo build --release --workspace && cargo bench -p shareddb-tests --bench python` prints medians and sums. `APPS=n` sets how
//! many apps each way makes (100), `ROUNDS=n` how many rounds of calls there are (20).
#![allow(clippy::print_stdout, reason = "a benchmark tells what it found")]

use shareddb_tests::python_costs::{Extent, measure};

#[tokio::main]
async fn main() {
    let number = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    for line in measure(Extent { apps: number("APPS", 100), rounds: number("ROUNDS", 20) }).await {
        println!("{line}");
    }
}
