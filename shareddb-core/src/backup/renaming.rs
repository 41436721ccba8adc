//! What has another name where a backup is restored: under another app's name, or in another environment.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::manifest::Manifest;
use super::toc::Toc;
use crate::app::{App, AppSpec};

/// Roles and the schema of the app, by the names that a backup has for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Renaming {
    /// Their names here. Empty where the owner's is the same.
    pub(super) roles: BTreeMap<String, String>,
    /// The app's own schema, there and here.
    pub(super) schema: Option<[String; 2]>,
}

impl Renaming {
    /// What the backup calls otherwise than the app does.
    pub(super) fn of(manifest: &Manifest, app: &App) -> Self {
        let owner = manifest.database.owner.as_str();
        if owner == app.owner.as_str() {
            return Self::default();
        }
        let mut roles = BTreeMap::from([(owner.to_owned(), app.owner.to_string())]);
        // A manifest does not name the logins, which are called as they usually are, or are unknown.
        let usual = App::derive(&AppSpec::new(manifest.app.clone()), &manifest.environment, None);
        if let Some(usual) = usual.ok().filter(|usual| usual.owner == manifest.database.owner) {
            let here = app.logins.iter().chain([&app.maintenance]);
            let there = usual.logins.iter().chain([&usual.maintenance]);
            roles.extend(there.zip(here).map(|(there, here)| (there.to_string(), here.to_string())));
        }
        let (there, here) = (manifest.database.schema.as_str(), app.schema.as_str());
        let schema = (there != here && there != "public").then(|| [there.to_owned(), here.to_owned()]);
        Self { roles, schema }
    }

    /// A table of contents as one of what was loaded from it is expected.
    pub(super) fn expected<'a>(&self, toc: &'a Toc) -> Cow<'a, Toc> {
        if self.roles.is_empty() {
            return Cow::Borrowed(toc);
        }
        let mut toc = toc.clone();
        for entry in &mut toc.entries {
            if let Some(name) = self.roles.get(&entry.owner) {
                entry.owner.clone_from(name);
            }
        }
        Cow::Owned(toc)
    }
}
