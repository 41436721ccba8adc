//! From what was typed to what the core takes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shareddb_core::{Environment, Environments, Interrupt, LocalServer, LocalState, Provisioner, Result, Server};

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
    /// How long the command may take, where that is limited as a whole.
    pub(crate) limit: Option<Duration>,
    /// When the command began; its time runs from then.
    started: Instant,
    place: Place,
    /// What ends the work that is going on, where that cannot just be cut off.
    interrupt: Mutex<Option<Interrupt>>,
}

/// Work that is asked to end, and not cut off, for as long as this exists.
#[derive(Debug)]
pub(crate) struct Careful<'a>(&'a Context);

impl Drop for Careful<'_> {
    fn drop(&mut self) {
        *self.0.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
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
    /// From what was typed, and how long the command may take unless that says otherwise.
    pub(crate) fn new(globals: Globals, usual: Option<Duration>) -> Self {
        Self {
            console: Arc::new(Console::new(&globals)),
            output: Output::new(&globals),
            limit: globals.timeout.or(usual),
            started: Instant::now(),
            place: Place {
                environment: globals.env,
                namespace: globals.namespace,
                context: globals.context,
                kubeconfig: globals.kubeconfig,
                tunnel: globals.tunnel,
            },
            interrupt: Mutex::default(),
        }
    }

    /// How much time is left.
    pub(crate) fn left(&self) -> Duration {
        self.limit.map_or(Duration::MAX, |limit| limit.saturating_sub(self.started.elapsed()))
    }

    /// Has work asked to end from now on by `interrupt`, where it would have been cut off.
    pub(crate) fn careful(&self, interrupt: Interrupt) -> Careful<'_> {
        *self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = Some(interrupt);
        Careful(self)
    }

    /// What ends the work that is going on, where that cannot just be cut off.
    pub(crate) fn interrupt(&self) -> Option<Interrupt> {
        self.interrupt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the work that is going on was asked to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.interrupt().is_some_and(|interrupt| interrupt.is_raised())
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

    /// Another environment, by its name alone: flags are about the one that was chosen.
    ///
    /// # Errors
    /// As [`Self::environment`].
    pub(crate) fn other_environment(&self, name: &str) -> Result<Environment> {
        Environments::from_env()?.environment(&name.parse()?)
    }

    /// What is left of the command's time, but for some last words on why it was not enough.
    pub(crate) fn remaining(&self) -> Duration {
        self.left().saturating_sub(LAST_WORDS)
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
