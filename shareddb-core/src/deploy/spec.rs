//! What the caller wants the server to be, and what it comes to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::deploy::image::Image;
use crate::error::{Error, Result};
use crate::kubernetes::quantity::{Cores, Size};
use crate::names::NamespaceName;

/// Below this, PostgreSQL with a handful of sessions is ended for lack of memory.
const LEAST_MEMORY: Size = Size::mebibytes(128);
/// What an idle session takes by itself, about.
const SESSION_MEBIBYTES: u64 = 2;
/// A fresh data directory, and room for the log of changes.
const LEAST_STORAGE: Size = Size::mebibytes(512);
/// A container runtime gives nobody less.
const LEAST_CPU: Cores = Cores::thousandths(10);
/// Some are for the admin, and an app has two logins.
const CONNECTIONS: std::ops::RangeInclusive<u16> = 20..=5000;

/// What the caller wants the server to be. A field left out means "as deployed, else the guide's".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerSpec {
    /// The image; `postgres:15-alpine`.
    pub image: Option<Image>,
    /// The most memory it may use, of which half is reserved; 512Mi.
    pub memory: Option<Size>,
    /// The most of the processors it may use, of which half is reserved; 500m.
    pub cpu: Option<Cores>,
    /// The size of its volume; 10Gi. It can grow where the storage class lets it, and never shrink.
    pub storage: Option<Size>,
    /// The storage class of its volume; the cluster's default. Fixed once the volume exists.
    pub storage_class: Option<String>,
    /// How its volume is mounted; fixed once the volume exists.
    pub access_mode: Option<AccessMode>,
    /// Sessions at once; 100.
    pub connections: Option<u16>,
    /// Whether sessions have to be encrypted, with a certificate made for the server; they need not.
    pub tls: Option<bool>,
    /// Namespaces whose pods may reach it besides those of its own. The whole list.
    pub allow_namespaces: Option<BTreeSet<NamespaceName>>,
    /// Make the namespace if there is none.
    pub create_namespace: bool,
    /// Take over a Deployment `postgres` that somebody else made, with its claim, image and data directory.
    pub adopt: bool,
    /// On a server that was taken over: let a login into databases of its own only. Logins that were made by hand lose
    /// access until their apps are adopted.
    pub secure_server: bool,
}

/// How a volume may be mounted. One server at a time writes in it, whichever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessMode {
    /// By one node at a time.
    #[default]
    ReadWriteOnce,
    /// By one pod at a time.
    ReadWriteOncePod,
    /// By several nodes, for storage that has no other mode.
    ReadWriteMany,
}

impl AccessMode {
    /// As Kubernetes calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteOncePod => "ReadWriteOncePod",
            Self::ReadWriteMany => "ReadWriteMany",
        }
    }
}

/// Everything that decides what the objects of a server are. Kept with them, so that the next deploy knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerRecord {
    /// The form of this record.
    pub(crate) version: u32,
    pub(crate) image: Image,
    pub(crate) memory: Size,
    pub(crate) cpu: Cores,
    pub(crate) storage: Size,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storage_class: Option<String>,
    pub(crate) access_mode: AccessMode,
    pub(crate) connections: u16,
    pub(crate) tls: bool,
    pub(crate) allow_namespaces: BTreeSet<NamespaceName>,
    /// What somebody else had made of it before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) adopted: Option<Heritage>,
}

/// What stays of a server that was taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Heritage {
    /// The claim of its data.
    pub(crate) claim: String,
    /// What the container, and the volume within the pod, are called.
    pub(crate) container: String,
    pub(crate) volume: String,
    pub(crate) mount: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sub_path: Option<String>,
    pub(crate) data_directory: String,
    /// By which labels the Deployment knows its pods; it cannot be changed.
    pub(crate) selector: BTreeMap<String, String>,
    /// The labels of its pods, by which Services of other names may find them.
    pub(crate) labels: BTreeMap<String, String>,
    /// Whose the files on the claim are, where not the image's own user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<i64>,
    /// The admin of its data directory.
    pub(crate) admin: String,
    /// Its claim is as large as somebody else has made it.
    pub(crate) keeps_size: bool,
    /// Where its pods may run and how their image is had.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) placement: BTreeMap<String, serde_json::Value>,
    /// Logins that were made by hand may enter any database that lets them in.
    pub(crate) open: bool,
}

pub(crate) const RECORD_VERSION: u32 = 1;
/// The admin of a data directory that was made for shareddb.
pub(crate) const ADMIN: &str = "postgres";

impl ServerRecord {
    /// The guide's server.
    pub(crate) fn guide() -> Result<Self> {
        Ok(Self {
            version: RECORD_VERSION,
            image: "postgres:15-alpine".parse()?,
            memory: Size::mebibytes(512),
            cpu: Cores::thousandths(500),
            storage: Size::mebibytes(10 << 10),
            storage_class: None,
            access_mode: AccessMode::default(),
            connections: 100,
            tls: false,
            allow_namespaces: BTreeSet::new(),
            adopted: None,
        })
    }

    /// This server as the caller wants it.
    ///
    /// # Errors
    /// `InvalidInput` when no server could run that way.
    pub(crate) fn changed(self, spec: &ServerSpec) -> Result<Self> {
        let image = spec.image.clone().unwrap_or(self.image);
        let mut adopted = self.adopted;
        if let Some(adopted) = &mut adopted {
            adopted.open &= !spec.secure_server;
            adopted.keeps_size &= spec.storage.is_none();
        }
        let wanted = Self {
            image,
            memory: spec.memory.unwrap_or(self.memory),
            cpu: spec.cpu.unwrap_or(self.cpu),
            storage: spec.storage.unwrap_or(self.storage),
            storage_class: spec.storage_class.clone().or(self.storage_class),
            access_mode: spec.access_mode.unwrap_or(self.access_mode),
            connections: spec.connections.unwrap_or(self.connections),
            tls: spec.tls.unwrap_or(self.tls),
            allow_namespaces: spec.allow_namespaces.clone().unwrap_or(self.allow_namespaces),
            adopted,
            version: RECORD_VERSION,
        };
        let inherits = |given: bool| wanted.adopted.is_some() && !given;
        let whose = |given| if inherits(given) { ", the limit that its container has," } else { "" };
        wanted.check(whose(spec.memory.is_some()), whose(spec.cpu.is_some()))?;
        Ok(wanted)
    }

    /// `memory_of` and `cpu_of`: who wants it so, in words, if not the caller.
    fn check(&self, memory_of: &str, cpu_of: &str) -> Result<()> {
        let small = |what, least: &dyn std::fmt::Display| {
            Error::invalid_input("server_too_small", format!("{what} is too little: at least {least}"))
        };
        if self.memory < LEAST_MEMORY {
            return Err(small(format!("memory {}{memory_of}", self.memory), &LEAST_MEMORY)
                .with_hint(format!("give it more: --memory {}", Self::guide()?.memory)));
        }
        if self.cpu < LEAST_CPU {
            return Err(small(format!("cpu {}{cpu_of}", self.cpu), &LEAST_CPU)
                .with_hint(format!("give it more: --cpu {}", Self::guide()?.cpu)));
        }
        // What somebody else has made is as large as it is.
        if self.storage < LEAST_STORAGE && self.adopted.as_ref().is_none_or(|adopted| !adopted.keeps_size) {
            return Err(small(format!("storage {}", self.storage), &LEAST_STORAGE));
        }
        let needed = Size::mebibytes(u64::from(self.connections) * SESSION_MEBIBYTES);
        if CONNECTIONS.contains(&self.connections) && self.memory < needed {
            return Err(small(format!("memory {} for {} connections", self.memory, self.connections), &needed)
                .with_hint("give it more (--memory), or fewer sessions (--max-connections)"));
        }
        if !CONNECTIONS.contains(&self.connections) {
            let (least, most) = (CONNECTIONS.start(), CONNECTIONS.end());
            let message = format!("{} connections are not possible: {least} to {most}", self.connections);
            return Err(Error::invalid_input("connections_invalid", message));
        }
        Ok(())
    }

    /// Whether nobody but shareddb has made logins and databases there.
    pub(crate) fn is_ours(&self) -> bool {
        self.adopted.as_ref().is_none_or(|adopted| !adopted.open)
    }

    pub(crate) fn admin(&self) -> &str {
        self.adopted.as_ref().map_or(ADMIN, |adopted| &adopted.admin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_defaults() {
        let guide = ServerRecord::guide().unwrap();
        assert_eq!(guide.clone().changed(&ServerSpec::default()).unwrap(), guide);
        assert_eq!(guide.storage.to_string(), "10Gi");
        assert_eq!((guide.memory.part(2).to_string(), guide.memory.to_string()), ("256Mi".into(), "512Mi".into()));
        assert_eq!((guide.cpu.half().to_string(), guide.cpu.to_string()), ("250m".into(), "500m".into()));
    }

    #[test]
    fn what_is_left_out_stays_as_it_was() {
        let spec = ServerSpec { memory: "1Gi".parse().ok(), tls: Some(true), ..ServerSpec::default() };
        let first = ServerRecord::guide().unwrap().changed(&spec).unwrap();
        let record: ServerRecord = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
        assert_eq!(record.changed(&ServerSpec::default()).unwrap(), first);
    }

    #[test]
    fn a_server_that_could_not_run_is_refused() {
        let code = |spec: ServerSpec| ServerRecord::guide().unwrap().changed(&spec).unwrap_err().code();
        let memory = "64Mi".parse().ok();
        assert_eq!(code(ServerSpec { memory, ..ServerSpec::default() }), "server_too_small");
        assert_eq!(code(ServerSpec { storage: memory, ..ServerSpec::default() }), "server_too_small");
        assert_eq!(code(ServerSpec { cpu: "9m".parse().ok(), ..ServerSpec::default() }), "server_too_small");
        assert_eq!(code(ServerSpec { connections: Some(3), ..ServerSpec::default() }), "connections_invalid");
    }
}
