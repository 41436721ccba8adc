//! Rules of the code that no compiler holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use shareddb_tests::command::run;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every file of ours with one of these endings, by its path from the root.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", "__pycache__"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let path_from_root = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((path_from_root, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// The part of a file before its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

/// Lines of code, without comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    code(text).lines().map(str::trim_start).filter(|line| !line.starts_with("//"))
}

/// Files of the library that are tests as a whole.
const TESTS: [&str; 6] = [
    "backup/sample.rs",
    "connection/round_trips.rs",
    "provision/adopt/scenarios.rs",
    "provision/crash_points.rs",
    "provision/rotation_crashes.rs",
    "provision/simulation.rs",
];

/// The library's files, by their path in it.
fn core() -> Vec<(String, String)> {
    let all = files(&[".rs"]).into_iter().filter(|(path, _)| !TESTS.iter().any(|test| path.ends_with(test)));
    all.filter_map(|(path, text)| Some((path.strip_prefix("shareddb-core/src/")?.to_owned(), text))).collect()
}

#[test]
fn the_decision_and_what_it_stands_on_touch_nothing() {
    /// Files and folders that act; every other one is pure.
    const ACTING: [&str; 104] = [
        "lib.rs",
        "backup.rs",
        "backup/catalogue.rs",
        "backup/compare.rs",
        "backup/download.rs",
        "backup/dump.rs",
        "backup/dump_file.rs",
        "backup/foreign.rs",
        "backup/hold.rs",
        "backup/incoming.rs",
        "backup/interrupt.rs",
        "backup/job.rs",
        "backup/kept.rs",
        "backup/keyring.rs",
        "backup/live.rs",
        "backup/load.rs",
        "backup/location.rs",
        "backup/origin.rs",
        "backup/pack.rs",
        "backup/pins.rs",
        "backup/plain.rs",
        "backup/program.rs",
        "backup/prerequisites.rs",
        "backup/prune.rs",
        "backup/replacement.rs",
        "backup/restore.rs",
        "backup/scratch.rs",
        "backup/script_load.rs",
        "backup/shelf.rs",
        "backup/store.rs",
        "backup/swap.rs",
        "backup/unpack.rs",
        "backup/upload.rs",
        "backup/verify.rs",
        "error.rs",
        "error/",
        "file.rs",
        "home.rs",
        "kubernetes.rs",
        "kubernetes/apply.rs",
        "kubernetes/inhabitants.rs",
        "kubernetes/restart.rs",
        "kubernetes/tunnel.rs",
        "kubernetes/volume.rs",
        "password.rs",
        "pool.rs",
        "pool/arrivals.rs",
        "pool/attempts.rs",
        "pool/budget.rs",
        "pool/calls.rs",
        "pool/canceller.rs",
        "pool/closing.rs",
        "pool/dialling.rs",
        "pool/exchange.rs",
        "pool/health.rs",
        "pool/held.rs",
        "pool/holders.rs",
        "pool/keeper.rs",
        "pool/link.rs",
        "pool/manager.rs",
        "pool/parameter.rs",
        "pool/pooled_client.rs",
        "pool/secret.rs",
        "pool/shared.rs",
        "pool/source.rs",
        "pool/statement_cache.rs",
        "pool/transaction.rs",
        "connection.rs",
        "connection/",
        "secrets.rs",
        "secrets/",
        "postgres/session.rs",
        "postgres/clients.rs",
        "postgres/catalog.rs",
        "postgres/extensions.rs",
        "postgres/inventory.rs",
        "postgres/marks.rs",
        "postgres/loader.rs",
        "postgres/lock.rs",
        "postgres/powers.rs",
        "postgres/visitors.rs",
        "postgres/blockers.rs",
        "postgres/census.rs",
        "postgres/copies.rs",
        "postgres/maintenance.rs",
        "postgres/renaming.rs",
        "postgres/requirements.rs",
        "local",
        "server.rs",
        "environment.rs",
        "environment/",
        "deploy.rs",
        "deploy/look.rs",
        "deploy/prepare.rs",
        "deploy/state.rs",
        "deploy/wait.rs",
        "schedule.rs",
        "schedule/prepare.rs",
        "schedule/state.rs",
        "provision.rs",
        "provision/adopt/look.rs",
        "provision/observe.rs",
        "provision/secure.rs",
        "provision/status.rs",
    ];
    /// Those that only a plan gets to act.
    const CARRYING_OUT: [&str; 3] = ["provision/adopt/carry.rs", "provision/execute.rs", "provision/proof.rs"];
    const IMPURE: [&str; 12] = [
        "tokio",
        "kube::",
        "object_store",
        "std::fs",
        "std::env",
        "std::process",
        "std::net",
        "Instant",
        "SystemTime",
        "Timestamp::now",
        "Zoned::now",
        "async ",
    ];
    let acts = |path: &str| ACTING.iter().chain(&CARRYING_OUT).any(|acting| path.starts_with(acting));
    for (path, text) in core().into_iter().filter(|(path, _)| !acts(path)) {
        for line in lines(&text) {
            let found = IMPURE.iter().find(|word| line.contains(**word));
            assert_eq!(found, None, "{path}: {line}");
        }
    }
}

#[test]
fn sql_stands_under_postgres_only() {
    const SQL: [&str; 10] = [
        "\"SELECT ",
        "\"CREATE ",
        "\"ALTER ",
        "\"DROP ",
        "\"GRANT ",
        "\"REVOKE ",
        "\"BEGIN",
        "\"COMMENT ON {",
        "\"SET ",
        "\"REASSIGN ",
    ];
    for (path, text) in core().into_iter().filter(|(path, _)| !path.starts_with("postgres/")) {
        for line in lines(&text) {
            assert!(!SQL.iter().any(|word| line.contains(word)), "{path}: {line}");
        }
    }
}

#[test]
fn the_cluster_is_spoken_to_in_three_places() {
    let speaks = |path: &str| path.ends_with("kubernetes.rs") || path.starts_with("kubernetes/");
    for (path, text) in core().into_iter().filter(|(path, _)| !speaks(path)) {
        for line in lines(&text) {
            // What a deploy or a schedule wants to be there is written in the API's own types.
            let types = (path.starts_with("deploy") || path.starts_with("schedule")) && !line.contains("kube::");
            assert!(types || !line.contains("kube::") && !line.contains("k8s_openapi"), "{path}: {line}");
        }
    }
}

#[test]
fn arrows_point_down() {
    /// Layer by layer; a file may use its own layer and those before.
    const LAYERS: [&[&str]; 4] = [
        &["error", "change", "names", "adoption", "app", "mark", "copy_mark", "password", "file", "home"],
        &["connection", "kubernetes", "secrets", "credentials", "postgres", "local", "pool"],
        &["server", "environment"],
        &["provision", "deploy", "backup", "schedule"],
    ];
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    for (path, text) in core() {
        let module = path.split(['/', '.']).next().unwrap();
        let Some(own) = layer(module) else {
            assert_eq!(module, "lib", "{path} belongs to no layer");
            continue;
        };
        for line in lines(&text) {
            let Some(used) = line.split("crate::").nth(1).and_then(|rest| rest.split([':', ';', ' ', '{']).next())
            else {
                continue;
            };
            assert!(layer(used).is_none_or(|used| used <= own), "{path} uses {used}: {line}");
        }
    }
}

#[test]
fn the_library_neither_prints_nor_reads_the_environment() {
    /// What stands behind `ConnectionConfig::from_env`, `Environments::from_env` and `LocalHome::from_env`.
    const FROM_ENV: [&str; 6] = [
        "backup/store.rs",
        "connection/environment.rs",
        "environment/file.rs",
        "environment/location.rs",
        "home.rs",
        "local/home.rs",
    ];
    for (path, text) in core() {
        for line in lines(&text) {
            for word in ["println!", "eprintln!", "dbg!", "static mut", "unsafe "] {
                assert!(!line.contains(word), "{path}: {line}");
            }
        }
        let reads = lines(&text).any(|line| line.contains("env::var"));
        assert!(!reads || FROM_ENV.contains(&path.as_str()), "{path} reads the environment");
    }
}

#[test]
fn files_are_small_and_named_after_a_noun() {
    for (path, text) in files(&[".rs"]) {
        let count = code(&text).lines().count();
        // A suite file holds one behaviour, however many cases that has.
        let most =
            if path.starts_with("tests/suite/") || TESTS.iter().any(|test| path.ends_with(test)) { 560 } else { 460 };
        assert!(count <= most, "{path} has {count} lines");
        for banned in ["utils", "util", "helpers", "common", "types", "prelude", "misc"] {
            assert!(!path.split(['/', '.']).any(|part| part == banned), "{path}");
        }
    }
}

#[test]
fn nothing_is_put_off() {
    let own = "tests/suite/tidy.rs";
    for (path, text) in files(&[".rs", ".py", ".sh", ".toml", ".md", "quickstart", "test", "run"]) {
        if path == own {
            continue;
        }
        for word in ["#[ignore", "TODO", "FIXME", "todo!(", "unimplemented!(", "assert!(true)", "thread::sleep"] {
            assert!(!text.contains(word), "{path}: {word}");
        }
    }
}

#[test]
fn every_suite_file_is_part_of_the_suite() {
    let main = fs::read_to_string(root().join("tests/suite/main.rs")).unwrap();
    for entry in fs::read_dir(root().join("tests/suite")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let module = name.trim_end_matches(".rs");
        assert!(module == "main" || main.contains(&format!("mod {module};")), "{name} is forgotten");
    }
}

#[test]
fn fronts_know_only_core() {
    for member in ["shareddb-cli", "shareddb-py"] {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        for dependency in ["kube", "tokio-postgres", "object_store"] {
            assert!(!manifest.lines().any(|line| line.starts_with(dependency)), "{member} depends on {dependency}");
        }
    }
}

#[test]
fn there_is_one_tls_provider() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = run(Command::new(cargo).current_dir(root()).args([
        "tree",
        "--workspace",
        "--locked",
        "--offline",
        "--prefix",
        "none",
        "--edges",
        "all",
    ]))
    .expect_code(0);
    let has = |name: &str| output.stdout.lines().any(|line| line.starts_with(&format!("{name} v")));
    assert!(has("aws-lc-rs") && !has("ring"), "two providers make rustls panic");
}

#[test]
fn an_app_with_a_pool_compiles_little() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = run(Command::new(cargo).current_dir(root()).args([
        "tree",
        "-p",
        "shareddb-core",
        "--no-default-features",
        "--features",
        "pool",
        "--locked",
        "--offline",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ]))
    .expect_code(0);
    let lines: std::collections::BTreeSet<&str> = output.stdout.lines().collect();
    assert!(lines.len() <= 115, "{} lines", lines.len());
    for heavy in ["kube", "k8s-openapi", "object_store", "toml"] {
        assert!(!lines.iter().any(|line| line.starts_with(&format!("{heavy} v"))), "{heavy}");
    }
}
