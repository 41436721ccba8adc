//! `shareddb env`: the only command that prints a password.

use std::collections::BTreeMap;
use std::process::ExitCode;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use shareddb_core::{
    App, AppName, AppSpec, ConnectionConfig, Environment, Error, Export, LocalServer, LocalState, Result, SecretName,
    SqlAlchemyDriver,
};

use crate::args::{Env, EnvFormat, Format};
use crate::context::Context;
use crate::output::{Text, View};

/// The keys that the guide's Deployments use.
const GUIDE: [&str; 7] = ["DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD", "DB_SCHEMA", "DATABASE_URL"];

/// Whose settings are asked for: an app's, or the admin's.
struct Login<'a> {
    app: Option<AppName>,
    environment: Environment,
    context: &'a Context,
}

/// Connection settings, and how to write them.
#[derive(Debug, Serialize)]
struct Settings {
    name: String,
    values: BTreeMap<String, String>,
    /// Those that are printed as variables, in order.
    #[serde(skip)]
    variables: Vec<String>,
    /// Where pods find them.
    #[serde(skip)]
    secret: Option<SecretName>,
    /// What people are shown: a dotenv file.
    #[serde(skip)]
    text: String,
}

pub(crate) async fn run(args: &Env, context: &Context) -> Result<ExitCode> {
    let app = args.app.as_deref().map(str::parse).transpose()?;
    let login = Login { app, environment: context.environment()?, context };
    match (&args.key, args.format) {
        (Some(key), _) => context.output.raw(&format!("{}\n", value(&login.settings().await?, key)?))?,
        // As -o says. Where --format says how to write the settings, -o is left with the errors.
        (None, None) => {
            let mut settings = login.settings().await?;
            if matches!(context.output.format(), Format::Table | Format::Wide) {
                settings.text = settings.written(Export::Dotenv)?;
            }
            context.output.show(&settings)?;
        }
        (None, Some(format)) => context.output.raw(&written(&login, format).await?)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn written(login: &Login<'_>, format: EnvFormat) -> Result<String> {
    match format {
        EnvFormat::Dotenv => login.settings().await?.written(Export::Dotenv),
        EnvFormat::Shell => login.settings().await?.written(Export::Shell),
        EnvFormat::Json => Ok(exposed(&Export::Json.write(login.settings().await?.all())?)),
        EnvFormat::Url => Ok(line(&login.config().await?.url()?)),
        EnvFormat::Libpq => Ok(line(&login.config().await?.libpq()?)),
        EnvFormat::Service => Ok(exposed(&login.config().await?.service_section(login.section())?)),
        EnvFormat::Pgpass => Ok(exposed(&login.config().await?.pgpass()?)),
        EnvFormat::Psql => {
            let command = login.config().await?.psql()?;
            Ok(format!("{}{command}\n", exposed(&command.exports())))
        }
        EnvFormat::Jdbc => jdbc(&login.config().await?),
        EnvFormat::Sqlx => Ok(line(&login.config().await?.sqlx_url()?)),
        EnvFormat::Sqlalchemy => Ok(line(&login.config().await?.sqlalchemy_url(SqlAlchemyDriver::Psycopg)?)),
        EnvFormat::Django => Ok(line(&login.config().await?.django()?.to_json())),
        EnvFormat::Asyncpg => Ok(line(&login.config().await?.asyncpg()?.to_json())),
        EnvFormat::K8s => k8s(&login.settings().await?),
    }
}

fn exposed(text: &SecretString) -> String {
    text.expose_secret().to_owned()
}

fn line(text: &SecretString) -> String {
    format!("{}\n", text.expose_secret())
}

impl Login<'_> {
    /// What its section in a service file is called.
    fn section(&self) -> &str {
        self.app.as_ref().map_or("admin", AppName::as_str)
    }

    async fn config(&self) -> Result<ConnectionConfig> {
        let Some(app) = &self.app else { return self.admin().await };
        let config = self.environment.stored_connection(app).await?;
        self.tell_if_stopped();
        Ok(config)
    }

    async fn settings(&self) -> Result<Settings> {
        let Some(app) = &self.app else { return Settings::admin(&self.environment, &self.admin().await?) };
        let data = self.environment.credentials(app).await?;
        self.tell_if_stopped();
        let secret = App::derive(&AppSpec::new(app.clone()), self.environment.name(), None)?.secret;
        Ok(Settings {
            name: format!("secret/{secret}"),
            values: data.iter().map(|(key, value)| (key.clone(), value.expose_secret().to_owned())).collect(),
            variables: GUIDE.map(str::to_owned).to_vec(),
            secret: Some(secret),
            text: String::new(),
        })
    }

    async fn admin(&self) -> Result<ConnectionConfig> {
        self.environment.stored_admin().await
    }

    fn tell_if_stopped(&self) {
        let stopped = |local: &LocalServer| !matches!(local.state(), Ok(LocalState::Running { .. }));
        if self.environment.local_server().is_some_and(stopped) {
            let name = self.environment.name();
            self.context.console.progress(&format!("the server of env {name} does not run: shareddb deploy -e {name}"));
        }
    }
}

impl Settings {
    fn admin(environment: &Environment, config: &ConnectionConfig) -> Result<Self> {
        let environ = config.environ()?;
        let values: BTreeMap<String, String> =
            environ.iter().map(|(key, value)| ((*key).to_owned(), value.expose_secret().to_owned())).collect();
        let (name, variables) = (format!("admin/{}", environment.name()), values.keys().cloned().collect());
        Ok(Self { name, variables, values, secret: None, text: String::new() })
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    fn written(&self, form: Export) -> Result<String> {
        let variable = |key: &'_ String| self.values.get_key_value(key);
        let variables = self.variables.iter().filter_map(variable);
        Ok(exposed(&form.write(variables.map(|(key, value)| (key.as_str(), value.as_str())))?))
    }
}

impl View for Settings {
    const KIND: &'static str = "Settings";

    fn text(&self, _style: Text) -> String {
        self.text.clone()
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

fn value<'a>(settings: &'a Settings, key: &str) -> Result<&'a str> {
    settings.values.get(key).map(String::as_str).ok_or_else(|| {
        let keys = settings.values.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        Error::not_found("key_not_found", format!("{} has no key {key:?}", settings.name))
            .with_hint(format!("it has {keys}"))
    })
}

/// A Java properties file, in which a backslash escapes.
fn jdbc(config: &ConnectionConfig) -> Result<String> {
    let jdbc = config.jdbc()?;
    let password = jdbc.password.as_ref().map_or("", |password| password.expose_secret());
    let lines = [("url", jdbc.url.as_str()), ("user", &jdbc.user), ("password", password)];
    Ok(lines.map(|(key, value)| format!("{key}={}\n", value.replace('\\', r"\\"))).concat())
}

/// A container's `env`, referring to the Secret.
fn k8s(settings: &Settings) -> Result<String> {
    let Some(secret) = &settings.secret else {
        return Err(Error::invalid_input(
            "format_invalid",
            "the admin's settings are in no Secret that a pod may read",
        )
        .with_hint("--format k8s is for apps: shareddb env myapp --format k8s"));
    };
    let entry = |key: &String| {
        format!("- name: {key}\n  valueFrom:\n    secretKeyRef:\n      name: {secret}\n      key: {key}\n")
    };
    Ok(format!("env:\n{}", settings.variables.iter().map(entry).collect::<String>()))
}
