//! Taking over an app that was made by hand: what the caller allows, and what is recorded of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::names::{HIDDEN, RoleName, SchemaName, shown_value};

/// That an app made by hand is to be taken over, and what the caller consents to. Each consent answers a finding that
/// would otherwise refuse the adoption.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adopt {
    /// The login may lose SUPERUSER, CREATEROLE, REPLICATION and BYPASSRLS, and its event triggers are switched off.
    pub demote: bool,
    /// Memberships of the login, and its members, pass to the owner role.
    pub keep_memberships: bool,
    /// Roles whose objects in the database become the app's.
    pub take_from: BTreeSet<RoleName>,
    /// Roles of other apps keep what they were granted in the database, and may enter it.
    pub keep_grants: bool,
    /// Roles that may go on entering the database, which only PUBLIC's right has let them.
    pub allow_connect: BTreeSet<RoleName>,
    /// All other roles that only PUBLIC's right has let into the database lose it.
    pub close_to_others: bool,
    /// Policies that compare with `current_user` may see another name than the one that rows have stored.
    pub accept_name_change: bool,
    /// Sessions of the app may be ended at the moment of the change.
    pub end_sessions: bool,
    /// Rights of the login to enter other databases are taken.
    pub drop_foreign_grants: bool,
}

/// What an app's record says of its adoption: what is its own way for good, and what undoing it needs. No secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Adopted {
    /// The schema in which the app makes its tables.
    pub schema: SchemaName,
    /// Roles of others that may enter the database.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub guests: BTreeSet<RoleName>,
    /// Groups that the owner role stays a member of.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<RoleName>,
    /// Roles of others that stay members of the owner role.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub members: BTreeSet<RoleName>,
    /// Keys of the Secret that have names of ours and say something else; they are the app's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub kept_keys: BTreeSet<String>,
    /// The host that the Secret names, where it is another name of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port that the Secret names beside that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The second login was given a password.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub issued: bool,
    /// Sessions from before are to be ended until the adoption is through.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub end_sessions: bool,
    /// Roles whose objects become the app's until the adoption is through.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub take_from: BTreeSet<RoleName>,
    /// What was there before, for undoing.
    pub before: Before,
}

impl Adopted {
    /// The same as reports show it.
    pub(crate) fn shown(&self) -> Self {
        let mut shown = self.clone();
        let before = &mut shown.before;
        let settings = [&mut before.settings, &mut before.login_settings, &mut before.local_settings];
        for (name, value) in settings.into_iter().flatten() {
            *value = shown_value(name, value).unwrap_or(HIDDEN).to_owned();
        }
        shown
    }

    /// Whether the words that undoing would repeat are words that the server has.
    ///
    /// # Errors
    /// `InvalidInput` when one is not: a record can be changed by hand.
    pub(crate) fn check(&self) -> Result<()> {
        let before = &self.before;
        let rights = before.access.iter().chain(&before.public_access);
        let unknown = rights
            .map(|grant| &grant.right)
            .find(|right| !RIGHTS.contains(&right.as_str()))
            .or_else(|| before.attributes.iter().find(|word| !is_attribute(word)));
        match unknown {
            Some(word) => Err(Error::invalid_input(
                "adoption_invalid",
                format!("{word:?} is neither a right nor an attribute that a login could have had"),
            )),
            None => Ok(()),
        }
    }
}

const RIGHTS: [&str; 4] = ["CONNECT", "CREATE", "TEMPORARY", "USAGE"];
const ATTRIBUTES: [&str; 7] = ["LOGIN", "INHERIT", "SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS"];

fn is_attribute(word: &str) -> bool {
    match word.strip_prefix("CONNECTION LIMIT ") {
        Some(limit) => limit.parse::<i32>().is_ok(),
        None => ATTRIBUTES.contains(&word.strip_prefix("NO").unwrap_or(word)),
    }
}

/// What an adoption has changed, as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Before {
    /// Who owned the database.
    pub owner: String,
    /// Rights on the database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<Grant>,
    /// Sessions that the database could have.
    pub limit: i32,
    /// The login's attributes, as ALTER ROLE spells them.
    pub attributes: Vec<String>,
    /// When the login's password was to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// Settings of the database.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Settings of the login in every database.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub login_settings: BTreeMap<String, String>,
    /// Settings of the login in this database.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub local_settings: BTreeMap<String, String>,
    /// Who owned schema `public`, if it was handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_owner: Option<String>,
    /// Rights on schema `public`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub public_access: Vec<Grant>,
    /// What somebody noted about the login, where our record is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_comment: Option<String>,
    /// What somebody noted about the database, where our record is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_comment: Option<String>,
}

/// A right that was granted; an empty grantee is PUBLIC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Grant {
    /// Who has it.
    pub to: String,
    /// The right, such as `CONNECT`.
    pub right: String,
    /// Whether the grantee may pass it on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grantable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_nothing_that_could_act() {
        let grant = |right: &str| Grant { to: String::new(), right: right.to_owned(), grantable: false };
        let adopted = |attributes: &[&str], right: &str| Adopted {
            schema: "public".parse().unwrap(),
            guests: BTreeSet::new(),
            groups: BTreeSet::new(),
            members: BTreeSet::new(),
            kept_keys: BTreeSet::new(),
            host: None,
            port: None,
            issued: false,
            end_sessions: false,
            take_from: BTreeSet::new(),
            before: Before {
                attributes: attributes.iter().map(|word| (*word).to_owned()).collect(),
                access: vec![grant(right)],
                ..Before::default()
            },
        };
        adopted(&["LOGIN", "NOSUPERUSER", "CONNECTION LIMIT -1"], "CONNECT").check().unwrap();
        for (word, right) in
            [("LOGIN; DROP ROLE x", "CONNECT"), ("CONNECTION LIMIT 1 SUPERUSER", "CONNECT"), ("LOGIN", "ALL")]
        {
            assert_eq!(adopted(&[word], right).check().unwrap_err().code(), "adoption_invalid", "{word} {right}");
        }
    }
}
