//! The app's name again, before something is destroyed.

use shareddb_core::{AppName, Environment, Error, Result};

use crate::context::Context;

/// What is about to happen.
pub(crate) struct Warning {
    /// In a sentence, for where nobody is there to ask.
    pub(crate) short: String,
    /// With everything that it means.
    pub(crate) long: String,
}

/// Whether somebody has said that this is what they want: in the command itself, or on a terminal that asks.
///
/// # Errors
/// `Refused` when nobody has, or when the environment is protected and the command itself does not say it.
pub(crate) async fn confirm(
    app: &AppName,
    given: Option<&str>,
    environment: &Environment,
    context: &Context,
    warning: &Warning,
) -> Result<()> {
    let name = match given {
        Some(name) => name.to_owned(),
        None if environment.is_protected() => {
            return Err(Error::refused("env_protected", format!("environment {} is protected", environment.name()))
                .with_hint(format!("say in the command itself what is to go: --confirm {app}")));
        }
        None => context.console.ask(&warning.long, "Type the app's name to go on:").await?.unwrap_or_default(),
    };
    if name == app.as_str() {
        return Ok(());
    }
    Err(Error::refused("confirmation_required", warning.short.as_str())
        .with_hint(format!("say so by giving its name again: --confirm {app}")))
}
