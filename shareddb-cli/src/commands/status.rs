//! `shareddb status`.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use shareddb_core::{
    AppName, AppStatus, Error, Kept, Result, ScheduleState, ServerState, ServerStatus, Status as Found, WallState,
};
use tokio::time::timeout;

use super::list::{connections, size};
use super::restore::undo::kept_for;
use crate::args::Status;
use crate::color::{Paint, Style};
use crate::console;
use crate::context::Context;
use crate::deployment;
use crate::freshness::{self, Freshness};
use crate::health;
use crate::logins;
use crate::moments::short;
use crate::output::{Text, View};
use crate::quoting::printable;
use crate::table::{Cell, NONE, Table, pairs};
use crate::units;

/// How long a server that is deployed may take for its answers.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    found: Found,
    /// The server in its namespace, where it was deployed there.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<ServerState>,
    /// Backups that are taken regularly.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    schedules: Vec<ScheduleState>,
    /// Where the Secret of the one app is.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// How old backups are, where there is a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    backups: Option<Freshness>,
    /// What restores of the one app have replaced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<Kept>,
    #[serde(skip)]
    place: String,
}

impl View for Report {
    const KIND: &'static str = "Status";

    fn text(&self, style: Text) -> String {
        let Found { environment, server, apps, .. } = &self.found;
        let backups = self.backups.as_ref();
        let mut head = head(environment, server, self.deployment.as_ref());
        head.extend(backups.map(|backups| ("Backups", backups.store().into())));
        head.extend(self.schedules.iter().map(|schedule| ("Schedule", deployment::schedule(schedule))));
        let mut text = pairs(&head, style.paint);
        match (&self.secret, apps.as_slice()) {
            (Some(secret), [app]) => {
                let mut details = details(app, secret, backups);
                details.extend(self.kept.iter().map(|kept| ("Kept", replaced(kept).into())));
                text += &format!("\n{}", pairs(&details, style.paint));
            }
            (_, []) => text += "\nNo apps.\n",
            (_, apps) => text += &format!("\n{}", table(apps, backups).render(style.paint)),
        }
        let troubles = apps.iter().map(|app| {
            let name = &app.summary.app.name;
            let old = backups.map(|backups| backups.warnings(name, &self.place)).unwrap_or_default();
            let lines = if app.is_well() { String::new() } else { trouble(app, environment, style.paint) };
            let old = old.iter().map(|warning| format!("  backup: {}\n", printable(warning)));
            lines + &old.collect::<String>()
        });
        let troubles = apps.iter().zip(troubles).filter(|(_, lines)| !lines.is_empty());
        text + &troubles.map(|(app, lines)| format!("\n{}:\n{lines}", app.summary.app.name)).collect::<String>()
    }

    fn names(&self) -> Vec<String> {
        self.found.apps.iter().map(|app| format!("app/{}", app.summary.app.name)).collect()
    }
}

/// What can be seen of a server that lets nobody in.
#[derive(Debug, Serialize)]
struct Outside {
    environment: String,
    deployment: ServerState,
}

impl View for Outside {
    const KIND: &'static str = "Status";

    fn text(&self, style: Text) -> String {
        let environment = ("Environment", Cell::from(self.environment.as_str()));
        pairs(&[vec![environment], deployment::lines(&self.deployment)].concat(), style.paint)
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

pub(crate) async fn run(args: &Status, context: &Context) -> Result<ExitCode> {
    let app: Option<AppName> = args.app.as_deref().map(str::parse).transpose()?;
    let environment = context.environment()?;
    let deployment = deployment::look(&environment, context).await?;
    let schedules = deployment::schedules(&environment, context).await?;
    let asked = async {
        let provisioner = context.provisioner(&environment).await?;
        let found = provisioner.status(app.as_ref()).await?;
        Ok::<_, Error>((provisioner, found))
    };
    // Somebody who answers nothing must not keep back what Kubernetes says.
    let limit = if deployment.is_some() { PATIENCE.min(context.remaining()) } else { context.left() };
    let asked = timeout(limit, asked).await.unwrap_or_else(|_| Err(silent(limit)));
    let (provisioner, found) = match (asked, deployment.as_ref()) {
        (Ok(answer), _) => answer,
        // Somebody who asks how a server is wants to know it all the more when it does not answer.
        (Err(error), Some(deployment)) if error.is_retryable() => {
            let environment = environment.name().to_string();
            context.output.show(&Outside { environment, deployment: deployment.clone() })?;
            return Err(error);
        }
        (Err(error), _) => return Err(error),
    };
    let secret = match (&app, found.apps.as_slice()) {
        (Some(_), [app]) => Some(provisioner.server().secrets().describe(&app.summary.app.secret)),
        _ => None,
    };
    let kept = match &app {
        Some(app) => Kept::of(provisioner.server(), app).await?,
        None => Vec::new(),
    };
    if found.apps.is_empty() {
        context.console.progress(&format!("make an app: shareddb create myapp{}", context.flags()));
    }
    let apps = found.apps.iter().map(|app| app.summary.app.name.clone());
    let backups = freshness::look(args, apps, &environment, context).await;
    context.output.show(&Report { found, deployment, schedules, secret, backups, kept, place: context.flags() })?;
    Ok(ExitCode::SUCCESS)
}

fn silent(limit: Duration) -> Error {
    Error::timeout("timeout", format!("the server has not answered within {}", units::duration(limit)))
        .with_hint("is it busy, or does somebody else answer there? its log says more")
}

fn head<'a>(environment: &str, server: &'a ServerStatus, deployment: Option<&ServerState>) -> Vec<(&'a str, Cell)> {
    let budget = server.budget;
    let mut head = vec![
        ("Environment", environment.into()),
        ("PostgreSQL", server.version.as_str().into()),
        ("Endpoint", server.endpoint.as_str().into()),
    ];
    head.extend(deployment.into_iter().flat_map(deployment::lines));
    head.push((
        "Connections",
        format!("{}/{} promised, {} at once", budget.promised, budget.capacity, server.max_connections).into(),
    ));
    for wall in &server.walls {
        let (word, style) = match wall.state {
            WallState::Stands => ("OK", Style::Good),
            WallState::Missing => ("MISSING", Style::Bad),
            _ => ("UNKNOWN", Style::Warn),
        };
        head.push(("Wall", Cell::led(word, style, &format!("{}: {}", wall.name, wall.detail))));
    }
    head.extend(server.notices.iter().map(|notice| ("Note", notice.as_str().into())));
    head
}

fn table(apps: &[AppStatus], backups: Option<&Freshness>) -> Table {
    let mut heads = vec!["APP", "DATABASE", "LOGIN", "CONNS", "SIZE"];
    heads.extend(backups.map(|_| ["BACKUP", "VERIFIED"]).into_iter().flatten());
    heads.push("STATUS");
    let mut table = Table::new(heads);
    for status in apps {
        let app = &status.summary.app;
        let mut row: Vec<Cell> = vec![
            app.name.as_str().into(),
            app.database.as_str().into(),
            login(status).into(),
            connections(&status.summary),
            size(&status.summary),
        ];
        row.extend(backups.map(|backups| backups.cells(&app.name)).into_iter().flatten());
        row.push(health::state(status));
        table.row(row);
    }
    table
}

fn details<'a>(status: &AppStatus, secret: &str, backups: Option<&Freshness>) -> Vec<(&'a str, Cell)> {
    let app = &status.summary.app;
    let list = |items: Vec<String>| Cell::from(items.join(", "));
    let mut details = vec![
        ("Name", app.name.as_str().into()),
        ("Status", health::state(status)),
        ("Database", app.database.as_str().into()),
        ("Size", size(&status.summary)),
        ("Owner", app.owner.as_str().into()),
        ("User", app.user.as_str().into()),
        ("Limit", format!("{} sessions per login", app.connections).into()),
        ("Schema", app.schema.as_str().into()),
        ("Search path", list(app.effective_search_path())),
        ("Extensions", list(app.extensions.iter().map(ToString::to_string).collect())),
        ("Settings", list(app.settings.iter().map(|(name, value)| format!("{name} = {value}")).collect())),
        ("Secret", secret.into()),
    ];
    details.extend(logins::details(status));
    if let Some([backup, verified]) = backups.map(|backups| backups.cells(&app.name)) {
        details.extend([("Newest backup", backup), ("Verified", verified)]);
    }
    details
}

/// A database that a restore has replaced, and for what.
fn replaced(kept: &Kept) -> String {
    let (size, age) = (units::bytes(kept.bytes), short(kept_for(kept)));
    format!("database {} ({size}), replaced {age} ago by the restore of {}", kept.database, kept.backup)
}

/// The login that the Secret names.
fn login(status: &AppStatus) -> &str {
    status.slot.map_or(NONE, |slot| status.summary.app.login(slot).as_str())
}

/// What is not as it should be with one app, and the command that repairs it, a line each.
fn trouble(status: &AppStatus, environment: &str, paint: Paint) -> String {
    let name = &status.summary.app.name;
    let problem = status.problem.iter().flat_map(|problem| {
        let hint = problem.hint.iter().map(|hint| format!("  fix: {}\n", printable(hint)));
        [format!("  {}\n", printable(&problem.message))].into_iter().chain(hint)
    });
    let notices = status.notices.iter().map(|notice| format!("  note: {}\n", printable(notice)));
    let gaps = status.gaps.iter().map(|gap| format!("  gap: {}\n", printable(&gap.to_string())));
    let drift = status.drift.iter().map(|step| console::change(step.change(), step, paint) + "\n");
    let finish = format!("  finish: shareddb drop {name} -e {environment} --no-backup --confirm {name}\n");
    let repair = format!("  fix: shareddb create {name} -e {environment}\n");
    // A problem has its own way out.
    let finish = (status.summary.dropping && status.problem.is_none()).then_some(finish);
    let repair = (!status.drift.is_empty()).then_some(repair);
    let lines = problem.chain(notices).chain(gaps).chain(drift).chain(finish).chain(repair);
    lines.collect()
}
