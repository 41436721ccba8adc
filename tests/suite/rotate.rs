//! Passwords change, and whoever works goes on.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use shareddb_core::{
    AppName, AppSpec, AppStatus, ConnectionConfig, Event, LoginState, Outcome, Provisioner, RotateOptions,
    SecretStore as _, Session, Step,
};
use shareddb_tests::command::{mortal, outlives, shareddb};
use shareddb_tests::majors::ALL_MAY_TRY;
use shareddb_tests::server::{unique, value};
use shareddb_tests::watch::{Gate, Watch, create_until_unchanged, eventually, nothing_left};
use shareddb_tests::{ForeignServer, TestServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

fn after(grace: Duration) -> RotateOptions {
    let mut options = RotateOptions::default();
    options.grace = grace;
    options
}

fn leaked() -> RotateOptions {
    let mut options = RotateOptions::default();
    options.now = true;
    options
}

async fn status(provisioner: &Provisioner, app: &AppName) -> AppStatus {
    provisioner.status(Some(app)).await.unwrap().apps.remove(0)
}

/// How the two logins are, in order.
fn states(status: &AppStatus) -> [LoginState; 2] {
    [status.logins[0].state, status.logins[1].state]
}

async fn code(config: &ConnectionConfig) -> &'static str {
    config.connect().await.map(drop).map_or_else(|error| error.code(), |()| "ok")
}

async fn works(session: &Session) -> bool {
    session.simple_query("SELECT 1").await.is_ok()
}

#[tokio::test]
async fn the_old_password_works_until_its_end_and_its_sessions_go_on() {
    let server = TestServer::shared().await;
    let (provisioner, app) = (server.provisioner().await, server.made("turn").await);
    let old = provisioner.connection(&app.name).await.unwrap();
    let session = old.connect().await.unwrap();
    session.simple_query("CREATE TABLE t (x int)").await.unwrap();

    let begun = Timestamp::now();
    let report = provisioner.rotate(&app.name, &after(Duration::from_secs(3))).await.unwrap();
    assert_eq!((report.outcome, report.app.generation), (Outcome::Rotated, 2));
    let ends = report.old_login_ends.expect("it has an end");
    assert!(ends >= begun + Duration::from_secs(3), "a grace is as long as was said: {begun} to {ends}");
    let new = provisioner.connection(&app.name).await.unwrap();
    assert_eq!((old.user(), new.user()), (app.logins[0].as_str(), app.logins[1].as_str()));
    assert_eq!((code(&old).await, code(&new).await), ("ok", "ok"));
    let session_two = new.connect().await.unwrap();
    session_two.simple_query("INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(value(&session_two, "SELECT current_user").await, app.owner.as_str());

    let now = status(&provisioner, &app.name).await;
    assert_eq!(states(&now), [LoginState::Ending, LoginState::InUse]);
    assert_eq!((now.logins[0].ends, now.generation), (Some(ends), Some(2)));
    assert!(now.password_since.is_some_and(|since| since <= ends) && now.drift.is_empty(), "{now:?}");
    assert_eq!(now.clients.len(), 2, "{:?}", now.clients);
    let refused = provisioner.rotate(&app.name, &RotateOptions::default()).await.unwrap_err();
    assert_eq!(refused.code(), "login_in_use");
    let said = refused.to_string();
    assert!(said.contains(&format!("{}, the other login", app.logins[0])), "{said}");
    assert!(said.contains(&format!("until {ends}; sessions with it: 1 × ")), "{said}");

    eventually("the old password ends", async || code(&old).await == "password_rejected").await;
    assert!(works(&session).await && works(&session_two).await, "sessions that are there stay");
    assert_eq!(states(&status(&provisioner, &app.name).await), [LoginState::Ended, LoginState::InUse]);
    nothing_left(&provisioner, &AppSpec::new(app.name.clone())).await;
    // And back to the first.
    let report = provisioner.rotate(&app.name, &after(Duration::ZERO)).await.unwrap();
    let third = provisioner.connection(&app.name).await.unwrap();
    assert_eq!((third.user(), report.app.generation), (app.logins[0].as_str(), 3));
    assert_eq!(
        (code(&old).await, code(&new).await, code(&third).await),
        ("password_rejected", "password_rejected", "ok")
    );
    assert!(works(&session).await, "its login has another password now, and that ends nobody");
}

#[tokio::test]
async fn a_login_that_its_last_sessions_fill_is_not_given_to_anybody() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let mut spec = AppSpec::new(unique("filled"));
    spec.connections = Some(2);
    let app = provisioner.create(&spec).await.unwrap().app;
    let old = provisioner.connection(&app.name).await.unwrap();
    let (one, two) = (old.connect().await.unwrap(), old.connect().await.unwrap());
    provisioner.rotate(&app.name, &after(Duration::ZERO)).await.unwrap();
    eventually("the old password ends", async || code(&old).await != "ok").await;
    let refused = provisioner.rotate(&app.name, &after(Duration::ZERO)).await.unwrap_err();
    assert_eq!(refused.code(), "login_full", "{refused}");
    assert_eq!(code(&provisioner.connection(&app.name).await.unwrap()).await, "ok", "the one that is in use stays");
    drop(two);
    eventually("there is room", async || provisioner.rotate(&app.name, &after(Duration::ZERO)).await.is_ok()).await;
    let new = provisioner.connection(&app.name).await.unwrap();
    assert_eq!((new.user(), code(&new).await), (old.user(), "ok"));
    assert!(works(&one).await);
}

#[tokio::test]
async fn a_leak_ends_everything_old_at_once() {
    let server = TestServer::shared().await;
    let (provisioner, app) = (server.provisioner().await, server.made("leak").await);
    let mut known: Vec<ConnectionConfig> = Vec::new();
    for round in 0..4 {
        let old = provisioner.connection(&app.name).await.unwrap();
        let session = old.connect().await.unwrap();
        known.push(old);
        // One that is in its grace is no hindrance.
        let options = if round == 1 { after(Duration::from_secs(3600)) } else { leaked() };
        let report = provisioner.rotate(&app.name, &options).await.unwrap();
        assert_eq!(report.old_login_ends.is_some(), round == 1, "round {round}");
        if round == 1 {
            assert!(works(&session).await, "it may go on");
        } else {
            eventually("its session ends", async || !works(&session).await).await;
        }
        if options.now {
            for (generation, config) in known.iter().enumerate() {
                let said = code(config).await;
                assert!(
                    ["password_rejected", "login_rejected"].contains(&said),
                    "{generation} in round {round}: {said}"
                );
            }
            let now = status(&provisioner, &app.name).await;
            assert!(states(&now).contains(&LoginState::Closed) && now.drift.is_empty(), "{now:?}");
            assert!(now.clients.is_empty(), "{:?}", now.clients);
        }
        assert_eq!(code(&provisioner.connection(&app.name).await.unwrap()).await, "ok", "round {round}");
    }
}

/// A login of which the server has not seen the proof yet: whoever has the password may have begun it before the change, and
/// end it after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_half_way_through_does_not_get_in_after_a_leak() {
    let server = TestServer::shared().await;
    let (provisioner, app) = (server.provisioner().await, server.made("halfway").await);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (arrived, gate) = (std::sync::Arc::new(Semaphore::new(0)), std::sync::Arc::new(Semaphore::new(0)));
    let there = server.endpoint().port;
    let relay = tokio::spawn({
        let (arrived, gate) = (arrived.clone(), gate.clone());
        async move {
            let (client, _) = listener.accept().await.unwrap();
            let (mut from_server, mut to_server) = TcpStream::connect(("127.0.0.1", there)).await.unwrap().into_split();
            let (mut from_client, mut to_client) = client.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let mut buffer = vec![0; 8192];
            // The start-up packet, the first message of SCRAM, and the one with the proof.
            for message in 1.. {
                let Ok(length @ 1..) = from_client.read(&mut buffer).await else { return };
                if message == 3 {
                    arrived.add_permits(1);
                    gate.acquire().await.unwrap().forget();
                }
                if to_server.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        }
    });
    let config = provisioner.connection(&app.name).await.unwrap().with_port(port);
    let login = tokio::spawn(async move { config.connect().await.map(drop) });
    arrived.acquire().await.unwrap().forget();
    provisioner.rotate(&app.name, &leaked()).await.unwrap();
    gate.add_permits(1);
    let refused = login.await.unwrap().expect_err("the old login is closed");
    assert_eq!(refused.code(), "login_rejected", "{refused}");
    relay.abort();
}

#[tokio::test]
async fn killed_at_any_event_the_next_run_of_either_kind_ends_it() {
    let server = TestServer::start().await;
    let (provisioner, name) = (server.provisioner().await, "killed".parse::<AppName>().unwrap());
    for verb in ["rotate", "rotate-now"] {
        for next in ["rotate", "create"] {
            for event in 0.. {
                let app = provisioner.create(&AppSpec::new(name.clone())).await.unwrap().app;
                let watch = Watch::over(&server, app);
                let password = provisioner.connection(&name).await.unwrap().password().cloned();
                let done = outlives(&mut mortal(server.home()), &name, verb, event);
                let when = format!("{verb} killed at event {event}, then {next}");
                watch.assert_safe(&when).await;
                watch.assert_works(&when).await;
                let killed = provisioner.connection(&name).await.unwrap().password().cloned();
                let published = differ(password.as_ref(), killed.as_ref());
                if next == "create" {
                    provisioner
                        .create(&AppSpec::new(name.clone()))
                        .await
                        .unwrap_or_else(|error| panic!("{when}: {error}"));
                    let now = provisioner.connection(&name).await.unwrap().password().cloned();
                    assert!(!differ(killed.as_ref(), now.as_ref()), "{when}: a create makes no new password");
                } else if !done {
                    let options = if verb == "rotate" { after(Duration::ZERO) } else { leaked() };
                    provisioner.rotate(&name, &options).await.unwrap_or_else(|error| panic!("{when}: {error}"));
                    let now = provisioner.connection(&name).await.unwrap().password().cloned();
                    assert!(differ(password.as_ref(), now.as_ref()), "{when}: it has another password");
                }
                watch.assert_works(&when).await;
                nothing_left(&provisioner, &AppSpec::new(name.clone())).await;
                let status = status(&provisioner, &name).await;
                let other = status.logins.iter().find(|login| login.state != LoginState::InUse).unwrap();
                let over = [LoginState::Closed, LoginState::Ended].contains(&other.state);
                assert!(over, "{when}, published {published}: {other:?}");
                provisioner.drop(&name, name.as_str()).await.unwrap();
                if done {
                    println!("{verb}, then {next}: {event} crash points");
                    assert!(event > 8, "every step has two events");
                    break;
                }
            }
        }
    }
}

fn differ(one: Option<&SecretString>, other: Option<&SecretString>) -> bool {
    one.map(|one| one.expose_secret()) != other.map(|other| other.expose_secret())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_at_once_one_rotates() {
    let server = TestServer::shared().await;
    let (provisioner, app) = (server.provisioner().await, server.made("both").await);
    let run = || {
        let (provisioner, name) = (provisioner.clone(), app.name.clone());
        tokio::spawn(async move { provisioner.rotate(&name, &RotateOptions::default()).await })
    };
    let results = [run(), run()];
    let mut refused = 0;
    for result in results {
        match result.await.unwrap() {
            Ok(report) => assert_eq!(report.app.generation, 2),
            Err(error) => {
                assert_eq!(error.code(), "login_in_use");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 1);
    assert_eq!(code(&provisioner.connection(&app.name).await.unwrap()).await, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_writes_meanwhile_is_theirs() {
    let server = TestServer::shared().await;
    let (provisioner, app) = (server.provisioner().await, server.made("raced").await);
    let (gate, listener) = Gate::at(|event| matches!(event, Event::Begun(Step::PublishSecret { .. })));
    let rotating = tokio::spawn({
        let (provisioner, name) = (provisioner.clone().on_event(listener), app.name.clone());
        async move { provisioner.rotate(&name, &RotateOptions::default()).await }
    });
    gate.wait();
    let store = server.secrets();
    let stored = store.load(&app.secret).await.unwrap().unwrap();
    let data = [("NOTE".to_owned(), SecretString::from("mine"))].into();
    store.replace(&app.secret, &app.name, &data, &stored.version).await.unwrap();
    gate.open();
    assert_eq!(rotating.await.unwrap().unwrap_err().code(), "concurrent_change");
    let now = store.load(&app.secret).await.unwrap().unwrap();
    assert_eq!(now.data["NOTE"].expose_secret(), "mine");
    assert_eq!(now.data["DB_USER"].expose_secret(), app.logins[0].as_str());
    // And the same again goes through, with the key of theirs in it.
    provisioner.rotate(&app.name, &RotateOptions::default()).await.unwrap();
    let now = store.load(&app.secret).await.unwrap().unwrap();
    assert_eq!(now.data["NOTE"].expose_secret(), "mine");
    assert_eq!(
        (now.data["DB_USER"].expose_secret(), now.data["generation"].expose_secret()),
        (app.logins[1].as_str(), "3")
    );
}

#[tokio::test]
async fn a_plan_is_carried_out_as_it_was_made_or_not_at_all() {
    let server = TestServer::shared().await;
    let (provisioner, app) = (server.provisioner().await, server.made("planned").await);
    let plan = provisioner.plan_rotate(&app.name, &after(Duration::ZERO)).await.unwrap();
    assert_eq!(states(&status(&provisioner, &app.name).await), [LoginState::InUse, LoginState::Closed]);
    let report = provisioner.apply(&plan).await.unwrap();
    assert_eq!(report.outcome, Outcome::Rotated);
    assert_eq!(provisioner.apply(&plan).await.unwrap_err().code(), "plan_stale");
    assert_eq!(provisioner.plan_rotate(&unique("nobody"), &leaked()).await.unwrap_err().code(), "app_not_found");
}

#[tokio::test]
async fn many_rotations_leave_no_more_behind_than_one() {
    let server = TestServer::start().await;
    let (provisioner, app) = (server.provisioner().await, server.made("often").await);
    let counts = "(SELECT count(*) FROM pg_roles), (SELECT count(*) FROM pg_auth_members), \
                  (SELECT count(*) FROM pg_db_role_setting), (SELECT sum(coalesce(array_length(datacl, 1), 0)) FROM pg_database)";
    let counts = format!("SELECT concat_ws(' ', {counts})");
    let before = server.value("postgres", &counts).await;
    for round in 0..20 {
        let options = if round % 5 == 4 { leaked() } else { after(Duration::ZERO) };
        provisioner.rotate(&app.name, &options).await.unwrap();
    }
    assert_eq!(server.value("postgres", &counts).await, before);
    assert_eq!(provisioner.app(&app.name).await.unwrap().generation, 21);
    // A Secret that is lost does not begin to count again.
    server.secrets().delete(&app.secret).await.unwrap();
    assert_eq!(provisioner.rotate(&app.name, &leaked()).await.unwrap_err().code(), "secret_unsound");
    provisioner.create(&AppSpec::new(app.name.clone())).await.unwrap();
    assert_eq!(status(&provisioner, &app.name).await.generation, Some(22));
}

/// Those who are no superusers see no passwords.
#[tokio::test]
async fn a_plain_admin_rotates_as_well() {
    let server = ForeignServer::start(17, ALL_MAY_TRY).await;
    let provisioner = server.provisioner(server.plain_admin());
    let name = unique("plain");
    provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
    for round in 0..4 {
        let old = provisioner.connection(&name).await.unwrap();
        let session = old.connect().await.unwrap();
        let options = if round % 2 == 0 { after(Duration::ZERO) } else { leaked() };
        let report = provisioner.rotate(&name, &options).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(works(&session).await, !options.now, "round {round}");
        assert_ne!(code(&old).await, "ok", "round {round}");
        assert_eq!(code(&provisioner.connection(&name).await.unwrap()).await, "ok", "round {round}");
        assert_eq!(report.app.generation, round + 2);
    }
    provisioner.rotate(&name, &after(Duration::from_secs(600))).await.unwrap();
    assert_eq!(provisioner.rotate(&name, &after(Duration::ZERO)).await.unwrap_err().code(), "login_in_use");
}

#[tokio::test]
async fn the_command_says_what_has_become_of_both_logins() {
    let server = TestServer::start().await;
    let (one, two) = (server.made("one").await, server.made("two").await);
    let call = |arguments: &[&str]| shareddb(server.home(), arguments);
    let name = one.name.as_str();

    let dry = call(&["rotate", name, "--dry-run", "--exit-code"]).expect_code(3);
    assert!(dry.stdout.contains(&format!("~ role/{}: a new password\n", one.logins[1])), "{}", dry.stdout);
    assert!(
        dry.stdout.contains(&format!("~ role/{}: its password ends 7 days later\n", one.logins[0])),
        "{}",
        dry.stdout
    );
    let said = call(&["rotate", name, "--grace", "2h"]).expect_code(0).stdout;
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    assert_eq!(lines[0], format!("app/{name} rotated"));
    assert_eq!(lines[1], format!("login/{} in use, as secret/{} says", one.logins[1], one.secret));
    assert!(lines[2].starts_with(&format!("login/{} works until 20", one.logins[0])), "{said}");
    let refused = call(&["rotate", name]).expect_code(5);
    assert!(
        refused.stderr.contains("the other login of app") && refused.stderr.contains("--now"),
        "{}",
        refused.stderr
    );
    assert_eq!(call(&["rotate", name, "--restart", "--now"]).expect_code(2).stdout, "");

    // One that cannot be rotated stops no other.
    let both = call(&["rotate", "--all", "--grace", "0s", "-o", "json"]).expect_code(5);
    let both: Value = serde_json::from_str(&both.stdout).unwrap();
    assert_eq!(both["items"][0]["app"]["name"], two.name.as_str());
    assert_eq!(both["failed"][0]["code"], "login_in_use");
    let leaked = call(&["rotate", name, "--now"]).expect_code(0).stdout;
    assert!(leaked.contains(&format!("login/{} closed\n", one.logins[1])), "{leaked}");
    let status = call(&["status", name]).expect_code(0).stdout;
    let line =
        |word: &str| status.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}: {status}"));
    assert!(line(&format!("{} in use", one.logins[0])).starts_with("Login:"), "{status}");
    assert!(line(&format!("{} closed", one.logins[1])).starts_with("Login:"), "{status}");
    assert!(line("Password:").contains("generation 3, since 20"), "{status}");
    let plans = call(&["rotate", "--all", "--dry-run"]).expect_code(0).stdout;
    assert!(plans.contains(&format!("app/{name}:\n")) && plans.contains(&format!("app/{}:\n", two.name)), "{plans}");
}

/// Somebody is in with the leaked password, and does what that allows to stay.
#[tokio::test]
async fn whoever_has_the_leaked_password_cannot_hinder_its_end() {
    let server = TestServer::shared().await;
    for (what, statements) in [
        ("a password of one's own, not committed", "SET ROLE NONE; BEGIN; ALTER ROLE {login} PASSWORD 'evil'"),
        ("the schema, locked", "BEGIN; DROP SCHEMA {schema} CASCADE"),
        ("a name of ours", "SET application_name = 'shareddb proof'"),
    ] {
        let (provisioner, app) = (server.provisioner().await, server.made("held").await);
        // The second time, the login whose turn comes is the one that somebody holds.
        for turn in 0..2 {
            let leaked_one = provisioner.connection(&app.name).await.unwrap();
            let holder = leaked_one.connect().await.unwrap();
            if turn == 1 {
                provisioner
                    .rotate(&app.name, &after(Duration::ZERO))
                    .await
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            let sql = statements.replace("{login}", leaked_one.user()).replace("{schema}", app.schema.as_str());
            holder.simple_query(&sql).await.unwrap();
            provisioner.rotate(&app.name, &leaked()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            eventually("the holder is out", async || !works(&holder).await).await;
            let left = format!(
                "SELECT count(rolpassword) FROM pg_authid WHERE rolname = '{}'",
                closed(&provisioner, &app.name).await
            );
            assert_eq!(server.value("postgres", &left).await, "0", "{what}: what is closed has no password");
            assert_ne!(code(&leaked_one).await, "ok", "{what}");
            assert_ne!(code(&leaked_one.with_password("evil".into())).await, "ok", "{what}");
            assert_eq!(code(&provisioner.connection(&app.name).await.unwrap()).await, "ok", "{what}");
            // What was locked could not be tried.
            create_until_unchanged(&provisioner, &AppSpec::new(app.name.clone())).await;
        }
    }
}

async fn closed(provisioner: &Provisioner, name: &AppName) -> String {
    let app = provisioner.app(name).await.unwrap();
    app.login(app.closed.expect("a login is closed")).to_string()
}

/// What is closed stays so, whoever has set a password meanwhile; it opens with a new one.
#[tokio::test]
async fn a_closed_login_opens_with_its_new_password_only() {
    let server = TestServer::shared().await;
    let (provisioner, app) = (server.provisioner().await, server.made("shut").await);
    provisioner.rotate(&app.name, &leaked()).await.unwrap();
    let evil =
        provisioner.connection(&app.name).await.unwrap().with_user(app.logins[0].as_str()).with_password("evil".into());
    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD 'evil'", app.logins[0])).await;
    let before = status(&provisioner, &app.name).await;
    assert!(before.drift.iter().any(|step| matches!(step, Step::ClearPassword { .. })), "{:?}", before.drift);
    provisioner.create(&AppSpec::new(app.name.clone())).await.unwrap();
    assert_ne!(code(&evil).await, "ok");
    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD 'evil'", app.logins[0])).await;
    let plan = provisioner.plan_rotate(&app.name, &after(Duration::ZERO)).await.unwrap();
    let at = |wanted: fn(&Step) -> bool| plan.steps.iter().position(wanted).unwrap();
    let set = at(|step| matches!(step, Step::SetPassword { .. }));
    let open = at(|step| matches!(step, Step::AlterRole { shape, .. } if shape.login));
    assert!(set < open, "{plan}");
    provisioner.apply(&plan).await.unwrap();
    assert_eq!(code(&evil).await, "password_rejected");
    assert_eq!(provisioner.app(&app.name).await.unwrap().closed, None);
}
