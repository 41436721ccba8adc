//! The server as Kubernetes sees it: what `kubectl get pods, services, pvc` would show.

use shareddb_core::{Deployer, Environment, PodState, Result, ScheduleState, Scheduler, ServerState};

use crate::color::Style;
use crate::context::Context;
use crate::moments::{age, minute};
use crate::table::{Cell, NONE};

/// Looks at it. `None` where the server is not one that is deployed to a namespace, and where that may not be seen, which is
/// noted.
///
/// # Errors
/// When the kubeconfig or the API is out of reach.
pub(crate) async fn look(environment: &Environment, context: &Context) -> Result<Option<ServerState>> {
    if environment.local_server().is_some() {
        return Ok(None);
    }
    let deployer = match Deployer::new(environment).await {
        Ok(deployer) => deployer,
        Err(error) if error.code() == "not_deployable" => return Ok(None),
        Err(error) => return Err(error),
    };
    match deployer.state().await {
        Ok(state) => Ok(Some(state).filter(|state| state.deployed)),
        Err(error) if error.code() == "api_forbidden" => {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            context.console.note(&format!("pod, Service and volume are not shown: {error}{hint}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Looks at the schedules of its backups. None where there are no such things, and where they may not be seen, which is noted.
///
/// # Errors
/// As [`look`].
pub(crate) async fn schedules(environment: &Environment, context: &Context) -> Result<Vec<ScheduleState>> {
    if environment.local_server().is_some() {
        return Ok(Vec::new());
    }
    let scheduler = match Scheduler::new(environment).await {
        Ok(scheduler) => scheduler,
        Err(error) if error.code() == "not_deployable" => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    match scheduler.state().await {
        Err(error) if error.code() == "api_forbidden" => {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            context.console.note(&format!("schedules of backups are not shown: {error}{hint}"));
            Ok(Vec::new())
        }
        found => found,
    }
}

/// What there is to say of a schedule.
pub(crate) fn schedule(state: &ScheduleState) -> Cell {
    let now = if state.running { "running now, " } else { "" };
    let next = state.next.map_or("suspended".to_owned(), |next| format!("next run {}", minute(next)));
    let last = state.last_success.map_or("no success yet".to_owned(), |last| format!("last success {} ago", age(last)));
    let text = format!("{}  {}, {now}{next}, {last}", state.name, state.cron);
    match (state.is_behind(), state.next) {
        (true, _) => Cell::led("NOT DONE", Style::Warn, &text),
        (false, None) => Cell::led("SUSPENDED", Style::Warn, &text),
        (false, Some(_)) => Cell::led("OK", Style::Good, &text),
    }
}

/// A line for each thing.
pub(crate) fn lines(state: &ServerState) -> Vec<(&'static str, Cell)> {
    let mut lines: Vec<(&str, Cell)> = state.pods.iter().map(|pod| ("Pod", pod_line(pod))).collect();
    if let Some(trouble) = state.trouble.as_ref() {
        lines.push(("Trouble", Cell::styled(trouble, Style::Bad)));
    }
    if let Some(service) = &state.service {
        let endpoints = service.endpoints.join(", ");
        let text = format!("{}  {}:{} → {}", service.name, service.address, service.port, or_none(&endpoints));
        lines.push(("Service", judged(!endpoints.is_empty(), "NO POD", &text)));
    }
    if let Some(claim) = &state.claim {
        let class = claim.class.as_deref().map(|class| format!(", class {class}")).unwrap_or_default();
        let volume = claim.volume.as_deref().map(|volume| format!(", volume {volume}")).unwrap_or_default();
        let text = format!("{}  {}{class}{volume}", claim.name, claim.size);
        lines.push(("Volume", judged(claim.phase == "Bound", &claim.phase, &text)));
    }
    if let Some(day) = &state.certificate_ends {
        lines.push(("Certificate", format!("until {day}; a deploy renews it in the year before").into()));
    }
    lines
}

fn pod_line(pod: &PodState) -> Cell {
    let since = pod.started.as_deref().map(|since| format!(", since {since}")).unwrap_or_default();
    let node = pod.node.as_deref().map(|node| format!(", node {node}")).unwrap_or_default();
    let text = format!("{}  {}, {} restarts{node}{since}", pod.name, pod.image, pod.restarts);
    let word = if pod.phase == "Running" { "NOT READY" } else { &pod.phase };
    judged(pod.ready && pod.phase == "Running", word, &text)
}

fn judged(well: bool, otherwise: &str, text: &str) -> Cell {
    if well { Cell::led("OK", Style::Good, text) } else { Cell::led(otherwise, Style::Bad, text) }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { NONE } else { text }
}
