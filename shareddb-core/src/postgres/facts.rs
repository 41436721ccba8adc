//! What was read from a server, as plain values for the planner. None of them holds a secret.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::names::ExtensionName;
use crate::postgres::version::ServerVersion;

/// The server as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerFacts {
    pub(crate) version: ServerVersion,
    /// It was made for shareddb: what everybody has there, shareddb may take.
    pub(crate) ours: bool,
    /// The role that is logged in.
    pub(crate) admin: String,
    pub(crate) superuser: bool,
    /// What it may do without being a superuser; of no meaning otherwise.
    pub(crate) powers: Powers,
    pub(crate) max_connections: u32,
    /// Whether the group of maintenance logins exists.
    pub(crate) maintenance_group: bool,
    /// Those of `postgres` and `template1` on which PUBLIC has any right.
    pub(crate) open_to_public: BTreeSet<String>,
    /// Who has given PUBLIC rights on a database without owning it, by database.
    pub(crate) third_grantors: BTreeMap<String, BTreeSet<String>>,
    /// Every database that PUBLIC may enter, and the logins that no other right admits there. Read only where the server
    /// is not ours.
    pub(crate) visitors: BTreeMap<String, BTreeSet<String>>,
    /// Logins that would stay in with PUBLIC's rights gone, and make no temporary tables any more; read as the visitors are.
    pub(crate) temporary: BTreeMap<String, BTreeSet<String>>,
}

impl ServerFacts {
    /// Who has given PUBLIC rights on a database without owning it.
    pub(crate) fn third_grantors(&self, database: &str) -> impl Iterator<Item = &str> {
        self.third_grantors.get(database).into_iter().flatten().map(String::as_str)
    }
}

/// What an admin may do who is no superuser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Powers {
    pub(crate) createdb: bool,
    pub(crate) createrole: bool,
    pub(crate) replication: bool,
    pub(crate) bypassrls: bool,
    /// May end the session of any role that is no superuser.
    pub(crate) signal: bool,
    /// May make roles members of the group of maintenance logins, if that exists.
    pub(crate) maintenance: bool,
    /// Databases that it owns.
    pub(crate) owned: BTreeSet<String>,
    /// Settings, of those that are stored for any role or wanted for an app's, that it may not touch.
    pub(crate) forbidden: BTreeSet<String>,
}

impl Powers {
    /// Whether the admin may give or take an attribute, as CREATE ROLE spells it.
    pub(crate) fn may_name(&self, attribute: &str) -> bool {
        match attribute.trim_start_matches("NO") {
            "SUPERUSER" => false,
            "REPLICATION" => self.replication,
            "BYPASSRLS" => self.bypassrls,
            _ => true,
        }
    }
}

/// One role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoleFacts {
    pub(crate) shape: RoleShape,
    pub(crate) expiry: Expiry,
    /// It has one, or, where that cannot be seen, it can log in and so may have one.
    pub(crate) has_password: bool,
    /// The admin may change it, drop it, and make others members of it.
    pub(crate) administered: bool,
    /// The admin may act as it.
    pub(crate) settable: bool,
    /// Groups that it is a member of.
    pub(crate) groups: BTreeMap<String, Grants>,
    /// Its members.
    pub(crate) members: BTreeMap<String, Grants>,
    /// Settings in every database.
    pub(crate) settings: BTreeMap<String, String>,
    /// Settings in the app's database.
    pub(crate) database_settings: BTreeMap<String, String>,
    /// Sessions at this moment.
    pub(crate) sessions: u32,
}

impl RoleFacts {
    /// Whether somebody who has its password may log in with that, as far as can be seen.
    pub(crate) fn admits(&self) -> bool {
        self.shape.login && self.has_password && !matches!(self.expiry, Expiry::Past(_))
    }
}

/// What a role may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleShape {
    /// May log in.
    pub login: bool,
    /// Has its groups' rights without asking.
    pub inherit: bool,
    /// Superuser.
    pub superuser: bool,
    /// May create databases.
    pub createdb: bool,
    /// May create roles.
    pub createrole: bool,
    /// May stream the server's changes.
    pub replication: bool,
    /// Sees rows that row security hides.
    pub bypassrls: bool,
    /// Sessions it may have; -1 is no limit.
    pub connection_limit: i32,
}

impl RoleShape {
    /// A role that can do nothing, not even log in.
    pub(crate) const CLOSED: Self = Self {
        login: false,
        inherit: true,
        superuser: false,
        createdb: false,
        createrole: false,
        replication: false,
        bypassrls: false,
        connection_limit: -1,
    };

    /// As CREATE ROLE and ALTER ROLE spell it.
    pub(crate) fn words(&self) -> Vec<String> {
        let word = |on: bool, name: &str| if on { name.to_owned() } else { format!("NO{name}") };
        vec![
            word(self.login, "LOGIN"),
            word(self.inherit, "INHERIT"),
            word(self.superuser, "SUPERUSER"),
            word(self.createdb, "CREATEDB"),
            word(self.createrole, "CREATEROLE"),
            word(self.replication, "REPLICATION"),
            word(self.bypassrls, "BYPASSRLS"),
            format!("CONNECTION LIMIT {}", self.connection_limit),
        ]
    }
}

/// When a role's password stops working, by the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    Never,
    Past(Timestamp),
    Future(Timestamp),
}

/// How one role is a member of another, by who granted it. Before 16 there is one grant at most, and who granted it counts
/// for nothing: that name is empty.
pub(crate) type Grants = BTreeMap<String, Membership>;

/// One grant of a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// May pass it on.
    pub(crate) admin: bool,
    /// May use it: inherits, and may SET ROLE (always so before 16).
    pub(crate) usable: bool,
}

impl Membership {
    pub(crate) const PLAIN: Self = Self { admin: false, usable: true };
}

/// One database, seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DatabaseFacts {
    pub(crate) owner: String,
    pub(crate) allows_connections: bool,
    pub(crate) connection_limit: i32,
    pub(crate) template: bool,
    /// What an interrupted DROP DATABASE leaves: of no use but to be dropped.
    pub(crate) invalid: bool,
    /// Rights of everybody but the owner: grantee (empty is PUBLIC) to rights, a `*` after those it may pass on.
    pub(crate) access: BTreeMap<String, BTreeSet<String>>,
    /// Names of settings of the database itself.
    pub(crate) settings: BTreeSet<String>,
    /// Roles of others with a session in it right now.
    pub(crate) strangers: BTreeSet<String>,
    /// It runs an event trigger at each login, or did until a moment ago (17 and newer).
    pub(crate) login_trigger: bool,
    /// Prepared transactions in it.
    pub(crate) prepared: Vec<String>,
}

/// The rights that an app's owner role has on its database.
pub(crate) const OWNER_ACCESS: [&str; 3] = ["CONNECT", "CREATE", "TEMPORARY"];

/// The app's database, seen from inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InsideFacts {
    /// Schemas to owners.
    pub(crate) schemas: BTreeMap<String, String>,
    /// Schemas of superusers or the admin in which nobody else may create or has anything. Read only when an extension is to be made.
    pub(crate) safe_schemas: BTreeSet<String>,
    /// Extensions by name.
    pub(crate) extensions: BTreeMap<String, Installed>,
    /// Logins that own objects, which ought to be the owner role's.
    pub(crate) strays: BTreeSet<String>,
}

impl DatabaseFacts {
    /// A database as our CREATE DATABASE leaves it: closed, and with PUBLIC's default rights.
    pub(crate) fn fresh(admin: &str, connections: u16) -> Self {
        Self {
            owner: admin.to_owned(),
            allows_connections: false,
            connection_limit: i32::from(connections),
            template: false,
            invalid: false,
            access: [(String::new(), BTreeSet::from(["CONNECT".to_owned(), "TEMPORARY".to_owned()]))].into(),
            settings: BTreeSet::new(),
            strangers: BTreeSet::new(),
            login_trigger: false,
            prepared: Vec::new(),
        }
    }
}

impl InsideFacts {
    /// The inside of template0, as far as an app's is looked at.
    pub(crate) fn fresh() -> Self {
        Self {
            schemas: [("public", "pg_database_owner"), ("pg_catalog", "postgres")]
                .map(|(name, owner)| (name.to_owned(), owner.to_owned()))
                .into(),
            safe_schemas: ["pg_catalog".to_owned()].into(),
            ..Self::default()
        }
    }

    /// Those of the extensions that are not there.
    pub(crate) fn missing<'a>(
        &'a self,
        wanted: impl IntoIterator<Item = &'a ExtensionName>,
    ) -> impl Iterator<Item = &'a ExtensionName> {
        wanted.into_iter().filter(|extension| !self.extensions.contains_key(extension.as_str()))
    }
}

/// An extension that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    pub(crate) schema: String,
    /// It belongs to a superuser or to the admin. Whoever owns it may put it somewhere else at any moment.
    pub(crate) of_admin: bool,
}

/// An extension that the server could make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtensionFacts {
    /// Where it insists on being, when it does.
    pub(crate) schema: Option<String>,
    /// What any of its versions needs: a new one may be made by way of an old one.
    pub(crate) requires: Vec<String>,
    /// Only a superuser can make it.
    pub(crate) superuser_only: bool,
}

/// What an app's roles have outside its own database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AbroadFacts {
    /// Rights on other databases.
    pub(crate) access: BTreeSet<Access>,
    /// Sessions of theirs are in other databases.
    pub(crate) sessions: bool,
    /// Other databases that belong to one of them, or have its name, so that they can enter: database and role.
    pub(crate) enterable: BTreeSet<(String, String)>,
    /// Other databases with objects of theirs.
    pub(crate) objects: BTreeSet<String>,
    /// Other databases with rights of theirs on what is inside.
    pub(crate) rights: BTreeSet<String>,
    /// What else keeps them from being dropped: in the database that the admin is in, and what belongs to no database.
    pub(crate) ties: BTreeSet<String>,
    /// Some of that are whole databases or tablespaces, which outlive their owner.
    pub(crate) estate: bool,
}

impl AbroadFacts {
    /// The same without what they have in these databases.
    pub(crate) fn without(mut self, databases: &BTreeSet<&str>) -> Self {
        self.access.retain(|access| !databases.contains(access.database.as_str()));
        self.objects.retain(|database| !databases.contains(database.as_str()));
        self.rights.retain(|database| !databases.contains(database.as_str()));
        self
    }
}

/// A right on a database, and who granted it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Access {
    pub(crate) database: String,
    pub(crate) role: String,
    pub(crate) grantor: String,
}

/// A line of `pg_hba.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessRule {
    pub(crate) line: i32,
    pub(crate) databases: Vec<String>,
    pub(crate) users: Vec<String>,
    pub(crate) method: String,
    /// Why the server cannot read it.
    pub(crate) error: Option<String>,
}
