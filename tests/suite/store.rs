//! Every store of Secrets keeps the same contract.

use shareddb_core::DirectoryStore;
use shareddb_tests::conformance;

#[tokio::test(flavor = "multi_thread")]
async fn directory() {
    let folder = tempfile::tempdir().unwrap();
    conformance::secret_store(&DirectoryStore::new(folder.path().join("secrets"))).await;
}
