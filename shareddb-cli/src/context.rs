//! From what was typed to what the core takes.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use shareddb_core::{Environment, EnvironmentName, Error, LocalHome, LocalState, Provisioner, Result};

use crate::args::Globals;
use crate::console::Console;
use crate::output::Output;

const LOCAL: &str = "local";
const VARIABLE: &str = "SHAREDDB_ENV";

/// What all commands have in common.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) console: Arc<Console>,
    pub(crate) output: Output,
    pub(crate) timeout: Duration,
    environment: Option<String>,
}

impl Context {
    pub(crate) fn new(globals: Globals) -> Self {
        Self {
            console: Arc::new(Console::new(&globals)),
            output: Output::new(&globals),
            timeout: globals.timeout,
            environment: globals.env,
        }
    }

    /// The environment that was chosen.
    ///
    /// # Errors
    /// `InvalidInput` when no environment can have that name, `NotFound` when none has.
    pub(crate) fn environment(&self) -> Result<Environment> {
        // An empty variable counts as unset. An empty flag is a script's mistake, which must not end up on `local`.
        let variable = || env::var_os(VARIABLE).filter(|value| !value.is_empty());
        let chosen = match &self.environment {
            Some(name) => name.clone(),
            None => variable().map_or_else(|| LOCAL.to_owned(), |value| value.to_string_lossy().into_owned()),
        };
        let name: EnvironmentName = chosen.parse()?;
        if name.as_str() != LOCAL {
            return Err(Error::not_found("env_unknown", format!("there is no environment {name}"))
                .with_hint(format!("there is one, `{LOCAL}`: leave out -e and {VARIABLE}, or say -e {LOCAL}")));
        }
        Environment::local(LocalHome::from_env()?)
    }

    /// Who provisions in `environment`, telling the console what happens.
    ///
    /// # Errors
    /// `Unavailable` when the server does not run.
    pub(crate) async fn provisioner(&self, environment: &Environment) -> Result<Provisioner> {
        let console = Arc::clone(&self.console);
        Ok(Provisioner::new(environment.connect().await?).on_event(move |event| console.event(event)))
    }

    /// Says where a command is about to act.
    ///
    /// # Errors
    /// When the state of the server cannot be read.
    pub(crate) fn announce(&self, environment: &Environment) -> Result<LocalState> {
        let state = environment.local_server().state()?;
        let place = match state {
            LocalState::Running { port, .. } => format!("127.0.0.1:{port}"),
            LocalState::Absent | LocalState::Stopped { .. } => "server not running".to_owned(),
            _ => "server in an unknown state".to_owned(),
        };
        self.console.progress(&format!("env {} · {place}", environment.name()));
        Ok(state)
    }
}
