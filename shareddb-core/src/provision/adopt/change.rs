//! The changes that only an adoption and its undoing make.

use std::fmt;

use serde::Serialize;

use crate::change::Change;
use crate::names::{DatabaseName, RoleName};
use crate::postgres::legacy::ObjectName;
use crate::postgres::sql::escaped;
use crate::provision::step::{Phase, Step};

/// One change of an adoption. All up to the records are done in one transaction, the swap: before it nothing has happened,
/// after it the app works as before, with its old sessions and new ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the objects that each variant names")]
pub enum Adoption {
    /// An ordinary change, within the swap.
    Together { part: Box<Step> },
    /// Switch off an event trigger whose code is the app's, and hand it to the admin.
    DisableTrigger { trigger: String },
    /// Take from the login everything but its objects: it stops being a login.
    CloseLogin { login: RoleName, loses: Vec<String> },
    /// Make the old login itself the owner role, with all that it owns and holds.
    RenameLogin { login: RoleName, owner: RoleName, database: DatabaseName },
    /// Give the new login the password of the old one, as the server stores it.
    CarryPassword { login: RoleName },
    /// Let a login pass an access rule that asks for a membership in the role of the database's name.
    GrantPassage { group: RoleName, member: RoleName },
    /// Hand something to the owner role or to the admin within the swap.
    HandOver { object: ObjectName, to: String },
    /// Let a role of others go on entering the database.
    Admit { database: DatabaseName, role: RoleName },
    /// Let a role of others go on using schema `public`.
    ShowPublic { role: RoleName },
    /// Take default rights on what others will make.
    RevokeDefaults { role: String, schema: Option<String>, objects: String, owner: RoleName },
    /// Hand something of an admin's to the owner role, while the app works.
    Take { object: ObjectName, owner: RoleName, force_row_security: bool },
    /// Make the slots' objects the owner role's, and drop the slots and the maintenance login.
    Dissolve { roles: Vec<RoleName>, owner: RoleName },
    /// Make the owner role a login again, with its old name, attributes, password and settings.
    Reinstate { owner: RoleName, login: RoleName, database: DatabaseName },
    /// Give the database back as it was: owner, rights, limit, settings; and take the records away.
    GiveBack { database: DatabaseName },
}

impl Adoption {
    pub(crate) fn change(&self) -> Change {
        match self {
            Self::Together { part } => part.change(),
            Self::DisableTrigger { .. } | Self::RevokeDefaults { .. } | Self::Dissolve { .. } => Change::Remove,
            Self::GrantPassage { .. } | Self::Admit { .. } | Self::ShowPublic { .. } => Change::Add,
            Self::CloseLogin { .. }
            | Self::RenameLogin { .. }
            | Self::CarryPassword { .. }
            | Self::HandOver { .. }
            | Self::Take { .. }
            | Self::Reinstate { .. }
            | Self::GiveBack { .. } => Change::Change,
        }
    }

    /// Whether the app has not all that is its own until this is done, by whomever.
    pub(crate) fn is_awaited(&self) -> bool {
        matches!(self, Self::Take { .. } | Self::HandOver { .. } | Self::RevokeDefaults { .. })
    }

    /// Whether it is done inside the database.
    pub(crate) fn is_inside(&self) -> bool {
        match self {
            Self::Together { part } => part.is_inside(),
            Self::DisableTrigger { .. } | Self::ShowPublic { .. } => true,
            adoption => adoption.is_awaited(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self {
            Self::Take { object, .. } if object.kind.is_alone() => Phase::TakeAlone,
            Self::Take { .. } => Phase::TakeTogether,
            Self::GrantPassage { .. } => Phase::Roles,
            Self::Admit { .. } => Phase::Database,
            _ => Phase::Swap,
        }
    }
}

impl fmt::Display for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Together { part } => part.fmt(f),
            Self::DisableTrigger { trigger } => {
                write!(f, "event trigger {}: switched off, and the admin's", escaped(trigger))
            }
            Self::CloseLogin { login, loses } => match loses.join(", ") {
                words if words.is_empty() => write!(f, "role/{login}: cannot log in"),
                words => write!(f, "role/{login}: cannot log in, and has no longer {words}"),
            },
            Self::RenameLogin { login, owner, .. } => {
                write!(f, "role/{login}: becomes role/{owner}, with everything it owns and holds")
            }
            Self::CarryPassword { login } => write!(f, "role/{login}: the password of the old {login}"),
            Self::GrantPassage { group, member } => {
                write!(f, "membership of {member} in {group}, for pg_hba.conf only")
            }
            Self::HandOver { object, to } => write!(f, "{object}: owned by {}", escaped(to)),
            Self::Admit { database, role } => write!(f, "right of {role} to enter database/{database}"),
            Self::ShowPublic { role } => write!(f, "right of {role} to use schema/public"),
            Self::RevokeDefaults { role, schema, objects, owner } => {
                let place = schema.as_ref().map(|schema| format!(" in schema {}", escaped(schema)));
                let (role, objects) = (escaped(role), objects.to_lowercase());
                write!(f, "default rights of {owner} on {objects} that {role} makes{}", place.unwrap_or_default())
            }
            Self::Take { object, owner, force_row_security } => {
                write!(f, "{object}: owned by {owner}")?;
                f.write_str(if *force_row_security { ", with its row security forced" } else { "" })
            }
            Self::Dissolve { roles, owner } => {
                let names: Vec<&str> = roles.iter().map(RoleName::as_str).collect();
                write!(f, "roles {}, their objects owned by {owner}", names.join(", "))
            }
            Self::Reinstate { owner, login, .. } => {
                write!(f, "role/{owner}: becomes role/{login} again, a login with its password")
            }
            Self::GiveBack { database } => {
                write!(f, "database/{database}: owner, rights, limit and settings as before, and no record")
            }
        }
    }
}
