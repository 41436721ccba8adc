//! What a dry run prints.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{Change, ChangeCount, Gap, Plan, Result};

use crate::args::DryRun;
use crate::console;
use crate::context::Context;
use crate::output::{Text, View};

/// It worked, and the answer is no: not everything is as it should be.
pub(crate) const CHANGES: u8 = 3;

/// What a command would do.
#[derive(Debug, Serialize)]
pub(crate) struct Preview {
    /// What it is about, such as `app/myapp`.
    name: String,
    changes: Vec<Line>,
    summary: ChangeCount,
    notices: Vec<String>,
    gaps: Vec<Gap>,
}

#[derive(Debug, Serialize)]
struct Line {
    op: Change,
    object: String,
}

impl Preview {
    pub(crate) fn new(name: impl Into<String>, changes: impl IntoIterator<Item = (Change, String)>) -> Self {
        let changes: Vec<Line> = changes.into_iter().map(|(op, object)| Line { op, object }).collect();
        let summary = changes.iter().map(|line| line.op).collect();
        Self { name: name.into(), changes, summary, notices: Vec::new(), gaps: Vec::new() }
    }

    pub(crate) fn of(plan: &Plan) -> Self {
        let changes = plan.steps.iter().map(|step| (step.change(), step.to_string()));
        let (notices, gaps) = (plan.notices.clone(), plan.gaps.clone());
        Self { notices, gaps, ..Self::new(format!("app/{}", plan.app.name), changes) }
    }

    /// The same, after something else.
    pub(crate) fn after(self, first: Option<(Change, String)>) -> Self {
        let changes = self.changes.into_iter().map(|line| (line.op, line.object));
        let (notices, gaps) = (self.notices, self.gaps);
        Self { notices, gaps, ..Self::new(self.name, first.into_iter().chain(changes)) }
    }

    /// Tells what a person should know about it.
    pub(crate) fn notes(&self, context: &Context) {
        self.notices.iter().for_each(|notice| context.console.note(notice));
        self.gaps.iter().for_each(|gap| context.console.note(&gap.to_string()));
    }

    /// Whether there is something to do.
    pub(crate) fn differs(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Prints it, and says how to exit.
    pub(crate) fn show(&self, context: &Context, options: DryRun) -> Result<ExitCode> {
        self.notes(context);
        context.output.show(self)?;
        let differs = options.exit_code && self.differs();
        Ok(if differs { ExitCode::from(CHANGES) } else { ExitCode::SUCCESS })
    }
}

impl View for Preview {
    const KIND: &'static str = "Plan";

    fn text(&self, style: Text) -> String {
        let lines = self.changes.iter().map(|line| console::change(line.op, &line.object, style.paint) + "\n");
        let summary = format!("{}. Nothing was changed (dry run).\n", self.summary);
        lines.chain([summary]).collect()
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}
