//! One application: what is asked for, what is recorded, and every name that follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::adoption::{Adopt, Adopted};
use crate::error::{Error, Result};
use crate::mark::{self, Mark};
use crate::names::{
    AppName, DatabaseName, EnvironmentName, ExtensionName, HIDDEN, LOGIN_NAME_MAX, LoginName, RoleName,
    SECOND_SLOT_SUFFIX, SchemaName, SecretName, SettingName, shown_value,
};

/// Sessions that one login may have, unless the spec says otherwise.
pub(crate) const DEFAULT_CONNECTIONS: u16 = 10;
/// Sessions that the maintenance login may have on top of the app's.
pub(crate) const MAINTENANCE_CONNECTIONS: u16 = 4;

/// What the caller wants an app to be. A field left out means "as recorded, else the default".
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppSpec {
    /// The app.
    pub name: AppName,
    /// A database name of one's own choice; fixed once the app exists.
    pub database: Option<DatabaseName>,
    /// A name of one's own choice for the first login; fixed once the app exists.
    pub user: Option<LoginName>,
    /// Sessions that each login may have.
    pub connections: Option<u16>,
    /// Schemas searched for unqualified names, in order.
    pub search_path: Option<Vec<SchemaName>>,
    /// Extensions that an admin has to make. The whole list: one that is no longer on it stays in the database.
    pub extensions: Option<BTreeSet<ExtensionName>>,
    /// Server settings of the app's sessions. The whole set: one that is no longer in it is reset.
    pub settings: Option<BTreeMap<SettingName, String>>,
    /// Accept more promised sessions than the server's budget has.
    pub allow_overcommit: bool,
    /// On a server that was not made for shareddb: take from PUBLIC what everybody has on the server's own databases. Other
    /// roles can lose access by it; the plan names them.
    pub secure_server: bool,
    /// Take over a database that was made by hand, with its login and its Secret. Without effect on an app that is
    /// recorded already.
    pub adopt: Option<Adopt>,
}

impl AppSpec {
    /// An app with nothing but defaults, or, when it exists, as it is recorded.
    pub fn new(name: AppName) -> Self {
        Self {
            name,
            database: None,
            user: None,
            connections: None,
            search_path: None,
            extensions: None,
            settings: None,
            allow_overcommit: false,
            secure_server: false,
            adopt: None,
        }
    }

    /// Names that are chosen have the narrow grammar; those of what exists may have any.
    fn check_names(&self) -> Result<()> {
        self.database.as_ref().map(|name| name.as_str().parse::<DatabaseName>()).transpose()?;
        self.user.as_ref().map(|name| name.as_str().parse::<LoginName>()).transpose()?;
        Ok(())
    }
}

/// Which of an app's two logins. Rotation uses them in turn, so that one always works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The login that bears the user name itself.
    One,
    /// The login with the suffix `_2`.
    Two,
}

impl Slot {
    /// Both, in order.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// The one that is not this one.
    pub fn other(self) -> Self {
        match self {
            Self::One => Self::Two,
            Self::Two => Self::One,
        }
    }
}

/// Everything one app owns, by name, and the settings in force for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct App {
    /// The app's own name.
    pub name: AppName,
    /// The environment it was made in.
    pub environment: EnvironmentName,
    /// The database. The admin owns it; the app's objects in it belong to `owner`.
    pub database: DatabaseName,
    /// The role that owns every object of the app and cannot log in. Same name as the database, but for an adopted app
    /// whose login has that name.
    pub owner: RoleName,
    /// The name that the logins bear.
    pub user: LoginName,
    /// The two logins; [`App::login`] picks one.
    pub logins: [RoleName; 2],
    /// The login of backups and restores, closed between them.
    pub maintenance: RoleName,
    /// The app's schema.
    pub schema: SchemaName,
    /// The Secret that holds the credentials.
    pub secret: SecretName,
    /// Sessions that each login may have.
    pub connections: u16,
    /// Schemas searched for unqualified names, in order.
    pub search_path: Vec<SchemaName>,
    /// Extensions an admin made for the app.
    pub extensions: BTreeSet<ExtensionName>,
    /// Server settings of the app's sessions. Serialized without the values of those with names of two parts.
    #[serde(serialize_with = "shown_settings")]
    pub settings: BTreeMap<SettingName, String>,
    /// The number of the newest password that was made for it; the first one's is 1.
    pub generation: u32,
    /// The login that lets nobody in until its next turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closed: Option<Slot>,
    /// What is recorded of its adoption, if it was made by hand and taken over.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown_adoption")]
    pub adopted: Option<Adopted>,
}

impl App {
    /// An app as it is recorded.
    ///
    /// # Errors
    /// `Conflict` when the record holds what no app can be.
    pub fn recorded(mark: &Mark) -> Result<Self> {
        Self::derive(&AppSpec::new(mark.app.clone()), &mark.environment, Some(mark)).map_err(|source| {
            Error::conflict("mark_unreadable", format!("the record of app {} holds what no app can have", mark.app))
                .with_hint("put back what it was; the owner role and the database of an app bear the same one")
                .with_source(source)
        })
    }

    /// Derives every name and setting of an app. The only place where one name is made from another.
    ///
    /// # Errors
    /// `Conflict` when the spec chooses another name than the recorded one, `InvalidInput` when two of the
    /// resulting names are the same or a value is out of range.
    pub fn derive(spec: &AppSpec, environment: &EnvironmentName, record: Option<&Mark>) -> Result<Self> {
        if record.is_none() && spec.adopt.is_none() {
            spec.check_names()?;
        }
        let stem = spec.name.as_str().replace('-', "_");
        let default_database = || format!("{stem}_db").parse();
        let default_user = || format!("{stem}_user").parse();
        let database = chosen("database", spec.database.as_ref(), record.map(|mark| &mark.database), &spec.name)?
            .map_or_else(default_database, Ok)?;
        let user: LoginName = chosen("user", spec.user.as_ref(), record.map(|mark| &mark.user), &spec.name)?
            .map_or_else(default_user, Ok)?;
        let adopted = record.and_then(|mark| mark.adopted.clone());
        let schema: SchemaName = adopted.as_ref().map_or_else(|| stem.parse(), |adopted| Ok(adopted.schema.clone()))?;
        let owner = match record {
            Some(mark) => RoleName::existing(mark.owner())?,
            // The login keeps its name, so the role that it becomes needs another one.
            None if spec.adopt.is_some() && database.as_str() == user.as_str() => {
                RoleName::existing(&shortened(database.as_str(), OWNER_SUFFIX))?
            }
            None => RoleName::existing(database.as_str())?,
        };
        let recorded = |field: fn(&Mark) -> u16| record.map(field);
        let app = Self {
            name: spec.name.clone(),
            environment: record.map_or(environment, |mark| &mark.environment).clone(),
            owner,
            logins: [
                RoleName::existing(user.as_str())?,
                RoleName::existing(&shortened(user.as_str(), SECOND_SLOT_SUFFIX))?,
            ],
            maintenance: format!("{stem}_maint").parse()?,
            secret: format!("{}-db-secret", spec.name).parse()?,
            connections: spec.connections.or(recorded(|mark| mark.connections)).unwrap_or(DEFAULT_CONNECTIONS),
            search_path: match (&spec.search_path, record) {
                (Some(path), _) => path.clone(),
                (None, Some(mark)) => mark.search_path.clone(),
                (None, None) => vec![schema.clone(), "public".parse()?],
            },
            extensions: inherited(spec.extensions.as_ref(), record.map(|mark| &mark.extensions)),
            generation: record.map_or(mark::FIRST_GENERATION, |mark| mark.generation),
            closed: record.and_then(|mark| mark.closed),
            settings: inherited(spec.settings.as_ref(), record.map(|mark| &mark.settings)),
            database,
            user,
            schema,
            adopted,
        };
        app.check()?;
        Ok(app)
    }

    fn check(&self) -> Result<()> {
        if self.connections == 0 || self.connections > 1000 {
            return Err(Error::invalid_input(
                "connections_invalid",
                format!("{} connections per login are not possible: choose 1 to 1000", self.connections),
            ));
        }
        if self.search_path.is_empty() {
            return Err(Error::invalid_input("search_path_invalid", "the search path names no schema")
                .with_hint(format!("the default is {}, public", self.schema)));
        }
        if let Some(adopted) = &self.adopted {
            adopted.check()?;
        }
        if let Some((name, _)) = self.settings.iter().find(|(_, value)| value.contains('\0')) {
            return Err(Error::invalid_input("setting_invalid", format!("the value of {name} contains a NUL byte")));
        }
        let mut seen = BTreeSet::new();
        match self.roles().find(|role| !seen.insert(role.as_str())) {
            Some(role) => Err(Error::invalid_input(
                "name_invalid",
                format!("database and user names must differ from each other: two roles would be called {role:?}"),
            )
            .with_hint("choose another --database or --user")),
            None => Ok(()),
        }
    }

    /// The name of one login.
    pub fn login(&self, slot: Slot) -> &RoleName {
        &self.logins[slot as usize]
    }

    /// Which login has this name, if one has.
    pub fn slot_of(&self, role: &str) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| self.login(*slot).as_str() == role)
    }

    /// The logins that are to let somebody in.
    #[cfg(feature = "backup")]
    pub(crate) fn open_logins(&self) -> impl Iterator<Item = &RoleName> {
        Slot::ALL.into_iter().filter(|slot| self.closed != Some(*slot)).map(|slot| self.login(slot))
    }

    /// Whether keys of a Secret with this name are the app's own, and none of ours.
    pub(crate) fn keeps_key(&self, key: &str) -> bool {
        self.adopted.as_ref().is_some_and(|adopted| adopted.kept_keys.contains(key))
    }

    /// All four roles.
    pub fn roles(&self) -> impl Iterator<Item = &RoleName> {
        [&self.owner, &self.logins[0], &self.logins[1], &self.maintenance].into_iter()
    }

    /// All four roles, and those of others that may enter the database of an adopted app.
    pub(crate) fn residents(&self) -> impl Iterator<Item = &RoleName> {
        self.roles().chain(self.guests())
    }

    /// The roles of others that may enter the database of an adopted app.
    pub(crate) fn guests(&self) -> impl Iterator<Item = &RoleName> {
        self.adopted.iter().flat_map(|adopted| &adopted.guests)
    }

    /// Whether a role of others may enter the database.
    pub(crate) fn is_guest(&self, role: &str) -> bool {
        self.guests().any(|guest| guest.as_str() == role)
    }

    /// The login that has the database's name: what `samerole` in pg_hba.conf asks for is a membership in it.
    pub(crate) fn namesake(&self) -> Option<&RoleName> {
        self.logins.iter().find(|login| login.as_str() == self.database.as_str())
    }

    /// Sessions that all of the app together may have in its database.
    pub fn database_connections(&self) -> u16 {
        self.connections + MAINTENANCE_CONNECTIONS
    }

    /// The search path of the app's sessions: the chosen one, and where extensions are when there are any.
    pub fn effective_search_path(&self) -> Vec<String> {
        let mut path: Vec<String> = self.search_path.iter().map(ToString::to_string).collect();
        if !self.extensions.is_empty() && !path.iter().any(|schema| schema == EXTENSION_SCHEMA) {
            path.push(EXTENSION_SCHEMA.to_owned());
        }
        path
    }

    /// The record of this app, as it stands on its owner role while nothing has begun.
    pub fn mark(&self) -> Mark {
        Mark {
            version: if self.adopted.is_some() { mark::ADOPTED_VERSION } else { mark::VERSION },
            app: self.name.clone(),
            environment: self.environment.clone(),
            database: self.database.clone(),
            owner: (self.owner.as_str() != self.database.as_str()).then(|| self.owner.clone()),
            user: self.user.clone(),
            connections: self.connections,
            search_path: self.search_path.clone(),
            extensions: self.extensions.clone(),
            settings: self.settings.clone(),
            generation: self.generation,
            closed: self.closed,
            rotation: None,
            progress: None,
            adopted: self.adopted.clone(),
        }
    }
}

/// Of the owner role of an adopted app whose login has the database's name.
const OWNER_SUFFIX: &str = "_owner";

/// A name with a suffix, which a long one has to make room for.
fn shortened(name: &str, suffix: &str) -> String {
    let room = LOGIN_NAME_MAX + SECOND_SLOT_SUFFIX.len() - suffix.len();
    let end = (0..=room.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or_default();
    format!("{}{suffix}", &name[..end])
}

/// The schema of extensions that only an admin may make. The app may use it and not create in it, since
/// an extension's script runs with the admin's rights and finds names there.
pub(crate) const EXTENSION_SCHEMA: &str = "shareddb_extensions";

fn chosen<T: Clone + PartialEq + fmt::Display>(
    what: &str,
    wanted: Option<&T>,
    recorded: Option<&T>,
    app: &AppName,
) -> Result<Option<T>> {
    match (wanted, recorded) {
        (Some(wanted), Some(recorded)) if wanted != recorded => Err(Error::conflict(
            "name_recorded",
            format!("app {app} exists with the {what} name {recorded}, which cannot become {wanted}"),
        )
        .with_hint(format!("leave --{what} out to keep {recorded}, or create another app"))),
        (wanted, recorded) => Ok(recorded.or(wanted).cloned()),
    }
}

fn inherited<T: Clone + Default>(wanted: Option<&T>, recorded: Option<&T>) -> T {
    wanted.or(recorded).cloned().unwrap_or_default()
}

fn shown_adoption<S: Serializer>(adopted: &Option<Adopted>, serializer: S) -> Result<S::Ok, S::Error> {
    adopted.as_ref().map(Adopted::shown).serialize(serializer)
}

fn shown_settings<S: Serializer>(settings: &BTreeMap<SettingName, String>, serializer: S) -> Result<S::Ok, S::Error> {
    let shown = |value, name: &SettingName| shown_value(name.as_str(), value).unwrap_or(HIDDEN);
    serializer.collect_map(settings.iter().map(|(name, value)| (name, shown(value, name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derive(name: &str) -> App {
        App::derive(&spec(name), &"local".parse().unwrap(), None).unwrap()
    }

    fn spec(name: &str) -> AppSpec {
        AppSpec::new(name.parse().unwrap())
    }

    #[test]
    fn the_guides_names() {
        let app = derive("my-app");
        assert_eq!(app.database.as_str(), "my_app_db");
        assert_eq!(app.owner.as_str(), "my_app_db");
        assert_eq!(app.login(Slot::One).as_str(), "my_app_user");
        assert_eq!(app.login(Slot::Two).as_str(), "my_app_user_2");
        assert_eq!(app.maintenance.as_str(), "my_app_maint");
        assert_eq!(app.schema.as_str(), "my_app");
        assert_eq!(app.secret.as_str(), "my-app-db-secret");
        assert_eq!(app.effective_search_path(), ["my_app", "public"]);
    }

    #[test]
    fn the_longest_name_fits_everywhere() {
        derive(&"a".repeat(crate::names::APP_NAME_MAX));
    }

    #[test]
    fn what_is_left_out_is_as_recorded() {
        let mut first = spec("my-app");
        first.user = Some("chosen".parse().unwrap());
        first.connections = Some(3);
        let env = "local".parse().unwrap();
        let app = App::derive(&first, &env, None).unwrap();
        assert_eq!(App::derive(&spec("my-app"), &env, Some(&app.mark())).unwrap(), app);
        let mut other = spec("my-app");
        other.user = Some("another".parse().unwrap());
        assert_eq!(App::derive(&other, &env, Some(&app.mark())).unwrap_err().code(), "name_recorded");
    }

    #[test]
    fn names_of_what_exists_need_no_grammar_when_it_is_adopted() {
        let env = "local".parse().unwrap();
        let mut spec = spec("my-app");
        spec.database = Some(DatabaseName::existing("MyApp").unwrap());
        spec.user = Some(LoginName::existing("MyApp").unwrap());
        assert_eq!(App::derive(&spec, &env, None).unwrap_err().code(), "name_invalid");
        spec.adopt = Some(Adopt::default());
        let app = App::derive(&spec, &env, None).unwrap();
        assert_eq!((app.owner.as_str(), app.login(Slot::Two).as_str()), ("MyApp_owner", "MyApp_2"));
        assert_eq!(App::recorded(&app.mark()).unwrap(), app);
        assert_eq!(app.namesake().map(RoleName::as_str), Some("MyApp"));
        spec.user = Some(LoginName::existing(&"é".repeat(31)).unwrap());
        let app = App::derive(&spec, &env, None).unwrap();
        assert_eq!(app.login(Slot::Two).as_str(), format!("{}_2", "é".repeat(30)));
        assert_eq!(app.owner.as_str(), "MyApp");
    }

    #[test]
    fn names_that_would_coincide_are_refused() {
        for (database, user) in [("same", "same"), ("x_2", "x"), ("my_app_maint", "x"), ("x", "my_app_maint")] {
            let mut spec = spec("my-app");
            spec.database = Some(database.parse().unwrap());
            spec.user = Some(user.parse().unwrap());
            let error = App::derive(&spec, &"local".parse().unwrap(), None).unwrap_err();
            assert_eq!(error.code(), "name_invalid", "{database} {user}");
        }
    }
}
