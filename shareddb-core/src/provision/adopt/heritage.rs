//! Who keeps what: the fate of each object of a hand-made app.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::{App, EXTENSION_SCHEMA};
use crate::names::RoleName;
use crate::postgres::legacy::{Inventory, Object, ObjectKind};
use crate::postgres::sql::escaped;
use crate::provision::adopt::Adoption;
use crate::provision::step::Step;

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is the login's, and with the login it becomes the owner role.
    Follows,
    /// It is part of something else, or nothing that matters.
    Silent,
    /// An admin keeps it: the app could not restore it, or must not change it.
    Stays,
    /// It goes to the admin, for the same reasons.
    ToAdmin,
    /// It is handed to the owner role.
    ToOwner,
    /// It belongs to somebody who was not mentioned.
    Others,
}

/// `app_role` is the login, or the owner role that it has become.
pub(super) fn fate(object: &Object, app_role: &str, take_from: &BTreeSet<RoleName>) -> Fate {
    let privileged = object.untrusted || object.of_trigger || object.all_tables;
    let operators = matches!(
        object.name.kind,
        ObjectKind::Language | ObjectKind::ForeignDataWrapper | ObjectKind::Subscription | ObjectKind::EventTrigger
    );
    // ALTER EXTENSION knows no OWNER.
    let extension = object.name.kind == ObjectKind::Extension;
    let extensions = object.name.kind == ObjectKind::Schema && object.name.identity == EXTENSION_SCHEMA;
    let infrastructure = extension || extensions || object.name.kind == ObjectKind::ForeignServer;
    let taken = take_from.iter().any(|role| role.as_str() == object.owner);
    if object.in_extension || object.follows || object.owner == DATABASE_OWNER {
        Fate::Silent
    } else if object.owner == app_role {
        if operators || privileged { Fate::ToAdmin } else { Fate::Follows }
    } else if object.of_admin {
        if operators || privileged || infrastructure { Fate::Stays } else { Fate::ToOwner }
    } else if taken {
        match operators || privileged {
            _ if extension => Fate::Stays,
            true => Fate::ToAdmin,
            false => Fate::ToOwner,
        }
    } else {
        Fate::Others
    }
}

/// Who owns `public` from 15 on: whoever owns the database.
pub(crate) const DATABASE_OWNER: &str = "pg_database_owner";

/// Objects with one fate, in the order in which they change hands: schemas, what programs use all the time, the rest, and
/// last what reads other objects with its owner's rights.
fn with_fate<'a>(
    inventory: &'a Inventory,
    app_role: &'a str,
    take_from: &'a BTreeSet<RoleName>,
    wanted: Fate,
) -> Vec<&'a Object> {
    let mut found: Vec<&Object> =
        inventory.objects.iter().filter(|object| fate(object, app_role, take_from) == wanted).collect();
    found.sort_by_key(|object| (object.definer, &object.name));
    found
}

/// Those who own objects here and were not mentioned, each with what it owns.
pub(super) fn others<'a>(
    inventory: &'a Inventory,
    login: &'a str,
    take_from: &'a BTreeSet<RoleName>,
) -> BTreeMap<&'a str, Vec<String>> {
    let mut owners: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for object in with_fate(inventory, login, take_from, Fate::Others) {
        owners.entry(&object.owner).or_default().push(object.name.to_string());
    }
    owners
}

/// What changes hands within the swap: the admin's schemas, and what the app must not have.
pub(super) fn handed_over(
    inventory: &Inventory,
    app: &App,
    login: &str,
    take_from: &BTreeSet<RoleName>,
    admin: &str,
) -> Vec<Step> {
    let to =
        |object: &Object, to: &str| Step::Adopt(Adoption::HandOver { object: object.name.clone(), to: to.to_owned() });
    let code = with_fate(inventory, login, take_from, Fate::ToAdmin);
    let code = code.into_iter().filter(|object| object.name.kind != ObjectKind::EventTrigger);
    let schemas = with_fate(inventory, login, take_from, Fate::ToOwner);
    let schemas = schemas.into_iter().filter(|object| object.name.kind == ObjectKind::Schema && !is_public(object));
    code.map(|object| to(object, admin)).chain(schemas.map(|object| to(object, app.owner.as_str()))).collect()
}

/// What is left to change hands while the app works. Schemas went with the swap.
pub(crate) fn taken(inventory: &Inventory, app: &App, app_role: &str, take_from: &BTreeSet<RoleName>) -> Vec<Step> {
    let objects = with_fate(inventory, app_role, take_from, Fate::ToOwner);
    let (alone, together): (Vec<&Object>, Vec<&Object>) = objects
        .into_iter()
        .filter(|object| object.name.kind != ObjectKind::Schema)
        .partition(|object| object.name.kind.is_alone());
    alone.into_iter().chain(together).map(|object| take(object, app)).collect()
}

/// Schemas that the swap has left to somebody else.
pub(super) fn late_schemas<'a>(
    inventory: &'a Inventory,
    app_role: &'a str,
    take_from: &'a BTreeSet<RoleName>,
) -> impl Iterator<Item = &'a Object> {
    let objects = with_fate(inventory, app_role, take_from, Fate::ToOwner);
    objects.into_iter().filter(|object| object.name.kind == ObjectKind::Schema && !is_public(object))
}

pub(super) fn take(object: &Object, app: &App) -> Step {
    let (object, force_row_security) = (object.name.clone(), object.unforced);
    Step::Adopt(Adoption::Take { object, owner: app.owner.clone(), force_row_security })
}

/// What others give the app of what they will make: nobody makes anything for it any more.
pub(super) fn default_rights(inventory: &Inventory, app: &App) -> impl Iterator<Item = Step> {
    inventory.default_rights.iter().map(|right| {
        Step::Adopt(Adoption::RevokeDefaults {
            role: right.role.clone(),
            schema: right.schema.clone(),
            objects: right.objects.clone(),
            owner: app.owner.clone(),
        })
    })
}

fn is_public(object: &Object) -> bool {
    object.name.kind == ObjectKind::Schema && object.name.identity == "public"
}

/// What a person should know of objects that change their meaning, or do not change hands.
pub(super) fn notices(inventory: &Inventory, login: &str, take_from: &BTreeSet<RoleName>) -> Vec<String> {
    let named = |fate, which: &dyn Fn(&Object) -> bool| {
        listed(
            with_fate(inventory, login, take_from, fate)
                .into_iter()
                .filter(|object| which(object))
                .map(|object| object.name.to_string()),
        )
    };
    let views = |object: &Object| object.definer || object.name.kind == ObjectKind::View;
    let visible = |object: &Object| object.name.kind != ObjectKind::EventTrigger;
    [
        named(Fate::ToOwner, &views).map(|names| format!("these run with the app's rights from now on: {names}")),
        named(Fate::Stays, &visible).map(|names| format!("these stay with the admin: {names}")),
        listed(inventory.name_users.iter().map(|name| escaped(name))).map(|names| {
            format!("these ask for a role's name, and current_user is the owner role from now on: {names}")
        }),
        listed(inventory.subscriptions.keys().map(|name| escaped(name)))
            .map(|names| format!("no restore brings these subscriptions back: {names}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Names that are worth showing, at most a few; `None` when there are none.
pub(crate) fn listed(names: impl Iterator<Item = String>) -> Option<String> {
    const SHOWN: usize = 12;
    let names: Vec<String> = names.collect();
    match names.len() {
        0 => None,
        count if count > SHOWN => Some(format!("{}, and {} more", names[..SHOWN].join(", "), count - SHOWN)),
        _ => Some(names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::legacy::ObjectName;

    fn object(kind: ObjectKind, owner: &str) -> Object {
        Object {
            name: ObjectName { kind, identity: "public.x".into(), oid: 1 },
            schema: "public".into(),
            owner: owner.into(),
            of_admin: owner == "postgres",
            in_extension: false,
            follows: false,
            unforced: false,
            definer: false,
            untrusted: false,
            of_trigger: false,
            all_tables: false,
            creatable: false,
        }
    }

    fn fate_of(object: &Object) -> Fate {
        fate(object, "app", &[RoleName::existing("worker").unwrap()].into())
    }

    #[test]
    fn what_becomes_of_each_kind() {
        use ObjectKind::{EventTrigger, Extension, ForeignServer, Language, Publication, Routine, Table, View};
        for (kind, by_app, by_admin, by_worker) in [
            (Table, Fate::Follows, Fate::ToOwner, Fate::ToOwner),
            (View, Fate::Follows, Fate::ToOwner, Fate::ToOwner),
            (Routine, Fate::Follows, Fate::ToOwner, Fate::ToOwner),
            (Publication, Fate::Follows, Fate::ToOwner, Fate::ToOwner),
            (Extension, Fate::Follows, Fate::Stays, Fate::Stays),
            (ForeignServer, Fate::Follows, Fate::Stays, Fate::ToOwner),
            (Language, Fate::ToAdmin, Fate::Stays, Fate::ToAdmin),
            (EventTrigger, Fate::ToAdmin, Fate::Stays, Fate::ToAdmin),
        ] {
            for (owner, expected) in [("app", by_app), ("postgres", by_admin), ("worker", by_worker)] {
                assert_eq!(fate_of(&object(kind, owner)), expected, "{kind:?} of {owner}");
            }
            assert_eq!(fate_of(&object(kind, "somebody")), Fate::Others, "{kind:?}");
        }
        assert_eq!(fate_of(&object(ObjectKind::Schema, "pg_database_owner")), Fate::Silent);
    }

    #[test]
    fn code_that_is_not_confined_is_never_the_apps() {
        let changes: [fn(&mut Object); 3] =
            [|object| object.untrusted = true, |object| object.of_trigger = true, |object| object.all_tables = true];
        for change in changes {
            for (owner, expected) in [("app", Fate::ToAdmin), ("postgres", Fate::Stays), ("worker", Fate::ToAdmin)] {
                let mut object = object(ObjectKind::Routine, owner);
                change(&mut object);
                assert_eq!(fate_of(&object), expected, "{object:?}");
            }
        }
        let member = Object { in_extension: true, ..object(ObjectKind::Routine, "postgres") };
        let owned = Object { follows: true, ..object(ObjectKind::Sequence, "app") };
        assert_eq!((fate_of(&member), fate_of(&owned)), (Fate::Silent, Fate::Silent));
    }

    #[test]
    fn what_reads_with_its_owners_rights_changes_hands_last() {
        let named = |kind, identity: &str, definer| Object {
            name: ObjectName { kind, identity: identity.into(), oid: 1 },
            definer,
            ..object(kind, "postgres")
        };
        let inventory = Inventory {
            objects: vec![
                named(ObjectKind::Routine, "definer()", true),
                named(ObjectKind::View, "view", false),
                named(ObjectKind::Routine, "plain()", false),
                named(ObjectKind::Table, "table", false),
                named(ObjectKind::Schema, "schema", false),
                named(ObjectKind::Sequence, "sequence", false),
            ],
            ..Inventory::default()
        };
        let found = with_fate(&inventory, "app", &EMPTY, Fate::ToOwner);
        let order: Vec<&str> = found.into_iter().map(|object| object.name.identity.as_str()).collect();
        assert_eq!(order, ["schema", "table", "sequence", "plain()", "view", "definer()"]);
    }

    static EMPTY: BTreeSet<RoleName> = BTreeSet::new();
}
