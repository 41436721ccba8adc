//! Reading everything a plan needs, in as few round trips as it takes.

use std::collections::BTreeMap;

use futures_util::future::{try_join, try_join4};
use secrecy::SecretString;

use crate::app::{App, AppSpec, Slot};
use crate::credentials::{self, Issue};
use crate::error::Result;
use crate::mark::Mark;
use crate::password;
use crate::postgres::facts::{AbroadFacts, DatabaseFacts, InsideFacts, ServerFacts};
use crate::postgres::legacy::Inventory;
use crate::postgres::marks::Marks;
use crate::postgres::session::AdminSession;
use crate::postgres::{catalog, clients, extensions, inventory};
use crate::provision::goal::Goal;
use crate::provision::observed::{HeldSecret, Observed, SecretFacts};
use crate::provision::takers::Takers;
use crate::provision::{admission, adopt, proof};
use crate::secrets::{SecretData, SecretVersion, StoredSecret};
use crate::server::Server;

/// A reading, and beside it what is secret in it.
pub(crate) struct Observation {
    pub(crate) observed: Observed,
    /// The Secret's password, when it has one.
    pub(crate) password: Option<SecretString>,
    /// The Secret's state, when it is the app's.
    pub(crate) version: Option<SecretVersion>,
    /// All of the Secret, when it is the app's.
    pub(crate) stored: Option<SecretData>,
}

/// What is the same for every app of a server.
#[derive(Clone)]
pub(crate) struct Survey {
    pub(crate) server: ServerFacts,
    pub(crate) marks: Marks,
}

impl Survey {
    pub(crate) async fn of(server: &Server, session: &AdminSession) -> Result<Self> {
        let (server, marks) = try_join(server.facts(session), Marks::read(session)).await?;
        Ok(Self { server, marks })
    }
}

/// Reads the server and one app's part of it, as far as the goal takes it. Nothing is written.
///
/// # Errors
/// Whatever hinders a complete reading: half of one would make a wrong plan.
pub(crate) async fn observe(server: &Server, session: &AdminSession, goal: &Goal) -> Result<Observation> {
    let spec = goal.spec();
    let mut observation = observe_app(server, session, Survey::of(server, session).await?, &spec).await?;
    if let (Goal::Rotate(..), Some(record)) = (goal, observation.observed.record(&spec.name)?) {
        observation.observed.takers = takers(server, &App::recorded(record)?).await;
    }
    Ok(observation)
}

/// Who takes an app's Secret. What hinders looking is part of the answer: a password that has got into wrong hands is changed all
/// the same.
pub(crate) async fn takers(server: &Server, app: &App) -> Takers {
    match server.secrets().workloads(&app.secret).await {
        Ok(Some(workloads)) => Takers::Known(workloads),
        Ok(None) => Takers::Unknown,
        Err(error) => Takers::Hidden(error.into()),
    }
}

/// Reads one app's part, where the rest is known.
///
/// # Errors
/// As [`observe`].
pub(crate) async fn observe_app(
    server: &Server,
    session: &AdminSession,
    survey: Survey,
    spec: &AppSpec,
) -> Result<Observation> {
    admission::check_server(&survey.server)?;
    let mut observed = Observed {
        environment: server.environment().clone(),
        server: survey.server,
        marks: survey.marks,
        roles: BTreeMap::new(),
        database: None,
        inside: None,
        available: BTreeMap::new(),
        clients: Vec::new(),
        takers: Takers::default(),
        abroad: AbroadFacts::default(),
        secret: SecretFacts::Absent,
        legacy: None,
        inventory: None,
    };
    let record = observed.record(&spec.name)?.cloned();
    let trace = match (&record, &spec.adopt) {
        (None, Some(_)) => Some(adopt::look(server, spec).await?),
        _ => None,
    };
    let spec = trace.as_ref().map_or(spec, |trace| &trace.spec);
    let app = App::derive(spec, server.environment(), record.as_ref())?;

    let roles: Vec<String> = app.roles().map(ToString::to_string).collect();
    let residents: Vec<String> = app.residents().map(ToString::to_string).collect();
    let guests: Vec<String> = app.guests().map(ToString::to_string).collect();
    let own = app.database.as_str();
    let hosts = admission::hosts(&app, &observed);
    let ((roles, verifiers), database, (abroad, clients), secret) = try_join4(
        catalog::roles(session, &observed.server, &residents, own),
        catalog::database(session, own, &roles, &guests),
        try_join(catalog::abroad(session, own, &roles, &hosts), clients::of(session, &app.logins)),
        server.secrets().load(&app.secret),
    )
    .await?;
    observed.clients = clients;
    // What they have there goes with these databases.
    observed.abroad = abroad.without(&observed.marks.copies_of(&app.name).collect());
    observed.roles = roles;
    observed.database = database;
    let adopting = record.as_ref().is_some_and(Mark::is_adopting);
    (observed.inside, observed.inventory) = inside(server, &app, &observed, adopting).await?;
    let wanted: Vec<&str> = match &observed.inside {
        Some(inside) => inside.missing(&app.extensions).map(AsRef::as_ref).collect(),
        None => app.extensions.iter().map(AsRef::as_ref).collect(),
    };
    observed.available = extensions::available(session, &wanted).await?;
    if record.is_none_or(|mark| mark.settings != app.settings) {
        catalog::check_settings(session, &observed.server, &app.settings).await?;
    }

    if let Some(trace) = trace {
        observed.legacy = Some(Box::new(trace.follow(server, session, &app, &observed, &verifiers).await?));
        let password = trace.password().cloned();
        let (version, stored) = trace.secret.map(|secret| (secret.version, secret.data)).unzip();
        return Ok(Observation { observed, password, version, stored });
    }
    let mut observation = Observation { observed, password: None, version: None, stored: None };
    if let Some(secret) = secret {
        observation.take_secret(server, &app, &verifiers, secret).await?;
    }
    Ok(observation)
}

async fn inside(
    server: &Server,
    app: &App,
    observed: &Observed,
    adopting: bool,
) -> Result<(Option<InsideFacts>, Option<Box<Inventory>>)> {
    let admitted = |facts: &DatabaseFacts| {
        observed.server.superuser || facts.owner == observed.server.admin && !facts.login_trigger
    };
    let enterable = |facts: &DatabaseFacts| facts.allows_connections && !facts.invalid && admitted(facts);
    if !(observed.owns_database(app) && observed.database.as_ref().is_some_and(enterable)) {
        return Ok((None, None));
    }
    let session = server.tenant_session(app.database.as_str(), &observed.server).await?;
    let facts = catalog::inside(&session, app).await?;
    let version = observed.server.version;
    let inventory = match adopting {
        true => Some(Box::new(inventory::inside(&session, app.owner.as_str(), version).await?)),
        false => None,
    };
    Ok((Some(facts), inventory))
}

impl Observation {
    async fn take_secret(
        &mut self,
        server: &Server,
        app: &App,
        verifiers: &BTreeMap<String, String>,
        secret: StoredSecret,
    ) -> Result<()> {
        // One that was made by hand is the app's, once its record says that it is being adopted.
        let by_hand = secret.app.is_none() && app.adopted.is_some();
        if secret.app.as_ref() != Some(&app.name) && !by_hand {
            self.observed.secret = SecretFacts::Foreign;
            return Ok(());
        }
        let stored = match by_hand {
            true => credentials::Stored::by_hand(&secret.data),
            false => credentials::read(app, &secret.data),
        };
        let slot = app.slot_of(&stored.user);
        let works = if self.observed.server.superuser {
            Slot::ALL.map(|slot| {
                verifiers
                    .get(app.login(slot).as_str())
                    .is_some_and(|verifier| password::accepts(verifier, app.login(slot).as_str(), &stored.password))
            })
        } else {
            self.tried(server, app, slot.filter(|_| stored.complete), &stored.password).await?
        };
        let login = app.login(slot.unwrap_or(Slot::One));
        let config = server.secret_config(app, login, stored.password.clone());
        let place = credentials::place(&secret.data);
        if stored.complete && works == [false; 2] && place != format!("{}:{}", config.host(), config.port()) {
            self.observed.secret = SecretFacts::Elsewhere(place);
            return Ok(());
        }
        let expected = credentials::write(app, &config);
        self.observed.secret = SecretFacts::Held(HeldSecret {
            slot,
            complete: stored.complete,
            current: !by_hand
                && expected.is_ok_and(|expected| credentials::missing(app, &secret.data, &expected).is_empty()),
            works,
            issue: Issue::of(app, &secret.data),
        });
        self.password = Some(stored.password);
        self.version = Some(secret.version);
        self.stored = Some(secret.data);
        Ok(())
    }

    /// Whether a password works, where verifiers cannot be read: found out by logging in, with the login that the Secret
    /// names, or with both when it does not say which.
    async fn tried(
        &self,
        server: &Server,
        app: &App,
        named: Option<Slot>,
        password: &SecretString,
    ) -> Result<[bool; 2]> {
        let mut works = [false; 2];
        for slot in Slot::ALL.into_iter().filter(|slot| named.is_none_or(|named| named == *slot)) {
            let login = app.login(slot);
            if self.observed.roles.get(login.as_str()).is_some_and(|facts| facts.shape.login) {
                works[slot as usize] = proof::accepts(&server.app_config(app, login, password.clone())).await?;
            }
        }
        Ok(works)
    }
}
