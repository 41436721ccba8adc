//! The files and the start of a pod's container, laid out in a folder of this machine as a kubelet would mount them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Pod, PodSpec, Secret, Volume, VolumeMount};
use kube::api::Api;
use kube::{Client, ResourceExt as _};

use crate::archive;
use crate::command::run;
use crate::majors::Account;

/// What is this machine's own, whatever is mounted there in a pod.
const OWN: [&str; 2] = ["/tmp", "/dev/shm"];
/// What an image has of its own where nothing is mounted.
const OF_THE_IMAGE: [&str; 2] = ["/var/run/postgresql", "/var/lib/postgresql"];
/// What a kubelet gives the files of a ConfigMap or Secret unless told otherwise.
const MODE: i32 = 0o644;

/// How a container starts.
pub(crate) struct Container {
    /// The folder with the programs of its image's major.
    pub(crate) programs: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) data: PathBuf,
}

/// Where the files of a claim are.
pub(crate) fn data_folder(home: &Path, claim: &str) -> PathBuf {
    home.join("claims").join(claim)
}

impl Container {
    /// Lays out what the first container of a pod mounts, in the folder `root` of a home. `None` when something that it needs is
    /// not there.
    pub(crate) async fn lay_out(client: &Client, pod: &Pod, home: &Path) -> Option<Self> {
        let spec = pod.spec.as_ref().expect("a pod has a spec");
        let container = &spec.containers[0];
        let ground = Ground::new(client, pod, spec, home);
        for mount in container.volume_mounts.iter().flatten() {
            ground.mount(spec.volumes.iter().flatten().find(|volume| volume.name == mount.name)?, mount).await?;
        }
        let mut variables = ground.variables(container).await?;
        let major = major(container.image.as_deref().expect("a container has an image"));
        let image_data = if major < 18 {
            "/var/lib/postgresql/data".to_owned()
        } else {
            format!("/var/lib/postgresql/{major}/docker")
        };
        let data = variables.remove("PGDATA").unwrap_or_else(|| ground.moved(&image_data));
        let args = container.args.clone().unwrap_or_else(|| vec!["postgres".to_owned()]);
        let mut args: Vec<String> = args.iter().map(|arg| ground.moved(arg)).collect();
        if !ground.is_mounted(OF_THE_IMAGE[0]) {
            let sockets = ground.inside(OF_THE_IMAGE[0]);
            ground.folder(&sockets, 0o777);
            args.extend(["-c".to_owned(), format!("unix_socket_directories={}", sockets.display())]);
        }
        if let Account(None) = Account::of_servers() {
            let (file, name) = (home.join("ident"), run(Command::new("id").arg("-un")).expect_code(0).stdout);
            fs::write(&file, format!("account {} postgres\n", name.trim_end())).expect("the home is ours");
            args.extend(["-c".to_owned(), format!("ident_file={}", file.display())]);
        }
        Some(Self { programs: programs(major).await, args, variables, data: data.into() })
    }
}

/// The distribution's where it has that major, since it has psql as well.
async fn programs(major: u32) -> PathBuf {
    let packaged = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    if packaged.join("initdb").exists() { packaged } else { archive::programs(major).await }
}

fn major(image: &str) -> u32 {
    let tag = image.rsplit(':').next().unwrap_or_default();
    let digits: String = tag.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("image {image} says no major"))
}

struct Ground<'a> {
    client: &'a Client,
    namespace: String,
    spec: &'a PodSpec,
    home: &'a Path,
    /// What stands in the folder instead of at its place, no one within another.
    places: Vec<String>,
}

impl<'a> Ground<'a> {
    fn new(client: &'a Client, pod: &Pod, spec: &'a PodSpec, home: &'a Path) -> Self {
        let mounts = spec.containers[0].volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str());
        let mut paths: Vec<&str> = mounts.chain(OF_THE_IMAGE).filter(|path| !OWN.contains(path)).collect();
        paths.sort_unstable();
        let mut places: Vec<String> = Vec::new();
        for path in paths {
            if places.last().is_none_or(|last| !path.starts_with(last.as_str())) {
                places.push(path.to_owned());
            }
        }
        let root = home.join("root");
        let _ = fs::remove_dir_all(&root);
        let ground = Self { client, namespace: pod.namespace().expect("a pod has one"), spec, home, places };
        ground.folder(&root, 0o755);
        ground
    }

    /// A text with every path to what is mounted as it is on this machine.
    fn moved(&self, text: &str) -> String {
        let root = self.home.join("root").display().to_string();
        let text =
            self.places.iter().fold(text.to_owned(), |text, place| text.replace(place, &format!("{root}{place}")));
        match Account::of_servers() {
            Account(Some(_)) => text,
            // The account is called `postgres` in a pod.
            Account(None) => text.replace(" peer\n", " peer map=account\n"),
        }
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.home.join("root").join(path.trim_start_matches('/'))
    }

    fn is_mounted(&self, path: &str) -> bool {
        self.spec.containers[0].volume_mounts.iter().flatten().any(|mount| mount.mount_path == path)
    }

    fn folder(&self, path: &Path, mode: u32) {
        fs::create_dir_all(path).expect("the home is ours");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    /// The pod's group, as that of the servers' account, if the pod has one.
    fn group(&self) -> Option<u32> {
        self.spec.security_context.as_ref()?.fs_group?;
        let Account(account) = Account::of_servers();
        account.map(|(_, group)| group)
    }

    async fn mount(&self, volume: &Volume, mount: &VolumeMount) -> Option<()> {
        let path = self.inside(&mount.mount_path);
        fs::create_dir_all(path.parent().expect("it is in the home")).expect("the home is ours");
        if let Some(map) = &volume.config_map {
            let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
            let data = maps.get_opt(&map.name).await.ok()??.data.unwrap_or_default();
            let files = data.into_iter().map(|(key, text)| (key, self.moved(&text).into_bytes())).collect();
            self.files(&path, &files, map.items.as_deref(), map.default_mode)?;
        } else if let Some(secret) = &volume.secret {
            let data = self.secret(secret.secret_name.as_deref()?).await?;
            self.files(&path, &data, secret.items.as_deref(), secret.default_mode)?;
        } else if let Some(claim) = &volume.persistent_volume_claim {
            let folder = data_folder(self.home, &claim.claim_name);
            fs::create_dir_all(&folder).expect("the home is ours");
            self.own_volume(&folder);
            let part = folder.join(mount.sub_path.as_deref().unwrap_or_default());
            fs::create_dir_all(&part).expect("the home is ours");
            self.own_volume(&part);
            symlink(part, path).expect("the place is free");
        } else if volume.empty_dir.is_some() && !OWN.contains(&mount.mount_path.as_str()) {
            self.folder(&path, 0o2777);
            let _ = self.group().map(|group| chown(&path, None, Some(group)).expect("root may"));
        }
        Some(())
    }

    /// A ConfigMap's or a Secret's: root's, and the pod's group can read them.
    fn files(
        &self,
        folder: &Path,
        data: &BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
    ) -> Option<()> {
        self.folder(folder, 0o755);
        let names: Vec<(&str, &str)> = match items {
            Some(items) => items.iter().map(|item| (item.key.as_str(), item.path.as_str())).collect(),
            None => data.keys().map(|key| (key.as_str(), key.as_str())).collect(),
        };
        for (key, name) in names {
            let (file, mode) = (folder.join(name), u32::try_from(mode.unwrap_or(MODE)).expect("a mode"));
            fs::write(&file, data.get(key)?).expect("the home is ours");
            let mode = match (Account::of_servers(), self.group()) {
                (Account(Some(_)), Some(group)) => {
                    chown(&file, Some(0), Some(group)).expect("root may");
                    mode | 0o440
                }
                (Account(Some(_)), None) => mode,
                // Without root, the files belong to who runs the server, who would not have them otherwise.
                (Account(None), _) => mode & 0o700,
            };
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("it is ours");
        }
        Some(())
    }

    /// With a group of the pod's, everything on a volume whose root is not of that group is given to it, and may be written
    /// by it. Without, the entrypoint begins as root, and gives the folder to its user.
    fn own_volume(&self, folder: &Path) {
        let Account(Some((user, _))) = Account::of_servers() else { return };
        let Some(group) = self.group() else { return chown(folder, Some(user), None).expect("root may") };
        let is_so = fs::metadata(folder).is_ok_and(|meta| {
            use std::os::unix::fs::MetadataExt as _;
            meta.gid() == group && meta.mode() & 0o2770 == 0o2770
        });
        if !is_so {
            widen(folder, group);
        }
    }

    async fn secret(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let data = secrets.get_opt(name).await.ok()??.data.unwrap_or_default();
        Some(data.into_iter().map(|(key, value)| (key, value.0)).collect())
    }

    async fn map(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let data = maps.get_opt(name).await.ok()??.data.unwrap_or_default();
        Some(data.into_iter().map(|(key, value)| (key, value.into_bytes())).collect())
    }

    /// The environment: whole sets first, and single variables over them.
    async fn variables(&self, container: &k8s_openapi::api::core::v1::Container) -> Option<BTreeMap<String, String>> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a variable is text");
        let mut variables = BTreeMap::new();
        for set in container.env_from.iter().flatten() {
            let data = match (&set.secret_ref, &set.config_map_ref) {
                (Some(secret), _) => self.secret(&secret.name).await?,
                (None, Some(map)) => self.map(&map.name).await?,
                (None, None) => continue,
            };
            let prefix = set.prefix.clone().unwrap_or_default();
            variables.extend(data.iter().map(|(key, value)| (format!("{prefix}{key}"), text(value))));
        }
        for variable in container.env.iter().flatten() {
            let from = variable.value_from.as_ref();
            let value = if let Some(secret) = from.and_then(|from| from.secret_key_ref.as_ref()) {
                text(self.secret(&secret.name).await?.get(&secret.key)?)
            } else if let Some(map) = from.and_then(|from| from.config_map_key_ref.as_ref()) {
                text(self.map(&map.name).await?.get(&map.key)?)
            } else {
                variable.value.clone().unwrap_or_default()
            };
            variables.insert(variable.name.clone(), value);
        }
        Some(variables.into_iter().map(|(name, value)| (name, self.moved(&value))).collect())
    }
}

/// Links are left alone.
fn widen(path: &Path, group: u32) {
    let meta = fs::symlink_metadata(path).expect("it is there");
    if meta.is_symlink() {
        return;
    }
    chown(path, None, Some(group)).expect("root may");
    let more = if meta.is_dir() { 0o2770 } else { 0o660 };
    let mode = fs::Permissions::from_mode(meta.permissions().mode() & 0o7777 | more);
    fs::set_permissions(path, mode).expect("root may");
    if meta.is_dir() {
        fs::read_dir(path).expect("root may").for_each(|entry| widen(&entry.expect("an entry").path(), group));
    }
}
