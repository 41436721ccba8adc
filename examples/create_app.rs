//! How does an application get its database?
//!
//! `create_app [HOME]`; HOME is the folder of the local server, which goes on running afterwards.

mod failure;

use failure::Failure;
use shareddb_core::{AppSpec, Environment, LocalHome, Provisioner};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let home = match std::env::args_os().nth(1) {
        Some(path) => LocalHome::at(path),
        None => LocalHome::from_env()?,
    };
    let environment = Environment::local(home)?;
    let endpoint = environment.deploy().await?;
    println!("PostgreSQL {} on port {}", endpoint.version, endpoint.port);
    let provisioner = Provisioner::new(environment.connect().await?);

    let mut spec = AppSpec::new("orders".parse()?);
    spec.connections = Some(5);
    // The second time there is nothing left to do, and nothing is written.
    for _ in 0..2 {
        let report = provisioner.create(&spec).await?;
        println!("{} {}", report.app.name, report.outcome.as_str());
        for step in &report.steps {
            println!("  {} {step}", step.change().symbol());
        }
    }
    let secret = provisioner.app(&spec.name).await?.secret;
    println!("its credentials: {}", provisioner.server().secrets().describe(&secret));
    Ok(())
}
