//! `shareddb create`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{
    Adopt, App, AppSpec, DatabaseName, Environment, Error, LocalState, LoginName, Proof, Report, Result, RoleName,
    SettingName, Step,
};

use crate::args::{Adoption, Create};
use crate::context::Context;
use crate::output::{Text, View};
use crate::preview::Preview;

/// What empties a list that is otherwise inherited.
const NONE: &str = "none";

/// A report as it is printed.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Done(pub(crate) Report);

impl View for Done {
    const KIND: &'static str = "Result";

    fn text(&self, _style: Text) -> String {
        format!("app/{} {}\n", self.0.app.name, self.0.outcome.as_str())
    }

    fn names(&self) -> Vec<String> {
        vec![format!("app/{}", self.0.app.name)]
    }
}

pub(crate) async fn run(args: &Create, context: &Context) -> Result<ExitCode> {
    let spec = spec(args)?;
    let environment = context.environment()?;
    if args.adoption.undo_adopt {
        return undo(args, &spec, &environment, context).await;
    }
    if args.dry_run.dry_run {
        let plan = context.mutator(&environment).await?.plan(&spec).await?;
        return Preview::of(&plan).show(context, args.dry_run);
    }
    let provisioner = match environment.local_server() {
        Some(local) => {
            let state = context.announce(&environment, local)?;
            start(&environment, state, &spec, context).await?;
            context.provisioner(&environment).await?
        }
        None => context.mutator(&environment).await?,
    };
    let report = provisioner.create(&spec).await?;
    notes(&report, context);
    let done = Done(report);
    context.output.show(&done)?;
    next(&done.0, context);
    Ok(ExitCode::SUCCESS)
}

async fn undo(args: &Create, spec: &AppSpec, environment: &Environment, context: &Context) -> Result<ExitCode> {
    let provisioner = context.mutator(environment).await?;
    if args.dry_run.dry_run {
        return Preview::of(&provisioner.plan_undo_adopt(&spec.name).await?).show(context, args.dry_run);
    }
    let report = provisioner.undo_adopt(&spec.name).await?;
    notes(&report, context);
    context.output.show(&Done(report))?;
    Ok(ExitCode::SUCCESS)
}

/// Starts the local server unless it runs. What no server could change is found out first.
async fn start(environment: &Environment, state: LocalState, spec: &AppSpec, context: &Context) -> Result<()> {
    match state {
        LocalState::Running { ready: true, .. } => return Ok(()),
        LocalState::Absent => drop(App::derive(spec, environment.name(), None)?),
        _ => {}
    }
    context.console.progress("starting the local server");
    context.console.awaits("the local server's start");
    let endpoint = environment.deploy().await?;
    context.console.progress(&format!("  PostgreSQL {} on {}:{}", endpoint.version, endpoint.host(), endpoint.port));
    Ok(())
}

pub(super) fn notes(report: &Report, context: &Context) {
    let (app, console) = (&report.app, &context.console);
    report.notices.iter().for_each(|notice| console.note(notice));
    report.gaps.iter().for_each(|gap| console.note(&gap.to_string()));
    if report.proof == Some(Proof::Incomplete) {
        console.note(&format!(
            "no session was left for {}: its password was checked, its rights were not tried; the next create tries them",
            app.name
        ));
    }
}

fn next(report: &Report, context: &Context) {
    let (app, console) = (&report.app, &context.console);
    // Also after a create that was interrupted before there was a Secret.
    if report.steps.iter().any(|step| matches!(step, Step::PublishSecret { replace: false, .. })) {
        let place = context.flags();
        console.progress(&format!("Next: look inside      shareddb psql {}{place}", app.name));
        console.progress(&format!("      settings         shareddb env {}{place}", app.name));
        console.progress(&format!("      in a Deployment  envFrom: [{{secretRef: {{name: {}}}}}]", app.secret));
    }
}

fn spec(args: &Create) -> Result<AppSpec> {
    let mut spec = AppSpec::new(args.app.parse()?);
    spec.adopt = adopt(&args.adoption)?;
    // What exists may have any name.
    let exists = spec.adopt.is_some();
    let database = |name: &str| if exists { DatabaseName::existing(name) } else { name.parse() };
    let user = |name: &str| if exists { LoginName::existing(name) } else { name.parse() };
    spec.database = args.database.as_deref().map(database).transpose()?;
    spec.user = args.user.as_deref().map(user).transpose()?;
    spec.connections = args.connections;
    spec.search_path = args.search_path.as_deref().map(parsed).transpose()?;
    spec.extensions = args.extension.as_deref().map(|list| parsed(chosen(list, "--extension")?)).transpose()?;
    spec.settings = args.set.as_deref().map(|list| settings(chosen(list, "--set")?)).transpose()?;
    spec.allow_overcommit = args.allow_overcommit;
    spec.secure_server = args.secure_server;
    Ok(spec)
}

fn adopt(args: &Adoption) -> Result<Option<Adopt>> {
    if !args.adopt {
        return Ok(None);
    }
    let roles = |names: &[String]| names.iter().map(|name| RoleName::existing(name)).collect::<Result<_>>();
    let mut adopt = Adopt::default();
    adopt.demote = args.demote;
    adopt.keep_memberships = args.keep_memberships;
    adopt.take_from = roles(&args.take_from)?;
    adopt.keep_grants = args.keep_grants;
    adopt.allow_connect = roles(&args.allow_connect)?;
    adopt.close_to_others = args.yes;
    adopt.accept_name_change = args.accept_name_change;
    adopt.end_sessions = args.end_sessions;
    adopt.drop_foreign_grants = args.drop_foreign_grants;
    Ok(Some(adopt))
}

fn parsed<T: std::str::FromStr<Err = Error>, C: FromIterator<T>>(list: &[String]) -> Result<C> {
    list.iter().map(|text| text.trim().parse()).collect()
}

/// The list without the word that stands for an empty one.
fn chosen<'a>(list: &'a [String], flag: &str) -> Result<&'a [String]> {
    match list {
        [only] if only == NONE => Ok(&[]),
        list if list.iter().any(|text| text == NONE) => Err(Error::invalid_input(
            "list_invalid",
            format!("{flag} {NONE} stands for the empty list, and there is more"),
        )),
        list => Ok(list),
    }
}

fn settings(list: &[String]) -> Result<BTreeMap<SettingName, String>> {
    let mut settings = BTreeMap::new();
    for text in list {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Error::invalid_input("setting_invalid", format!("--set {text:?} has no value"))
                .with_hint("write --set NAME=VALUE, such as --set statement_timeout=5s"));
        };
        let name: SettingName = name.trim().parse()?;
        if settings.insert(name.clone(), value.to_owned()).is_some() {
            return Err(Error::invalid_input("setting_invalid", format!("--set gives {name} twice")));
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser as _;

    fn spec_of(line: &str) -> Result<AppSpec> {
        match Args::try_parse_from(line.split_whitespace()).unwrap().command {
            Command::Create(args) => spec(&args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_left_out_stays_as_recorded() {
        let mut spec = AppSpec::new("a".parse().unwrap());
        assert_eq!(spec_of("shareddb create a").unwrap(), spec);
        spec.secure_server = true;
        assert_eq!(spec_of("shareddb create a --secure-server").unwrap(), spec);
    }

    #[test]
    fn none_is_the_empty_list_and_only_alone() {
        let spec = spec_of("shareddb create a --set none --extension none").unwrap();
        assert!(spec.settings.unwrap().is_empty() && spec.extensions.unwrap().is_empty());
        for line in ["--extension none,x", "--set none --set a.b=1"] {
            assert_eq!(spec_of(&format!("shareddb create a {line}")).unwrap_err().code(), "list_invalid");
        }
    }

    #[test]
    fn what_is_adopted_has_any_name_and_what_is_made_has_not() {
        let spec = spec_of("shareddb create a --adopt --database MyApp --take-from Some-Body --yes").unwrap();
        let adopt = spec.adopt.unwrap();
        assert_eq!(spec.database.unwrap().as_str(), "MyApp");
        assert!(adopt.close_to_others && adopt.take_from.len() == 1 && !adopt.demote);
        assert_eq!(spec_of("shareddb create a --database MyApp").unwrap_err().code(), "name_invalid");
        assert!(Args::try_parse_from("shareddb create a --demote".split_whitespace()).is_err());
    }

    #[test]
    fn settings_are_split_at_the_first_sign() {
        let settings = spec_of("shareddb create a --set a.b=c=d --set a.e=").unwrap().settings.unwrap();
        assert_eq!(settings.values().collect::<Vec<_>>(), ["c=d", ""]);
        for line in ["--set work_mem", "--set a.b=1 --set a.b=2"] {
            assert_eq!(spec_of(&format!("shareddb create a {line}")).unwrap_err().code(), "setting_invalid");
        }
    }
}
