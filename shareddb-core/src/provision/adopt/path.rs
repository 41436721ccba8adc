//! What names meant to a hand-made app, and how they go on meaning it.

use std::collections::BTreeSet;

use crate::names::SchemaName;
use crate::postgres::facts::RoleFacts;
use crate::postgres::legacy::Outside;
use crate::postgres::sql::parse_identifier_list;

const SEARCH_PATH: &str = "search_path";
/// Stands for the schema that has the current role's name.
const USER: &str = "$user";

/// The search path that counts for the login in its database, as it is stored.
pub(super) fn effective<'a>(login: &'a RoleFacts, outside: &'a Outside) -> &'a str {
    [&login.database_settings, &login.settings, &outside.settings]
        .into_iter()
        .find_map(|settings| settings.get(SEARCH_PATH))
        .unwrap_or(&outside.default_path)
}

/// Whether the schema of the login's name is found by `"$user"`: running sessions lose it when the role has another name.
pub(super) fn uses_own_name(path: &str, login: &str, schemas: &BTreeSet<String>) -> bool {
    schemas.contains(login) && parse_identifier_list(path).iter().any(|name| name == USER)
}

/// The same look-up and the same place for new tables, with no `"$user"` in it. A schema that is named and not there stays if
/// the app may still make it.
pub(super) fn explicit(path: &str, login: &str, schemas: &BTreeSet<String>, may_create: bool) -> Vec<SchemaName> {
    let mut names = Vec::new();
    for name in parse_identifier_list(path) {
        let own = name == USER;
        let name = if own { login.to_owned() } else { name };
        let kept = schemas.contains(&name) || may_create && !own;
        if let (true, Ok(name)) = (kept, SchemaName::existing(&name))
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// The schema in which unqualified CREATE TABLE lands.
pub(super) fn first_existing<'a>(path: &'a [SchemaName], schemas: &BTreeSet<String>) -> Option<&'a SchemaName> {
    path.iter().find(|schema| schemas.contains(schema.as_str()) && !schema.as_str().starts_with("pg_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str, schemas: &[&str], may_create: bool) -> Vec<String> {
        let schemas = schemas.iter().map(|name| (*name).to_owned()).collect();
        explicit(path, "app_user", &schemas, may_create).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_schemas_in_the_same_order() {
        assert_eq!(names("\"$user\", public", &["public"], true), ["public"]);
        assert_eq!(names("\"$user\", public", &["public", "app_user"], true), ["app_user", "public"]);
        assert_eq!(names("Later, \"MyApp\", public", &["public", "MyApp"], true), ["later", "MyApp", "public"]);
        assert_eq!(names("later, public, public", &["public"], false), ["public"]);
        assert_eq!(names("", &["public"], true), Vec::<String>::new());
    }

    #[test]
    fn new_tables_land_in_the_first_schema_that_is_there() {
        let schemas = ["pg_catalog", "public"].map(str::to_owned).into();
        let path = explicit("pg_catalog, later, public", "u", &schemas, true);
        assert_eq!(first_existing(&path, &schemas).map(SchemaName::as_str), Some("public"));
    }
}
