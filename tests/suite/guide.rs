//! Every kubectl line of the guide for people who share a server finds what it names after `shareddb deploy`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use serde_json::json;
use shareddb_tests::cluster::programs;
use shareddb_tests::command::{Output, run};
use shareddb_tests::server::temporary_home;
use shareddb_tests::watch::eventually;
use shareddb_tests::{Entrypoint, LiveCluster};

use crate::deployed::Site;

/// Somebody at a shell, with kubectl and the cluster's file.
struct Shell {
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl Shell {
    fn new(live: &LiveCluster) -> Self {
        let (folder, kubeconfig) = (temporary_home(), live.cluster().kubeconfig());
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/myapp-deployment.yaml");
        for name in ["your-app-deployment.yaml", "myapp-deployment.yaml"] {
            fs::copy(&manifest, folder.join(name)).unwrap();
        }
        Self { folder, kubeconfig }
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.folder).env("KUBECONFIG", &self.kubeconfig);
        command.env("PATH", format!("{}:{path}", programs().display()));
        command
    }

    /// A line as it stands.
    async fn line(&self, line: &str) -> Output {
        let mut command = self.command("sh", &["-c", line]);
        tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
    }

    /// The same, which succeeds.
    async fn shows(&self, line: &str) -> String {
        let output = self.line(line).await;
        assert_eq!(output.code, Some(0), "{line}\n{}\n{}", output.stdout, output.stderr);
        output.stdout
    }

    /// A line that goes on until somebody interrupts it: what it has shown by then.
    async fn watched(&self, line: &str) -> String {
        self.line(&format!("timeout 5 {line}")).await.expect_code(124).stdout
    }

    /// A line at a terminal, with something typed, until it shows all of this: KWOK closes a terminal before it has passed on
    /// everything, now and then.
    async fn at_a_terminal(&self, line: &str, typed: &str, wanted: &[&str]) {
        // What is typed ends after everything has been shown, and only that ends the line.
        let line = format!("(printf '%s' '{typed}'; sleep 20) | timeout 60 script -qec {} /dev/null", quoted(line));
        let mut shown = String::new();
        for _ in 0..4 {
            shown = self.line(&line).await.stdout;
            if wanted.iter().all(|wanted| shown.contains(wanted)) {
                return;
            }
        }
        panic!("{wanted:?}: {shown}");
    }
}

fn quoted(line: &str) -> String {
    format!("'{}'", line.replace('\'', r"'\''"))
}

/// The environments of the guide, with an app in one of them.
async fn environments(live: &LiveCluster) -> [(Site<'_>, Entrypoint); 2] {
    let namespaces: Api<Namespace> = Api::all(live.cluster().client().await);
    let mut made = Vec::new();
    for env in ["production", "stage"] {
        let namespace = serde_json::from_value(json!({ "metadata": { "name": env } })).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let site = Site::of(live, env, env.to_owned());
        let server = Entrypoint::serve(live, env).await;
        made.push((site, server));
    }
    let (one, two) = tokio::join!(made[0].0.run("deploy"), made[1].0.run("deploy"));
    one.expect_code(0);
    two.expect_code(0);
    made[0].0.run("create myapp").await.expect_code(0);
    made.try_into().unwrap_or_else(|_| panic!("two were made"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kubectl_line_of_the_guide_finds_what_it_names() {
    let live = LiveCluster::start().await;
    let [(production, server), (_stage, _other)] = environments(&live).await;
    let shell = Shell::new(&live);

    for env in ["production", "stage"] {
        let pods = shell.shows(&format!("kubectl get pods -n {env} -l app=postgres")).await;
        assert!(pods.contains("postgres-") && pods.contains("1/1") && pods.contains("Running"), "{pods}");
        let services = shell.shows(&format!("kubectl get services -n {env} -l app=postgres")).await;
        assert!(services.contains("postgres-service") && services.contains("5432/TCP"), "{services}");
        let claims = shell.shows(&format!("kubectl get pvc -n {env}")).await;
        assert!(claims.contains("postgres-data") && claims.contains("Bound") && claims.contains("10Gi"), "{claims}");
    }

    let typed = "SELECT 6 * 7 AS answer;\n";
    let line = "kubectl exec -it deployment/postgres -n production -- psql -U postgres";
    shell.at_a_terminal(line, typed, &["answer", "42"]).await;
    let databases = shell.shows(r#"kubectl exec deployment/postgres -n production -- psql -U postgres -c "\l""#).await;
    assert!(databases.contains("myapp_db"), "{databases}");
    let line = r#"kubectl exec -it deployment/postgres -n production -- psql -U postgres -c "\l""#;
    shell.at_a_terminal(line, "", &["myapp_db"]).await;
    let line = r#"kubectl exec -it deployment/postgres -n production -- psql -U postgres -c "\du""#;
    shell.at_a_terminal(line, "", &["myapp_user"]).await;
    let users = shell.shows(r#"kubectl exec deployment/postgres -n production -- psql -U postgres -c "\du""#).await;
    assert!(users.contains("myapp_user"), "{users}");
    let ready = shell.shows("kubectl exec deployment/postgres -n production -- pg_isready -U postgres").await;
    assert!(ready.contains("accepting connections"), "{ready}");

    backup_and_restore(&production, &shell).await;

    let lines: Vec<String> = server.log().lines().map(str::to_owned).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    live.logs("production", "postgres", &lines).await;
    let log = shell.watched("kubectl logs -f deployment/postgres -n production").await;
    assert!(log.contains("database system is ready to accept connections"), "{log}");

    let secrets = shell.shows("kubectl get secrets -n production | grep db-secret").await;
    assert!(secrets.starts_with("myapp-db-secret "), "{secrets}");

    for file in ["your-app-deployment.yaml", "myapp-deployment.yaml"] {
        let applied = shell.shows(&format!("kubectl apply -f {file} -n production")).await;
        assert!(applied.starts_with("deployment.apps/myapp "), "{applied}");
    }
    let pods = async || shell.shows("kubectl get pods -n production -l app=myapp").await;
    eventually("the app's pod is there", async || pods().await.contains("myapp-")).await;
    eventually("it runs", async || pods().await.contains("Running")).await;
    live.logs("production", "myapp", &["connected"]).await;
    let log = shell.watched("kubectl logs -f deployment/myapp -n production").await;
    assert_eq!(log, "connected\n");
}

async fn backup_and_restore(production: &Site<'_>, shell: &Shell) {
    production.in_app("myapp", "CREATE TABLE kept AS SELECT 42 AS x").await;
    shell
        .shows("kubectl exec deployment/postgres -n production -- pg_dump -U postgres myapp_db > myapp_backup.sql")
        .await;
    let dump = fs::read_to_string(shell.folder.join("myapp_backup.sql")).unwrap();
    assert!(dump.contains("CREATE TABLE myapp.kept"), "{dump}");
    production.in_app("myapp", "DROP TABLE kept").await;
    // What stands in for the kubelet here never ends the input of a command.
    let line =
        "timeout 10 kubectl exec -i deployment/postgres -n production -- psql -U postgres myapp_db < myapp_backup.sql";
    let restored = shell.line(line).await.stdout;
    assert!(restored.contains("COPY 1"), "{restored}");
    assert_eq!(production.in_app("myapp", "TABLE kept").await, "42");
}
