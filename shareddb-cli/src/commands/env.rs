//! `shareddb env`: the only command that prints a password.

use std::collections::BTreeMap;
use std::process::ExitCode;

use secrecy::ExposeSecret as _;
use serde::Serialize;
use shareddb_core::{
    App, AppName, AppSpec, ConnectionConfig, Environment, Error, LocalServer, LocalState, Result, SecretData,
    SecretName,
};

use crate::args::{Env, EnvFormat};
use crate::context::Context;
use crate::output::{Text, View};
use crate::quoting::{dotenv, shell};

/// The keys that the guide's Deployments use.
const GUIDE: [&str; 7] = ["DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD", "DB_SCHEMA", URL];

const URL: &str = "DATABASE_URL";

/// Connection settings, and how to write them.
#[derive(Debug, Serialize)]
struct Settings {
    name: String,
    values: BTreeMap<String, String>,
    /// Those that are printed as variables, in order.
    #[serde(skip)]
    variables: Vec<String>,
}

pub(crate) async fn run(args: &Env, context: &Context) -> Result<ExitCode> {
    let app: Option<AppName> = args.app.as_deref().map(str::parse).transpose()?;
    let environment = context.environment()?;
    match app {
        None => {
            let config = environment.connect().await?.admin().clone();
            print(args, context, &Settings::admin(&environment, &config)?, || Ok(config), None)?;
        }
        Some(app) => {
            let secret = App::derive(&AppSpec::new(app.clone()), environment.name(), None)?.secret;
            let settings = Settings::stored(&environment.credentials(&app).await?, &secret);
            let config = || settings.config();
            let stopped = |local: &LocalServer| !matches!(local.state(), Ok(LocalState::Running { .. }));
            if environment.local_server().is_some_and(stopped) {
                let name = environment.name();
                context.console.progress(&format!("the server of env {name} does not run: shareddb deploy -e {name}"));
            }
            print(args, context, &settings, config, Some(&secret))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Settings {
    fn stored(data: &SecretData, secret: &SecretName) -> Self {
        let values = data.iter().map(|(key, value)| (key.clone(), value.expose_secret().to_owned())).collect();
        Self { name: format!("secret/{secret}"), values, variables: GUIDE.map(str::to_owned).to_vec() }
    }

    /// An adopted app may have a `DATABASE_URL` of its own, which says something else than the guide's keys.
    fn config(&self) -> Result<ConnectionConfig> {
        let value = |key: &str| self.values.get(key).cloned();
        let keys = ConnectionConfig::from_vars(|key| value(key).filter(|_| key != URL))?;
        let url = ConnectionConfig::from_vars(|key| value(key).filter(|_| key == URL));
        let identity = |config: &ConnectionConfig| {
            let password = config.password().map(|password| password.expose_secret().to_owned());
            (config.to_string(), password)
        };
        Ok(url.ok().filter(|url| identity(url) == identity(&keys)).unwrap_or(keys))
    }

    fn admin(environment: &Environment, config: &ConnectionConfig) -> Result<Self> {
        let environ = config.environ()?;
        let values: BTreeMap<String, String> =
            environ.iter().map(|(key, value)| ((*key).to_owned(), value.expose_secret().to_owned())).collect();
        Ok(Self { name: format!("admin/{}", environment.name()), variables: values.keys().cloned().collect(), values })
    }

    fn dotenv(&self) -> String {
        self.lines(|key, value| format!("{key}={}", dotenv(value)))
    }

    fn lines(&self, line: impl Fn(&str, &str) -> String) -> String {
        let value = |key: &String| self.values.get(key).map(|value| line(key, value) + "\n");
        self.variables.iter().filter_map(value).collect()
    }
}

impl View for Settings {
    const KIND: &'static str = "Settings";

    fn text(&self, _style: Text) -> String {
        self.dotenv()
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

fn print(
    args: &Env,
    context: &Context,
    settings: &Settings,
    config: impl FnOnce() -> Result<ConnectionConfig>,
    secret: Option<&SecretName>,
) -> Result<()> {
    if let Some(key) = &args.key {
        return context.output.raw(&format!("{}\n", value(settings, key)?));
    }
    let text = match args.format {
        // As -o says. Where --format says how to write the settings, -o is left with the errors.
        None => return context.output.show(settings),
        Some(EnvFormat::Dotenv) => settings.dotenv(),
        Some(EnvFormat::Shell) => settings.lines(|key, value| format!("export {key}={}", shell(value))),
        Some(EnvFormat::Json) => {
            let json = serde_json::to_string_pretty(&settings.values);
            json.map_err(|error| Error::failed("internal", "the settings cannot be written").with_source(error))? + "\n"
        }
        Some(EnvFormat::Url) => format!("{}\n", config()?.url()?.expose_secret()),
        Some(EnvFormat::Libpq) => format!("{}\n", config()?.libpq()?.expose_secret()),
        Some(EnvFormat::Jdbc) => jdbc(&config()?)?,
        Some(EnvFormat::K8s) => k8s(settings, secret)?,
    };
    context.output.raw(&text)
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
fn k8s(settings: &Settings, secret: Option<&SecretName>) -> Result<String> {
    let Some(secret) = secret else {
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
