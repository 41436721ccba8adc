//! `shareddb psql`.

use std::env;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use secrecy::ExposeSecret as _;
use shareddb_core::{
    AppName, Binaries, ConnectionConfig, Environment, Error, LibpqEnvironment, LocalHome, LocalState, Provisioner,
    Result,
};
use tokio::process::Command;

use crate::args::Psql;
use crate::context::Context;

const APPLICATION: &str = "shareddb-psql";

pub(crate) async fn run(args: &Psql, context: &Context) -> Result<ExitCode> {
    let app: Option<AppName> = args.app.as_deref().map(str::parse).transpose()?;
    let environment = context.environment()?;
    // Kept until psql has ended: it may have the way there.
    let server = environment.connect().await?;
    let config = match &app {
        Some(app) => Provisioner::new(server.clone()).connection(app).await?,
        None => server.admin().clone(),
    };
    if !config.admits_clear_password() {
        try_server(&config).await.map_err(|error| server.with_trouble(error))?;
    }
    let variables = config.with_application_name(APPLICATION).libpq_environment()?;
    let mut child = command(args, &environment, &variables)?.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::unavailable("tool_missing", "there is no psql").with_source(error),
        _ => Error::from_io("cannot run psql", error),
    })?;
    // From here on Ctrl-C is psql's: it cancels the query and not the session.
    context.console.hand_over();
    let status = child.wait().await.map_err(|error| Error::from_io("cannot wait for psql", error))?;
    if let Some(trouble) = server.take_trouble().filter(|_| !status.success()) {
        context.console.note(&trouble.to_string());
        trouble.hint().into_iter().for_each(|hint| context.console.note(hint));
    }
    Ok(exit_code(status))
}

/// Logs in as psql is about to, where nobody knows who answers: our own login refuses whoever asks for the password in clear
/// text. A libpq before 16 cannot be told to do the same; so somebody who answers as the server should at first, and takes
/// its place right after that, can still have the password from it. Only TLS that verifies the server, or a libpq of 16,
/// shuts him out.
async fn try_server(config: &ConnectionConfig) -> Result<()> {
    match config.connect().await {
        Ok(session) => {
            session.close().await;
            Ok(())
        }
        // psql has other ways to one: it asks.
        Err(error) if error.code() == "password_missing" => Ok(()),
        Err(error) => Err(error),
    }
}

/// psql with its connection in the environment.
fn command(args: &Psql, environment: &Environment, variables: &LibpqEnvironment) -> Result<Command> {
    let binaries = binaries(environment)?;
    let mut command = Command::new(binaries.program("psql"));
    command.args(&args.args).kill_on_drop(true);
    // libpq would mix them with ours.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    for (name, value) in variables.variables() {
        command.env(name, value.expose_secret());
    }
    Ok(command)
}

/// The programs that fit the embedded server; any that are here for another.
fn binaries(environment: &Environment) -> Result<Binaries> {
    let Some(local) = environment.local_server() else {
        return Binaries::find(LocalHome::from_env()?.binaries_override());
    };
    let explicit = local.home().binaries_override();
    match local.state()? {
        LocalState::Running { major, .. } | LocalState::Stopped { major } => Binaries::of_major(major, explicit),
        _ => Binaries::find(explicit),
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
