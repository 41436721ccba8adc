//! Changes an app and kills itself with SIGKILL at one event: `provision-and-die APP create|adopt|drop|rotate|rotate-now NUMBER`,
//! in the environment that the environment's variables choose.
//!
//! Exits with 0 when there were fewer events than NUMBER.
#![allow(clippy::expect_used, reason = "a helper of tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use shareddb_core::{Adopt, AppName, AppSpec, Environments, Provisioner, RotateOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, app, verb, number] = arguments.as_slice() else { panic!("APP create|adopt|drop|rotate|rotate-now NUMBER") };
    let (app, number): (AppName, usize) = (app.parse().expect("APP"), number.parse().expect("NUMBER"));
    let environments = Environments::from_env().expect("a file without faults");
    let environment = environments.chosen().and_then(|name| environments.environment(&name)).expect("an environment");
    let events = AtomicUsize::new(0);
    let provisioner = Provisioner::new(environment.connect().await.expect("a server")).on_event(move |_| {
        if events.fetch_add(1, Ordering::Relaxed) == number {
            kill_process(getpid(), Signal::KILL).expect("we may kill ourselves");
        }
    });
    let result = match verb.as_str() {
        "create" => provisioner.create(&AppSpec::new(app)).await,
        "adopt" => {
            let mut spec = AppSpec::new(app);
            spec.adopt = Some(Adopt::default());
            provisioner.create(&spec).await
        }
        "rotate" | "rotate-now" => {
            let mut options = RotateOptions::default();
            options.grace = Duration::ZERO;
            options.now = verb == "rotate-now";
            provisioner.rotate(&app, &options).await
        }
        _ => provisioner.drop(&app, app.as_str()).await,
    };
    result.expect("an undisturbed run succeeds");
}
