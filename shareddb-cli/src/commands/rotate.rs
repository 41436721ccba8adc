//! `shareddb rotate`.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{AppName, Delivery, Provisioner, Report, Result, RotateOptions, Step, Workload, WorkloadKind};

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
    let place = environment.kubectl_place();
    if args.dry_run.dry_run {
        return preview(args, &apps, &options, &provisioner, &place, context).await;
    }
    let mut rotated = Several::of(&apps, context, async |app| {
        let report = provisioner.rotate(app, &options).await?;
        notes(&report, context);
        Ok(report)
    })
    .await?;
    let view = Rotated { items: std::mem::take(&mut rotated.done), failed: std::mem::take(&mut rotated.failed), place };
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
    place: &str,
    context: &Context,
) -> Result<ExitCode> {
    let mut planned = Several::of(apps, context, async |app| {
        let plan = provisioner.plan_rotate(app, options).await?;
        let restarted: Vec<&Workload> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Restart { workload } => Some(workload),
                _ => None,
            })
            .collect();
        for workload in plan.workloads.iter().flatten().filter(|workload| !is_among(workload, &restarted)) {
            context.console.note(&consequence(workload, "before the old password ends", place));
        }
        Ok(Preview::of(&plan))
    })
    .await?;
    let view = Previews { items: std::mem::take(&mut planned.done), failed: std::mem::take(&mut planned.failed) };
    view.items.iter().for_each(|preview| preview.notes(context));
    context.output.show(&view)?;
    let differs = args.dry_run.exit_code && view.items.iter().any(Preview::differs);
    planned.failed = view.failed;
    let code = planned.end()?;
    Ok(if differs && code == ExitCode::SUCCESS { ExitCode::from(CHANGES) } else { code })
}

fn is_among(workload: &Workload, some: &[&Workload]) -> bool {
    some.iter().any(|one| (one.kind, &one.name) == (workload.kind, &workload.name))
}

fn text(report: &Report, place: &str) -> String {
    let app = &report.app;
    let mut lines = vec![format!("app/{} {}", app.name, report.outcome.as_str())];
    let by_then = match report.old_login_ends {
        Some(end) => format!("before {end}"),
        None => "now".to_owned(),
    };
    if let Some(slot) = report.in_use {
        lines.push(format!("  login/{} in use, as secret/{} says", app.login(slot), app.secret));
        lines.push(match (report.old_login_ends, app.closed == Some(slot.other())) {
            (Some(end), _) => format!("  login/{} works until {end}", app.login(slot.other())),
            (None, true) => format!("  login/{} closed", app.login(slot.other())),
            (None, false) => format!("  login/{} ends as was said before", app.login(slot.other())),
        });
    }
    let restarted: Vec<&Workload> = report.restarted.iter().collect();
    lines.extend(report.workloads.iter().flatten().map(|workload| match is_among(workload, &restarted) {
        true => format!("  {workload} restarted"),
        false => format!("  {}", consequence(workload, &by_then, place)),
    }));
    lines.iter().map(|line| printable(line) + "\n").collect()
}

/// What a new password means to a workload that is not restarted.
fn consequence(workload: &Workload, by_then: &str, place: &str) -> String {
    let how = match workload.delivery {
        Delivery::Environment => "has it in its variables",
        Delivery::SubPath => "has it in a file that does not follow the Secret",
        _ => return format!("{workload} reads it from files, which follow the Secret"),
    };
    match workload {
        Workload { reloaded: true, .. } => format!("{workload} {how}: Reloader is asked to restart it"),
        Workload { kind, .. } if kind.can_restart() => {
            format!("{workload} {how}: restart it {by_then}: kubectl{place} rollout restart {workload}")
        }
        Workload { kind: WorkloadKind::CronJob, pods, .. } if pods.is_empty() => {
            format!("{workload} takes it at its next run")
        }
        _ => format!("{workload} {how} and cannot be restarted: it has to end or be replaced {by_then}"),
    }
}
