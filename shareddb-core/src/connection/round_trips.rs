//! Properties of all configurations: each dialect comes back as what it was made of, and nothing shows a password.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use proptest::collection::btree_map;
use proptest::option::of;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};
use secrecy::{ExposeSecret as _, SecretString};

use super::draft::Draft;
use super::provenance::Rotation;
use super::{ConnectionConfig, Export, RootCertificate, SqlAlchemyDriver, SslMode, options, service_file};
use crate::error::{Error, Result};

/// Found nowhere by chance, and in every password.
const MARKER: &str = "m4rk3r";

/// Text with everything that means something to one of the dialects.
fn text(longest: usize) -> impl Strategy<Value = String> {
    let letter = prop_oneof![
        "[a-z0-9]",
        "[-@/?#:%&+=' \"\\\\.*$`~\\[\\]{}|,;!<>()^]",
        Just("%41".to_owned()),
        Just("\u{e9}".to_owned()),
        Just("\u{1f4a9}".to_owned()),
    ];
    proptest::collection::vec(letter, 1..longest).prop_map(|letters| letters.concat())
}

fn name() -> impl Strategy<Value = String> {
    text(14)
}

fn password() -> impl Strategy<Value = String> {
    (text(20), prop_oneof![4 => Just(""), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\t"), 1 => Just(" ")], text(20))
        .prop_map(|(before, between, after)| format!("{before}{MARKER}{between}{after}"))
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,20}(\\.[a-z]{1,9})?",
        "/run/[a-z %+&]{1,9}x",
        Just("::1".into()),
        Just("10.0.0.1".into())
    ]
}

fn tls() -> impl Strategy<Value = Option<(SslMode, Option<RootCertificate>)>> {
    let root = |mode| text(9).prop_map(move |name| (mode, Some(RootCertificate::file(format!("/{name}")))));
    of(prop_oneof![
        Just((SslMode::Disable, None)),
        Just((SslMode::Require, None)),
        Just((SslMode::VerifyFull, None)),
        root(SslMode::VerifyCa),
        root(SslMode::VerifyFull),
    ])
}

fn config() -> impl Strategy<Value = ConnectionConfig> {
    let settings = btree_map("[a-z_]{1,8}(\\.[a-z]{1,5})?", prop_oneof![text(12), Just(String::new())], 0..3);
    let identity = (host(), 1..=u16::MAX, name(), name(), of(password()));
    let rest = (tls(), of(text(12)), of(1..99_u64), settings, of(any::<std::net::IpAddr>()));
    (identity, rest).prop_map(
        |((host, port, database, user, password), (tls, application, timeout, settings, address))| {
            let socket = host.starts_with('/');
            let mut config = ConnectionConfig::new(host, port, database, user);
            config = password.into_iter().fold(config, |config, password| config.with_password(password.into()));
            config = tls.into_iter().fold(config, |config, (mode, root)| config.with_tls(mode, root));
            config = application.into_iter().fold(config, ConnectionConfig::with_application_name);
            config = timeout.map(Duration::from_secs).into_iter().fold(config, ConnectionConfig::with_connect_timeout);
            config = address.filter(|_| !socket).into_iter().fold(config, ConnectionConfig::with_hostaddr);
            settings.into_iter().fold(config, |config, (name, value)| config.with_option(name, value))
        },
    )
}

/// Everything, the password as well.
fn all(config: &ConnectionConfig) -> (String, Option<String>) {
    let options = options::render(&config.options);
    (format!("{config:?} {options:?}"), config.password().map(|password| password.expose_secret().to_owned()))
}

/// Nothing else may refuse a configuration whose values are in order.
fn is_inexpressible(error: &Error) -> bool {
    error.code() == "not_expressible" && error.hint().is_some()
}

proptest! {
    #[test]
    fn a_url_comes_back(config in config()) {
        let url = config.url().unwrap();
        let back = ConnectionConfig::from_url(url.expose_secret()).unwrap();
        prop_assert_eq!(all(&back), all(&config));
    }

    #[test]
    fn variables_come_back(config in config()) {
        let environ = config.environ().unwrap();
        let variable = |name: &str| environ.get(name).map(|value| value.expose_secret().to_owned());
        prop_assert_eq!(all(&ConnectionConfig::from_vars(variable).unwrap()), all(&config));
        let json: BTreeMap<String, String> =
            serde_json::from_str(config.export(Export::Json).unwrap().expose_secret()).unwrap();
        prop_assert_eq!(all(&ConnectionConfig::from_vars(|name| json.get(name).cloned()).unwrap()), all(&config));
    }

    #[test]
    fn a_service_section_comes_back_or_is_refused(config in config()) {
        match config.service_section("it") {
            Ok(section) => {
                let mut draft = Draft::default();
                prop_assert!(service_file::read(section.expose_secret(), "it", Rotation::Fixed, &mut draft));
                prop_assert_eq!(all(&draft.finish().unwrap()), all(&config));
            }
            Err(error) => prop_assert!(is_inexpressible(&error), "{error:?}"),
        }
    }

    #[test]
    fn another_reader_takes_a_keyword_string_for_the_same(config in config()) {
        // The driver has no words for these.
        let mut config = config;
        config.ssl_mode = None;
        config.root_certificate = None;
        let read: tokio_postgres::Config = config.libpq().unwrap().expose_secret().parse().unwrap();
        let from_url: tokio_postgres::Config = config.url().unwrap().expose_secret().parse().unwrap();
        prop_assert_eq!(&read, &from_url);
        prop_assert_eq!(read.get_dbname(), Some(config.database()));
        prop_assert_eq!(read.get_user(), Some(config.user()));
        prop_assert_eq!(read.get_password(), config.password().map(|password| password.expose_secret().as_bytes()));
        prop_assert_eq!(read.get_application_name(), config.application_name());
        prop_assert_eq!(read.get_hostaddrs().first().copied(), config.hostaddr());
        let sent = read.get_options().map(|text| options::parse(text).unwrap()).unwrap_or_default();
        prop_assert_eq!(sent, config.options);
    }

    #[test]
    fn a_password_line_comes_back(config in config()) {
        let Ok(line) = config.pgpass() else {
            let password = config.password().map(|password| password.expose_secret()).unwrap_or("\n");
            prop_assert!(password.contains(['\n', '\r']));
            return Ok(());
        };
        // As libpq parts it: a colon without a backslash before it.
        let mut fields = vec![String::new()];
        let mut letters = line.expose_secret().trim_end_matches('\n').chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => fields.last_mut().unwrap().extend(letters.next()),
                ':' => fields.push(String::new()),
                letter => fields.last_mut().unwrap().push(letter),
            }
        }
        let password = config.password().unwrap().expose_secret();
        let port = config.port().to_string();
        prop_assert_eq!(fields, [config.host(), &port, config.database(), config.user(), password]);
    }

    #[test]
    fn nothing_that_is_shown_has_the_password(config in config(), garbage in text(30)) {
        let mut shown = vec![
            format!("{config} {config:?} {config:#?} {}", config.explain()),
            format!("{:?} {}", config.explain(), serde_json::to_string(&config.explain()).unwrap()),
        ];
        fn show<T: Debug>(shown: &mut Vec<String>, result: Result<T>) {
            shown.push(match result {
                Ok(value) => format!("{value:?}"),
                Err(error) => format!("{error} {error:?} {:?} {:?}", error.hint(), error.causes()),
            });
        }
        // With a value that nothing can take, each of them has something to complain of as well.
        let password = config.password().map(|password| password.expose_secret()).unwrap_or(MARKER);
        let spoilt = config.clone().with_password(format!("{password}\0").into()).with_option("a b", password).with_user("");
        for config in [&config, &spoilt] {
            show(&mut shown, config.url());
            show(&mut shown, config.libpq());
            show(&mut shown, config.service_section("it"));
            show(&mut shown, config.pgpass());
            show(&mut shown, config.environ());
            show(&mut shown, config.export(Export::Dotenv));
            show(&mut shown, config.jdbc().map(|jdbc| (jdbc.clone(), jdbc.url)));
            show(&mut shown, config.django());
            show(&mut shown, config.asyncpg());
            show(&mut shown, config.sqlx_url());
            show(&mut shown, config.psql().map(|command| (command.to_string(), command)));
            for driver in [SqlAlchemyDriver::Psycopg, SqlAlchemyDriver::Psycopg2, SqlAlchemyDriver::Asyncpg] {
                show(&mut shown, config.sqlalchemy_url(driver));
            }
        }
        // What was pasted into a URL raw, cut off, or put under another name.
        let url = format!("postgresql://me:{password}@h/d");
        let cut = url.chars().take(garbage.len() + 15).collect::<String>();
        for url in [url, cut, format!("{garbage}{password}"), format!("postgresql://{password}{garbage}"), format!("postgresql://u@h/d?{password}={garbage}")] {
            match ConnectionConfig::from_url(&url) {
                // Then it is no password any more, but a host or a database.
                Ok(read) => drop(read),
                Err(error) => show::<()>(&mut shown, Err(error)),
            }
            let from_vars = ConnectionConfig::from_vars(|name| (name == "DATABASE_URL").then(|| url.clone()));
            show(&mut shown, from_vars.map(drop));
        }
        for name in ["PGPORT", "PGHOSTADDR", "PGSSLMODE", "PGOPTIONS", "PGCONNECT_TIMEOUT", "PGSERVICE", "DB_PORT", "DB_PASSWORD_FILE"] {
            let misplaced = |wanted: &str| match wanted {
                "PGHOST" | "DB_HOST" => Some("h".to_owned()),
                "PGDATABASE" | "PGUSER" | "DB_NAME" | "DB_USER" => Some("x".to_owned()),
                wanted if wanted == name => Some(password.to_owned()),
                _ => None,
            };
            show(&mut shown, ConnectionConfig::from_vars(misplaced).map(drop));
        }
        for text in shown {
            prop_assert!(!text.contains(MARKER), "{text}");
        }
    }

    #[test]
    fn no_url_makes_us_panic(url in "(postgres(ql)?://)?[\\PC]{0,60}", text in "[ -~]{0,40}") {
        let read = catch_unwind(|| {
            drop(ConnectionConfig::from_url(&url));
            drop(ConnectionConfig::from_url(&format!("postgresql://{text}")));
            drop(options::parse(&text));
            service_file::read(&format!("[it]\n{text}\n{url}"), "it", Rotation::Fixed, &mut Draft::default())
        });
        prop_assert!(read.is_ok());
    }
}

#[test]
fn an_option_of_two_parts_is_shown_nowhere() {
    let config = ConnectionConfig::new("h", 1, "d", "u")
        .with_option("app.token", format!("{MARKER} \\ x"))
        .with_option("search_path", "a.b");
    let command = config.psql().unwrap();
    for text in [
        format!("{config:?} {config:#?} {:?}", config.explain()),
        format!("{:?}", config.jdbc().unwrap()),
        format!("{:?}", config.django().unwrap()),
        format!("{:?}", config.asyncpg().unwrap()),
    ] {
        assert!(!text.contains(MARKER), "{text}");
        assert!(text.contains("app.token") && text.contains("a.b"), "{text}");
    }
    assert!(!format!("{command} {command:?} {:?}", command.arguments()).contains(MARKER));
    assert!(command.environment()["PGOPTIONS"].expose_secret().contains(MARKER));
    assert!(config.jdbc().unwrap().url.contains(MARKER));
}

#[test]
fn a_panic_beside_a_password_does_not_show_it() {
    let config = ConnectionConfig::new("h", 1, "d", "u").with_password(SecretString::from(MARKER));
    let refused: Result<SecretString> = config.clone().with_port(0).url();
    let panic = catch_unwind(AssertUnwindSafe(|| refused.expect("it is in order"))).unwrap_err();
    assert!(!panic.downcast::<String>().unwrap().contains(MARKER));
    let panic = catch_unwind(|| panic!("{config} {config:?}")).unwrap_err();
    assert!(!panic.downcast::<String>().unwrap().contains(MARKER));
}
