//! `shareddb deploy` to a namespace of Kubernetes.

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use shareddb_core::{
    AccessMode, Change, DeployEvent, Deployer, Environment, Error, NamespaceName, ObjectChange, Result, ServerPlan,
    ServerSpec,
};

use super::deploy::Deployed;
use crate::args::{Access, Deploy, Format, Switch};
use crate::color::{Paint, Style};
use crate::console::{self, Console};
use crate::context::Context;
use crate::output::{Text, View};
use crate::preview::CHANGES;
use crate::quoting::printable;

/// What empties a list that is otherwise inherited.
pub(super) const NONE: &str = "none";

/// What there is to say of a server in a namespace.
#[derive(Debug, Serialize)]
struct Served {
    version: String,
    changes: Vec<ObjectChange>,
}

/// What a deploy would change.
#[derive(Debug, Serialize)]
struct Preview {
    name: String,
    #[serde(flatten)]
    plan: ServerPlan,
}

impl View for Preview {
    const KIND: &'static str = "ServerPlan";

    fn text(&self, style: Text) -> String {
        let objects = &self.plan.objects;
        let lines: String = objects.iter().map(|object| line(object, style.paint)).collect();
        let count = |op| objects.iter().filter(|object| object.op == op).count();
        let (add, change, same) = (count(Some(Change::Add)), count(Some(Change::Change)), count(None));
        format!("{lines}{add} to add, {change} to change, {same} as they are. Nothing was changed (dry run).\n")
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

pub(crate) async fn run(args: &Deploy, environment: &Environment, context: &Context) -> Result<ExitCode> {
    if args.stop {
        let message = format!("the server of environment {} is not the embedded one", environment.name());
        return Err(Error::invalid_input("not_embedded", message)
            .with_hint("--stop ends the embedded server of `local`; this one every app of the environment needs"));
    }
    let spec = spec(args)?;
    if args.print {
        return print(&spec, environment, context);
    }
    let console = Arc::clone(&context.console);
    let deployer = Deployer::new(environment).await?.on_event(move |event| tell(&console, event));
    context.console.progress(&format!("env {} · {}", environment.name(), deployer.place()));
    if args.dry_run.dry_run {
        let plan = deployer.plan(&spec).await?;
        plan.notices.iter().for_each(|notice| context.console.note(notice));
        let differs = args.dry_run.exit_code && !plan.is_empty();
        context.output.show(&Preview { name: format!("server/{}", environment.name()), plan })?;
        return Ok(if differs { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS });
    }
    let plan = deployer.deploy(&spec).await?;
    let ready = deployer.wait(&plan, context.remaining()).await?;
    context.console.progress(&format!("  PostgreSQL {} · {}", ready.version, ready.place));
    let walls = context.provisioner(environment).await?.secure().await?;
    let is_new = plan.objects.iter().any(is_new_server);
    let outcome = match (plan.is_empty() && walls.is_empty(), is_new) {
        (true, _) => "unchanged",
        (false, true) => "created",
        (false, false) => "configured",
    };
    let more = Served { version: ready.version, changes: plan.changes().cloned().collect() };
    context.output.show(&Deployed { name: environment.name().to_string(), outcome, more })?;
    if is_new {
        context.console.progress(&format!("Next: give an app its database   shareddb create myapp{}", context.flags()));
    }
    Ok(ExitCode::SUCCESS)
}

fn is_new_server(object: &ObjectChange) -> bool {
    object.op == Some(Change::Add) && object.object.starts_with("deployment/")
}

fn spec(args: &Deploy) -> Result<ServerSpec> {
    let namespaces = |list: &Vec<String>| match list.as_slice() {
        [only] if only == NONE => Ok(Default::default()),
        list if list.iter().any(|name| name == NONE) => {
            Err(Error::invalid_input("namespaces_contradict", format!("--allow-namespace {} is both", list.join(",")))
                .with_hint("name namespaces, or `none` alone for no other"))
        }
        list => list.iter().map(|name| name.parse::<NamespaceName>()).collect(),
    };
    let mut spec = ServerSpec::default();
    spec.image.clone_from(&args.image);
    spec.memory = args.memory;
    spec.cpu = args.cpu;
    spec.storage = args.storage;
    spec.storage_class.clone_from(&args.storage_class);
    spec.access_mode = args.access_mode.map(|mode| match mode {
        Access::Once => AccessMode::ReadWriteOnce,
        Access::OncePod => AccessMode::ReadWriteOncePod,
        Access::Many => AccessMode::ReadWriteMany,
    });
    spec.connections = args.max_connections;
    spec.tls = args.tls.map(|switch| switch == Switch::On);
    spec.allow_namespaces = args.allow_namespace.as_ref().map(namespaces).transpose()?;
    spec.create_namespace = args.create_namespace;
    spec.adopt = args.adopt;
    spec.secure_server = args.secure_server;
    Ok(spec)
}

fn print(spec: &ServerSpec, environment: &Environment, context: &Context) -> Result<ExitCode> {
    let objects = Deployer::manifests(environment, spec)?;
    if context.output.format() == Format::Json {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        context.output.raw(&format!("{list:#}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = "\
# The Secret postgres-admin, with the admin's username and password, is not here. `shareddb deploy` makes it, and
# leaves what is applied already as it is; or: kubectl create secret generic postgres-admin
#   --from-literal=username=postgres --from-file=password=FILE
"
    .to_owned();
    for object in objects {
        text += "---\n";
        text += &context.output.yaml(&object)?;
    }
    context.output.raw(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(console: &Console, event: DeployEvent<'_>) {
    match event {
        DeployEvent::Planned(plan) => plan.notices.iter().for_each(|notice| console.note(notice)),
        DeployEvent::Applied(object) => console.done(&line(object, console.paint())),
        DeployEvent::Awaiting(what) => {
            console.awaits(what);
            console.progress(&format!("  . {what}"));
        }
        DeployEvent::Trouble(what) => {
            console.awaits(what);
            console.note(what);
        }
        _ => {}
    }
}

/// An object and what changes of it, a line each.
pub(super) fn line(object: &ObjectChange, paint: Paint) -> String {
    let head = match object.op {
        Some(op) => console::change(op, &object.object, paint),
        None => format!("  {} {}", paint.apply(Style::Quiet, "="), printable(&object.object)),
    };
    let fields = object.fields.iter().map(|field| format!("      {}\n", printable(&field.to_string())));
    format!("{head}\n{}", fields.collect::<String>())
}
