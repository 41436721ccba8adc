//! Databases for many small applications on one shared PostgreSQL server.

#[cfg(feature = "provision")]
mod adoption;
#[cfg(feature = "provision")]
mod app;
#[cfg(feature = "backup")]
mod backup;
#[cfg(feature = "provision")]
mod change;
#[cfg_attr(not(feature = "provision"), allow(dead_code, reason = "an app alone needs less of it"))]
mod connection;
#[cfg(feature = "provision")]
mod copy_mark;
#[cfg(feature = "provision")]
mod credentials;
#[cfg(feature = "kubernetes")]
mod deploy;
#[cfg(feature = "provision")]
mod environment;
#[cfg_attr(not(feature = "provision"), allow(dead_code, reason = "an app alone needs less of it"))]
mod error;
#[cfg_attr(not(feature = "provision"), allow(dead_code, reason = "an app alone needs less of it"))]
mod file;
#[cfg(feature = "provision")]
mod home;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(feature = "local")]
mod local;
#[cfg(feature = "provision")]
mod mark;
#[cfg_attr(not(feature = "provision"), allow(dead_code, reason = "an app alone needs less of it"))]
mod names;
#[cfg(feature = "provision")]
mod password;
#[cfg(feature = "pool")]
mod pool;
#[cfg(any(feature = "pool", feature = "provision"))]
mod postgres;
#[cfg(feature = "provision")]
mod provision;
#[cfg(all(feature = "backup", feature = "kubernetes"))]
mod schedule;
#[cfg(feature = "provision")]
mod secrets;
#[cfg(feature = "provision")]
mod server;

#[cfg(feature = "provision")]
pub use adoption::{Adopt, Adopted, Before, Grant};
#[cfg(feature = "provision")]
pub use app::{App, AppSpec, Slot};
#[cfg(feature = "backup")]
pub use backup::{
    BackupEvent, BackupId, BackupManager, BackupOptions, BackupStore, Candidate, Choice, DatabaseFacts, Described,
    Download, DumpFile, DumpForm, Encryption, ExtensionFacts, ExtensionOwner, Hold, Identities, Interrupt, Inventory,
    Judged, KeepReason, Kept, LAST_DAYS, LastAttempt, LeftOut, Listed, Manifest, Orphan, OtherRoles, Pack, PackOptions,
    PlainDump, PrunePlan, Pruned, Quota, Reason, Recipients, RestoreOptions, RestoreReport, RetentionPolicy,
    RoleSettings, RowDigest, Rule, SAFETY_DAYS, Sealing, SequenceFacts, ServerFacts, Shelf, Stage, Stored, TableFacts,
    Unpack, Upload, Uploaded, Verdict, Verification, Verified, VerifyOptions, Why, plan_prune,
};
#[cfg(feature = "provision")]
pub use change::{Change, ChangeCount};
#[cfg(feature = "backup")]
pub use connection::LibpqEnvironment;
#[cfg(feature = "provision")]
pub use connection::{AsyncpgArguments, DjangoSettings, Export, PsqlCommand, SqlAlchemyDriver};
pub use connection::{
    ConnectionConfig, ExplainedField, Explanation, JdbcSettings, RootCertificate, Rotation, Session, Shadow, SslMode,
    Tls,
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
#[cfg(feature = "provision")]
pub use environment::{Environment, Environments};
pub use error::{Error, Fault, Result};
#[cfg(feature = "kubernetes")]
pub use kubernetes::{Cluster, Namespace, Tunnel};
#[cfg(feature = "local")]
pub use local::{Binaries, LocalEndpoint, LocalHome, LocalServer, LocalState};
#[cfg(feature = "provision")]
pub use mark::{Mark, Progress, RotationRecord};
pub use names::{
    AppName, DatabaseName, EnvironmentName, ExtensionName, LoginName, NamespaceName, RoleName, SchemaName, SecretName,
    SettingName,
};
#[cfg(feature = "pool")]
pub use pool::{
    Access, CredentialSource, Isolation, Pool, PoolOptions, PoolState, PooledClient, Snapshot, Statements, Transaction,
    TransactionOptions,
};
#[cfg(feature = "provision")]
pub use provision::{
    Adoption, AppState, AppStatus, AppSummary, Budget, Client, Closer, Event, Gap, LoginState, LoginStatus, ObjectKind,
    ObjectName, Outcome, PasswordSource, Plan, Problem, Proof, Provisioner, Report, RoleShape, RotateOptions,
    ServerStatus, Status, Step, Wall, WallState,
};
#[cfg(all(feature = "backup", feature = "kubernetes"))]
pub use schedule::{Cron, Keep, Proving, Run, SchedulePlan, ScheduleSpec, ScheduleState, Scheduler};
#[cfg(feature = "kubernetes")]
pub use secrets::KubernetesStore;
#[cfg(feature = "provision")]
pub use secrets::{
    Delivery, DirectoryStore, SecretData, SecretStore, SecretVersion, StoredSecret, Workload, WorkloadKind, WorkloadPod,
};
#[cfg(feature = "provision")]
pub use server::Server;

/// The README's examples compile.
#[cfg(all(doctest, feature = "local", feature = "pool"))]
#[doc = include_str!("../../README.md")]
struct Readme;
