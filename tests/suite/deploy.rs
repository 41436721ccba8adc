//! The objects of a server: what a deploy makes of them, what it says before, and what it leaves alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hyper::{Method, Request};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use shareddb_core::{Change, Deployer, Environments, ServerPlan, ServerSpec};
use shareddb_tests::cluster::programs;
use shareddb_tests::command::{Output, run, shareddb_command};
use shareddb_tests::server::temporary_home;
use shareddb_tests::{ApiProxy, Cluster};

/// Every kind of object that a server has, as kubectl names one and as the API names all.
const KINDS: [(&str, &str); 8] = [
    ("serviceaccount", "api/v1|serviceaccounts"),
    ("secret", "api/v1|secrets"),
    ("configmap", "api/v1|configmaps"),
    ("persistentvolumeclaim", "api/v1|persistentvolumeclaims"),
    ("service", "api/v1|services"),
    ("networkpolicy", "apis/networking.k8s.io/v1|networkpolicies"),
    ("poddisruptionbudget", "apis/policy/v1|poddisruptionbudgets"),
    ("deployment", "apis/apps/v1|deployments"),
];

/// What a server without TLS consists of, in order.
pub(crate) const SERVER: [&str; 8] = [
    "serviceaccount/postgres",
    "secret/postgres-admin",
    "configmap/postgres-config",
    "persistentvolumeclaim/postgres-data",
    "service/postgres-service",
    "networkpolicy/postgres",
    "poddisruptionbudget/postgres",
    "deployment/postgres",
];

/// A namespace in which a server is deployed.
pub(crate) struct Site<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) namespace: String,
    pub(crate) home: PathBuf,
}

/// What a caller asks for.
pub(crate) fn spec(edit: impl FnOnce(&mut ServerSpec)) -> ServerSpec {
    let mut spec = ServerSpec::default();
    edit(&mut spec);
    spec
}

/// Whoever deploys to this namespace as this file says.
pub(crate) async fn deployer(kubeconfig: &Path, namespace: &str) -> Deployer {
    let environments = Environments::parse("", |_| None).unwrap();
    let environment = environments.environment(&"stage".parse().unwrap()).unwrap();
    let environment = environment.with_kubeconfig(kubeconfig).unwrap().with_namespace(namespace.parse().unwrap());
    Deployer::new(&environment.unwrap()).await.unwrap()
}

impl Site<'static> {
    pub(crate) async fn new() -> Self {
        Self::of(Cluster::shared().await).await
    }

    /// One with a server, for which there are no pods.
    pub(crate) async fn deployed() -> Self {
        let site = Self::new().await;
        site.deployer().await.deploy(&ServerSpec::default()).await.unwrap();
        site
    }
}

impl<'a> Site<'a> {
    pub(crate) async fn of(cluster: &'a Cluster) -> Self {
        Self { cluster, namespace: cluster.namespace("deploy").await, home: temporary_home() }
    }

    pub(crate) async fn deployer(&self) -> Deployer {
        deployer(&self.cluster.kubeconfig(), &self.namespace).await
    }

    pub(crate) async fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client().await, &self.namespace)
    }

    /// Asks the API for something of this namespace, or changes it there.
    pub(crate) async fn call(&self, method: Method, object: &str, parameters: &str, body: &Value) -> Value {
        let request = Request::builder().method(&method).uri(format!("{}{parameters}", self.path(object)));
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = request.header("Content-Type", kind).body(body).unwrap();
        let answer = self.cluster.client().await.request_text(request).await;
        serde_json::from_str(&answer.unwrap_or_else(|error| panic!("{method} {object}: {error}"))).unwrap()
    }

    pub(crate) async fn read(&self, object: &str) -> Value {
        self.call(Method::GET, object, "", &Value::Null).await
    }

    /// Changes an object as somebody else.
    pub(crate) async fn patch(&self, object: &str, manager: &str, patch: &Value) {
        self.call(Method::PATCH, object, &format!("?fieldManager={manager}"), patch).await;
    }

    /// `deployment/postgres`, `deployment/postgres/status`, or `deployment` for all.
    fn path(&self, object: &str) -> String {
        let (kind, name) =
            object.split_once('/').map_or((object, String::new()), |(kind, name)| (kind, format!("/{name}")));
        let (_, path) = KINDS
            .iter()
            .chain(&[("resourcequota", "api/v1|resourcequotas")])
            .find(|(known, _)| *known == kind)
            .unwrap();
        let (group, plural) = path.split_once('|').unwrap();
        format!("/{group}/namespaces/{}/{plural}{name}", self.namespace)
    }

    /// Every object that a server may have here.
    pub(crate) async fn objects(&self) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        for (kind, _) in KINDS {
            for item in self.read(kind).await["items"].as_array().unwrap() {
                let name = item["metadata"]["name"].as_str().unwrap();
                if name.starts_with("postgres") {
                    found.insert(format!("{kind}/{name}"), item.clone());
                }
            }
        }
        found
    }

    /// At which version each object is.
    pub(crate) async fn versions(&self) -> BTreeMap<String, String> {
        let version = |object: Value| object["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        self.objects().await.into_iter().map(|(label, object)| (label, version(object))).collect()
    }

    pub(crate) async fn password(&self) -> String {
        self.read("secret/postgres-admin").await["data"]["password"].as_str().unwrap().to_owned()
    }

    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = shareddb_command(&self.home);
        command.current_dir(&self.home).env("KUBECONFIG", self.cluster.kubeconfig());
        command.args(["-e", "stage", "-n", &self.namespace]).args(line.split_whitespace());
        command
    }

    pub(crate) async fn run(&self, line: &str) -> Output {
        let mut command = self.command(line);
        tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
    }

    /// kubectl in this namespace, with something to read.
    pub(crate) fn kubectl(&self, args: &[&str], input: &str) -> Output {
        let file = self.home.join("input.yaml");
        fs::write(&file, input).unwrap();
        let mut command = Command::new(programs().join("kubectl"));
        command.arg("--kubeconfig").arg(self.cluster.kubeconfig()).args(["-n", &self.namespace]).args(args);
        let output = command.stdin(Stdio::from(fs::File::open(file).unwrap())).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// What changes, an object and a field a line; of the record, only that it does.
fn changed(plan: &ServerPlan) -> Vec<String> {
    let lines = plan.changes().flat_map(|object| {
        let field = |field: &shareddb_core::FieldChange| match field.path.ends_with("shareddb/server") {
            true => format!("{object} record"),
            false => format!("{object} {field}"),
        };
        object.fields.iter().map(field).collect::<Vec<_>>()
    });
    lines.filter(|line| !line.contains("shareddb/started-with")).collect()
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_made_and_makes_nothing() {
    let site = Site::new().await;
    let shown = site.run("deploy --dry-run").await.expect_code(0);
    let mut lines: Vec<&str> = shown.stdout.lines().collect();
    assert_eq!(lines.pop(), Some("8 to add, 0 to change, 0 as they are. Nothing was changed (dry run)."));
    let wanted: BTreeSet<String> = SERVER.iter().map(|object| format!("  + {object}")).collect();
    assert_eq!(lines.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), wanted, "{}", shown.stdout);
    assert!(site.objects().await.is_empty());
    site.run("deploy --dry-run --exit-code").await.expect_code(3);

    site.deployer().await.deploy(&ServerSpec::default()).await.unwrap();
    let before = site.versions().await;
    let shown = site.run("deploy --dry-run --exit-code").await.expect_code(0);
    assert!(shown.stdout.ends_with("0 to add, 0 to change, 8 as they are. Nothing was changed (dry run).\n"));
    assert!(shown.stdout.contains("  = deployment/postgres\n"), "{}", shown.stdout);
    let shown = site.run("deploy --dry-run --exit-code --memory 1Gi").await.expect_code(3);
    assert!(shown.stdout.contains("  ~ deployment/postgres\n"), "{}", shown.stdout);
    let field = "      spec.template.spec.containers[postgres].resources.limits.memory: 512Mi → 1Gi\n";
    assert!(shown.stdout.contains(field), "{}", shown.stdout);
    assert!(shown.stderr.contains("started anew"), "{}", shown.stderr);
    assert_eq!(site.versions().await, before);
}

#[tokio::test]
async fn a_second_deploy_asks_once_for_each_object_and_changes_none() {
    let site = Site::deployed().await;
    let (before, proxy) = (site.versions().await, ApiProxy::to(site.cluster).await);
    assert_eq!(before.keys().map(String::as_str).collect::<BTreeSet<_>>(), SERVER.into());
    let plan = deployer(&proxy.kubeconfig(&site.namespace), &site.namespace)
        .await
        .deploy(&ServerSpec::default())
        .await
        .unwrap();
    assert!(plan.is_empty(), "{plan:?}");
    assert_eq!(site.versions().await, before);
    let seen = proxy.seen();
    let paths = |method: Method| -> Vec<&str> {
        let mut paths: Vec<&str> =
            seen.iter().filter(|seen| seen.method == method).map(|seen| seen.path.as_str()).collect();
        paths.sort_unstable();
        paths
    };
    let (read, applied) = (paths(Method::GET), paths(Method::PATCH));
    let mut wanted: Vec<String> = SERVER.iter().map(|object| site.path(object)).collect();
    wanted.sort_unstable();
    assert_eq!(applied, wanted, "one dry run for each object");
    let certificates = ["secret/postgres-ca", "secret/postgres-tls"].map(|object| site.path(object));
    wanted.extend(certificates);
    wanted.sort_unstable();
    assert_eq!(read, wanted, "each object is read once, and whether it has certificates");
    assert_eq!(seen.len(), read.len() + applied.len(), "{seen:?}");
    for request in seen.iter().filter(|seen| seen.method == Method::PATCH) {
        for word in ["dryRun=All", "fieldValidation=Strict", "fieldManager=shareddb"] {
            assert!(request.query.contains(word), "{}", request.query);
        }
        assert!(!request.query.contains("force=true"), "{}", request.query);
    }
}

#[tokio::test]
async fn an_option_changes_what_it_is_about() {
    let site = Site::deployed().await;
    let container = "~ deployment/postgres spec.template.spec.containers[postgres]";
    let record = "~ deployment/postgres record";
    let claim = "~ persistentvolumeclaim/postgres-data record";
    let cases: [(ServerSpec, Vec<String>); 4] = [
        (
            spec(|spec| spec.image = "registry.example/postgres:15.9-alpine".parse().ok()),
            vec![
                claim.into(),
                record.into(),
                format!("{container}.image: postgres:15-alpine → registry.example/postgres:15.9-alpine"),
            ],
        ),
        (
            spec(|spec| spec.cpu = "2".parse().ok()),
            vec![
                claim.into(),
                record.into(),
                format!("{container}.resources.limits.cpu: 500m → 2"),
                format!("{container}.resources.requests.cpu: 250m → 1"),
            ],
        ),
        (
            spec(|spec| spec.allow_namespaces = Some(["shop".parse().unwrap()].into())),
            vec![claim.into(), "~ networkpolicy/postgres spec.ingress".into(), record.into()],
        ),
        (
            spec(|spec| spec.connections = Some(200)),
            vec![
                "~ configmap/postgres-config data.postgresql.conf: max_connections: 100 → 200".into(),
                claim.into(),
                record.into(),
            ],
        ),
    ];
    for (spec, wanted) in cases {
        let plan = site.deployer().await.deploy(&spec).await.unwrap();
        let found = changed(&plan);
        let fits = |wanted: &String| found.iter().any(|line| line.starts_with(wanted.as_str()));
        assert!(wanted.iter().all(fits), "{spec:?}: {found:#?}");
        let known = |line: &&String| {
            wanted.iter().any(|wanted| line.starts_with(wanted.as_str()))
                || line.contains("postgresql.conf: ")
                || *line == "~ configmap/postgres-config record"
        };
        assert_eq!(found.iter().find(|line| !known(line)), None, "{spec:?}");
        assert!(site.deployer().await.plan(&ServerSpec::default()).await.unwrap().is_empty(), "it is kept: {spec:?}");
    }
    let policy = site.read("networkpolicy/postgres").await;
    assert_eq!(
        policy["spec"]["ingress"][0]["from"][1]["namespaceSelector"]["matchExpressions"][0]["values"],
        json!(["shop"])
    );
    let plan = site.deployer().await.deploy(&spec(|spec| spec.memory = "1Gi".parse().ok())).await.unwrap();
    assert!(plan.restarts());
    let found = changed(&plan);
    for wanted in [
        "resources.limits.memory: 512Mi → 1Gi".to_owned(),
        "resources.requests.memory: 256Mi → 512Mi".to_owned(),
        "shared_buffers: ".to_owned(),
        "volumes[shared-memory].emptyDir.sizeLimit: ".to_owned(),
    ] {
        assert!(found.iter().any(|line| line.contains(&wanted)), "{wanted}: {found:#?}");
    }
}

#[tokio::test]
async fn the_pod_is_admitted_where_restricted_pod_security_is_enforced() {
    for edit in [
        |_: &mut ServerSpec| {},
        |spec: &mut ServerSpec| spec.tls = Some(true),
        |spec: &mut ServerSpec| spec.image = "postgres:18-alpine".parse().ok(),
        |spec: &mut ServerSpec| spec.image = "postgres:17-bookworm".parse().ok(),
    ] {
        let site = Site::new().await;
        let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        let request = Request::patch(format!("/api/v1/namespaces/{}", site.namespace))
            .header("Content-Type", "application/merge-patch+json")
            .body(labels.to_string().into_bytes())
            .unwrap();
        site.cluster.client().await.request_text(request).await.unwrap();
        let spec = spec(edit);
        site.deployer().await.deploy(&spec).await.unwrap();
        let deployment = site.api::<Deployment>().await.get("postgres").await.unwrap();
        let template = deployment.spec.unwrap().template;
        let mut pod = Pod { metadata: template.metadata.unwrap(), spec: template.spec, ..Pod::default() };
        pod.metadata.name = Some("postgres".to_owned());
        let (pods, dry) = (site.api::<Pod>().await, PostParams { dry_run: true, ..PostParams::default() });
        pods.create(&dry, &pod).await.unwrap_or_else(|error| panic!("{spec:?}: {error}"));
        // The policy does look.
        pod.spec.as_mut().unwrap().host_network = Some(true);
        assert!(pods.create(&dry, &pod).await.unwrap_err().to_string().contains("violates PodSecurity"));
    }
}

/// What `deploy --print` has to print.
const PRINTED: &str = include_str!("../fixtures/deploy.yaml");

#[tokio::test]
async fn what_is_printed_is_applied_by_kubectl_and_deploy_adds_the_secret() {
    let site = Site::new().await;
    let mut command = shareddb_command(&site.home);
    // Nobody is asked for it: there is no cluster.
    command.env("KUBECONFIG", "/nowhere").args(["deploy", "-e", "stage", "-n", "stage", "--print"]);
    let printed = run(&mut command).expect_code(0).stdout;
    assert_eq!(printed, PRINTED);
    let list: Value = serde_json::from_str(&site.run("deploy --print -o json").await.expect_code(0).stdout).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("List"), SERVER.len() - 1));
    let both = site.run("deploy --print --allow-namespace none,shop").await.expect_code(2);
    assert!(both.stderr.contains("none,shop"), "{}", both.stderr);

    let printed = printed.replace("namespace: stage\n", &format!("namespace: {}\n", site.namespace));
    assert_eq!(site.run("deploy --print").await.expect_code(0).stdout, printed);
    let applied = site.kubectl(&["apply", "--server-side", "-f", "-"], &printed).expect_code(0);
    assert_eq!(applied.stdout.lines().count(), SERVER.len() - 1, "{}", applied.stdout);
    let before = site.versions().await;
    let plan = site.deployer().await.deploy(&ServerSpec::default()).await.unwrap();
    let made: Vec<&str> = plan.changes().map(|object| object.object.as_str()).collect();
    assert_eq!(made, ["secret/postgres-admin"]);
    assert!(plan.changes().all(|object| object.op == Some(Change::Add)));
    let mut after = site.versions().await;
    assert!(after.remove("secret/postgres-admin").is_some());
    assert_eq!(after, before);
    assert!(site.deployer().await.plan(&ServerSpec::default()).await.unwrap().is_empty());
    let again = site.kubectl(&["apply", "--server-side", "-f", "-"], &printed).expect_code(0);
    assert_eq!(again.stderr, "", "it is applied again without a conflict");
}
