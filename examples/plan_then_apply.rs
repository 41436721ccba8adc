//! How does one look at changes before they are made, and make exactly those?
//!
//! `plan_then_apply [HOME]`; HOME is the folder of the local server, which goes on running afterwards.

mod failure;

use std::collections::BTreeMap;

use failure::Failure;
use shareddb_core::{AppSpec, Environment, Error, LocalHome, Provisioner};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let home = match std::env::args_os().nth(1) {
        Some(path) => LocalHome::at(path),
        None => LocalHome::from_env()?,
    };
    let environment = Environment::local(home)?;
    environment.deploy().await?;
    let provisioner = Provisioner::new(environment.connect().await?);

    let mut spec = AppSpec::new("reports".parse()?);
    spec.connections = Some(5);
    spec.settings = Some(BTreeMap::new());
    let plan = provisioner.plan(&spec).await?;
    print!("{plan}");
    let report = provisioner.apply(&plan).await?;
    println!("{} {}", report.app.name, report.outcome.as_str());

    // A plan is for what was there when it was made.
    let mut slower = AppSpec::new("reports".parse()?);
    slower.settings = Some(BTreeMap::from([("statement_timeout".parse()?, "1min".to_owned())]));
    let plan = provisioner.plan(&slower).await?;
    print!("{plan}");

    let mut meanwhile = AppSpec::new("reports".parse()?);
    meanwhile.connections = Some(6);
    provisioner.create(&meanwhile).await?;

    match provisioner.apply(&plan).await {
        Err(error) if error.code() == "plan_stale" => println!("refused: {error}"),
        Err(error) => return Err(error.into()),
        Ok(_) => return Err(Error::failed("plan_not_stale", "a plan for another state was carried out").into()),
    }
    let report = provisioner.apply(&provisioner.plan(&slower).await?).await?;
    println!("{} {}", report.app.name, report.outcome.as_str());
    Ok(())
}
