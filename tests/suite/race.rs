//! Several at once: one of them does the work, and nobody is in the way for longer than that.

use std::process::Command;

use shareddb_core::AppSpec;
use shareddb_tests::TestServer;
use shareddb_tests::command::run;
use shareddb_tests::server::{password, unique};

#[tokio::test]
async fn a_run_that_has_returned_holds_no_lock() {
    let server = TestServer::start().await;
    server.provisioner().await.create(&AppSpec::new(unique("free"))).await.unwrap();
    // This runtime has one thread, which does nothing but wait for psql: nothing is left to be done in the background.
    let admin = server.admin();
    let mut psql = Command::new(server.endpoint().binaries.program("psql"));
    psql.env_clear().env("PGPASSWORD", password(&admin));
    psql.args(["-XAtc", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "-h", admin.host()]);
    psql.args(["-p", &admin.port().to_string(), "-U", admin.user(), admin.database()]);
    assert_eq!(run(&mut psql).expect_code(0).stdout.trim(), "0");
}
