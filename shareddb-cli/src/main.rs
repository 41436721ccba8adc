//! The command `shareddb`: it parses, calls the core, and prints.

mod args;
mod color;
mod commands;
mod console;
mod context;
mod deployment;
mod failure;
mod guard;
mod health;
mod output;
mod preview;
mod quoting;
mod table;
mod units;
mod usage;

use std::process::ExitCode;

use shareddb_core::Result;

use args::{Args, Command};
use commands::{completion, create, deploy, drop, env, list, psql, status};
use context::Context;

fn main() -> ExitCode {
    let Args { globals, command } = match usage::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let context = Context::new(globals);
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
        Command::Psql(args) => psql::run(args, context).await,
        Command::Drop(args) => drop::run(args, context).await,
        Command::Completion(args) => completion::run(args, context),
    }
}
