//! From what was typed to what the core takes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shareddb_core::{Environment, Environments, LocalServer, LocalState, Provisioner, Result, Server};

use crate::args::Globals;
use crate::console::Console;
use crate::output::Output;
use crate::quoting::argument;

/// How long it takes to say why something has not come about.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What all commands have in common.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) console: Arc<Console>,
    pub(crate) output: Output,
    pub(crate) timeout: Duration,
    /// When the command began; its time runs from then.
    pub(crate) started: Instant,
    place: Place,
}

/// The flags that say where to act.
#[derive(Debug)]
struct Place {
    environment: Option<String>,
    namespace: Option<String>,
    context: Option<String>,
    kubeconfig: Option<PathBuf>,
    tunnel: bool,
}

impl Context {
    pub(crate) fn new(globals: Globals) -> Self {
        Self {
            console: Arc::new(Console::new(&globals)),
            output: Output::new(&globals),
            timeout: globals.timeout,
            started: Instant::now(),
            place: Place {
                environment: globals.env,
                namespace: globals.namespace,
                context: globals.context,
                kubeconfig: globals.kubeconfig,
                tunnel: globals.tunnel,
            },
        }
    }

    /// The environment that was chosen.
    ///
    /// # Errors
    /// `InvalidInput` when no environment can have that name or a flag means nothing to it, `NotFound` when none has.
    pub(crate) fn environment(&self) -> Result<Environment> {
        let environments = Environments::from_env()?;
        // An empty variable counts as unset. An empty flag is a script's mistake, which must not end up somewhere else.
        let name = self.place.environment.as_deref().map_or_else(|| environments.chosen(), str::parse)?;
        let mut environment = environments.environment(&name)?;
        if let Some(kubeconfig) = &self.place.kubeconfig {
            environment = environment.with_kubeconfig(kubeconfig)?;
        }
        if let Some(context) = &self.place.context {
            environment = environment.with_context(context)?;
        }
        if let Some(namespace) = &self.place.namespace {
            environment = environment.with_namespace(namespace.parse()?)?;
        }
        if self.place.tunnel {
            environment = environment.with_tunnel()?;
        }
        Ok(environment)
    }

    /// What is left of the command's time, but for some last words on why it was not enough.
    pub(crate) fn remaining(&self) -> Duration {
        self.timeout.saturating_sub(self.started.elapsed() + LAST_WORDS)
    }

    /// The flags that chose the environment, as a next command needs them, too.
    pub(crate) fn flags(&self) -> String {
        let Place { environment, namespace, context, kubeconfig, tunnel } = &self.place;
        let kubeconfig = kubeconfig.as_ref().map(|path| path.display().to_string());
        [("-e", environment), ("-n", namespace), ("--context", context), ("--kubeconfig", &kubeconfig)]
            .into_iter()
            .filter_map(|(flag, value)| Some(format!(" {flag} {}", argument(value.as_ref()?))))
            .chain(tunnel.then(|| " --tunnel".to_owned()))
            .collect()
    }

    /// Who provisions in `environment`, telling the console what happens.
    ///
    /// # Errors
    /// `Unavailable` when the server does not run.
    pub(crate) async fn provisioner(&self, environment: &Environment) -> Result<Provisioner> {
        Ok(self.telling(environment.connect().await?))
    }

    /// As [`Self::provisioner`], for what changes something: says first where it is about to act.
    ///
    /// # Errors
    /// As [`Self::provisioner`], and when the state of the embedded server cannot be read.
    pub(crate) async fn mutator(&self, environment: &Environment) -> Result<Provisioner> {
        if let Some(local) = environment.local_server() {
            self.announce(environment, local)?;
            return self.provisioner(environment).await;
        }
        let server = environment.connect().await?;
        self.console.progress(&format!("env {} · {}", environment.name(), server.place()));
        Ok(self.telling(server))
    }

    fn telling(&self, server: Server) -> Provisioner {
        let console = Arc::clone(&self.console);
        Provisioner::new(server).on_event(move |event| console.event(event))
    }

    /// Says where a command is about to act.
    ///
    /// # Errors
    /// When the state of the server cannot be read.
    pub(crate) fn announce(&self, environment: &Environment, local: &LocalServer) -> Result<LocalState> {
        let state = local.state()?;
        let place = match state {
            LocalState::Running { port, .. } => format!("127.0.0.1:{port}"),
            LocalState::Absent | LocalState::Stopped { .. } => "server not running".to_owned(),
            _ => "server in an unknown state".to_owned(),
        };
        self.console.progress(&format!("env {} · {place}", environment.name()));
        Ok(state)
    }
}
