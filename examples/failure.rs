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
        let outermost: &(dyn Error + 'static) = &error;
        if let Some(error) = outermost.downcast_ref::<shareddb_core::Error>() {
            text.extend(error.causes().iter().map(|cause| format!("\n  because: {cause}")));
            text.extend(error.hint().map(|hint| format!("\n  hint: {hint}")));
        }
        Self(text)
    }
}
