//! Where a load comes from.

use std::sync::{Mutex, PoisonError};

use super::manifest::Manifest;
use super::seal::Identities;
use super::shelf::Shelf;
use super::unpack::Unpack;
use crate::error::Result;

/// A backup that is to be loaded.
pub(super) struct Origin<'a> {
    shelf: &'a Shelf,
    pub(super) manifest: &'a Manifest,
    identities: &'a Identities,
    /// What was opened to see whether it can be.
    opened: Mutex<Option<Unpack>>,
}

impl<'a> Origin<'a> {
    /// Opens it.
    ///
    /// # Errors
    /// When there is no key to it, and as the store says.
    pub(super) async fn open(shelf: &'a Shelf, manifest: &'a Manifest, identities: &'a Identities) -> Result<Self> {
        let opened = Unpack::start(shelf.read(manifest).await?, manifest, identities).await?;
        Ok(Self { shelf, manifest, identities, opened: Mutex::new(Some(opened)) })
    }

    /// From its beginning.
    pub(super) async fn read(&self) -> Result<Unpack> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        match opened {
            Some(opened) => Ok(opened),
            None => Unpack::start(self.shelf.read(self.manifest).await?, self.manifest, self.identities).await,
        }
    }
}
