//! Extensions that an admin makes run nothing of an app's, whatever the app has prepared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use shareddb_core::{AppName, AppSpec, Event, Outcome, Slot, Step};
use shareddb_tests::TestServer;
use shareddb_tests::server::{temporary_home, unique};

/// Extensions of our own. Their scripts find `helper` by its bare name, as many do.
const FILES: [(&str, &str); 12] = [
    ("shtest_fixed.control", "default_version = '1'\nschema = 'fixed_place'"),
    ("shtest_fixed--1.sql", HELPER),
    ("shtest_public.control", "default_version = '1'\nschema = 'public'"),
    ("shtest_public--1.sql", HELPER),
    ("shtest_mid.control", "default_version = '1'\nrequires = 'cube'"),
    ("shtest_mid--1.sql", ""),
    ("shtest_top.control", "default_version = '1'\nrequires = 'shtest_mid'"),
    ("shtest_top--1.sql", HELPER),
    // Its version 1 comes to be by way of version 0, which needs what version 1 does not.
    ("shtest_old.control", "default_version = '1'"),
    ("shtest_old--0.control", "requires = 'cube'"),
    ("shtest_old--0.sql", "DO $$ BEGIN PERFORM cube_dim('(1,2)'); END $$;"),
    ("shtest_old--0--1.sql", ""),
];

const HELPER: &str = "CREATE FUNCTION helper(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT $1';
    DO $$ BEGIN PERFORM helper(1::smallint); END $$;";

/// A function that fits the scripts' call better than their own, and what it does with the rights of whoever calls it.
fn trap(schema: &str, login: &str) -> String {
    format!(
        "CREATE SCHEMA IF NOT EXISTS {schema};
         CREATE FUNCTION {schema}.helper(smallint) RETURNS bigint LANGUAGE plpgsql AS
         $f$ BEGIN EXECUTE 'ALTER ROLE {login} SUPERUSER'; RETURN 1; END $f$;"
    )
}

/// A server whose programs have those extensions: copies, since what a machine has installed is not ours to change.
async fn server() -> TestServer {
    let machine = TestServer::shared().await.endpoint().binaries.dir.clone();
    let install = machine.parent().expect("…/postgresql/15/bin");
    let share = Path::new("/usr/share/postgresql").join(install.file_name().expect("…/postgresql/15"));
    let home = temporary_home();
    for folder in [install, &share] {
        let status = Command::new("cp").args(["-RL", "--parents"]).args([folder, &home]).status();
        assert!(status.expect("cp must be there").success(), "{}", folder.display());
    }
    let extensions = under(&home, &share).join("extension");
    for (file, text) in FILES {
        fs::write(extensions.join(file), format!("{text}\n")).expect("the copy is ours");
    }
    let programs = under(&home, &machine);
    TestServer::in_home_with(home, Some(&programs)).await
}

fn under(home: &Path, path: &Path) -> PathBuf {
    home.join(path.strip_prefix("/").expect("an absolute path"))
}

fn with(name: &AppName, extensions: &[&str]) -> AppSpec {
    let mut spec = AppSpec::new(name.clone());
    spec.extensions = Some(extensions.iter().map(|name| name.parse().expect("a name")).collect());
    spec
}

/// What an app prepares, the extension that is asked for, and how the run has to end.
const AMBUSHES: [(&str, &str, &str); 7] = [
    ("", "shtest_fixed", "schema_taken"),
    ("", "shtest_public", "schema_taken"),
    ("CREATE EXTENSION cube SCHEMA lair", "shtest_mid", "extension_unsafe"),
    ("CREATE EXTENSION cube SCHEMA lair", "shtest_top", "extension_unsafe"),
    ("CREATE EXTENSION cube SCHEMA lair", "shtest_old", "extension_unsafe"),
    // Where nobody can create, but the app's own: it can move it at any moment.
    ("CREATE EXTENSION cube SCHEMA pg_catalog", "shtest_mid", "extension_unsafe"),
    ("CREATE SCHEMA shareddb_extensions", "shtest_top", "schema_taken"),
];

#[tokio::test]
async fn an_app_that_prepared_the_ground_gains_nothing() {
    let server = server().await;
    let superusers = "SELECT count(*) FROM pg_roles WHERE rolsuper";
    for (preparation, extension, code) in AMBUSHES {
        let provisioner = server.provisioner().await;
        let name = unique("ambush");
        let config = server.app(&name).await;
        let app = provisioner.app(&name).await.unwrap();
        let traps = ["lair", "public", "fixed_place"].map(|schema| trap(schema, app.login(Slot::One).as_str()));
        let session = config.connect().await.unwrap();
        session.batch_execute(&format!("{}; {preparation}", traps.concat())).await.unwrap();
        let error = provisioner.create(&with(&name, &[extension])).await.unwrap_err();
        assert_eq!(error.code(), code, "{extension}: {error}");
        assert_eq!(server.value("postgres", superusers).await, "1", "{extension}");
    }

    // The same, but only after the run has looked: at the moment when it begins to make things.
    for (preparation, extension) in [("", "shtest_fixed"), ("CREATE EXTENSION cube SCHEMA lair", "shtest_top")] {
        let name = unique("ambush");
        let config = server.app(&name).await;
        let app = server.provisioner().await.app(&name).await.unwrap();
        let traps = ["lair", "fixed_place"].map(|schema| trap(schema, app.login(Slot::One).as_str()));
        let ambush = format!("{}; {preparation}", traps.concat());
        let provisioner = server.provisioner().await.on_event(move |event| {
            if matches!(event, Event::Begun(Step::CreateExtensionSchema { .. })) {
                let (config, ambush) = (config.clone(), ambush.clone());
                let run = async move { config.connect().await.unwrap().batch_execute(&ambush).await.unwrap() };
                std::thread::spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(run)).join().unwrap();
            }
        });
        let error = provisioner.create(&with(&name, &[extension])).await.unwrap_err();
        assert_eq!(error.code(), "name_taken", "{extension}: {error}");
        assert_eq!(server.value("postgres", superusers).await, "1", "{extension}");
    }
}

#[tokio::test]
async fn what_an_extension_needs_is_made_before_it_and_where_it_is_safe() {
    let server = server().await;
    let provisioner = server.provisioner().await;
    let name = unique("needs");
    let spec = with(&name, &["shtest_top", "shtest_fixed", "shtest_old"]);
    let app = provisioner.create(&spec).await.unwrap().app;
    let places = "SELECT string_agg(extname || ' ' || extnamespace::regnamespace, ', ' ORDER BY extname) \
                  FROM pg_extension WHERE extname <> 'plpgsql'";
    assert_eq!(
        server.value(app.database.as_str(), places).await,
        "cube shareddb_extensions, shtest_fixed fixed_place, shtest_mid shareddb_extensions, \
         shtest_old shareddb_extensions, shtest_top shareddb_extensions"
    );
    assert_eq!(provisioner.create(&spec).await.unwrap().outcome, Outcome::Unchanged);
    let session = provisioner.connection(&name).await.unwrap().connect().await.unwrap();
    session.batch_execute("SELECT helper(2), fixed_place.helper(3), '(1,2)'::cube").await.unwrap();
}
