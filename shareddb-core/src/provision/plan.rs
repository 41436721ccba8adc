//! The decision what to do: a pure function of what is wanted and what was observed.

use std::fmt;

use serde::Serialize;

use crate::app::{App, AppSpec, Slot};
use crate::change::ChangeCount;
use crate::error::Result;
use crate::mark::{Mark, Progress, RotationRecord};
use crate::postgres::marks::Bearer;
use crate::provision::credential::{self, Credential, Fate, Turn};
use crate::provision::gap::Gap;
use crate::provision::goal::Goal;
use crate::provision::observed::{Observed, SecretFacts};
use crate::provision::step::{PasswordSource, Step};
use crate::provision::{admission, adopt, database_steps, reach, role_steps, walls};
use crate::secrets::Workload;

/// What would be done for one app, in order. Empty: everything is as it should be.
///
/// A plan holds no secret: a password is named by where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Plan {
    /// The app as it will be.
    pub app: App,
    /// Whether the app is recorded already.
    pub exists: bool,
    /// The changes, in order.
    pub steps: Vec<Step>,
    /// The database is closed: what is to be done inside it is decided when these steps have opened it.
    pub partial: bool,
    /// What takes its Secret; `None` where it cannot be told, and where nobody asks: only a rotation does.
    pub workloads: Option<Vec<Workload>>,
    /// What a person should know although nothing will be done about it.
    pub notices: Vec<String>,
    /// What ought to be different and is not for the admin to change, or not without being told to.
    pub gaps: Vec<Gap>,
    /// The login that the Secret is to name, where there is to be one.
    #[serde(skip)]
    pub(crate) in_use: Option<Slot>,
    /// What the record says of a rotation until that has come to its end.
    #[serde(skip)]
    pub(crate) rotation: Option<RotationRecord>,
    #[serde(skip)]
    pub(crate) goal: Goal,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "  {} {step}", step.change().symbol())?;
        }
        writeln!(f, "{}", self.steps.iter().map(Step::change).collect::<ChangeCount>())
    }
}

/// Decides how an app comes to be as its spec says.
///
/// # Errors
/// `Conflict` when something else bears one of its names, `Refused` when the server is unfit or promised to others,
/// `NotFound` when an extension is not installed on the server.
pub(crate) fn plan(spec: &AppSpec, observed: &Observed) -> Result<Plan> {
    let record = observed.record(&spec.name)?;
    if let (None, Some(adopt), Some(legacy)) = (record, &spec.adopt, &observed.legacy) {
        return adopt::plan(spec, adopt, observed, legacy);
    }
    let app = App::derive(spec, &observed.environment, record)?;
    let turn = Turn::keeping(&app, record, observed);
    let mut plan = compose(spec, app, observed, &turn, Goal::Create(spec.clone()))?;
    if turn.rotation.is_some_and(|begun| begun.now) && turn.fate == Fate::Closes {
        plan.notices.push(format!(
            "a rotation because of a leak was cut short before the Secret had a new password: run it again, shareddb rotate {} -e {} --now",
            spec.name, observed.environment
        ));
    }
    Ok(plan)
}

/// Everything that makes an app what it ought to be, with its logins as `turn` says.
///
/// # Errors
/// As [`plan`].
pub(crate) fn compose(spec: &AppSpec, mut app: App, observed: &Observed, turn: &Turn, goal: Goal) -> Result<Plan> {
    let record = observed.record(&spec.name)?;
    let partial = observed.inside.is_none() && observed.database.as_ref().is_some_and(|facts| !facts.invalid);
    if !partial {
        credential::note_issue(&mut app, record, &turn.credential);
    }
    admission::check(spec, &app, record, observed)?;

    let (mut changes, mut gaps) = walls::steps(spec, observed);
    let open = walls::left_open(observed, &changes);
    let progress = progress(record);
    changes.extend(role_steps::roles(&app, &turn.closed(&app, observed), observed, progress));
    if observed.abroad.sessions || !observed.abroad.access.is_empty() {
        let own = app.roles().cloned().collect();
        changes.push(Step::EndAbroad { own, hosts: admission::hosts(&app, observed) });
    }
    changes.extend(database_steps::database(&app, observed));
    changes.extend(adopt::rest(&app, record, observed));
    let reach::Parted { within: changes, gaps: beyond, left } = reach::part(&app, observed, changes);
    gaps.extend(beyond);
    let settled = left.map_or_else(|| app.mark(), |progress| app.mark().while_in(progress));
    let whole = record == Some(&settled) && observed.marks.on(Bearer::Role, app.owner.as_str()).is_some();
    let password = turn.begin(&app, observed);
    let publish = publish_step(&app, observed, &turn.credential);
    let mut steps = Vec::new();
    if !(whole && changes.is_empty() && password.is_empty() && publish.is_none()) {
        steps.extend(begin(&app, observed, progress, turn.rotation));
        steps.extend(changes);
        if !partial {
            steps.extend(password);
            steps.push(Step::Prove { login: app.login(turn.credential.slot).clone(), open, left });
            steps.extend(publish);
            steps.extend(turn.end(&app, observed, left));
        }
    }
    Ok(Plan {
        notices: notices(&app, record, observed, partial).into_iter().chain(walls::losers(&steps, observed)).collect(),
        gaps,
        workloads: observed.takers.known().map(<[Workload]>::to_vec),
        exists: record.is_some(),
        in_use: Some(turn.credential.slot),
        rotation: turn.rotation,
        goal,
        app,
        steps,
        partial,
    })
}

fn notices(app: &App, record: Option<&Mark>, observed: &Observed, partial: bool) -> Vec<String> {
    let closed = partial
        .then(|| format!("database {} is closed: what is to be done inside is decided when it is open", app.database));
    let hidden = observed.takers.notice();
    admission::notices(app, record, observed).into_iter().chain(closed).chain(hidden).collect()
}

/// What the record says until a proof has succeeded: a run that failed or was killed is not forgotten.
fn progress(record: Option<&Mark>) -> Progress {
    match record {
        None | Some(Mark { progress: Some(Progress::Creating), .. }) => Progress::Creating,
        Some(mark) if mark.is_adopting() => Progress::Adopting,
        Some(_) => Progress::Changing,
    }
}

fn begin(app: &App, observed: &Observed, progress: Progress, rotation: Option<RotationRecord>) -> Option<Step> {
    let role = app.owner.clone();
    let mark = app.mark().rotating(rotation).while_in(progress);
    let begun = observed.marks.on(Bearer::Role, role.as_str()) == Some(&mark);
    (observed.roles.contains_key(role.as_str()) && !begun).then_some(Step::MarkOwner { role, progress, rotation })
}

/// The Secret comes last: once it exists, it works.
fn publish_step(app: &App, observed: &Observed, credential: &Credential) -> Option<Step> {
    let current = match &observed.secret {
        SecretFacts::Held(held) => {
            credential.source == PasswordSource::Secret && held.current && held.slot == Some(credential.slot)
        }
        SecretFacts::Absent | SecretFacts::Foreign | SecretFacts::Elsewhere(_) => false,
    };
    let replace = observed.secret != SecretFacts::Absent;
    (!current).then(|| Step::PublishSecret { secret: app.secret.clone(), slot: credential.slot, replace })
}
