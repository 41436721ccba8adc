//! A pod that runs to its end, done on this machine: its containers one after the other, as a kubelet starts them, with the
//! command, the variables, the files and the account that it gives them.
//!
//! Two things are other than in a cluster: how the account's token is found, since its place in a pod is a fixed one, and that the
//! Service's name leads nowhere here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec, Secret};
use kube::api::Api;
use kube::{Client, ResourceExt as _};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::command::{Output, program, run};
use crate::kubeconfig::Credential;

/// What one container left behind.
#[derive(Debug)]
pub struct Errand {
    /// The container's name.
    pub container: String,
    /// How it ended.
    pub output: Output,
}

/// Runs what a pod is made of: its init containers, and its container if these have ended well. `port` is where the server
/// behind the namespace's Service listens on this machine.
pub async fn run_pod(cluster: &Cluster, pod: &Pod, port: u16) -> Vec<Errand> {
    let root = TempDir::new().expect("a folder");
    let spec = pod.spec.clone().expect("a pod has a spec");
    let namespace = pod.namespace().expect("a pod has a namespace");
    let client = cluster.client().await;
    mount(&client, &namespace, &spec, root.path(), port).await;
    let account = spec.service_account_name.as_deref().expect("it has an account of its own");
    let token = cluster.token(&namespace, account, 3600).await;
    let kubeconfig = cluster.kubeconfig_of(account, &namespace, Credential::Token(token));
    let mut done = Vec::new();
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let mut command = command(&client, &namespace, container, root.path()).await;
        command.env("KUBECONFIG", &kubeconfig);
        let output = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it is not aborted");
        let ended_well = output.code == Some(0);
        done.push(Errand { container: container.name.clone(), output });
        if !ended_well {
            break;
        }
    }
    done
}

/// A path of the pod as it is on this machine.
fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Every volume, wherever a container has it.
async fn mount(client: &Client, namespace: &str, spec: &PodSpec, root: &Path, port: u16) {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    for mount in containers.flat_map(|container| container.volume_mounts.iter().flatten()) {
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let volume = volume.unwrap_or_else(|| panic!("volume {} is mounted and not there", mount.name));
        let folder = inside(root, &mount.mount_path);
        fs::create_dir_all(&folder).expect("the folder is ours");
        let Some(map) = &volume.config_map else { continue };
        assert_eq!(mount.read_only, Some(true), "{}", mount.name);
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let found = maps.get(&map.name).await.unwrap_or_else(|error| panic!("{}: {error}", map.name));
        for (name, text) in found.data.into_iter().flatten() {
            // The last lines are those of the environment.
            fs::write(folder.join(name), format!("{text}hostaddr = \"127.0.0.1:{port}\"\n")).expect("a disk with room");
        }
    }
}

/// One container's process: nothing of this program's surroundings but where programs are found.
async fn command(client: &Client, namespace: &str, container: &Container, root: &Path) -> Command {
    let words = container.command.as_deref().unwrap_or_default();
    let [name] = words else { panic!("{words:?} is no program") };
    let mut command = Command::new(program(name));
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.envs(variables(client, namespace, container, root).await).env("TMPDIR", inside(root, "/tmp"));
    command.current_dir(inside(root, container.working_dir.as_deref().unwrap_or("/")));
    command.args(container.args.iter().flatten());
    command
}

async fn variables(
    client: &Client,
    namespace: &str,
    container: &Container,
    root: &Path,
) -> BTreeMap<String, std::ffi::OsString> {
    let mut variables = BTreeMap::new();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for set in container.env_from.iter().flatten().filter_map(|set| set.secret_ref.as_ref()) {
        let secret = secrets.get(&set.name).await.unwrap_or_else(|error| panic!("{}: {error}", set.name));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("a variable is text");
        variables.extend(secret.data.into_iter().flatten().map(|(name, value)| (name, text(value.0).into())));
    }
    for variable in container.env.iter().flatten() {
        let value = variable.value.clone().unwrap_or_default();
        let is_path = value.starts_with('/');
        let value = if is_path { inside(root, &value).into_os_string() } else { value.into() };
        variables.insert(variable.name.clone(), value);
    }
    variables
}
