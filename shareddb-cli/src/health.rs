//! How an app is, in one word, and what to say of those that are not well.

use shareddb_core::{AppStatus, Change, Status, Step, WallState};

use crate::color::Style;
use crate::context::Context;
use crate::table::Cell;

/// Whether there is nothing to tell about an app.
pub(crate) fn is_well(status: &AppStatus) -> bool {
    !status.summary.dropping
        && status.problem.is_none()
        && status.notices.is_empty()
        && status.gaps.is_empty()
        && status.drift.is_empty()
}

/// The word.
pub(crate) fn state(status: &AppStatus) -> Cell {
    if status.summary.dropping {
        Cell::styled("dropping", Style::Warn)
    } else if status.summary.size.is_none()
        && status.problem.as_ref().is_none_or(|problem| problem.code != "out_of_reach")
    {
        Cell::styled("NO DATABASE", Style::Bad)
    } else if !status.drift.is_empty() {
        // That something has begun, and the trial login at the end, only follow from the changes.
        let follows = |step: &&Step| {
            step.change() == Change::Check || matches!(step, Step::MarkOwner { .. } | Step::EndRotation { .. })
        };
        let changes = status.drift.iter().filter(|step| !follows(step)).count();
        Cell::styled(format!("DRIFT {}", changes.max(1)), Style::Warn)
    } else if status.problem.is_some() {
        Cell::styled("PROBLEM", Style::Bad)
    } else if !status.gaps.is_empty() {
        Cell::styled(format!("GAPS {}", status.gaps.len()), Style::Warn)
    } else {
        Cell::styled("OK", Style::Good)
    }
}

/// What a person should know who sees no more than the words.
pub(crate) fn notes(found: &Status, context: &Context) {
    let (console, place) = (&context.console, context.flags());
    let server = &found.server;
    server.notices.iter().for_each(|notice| console.note(notice));
    for wall in &server.walls {
        let is = match wall.state {
            WallState::Stands => continue,
            WallState::Missing => "missing",
            _ => "unknown",
        };
        console.note(&format!("wall {} is {is}: {}", wall.name, wall.detail));
    }
    let unwell: Vec<&str> =
        found.apps.iter().filter(|app| !is_well(app)).map(|app| app.summary.app.name.as_str()).collect();
    match unwell.as_slice() {
        [] => {}
        [app] => console.note(&format!("`shareddb status {app}{place}` tells more")),
        apps => console.note(&format!("{}: `shareddb status{place}` tells more", apps.join(", "))),
    }
}
