//! Whether an app may come to be on this server at all.

use std::collections::BTreeSet;

use crate::app::{App, AppSpec};
use crate::error::{Error, Result};
use crate::mark::{Mark, Progress};
use crate::names::{AppName, SchemaName};
use crate::postgres::facts::{InsideFacts, ServerFacts};
use crate::postgres::marks::Bearer;
use crate::postgres::statements;
use crate::provision::budget::Budget;
use crate::provision::observed::{Observed, SecretFacts};
use crate::provision::reach;

/// Every reason to stop before the first write.
pub(crate) fn check(spec: &AppSpec, app: &App, record: Option<&Mark>, observed: &Observed) -> Result<()> {
    check_server(&observed.server)?;
    check_records(app, observed)?;
    check_claims(app, observed)?;
    check_data(app, record, observed)?;
    check_roles(app, record, observed)?;
    check_database(app, record, observed)?;
    check_secret(app, observed)?;
    check_extensions(app, observed)?;
    reach::check(app, observed)?;
    reach::check_entry(app, observed)?;
    if spec.allow_overcommit || record.is_some_and(|mark| mark.connections >= app.connections) {
        return Ok(());
    }
    Budget::of(other_apps(&app.name, observed), observed.server.max_connections).check(app)
}

/// What is worth saying although it stops nothing.
pub(crate) fn notices(app: &App, record: Option<&Mark>, observed: &Observed) -> Vec<String> {
    let elsewhere = record.filter(|mark| mark.environment != observed.environment).map(|mark| {
        format!(
            "app {} was made in environment {}, and this is {}: is it the right server?",
            mark.app, mark.environment, observed.environment
        )
    });
    let nowhere = leads_nowhere(app, observed)
        .then(|| format!("the search path of app {} names no schema that exists", app.name));
    let enterable = observed.abroad.enterable.iter().map(|(database, role)| {
        format!("database {database} is not the app's, and role {role} can get into it: it owns it, or has its name")
    });
    let before = observed.roles.get(app.owner.as_str()).filter(|owner| owner.sessions > 0).map(|owner| {
        format!(
            "{} sessions of app {} are from before it was adopted, and go on as {}",
            owner.sessions, app.name, app.owner
        )
    });
    elsewhere.into_iter().chain(nowhere).chain(enterable).chain(before).collect()
}

/// Whether no schema on the search path exists, nor will by what is planned.
fn leads_nowhere(app: &App, observed: &Observed) -> bool {
    let exists = |schema: &SchemaName| match &observed.inside {
        Some(inside) => inside.schemas.contains_key(schema.as_str()),
        None => schema.as_str() == "public",
    };
    !app.search_path.iter().any(|schema| *schema == app.schema || exists(schema))
}

/// A record that cannot be read stops the app that it is about, and no other.
pub(crate) fn check_records(app: &App, observed: &Observed) -> Result<()> {
    let bears = |bearer, name: &str| match bearer {
        Bearer::Role => app.roles().any(|role| role.as_str() == name),
        Bearer::Database => name == app.database.as_str(),
    };
    match observed.marks.unreadable.iter().find(|mark| bears(mark.bearer, &mark.name)) {
        Some(mark) => Err(mark.error()),
        None => Ok(()),
    }
}

/// Whether the server and the admin are fit at all; reading the rest needs that, too.
pub(crate) fn check_server(server: &ServerFacts) -> Result<()> {
    server.version.check()?;
    if server.superuser {
        return Ok(());
    }
    let (admin, major) = (&server.admin, server.version.major());
    let unfit = |message| Error::refused("admin_unfit", message);
    if !server.version.has_plain_admins() {
        return Err(unfit(format!("the admin role {admin:?} is no superuser, and PostgreSQL {major} needs one"))
            .with_hint("log in as a superuser of the server; from 16 on, CREATEDB and CREATEROLE are enough"));
    }
    let has = [("CREATEDB", server.powers.createdb), ("CREATEROLE", server.powers.createrole)];
    let missing: Vec<&str> = has.into_iter().filter(|(_, has)| !has).map(|(attribute, _)| attribute).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("the admin role {admin:?} is neither a superuser nor has {}", missing.join(" and "));
    Err(unfit(message).with_hint(format!("as a superuser: {}", statements::empower(admin, &missing))))
}

/// Data that are gone are not replaced by an empty database, unless they never were whole. A drop that has not reached them
/// can be undone by create.
fn check_data(app: &App, record: Option<&Mark>, observed: &Observed) -> Result<()> {
    let gone = observed.database.as_ref().is_none_or(|database| database.invalid);
    let (name, database, environment) = (&app.name, app.database.as_str(), &observed.environment);
    let other = observed.marks.other_databases(app).next();
    let drop = format!("shareddb drop {name} -e {environment} --no-backup --confirm {name}");
    match record.map(|mark| mark.progress) {
        Some(Some(Progress::Dropping)) if gone => {
            Err(Error::refused("drop_unfinished", format!("app {name} is half dropped, its data are gone"))
                .with_hint(format!("finish that first: {drop}")))
        }
        Some(progress) if gone && (progress != Some(Progress::Creating) || other.is_some()) => {
            let error = Error::refused("database_lost", format!("app {name} has lost its database {database}"));
            Err(match other {
                Some(other) => error.with_hint(format!(
                    "database {other} bears its record; was it renamed? undo that with: {}",
                    statements::rename_database(other, database)
                )),
                None => error.with_hint(format!(
                    "bring it back under that name; or else begin anew with an empty one: {drop}, and then: shareddb create {name} -e {environment}"
                )),
            })
        }
        _ => Ok(()),
    }
}

/// Nothing of this app's is another app's by the word of that one's record: a record can claim more than is right.
pub(crate) fn check_claims(app: &App, observed: &Observed) -> Result<()> {
    for other in other_apps(&app.name, observed) {
        if let Some(role) = app.roles().find(|role| other.roles().any(|name| name == *role)) {
            let of_both = observed.marks.records().contains_key(&app.name);
            let error = taken("role", role.as_str(), &format!("it belongs to app {}", other.name));
            return Err(if of_both {
                error
                    .with_hint("the records of the two apps contradict each other: set right the comment that is wrong")
            } else {
                error
            });
        }
    }
    match observed.marks.on(Bearer::Role, app.owner.as_str()) {
        Some(mark) if mark.app != app.name => {
            Err(taken("role", app.owner.as_str(), &format!("it bears the record of app {}", mark.app)))
        }
        _ => Ok(()),
    }
}

/// Roles bear no mark but the owner: the app's record vouches for its logins.
fn check_roles(app: &App, record: Option<&Mark>, observed: &Observed) -> Result<()> {
    let exists = |role: &&str| observed.roles.contains_key(*role);
    if let (None, Some(role)) = (record, app.roles().map(AsRef::as_ref).find(exists)) {
        return Err(made_by_hand("role", role));
    }
    let unmarked = observed.roles.contains_key(app.owner.as_str())
        && observed.marks.on(Bearer::Role, app.owner.as_str()).is_none();
    if unmarked { Err(lost_mark(Bearer::Role, app)) } else { Ok(()) }
}

fn check_database(app: &App, record: Option<&Mark>, observed: &Observed) -> Result<()> {
    let name = app.database.as_str();
    if observed.database.is_none() || observed.owns_database(app) {
        return Ok(());
    }
    match (observed.marks.on(Bearer::Database, name), record) {
        (Some(mark), _) => Err(taken("database", name, &format!("it belongs to app {}", mark.app))),
        (None, Some(_)) => Err(match observed.marks.other_databases(app).next() {
            Some(other) => Error::conflict(
                "mark_lost",
                format!("database {name} does not bear the record of app {}, and {other} does", app.name),
            )
            .with_hint(format!(
                "which is the app's? if {other} is, move {name} away, and: {}",
                statements::rename_database(other, name)
            )),
            None => lost_mark(Bearer::Database, app),
        }),
        (None, None) => Err(made_by_hand("database", name)),
    }
}

fn check_secret(app: &App, observed: &Observed) -> Result<()> {
    if let SecretFacts::Elsewhere(place) = &observed.secret {
        let message = format!("Secret {} is that of an app {} on another server: {place}", app.secret, app.name);
        return Err(Error::conflict("secret_elsewhere", message).with_hint(
            "two servers need two places of Secrets (namespace, or store in shareddb.toml); if that server is no more, delete the Secret",
        ));
    }
    if observed.secret != SecretFacts::Foreign {
        return Ok(());
    }
    Err(Error::conflict("secret_taken", format!("Secret {} exists and is not that of app {}", app.secret, app.name))
        .with_hint("move it away, or choose another app name"))
}

/// An extension's script runs with the admin's rights, and finds names in its own schema and in those of the extensions that
/// it needs: in none of them may the app be able to create, and what is there must not be its own to move. What is seen here to
/// be so, the app cannot change.
fn check_extensions(app: &App, observed: &Observed) -> Result<()> {
    let fresh = InsideFacts::fresh();
    let inside = observed.inside.as_ref().unwrap_or(&fresh);
    let wanted = inside.missing(&app.extensions).map(|wanted| (wanted.as_str(), String::new()));
    let needed = observed.available.iter().flat_map(|(wanted, facts)| {
        facts.requires.iter().map(move |needed| (needed.as_str(), format!(", which {wanted} needs")))
    });
    for (name, why) in wanted.chain(needed) {
        match (inside.extensions.get(name), observed.available.contains_key(name)) {
            (Some(found), _) if !(found.of_admin && inside.safe_schemas.contains(&found.schema)) => {
                return Err(unsafe_extension(name, &found.schema));
            }
            (Some(_), _) => {}
            (None, true) => {
                check_schema(name, observed.extension_schema(name), inside)?;
                check_maker(name, app, observed)?;
            }
            (None, false) => {
                let message = format!("the server does not have extension {name}{why}");
                return Err(Error::not_found("extension_missing", message).with_hint(
                    "install its package on the server; `SELECT name FROM pg_available_extensions` lists what is there",
                ));
            }
        }
    }
    Ok(())
}

/// An admin who is no superuser makes only extensions that the server calls trusted.
fn check_maker(extension: &str, app: &App, observed: &Observed) -> Result<()> {
    let superuser_only = observed.available.get(extension).is_some_and(|facts| facts.superuser_only);
    if observed.server.superuser || !superuser_only {
        return Ok(());
    }
    let (admin, database) = (&observed.server.admin, &app.database);
    let schema = observed.extension_schema(extension);
    // Only one that was seen to be safe is used as it is: meanwhile the app can make one of that name.
    let made = match &observed.inside {
        Some(inside) => inside.schemas.contains_key(schema),
        None => InsideFacts::fresh().schemas.contains_key(schema),
    };
    let make = (!made).then(|| statements::extension_schema_by_superuser(schema, app.owner.as_str(), admin));
    let mut statement: Vec<String> = make.into_iter().flatten().collect();
    statement.push(statements::create_extension(extension, schema));
    let statement = statements::typed(&statement);
    let first = if observed.database.is_none() { "create the app without it first; then, " } else { "" };
    let message = format!("only a superuser makes extension {extension}, and {admin} is none");
    Err(Error::refused("extension_forbidden", message)
        .with_hint(format!("{first}as a superuser in database {database}: {statement}")))
}

fn unsafe_extension(name: &str, schema: &str) -> Error {
    Error::refused(
        "extension_unsafe",
        format!("extension {name} is needed, and the one in schema {schema} is the app's, or is where it can create"),
    )
    .with_hint(format!("let the app drop extension {name}: then the admin makes it where that is safe"))
}

/// The schema that an extension goes into: one that is there has to be a superuser's own.
fn check_schema(extension: &str, schema: &str, inside: &InsideFacts) -> Result<()> {
    match inside.schemas.get(schema) {
        Some(owner) if !inside.safe_schemas.contains(schema) => Err(Error::conflict(
            "schema_taken",
            format!(
                "extension {extension} goes into schema {schema} of {owner}, where others than an admin create or have objects"
            ),
        )
        .with_hint("rename or drop that schema as the app: what an admin makes must not be where the app can create")),
        _ => Ok(()),
    }
}

/// Every role of every other app.
pub(crate) fn roles_of_others(except: &AppName, observed: &Observed) -> BTreeSet<String> {
    other_apps(except, observed).flat_map(|app| app.roles().map(ToString::to_string).collect::<Vec<_>>()).collect()
}

pub(crate) fn other_apps<'a>(except: &'a AppName, observed: &'a Observed) -> impl Iterator<Item = App> + 'a {
    let others = observed.marks.records().into_values().filter(move |mark| mark.app != *except);
    others.filter_map(|mark| App::recorded(mark).ok())
}

/// Databases of other apps that this one was let into when they were adopted.
pub(crate) fn hosts(app: &App, observed: &Observed) -> Vec<String> {
    let invites = |other: &App| app.roles().any(|role| other.is_guest(role.as_str()));
    other_apps(&app.name, observed).filter(invites).map(|other| other.database.to_string()).collect()
}

fn taken(kind: &str, name: &str, why: &str) -> Error {
    Error::conflict("name_taken", format!("{kind} {name:?} cannot be used: {why}"))
        .with_hint("choose another name for the app, or other ones with --database and --user")
}

fn made_by_hand(kind: &str, name: &str) -> Error {
    taken(kind, name, "it exists and is not shareddb's").with_hint(
        "choose another name for the app, or other ones with --database and --user; if the app was made by hand, --adopt \
         takes it over",
    )
}

fn lost_mark(bearer: Bearer, app: &App) -> Error {
    let statement = match bearer {
        Bearer::Role => statements::mark_role(app.owner.as_str(), &app.mark()),
        Bearer::Database => statements::mark_database(app.database.as_str(), &app.mark().of_database()),
    };
    let (kind, mark) = (bearer.as_str(), app.mark());
    Error::conflict(
        "mark_lost",
        format!("{kind} {} has the name of app {} and not its record", mark.name_of(bearer), app.name),
    )
    .with_hint(format!("if it is the app's, say so as a superuser: {statement}"))
}
