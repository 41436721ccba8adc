//! The variables of a container that somebody else wrote.

use std::fmt;

use k8s_openapi::api::core::v1::{Container, EnvVar};

use crate::deploy::heritage::unclear;
use crate::error::Result;

/// Where a container's variable may come from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Literal(String),
    Secret { name: String, key: String },
    ConfigMap { name: String, key: String },
}

/// A literal can be a password.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => write!(f, "Literal(…)"),
            Self::Secret { name, key } => write!(f, "Secret({name}/{key})"),
            Self::ConfigMap { name, key } => write!(f, "ConfigMap({name}/{key})"),
        }
    }
}

/// Where a variable of a container may come from: the first of these that is there. One of the container's own hides those that
/// come in a whole set; of several sets that have it the last counts.
///
/// # Errors
/// `Refused` when that is decided in the pod only.
pub(crate) fn sources(container: &Container, name: &str) -> Result<Vec<Source>> {
    if let Some(variable) = container.env.iter().flatten().rev().find(|variable| variable.name == name) {
        return Ok(vec![source(variable)?]);
    }
    let sets = container.env_from.iter().flatten().rev();
    let found = sets.filter_map(|set| {
        let key = name.strip_prefix(set.prefix.as_deref().unwrap_or_default())?.to_owned();
        match (&set.secret_ref, &set.config_map_ref) {
            (Some(secret), _) => Some(Source::Secret { name: secret.name.clone(), key }),
            (None, Some(map)) => Some(Source::ConfigMap { name: map.name.clone(), key }),
            (None, None) => None,
        }
    });
    Ok(found.collect())
}

fn source(variable: &EnvVar) -> Result<Source> {
    let Some(from) = &variable.value_from else {
        let value = variable.value.as_deref().unwrap_or_default();
        return Ok(Source::Literal(expanded(&format!("its variable {}", variable.name), value)?));
    };
    match (&from.secret_key_ref, &from.config_map_key_ref) {
        (Some(secret), _) => Ok(Source::Secret { name: secret.name.clone(), key: secret.key.clone() }),
        (None, Some(map)) => Ok(Source::ConfigMap { name: map.name.clone(), key: map.key.clone() }),
        (None, None) => Err(unclear(
            &format!("its variable {} is made up in the pod", variable.name),
            &format!("give {} the value that it comes to, let its pod come up so, and run this again", variable.name),
        )),
    }
}

/// A text as the kubelet hands it on: `$$` is one `$`, and `$(NAME)` another variable, which is not looked for here. Neither is
/// so in what comes from a Secret or a ConfigMap.
///
/// # Errors
/// `Refused` when there is such a variable.
pub(crate) fn expanded(what: &str, text: &str) -> Result<String> {
    if text.contains("$(") {
        return Err(unclear(
            &format!("{what} depends on other variables: $(…)"),
            "write down what it comes to in its place, let its pod come up so, and run this again",
        ));
    }
    Ok(text.replace("$$", "$"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(container: &Value, name: &str) -> Result<Vec<Source>> {
        let mut container = container.clone();
        container["name"] = "db".into();
        sources(&serde_json::from_value(container).unwrap(), name)
    }

    fn literal(value: &Value) -> Result<Vec<Source>> {
        of(&json!({"env": [{"name": "PGDATA", "value": value}]}), "PGDATA")
    }

    #[test]
    fn dollars_are_read_as_the_kubelet_reads_them() {
        for (text, read) in [("a$$b", "a$b"), ("a$$$$", "a$$"), ("a$b", "a$b"), ("$", "$")] {
            assert_eq!(literal(&text.into()).unwrap(), [Source::Literal(read.into())]);
        }
        let error = literal(&"$(BASE)/pgdata".into()).unwrap_err();
        assert_eq!(error.code(), "adopt_unclear");
        assert!(error.to_string().contains("PGDATA depends on other variables"), "{error}");
        assert!(error.hint().unwrap().contains("run this again"));
    }

    #[test]
    fn what_is_made_up_in_the_pod_is_not_guessed_at() {
        let from = json!({"env": [{"name": "PGDATA", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
        let error = of(&from, "PGDATA").unwrap_err();
        assert_eq!(error.code(), "adopt_unclear");
        assert!(error.to_string().contains("PGDATA"), "{error}");
        assert_eq!(of(&from, "POSTGRES_USER").unwrap(), []);
    }

    #[test]
    fn of_several_sets_the_last_that_has_it_counts() {
        let sets = json!({"envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "more"}, "prefix": "POSTGRES_"}]});
        let user = |kind: fn(String, String) -> Source, name: &str, key: &str| kind(name.into(), key.into());
        let secret = |name, key| Source::Secret { name, key };
        let map = |name, key| Source::ConfigMap { name, key };
        assert_eq!(
            of(&sets, "POSTGRES_USER").unwrap(),
            [user(map, "more", "USER"), user(secret, "all", "POSTGRES_USER")]
        );
        assert_eq!(of(&sets, "PGDATA").unwrap(), [user(secret, "all", "PGDATA")]);
        // A variable without a value hides them.
        let mut hidden = sets;
        hidden["env"] = json!([{"name": "PGDATA"}]);
        assert_eq!(of(&hidden, "PGDATA").unwrap(), [Source::Literal(String::new())]);
    }
}
