//! Environments as people name them: namespaces, plain servers, flags, a pod.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use shareddb_core::{ConnectionConfig, SecretStore as _};
use shareddb_tests::access::rule;
use shareddb_tests::cluster::Cluster;
use shareddb_tests::command::{Output, program, run, shareddb_command};
use shareddb_tests::mount::{mount_at, mounted};
use shareddb_tests::server::{password, temporary_home, value};
use shareddb_tests::{TestServer, kubeconfig};

use crate::kubernetes_store::{secrets, store};

/// Two servers, each with a namespace that holds its admin's Secret, and a file that names both.
struct Estate {
    cluster: &'static Cluster,
    servers: [TestServer; 2],
    namespaces: [String; 2],
    home: PathBuf,
}

impl Estate {
    async fn new() -> Self {
        let cluster = Cluster::shared().await;
        let servers = [TestServer::start().await, TestServer::start().await];
        let namespaces = [cluster.namespace("production").await, cluster.namespace("stage").await];
        let home = servers[0].home().join("user");
        fs::create_dir(&home).unwrap();
        let mut text = String::new();
        for (name, (server, namespace)) in ["production", "stage"].iter().zip(servers.iter().zip(&namespaces)) {
            let admin = server.admin();
            admin_secret(cluster, namespace, "postgres-admin", &admin, ["username", "password"]).await;
            text += &format!("[env.{name}]\nnamespace = '{namespace}'\nhostaddr = '127.0.0.1:{}'\n", admin.port());
        }
        fs::write(home.join("config.toml"), text).unwrap();
        Self { cluster, servers, namespaces, home }
    }

    fn command(&self) -> Command {
        let mut command = shareddb_command(&self.home);
        command.current_dir(&self.home).env("KUBECONFIG", self.cluster.kubeconfig());
        command
    }

    fn run(&self, line: &str) -> Output {
        run(self.command().args(line.split_whitespace()))
    }
}

async fn admin_secret(cluster: &Cluster, namespace: &str, name: &str, admin: &ConnectionConfig, keys: [&str; 2]) {
    let [user, word] = keys;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": name},
        // As from a file that an editor has ended with a newline.
        "stringData": {user: format!("{}\n", admin.user()), word: format!("{}\n", password(admin))},
    }))
    .unwrap();
    secrets(cluster, namespace).await.create(&PostParams::default(), &secret).await.unwrap();
}

#[tokio::test]
async fn the_same_app_in_production_and_in_stage() {
    let estate = Estate::new().await;
    for (env, namespace) in ["production", "stage"].iter().zip(&estate.namespaces) {
        let made = estate.run(&format!("create myapp -e {env}")).expect_code(0);
        assert_eq!(made.stdout, "app/myapp created\n");
        let host = format!("postgres-service.{namespace}.svc.cluster.local");
        let place = format!("env {env} · context admin · namespace {namespace} · {host}:5432 by way of 127.0.0.1:");
        assert!(made.stderr.starts_with(&place), "{}", made.stderr);
        assert!(made.stderr.contains(&format!("shareddb psql myapp -e {env}\n")), "{}", made.stderr);
        assert_eq!(estate.run(&format!("create myapp -e {env}")).expect_code(0).stdout, "app/myapp unchanged\n");

        let keys: Value =
            serde_json::from_str(&estate.run(&format!("env myapp -e {env} --format json")).expect_code(0).stdout)
                .unwrap();
        let found = ["DB_HOST", "DB_PORT", "DB_NAME", "DB_USER"].map(|key| keys[key].as_str().unwrap());
        assert_eq!(found, [host.as_str(), "5432", "myapp_db", "myapp_user"]);
        let user = estate.run(&format!("psql myapp -e {env} -- -Atc select(session_user)")).expect_code(0);
        assert_eq!(user.stdout, "myapp_user\n");
        assert!(estate.run(&format!("list -e {env}")).expect_code(0).stdout.contains("myapp"));
        assert!(estate.run(&format!("status myapp -e {env}")).expect_code(0).stdout.contains(namespace));
    }
    let word = |env: &str| estate.run(&format!("env myapp -e {env} --key DB_PASSWORD")).expect_code(0).stdout;
    assert_ne!(word("production"), word("stage"));
    // They know of each other only by name.
    estate.run("drop myapp -e stage --no-backup --confirm myapp").expect_code(0);
    assert_eq!(estate.run("create myapp -e production").expect_code(0).stdout, "app/myapp unchanged\n");
    let gone = estate.run("env myapp -e stage");
    assert_eq!(gone.code, Some(4), "{}", gone.stderr);
    let catalog = estate.servers[1].catalog().await;
    assert!(!catalog.iter().any(|line| line.contains("myapp")), "{catalog:?}");
}

#[tokio::test]
async fn the_secret_serves_a_deployment_and_a_service_binding() {
    let estate = Estate::new().await;
    estate.run("create myapp -e production").expect_code(0);
    let store = store(&estate.cluster.kubeconfig(), &estate.namespaces[0]).await;
    let data = store.load(&"myapp-db-secret".parse().unwrap()).await.unwrap().unwrap().data;
    // The guide's Deployment: DATABASE_HOST from the key DB_HOST, and so on.
    let variable = |name: &str| {
        let key = name.strip_prefix("DATABASE_").filter(|key| *key != "URL")?;
        data.get(&format!("DB_{key}")).map(|value| value.expose_secret().to_owned())
    };
    let by_variables = ConnectionConfig::from_vars(variable).unwrap();
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("db")).unwrap();
    mount_at(&data, &root.path().join("db"));
    let path = root.path().to_str().unwrap().to_owned();
    let by_binding =
        ConnectionConfig::from_vars(|name| (name == "SERVICE_BINDING_ROOT").then(|| path.clone())).unwrap();
    let by_mount = ConnectionConfig::from_directory(mounted(&data).path()).unwrap();
    let port = estate.servers[0].admin().port();
    for config in [by_variables, by_binding, by_mount] {
        assert_eq!(config.host(), format!("postgres-service.{}.svc.cluster.local", estate.namespaces[0]));
        // What the cluster's DNS and network would do.
        let session = config.with_hostaddr("127.0.0.1".parse().unwrap()).with_port(port).connect().await.unwrap();
        assert_eq!(value(&session, "SELECT current_user").await, "myapp_db");
    }
}

#[tokio::test]
async fn what_is_missing_in_a_namespace_is_named() {
    let estate = Estate::new().await;
    let [_, stage] = &estate.namespaces;
    let command = |line: &str| estate.run(line);
    let missing = command("create myapp -e production -n no-such");
    assert_eq!(missing.code, Some(4), "{}", missing.stderr);
    assert!(missing.stderr.contains("secret/postgres-admin in namespace no-such"), "{}", missing.stderr);
    let wrong = command("create myapp -e production --context wrong");
    assert_eq!(wrong.code, Some(4), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("no context \"wrong\"") && wrong.stderr.contains("admin"), "{}", wrong.stderr);
    let nothing = command("list --context admin -e local");
    assert_eq!(nothing.code, Some(2), "{}", nothing.stderr);
    let unknown = command("list -e elsewhere");
    assert_eq!(unknown.code, Some(4), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("production, stage"), "{}", unknown.stderr);

    // The way to the server of one namespace is none to that of another.
    let moved = command(&format!("list -e production -n {stage} --timeout 20s"));
    assert_eq!(moved.code, Some(4), "{}", moved.stderr);
    assert!(moved.stderr.contains(&format!("no service/postgres-service in namespace {stage}")), "{}", moved.stderr);

    // Without an address the host of a Service means nothing outside a cluster, and here there is none.
    fs::write(estate.home.join("config.toml"), format!("[env.stage]\nnamespace = '{stage}'\n")).unwrap();
    let away = command("list -e stage --timeout 20s");
    assert_eq!(away.code, Some(4), "{}", away.stderr);
    assert!(away.stderr.contains("shareddb deploy -e stage"), "{}", away.stderr);

    // A namespace from a flag, an admin's Secret by another name.
    let admin = estate.servers[1].admin();
    admin_secret(estate.cluster, stage, "db-root", &admin, ["user", "secret-word"]).await;
    let text = format!(
        "default = 'shop'\n[env.shop]\nnamespace = '{stage}'\nhostaddr = '127.0.0.1:{}'\nprotected = true\n\
         admin_password_secret = 'db-root'\n",
        admin.port()
    );
    fs::write(estate.home.join("config.toml"), &text).unwrap();
    let keyless = command("list");
    assert_eq!(keyless.code, Some(4), "{}", keyless.stderr);
    assert!(keyless.stderr.contains("it has secret-word, user"), "{}", keyless.stderr);
    fs::write(estate.home.join("config.toml"), text.replace("'db-root'", "'db-root/secret-word'")).unwrap();
    // The same namespace in a flag is no move.
    command(&format!("create myapp -n {stage}")).expect_code(0);
    let refused = command("drop myapp --no-backup");
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    assert!(refused.stderr.contains("shop is protected"), "{}", refused.stderr);
}

#[tokio::test]
async fn a_plain_server_by_its_url() {
    let server = TestServer::start().await;
    let admin = server.admin();
    let home = temporary_home();
    let url = format!("postgresql://{}@127.0.0.1:{}/postgres", admin.user(), admin.port());
    let file = home.join("word");
    fs::write(&file, format!("{}\n", password(&admin))).unwrap();
    fs::write(
        home.join("shareddb.toml"),
        format!(
            "default = 'shop'\n[env.shop]\nadmin_url = '{url}'\nadmin_password_file = 'word'\nstore = 'dir:secrets'\n\
             host = 'db.example'\nport = 5433\n[env.other]\nadmin_url = '{url}'\nadmin_password_env = 'WORD'\n"
        ),
    )
    .unwrap();
    let below = home.join("a/b");
    fs::create_dir_all(&below).unwrap();
    let run_in = |line: &str, word: Option<&str>| {
        let mut command = shareddb_command(&home.join("elsewhere"));
        command.current_dir(&below).args(line.split_whitespace()).env_remove("WORD");
        if let Some(word) = word {
            command.env("WORD", word);
        }
        run(&mut command)
    };
    let made = run_in("create myapp", None).expect_code(0);
    assert!(made.stderr.starts_with("env shop · db.example:5433"), "{}", made.stderr);
    assert_eq!(fs::read_to_string(home.join("secrets/myapp-db-secret/DB_HOST")).unwrap(), "db.example");
    assert_eq!(fs::read_to_string(home.join("secrets/myapp-db-secret/DB_PORT")).unwrap(), "5433");
    assert_eq!(run_in("create myapp", None).expect_code(0).stdout, "app/myapp unchanged\n");
    assert_eq!(run_in("psql myapp -- -Atc select(1)", None).expect_code(0).stdout, "1\n");

    let unset = run_in("list -e other", None);
    assert_eq!(unset.code, Some(4), "{}", unset.stderr);
    assert!(unset.stderr.contains("WORD"), "{}", unset.stderr);
    run_in("list -e other", Some(&password(&admin))).expect_code(0);
    let wrong = run_in("list -e other", Some("wrong"));
    assert_eq!(wrong.code, Some(1), "{}", wrong.stderr);
    run_in("create third -e other", Some(&password(&admin))).expect_code(0);
    assert!(home.join("elsewhere/other/secrets/third-db-secret/DB_HOST").exists());
    // A mistake in the file is told with its place, and stops every command.
    fs::write(home.join("shareddb.toml"), "[env.shop]\nadmin_url = 'x'\nnonsense = 1\n").unwrap();
    let invalid = run_in("list", None);
    assert_eq!(invalid.code, Some(2), "{}", invalid.stderr);
    assert!(invalid.stderr.contains("shareddb.toml") && invalid.stderr.contains("line 3"), "{}", invalid.stderr);
    fs::remove_dir_all(&home).unwrap();
}

#[tokio::test]
async fn a_pod_acts_as_its_service_account() {
    let estate = Estate::new().await;
    let namespace = &estate.namespaces[0];
    let verbs = ["get", "create", "update", "delete"];
    estate.cluster.service_account(namespace, "provisioner", &[rule(&["secrets"], &verbs)]).await;
    let account = estate.home.join("account");
    fs::create_dir(&account).unwrap();
    let token = estate.cluster.token(namespace, "provisioner", 600).await;
    fs::write(account.join("token"), token).unwrap();
    fs::write(account.join("namespace"), namespace).unwrap();
    fs::write(account.join("ca.crt"), estate.cluster.certificate()).unwrap();
    let pod = |line: &str| in_pod(&estate, &account, line);
    let made = pod("create myapp -e production").expect_code(0);
    assert!(made.stderr.contains(&format!("context in-cluster · namespace {namespace}")), "{}", made.stderr);
    let forbidden = pod("create myapp -e stage");
    assert_eq!(forbidden.code, Some(1), "{}", forbidden.stderr);
    assert!(forbidden.stderr.contains("cannot get secrets in namespace"), "{}", forbidden.stderr);
    // Whoever names a context does not mean the pod's account.
    assert_eq!(pod("list -e production --context admin").code, Some(4));
}

/// Runs the command where kubelet has mounted a service account: in mounts of its own, or, in a chroot, which cannot have
/// them and is no pod either, in the place itself.
fn in_pod(estate: &Estate, account: &Path, line: &str) -> Output {
    let place = "mkdir -p /run/secrets/kubernetes.io && cp -r \"$0\" /run/secrets/kubernetes.io/serviceaccount";
    let separate = run(Command::new("mountpoint").args(["-q", "/"])).code == Some(0);
    let script = match separate {
        true => format!("mount -t tmpfs none /run && {place} && exec \"$@\""),
        false => format!("test ! -e /run/secrets && trap 'rm -r /run/secrets' EXIT && {place} && \"$@\""),
    };
    let url = estate.cluster.url();
    let (host, port) = url.strip_prefix("https://").unwrap().split_once(':').unwrap();
    let mut command = Command::new(if separate { "unshare" } else { "env" });
    command.args(separate.then_some("--mount")).args(["sh", "-c", &script]).arg(account).arg(program("shareddb"));
    command.args(line.split_whitespace()).current_dir(&estate.home);
    command.env("SHAREDDB_HOME", &estate.home).env("HOME", &estate.home).env_remove("KUBECONFIG");
    command.env("KUBERNETES_SERVICE_HOST", host).env("KUBERNETES_SERVICE_PORT", port);
    run(&mut command)
}

#[tokio::test]
async fn an_expired_token_and_an_api_that_is_away() {
    let estate = Estate::new().await;
    let namespace = &estate.namespaces[0];
    estate.cluster.service_account(namespace, "robot", &[]).await;
    let token = estate.cluster.token(namespace, "robot", -120).await;
    let expired = estate.cluster.kubeconfig_of("robot", namespace, kubeconfig::Credential::Token(token));
    let refused = run(estate.command().args(["create", "myapp", "-e", "production", "--kubeconfig"]).arg(expired));
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("log in to the cluster again"), "{}", refused.stderr);

    let away = kubeconfig::Kubeconfig {
        context: "away",
        server: "http://127.0.0.1:1",
        authority: None,
        namespace,
        credential: kubeconfig::Credential::Anonymous,
    };
    let path = estate.home.join("away");
    away.write(&path);
    let unreachable = run(estate.command().args(["list", "-e", "production", "--kubeconfig"]).arg(&path));
    assert_eq!(unreachable.code, Some(6), "{}", unreachable.stderr);
    assert!(unreachable.stderr.contains("context away"), "{}", unreachable.stderr);
}

#[tokio::test]
async fn a_file_of_somebody_else_is_not_followed() {
    let home = temporary_home();
    let file = home.join("shareddb.toml");
    fs::write(&file, "default = 'shop'\n[env.shop]\nadmin_url = 'postgresql://a@127.0.0.1:1/d'\nstore = 'dir:s'\n")
        .unwrap();
    let list = || run(shareddb_command(&home.join("h")).current_dir(&home).args(["list", "--timeout", "10s"]));
    assert_eq!(list().code, Some(6), "ours is followed");
    let nobody = fs::metadata(&file).unwrap().uid() + 12_345;
    std::os::unix::fs::chown(&file, Some(nobody), None).unwrap();
    let refused = list();
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    assert!(refused.stderr.contains("belongs to another user"), "{}", refused.stderr);
    std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(list().stderr.contains("everybody may write it"));
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    assert_ne!(list().code, Some(0), "a link that leads nowhere");
    fs::remove_dir_all(&home).unwrap();
}
