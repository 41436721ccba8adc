//! Private keys that lie in files.

use std::path::PathBuf;

use super::seal::Identities;
use crate::error::{Error, Result};
use crate::file::{self, blocking};

impl Identities {
    /// The private keys in all these files, each as for [`Self::keys`]. None: [`Self::none`].
    ///
    /// # Errors
    /// When a file cannot be read, and as [`Self::keys`].
    pub async fn files(paths: Vec<PathBuf>) -> Result<Self> {
        let text = blocking(move || {
            let mut text = String::new();
            for path in paths {
                let read = file::read_text(&path);
                text += &read.map_err(|error| Error::from_io(format!("cannot read {}", path.display()), error))?;
                text.push('\n');
            }
            Ok(text)
        });
        Self::keys(&text.await?)
    }
}
