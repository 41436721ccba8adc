//! How does a program follow what is being done, to show progress or keep a log?
//!
//! `follow_events [HOME]`; HOME is the folder of the local server, which goes on running afterwards.

mod failure;

use std::time::Instant;

use failure::Failure;
use shareddb_core::{AppSpec, Environment, Event, LocalHome, Provisioner};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let home = match std::env::args_os().nth(1) {
        Some(path) => LocalHome::at(path),
        None => LocalHome::from_env()?,
    };
    let environment = Environment::local(home)?;
    environment.deploy().await?;

    let start = Instant::now();
    let provisioner = Provisioner::new(environment.connect().await?).on_event(move |event| {
        let milliseconds = start.elapsed().as_millis();
        match event {
            Event::Begun(step) => println!("{milliseconds:5} ms  begun  {step}"),
            Event::Done(step) => println!("{milliseconds:5} ms  done   {step}"),
            // More kinds may come.
            _ => {}
        }
    });

    let report = provisioner.create(&AppSpec::new("invoices".parse()?)).await?;
    println!("{} {} in {} steps", report.app.name, report.outcome.as_str(), report.steps.len());
    Ok(())
}
