//! How does an application reach its database?
//!
//! `connect_app [DIRECTORY]`; DIRECTORY is a mounted Secret, or one of those in a local server's `secrets`.
//! Without it, variables such as `DATABASE_URL` or `SHAREDDB_SECRET_DIR` say where the database is.

mod failure;

use failure::Failure;
use shareddb_core::{ConnectionConfig, Error};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let config = match std::env::args_os().nth(1) {
        Some(directory) => ConnectionConfig::from_directory(directory.as_ref())?,
        None => ConnectionConfig::from_env()?,
    };
    // Neither this nor `{config:?}` shows the password.
    println!("{config}");

    let session = config.with_application_name("connect_app").connect().await?;
    let row = session
        .query_one("SELECT session_user::text, current_user::text, current_schema()::text", &[])
        .await
        .map_err(|source| Error::from_postgres("cannot ask who I am", source))?;
    let (login, owner, schema): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
    println!("logged in as {login}, working as {owner}, new tables go to schema {schema}");
    Ok(())
}
