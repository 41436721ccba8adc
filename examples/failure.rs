//! What the examples' `main` returns: an error that prints its causes and its remedy.

use std::error::Error;
use std::fmt;

/// Holds the text already. Rust prints the `Debug` of what `main` returns.
pub(crate) struct Failure(String);

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            // What a server appends in further lines may quote a row of somebody's table.
            text += &format!("\n  because: {}", error.to_string().lines().next().unwrap_or_default());
            cause = error.source();
        }
        let outermost: &(dyn Error + 'static) = &error;
        if let Some(hint) = outermost.downcast_ref().and_then(shareddb_core::Error::hint) {
            text += &format!("\n  hint: {hint}");
        }
        Self(text)
    }
}
