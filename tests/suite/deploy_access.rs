//! Who may deploy: exactly the documented Roles are enough, and a missing right is named.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use shareddb_core::{Error, ServerSpec};
use shareddb_tests::kubeconfig::Credential;

use crate::deploy::{SERVER, Site, deployer, spec};

/// The Role that a refusal asks for.
fn asked_for(error: &Error) -> Role {
    assert!(matches!(error, Error::PermissionDenied(_)) && error.code() == "api_forbidden", "{error:?}");
    let (_, role) = error.hint().unwrap().split_once("(kubectl apply -f -): ").unwrap();
    serde_json::from_str(role).unwrap()
}

async fn stranger(site: &Site<'_>) -> std::path::PathBuf {
    site.cluster.restricted(&site.namespace, &[]).await
}

async fn rules_for_deploy(site: &Site<'_>) -> Vec<PolicyRule> {
    let nobody = deployer(&stranger(site).await, &site.namespace).await;
    let role = asked_for(&nobody.plan(&ServerSpec::default()).await.unwrap_err());
    assert_eq!(role.metadata.name.as_deref(), Some("shareddb-deploy"));
    role.rules.unwrap()
}

#[tokio::test]
async fn the_role_is_enough_to_deploy_and_to_look() {
    let site = Site::new().await;
    let enough = site.cluster.restricted(&site.namespace, &rules_for_deploy(&site).await).await;
    let allowed = deployer(&enough, &site.namespace).await;
    allowed.deploy(&ServerSpec::default()).await.unwrap();
    let tls = spec(|spec| {
        spec.tls = Some(true);
        spec.memory = "1Gi".parse().ok();
    });
    assert!(allowed.deploy(&tls).await.unwrap().restarts());
    assert_eq!(site.objects().await.len(), SERVER.len() + 2);

    let nobody = deployer(&stranger(&site).await, &site.namespace).await;
    let role = asked_for(&nobody.state().await.unwrap_err());
    assert_eq!(role.metadata.name.as_deref(), Some("shareddb-look"));
    let mut rules = role.rules.unwrap();
    let looks = site.cluster.restricted(&site.namespace, &rules).await;
    // Whether its certificate ends soon stands in a Secret.
    let role = asked_for(&deployer(&looks, &site.namespace).await.state().await.unwrap_err());
    assert_eq!(role.metadata.name.as_deref(), Some("shareddb-secrets"));
    rules.extend(role.rules.unwrap());
    let looks = site.cluster.restricted(&site.namespace, &rules).await;
    assert!(deployer(&looks, &site.namespace).await.state().await.unwrap().deployed);
    let error = deployer(&looks, &site.namespace).await.deploy(&ServerSpec::default()).await.unwrap_err();
    asked_for(&error);
}

#[tokio::test]
async fn a_rule_that_is_missing_is_named() {
    let site = Site::new().await;
    let rules = rules_for_deploy(&site).await;
    // What only a look at a failure asks for.
    let later = ["pods", "events", "pods/log"];
    let mut named = 0;
    for (index, rule) in rules.iter().enumerate() {
        let group = rule.api_groups.as_ref().unwrap()[0].clone();
        for resource in rule.resources.clone().unwrap().iter().filter(|resource| !later.contains(&resource.as_str())) {
            for verb in &rule.verbs {
                // Only a certificate that is renewed is replaced.
                if verb == "update" {
                    continue;
                }
                let mut fewer = rules.clone();
                fewer[index].resources.as_mut().unwrap().retain(|other| other != resource);
                let verbs: Vec<String> = rule.verbs.iter().filter(|other| *other != verb).cloned().collect();
                let rest = PolicyRule { resources: Some(vec![resource.clone()]), verbs, ..rule.clone() };
                fewer.push(rest);
                fewer.retain(|rule| !rule.resources.as_ref().unwrap().is_empty());
                let kubeconfig = site.cluster.restricted(&site.namespace, &fewer).await;
                let error = deployer(&kubeconfig, &site.namespace).await.plan(&ServerSpec::default()).await;
                let error = error.err().unwrap_or_else(|| panic!("nobody asks to {verb} {resource}"));
                let missing = format!(
                    r#"the rule {{"apiGroups":["{group}"],"resources":["{resource}"],"verbs":["{verb}"]}} is missing"#
                );
                assert!(error.hint().unwrap().contains(&missing), "{missing}: {error:?}");
                assert_eq!(asked_for(&error).rules.unwrap().len(), rules.len());
                named += 1;
            }
        }
    }
    assert!(named > 20, "{named}");
    assert!(site.objects().await.is_empty(), "all is asked for before anything is made");
}

#[tokio::test]
async fn a_namespace_that_is_there_takes_no_right_to_make_it() {
    let site = Site::new().await;
    let enough = site.cluster.restricted(&site.namespace, &rules_for_deploy(&site).await).await;
    let make = spec(|spec| spec.create_namespace = true);
    let plan = deployer(&enough, &site.namespace).await.plan(&make).await.unwrap();
    assert!(plan.changes().all(|object| !object.object.starts_with("namespace/")), "{plan:?}");
}

#[tokio::test]
async fn a_token_that_has_ended_is_told_as_such() {
    let site = Site::new().await;
    let rules = rules_for_deploy(&site).await;
    site.cluster.service_account(&site.namespace, "robot", &rules).await;
    let with_token = async |seconds| {
        let token = site.cluster.token(&site.namespace, "robot", seconds).await;
        let kubeconfig = site.cluster.kubeconfig_of("robot", &site.namespace, Credential::Token(token.clone()));
        (token, deployer(&kubeconfig, &site.namespace).await.deploy(&ServerSpec::default()).await)
    };
    let (token, ended) = with_token(-3600).await;
    let error = ended.unwrap_err();
    assert!(matches!(error, Error::PermissionDenied(_)) && error.code() == "api_login_rejected", "{error:?}");
    assert!(error.hint().unwrap().contains("log in to the cluster again"), "{error:?}");
    assert!(!format!("{error:?}").contains(&token));
    assert!(site.objects().await.is_empty());
    let (_, done) = with_token(3600).await;
    assert_eq!(done.unwrap().changes().count(), BTreeSet::from(SERVER).len());
}
