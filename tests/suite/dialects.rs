//! Every dialect of a login logs in for real, whatever is in its names and its password.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use shareddb_core::{ConnectionConfig, Export, RootCertificate, SqlAlchemyDriver, SslMode};
use shareddb_tests::TestServer;
use shareddb_tests::certificates::Authority;
use shareddb_tests::command::run;
use shareddb_tests::drivers::{python_dotenv, python_drivers};
use shareddb_tests::server::rows;
use sqlx::{Connection as _, Row as _};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};

/// User, database, password: each of them means something to a URL, a keyword string, a file of libpq's, a shell, SQL.
const HOSTILE: [(&str, &str, &str); 12] = [
    ("plain", "plain_db", "p@ss/w#rd?x=1&y:2"),
    ("u@h:1/x", "d/?#@", "%41%zz+ +"),
    ("it's \"q\"", "da'ta\"b", "'\"\\`$HOME`id`"),
    ("ü€", "größe", "пароль é€"),
    ("a b", "c d", " lead and trail "),
    ("*", "**", "*:\\:*"),
    ("-U", "--help", "--password=x"),
    ("{0}%s", "$1;--", "]]>[x]{}!|^~<>"),
    ("dbname=x", "host=evil", "password=x sslmode=disable"),
    ("postgres://x", "postgresql://evil/x", "postgresql://a:b@c/d"),
    ("u_of_63_bytes_which_is_as_much_as_the_server_takes_____________", "[::1]:5432", "x\ty\u{7f}\u{1}"),
    ("line", "lines", "one\ntwo\r\n"),
];
const SETTING: &str = "\"a b\", c\\d, 'é'";
const APPLICATION: &str = "app & b='c' \\d";

/// What a session has to say of itself.
const QUESTION: &str = "SELECT current_user || '|' || current_database() || '|' || current_setting('app.note') || '|' \
                        || current_setting('application_name')";

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

/// A role and a database of these names, as the server's rules want them.
async fn made(server: &TestServer, user: &str, database: &str, password: &str) -> ConnectionConfig {
    let (role, base) = (identifier(user), identifier(database));
    server
        .sql(
            "postgres",
            &format!("CREATE ROLE {base}; CREATE ROLE {role} LOGIN PASSWORD {} IN ROLE {base}", literal(password)),
        )
        .await;
    server.sql("postgres", &format!("CREATE DATABASE {base} OWNER {role}")).await;
    let admin = server.admin();
    ConnectionConfig::new(admin.host(), admin.port(), database, user)
        .with_password(password.into())
        .with_application_name(APPLICATION)
        .with_option("app.note", SETTING)
}

fn expected(config: &ConnectionConfig) -> String {
    format!("{}|{}|{SETTING}|{APPLICATION}", config.user(), config.database())
}

/// A login for one of Python's drivers.
fn job(way: &str, argument: &SecretString) -> Value {
    json!({ "way": way, "argument": argument.expose_secret() })
}

const SCRIPT: &str = r"
import asyncio, json, sys
import asyncpg, psycopg, psycopg2, sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

jobs = json.load(sys.stdin)
question = jobs.pop(0)

def libpq(driver):
    def connect(argument):
        connection = driver.connect(argument)
        with connection.cursor() as cursor:
            cursor.execute(question)
            answer = cursor.fetchone()[0]
        connection.close()
        return answer
    return connect

def django(argument):
    # As Django's backend for PostgreSQL makes the driver's arguments.
    entry = json.loads(argument)
    assert entry['ENGINE'] == 'django.db.backends.postgresql'
    named = dict(dbname=entry['NAME'], user=entry['USER'], password=entry['PASSWORD'], host=entry['HOST'], port=entry['PORT'])
    with psycopg.connect(**named, **entry['OPTIONS']) as connection:
        return connection.execute(question).fetchone()[0]

def of_asyncpg(connect):
    async def ask(argument):
        connection = await connect(argument)
        answer = await connection.fetchval(question)
        await connection.close()
        return answer
    return lambda argument: asyncio.run(ask(argument))

def engine(argument):
    engine = sqlalchemy.create_engine(argument)
    with engine.connect() as connection:
        answer = connection.exec_driver_sql(question).scalar()
    engine.dispose()
    return answer

def async_engine(argument):
    async def ask():
        engine = create_async_engine(argument)
        async with engine.connect() as connection:
            answer = (await connection.exec_driver_sql(question)).scalar()
        await engine.dispose()
        return answer
    return asyncio.run(ask())

WAYS = {
    'psycopg': libpq(psycopg), 'psycopg2': libpq(psycopg2), 'django': django, 'sqlalchemy': engine, 'sqlalchemy-async': async_engine,
    'asyncpg': of_asyncpg(lambda argument: asyncpg.connect(**json.loads(argument))),
    'asyncpg-url': of_asyncpg(lambda argument: asyncpg.connect(argument)),
}

answers = []
for job in jobs:
    try:
        answers.append(WAYS[job['way']](job['argument']))
    except Exception as error:
        answers.append(f'{type(error).__name__}: {error}')
json.dump(answers, sys.stdout)
";

/// A command whose environment says nothing to libpq.
fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command
}

/// What Python's drivers answer, job by job.
fn answers(jobs: &[Value]) -> Vec<String> {
    let mut all = vec![json!(QUESTION)];
    all.extend(jobs.iter().cloned());
    let mut python = clean("python3");
    python.args(["-c", SCRIPT]).env("PYTHONPATH", python_drivers()).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(json!(all).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every way that Python has.
fn python_jobs(config: &ConnectionConfig) -> Vec<Value> {
    let alchemy = |driver| config.sqlalchemy_url(driver).unwrap();
    vec![
        job("psycopg", &config.libpq().unwrap()),
        job("psycopg", &config.url().unwrap()),
        job("psycopg2", &config.libpq().unwrap()),
        job("django", &config.django().unwrap().to_json()),
        job("asyncpg", &config.asyncpg().unwrap().to_json()),
        job("sqlalchemy", &alchemy(SqlAlchemyDriver::Psycopg)),
        job("sqlalchemy", &alchemy(SqlAlchemyDriver::Psycopg2)),
        job("sqlalchemy-async", &alchemy(SqlAlchemyDriver::Psycopg)),
        job("sqlalchemy-async", &alchemy(SqlAlchemyDriver::Asyncpg)),
    ]
}

fn assert_python(configs: &[ConnectionConfig], jobs: fn(&ConnectionConfig) -> Vec<Value>) {
    let of_each: Vec<(&ConnectionConfig, Value)> =
        configs.iter().flat_map(|config| jobs(config).into_iter().map(move |job| (config, job))).collect();
    let all: Vec<Value> = of_each.iter().map(|(_, job)| job.clone()).collect();
    let answers = answers(&all);
    assert_eq!(answers.len(), of_each.len());
    for ((config, job), answer) in of_each.iter().zip(answers) {
        assert_eq!(answer, expected(config), "{} of {:?}: {}", job["way"], config.user(), job["argument"]);
    }
}

async fn assert_rust(config: &ConnectionConfig) {
    let own = config.connect().await.unwrap_or_else(|error| panic!("{config}: {error:?}"));
    assert_eq!(rows(&own, QUESTION).await, [expected(config)]);
    let url = config.sqlx_url().unwrap();
    let mut sqlx =
        sqlx::PgConnection::connect(url.expose_secret()).await.unwrap_or_else(|error| panic!("{config}: {error}"));
    let row = sqlx::query(QUESTION).fetch_one(&mut sqlx).await.unwrap();
    assert_eq!(row.get::<String, _>(0), expected(config));
    sqlx.close().await.unwrap();
}

/// The driver's own reading of both texts.
async fn assert_driver(config: &ConnectionConfig) {
    for text in [config.libpq().unwrap(), config.url().unwrap()] {
        let read: tokio_postgres::Config = text.expose_secret().parse().unwrap();
        let (client, connection) =
            read.connect(tokio_postgres::NoTls).await.unwrap_or_else(|e| panic!("{config}: {e}"));
        let carrier = tokio::spawn(connection);
        assert_eq!(client.query_one(QUESTION, &[]).await.unwrap().get::<_, String>(0), expected(config));
        drop(client);
        carrier.await.unwrap().unwrap();
    }
}

fn psql(server: &TestServer) -> Command {
    let mut command = clean(server.endpoint().binaries.program("psql"));
    command.args(["--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--command", QUESTION]);
    command
}

#[track_caller]
fn assert_psql(config: &ConnectionConfig, command: &mut Command) {
    assert_eq!(run(command).expect_code(0).stdout.trim_end_matches('\n'), expected(config));
}

/// Everything that stands on libpq: arguments, variables, a shell's, the service file, the password file.
fn assert_libpq(server: &TestServer, config: &ConnectionConfig) {
    let line = config.psql().unwrap();
    let environment = || line.environment().iter().map(|(name, value)| (*name, value.expose_secret()));
    assert_psql(config, psql(server).args(line.arguments()).envs(environment()));
    let variables = config.environ().unwrap();
    assert_psql(config, psql(server).envs(variables.iter().map(|(name, value)| (*name, value.expose_secret()))));
    assert_psql(config, psql(server).arg(config.url().unwrap().expose_secret()));
    let program = server.endpoint().binaries.program("psql");
    let script = format!(
        "{}exec '{}' --no-psqlrc --no-password --tuples-only --no-align --command \"$1\"",
        config.export(Export::Shell).unwrap().expose_secret(),
        program.display()
    );
    assert_psql(config, clean("/bin/sh").args(["-c", &script, "sh", QUESTION]));

    let folder = tempfile::tempdir().unwrap();
    let [service, passwords] = ["service", "passwords"].map(|name| folder.path().join(name));
    match config.service_section("it") {
        Ok(section) => {
            fs::write(&service, section.expose_secret()).unwrap();
            assert_psql(config, psql(server).env("PGSERVICEFILE", &service).arg("service=it"));
        }
        Err(error) => {
            let password = config.password().unwrap().expose_secret();
            assert!(password != password.trim() && error.to_string().ends_with("password"), "{error}");
        }
    }
    match config.pgpass() {
        Ok(line) => {
            // Lines of others, which must not match.
            fs::write(&passwords, format!("other:*:*:*:wrong\n{}*:*:*:*:wrong\n", line.expose_secret())).unwrap();
            fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).unwrap();
            let mut variables = variables.clone();
            variables.remove("PGPASSWORD");
            let rest = variables.iter().map(|(name, value)| (*name, value.expose_secret()));
            assert_psql(config, psql(server).envs(rest).env("PGPASSFILE", &passwords));
        }
        Err(error) => assert!(config.password().unwrap().expose_secret().contains('\n'), "{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_and_passwords_log_in_through_every_dialect() {
    let server = TestServer::start().await;
    let mut configs = Vec::new();
    for (user, database, password) in HOSTILE {
        configs.push(made(&server, user, database, password).await);
    }
    for config in &configs {
        assert_rust(config).await;
        assert_driver(config).await;
        assert_libpq(&server, config);
    }
    assert_python(&configs, python_jobs);
    // asyncpg has no `options`: it sends them on as a setting of that name, which the server takes for what it is.
    assert_python(&configs, |config| vec![job("asyncpg-url", &config.url().unwrap())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_certificate_is_believed_and_another_refused_through_every_dialect() {
    let server = TestServer::start().await;
    let (authority, stranger) = (Authority::new("the server's"), Authority::new("a stranger's"));
    server.encrypt(&authority).await;
    let folder = tempfile::tempdir().unwrap();
    let root = |name: &str, authority: &Authority| {
        let path = folder.path().join(name);
        fs::write(&path, authority.certificate()).unwrap();
        RootCertificate::file(path)
    };
    let (user, database, password) = HOSTILE[1];
    let config = made(&server, user, database, password).await;
    let good = config.clone().with_tls(SslMode::VerifyFull, Some(root("the root & its name.crt", &authority)));
    assert_rust(&good).await;
    assert_libpq(&server, &good);
    assert_python(&[good], python_jobs);

    let bad = config.with_tls(SslMode::VerifyFull, Some(root("other.crt", &stranger)));
    assert_eq!(bad.connect().await.unwrap_err().code(), "tls_failed");
    assert!(sqlx::PgConnection::connect(bad.sqlx_url().unwrap().expose_secret()).await.is_err());
    let line = bad.psql().unwrap();
    let refused = run(psql(&server).args(line.arguments()).env("PGPASSWORD", password)).expect_code(2).stderr;
    assert!(refused.contains("certificate verify failed"), "{refused}");
    for answer in answers(&python_jobs(&bad)) {
        assert!(answer.to_lowercase().contains("certificate verify failed"), "{answer}");
    }
}

/// A socket in this folder that leads to the server.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

impl Socket {
    fn listen(folder: &str, port: u16) -> Self {
        fs::create_dir_all(folder).unwrap();
        let socket = Self(PathBuf::from(folder).join(format!(".s.PGSQL.{port}")));
        drop(fs::remove_file(&socket.0));
        let listener = UnixListener::bind(&socket.0).unwrap();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        socket
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_file_is_read_for_every_socket_folder() {
    let server = TestServer::start().await;
    let made = made(&server, "u:1", "d\\x", "p:\\x").await;
    let other = tempfile::tempdir().unwrap();
    for folder in ["/var/run/postgresql", "/tmp", other.path().to_str().unwrap()] {
        let _socket = Socket::listen(folder, made.port());
        let config = ConnectionConfig::new(folder, made.port(), made.database(), made.user())
            .with_application_name(APPLICATION)
            .with_option("app.note", SETTING);
        let passwords = other.path().join("passwords");
        let line = config.clone().with_password("p:\\x".into()).pgpass().unwrap();
        fs::write(&passwords, line.expose_secret()).unwrap();
        fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).unwrap();
        let variables = config.environ().unwrap();
        let variables = variables.iter().map(|(name, value)| (*name, value.expose_secret()));
        assert_psql(&config, psql(&server).envs(variables).env("PGPASSFILE", &passwords));
        // A libpq that was built elsewhere has another folder of its own.
        let words = format!("{} passfile='{}'", config.libpq().unwrap().expose_secret(), passwords.display());
        let jobs = ["psycopg", "psycopg2"].map(|way| job(way, &words.as_str().into()));
        assert_eq!(answers(&jobs), vec![expected(&config); 2], "{folder}");
    }
}

#[test]
fn a_dotenv_file_says_the_same_to_each_reader() {
    const SCRIPT: &str = "import dotenv, json, sys; json.dump(dotenv.dotenv_values(sys.argv[1]), sys.stdout)";
    let pieces = ["a", " ", "'", "\"", "\\", "$", "`", "{", "}", "HOME", "#", "\n", "é", "!", "="];
    let pairs = pieces.iter().flat_map(|one| pieces.iter().map(move |two| format!("x{one}{two}")));
    let triples = pairs.clone().flat_map(|pair| pieces.map(|three| format!("{pair}{three}")));
    let hostile =
        HOSTILE.iter().flat_map(|(user, database, password)| [user, database, password].map(ToString::to_string));
    let values: Vec<String> = hostile.chain(pairs).chain(triples).collect();
    let named = values.iter().enumerate().map(|(number, value)| (format!("V{number}"), value.as_str()));
    let mut sent = serde_json::Map::new();
    let mut text = String::new();
    for (name, value) in named {
        match Export::Dotenv.write([(name.as_str(), value)]) {
            Ok(line) => {
                text.push_str(line.expose_secret());
                sent.insert(name, json!(value));
            }
            Err(error) => {
                assert!(error.to_string().ends_with(&name) && value.contains(['\'', '\\', '$', '\r']), "{value:?}");
            }
        }
    }
    assert!(sent.len() * 4 > values.len() * 3, "{} of {}", sent.len(), values.len());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("login.env");
    fs::write(&path, text).unwrap();
    let mut python = clean("python3");
    let read = run(python.args(["-c", SCRIPT]).arg(&path).env("PYTHONPATH", python_dotenv())).expect_code(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&read).unwrap(), Value::Object(sent.clone()));
    let script = "set -a; . \"$1\"; exec python3 -c 'import json, os, sys; json.dump(dict(os.environ), sys.stdout)'";
    let read = run(clean("/bin/sh").args(["-c", script, "sh"]).arg(&path)).expect_code(0).stdout;
    let read: serde_json::Map<String, Value> = serde_json::from_str(&read).unwrap();
    for (name, value) in sent {
        assert_eq!(read.get(&name), Some(&value));
    }
}
