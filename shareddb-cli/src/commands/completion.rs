//! `shareddb completion`.

use std::process::ExitCode;

use clap::CommandFactory as _;
use shareddb_core::Result;

use crate::args::{Args, Completion};
use crate::context::Context;

pub(crate) fn run(args: &Completion, context: &Context) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "shareddb", &mut script);
    context.output.raw(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
