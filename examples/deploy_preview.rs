//! What does a deploy put into a namespace of Kubernetes?
//!
//! `deploy_preview` prints the objects without asking any cluster; `deploy_preview NAMESPACE` asks the one of the current
//! context what would change there.

mod failure;

use failure::Failure;
use shareddb_core::{Deployer, Environments, ServerSpec};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let environment = Environments::from_env()?.environment(&"stage".parse()?)?;
    let mut spec = ServerSpec::default();
    spec.memory = Some("1Gi".parse()?);
    spec.storage = Some("20Gi".parse()?);
    let Some(namespace) = std::env::args().nth(1) else {
        for object in Deployer::manifests(&environment, &spec)? {
            println!("{} {}", object["kind"], object["metadata"]["name"]);
        }
        return Ok(());
    };
    let environment = environment.with_namespace(namespace.parse()?)?;
    let plan = Deployer::new(&environment).await?.plan(&spec).await?;
    for object in &plan.objects {
        println!("{object}");
        for field in &object.fields {
            println!("    {field}");
        }
    }
    println!(
        "{}",
        if plan.is_empty() { "nothing to do" } else { "`deploy` would do that, and `wait` until it serves" }
    );
    Ok(())
}
