//! `shareddb list`.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{AppStatus, AppSummary, Result};

use crate::context::Context;
use crate::health;
use crate::output::{Text, View};
use crate::table::{Cell, Table};
use crate::units;

#[derive(Debug, Serialize)]
struct AppList {
    items: Vec<AppStatus>,
}

impl View for AppList {
    const KIND: &'static str = "AppList";

    fn text(&self, style: Text) -> String {
        let mut heads = vec!["NAME", "DATABASE", "SIZE", "CONNS", "STATUS"];
        if style.wide {
            heads.extend(["USER", "SECRET", "SCHEMA", "OWNER"]);
        }
        let mut table = Table::new(heads);
        for item in &self.items {
            let app = &item.summary.app;
            let mut row: Vec<Cell> = vec![
                app.name.as_str().into(),
                app.database.as_str().into(),
                size(&item.summary),
                connections(&item.summary),
                health::state(item),
            ];
            if style.wide {
                row.extend(
                    [&app.user.as_str(), &app.secret.as_str(), &app.schema.as_str(), &app.owner.as_str()]
                        .map(|text| Cell::from(*text)),
                );
            }
            table.row(row);
        }
        table.render(style.paint)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| format!("app/{}", item.summary.app.name)).collect()
    }
}

pub(crate) async fn run(context: &Context) -> Result<ExitCode> {
    let environment = context.environment()?;
    let found = context.provisioner(&environment).await?.status(None).await?;
    health::notes(&found, context);
    let list = AppList { items: found.apps };
    if list.items.is_empty() {
        let (name, place) = (environment.name(), context.flags());
        context.console.progress(&format!("no apps in env {name}; make one: shareddb create myapp{place}"));
    }
    context.output.show(&list)?;
    Ok(ExitCode::SUCCESS)
}

/// The size of an app's database.
pub(crate) fn size(summary: &AppSummary) -> Cell {
    summary.size.map(units::size).unwrap_or_default().into()
}

/// Sessions at this moment, and how many each login may have.
pub(crate) fn connections(summary: &AppSummary) -> Cell {
    format!("{}/{}", summary.sessions, summary.app.connections).into()
}
