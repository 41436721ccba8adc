//! The clear text of a password is in the Secret and nowhere else.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt::{Debug, Display};
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use shareddb_core::{
    App, AppName, AppSpec, ConnectionConfig, Error, Event, Outcome, Provisioner, RotateOptions, SecretData,
    SecretStore as _, Slot, Step,
};
use shareddb_tests::command::{self, run};
use shareddb_tests::server::{password, unique, value};
use shareddb_tests::{TestServer, shareddb};

/// A password as a person would choose it to break something: each of these means something to a URL, a shell, a service
/// file, a format string or SQL. No blank at its ends, which a service file cannot hold.
const AWKWARD: &str = r#"m@rk:er/ p?w#d%41&=+[x]'"$HOME`id`\;--{}!*~^|<>,ü€ end"#;

/// One that is easily found, and that no generated text contains.
const MARKER: &str = "Marker-of-the-secrecy-test";

/// Everything that an admin could have switched on.
const TALKATIVE: [&str; 12] = [
    "log_statement = 'all'",
    "log_min_duration_statement = 0",
    "log_min_error_statement = 'debug5'",
    "log_min_messages = 'debug1'",
    "log_parameter_max_length = -1",
    "log_parameter_max_length_on_error = -1",
    "log_error_verbosity = 'verbose'",
    "log_duration = on",
    "log_lock_waits = on",
    "log_replication_commands = on",
    "debug_print_parse = on",
    "debug_print_plan = on",
];

async fn talkative() -> TestServer {
    let server = TestServer::start().await;
    for setting in TALKATIVE {
        server.sql("postgres", &format!("ALTER SYSTEM SET {setting}")).await;
    }
    server.sql("postgres", "SELECT pg_reload_conf()").await;
    // A session that begins after the reload is done has the new settings.
    while server.value("postgres", "SHOW debug_print_plan").await != "on" {}
    server
}

/// A Secret as shareddb writes it, with a password of our choice in every key that has one.
fn secret_with(app: &App, slot: Slot, config: &ConnectionConfig, password: &str) -> SecretData {
    let config = config.clone().with_user(app.login(slot).as_str()).with_password(password.into());
    let (uri, section) = (config.url().unwrap(), config.service_section(app.name.as_str()).unwrap());
    let port = config.port().to_string();
    let plain = |text: &str| text.to_owned().into();
    [
        ("DB_HOST", plain(config.host())),
        ("DB_PORT", plain(&port)),
        ("DB_NAME", plain(config.database())),
        ("DB_USER", plain(config.user())),
        ("DB_PASSWORD", plain(password)),
        ("DB_SCHEMA", plain(app.schema.as_str())),
        ("DATABASE_URL", uri.clone()),
        ("type", plain("postgresql")),
        ("provider", plain("shareddb")),
        ("host", plain(config.host())),
        ("port", plain(&port)),
        ("database", plain(config.database())),
        ("username", plain(config.user())),
        ("password", plain(password)),
        ("uri", uri),
        ("pg_service.conf", section),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Puts a password into an app's Secret, as a person would who edits every key of it.
async fn choose_password(server: &TestServer, name: &AppName, password: &str) -> App {
    let provisioner = server.provisioner().await;
    let (app, config) = (provisioner.app(name).await.unwrap(), provisioner.connection(name).await.unwrap());
    let store = server.secrets();
    let slot = app.slot_of(config.user()).unwrap();
    let version = store.load(&app.secret).await.unwrap().unwrap().version;
    store.replace(&app.secret, name, &secret_with(&app, slot, &config, password), &version).await.unwrap();
    app
}

/// Every password that the Secret of an app has at this moment.
async fn passwords_of(server: &TestServer, app: &App) -> BTreeSet<String> {
    let secret = server.secrets().load(&app.secret).await.unwrap().unwrap();
    ["DB_PASSWORD", "password"].map(|key| secret.data[key].expose_secret().to_owned()).into()
}

/// Provisioning during which an admin does something at a moment.
async fn disturbed(server: &TestServer, moment: fn(Event<'_>) -> bool, sql: String) -> Provisioner {
    let admin = server.admin();
    server.provisioner().await.on_event(move |event| {
        if moment(event) {
            let (admin, sql) = (admin.clone(), sql.clone());
            let disturb = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { admin.connect().await.unwrap().batch_execute(&sql).await.unwrap() });
            };
            std::thread::spawn(disturb).join().unwrap();
        }
    })
}

fn before_the_password(event: Event<'_>) -> bool {
    matches!(event, Event::Begun(Step::SetPassword { .. }))
}

fn after_the_password(event: Event<'_>) -> bool {
    matches!(event, Event::Done(Step::SetPassword { .. }))
}

#[tokio::test]
async fn no_password_gets_into_the_servers_log() {
    let server = talkative().await;
    let provisioner = server.provisioner().await;
    let name = unique("log");
    let spec = AppSpec::new(name.clone());
    let mut passwords = BTreeSet::new();

    // A create, a lost Secret, a password that an admin changed, one that a person chose.
    provisioner.create(&spec).await.unwrap();
    let app = provisioner.app(&name).await.unwrap();
    passwords.extend(passwords_of(&server, &app).await);
    let store = server.secrets();
    store.delete(&app.secret).await.unwrap();
    provisioner.create(&spec).await.unwrap();
    passwords.extend(passwords_of(&server, &app).await);
    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD {}", app.login(Slot::One), foreign_verifier())).await;
    let repair = provisioner.create(&spec).await.unwrap();
    assert!(repair.steps.iter().any(|step| matches!(step, Step::SetPassword { .. })), "{:?}", repair.steps);
    choose_password(&server, &name, MARKER).await;
    passwords.extend(passwords_of(&server, &app).await);
    let after_the_admin = server.log_position();

    // The step fails: the login is gone, or the server refuses to change it.
    for sql in [
        format!("DROP ROLE {}", app.login(Slot::One)),
        format!("ALTER ROLE {} RENAME TO renamed", app.login(Slot::One)),
    ] {
        let error = disturbed(&server, before_the_password, sql).await.create(&spec).await.unwrap_err();
        assert_eq!(error.code(), "object_not_found", "{error}");
        shows_nothing(&error_text(&error), &passwords);
        server.sql("postgres", "DROP ROLE IF EXISTS renamed").await;
    }
    // Or somebody else is changing it, and the server's log says who waits for whom.
    provisioner.create(&spec).await.unwrap();
    server.sql("postgres", &format!("ALTER ROLE {} PASSWORD NULL", app.login(Slot::One))).await;
    let rival = server.session("postgres").await;
    let change = format!("BEGIN; ALTER ROLE {} CONNECTION LIMIT 10", app.login(Slot::One));
    rival.batch_execute(&change).await.unwrap();
    let error = provisioner.create(&spec).await.unwrap_err();
    assert_eq!(error.code(), "lock_timeout", "{error}");
    shows_nothing(&error_text(&error), &passwords);
    rival.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(provisioner.create(&spec).await.unwrap().outcome, Outcome::Configured);
    passwords.extend(passwords_of(&server, &app).await);
    let session = provisioner.connection(&name).await.unwrap().connect().await.unwrap();
    session.simple_query("SELECT 1").await.unwrap();
    drop(session);
    provisioner.status(None).await.unwrap();
    let mut leaked = RotateOptions::default();
    leaked.now = true;
    for _ in 0..2 {
        provisioner.rotate(&name, &leaked).await.unwrap();
        passwords.extend(passwords_of(&server, &app).await);
    }
    provisioner.drop(&name, name.as_str()).await.unwrap();

    let log = server.log_since(0);
    assert!(passwords.len() >= 5, "several passwords were in use");
    for password in &passwords {
        assert_eq!(log.matches(password.as_str()).count(), 0, "{password} in the log");
    }
    // The log does tell the rest, so that its silence means something.
    for told in [
        "CREATE DATABASE \"log_",
        "CREATE ROLE \"log_",
        "DROP ROLE \"log_",
        "does not exist",
        "duration: ",
        "still waiting for",
    ] {
        assert!(log.contains(told), "{told:?} is not in the log");
    }
    // Not even a verifier is there, but for the one that an admin set by hand.
    assert_eq!(log[after_the_admin..].matches("SCRAM-SHA-256$").count(), 0);
    assert_eq!(log[after_the_admin..].matches("PASSWORD '").count(), 0);
    assert!(log[..after_the_admin].contains("PASSWORD 'SCRAM-SHA-256$4096:AAAA"), "what is not silenced is seen");
    // Printed trees break the line in a verifier.
    let unbroken: String = log[..after_the_admin].split_whitespace().collect();
    let admins = unbroken.matches("SCRAM-SHA-256$4096:AAAA").count();
    assert_eq!(unbroken.matches("SCRAM-SHA-256$").count(), admins, "a verifier of ours in the log");
}

/// A verifier that fits no password, as a literal.
fn foreign_verifier() -> String {
    let key = "A".repeat(43);
    format!("'SCRAM-SHA-256$4096:AAAAAAAAAAAAAAAAAAAAAA==${key}=:{key}='")
}

#[track_caller]
fn shows_nothing<'a>(text: &str, passwords: impl IntoIterator<Item = &'a String>) {
    for password in passwords {
        assert!(!text.contains(password.as_str()), "{password} in: {text}");
    }
    assert!(!text.contains("SCRAM-SHA-256$"), "a verifier in: {text}");
}

/// All that an error says: itself, its remedy, its causes, each in both forms.
fn error_text(error: &Error) -> String {
    let mut text = format!("{error}\n{error:?}\n{error:#?}\n{:?}", error.hint());
    let mut cause = error.source();
    while let Some(source) = cause {
        text += &format!("\n{source}\n{source:?}");
        cause = source.source();
    }
    text
}

#[tokio::test]
async fn no_value_shows_a_password() {
    let server = TestServer::start().await;
    let provisioner = server.provisioner().await;
    let name = unique("shown");
    server.app(&name).await;
    let app = choose_password(&server, &name, MARKER).await;
    let spec = AppSpec::new(name.clone());
    let admin = password(&server.admin());
    let secrets = [MARKER.to_owned(), admin];

    let plan = provisioner.plan(&spec).await.unwrap();
    assert!(plan.steps.iter().any(|step| matches!(step, Step::SetPassword { .. })));
    let status = provisioner.status(None).await.unwrap();
    let report = provisioner.create(&spec).await.unwrap();
    let config = provisioner.connection(&name).await.unwrap();
    assert_eq!(password(&config), MARKER);
    let session = config.connect().await.unwrap();
    let rotation = provisioner.plan_rotate(&name, &RotateOptions::default()).await.unwrap();
    let stored = server.secrets().load(&app.secret).await.unwrap().unwrap();

    let mut shown = vec![
        serde_json::to_string(&plan).unwrap(),
        serde_json::to_string(&report).unwrap(),
        serde_json::to_string(&rotation).unwrap(),
        serde_json::to_string(&status).unwrap(),
        config.to_string(),
        plan.to_string(),
    ];
    let values: [&dyn Debug; 22] = [
        &config,
        &server.admin(),
        &server.server().await,
        server.environment(),
        server.local(),
        &server.secrets(),
        server.endpoint(),
        &provisioner,
        &plan,
        &report,
        &rotation,
        &status,
        &stored,
        &stored.data,
        &stored.version,
        &session,
        session.tls(),
        &config.jdbc().unwrap(),
        &config.environ().unwrap(),
        &config.url().unwrap(),
        &config.libpq().unwrap(),
        &config.service_section("x").unwrap(),
    ];
    shown.extend(values.iter().flat_map(|value| [format!("{value:?}"), format!("{value:#?}")]));
    let displayed: Vec<&dyn Display> = report.steps.iter().map(|step| step as &dyn Display).collect();
    shown.extend(displayed.iter().map(ToString::to_string));
    shown.push(config.jdbc().unwrap().url);
    shown.push(server.secrets().describe(&app.secret));
    for text in &shown {
        shows_nothing(text, &secrets);
    }
    assert_eq!(stored.data["DB_PASSWORD"].expose_secret(), MARKER, "and it was there to be shown");
}

#[tokio::test]
async fn no_error_shows_a_password() {
    let server = TestServer::shared().await;
    let name = unique("faulty");
    let config = server.app(&name).await.with_password(MARKER.into());
    let secrets = [MARKER.to_owned()];
    let mut errors = vec![
        config.connect().await.unwrap_err(),
        config.clone().with_database("postgres").connect().await.unwrap_err(),
        config.clone().with_port(1).connect().await.unwrap_err(),
        config.clone().with_option("no_such_setting", "x").connect().await.unwrap_err(),
        config.clone().with_password(format!("{MARKER}\0").into()).connect().await.unwrap_err(),
    ];
    let text = |value: String| ConnectionConfig::from_url(&value).unwrap_err();
    errors.extend([
        text(format!("postgresql://u:{MARKER}@host:notaport/db")),
        text(format!("postgresql://u:{MARKER}@h@st/db")),
        text(format!("postgresql://u:{MARKER}%@host/db")),
        text(format!("postgresql://u:{MARKER}@a,b/db")),
        text(format!("postgresql://u:{MARKER}@host/db?password={MARKER}")),
        text(format!("postgresql://u:{MARKER}@host/db?sslmode={MARKER}")),
        text(format!("mysql://u:{MARKER}@host/db")),
        text(format!("u:{MARKER}@host/db")),
        text(format!("host=h password={MARKER} dbname")),
    ]);
    let variables = |pairs: &[(&str, String)]| {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        ConnectionConfig::from_vars(|variable| {
            pairs.iter().find(|(name, _)| name == variable).map(|(_, value)| value.clone())
        })
    };
    let contradiction = [
        ("DATABASE_URL", format!("postgresql://u:{MARKER}@one/db")),
        ("DB_HOST", "two".to_owned()),
        ("DB_NAME", "db".to_owned()),
        ("DB_USER", "u".to_owned()),
        ("DB_PASSWORD", MARKER.to_owned()),
    ];
    errors.push(variables(&contradiction).unwrap_err());
    errors.push(variables(&[("DB_PASSWORD", MARKER.to_owned()), ("DB_PORT", MARKER.to_owned())]).unwrap_err());
    for error in &errors {
        shows_nothing(&error_text(error), &secrets);
    }

    // What a create meets, with the password in hand: the app's route closed, the Secret not to be written.
    let app = choose_password(server, &name, MARKER).await;
    let spec = AppSpec::new(name.clone());
    let closed = format!("ALTER ROLE {} NOLOGIN", app.login(Slot::One));
    let error = disturbed(server, after_the_password, closed).await.create(&spec).await.unwrap_err();
    assert_eq!(error.code(), "login_rejected", "{error}");
    shows_nothing(&error_text(&error), &secrets);
    server.provisioner().await.create(&spec).await.unwrap();
    let folder = server.local().home().secrets_dir().join(app.secret.as_str());
    let file = fs::canonicalize(folder.join("uri")).unwrap();
    fs::write(&file, [MARKER.as_bytes(), b"\xff"].concat()).unwrap();
    let error = server.provisioner().await.create(&spec).await.unwrap_err();
    assert_eq!(error.code(), "secret_unreadable");
    shows_nothing(&error_text(&error), &secrets);
}

#[tokio::test]
async fn a_chosen_password_of_any_characters_is_taken_over_and_logs_in_everywhere() {
    let server = TestServer::shared().await;
    let provisioner = server.provisioner().await;
    let name = unique("awkward");
    let before = server.app(&name).await;
    let app = choose_password(server, &name, AWKWARD).await;
    let spec = AppSpec::new(name.clone());

    let report = provisioner.create(&spec).await.unwrap();
    assert_eq!(report.outcome, Outcome::Configured);
    let publishes = report.steps.iter().any(|step| matches!(step, Step::PublishSecret { .. }));
    assert!(!publishes, "the Secret was right: {:?}", report.steps);
    let config = provisioner.connection(&name).await.unwrap();
    assert_eq!((config.user(), password(&config).as_str()), (before.user(), AWKWARD));
    assert_eq!(value(&config.connect().await.unwrap(), "SELECT current_user").await, app.owner.as_str());
    assert_eq!(before.connect().await.unwrap_err().code(), "password_rejected", "the old one is gone");
    assert!(provisioner.plan(&spec).await.unwrap().is_empty());

    // By every form in the Secret, through our reader and through libpq.
    let folder = server.local().home().secrets_dir().join(app.secret.as_str());
    let stored = server.secrets().load(&app.secret).await.unwrap().unwrap();
    for key in ["uri", "DATABASE_URL"] {
        let read = ConnectionConfig::from_url(stored.data[key].expose_secret()).unwrap();
        assert_eq!(password(&read), AWKWARD);
        read.connect().await.unwrap();
    }
    assert_eq!(password(&ConnectionConfig::from_directory(&folder).unwrap()), AWKWARD);
    let psql = || {
        let mut command = Command::new(server.endpoint().binaries.program("psql"));
        command.env_clear().args(["-X", "-A", "-t", "-c", "SELECT current_user"]);
        command
    };
    let owner = format!("{}\n", app.owner);
    let by_service = run(psql().arg(format!("service={name}")).env("PGSERVICEFILE", folder.join("pg_service.conf")));
    assert_eq!(by_service.expect_code(0).stdout, owner);
    let environ = config.environ().unwrap();
    let by_environ = run(psql().envs(environ.iter().map(|(name, value)| (*name, value.expose_secret()))));
    assert_eq!(by_environ.expect_code(0).stdout, owner);
    for words in [stored.data["uri"].expose_secret(), config.libpq().unwrap().expose_secret()] {
        assert_eq!(run(psql().arg(words)).expect_code(0).stdout, owner);
    }
}

/// Looks at the arguments of every process on this machine, every 5 ms, until it is dropped.
struct Watch {
    found: Arc<AtomicUsize>,
    rounds: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    /// Watches for this text.
    fn over(text: &str) -> Self {
        let (found, rounds, stop) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicBool>)>::default();
        let (text, seen, counted, stopped) =
            (text.as_bytes().to_vec(), Arc::clone(&found), Arc::clone(&rounds), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
                // A process may be gone by now; then it has no arguments any more.
                let arguments = processes.filter_map(|process| fs::read(process.join("cmdline")).ok());
                let hits = arguments.filter(|line| line.windows(text.len()).any(|part| part == text)).count();
                seen.fetch_add(hits, Ordering::Relaxed);
                counted.fetch_add(1, Ordering::Relaxed);
                std::thread::park_timeout(Duration::from_millis(5));
            }
        });
        Self { found, rounds, stop, thread: Some(thread) }
    }

    /// Waits for one whole look that began after this call.
    fn look(&self) {
        let enough = self.rounds.load(Ordering::Relaxed) + 2;
        while self.rounds.load(Ordering::Relaxed) < enough {
            std::thread::yield_now();
        }
    }

    /// How often it was seen.
    fn finish(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.found.load(Ordering::Relaxed)
    }
}

#[test]
fn the_watch_over_arguments_does_see() {
    let text = format!("{MARKER}-{}", std::process::id());
    let watch = Watch::over(&text);
    watch.look();
    assert_eq!(watch.found.load(Ordering::Relaxed), 0);
    // A process that waits for input has the text among its arguments.
    let mut child = Command::new("sh").args(["-c", "read -r _", &text]).stdin(Stdio::piped()).spawn().unwrap();
    watch.look();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(watch.finish() > 0);
}

#[tokio::test]
async fn no_process_has_a_password_among_its_arguments() {
    let server = TestServer::start().await;
    let name = unique("argv");
    server.app(&name).await;
    let marker = format!("Argv-{MARKER}");
    choose_password(&server, &name, &marker).await;
    let watch = Watch::over(&marker);
    let config = {
        let provisioner = server.provisioner().await;
        provisioner.create(&AppSpec::new(name.clone())).await.unwrap();
        provisioner.connection(&name).await.unwrap()
    };
    // The server shows what each of its sessions is doing in the arguments of its process.
    let session = config.connect().await.unwrap();
    session.simple_query("SELECT pg_sleep(0.05)").await.unwrap();
    watch.look();
    assert_eq!(watch.finish(), 0);
}

// What follows runs the command `shareddb`.

#[tokio::test]
async fn the_command_passes_no_password_among_arguments() {
    let server = TestServer::start().await;
    let name = unique("cli");
    let app = name.as_str();
    shareddb(server.home(), &["create", app]).expect_code(0);
    let marker = format!("Cli-{MARKER}");
    choose_password(&server, &name, &marker).await;

    let watch = Watch::over(&marker);
    shareddb(server.home(), &["create", app]).expect_code(0);
    // psql stays for as long as its query takes.
    let output = shareddb(server.home(), &["psql", app, "--", "-X", "-A", "-t", "-c", "SELECT pg_sleep(0.2), 'seen'"]);
    assert!(output.expect_code(0).stdout.contains("seen"));
    watch.look();
    assert_eq!(watch.finish(), 0);
}

#[tokio::test]
async fn the_command_prints_no_password_but_where_it_is_asked_for_one() {
    let server = TestServer::start().await;
    let name = unique("printed");
    let app = name.as_str();
    let first = shareddb(server.home(), &["create", app]).expect_code(0);
    let generated = password(&server.provisioner().await.connection(&name).await.unwrap());
    choose_password(&server, &name, MARKER).await;
    let secrets = [MARKER.to_owned(), generated, password(&server.admin())];
    shows_nothing(&(first.stdout + &first.stderr), &secrets);
    for args in [
        &["create", app, "--dry-run"][..],
        &["create", app, "-o", "json"],
        &["create", app],
        &["list"],
        &["list", "-o", "json"],
        &["list", "-o", "wide"],
        &["status"],
        &["status", app],
        &["status", "-o", "json"],
        &["psql", app, "--", "-X", "-c", "select 1"],
        &["psql", app, "--", "-X", "-c", "\\conninfo"],
        &["create", "Not-A-Name"],
        &["psql", "no-such-app", "--", "-c", "select 1"],
        &["rotate", app, "--dry-run", "-o", "json"],
        &["drop", app],
    ] {
        for level in [None, Some("trace")] {
            let mut command = command::shareddb_command(server.home());
            command.args(args);
            level.map(|level| command.env("RUST_LOG", level).env("SHAREDDB_LOG", level));
            let output = run(&mut command);
            shows_nothing(&format!("{args:?}: {}{}", output.stdout, output.stderr), &secrets);
        }
    }
    let output = shareddb(server.home(), &["env", app]).expect_code(0);
    assert!(output.stdout.contains(MARKER), "it is what `env` is for");
    shows_nothing(&output.stderr, &secrets);
    let output = shareddb(server.home(), &["rotate", app, "--now", "-o", "json"]).expect_code(0);
    let next = password(&server.provisioner().await.connection(&name).await.unwrap());
    shows_nothing(&(output.stdout + &output.stderr), secrets.iter().chain([&next]));
}
