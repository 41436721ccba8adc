//! Backups of one app's database, on any object store.

mod digest;
mod download;
mod hold;
mod id;
mod inventory;
mod location;
#[cfg_attr(not(test), expect(dead_code, reason = "used by the manager"))]
mod manifest;
mod object;
mod pack;
#[cfg_attr(not(test), expect(dead_code, reason = "used by the manager"))]
mod prune;
mod retention;
#[cfg(test)]
mod sample;
mod seal;
mod shelf;
mod store;
mod unpack;
mod upload;
mod verification;

pub use digest::RowDigest;
pub use download::Download;
pub use hold::Hold;
pub use id::BackupId;
pub use inventory::{Inventory, Listed, Orphan, Verified};
pub use manifest::{
    DatabaseFacts, Encryption, ExtensionFacts, ExtensionOwner, Manifest, Reason, RoleSettings, SequenceFacts,
    ServerFacts, Stored, TableFacts,
};
pub use pack::{Pack, PackOptions};
pub use prune::Pruned;
pub use retention::{Candidate, Judged, KeepReason, LastAttempt, PrunePlan, Quota, RetentionPolicy, Rule, plan_prune};
pub use seal::{Identities, Recipients};
pub use shelf::{Sealing, Shelf};
pub use store::BackupStore;
pub use unpack::Unpack;
pub use upload::{Upload, Uploaded};
pub use verification::{Verdict, Verification};
