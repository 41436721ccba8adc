//! `shareddb deploy`.

use std::process::ExitCode;

use shareddb_core::Result;

use super::{deploy_kubernetes, deploy_local};
use crate::args::Deploy;
use crate::context::Context;

pub(crate) async fn run(args: &Deploy, context: &Context) -> Result<ExitCode> {
    let environment = context.environment()?;
    match environment.local_server() {
        Some(local) => deploy_local::run(args, &environment, local, context).await,
        None => deploy_kubernetes::run(args, &environment, context).await,
    }
}
