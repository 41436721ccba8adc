//! What was read of an app that was made by hand, as plain values. None of them holds a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::adoption::Grant;
use crate::names::{AppName, DatabaseName, LoginName};
use crate::postgres::sql::escaped;

/// A hand-made app, as far as it could be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Legacy {
    /// Its database and its login, as the caller, the Secret or the rule for names has it.
    pub(crate) database: DatabaseName,
    pub(crate) user: LoginName,
    pub(crate) outside: Outside,
    pub(crate) secret: FoundSecret,
    /// The inside of its database; `Err`: why nobody should go in, or could not read it.
    pub(crate) inside: Result<Inventory, NoInside>,
}

/// Why the inside of a database was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoInside {
    /// Something seen from outside forbids it; a finding says what.
    Forbidden,
    /// Its encoding is SQL_ASCII, and names in it are no UTF-8.
    Unreadable,
}

/// What can be read without entering its database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outside {
    pub(crate) login: Option<LoginFacts>,
    /// What the login is outside its database.
    pub(crate) elsewhere: Vec<Elsewhere>,
    /// Roles of others with something in the database.
    pub(crate) residents: Vec<Resident>,
    /// Logins of others that only PUBLIC's right lets in.
    pub(crate) public_only: BTreeSet<String>,
    /// Rights on the database.
    pub(crate) access: Vec<Grant>,
    /// Settings of the database itself.
    pub(crate) settings: BTreeMap<String, String>,
    /// The search path that counts where neither the login nor the database has one.
    pub(crate) default_path: String,
    pub(crate) slots: Vec<String>,
    /// What somebody noted about the database.
    pub(crate) comment: Option<String>,
}

/// What only matters of a login that is to be adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoginFacts {
    pub(crate) oid: u32,
    pub(crate) is_admin: bool,
    pub(crate) valid_until: Option<String>,
    pub(crate) md5: bool,
    /// What somebody noted about it.
    pub(crate) comment: Option<String>,
}

/// Objects or rights of the login outside its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// Empty for what all databases share.
    pub(crate) database: String,
    /// The catalog, such as `pg_class`.
    pub(crate) class: String,
    pub(crate) owned: bool,
    pub(crate) count: i64,
    /// Names of shared objects.
    pub(crate) names: Vec<String>,
}

/// A role of others with something in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resident {
    pub(crate) role: String,
    /// How many objects it owns.
    pub(crate) owned: i64,
    /// Whether it may enter at present.
    pub(crate) enters: bool,
}

/// The Secret of an app that is to be adopted, without what is secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FoundSecret {
    Absent,
    /// It is marked for another app.
    Foreign(AppName),
    Found {
        database: Option<String>,
        user: Option<String>,
        /// Its password is the one that the server stores for the login.
        works: bool,
        /// Keys with names of ours that say something else.
        kept_keys: BTreeSet<String>,
        /// Keys with names of others that hold the password, too.
        copies: BTreeSet<String>,
        host: Option<String>,
        port: Option<u16>,
    },
}

/// What has an owner in a database, and what is dangerous in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory {
    pub(crate) objects: Vec<Object>,
    /// Every schema.
    pub(crate) schemas: BTreeSet<String>,
    pub(crate) event_triggers: Vec<EventTrigger>,
    /// Policies that compare with a role's name: table and policy.
    pub(crate) policies: Vec<(String, String)>,
    /// Functions, defaults and views that ask for a role's name.
    pub(crate) name_users: Vec<String>,
    /// Default rights that others give the login.
    pub(crate) default_rights: Vec<DefaultRight>,
    /// Who owns `public`, and the rights on it; `None` when it was dropped.
    pub(crate) public: Option<(String, Vec<Grant>)>,
    /// Subscriptions, and whether they are enabled.
    pub(crate) subscriptions: BTreeMap<String, bool>,
}

/// Something with an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) name: ObjectName,
    /// The schema it is in, quoted as in names of schemas; empty for what is in none.
    pub(crate) schema: String,
    pub(crate) owner: String,
    /// It belongs to a superuser, or to the admin.
    pub(crate) of_admin: bool,
    pub(crate) in_extension: bool,
    /// It changes hands with something else, or never.
    pub(crate) follows: bool,
    /// Row security is on, and not for the owner.
    pub(crate) unforced: bool,
    /// It runs with its owner's rights.
    pub(crate) definer: bool,
    /// It is code that the server does not confine.
    pub(crate) untrusted: bool,
    /// It is the function of an event trigger.
    pub(crate) of_trigger: bool,
    /// A publication of all tables, of the database or of schemas.
    pub(crate) all_tables: bool,
    /// A schema in which the app's role may create.
    pub(crate) creatable: bool,
}

/// An event trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventTrigger {
    pub(crate) name: String,
    pub(crate) enabled: bool,
    pub(crate) owner: String,
    pub(crate) function_owner: String,
    pub(crate) function_of_superuser: bool,
}

/// Default rights that a role gives on what it will make.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DefaultRight {
    pub(crate) role: String,
    pub(crate) schema: Option<String>,
    /// The kind of objects, as ALTER DEFAULT PRIVILEGES spells it.
    pub(crate) objects: String,
}

/// What kind of object changes hands, and its name as the server writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectName {
    /// The kind.
    pub kind: ObjectKind,
    /// Its qualified and quoted name, with its arguments where it has any.
    pub identity: String,
    /// Its identity, which a name is not: whoever may rename things can give the name to another one.
    pub oid: u32,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.keyword().to_lowercase(), escaped(&self.identity))
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $text:literal as $keyword:literal;)*) => {
        /// Kinds of objects that have owners.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum ObjectKind {
            $($(#[$doc])* $kind,)*
        }

        impl ObjectKind {
            /// As `pg_identify_object` has it.
            pub(crate) fn of(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$kind),)* "function" | "procedure" | "aggregate" => Some(Self::Routine), _ => None }
            }

            /// As ALTER has it.
            pub(crate) fn keyword(self) -> &'static str {
                match self { $(Self::$kind => $keyword),* }
            }
        }
    };
}

kinds! {
    /// A schema.
    Schema = "schema" as "SCHEMA";
    /// A table, partitioned or not.
    Table = "table" as "TABLE";
    /// A foreign table.
    ForeignTable = "foreign table" as "FOREIGN TABLE";
    /// A sequence that belongs to no column.
    Sequence = "sequence" as "SEQUENCE";
    /// A type or a domain.
    Type = "type" as "TYPE";
    /// A function, procedure or aggregate.
    Routine = "routine" as "ROUTINE";
    /// An operator.
    Operator = "operator" as "OPERATOR";
    /// An operator class.
    OperatorClass = "operator class" as "OPERATOR CLASS";
    /// An operator family.
    OperatorFamily = "operator family" as "OPERATOR FAMILY";
    /// A collation.
    Collation = "collation" as "COLLATION";
    /// A conversion.
    Conversion = "conversion" as "CONVERSION";
    /// A text search configuration.
    TextSearchConfiguration = "text search configuration" as "TEXT SEARCH CONFIGURATION";
    /// A text search dictionary.
    TextSearchDictionary = "text search dictionary" as "TEXT SEARCH DICTIONARY";
    /// Extended statistics.
    Statistics = "statistics object" as "STATISTICS";
    /// A publication.
    Publication = "publication" as "PUBLICATION";
    /// A large object.
    LargeObject = "large object" as "LARGE OBJECT";
    /// A view.
    View = "view" as "VIEW";
    /// A materialized view.
    MaterializedView = "materialized view" as "MATERIALIZED VIEW";
    /// A language.
    Language = "language" as "LANGUAGE";
    /// An extension.
    Extension = "extension" as "EXTENSION";
    /// A foreign-data wrapper.
    ForeignDataWrapper = "foreign-data wrapper" as "FOREIGN DATA WRAPPER";
    /// A foreign server.
    ForeignServer = "server" as "SERVER";
    /// An event trigger.
    EventTrigger = "event trigger" as "EVENT TRIGGER";
    /// A subscription.
    Subscription = "subscription" as "SUBSCRIPTION";
}

impl ObjectKind {
    /// Whether it changes hands in a transaction of its own: programs use it all the time. Schemas go before what is in them.
    pub(crate) fn is_alone(self) -> bool {
        matches!(self, Self::Schema | Self::Table | Self::ForeignTable | Self::Sequence)
    }
}

impl ObjectKind {
    /// The catalog that it is in, and the column that says whose it is.
    pub(crate) fn catalog(self) -> (&'static str, &'static str) {
        match self {
            Self::Schema => ("pg_namespace", "nspowner"),
            Self::Table | Self::ForeignTable | Self::Sequence | Self::View | Self::MaterializedView => {
                ("pg_class", "relowner")
            }
            Self::Type => ("pg_type", "typowner"),
            Self::Routine => ("pg_proc", "proowner"),
            Self::Operator => ("pg_operator", "oprowner"),
            Self::OperatorClass => ("pg_opclass", "opcowner"),
            Self::OperatorFamily => ("pg_opfamily", "opfowner"),
            Self::Collation => ("pg_collation", "collowner"),
            Self::Conversion => ("pg_conversion", "conowner"),
            Self::TextSearchConfiguration => ("pg_ts_config", "cfgowner"),
            Self::TextSearchDictionary => ("pg_ts_dict", "dictowner"),
            Self::Statistics => ("pg_statistic_ext", "stxowner"),
            Self::Publication => ("pg_publication", "pubowner"),
            Self::LargeObject => ("pg_largeobject_metadata", "lomowner"),
            Self::Language => ("pg_language", "lanowner"),
            Self::Extension => ("pg_extension", "extowner"),
            Self::ForeignDataWrapper => ("pg_foreign_data_wrapper", "fdwowner"),
            Self::ForeignServer => ("pg_foreign_server", "srvowner"),
            Self::EventTrigger => ("pg_event_trigger", "evtowner"),
            Self::Subscription => ("pg_subscription", "subowner"),
        }
    }
}
