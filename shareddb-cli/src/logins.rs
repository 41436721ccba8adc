//! An app's logins, who uses them, and who has not taken a new password yet.

use shareddb_core::{AppStatus, Client, Delivery, LoginState, LoginStatus, Workload};

use crate::color::Style;
use crate::moments::age;
use crate::table::Cell;

/// Who still lives on a password before the one in the Secret.
const BEHIND: &str = "BEHIND";

/// The lines of one app.
pub(crate) fn details(status: &AppStatus) -> Vec<(&'static str, Cell)> {
    let mut lines: Vec<(&str, Cell)> = status.logins.iter().map(|login| ("Login", described(login).into())).collect();
    lines.extend(password(status).map(|text| ("Password", text.into())));
    lines.extend(status.clients.iter().map(|client| ("Sessions", sessions(client, status))));
    lines.extend(status.workloads.iter().flatten().map(|workload| ("Taken by", taken(workload, status))));
    lines.extend(
        status.workloads_hidden.iter().map(|problem| ("Taken by", Cell::led("UNKNOWN", Style::Warn, &problem.message))),
    );
    lines
}

fn described(login: &LoginStatus) -> String {
    let LoginStatus { role, state, ends, sessions, .. } = login;
    let state = match (state, ends) {
        (LoginState::InUse, None) => state.as_str().to_owned(),
        (LoginState::InUse, Some(end)) => format!("in use, until {end}"),
        (LoginState::Ending, Some(end)) => format!("works until {end}"),
        (LoginState::Open, _) => "works, and has no end".to_owned(),
        (LoginState::Ended, Some(end)) => format!("ended {} ago", age(*end)),
        (state, _) => state.as_str().to_owned(),
    };
    format!("{role} {state}, {sessions} sessions")
}

fn password(status: &AppStatus) -> Option<String> {
    let since = status.password_since.map(|since| format!("since {since} ({} ago)", age(since)));
    match (status.generation, since) {
        (Some(generation), Some(since)) => Some(format!("generation {generation}, {since}")),
        (Some(generation), None) => Some(format!("generation {generation}")),
        (None, since) => since,
    }
}

fn sessions(client: &Client, status: &AppStatus) -> Cell {
    let text = format!("{client} as {}", client.login);
    if is_behind(client, status) { Cell::led(BEHIND, Style::Warn, &text) } else { text.into() }
}

fn is_behind(client: &Client, status: &AppStatus) -> bool {
    let Some(slot) = status.slot else { return false };
    let older = client.generation.zip(status.generation).is_some_and(|(own, newest)| own < newest);
    client.login != status.summary.app.login(slot).as_str() || older
}

fn taken(workload: &Workload, status: &AppStatus) -> Cell {
    let how = match workload.delivery {
        Delivery::Environment => "variables",
        Delivery::SubPath => "a file that does not follow",
        _ => "files that follow",
    };
    let pods = match workload.pods.len() {
        1 => "1 pod".to_owned(),
        pods => format!("{pods} pods"),
    };
    let before =
        status.password_since.map_or(0, |since| workload.pods.iter().filter(|pod| pod.started < since).count());
    if before == 0 || !workload.delivery.needs_restart() {
        return format!("{workload}, by {how}, {pods}").into();
    }
    let text = format!("{workload}, by {how}, {pods}, {before} of them from before this password");
    Cell::led(BEHIND, Style::Warn, &text)
}
