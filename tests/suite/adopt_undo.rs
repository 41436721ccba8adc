//! An adopted app is given back as it was found.

use shareddb_core::{Adopt, Outcome};
use shareddb_tests::TestServer;
use shareddb_tests::legacy::{Legacy, OPEN_RULES, filled_by_admin, filled_by_login};
use shareddb_tests::server::value;

#[tokio::test]
async fn what_was_adopted_is_given_back_as_it_was() {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    let legacy = Legacy::make(&server, "back").await;
    legacy.write_secret(&server, &[]);
    legacy.session(&server).await.batch_execute(filled_by_login()).await.unwrap();
    server.sql(&legacy.database, &filled_by_admin(&legacy.user)).await;
    let user = &legacy.user;
    server
        .sql(
            "postgres",
            &format!(
                "CREATE ROLE guest LOGIN; GRANT CONNECT ON DATABASE {0} TO guest WITH GRANT OPTION; \
                 ALTER ROLE {user} CREATEDB CONNECTION LIMIT 30 VALID UNTIL '2098-01-01'; ALTER ROLE {user} SET work_mem = '3MB'; \
                 ALTER ROLE {user} IN DATABASE {0} SET search_path = public, archive; ALTER DATABASE {0} SET statement_timeout = '9s'; \
                 CREATE ROLE shareddb_maint; REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC; ALTER DATABASE {0} CONNECTION LIMIT 40; \
                 COMMENT ON DATABASE {0} IS 'it''s of the shop'; COMMENT ON ROLE {user} IS 'ask Ann'",
                legacy.database
            ),
        )
        .await;
    let (cluster, owners) = (server.catalog().await, legacy.owners(&server).await);
    let stored = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'");
    let verifier = server.value("postgres", &stored).await;
    let provisioner = server.provisioner().await;
    let noted = format!("SELECT shobj_description('{user}'::regrole, 'pg_authid')");
    let not_yet = provisioner.plan_undo_adopt(&legacy.name).await.unwrap_err();
    assert_eq!(not_yet.code(), "app_not_found");
    let mut spec = legacy.spec();
    spec.adopt.as_mut().unwrap().close_to_others = true;
    provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));

    let working = legacy.session(&server).await;
    working.batch_execute("CREATE TABLE made (x int); SET ROLE NONE").await.unwrap();
    working.batch_execute(&format!("CREATE TABLE public.stray (x int); SET ROLE {}", legacy.database)).await.unwrap();
    assert!(!provisioner.plan_undo_adopt(&legacy.name).await.unwrap().is_empty());
    let report =
        provisioner.undo_adopt(&legacy.name).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(report.outcome, Outcome::Released);
    working.batch_execute("INSERT INTO made VALUES (1); INSERT INTO stray VALUES (1)").await.unwrap();
    assert_eq!(value(&working, "SELECT current_user").await, *user);
    drop(working);
    let session = legacy.session(&server).await;
    session.batch_execute("DROP TABLE made, stray").await.unwrap();
    assert_eq!(value(&session, "SHOW work_mem").await, "3MB");
    assert_eq!(server.value("postgres", &stored).await, verifier);
    assert_eq!(server.value("postgres", &noted).await, "ask Ann");

    // Roles, database, rights and settings are as they were; what an admin made stays the app's.
    let outside = |lines: &[String]| -> Vec<String> {
        let prefix = format!("{}: ", legacy.database);
        lines.iter().filter(|line| !line.starts_with(&prefix)).cloned().collect()
    };
    assert_eq!(outside(&server.catalog().await), outside(&cluster));
    let theirs = |line: &&String| line.ends_with(&format!(" {user}")) || line.starts_with("schema public ");
    let now = legacy.owners(&server).await;
    for line in owners.iter().filter(theirs) {
        assert!(now.contains(line), "{line}: {now:#?}");
    }
    // And once more.
    let again = provisioner.create(&spec).await.unwrap_or_else(|error| panic!("{error}: {:?}", error.causes()));
    assert_eq!(again.outcome, Outcome::Adopted);
    server.sql("postgres", &format!("ALTER ROLE {user}_2 PASSWORD 'x'")).await;
    assert_eq!(provisioner.undo_adopt(&legacy.name).await.unwrap_err().code(), "undo_too_late");
    let made = server.made("made").await;
    assert_eq!(provisioner.undo_adopt(&made.name).await.unwrap_err().code(), "not_adopted");
}

/// One way in which somebody made an app: what was done beside the guide's statements, and the consent that it takes.
struct Form {
    stem: &'static str,
    sql: &'static str,
    consent: fn(&mut Adopt),
}

const FORMS: [Form; 6] = [
    Form { stem: "guide", sql: "SELECT 1", consent: |_| {} },
    Form {
        stem: "owner",
        sql: "ALTER DATABASE {database} OWNER TO {user}; SET ROLE {user}; REVOKE CONNECT ON DATABASE {database} FROM PUBLIC; \
              GRANT CONNECT ON DATABASE {database} TO visitor WITH GRANT OPTION",
        consent: |_| {},
    },
    Form { stem: "namesake", sql: "ALTER DATABASE {database} RENAME TO {user}", consent: |_| {} },
    Form {
        stem: "grouped",
        sql: "GRANT crew TO {user} WITH ADMIN OPTION; GRANT {user} TO visitor; ALTER ROLE {user} CREATEDB NOINHERIT",
        consent: |adopt| adopt.keep_memberships = true,
    },
    Form { stem: "mighty", sql: "ALTER ROLE {user} SUPERUSER REPLICATION", consent: |adopt| adopt.demote = true },
    Form {
        stem: "settled",
        sql: "ALTER ROLE {user} SET search_path = \"$user\", public; ALTER DATABASE {database} SET work_mem = '3MB'; \
              ALTER ROLE {user} IN DATABASE {database} SET statement_timeout = '1min'; ALTER DATABASE {database} CONNECTION LIMIT 50; \
              REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC",
        consent: |_| {},
    },
];

#[tokio::test]
async fn an_app_that_is_used_goes_back_and_forth_and_a_drop_leaves_nothing_of_it() {
    let server = TestServer::start().await;
    server.set_access_rules(OPEN_RULES).await;
    // What stays on a server when its apps go.
    let first = server.made("first").await;
    server.sql("postgres", "CREATE ROLE crew; CREATE ROLE visitor LOGIN PASSWORD 'v'").await;
    let provisioner = server.provisioner().await;
    provisioner.drop(&first.name, first.name.as_str()).await.unwrap();
    let bare = server.catalog().await;
    for Form { stem, sql, consent } in FORMS {
        let mut legacy = Legacy::make(&server, stem).await;
        let sql = sql.replace("{database}", &legacy.database).replace("{user}", &legacy.user);
        server.sql("postgres", &sql).await;
        if stem == "namesake" {
            legacy.database.clone_from(&legacy.user);
        }
        legacy.write_secret(&server, &[]);
        legacy.session(&server).await.batch_execute("CREATE TABLE kept (x int)").await.unwrap();
        let found = (server.catalog().await, legacy.dependencies(&server, &legacy.user).await);
        let mut spec = legacy.spec();
        let adopt = spec.adopt.as_mut().unwrap();
        (adopt.close_to_others, spec.user) = (true, Some(legacy.user.parse().unwrap()));
        consent(adopt);
        for round in 1..=2 {
            let when = format!("{stem}, round {round}");
            let adopted = provisioner.create(&spec).await;
            let adopted = adopted.unwrap_or_else(|error| panic!("{when}: {error}: {:?}", error.causes()));
            assert_eq!(adopted.outcome, Outcome::Adopted, "{when}");
            let session = legacy.session(&server).await;
            session
                .batch_execute("INSERT INTO kept VALUES (1); CREATE TABLE made (x int); INSERT INTO made VALUES (1)")
                .await
                .unwrap();
            drop(session);
            let released = provisioner.undo_adopt(&legacy.name).await;
            released.unwrap_or_else(|error| panic!("{when}: {error}: {:?}", error.causes()));
            let session = legacy.session(&server).await;
            let rows =
                "SELECT current_user || ' ' || (SELECT count(*) FROM kept) || ' ' || (SELECT count(*) FROM made)";
            assert_eq!(value(&session, rows).await, format!("{} {round} 1", legacy.user), "{when}");
            session.batch_execute("DROP TABLE made").await.unwrap();
            drop(session);
            let now = (server.catalog().await, legacy.dependencies(&server, &legacy.user).await);
            assert_eq!(now, found, "{when}");
        }
        provisioner.create(&spec).await.unwrap();
        provisioner.drop(&legacy.name, legacy.name.as_str()).await.unwrap();
        assert_eq!(server.catalog().await, bare, "{stem}");
        assert!(!legacy.folder(&server).exists(), "{stem}");
    }
}
