//! `shareddb deploy` of the embedded server.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::{Change, Environment, Error, LocalServer, LocalState, Result};

use super::deploy::Deployed;
use crate::args::Deploy;
use crate::context::Context;
use crate::preview::Preview;

const CREATED: &str = "created";

/// What there is to say of the embedded server while it runs.
#[derive(Debug, Serialize)]
struct Running {
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Server>,
}

#[derive(Debug, Serialize)]
struct Server {
    host: &'static str,
    port: u16,
    version: String,
    pid: u32,
    admin: String,
    password_file: String,
    binaries: String,
}

pub(crate) async fn run(
    args: &Deploy,
    environment: &Environment,
    local: &LocalServer,
    context: &Context,
) -> Result<ExitCode> {
    check_options(args)?;
    let state = context.announce(environment, local)?;
    if args.dry_run.dry_run {
        return preview(args, environment, local, state).show(context, args.dry_run);
    }
    let deployed = match args.stop {
        true => stop(environment, local, context).await?,
        false => start(environment, context).await?,
    };
    context.output.show(&deployed)?;
    if deployed.outcome == CREATED {
        context.console.progress("Next: give an app its database   shareddb create myapp");
    }
    Ok(ExitCode::SUCCESS)
}

/// What is said of a server in Kubernetes is not passed over in silence.
fn check_options(args: &Deploy) -> Result<()> {
    let Deploy {
        image, memory, cpu, storage, storage_class, access_mode, max_connections, tls, allow_namespace, ..
    } = args;
    let given = [
        ("--image", image.is_some()),
        ("--memory", memory.is_some()),
        ("--cpu", cpu.is_some()),
        ("--storage", storage.is_some()),
        ("--storage-class", storage_class.is_some()),
        ("--access-mode", access_mode.is_some()),
        ("--max-connections", max_connections.is_some()),
        ("--tls", tls.is_some()),
        ("--allow-namespace", allow_namespace.is_some()),
        ("--create-namespace", args.create_namespace),
        ("--adopt", args.adopt),
        ("--secure-server", args.secure_server),
        ("--print", args.print),
    ];
    match given.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => {
            let message = format!("{option} means nothing to the embedded server");
            Err(Error::invalid_input("not_in_kubernetes", message)
                .with_hint("leave it out, or choose an environment in Kubernetes: -e NAME"))
        }
    }
}

async fn start(environment: &Environment, context: &Context) -> Result<Deployed<Running>> {
    context.console.awaits("the local server's start");
    let endpoint = environment.deploy().await?;
    let outcome = match (endpoint.created, endpoint.started) {
        (true, _) => CREATED,
        (false, true) => "started",
        (false, false) => "unchanged",
    };
    if endpoint.started {
        context.console.progress(&format!(
            "  PostgreSQL {} on {}:{}",
            endpoint.version,
            endpoint.host(),
            endpoint.port
        ));
    }
    if endpoint.moved {
        let name = environment.name();
        context.console.note(&format!(
            "the folder was moved since the server started, and it looks for its settings in the old place: \
             `shareddb deploy --stop -e {name}`, then `shareddb deploy -e {name}`"
        ));
    }
    Ok(Deployed {
        name: environment.name().to_string(),
        outcome,
        more: Running {
            server: Some(Server {
                host: endpoint.host(),
                port: endpoint.port,
                version: endpoint.version,
                pid: endpoint.pid,
                admin: endpoint.admin,
                password_file: endpoint.password_file.display().to_string(),
                binaries: endpoint.binaries.dir.display().to_string(),
            }),
        },
    })
}

async fn stop(environment: &Environment, local: &LocalServer, context: &Context) -> Result<Deployed<Running>> {
    context.console.awaits("the local server's end");
    let outcome = if local.stop().await? { "stopped" } else { "unchanged" };
    Ok(Deployed { name: environment.name().to_string(), outcome, more: Running { server: None } })
}

fn preview(args: &Deploy, environment: &Environment, local: &LocalServer, state: LocalState) -> Preview {
    let home = local.home();
    let changes = match (args.stop, state) {
        (false, LocalState::Absent) => vec![
            (Change::Add, format!("data directory {}", home.data_dir().display())),
            (Change::Add, "admin password, 32 characters".to_owned()),
            (Change::Change, "server: started on a free port of 127.0.0.1".to_owned()),
        ],
        (false, LocalState::Stopped { major }) => {
            vec![(Change::Change, format!("server of PostgreSQL {major}: started"))]
        }
        (true, LocalState::Running { port, .. }) => {
            vec![(Change::Change, format!("server on 127.0.0.1:{port}: stopped, its data stay"))]
        }
        _ => Vec::new(),
    };
    Preview::new(format!("server/{}", environment.name()), changes)
}
