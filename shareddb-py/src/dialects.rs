//! Settings as Python's drivers take them.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use secrecy::{ExposeSecret as _, SecretString};
use shareddb_core::{AsyncpgArguments, DjangoSettings, Error, Export, JdbcSettings, Result};

/// Python has no type that hides a secret, so it gets one only where the caller's words ask for it.
pub(crate) fn exposed(secret: &SecretString) -> String {
    secret.expose_secret().to_owned()
}

/// What a word stands for.
///
/// # Errors
/// `InvalidInput`, with the words that there are.
pub(crate) fn chosen<T: Copy>(what: &str, word: &str, all: &[T], name: impl Fn(&T) -> &'static str) -> Result<T> {
    all.iter().find(|one| name(one) == word).copied().ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(name).collect();
        Error::invalid_input("word_unknown", format!("{word:?} is no {what}"))
            .with_hint(format!("one of {}", words.join(", ")))
    })
}

/// # Errors
/// `InvalidInput` for a word that names no form.
pub(crate) fn form(word: &str) -> Result<Export> {
    chosen("form", word, &[Export::Dotenv, Export::Shell, Export::Json], |form| match form {
        Export::Dotenv => "dotenv",
        Export::Shell => "shell",
        Export::Json => "json",
    })
}

/// libpq's keywords. They are the same that Django hands to psycopg, under its own names.
pub(crate) fn psycopg<'py>(py: Python<'py>, settings: &DjangoSettings) -> PyResult<Bound<'py, PyDict>> {
    let words = PyDict::new(py);
    words.set_item("host", &settings.host)?;
    words.set_item("port", settings.port)?;
    words.set_item("dbname", &settings.name)?;
    words.set_item("user", &settings.user)?;
    if let Some(password) = &settings.password {
        words.set_item("password", password.expose_secret())?;
    }
    for (name, value) in &settings.options {
        words.set_item(name, value)?;
    }
    Ok(words)
}

pub(crate) fn django<'py>(py: Python<'py>, settings: &DjangoSettings) -> PyResult<Bound<'py, PyDict>> {
    let entry = PyDict::new(py);
    entry.set_item("ENGINE", "django.db.backends.postgresql")?;
    entry.set_item("HOST", &settings.host)?;
    entry.set_item("PORT", settings.port)?;
    entry.set_item("NAME", &settings.name)?;
    entry.set_item("USER", &settings.user)?;
    entry.set_item("PASSWORD", settings.password.as_ref().map(exposed).unwrap_or_default())?;
    entry.set_item("OPTIONS", &settings.options)?;
    Ok(entry)
}

pub(crate) fn jdbc<'py>(py: Python<'py>, settings: &JdbcSettings) -> PyResult<Bound<'py, PyDict>> {
    let words = PyDict::new(py);
    words.set_item("url", &settings.url)?;
    words.set_item("user", &settings.user)?;
    if let Some(password) = &settings.password {
        words.set_item("password", password.expose_secret())?;
    }
    Ok(words)
}

pub(crate) fn asyncpg<'py>(py: Python<'py>, arguments: &AsyncpgArguments) -> PyResult<Bound<'py, PyDict>> {
    let words = PyDict::new(py);
    words.set_item("host", &arguments.host)?;
    words.set_item("port", arguments.port)?;
    words.set_item("database", &arguments.database)?;
    words.set_item("user", &arguments.user)?;
    if let Some(password) = &arguments.password {
        words.set_item("password", password.expose_secret())?;
    }
    if let Some(mode) = arguments.ssl {
        words.set_item("ssl", mode.as_str())?;
    }
    if let Some(dsn) = &arguments.dsn {
        words.set_item("dsn", dsn)?;
    }
    if let Some(timeout) = arguments.timeout {
        words.set_item("timeout", timeout)?;
    }
    if !arguments.server_settings.is_empty() {
        words.set_item("server_settings", &arguments.server_settings)?;
    }
    Ok(words)
}
