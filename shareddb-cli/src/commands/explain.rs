//! `shareddb explain`: what an application would make of the variables that this process has.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{ConnectionConfig, ExplainedField, Result};

use crate::args::Explain;
use crate::context::Context;
use crate::output::{Text, View};
use crate::table::{Cell, Table};

#[derive(Debug, Serialize)]
struct Explanation {
    name: String,
    #[serde(flatten)]
    found: shareddb_core::Explanation,
}

impl View for Explanation {
    const KIND: &'static str = "Explanation";

    fn text(&self, style: Text) -> String {
        let mut table = Table::new(["SETTING", "VALUE", "SOURCE", "ROTATES", "SHADOWS"]);
        for field in &self.found.fields {
            table.row(row(field));
        }
        table.render(style.paint)
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

fn row(field: &ExplainedField) -> Vec<Cell> {
    let shadows: Vec<String> = field.shadows.iter().map(ToString::to_string).collect();
    vec![
        field.name.into(),
        field.value.as_deref().unwrap_or_default().into(),
        field.source.as_str().into(),
        field.rotation.to_string().into(),
        shadows.join(", ").into(),
    ]
}

pub(crate) async fn run(args: &Explain, context: &Context) -> Result<ExitCode> {
    let config = match &args.directory {
        Some(directory) => ConnectionConfig::from_directory(directory)?,
        None => ConnectionConfig::from_env()?,
    };
    context.output.show(&Explanation { name: format!("database/{}", config.database()), found: config.explain() })?;
    Ok(ExitCode::SUCCESS)
}
