//! `shareddb rotate`.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{AppName, Delivery, Environment, Provisioner, Report, Result, RotateOptions, Slot, Step, Workload};

use super::create::notes;
use super::several::{Failed, Several, apps};
use crate::args::Rotate;
use crate::context::Context;
use crate::output::{Text, View};
use crate::preview::{CHANGES, Preview};
use crate::quoting::printable;

/// Apps that have new passwords.
#[derive(Debug, Serialize)]
struct Rotated {
    items: Vec<Report>,
    failed: Vec<Failed>,
    /// The words that name the namespace to kubectl.
    #[serde(skip)]
    place: String,
}

impl View for Rotated {
    const KIND: &'static str = "RotationList";

    fn text(&self, _style: Text) -> String {
        self.items.iter().map(|report| text(report, &self.place)).collect()
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|report| format!("app/{}", report.app.name)).collect()
    }
}

pub(crate) async fn run(args: &Rotate, context: &Context) -> Result<ExitCode> {
    let mut options = RotateOptions::default();
    options.grace = args.grace;
    options.now = args.now;
    options.restart = args.restart;
    let environment = context.environment()?;
    let provisioner = context.mutator(&environment).await?;
    let apps = apps(&args.apps, &provisioner, context).await?;
    if args.dry_run.dry_run {
        return preview(args, &apps, &options, &provisioner, context).await;
    }
    let mut rotated = Several::of(&apps, context, async |app| {
        let report = provisioner.rotate(app, &options).await?;
        notes(&report, context);
        Ok(report)
    })
    .await?;
    let view = Rotated {
        items: std::mem::take(&mut rotated.done),
        failed: std::mem::take(&mut rotated.failed),
        place: kubectl(&environment),
    };
    context.output.show(&view)?;
    rotated.failed = view.failed;
    rotated.end()
}

/// What would be done for each of several apps.
#[derive(Debug, Serialize)]
struct Previews {
    items: Vec<Preview>,
    failed: Vec<Failed>,
}

impl View for Previews {
    const KIND: &'static str = "PlanList";

    fn text(&self, style: Text) -> String {
        let one = |preview: &Preview| format!("{}:\n{}", preview.names().concat(), preview.text(style));
        self.items.iter().map(one).collect::<Vec<_>>().join("\n")
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().flat_map(Preview::names).collect()
    }
}

async fn preview(
    args: &Rotate,
    apps: &[AppName],
    options: &RotateOptions,
    provisioner: &Provisioner,
    context: &Context,
) -> Result<ExitCode> {
    let plan = async |app: &AppName| Ok(Preview::of(&provisioner.plan_rotate(app, options).await?));
    if let [app] = apps {
        return plan(app).await?.show(context, args.dry_run);
    }
    let mut planned = Several::of(apps, context, plan).await?;
    let view = Previews { items: std::mem::take(&mut planned.done), failed: std::mem::take(&mut planned.failed) };
    view.items.iter().for_each(|preview| preview.notes(context));
    context.output.show(&view)?;
    let differs = args.dry_run.exit_code && view.items.iter().any(Preview::differs);
    planned.failed = view.failed;
    let code = planned.end()?;
    Ok(if differs && code == ExitCode::SUCCESS { ExitCode::from(CHANGES) } else { code })
}

/// How kubectl is told where the workloads are.
fn kubectl(environment: &Environment) -> String {
    environment.secrets_namespace().map(|namespace| format!(" -n {namespace}")).unwrap_or_default()
}

fn text(report: &Report, place: &str) -> String {
    let app = &report.app;
    let slot = report.steps.iter().find_map(|step| match step {
        Step::PublishSecret { slot, .. } => Some(*slot),
        _ => None,
    });
    let mut lines = vec![format!("app/{} {}", app.name, report.outcome.as_str())];
    if let Some(slot) = slot {
        lines.push(format!("  login/{} in use, as secret/{} says", app.login(slot), app.secret));
    }
    lines.extend(slot.map(|slot| old_login(report, slot.other())));
    lines.extend(report.workloads.iter().map(|workload| format!("  {}", consequence(workload, report, place))));
    lines.iter().map(|line| printable(line) + "\n").collect()
}

fn old_login(report: &Report, slot: Slot) -> String {
    let login = report.app.login(slot);
    match report.old_login_ends {
        Some(end) => format!("  login/{login} works until {end}"),
        None => format!("  login/{login} closed"),
    }
}

/// What a new password means to a workload.
fn consequence(workload: &Workload, report: &Report, place: &str) -> String {
    let restarted = report.restarted.iter().any(|done| (done.kind, &done.name) == (workload.kind, &workload.name));
    let by_then = match report.old_login_ends {
        Some(end) => format!("before {end}"),
        None => "now".to_owned(),
    };
    let how = match workload.delivery {
        Delivery::Environment => "has it in its variables",
        Delivery::SubPath => "has it in a file that does not follow the Secret",
        _ => return format!("{workload} reads it from files, which follow the Secret"),
    };
    match workload {
        _ if restarted => format!("{workload} restarted"),
        Workload { reloaded: true, .. } => format!("{workload} {how}: Reloader is asked to restart it"),
        Workload { kind, .. } if kind.can_restart() => {
            format!("{workload} {how}: restart it {by_then}: kubectl rollout restart {workload}{place}")
        }
        Workload { kind: shareddb_core::WorkloadKind::CronJob, pods, .. } if pods.is_empty() => {
            format!("{workload} takes it at its next run")
        }
        _ => format!("{workload} {how} and cannot be restarted: it has to end or be replaced {by_then}"),
    }
}
