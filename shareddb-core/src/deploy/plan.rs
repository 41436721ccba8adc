//! What a deploy would change.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::change::Change;
use crate::deploy::fields::FieldChange;
use crate::deploy::spec::ServerSpec;
use crate::kubernetes::object::Object;
use crate::names::EnvironmentName;

/// One object of the server, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectChange {
    /// As kubectl names it: `deployment/postgres`.
    pub object: String,
    /// `None` when it stays as it is.
    pub op: Option<Change>,
    /// The fields that change, as the API server itself says. Values of Secrets do not show.
    pub fields: Vec<FieldChange>,
}

/// What a deploy would change, object by object, in order.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerPlan {
    /// The environment.
    pub environment: EnvironmentName,
    /// Every object of the server, those that stay as they are too.
    pub objects: Vec<ObjectChange>,
    /// What a person should know.
    pub notices: Vec<String>,
    /// One for each object.
    #[serde(skip)]
    pub(crate) actions: Vec<What>,
    /// What was asked for.
    #[serde(skip)]
    pub(crate) spec: ServerSpec,
}

/// What is sent for one line.
#[derive(Clone)]
pub(crate) enum What {
    MakeNamespace,
    /// What is made once, and never written again; then what is applied of the same object.
    Create(Object, Option<Object>),
    /// What was made once, and is renewed.
    Replace(Object),
    Apply(Object),
    /// The same of the Deployment, as long as it bears this record: another one is that of a deploy which this plan knows nothing of.
    Follow(Object, Option<String>),
    /// The object's fields become ours before it is applied.
    TakeOver(Object, Value),
}

impl ServerPlan {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.objects.iter().all(|object| object.op.is_none())
    }

    /// The changes among the objects.
    pub fn changes(&self) -> impl Iterator<Item = &ObjectChange> {
        self.objects.iter().filter(|object| object.op.is_some())
    }

    /// Whether the server is started anew by it: all its sessions end, and for some seconds nobody can log in.
    pub fn restarts(&self) -> bool {
        let restarts = |object: &ObjectChange| {
            object.op == Some(Change::Change)
                && object.object.starts_with("deployment/")
                && object.fields.iter().any(|field| field.path.starts_with("spec.template"))
        };
        self.objects.iter().any(restarts)
    }

    /// Whether the Deployment is made or changed by it.
    pub(crate) fn renews(&self) -> bool {
        self.changes().any(|object| object.object.starts_with("deployment/"))
    }

    /// What there is to do.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (&What, &ObjectChange)> {
        self.actions.iter().zip(&self.objects).filter(|(_, object)| object.op.is_some())
    }
}

/// Some of its objects hold a Secret.
impl fmt::Debug for ServerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerPlan")
            .field("environment", &self.environment)
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ObjectChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op.map_or('=', Change::symbol), self.object)
    }
}
