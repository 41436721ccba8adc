//! How an app is, in one word, and what to say of those that are not well.

use shareddb_core::{AppState, AppStatus, Status, WallState};

use crate::color::Style;
use crate::context::Context;
use crate::table::Cell;

/// The word.
pub(crate) fn state(status: &AppStatus) -> Cell {
    let state = status.state();
    let style = match state {
        AppState::Ok => Style::Good,
        AppState::NoDatabase | AppState::Problem => Style::Bad,
        _ => Style::Warn,
    };
    Cell::styled(state.to_string(), style)
}

/// What a person should know who sees no more than the words.
pub(crate) fn notes(found: &Status, context: &Context) {
    let (console, place) = (&context.console, context.flags());
    let server = &found.server;
    server.notices.iter().for_each(|notice| console.note(notice));
    for wall in &server.walls {
        if wall.state != WallState::Stands {
            console.note(&format!("wall {} is {}: {}", wall.name, wall.state.as_str(), wall.detail));
        }
    }
    let unwell: Vec<&str> =
        found.apps.iter().filter(|app| !app.is_well()).map(|app| app.summary.app.name.as_str()).collect();
    match unwell.as_slice() {
        [] => {}
        [app] => console.note(&format!("`shareddb status {app}{place}` tells more")),
        apps => console.note(&format!("{}: `shareddb status{place}` tells more", apps.join(", "))),
    }
}
