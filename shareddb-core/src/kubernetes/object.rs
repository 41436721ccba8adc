//! An object of the Kubernetes API as a value, whatever its kind.

use k8s_openapi::{NamespaceResourceScope, Resource};
use serde::Serialize;
use serde_json::Value;

/// What the API calls a kind of objects that stand in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Such as `apps/v1`.
    pub(crate) api_version: &'static str,
    /// The part of it that RBAC wants: `apps`, empty for the core.
    pub(crate) group: &'static str,
    /// Such as `Deployment`.
    pub(crate) name: &'static str,
    /// Such as `deployments`.
    pub(crate) plural: &'static str,
}

impl Kind {
    /// That of a type.
    pub(crate) const fn of<K: Resource<Scope = NamespaceResourceScope>>() -> Self {
        Self { api_version: K::API_VERSION, group: K::GROUP, name: K::KIND, plural: K::URL_PATH_SEGMENT }
    }

    /// The path of all of them in a namespace.
    pub(crate) fn path(self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        format!("/{root}/{}/namespaces/{namespace}/{}", self.api_version, self.plural)
    }

    /// As kubectl names one: `deployment/postgres`.
    pub(crate) fn label(self, name: &str) -> String {
        format!("{}/{name}", self.name.to_ascii_lowercase())
    }
}

/// One object, or what is wanted of it.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) content: Value,
}

impl Object {
    /// From its typed form.
    pub(crate) fn of<K>(name: &str, typed: &K) -> Self
    where
        K: Resource<Scope = NamespaceResourceScope> + Serialize,
    {
        // These types are structs with text keys, which is all that JSON asks for.
        let content = serde_json::to_value(typed).unwrap_or_default();
        Self { kind: Kind::of::<K>(), name: name.to_owned(), content }
    }

    /// As kubectl names it.
    pub(crate) fn label(&self) -> String {
        self.kind.label(&self.name)
    }
}

/// Some hold a Secret.
impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({})", self.label())
    }
}
