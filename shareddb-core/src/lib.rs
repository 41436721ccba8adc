//! Databases for many small applications on one shared PostgreSQL server.

mod adoption;
mod app;
#[cfg(feature = "backup")]
mod backup;
mod change;
mod connection;
mod copy_mark;
mod credentials;
#[cfg(feature = "kubernetes")]
mod deploy;
mod environment;
mod error;
mod file;
mod home;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(feature = "local")]
mod local;
mod mark;
mod names;
mod password;
mod postgres;
mod provision;
#[cfg(all(feature = "backup", feature = "kubernetes"))]
mod schedule;
mod secrets;
mod server;

pub use adoption::{Adopt, Adopted, Before, Grant};
pub use app::{App, AppSpec, Slot};
#[cfg(feature = "backup")]
pub use backup::{
    BackupEvent, BackupId, BackupManager, BackupOptions, BackupStore, Candidate, Choice, DatabaseFacts, Described,
    Download, DumpFile, DumpForm, Encryption, ExtensionFacts, ExtensionOwner, Hold, Identities, Interrupt, Inventory,
    Judged, KeepReason, Kept, LastAttempt, LeftOut, Listed, Manifest, Orphan, OtherRoles, Pack, PackOptions, PlainDump,
    PrunePlan, Pruned, Quota, Reason, Recipients, RestoreOptions, RestoreReport, RetentionPolicy, RoleSettings,
    RowDigest, Rule, Sealing, SequenceFacts, ServerFacts, Shelf, Stage, Stored, TableFacts, Unpack, Upload, Uploaded,
    Verdict, Verification, Verified, VerifyOptions, Why, plan_prune,
};
pub use change::Change;
#[cfg(feature = "backup")]
pub use connection::LibpqEnvironment;
pub use connection::{
    AsyncpgArguments, ConnectionConfig, DjangoSettings, ExplainedField, Explanation, Export, JdbcSettings, PsqlCommand,
    RootCertificate, Rotation, Session, Shadow, SqlAlchemyDriver, SslMode, Tls,
};
/// What reads archives, for those who test it against real ones; no part of the interface.
#[cfg(feature = "backup")]
#[doc(hidden)]
pub mod reading {
    pub use crate::backup::{
        ArchiveReader, ArchiveVersion, Contents, Entry, LeftOut, LoadList, MissingRoles, Piece, Position, RowCounter,
        RowDigest, Rows, ScriptReader, ScriptTarget, Section, Target, Toc, Why, difference, roles_named, schema_digest,
    };
}

#[cfg(feature = "kubernetes")]
pub use deploy::{
    AccessMode, ClaimState, Cores, DeployEvent, Deployer, FieldChange, Image, ObjectChange, PodState, Ready,
    ServerPlan, ServerSpec, ServerState, ServiceState, Size,
};
pub use environment::{Environment, Environments};
pub use error::{Error, Fault, Result};
#[cfg(feature = "kubernetes")]
pub use kubernetes::{Cluster, Namespace, Tunnel};
#[cfg(feature = "local")]
pub use local::{Binaries, LocalEndpoint, LocalHome, LocalServer, LocalState};
pub use mark::{Mark, Progress};
pub use names::{
    AppName, DatabaseName, EnvironmentName, ExtensionName, LoginName, NamespaceName, RoleName, SchemaName, SecretName,
    SettingName,
};
pub use provision::{
    Adoption, AppStatus, AppSummary, Budget, Closer, Event, Gap, ObjectKind, ObjectName, Outcome, PasswordSource, Plan,
    Problem, Proof, Provisioner, Report, RoleShape, ServerStatus, Status, Step, Wall, WallState,
};
#[cfg(all(feature = "backup", feature = "kubernetes"))]
pub use schedule::{Cron, Keep, Proving, Run, SchedulePlan, ScheduleSpec, ScheduleState, Scheduler};
#[cfg(feature = "kubernetes")]
pub use secrets::KubernetesStore;
pub use secrets::{DirectoryStore, SecretData, SecretStore, SecretVersion, StoredSecret};
pub use server::Server;

/// The README's examples compile.
#[cfg(all(doctest, feature = "local"))]
#[doc = include_str!("../../README.md")]
struct Readme;
