//! `shareddb schedule`.

use std::process::ExitCode;
use std::sync::Arc;

use serde::Serialize;
use shareddb_core::{
    AppName, Change, Environment, Error, Keep, ObjectChange, Proving, Result, Run, SchedulePlan, ScheduleSpec,
    Scheduler,
};

use super::deploy_kubernetes::{NONE, line};
use crate::args::{Format, Schedule};
use crate::context::Context;
use crate::moments::minute;
use crate::output::{Text, View};
use crate::preview::CHANGES;

/// What proves nothing.
const NEVER: &str = "never";

/// What has become of a schedule.
#[derive(Debug, Serialize)]
struct Scheduled {
    items: Vec<Item>,
    changes: Vec<ObjectChange>,
}

/// A CronJob.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    name: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<jiff::Timestamp>,
}

impl View for Scheduled {
    const KIND: &'static str = "ScheduleList";

    fn text(&self, _style: Text) -> String {
        let next = |item: &Item| item.next.map(|next| format!("    next run {}", minute(next))).unwrap_or_default();
        self.items.iter().map(|item| format!("{} {}{}\n", item.name, item.outcome, next(item))).collect()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.name.clone()).collect()
    }
}

/// What would become of it.
#[derive(Debug, Serialize)]
struct Preview {
    name: String,
    #[serde(flatten)]
    plan: SchedulePlan,
}

impl View for Preview {
    const KIND: &'static str = "SchedulePlan";

    fn text(&self, style: Text) -> String {
        let objects = &self.plan.objects;
        let lines: String = objects.iter().map(|object| line(object, style.paint)).collect();
        let count = |op| objects.iter().filter(|object| object.op == op).count();
        let (add, change, same) = (count(Some(Change::Add)), count(Some(Change::Change)), count(None));
        let remove = count(Some(Change::Remove));
        let remove = if remove > 0 { format!("{remove} to remove, ") } else { String::new() };
        format!("{lines}{add} to add, {change} to change, {remove}{same} as they are. Nothing was changed (dry run).\n")
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

pub(crate) async fn run(args: &Schedule, context: &Context) -> Result<ExitCode> {
    let spec = spec(args)?;
    let environment = context.environment()?;
    if args.print {
        return print(&spec, &environment, context);
    }
    let console = Arc::clone(&context.console);
    let scheduler = Scheduler::new(&environment).await.map_err(|error| by_cron(error, &environment, &spec))?;
    let scheduler = scheduler.on_change(move |object| console.done(&line(object, console.paint())));
    context.console.progress(&format!("env {} · {}", environment.name(), scheduler.place()));
    let plan = match args.off {
        true => scheduler.plan_end(spec.app.as_ref()).await?,
        false => scheduler.plan(&spec).await?,
    };
    plan.notices.iter().for_each(|notice| context.console.note(notice));
    if args.dry_run.dry_run {
        let differs = args.dry_run.exit_code && !plan.is_empty();
        let name = format!("schedule/{}", spec.app.as_ref().map_or("all", AppName::as_str));
        context.output.show(&Preview { name, plan })?;
        return Ok(if differs { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS });
    }
    scheduler.apply(&plan).await?;
    if args.off && plan.runs.is_empty() {
        context.console.progress("there is no such schedule");
    }
    let changes: Vec<ObjectChange> = plan.changes().cloned().collect();
    let items = plan.runs.iter().map(|run| item(run, &plan)).collect();
    context.output.show(&Scheduled { items, changes })?;
    if plan.runs.iter().any(|run| run.op == Some(Change::Add)) {
        let name = &plan.runs[0].name;
        context.console.progress(&format!(
            "Try it now: kubectl -n {} create job --from={name} {}-now",
            environment.namespace_name()?,
            name.trim_start_matches("cronjob/")
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn item(run: &Run, plan: &SchedulePlan) -> Item {
    // What it stands on counts as well: its account, its settings.
    let outcome = match run.op {
        Some(Change::Add) => "created",
        Some(Change::Remove) => "removed",
        None if plan.is_empty() => "unchanged",
        _ => "configured",
    };
    Item { name: run.name.clone(), outcome, next: run.next }
}

fn spec(args: &Schedule) -> Result<ScheduleSpec> {
    let mut spec = ScheduleSpec::default();
    spec.app = args.app.as_deref().map(str::parse).transpose()?;
    spec.cron = args.cron.as_deref().map(str::parse).transpose()?;
    spec.verify = match args.verify_cron.as_deref() {
        Some(NEVER) => Some(Proving::Never),
        Some(text) => Some(Proving::At(text.parse()?)),
        None => None,
    };
    spec.keep = args.keep.as_deref().map(str::parse::<Keep>).transpose()?;
    spec.image.clone_from(&args.image);
    spec.to.clone_from(&args.to);
    spec.credentials = args.credentials_secret.as_deref().map(str::parse).transpose()?;
    spec.encrypt_to = args.encrypt_to.as_ref().map(|list| match list.as_slice() {
        [only] if only == NONE => Vec::new(),
        list => list.to_vec(),
    });
    (spec.memory, spec.cpu) = (args.memory, args.cpu);
    Ok(spec)
}

/// Cron knows nothing of the variables that lead to folders here, and finds programs of the system only.
fn variables() -> impl Iterator<Item = String> {
    const SYSTEM: [&str; 2] = ["/usr/bin", "/bin"];
    let folder =
        std::env::current_exe().ok().and_then(|program| program.parent().map(|folder| folder.display().to_string()));
    let path = folder.filter(|folder| !SYSTEM.contains(&folder.as_str()));
    let path = path.map(|folder| format!("PATH={folder}:{}", SYSTEM.join(":")));
    let ours =
        ["SHAREDDB_HOME", "SHAREDDB_PG_BIN", "XDG_CONFIG_HOME", "XDG_DATA_HOME"].into_iter().filter_map(|name| {
            let folder = std::path::absolute(std::env::var_os(name).filter(|value| !value.is_empty())?).ok()?;
            Some(format!("{name}={}", folder.display()))
        });
    path.into_iter().chain(ours)
}

/// What does the same where there is no cluster.
fn by_cron(error: Error, environment: &Environment, spec: &ScheduleSpec) -> Error {
    let lines = match Scheduler::crontab(environment, spec) {
        Ok(lines) if error.code() == "not_deployable" => variables().chain(lines).collect::<Vec<_>>(),
        _ => return error,
    };
    let message = format!(
        "a schedule is a CronJob of Kubernetes, and the server of environment {} is in none",
        environment.name()
    );
    Error::invalid_input("not_in_kubernetes", message)
        .with_hint(format!("these lines do it by cron, on a machine in UTC (crontab -e), with the variables for the store, where it takes some:\n{}", lines.join("\n")))
}

fn print(spec: &ScheduleSpec, environment: &Environment, context: &Context) -> Result<ExitCode> {
    let objects = Scheduler::manifests(environment, spec).map_err(|error| by_cron(error, environment, spec))?;
    if context.output.format() == Format::Json {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        context.output.raw(&format!("{list:#}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = match &spec.credentials {
        Some(secret) => {
            format!("# The Secret {secret}, whose keys are the variables that lead to the store, is not here.\n")
        }
        None => String::new(),
    };
    for object in objects {
        text += "---\n";
        text += &context.output.yaml(&object)?;
    }
    context.output.raw(&text)?;
    Ok(ExitCode::SUCCESS)
}
