//! Deploys a server with TLS and kills itself with SIGKILL at one event: `deploy-and-die KUBECONFIG NAMESPACE NUMBER`.
//!
//! Exits with 0 when there were fewer events than NUMBER.
#![allow(clippy::expect_used, reason = "a helper of tests")]

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use shareddb_core::{DeployEvent, Deployer, Environments, ServerSpec};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kubeconfig, namespace, number] = arguments.as_slice() else { panic!("KUBECONFIG NAMESPACE NUMBER") };
    let number: usize = number.parse().expect("NUMBER");
    let environments = Environments::parse("", |_| None).expect("nothing is wrong with nothing");
    let environment = environments.environment(&"stage".parse().expect("a name")).expect("it needs no file");
    let environment = environment.with_kubeconfig(kubeconfig).expect("it is in a cluster");
    let environment = environment.with_namespace(namespace.parse().expect("NAMESPACE")).expect("it is in a cluster");
    let events = AtomicUsize::new(0);
    let deployer = Deployer::new(&environment).await.expect("KUBECONFIG").on_event(move |event| {
        if matches!(event, DeployEvent::Applied(_)) && events.fetch_add(1, Ordering::Relaxed) == number {
            kill_process(getpid(), Signal::KILL).expect("we may kill ourselves");
        }
    });
    let mut spec = ServerSpec::default();
    spec.tls = Some(true);
    deployer.deploy(&spec).await.expect("an undisturbed run succeeds");
}
