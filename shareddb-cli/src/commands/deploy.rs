//! `shareddb deploy`.

use std::process::ExitCode;

use serde::Serialize;
use shareddb_core::Result;

use super::{deploy_kubernetes, deploy_local};
use crate::args::Deploy;
use crate::context::Context;
use crate::output::{Text, View};

/// The server after a deploy, and what there is to say of it.
#[derive(Debug, Serialize)]
pub(super) struct Deployed<T> {
    pub(super) name: String,
    pub(super) outcome: &'static str,
    #[serde(flatten)]
    pub(super) more: T,
}

impl<T: Serialize> View for Deployed<T> {
    const KIND: &'static str = "Environment";

    fn text(&self, _style: Text) -> String {
        format!("server/{} {}\n", self.name, self.outcome)
    }

    fn names(&self) -> Vec<String> {
        vec![format!("server/{}", self.name)]
    }
}

pub(crate) async fn run(args: &Deploy, context: &Context) -> Result<ExitCode> {
    let environment = context.environment()?;
    match environment.local_server() {
        Some(local) => deploy_local::run(args, &environment, local, context).await,
        None => deploy_kubernetes::run(args, &environment, context).await,
    }
}
