//! How does a service use its database, for as long as it runs?
//!
//! `pool_app [DIRECTORY]`; DIRECTORY is a mounted Secret, or one of those in a local server's `secrets`. Without it,
//! variables such as `SHAREDDB_SECRET_DIR` or `DATABASE_URL` say where the database is.

mod failure;

use std::time::Duration;

use failure::Failure;
use shareddb_core::{ConnectionConfig, Error, Pool};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let config = match std::env::args_os().nth(1) {
        Some(directory) => ConnectionConfig::from_directory(directory.as_ref())?,
        None => ConnectionConfig::from_env()?,
    };
    let pool = Pool::new(config)?;
    pool.get()
        .await?
        .execute("CREATE TABLE IF NOT EXISTS visits (page text PRIMARY KEY, count int8 NOT NULL)", &[])
        .await?;

    // Tasks share the pool by cloning it. Dropping the client gives the connection back.
    let page = "front".to_owned();
    let visitors = (0..10).map(|_| {
        let (pool, page) = (pool.clone(), page.clone());
        tokio::spawn(async move {
            let page = &page;
            // All of it or nothing, and once more when others are in the way.
            pool.transaction(|tx| async move {
                let sql = "INSERT INTO visits VALUES ($1, 1) ON CONFLICT (page) DO UPDATE SET count = visits.count + 1";
                tx.execute(sql, &[page]).await?;
                Ok::<_, Error>(())
            })
            .await
        })
    });
    for visitor in visitors.collect::<Vec<_>>() {
        visitor.await??;
    }
    let client = pool.get().await?;
    let row = client.query_one("SELECT count FROM visits WHERE page = $1", &[&page]).await?;
    println!("{} visits; the pool is {}", row.get::<_, i64>(0), pool.snapshot());

    // When the program is asked to end: nobody gets a connection any more, and who has one gets time to finish.
    drop(client);
    pool.close(Duration::from_secs(20)).await?;
    Ok(())
}
