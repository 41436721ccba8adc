//! The command `shareddb`: it parses, calls the core, and prints.

mod args;
mod color;
mod commands;
mod confirmation;
mod console;
mod context;
mod deployment;
mod failure;
mod freshness;
mod guard;
mod health;
mod logins;
mod meter;
mod moments;
mod output;
mod preview;
mod progress;
mod quoting;
mod storage;
mod table;
mod units;
mod usage;

use std::process::ExitCode;

use shareddb_core::Result;

use args::{Args, Command};
use commands::{
    backup, backups, completion, create, deploy, drop, env, explain, list, prune, psql, restore, rotate, schedule,
    status, verify,
};
use context::Context;

fn main() -> ExitCode {
    let Args { globals, command } = match usage::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let context = Context::new(globals, command.limit());
    match guard::run(&context, dispatch(&command, &context)) {
        Ok(code) => code,
        Err(failure) => failure.report(&context),
    }
}

async fn dispatch(command: &Command, context: &Context) -> Result<ExitCode> {
    match command {
        Command::Deploy(args) => deploy::run(args, context).await,
        Command::Create(args) => create::run(args, context).await,
        Command::List => list::run(context).await,
        Command::Status(args) => status::run(args, context).await,
        Command::Env(args) => env::run(args, context).await,
        Command::Explain(args) => explain::run(args, context).await,
        Command::Psql(args) => psql::run(args, context).await,
        Command::Rotate(args) => rotate::run(args, context).await,
        Command::Backup(args) => backup::run(args, context).await,
        Command::Backups(args) => backups::run(args, context).await,
        Command::Verify(args) => verify::run(args, context).await,
        Command::Restore(args) => restore::run(args, context).await,
        Command::Prune(args) => prune::run(args, context).await,
        Command::Schedule(args) => schedule::run(args, context).await,
        Command::Drop(args) => drop::run(args, context).await,
        Command::Completion(args) => completion::run(args, context),
    }
}
