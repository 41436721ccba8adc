//! How long a backup, its proof and its restore take, against PostgreSQL's own programs, in one interleaved run on one private
//! server; how large the backups are; how much memory ours takes; how long the app is not to be reached while databases
//! change places; and what a neighbour feels of it.
//!
//! `cargo bench -p shareddb-tests --bench backup` prints medians and ratios. `MEGABYTES=n` sets how many of rows the database
//! has (1000), `ROUNDS=n` how many rounds (5).
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot run has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use shareddb_core::{
    AppName, BackupEvent, BackupManager, BackupOptions, BackupStore, Choice, ConnectionConfig, Environment, LocalHome,
    RestoreOptions, Verdict, VerifyOptions,
};
use shareddb_tests::measure::{median, name, time};
use shareddb_tests::neighbour::Neighbour;
use shareddb_tests::server::{rows, temporary_home};
use shareddb_tests::{TestServer, clients, sample_data};
use tokio::task::JoinHandle;

const APP: &str = "bench-0";

#[tokio::main]
async fn main() {
    // Ours is a process of its own, so that its memory can be told.
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mark, home, work] = &arguments[..]
        && mark == "work"
    {
        return child(Path::new(home), work).await;
    }
    let number = |name: &str, or: usize| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let (rounds, megabytes) = (number("ROUNDS", 5), number("MEGABYTES", 1000));
    let bench = Bench::start(megabytes).await;
    bench.dumps(rounds);
    bench.loads(rounds).await;
    bench.swaps(rounds).await;
    bench.neighbour().await;
}

struct Bench {
    server: TestServer,
    /// A folder for what is written.
    folder: PathBuf,
    app: ConnectionConfig,
    owner: String,
}

/// A way of dumping: what it is called, its command line, and the file that it writes.
struct Way {
    name: &'static str,
    script: String,
    file: &'static str,
}

/// What one way came to.
#[derive(Default)]
struct Taken {
    times: Vec<Duration>,
    bytes: u64,
    peak: u64,
    stages: Vec<Value>,
}

impl Bench {
    async fn start(megabytes: usize) -> Self {
        let server = TestServer::in_home(temporary_home()).await;
        let app = server.app(&name("bench", 0)).await;
        server.app(&name("neighbour", 0)).await;
        let folder = server.home().join("bench");
        fs::create_dir(&folder).expect("the home is ours");
        let start = Instant::now();
        sample_data::fill(&app.connect().await.expect("a login"), megabytes << 20).await;
        server.sql("postgres", "CHECKPOINT").await;
        let owner = server.provisioner().await.app(&name("bench", 0)).await.expect("it was made").owner.to_string();
        let size = server.value(app.database(), "SELECT pg_size_pretty(pg_database_size(current_database()))").await;
        println!(
            "PostgreSQL {}, {megabytes} MB of rows, {size} on disk, filled in {:.0} s, {} processors",
            server.endpoint().version,
            start.elapsed().as_secs_f64(),
            std::thread::available_parallelism().map_or(1, usize::from)
        );
        Self { server, folder, app, owner }
    }

    /// The ways of others; the programs of a newer major where only those can do it.
    fn ways(&self) -> Vec<Way> {
        let own = self.server.endpoint().binaries.dir.clone();
        let copies = ["articles", "events", "readings"].map(|table| format!("-c 'COPY {table} TO STDOUT'")).join(" ");
        let dump = own.join("pg_dump").display().to_string();
        let mut ways = vec![
            Way { name: "pg_dump | gzip", script: format!("{dump} | gzip > plain.sql.gz"), file: "plain.sql.gz" },
            Way { name: "pg_dump -Fc", script: format!("{dump} -Fc -f custom.dump"), file: "custom.dump" },
            Way {
                name: "COPY of all tables to nowhere",
                script: format!("{} -Xq {copies} > /dev/null", own.join("psql").display()),
                file: "",
            },
        ];
        let zstd = [16, 17, 18].map(clients::programs).into_iter().find(|programs| {
            let script = format!("{}/pg_dump -s -Fc -Z zstd -f zstd.dump", programs.display());
            self.command(&script).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        });
        match zstd {
            Some(programs) => ways.push(Way {
                name: "pg_dump -Fc -Z zstd",
                script: format!("{}/pg_dump -Fc -Z zstd -f zstd.dump", programs.display()),
                file: "zstd.dump",
            }),
            None => println!("pg_dump -Fc -Z zstd: no client here was built with it"),
        }
        ways
    }

    fn dumps(&self, rounds: usize) {
        let ways = self.ways();
        let mut ours = Taken::default();
        let mut others: Vec<Taken> = ways.iter().map(|_| Taken::default()).collect();
        for _ in 0..rounds {
            self.work("backup", &mut ours);
            for (way, taken) in ways.iter().zip(&mut others) {
                taken.times.push(self.script(&way.script));
                taken.bytes = fs::metadata(self.folder.join(way.file)).map_or(0, |file| file.len());
            }
        }
        println!("\nDumps, medians of {rounds} rounds");
        let reference = median(ours.times.clone());
        ours.print("shareddb backup", reference);
        for (way, taken) in ways.iter().zip(&others) {
            taken.print(way.name, reference);
        }
    }

    async fn loads(&self, rounds: usize) {
        let own = self.server.endpoint().binaries.dir.clone();
        let dump = own.join("pg_dump").display().to_string();
        self.script(&format!("{dump} -f plain.sql && {dump} -Fc -f custom.dump"));
        let psql = format!("{} -Xq -v ON_ERROR_STOP=1 -d other -f plain.sql > /dev/null", own.join("psql").display());
        let restore = format!("{}/pg_restore --exit-on-error -d other custom.dump", own.display());
        let [mut read, mut verified, mut restored] =
            [const { Taken { times: Vec::new(), bytes: 0, peak: 0, stages: Vec::new() } }; 3];
        let [mut by_psql, mut by_restore] = [const { Vec::new() }; 2];
        for _ in 0..rounds {
            self.work("read", &mut read);
            self.work("verify", &mut verified);
            self.work("restore", &mut restored);
            self.forget().await;
            for (script, times) in [(&psql, &mut by_psql), (&restore, &mut by_restore)] {
                self.server.sql("postgres", "CREATE DATABASE other").await;
                times.push(self.script(script));
                self.server.sql("postgres", "DROP DATABASE other").await;
            }
        }
        println!("\nLoads, medians of {rounds} rounds");
        let reference = median(restored.times.clone());
        for (name, taken) in
            [("shareddb restore", &restored), ("shareddb verify", &verified), ("shareddb verify --quick", &read)]
        {
            taken.print(name, reference);
        }
        for (name, times) in [("psql -f", by_psql), ("pg_restore, one job", by_restore)] {
            Taken { times, ..Taken::default() }.print(name, reference);
        }
    }

    /// How long nobody who connects anew gets an answer while databases change places.
    async fn swaps(&self, rounds: usize) {
        self.work("restore", &mut Taken::default());
        let manager = manager(self.server.home()).await;
        let mut gaps = Vec::new();
        let mut refused = 0;
        for _ in 0..rounds.max(3) {
            let stop = Arc::new(AtomicBool::new(false));
            let visitor = visits(self.app.clone(), Arc::clone(&stop));
            manager.undo(&name("bench", 0), APP).await.expect("an undo");
            stop.store(true, Ordering::Relaxed);
            let (gap, errors) = visitor.await.expect("a visitor");
            gaps.push(gap);
            refused += errors;
        }
        self.forget().await;
        let longest = gaps.iter().max().copied().unwrap_or_default();
        println!(
            "\nUnreachable while databases change places: median {:.0} ms, longest {:.0} ms of {} swaps; {refused} connections refused",
            millis(median(gaps.clone())),
            millis(longest),
            gaps.len()
        );
    }

    /// What another app's writes feel.
    async fn neighbour(&self) {
        let config = self.server.provisioner().await.connection(&name("neighbour", 0)).await.expect("a Secret");
        config
            .connect()
            .await
            .expect("a login")
            .batch_execute("CREATE TABLE log (at timestamptz)")
            .await
            .expect("it may");
        println!();
        for work in ["nothing", "backup", "verify", "restore"] {
            let neighbour = Neighbour::start(&config, "INSERT INTO log VALUES (now())").await;
            match work {
                "nothing" => tokio::time::sleep(Duration::from_secs(5)).await,
                work => tokio::task::block_in_place(|| self.work(work, &mut Taken::default())),
            }
            neighbour.end(&format!("while ours does {work}")).await;
        }
        self.forget().await;
    }

    /// Drops what restores have kept, which is none of the measuring.
    async fn forget(&self) {
        let session = self.server.session("postgres").await;
        for database in rows(&session, "SELECT datname FROM pg_database WHERE datname LIKE 'shareddb\\_k\\_%'").await {
            session.batch_execute(&format!("DROP DATABASE {database}")).await.expect("it is the admin");
        }
    }

    /// Runs ours in a process of its own.
    fn work(&self, work: &str, taken: &mut Taken) {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.arg("work").arg(self.server.home()).arg(work).stdin(Stdio::null()).stderr(Stdio::inherit());
        let start = Instant::now();
        let output = command.output().expect("this program");
        taken.times.push(start.elapsed());
        assert!(output.status.success(), "{work}");
        let said: Value = serde_json::from_slice(&output.stdout).expect("one document");
        taken.bytes = said["bytes"].as_u64().unwrap_or(0);
        taken.peak = taken.peak.max(said["peak"].as_u64().unwrap_or(0));
        taken.stages.push(said["stages"].clone());
    }

    /// How long a script takes, as the admin of the app's database.
    fn script(&self, script: &str) -> Duration {
        time(|| {
            let status = self.command(script).status().expect("bash");
            assert!(status.success(), "{script}");
        })
    }

    fn command(&self, script: &str) -> Command {
        let admin = self.server.admin();
        let mut command = Command::new("bash");
        command.args(["-c", &format!("set -eo pipefail; {script}")]).current_dir(&self.folder).stdin(Stdio::null());
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
        command.env("PGHOST", admin.host()).env("PGPORT", admin.port().to_string()).env("PGUSER", admin.user());
        command.env("PGPASSWORD", admin.password().expect("a password").expose_secret());
        command.env("PGDATABASE", self.app.database()).env("PGOPTIONS", format!("-c search_path={}", self.schema()));
        command
    }

    fn schema(&self) -> String {
        // The owner's name is the schema's with an ending.
        self.owner.trim_end_matches("_db").to_owned()
    }
}

impl Taken {
    fn print(&self, name: &str, reference: Duration) {
        let duration = median(self.times.clone());
        let ratio = duration.as_secs_f64() / reference.as_secs_f64();
        let mut line = format!("{name:<30} {:8.2} s  {ratio:5.2} of ours", duration.as_secs_f64());
        if self.bytes > 0 {
            line += &format!("  {:7.1} MB", self.bytes as f64 / 1e6);
        }
        if self.peak > 0 {
            line += &format!("  {:4} MB of memory at most", self.peak / 1024);
        }
        println!("{line}");
        if let Some(Value::Array(stages)) = self.stages.first() {
            let of = |index: usize| {
                let all = self.stages.iter().filter_map(|stages| stages[index][1].as_u64());
                median(all.map(Duration::from_millis).collect()).as_secs_f64()
            };
            let told = stages
                .iter()
                .enumerate()
                .map(|(index, stage)| format!("{} {:.2} s", stage[0].as_str().unwrap_or_default(), of(index)));
            println!("    {}", told.collect::<Vec<_>>().join(", "));
        }
    }
}

/// Connects again and again: how long it was at most from one answer to the next, and how often there was none.
fn visits(config: ConnectionConfig, stop: Arc<AtomicBool>) -> JoinHandle<(Duration, usize)> {
    tokio::spawn(async move {
        let (mut answered, mut gap, mut refused) = (Instant::now(), Duration::ZERO, 0);
        while !stop.load(Ordering::Relaxed) {
            let asked = match config.connect().await {
                Ok(session) => session.simple_query("SELECT 1 FROM articles LIMIT 1").await.is_ok(),
                Err(_) => false,
            };
            match asked {
                true => {
                    gap = gap.max(answered.elapsed());
                    answered = Instant::now();
                }
                false => refused += 1,
            }
        }
        (gap, refused)
    })
}

async fn manager(home: &Path) -> BackupManager {
    let environment = Environment::local(LocalHome::at(home.join("local"))).expect("the name is fixed");
    let server = environment.connect().await.expect("the server runs");
    let store = BackupStore::open(&format!("file://{}", home.join("bench/store").display()), []).expect("a folder");
    BackupManager::new(server, store)
}

/// Ours, alone in its process.
async fn child(home: &Path, work: &str) {
    let app: AppName = APP.parse().expect("a name");
    let stages = Arc::new(Mutex::new(Vec::<(&str, Instant)>::new()));
    let seen = Arc::clone(&stages);
    let manager = manager(home).await.on_event(move |_, event| {
        if let BackupEvent::Began(stage) = event {
            seen.lock().expect("nobody panics").push((stage.as_str(), Instant::now()));
        }
    });
    let newest = async || manager.shelf(&app).choose(&Choice::Latest).await.expect("a backup");
    let bytes = match work {
        "backup" => manager.backup(&app, &BackupOptions::default()).await.expect("a backup").data.bytes,
        "restore" => {
            let mut options = RestoreOptions::default();
            options.safety_backup = false;
            manager.restore(&app, &options, APP).await.expect("a restore");
            0
        }
        _ => {
            let mut options = VerifyOptions::default();
            options.quick = work == "read";
            let checked = manager.verify(&newest().await, &options).await.expect("a check");
            assert_ne!(checked.verdict, Verdict::Failed, "{:?}", checked.findings);
            0
        }
    };
    let end = Instant::now();
    let stages = stages.lock().expect("nobody panics").clone();
    let ends = stages.iter().skip(1).map(|(_, began)| *began).chain([end]);
    let stages: Vec<Value> = stages
        .iter()
        .zip(ends)
        .map(|((stage, began), end)| json!([stage, (end - *began).as_millis() as u64]))
        .collect();
    println!("{}", json!({"bytes": bytes, "peak": peak(), "stages": stages}));
}

/// The most memory that this process has had, in kB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
