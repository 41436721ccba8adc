//! What of an adoption is for an admin to do who is no superuser: what changes hands has to be its own, and the app has to be
//! allowed to create where that is.

use std::collections::BTreeMap;

use crate::postgres::legacy::{Inventory, Object, ObjectKind, ObjectName};
use crate::provision::adopt::Adoption;
use crate::provision::adopt::heritage::DATABASE_OWNER;
use crate::provision::observed::Observed;

/// Whose the objects of an app are that is being adopted.
pub(crate) struct Reach<'a> {
    /// What belongs to one of these is the app's, or the admin's to give it.
    trusted: Vec<&'a str>,
    admin: &'a str,
    objects: BTreeMap<&'a ObjectName, &'a Object>,
    schemas: BTreeMap<&'a str, &'a Object>,
    public_owner: Option<&'a str>,
}

impl<'a> Reach<'a> {
    /// `roles` are the app's.
    pub(crate) fn of(observed: &'a Observed, roles: impl Iterator<Item = &'a str>) -> Self {
        let by_hand = || observed.legacy.as_ref().and_then(|legacy| legacy.inside.as_ref().ok());
        let inventory: Option<&Inventory> = observed.inventory.as_deref().or_else(by_hand);
        let objects = || inventory.into_iter().flat_map(|inventory| &inventory.objects);
        let admin = observed.server.admin.as_str();
        Self {
            trusted: roles.chain([admin, DATABASE_OWNER]).collect(),
            admin,
            objects: objects().map(|object| (&object.name, object)).collect(),
            schemas: objects()
                .filter(|object| object.name.kind == ObjectKind::Schema)
                .map(|schema| (schema.name.identity.as_str(), schema))
                .collect(),
            public_owner: inventory.and_then(|inventory| inventory.public.as_ref()).map(|(owner, _)| owner.as_str()),
        }
    }

    /// Who owns schema `public`, as far as an adoption has looked.
    pub(crate) fn public_owner(&self) -> Option<&'a str> {
        self.public_owner
    }

    /// Whether a change is the admin's to make.
    pub(crate) fn covers(&self, adoption: &Adoption) -> bool {
        match adoption {
            Adoption::Take { object, .. } | Adoption::HandOver { object, .. } => self.owns(object),
            Adoption::ShowPublic { .. } => self.public_owner.is_none_or(|owner| self.trusted.contains(&owner)),
            Adoption::RevokeDefaults { role, .. } => role == self.admin,
            Adoption::DisableTrigger { .. } => false,
            Adoption::Together { .. }
            | Adoption::CloseLogin { .. }
            | Adoption::RenameLogin { .. }
            | Adoption::CarryPassword { .. }
            | Adoption::GrantPassage { .. }
            | Adoption::Admit { .. }
            | Adoption::Dissolve { .. }
            | Adoption::Reinstate { .. }
            | Adoption::GiveBack { .. } => true,
        }
    }

    fn owns(&self, name: &ObjectName) -> bool {
        self.objects.get(name).is_some_and(|object| {
            let creatable = |schema: &&Object| {
                let owner = schema.owner.as_str();
                schema.creatable || owner == self.admin || owner == DATABASE_OWNER
            };
            let above = self.schemas.get(object.schema.as_str());
            object.owner == self.admin
                && above.is_none_or(|schema| self.trusted.contains(&schema.owner.as_str()) && creatable(schema))
        })
    }
}
