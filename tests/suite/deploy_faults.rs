//! A deploy may end at any moment, and two may run at once: the next one comes to the same objects.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use hyper::StatusCode;
use serde_json::Value;
use shareddb_core::{Change, DeployEvent, Error, ServerSpec};
use shareddb_tests::api_proxy::Fault;
use shareddb_tests::command::{program, run};
use shareddb_tests::proxy::Loss;
use shareddb_tests::{ApiProxy, Cluster};

use crate::deploy::{Site, deployer, spec};

/// What is asked for; with TLS, as that makes the most objects.
fn wanted() -> ServerSpec {
    spec(|spec| spec.tls = Some(true))
}

/// The objects without what is different at each place and time: secrets, and what hangs on them.
fn plain(site: &Site<'_>, mut objects: BTreeMap<String, Value>) -> BTreeMap<String, String> {
    for (label, object) in &mut objects {
        let metadata = object["metadata"].as_object_mut().unwrap();
        for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
            metadata.remove(field);
        }
        if let Some(data) = object["data"].as_object_mut().filter(|_| label.starts_with("secret/")) {
            data.values_mut().for_each(|value| *value = Value::Null);
        }
        if label.starts_with("service/") {
            object["spec"]["clusterIP"] = Value::Null;
            object["spec"]["clusterIPs"] = Value::Null;
        }
        if label.starts_with("deployment/") {
            object["spec"]["template"]["metadata"]["annotations"] = Value::Null;
        }
        object.as_object_mut().unwrap().remove("status");
    }
    objects
        .into_iter()
        .map(|(label, object)| (label, object.to_string().replace(&site.namespace, "NAMESPACE")))
        .collect()
}

/// What an undisturbed deploy comes to.
async fn reference() -> BTreeMap<String, String> {
    let site = Site::new().await;
    site.deployer().await.deploy(&wanted()).await.unwrap();
    let objects = site.objects().await;
    plain(&site, objects)
}

/// The next deploy comes to the same objects with the same password, and the one after it has nothing to do.
async fn assert_converges(site: &Site<'_>, reference: &BTreeMap<String, String>, when: &str) {
    let password = match site.objects().await.contains_key("secret/postgres-admin") {
        true => Some(site.password().await),
        false => None,
    };
    let deployer = site.deployer().await;
    deployer.deploy(&wanted()).await.unwrap_or_else(|error| panic!("{when}, again: {error:?}"));
    let objects = site.objects().await;
    assert_eq!(&plain(site, objects), reference, "{when}");
    let after = site.password().await;
    assert!(password.is_none_or(|before| before == after), "{when}: a new password");
    let before = site.versions().await;
    assert!(deployer.deploy(&wanted()).await.unwrap().is_empty(), "{when}");
    assert_eq!(site.versions().await, before, "{when}");
}

#[tokio::test]
async fn a_deploy_that_loses_any_request_or_answer_is_finished_by_the_next() {
    let (reference, proxy) = (reference().await, ApiProxy::to(Cluster::shared().await).await);
    for fault in [
        Fault::Lose(Loss::Request),
        Fault::Lose(Loss::Answer),
        Fault::Answer(StatusCode::SERVICE_UNAVAILABLE),
        Fault::Answer(StatusCode::TOO_MANY_REQUESTS),
    ] {
        for number in 0.. {
            let (site, when) = (Site::new().await, format!("{fault:?} at request {number}"));
            proxy.arm(number, fault.clone());
            let result = deployer(&proxy.kubeconfig(&site.namespace), &site.namespace).await.deploy(&wanted()).await;
            let struck = proxy.disarm() > 0;
            match result {
                Ok(_) => assert!(!struck, "{when}: it went unnoticed"),
                Err(error) => assert!(struck && error.is_retryable(), "{when}: {error:?}"),
            }
            assert_converges(&site, &reference, &when).await;
            if !struck {
                assert!(number > 25, "a deploy asks more than that: {number}");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_deploy_that_is_refused_at_any_request_is_finished_by_the_next() {
    let (reference, proxy) = (reference().await, ApiProxy::to(Cluster::shared().await).await);
    for number in 0.. {
        let (site, when) = (Site::new().await, format!("refused from request {number} on"));
        proxy.arm_from(number, Fault::Answer(StatusCode::FORBIDDEN));
        let result = deployer(&proxy.kubeconfig(&site.namespace), &site.namespace).await.deploy(&wanted()).await;
        let struck = proxy.disarm() > 0;
        assert_eq!(result.is_err(), struck, "{when}");
        if let Err(error) = result {
            assert!(matches!(error, Error::Refused(_)) && error.hint().is_some(), "{when}: {error:?}");
        }
        assert_converges(&site, &reference, &when).await;
        if !struck {
            break;
        }
    }
}

fn mortal(kubeconfig: &Path, namespace: &str, event: usize) -> Option<i32> {
    let mut command = Command::new(program("deploy-and-die"));
    run(command.arg(kubeconfig).args([namespace, &event.to_string()])).code
}

#[tokio::test]
async fn a_deploy_killed_after_any_object_is_finished_by_the_next() {
    let (reference, kubeconfig) = (reference().await, Cluster::shared().await.kubeconfig());
    for event in 0.. {
        let (site, when) = (Site::new().await, format!("killed at event {event}"));
        let (path, namespace) = (kubeconfig.clone(), site.namespace.clone());
        let code = tokio::task::spawn_blocking(move || mortal(&path, &namespace, event)).await.unwrap();
        let made = site.objects().await.len();
        match code {
            None => assert!(made >= event + 1 - usize::from(event > 1), "{when}: {made}"),
            Some(code) => assert_eq!(code, 0, "{when}"),
        }
        assert_converges(&site, &reference, &when).await;
        if code.is_some() {
            assert!(event >= reference.len(), "each object has its event: {event}");
            break;
        }
    }
}

#[tokio::test]
async fn deploys_at_once_make_one_server_with_one_password() {
    let reference = reference().await;
    let unlucky = AtomicUsize::new(0);
    for round in 0..8 {
        let (site, when) = (Site::new().await, format!("round {round}"));
        let deployers = join_all((0..3).map(|_| site.deployer())).await;
        let results = join_all(deployers.iter().map(async |deployer| {
            let result = deployer.deploy(&wanted()).await;
            (result, site.password().await)
        }))
        .await;
        let mut makers = 0;
        for (result, password) in results {
            assert_eq!(password, site.password().await, "{when}");
            match result {
                Ok(plan) => {
                    let made = |object: &str| {
                        plan.changes().any(|change| change.object == object && change.op == Some(Change::Add))
                    };
                    makers += usize::from(made("secret/postgres-admin"));
                }
                Err(error) => {
                    assert!(
                        error.is_retryable() && error.hint().unwrap().contains("run it again"),
                        "{when}: {error:?}"
                    );
                    unlucky.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        assert!(makers <= 1, "{when}: {makers} say that they have made the password");
        assert_converges(&site, &reference, &when).await;
    }
    println!("{} had to run again", unlucky.load(Ordering::Relaxed));
}

#[tokio::test]
async fn deploys_at_once_that_want_different_things_end_with_what_one_wants() {
    for round in 0..6 {
        let site = Site::deployed().await;
        let (one, two) = (site.deployer().await, site.deployer().await);
        let specs = ["1Gi", "2Gi"].map(|memory| spec(|spec| spec.memory = memory.parse().ok()));
        let (first, second) = tokio::join!(one.deploy(&specs[0]), two.deploy(&specs[1]));
        for error in [first.err(), second.err()].into_iter().flatten() {
            assert!(error.is_retryable(), "round {round}: {error:?}");
        }
        // Objects of different minds are brought together.
        site.deployer().await.deploy(&ServerSpec::default()).await.unwrap();
        let limit =
            &site.read("deployment/postgres").await["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
        let limit = limit["memory"].as_str().unwrap().to_owned();
        assert!(["1Gi", "2Gi"].contains(&limit.as_str()), "{limit}");
        assert!(site.deployer().await.plan(&spec(|spec| spec.memory = limit.parse().ok())).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_ends_midway_is_waited_for_by_nobody() {
    let cluster = Arc::new(Cluster::start().await);
    for number in [0, 3, 6] {
        let site = Site::of(&cluster).await;
        let (stopped, events) = (Arc::clone(&cluster), AtomicUsize::new(0));
        let deployer = site.deployer().await.on_event(move |event| {
            if matches!(event, DeployEvent::Applied(_)) && events.fetch_add(1, Ordering::Relaxed) == number {
                stopped.stop();
            }
        });
        let error = deployer.deploy(&wanted()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)) && error.hint().is_some(), "{error:?}");
        cluster.restart().await;
        let password = site.password().await;
        deployer.deploy(&wanted()).await.unwrap();
        assert_eq!(site.password().await, password);
        assert!(deployer.deploy(&wanted()).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_deploy_that_another_one_has_overtaken_loses_none_of_its_options() {
    let site = Site::deployed().await;
    let deployer = site.deployer().await;
    let (memory, sessions) = (spec(|spec| spec.memory = "1Gi".parse().ok()), spec(|spec| spec.connections = Some(200)));
    let plans = [deployer.plan(&memory).await.unwrap(), deployer.plan(&sessions).await.unwrap()];
    deployer.apply(&plans[0]).await.unwrap();
    let error = deployer.apply(&plans[1]).await.unwrap_err();
    assert!(matches!(error, Error::Conflict(_)) && error.is_retryable(), "{error:?}");
    assert_eq!((error.code(), error.hint()), ("concurrent_change", Some("run it again")));
    deployer.deploy(&sessions).await.unwrap();
    for spec in [memory, sessions, ServerSpec::default()] {
        assert!(deployer.plan(&spec).await.unwrap().is_empty(), "{spec:?}");
    }
}
