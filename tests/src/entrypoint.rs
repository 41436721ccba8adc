//! The server that the deployed objects make: what a kubelet and the image's entrypoint would do with a pod, done on this
//! machine, with the programs of PostgreSQL that are here.
//!
//! A pod is not ready before its server is about to start, and its server ends with it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::command::run;
use crate::container::{Container, data_folder};
use crate::live_cluster::LiveCluster;
use crate::majors::Account;
use crate::picture::{PICTURE, Picture};
use crate::reaper::Reaper;
use crate::server::temporary_home;

/// How often the pods are looked at.
const PULSE: Duration = Duration::from_millis(50);

/// What the image's entrypoint does.
const SCRIPT: &str = include_str!("entrypoint.sh");

/// The server behind the pods of a namespace: there is one while there is a pod labelled `app: postgres`. Its data are kept by
/// claim, from pod to pod.
#[derive(Debug)]
pub struct Entrypoint {
    home: PathBuf,
    port: u16,
    kubelet: JoinHandle<()>,
    running: Arc<Mutex<Option<Child>>>,
    _reaper: Reaper,
}

impl Entrypoint {
    /// Serves the pods that there are and those that come. Commands in them find the server as in the pod: by its socket.
    pub async fn serve(live: &LiveCluster, namespace: &str) -> Self {
        let home = temporary_home();
        let reaper = Reaper::over(&home, &["postmaster.pid", "server.pid"]);
        let (port, running) = (free_port(), Arc::new(Mutex::new(None)));
        live.show(namespace, &Picture::NotReady).await;
        live.forward(namespace, 5432, port).await;
        let (sockets, port_text) = (sockets(&home), port.to_string());
        let sockets = sockets.to_str().expect("the home's name is text");
        live.exec(namespace, &[("PGHOST", sockets), ("PGPORT", &port_text)]).await;
        let node = Node {
            client: live.cluster().client().await,
            namespace: namespace.to_owned(),
            home: home.clone(),
            port,
            running: Arc::clone(&running),
        };
        Self { home, port, kubelet: tokio::spawn(node.watch()), running, _reaper: reaper }
    }

    /// Where the server listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its socket.
    pub fn sockets(&self) -> PathBuf {
        sockets(&self.home)
    }

    /// What the server and its start have written, of all pods so far.
    pub fn log(&self) -> String {
        fs::read(self.home.join("log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// A data directory, as it stands on this machine, by its path on the volume of a claim.
    pub fn data(&self, claim: &str, path: &str) -> PathBuf {
        data_folder(&self.home, claim).join(path)
    }
}

impl Drop for Entrypoint {
    fn drop(&mut self) {
        self.kubelet.abort();
        stop(&self.running);
    }
}

/// A port that nobody listens on, and that no other server of this program is going to. The system hands none of these out.
fn free_port() -> u16 {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut taken = TAKEN.lock().expect("nobody panics with it");
    let is_free = |port: &u16| !taken.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let begin = 10_000 + u16::try_from(std::process::id() % 9_000).expect("a remainder");
    let port = (begin..20_000).chain(10_000..begin).find(is_free).expect("a free port");
    taken.insert(port);
    port
}

fn sockets(home: &Path) -> PathBuf {
    home.join("root/var/run/postgresql")
}

/// As the image's stop signal does it: sessions end, the data are whole.
fn stop(running: &Mutex<Option<Child>>) {
    let Some(mut child) = running.lock().expect("nobody panics with it").take() else { return };
    let process = Pid::from_raw(i32::try_from(child.id()).expect("a process id")).expect("it is not 0");
    // One that has ended by itself is as good.
    let _ = kill_process(process, Signal::INT);
    child.wait().expect("it is our child");
}

async fn is_ready(port: u16) -> bool {
    let mut probe = Command::new("pg_isready");
    probe.args(["--quiet", "--host=127.0.0.1", &format!("--port={port}")]);
    spawn_blocking(move || run(&mut probe).code == Some(0)).await.expect("it does not panic")
}

/// The node of one namespace.
struct Node {
    client: Client,
    namespace: String,
    home: PathBuf,
    port: u16,
    running: Arc<Mutex<Option<Child>>>,
}

impl Node {
    /// While the API server is away, what runs goes on.
    async fn watch(self) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut served: Option<String> = None;
        loop {
            tokio::time::sleep(PULSE).await;
            let Ok(found) = pods.list(&ListParams::default().labels("app=postgres")).await else { continue };
            let runs = |pod: &&Pod| {
                pod.metadata.deletion_timestamp.is_none()
                    && pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
            };
            let pod = found.iter().filter(runs).max_by_key(|pod| pod.metadata.creation_timestamp.clone());
            if pod.and_then(Pod::uid) == served {
                continue;
            }
            let running = Arc::clone(&self.running);
            spawn_blocking(move || stop(&running)).await.expect("it does not panic");
            served = None;
            let Some(pod) = pod else { continue };
            if self.start(pod).await && self.tell_ready(&pods, pod).await {
                served = pod.uid();
            }
        }
    }

    /// Whether the server is on its way. A file that is not there yet is waited for, as by a kubelet.
    async fn start(&self, pod: &Pod) -> bool {
        let Some(container) = Container::lay_out(&self.client, pod, &self.home).await else { return false };
        let log = File::options().create(true).append(true).open(self.home.join("log")).expect("the home is ours");
        let link = self.home.join("postmaster.pid");
        let _ = fs::remove_file(&link);
        symlink(container.data.join("postmaster.pid"), link).expect("the home is ours");
        let mut command = Command::new("bash");
        if let Account(Some((user, group))) = Account::of_servers() {
            command.uid(user).gid(group);
        }
        let path = format!("{}:/usr/bin:/bin", container.programs.display());
        // The image's locale, by the name that glibc has for it.
        command.env_clear().env("PATH", path).env("LANG", "C.UTF-8").envs(&container.variables);
        command.env("PGPORT", self.port.to_string()).env("SOCKETS", sockets(&self.home)).env("PGDATA", &container.data);
        command.args(["-c", SCRIPT, "entrypoint"]).args(&container.args).current_dir("/");
        let output = log.try_clone().expect("a second handle");
        command.stdin(Stdio::null()).stdout(output).stderr(log).process_group(0);
        let child = command.spawn().expect("bash is there");
        fs::write(self.home.join("server.pid"), child.id().to_string()).expect("the home is ours");
        *self.running.lock().expect("nobody panics with it") = Some(child);
        true
    }

    async fn tell_ready(&self, pods: &Api<Pod>, pod: &Pod) -> bool {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { PICTURE: null } } }));
        // As the probe does it: over TCP, where the entrypoint's own server does not listen.
        while !is_ready(self.port).await && self.is_alive() {
            tokio::time::sleep(PULSE).await;
        }
        pods.patch(&pod.name_any(), &PatchParams::default(), &patch).await.is_ok()
    }

    fn is_alive(&self) -> bool {
        let mut running = self.running.lock().expect("nobody panics with it");
        running.as_mut().is_some_and(|child| child.try_wait().expect("it is our child").is_none())
    }
}
