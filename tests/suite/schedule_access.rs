//! Who may schedule: exactly the documented Role is enough, and a missing right is named.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use shareddb_tests::Output;
use shareddb_tests::command::{run, shareddb_command};

use crate::deploy::Site;
use crate::schedule::{SCHEDULE, TOLD, versions};

/// A run by somebody with exactly these rights.
async fn by(site: &Site<'_>, rules: &[PolicyRule], line: &str) -> Output {
    let kubeconfig = site.cluster.restricted(&site.namespace, rules).await;
    let mut command = shareddb_command(&site.home);
    command.current_dir(&site.home).env("KUBECONFIG", kubeconfig).args(["-e", "stage", "-n", &site.namespace]);
    command.args(line.split_whitespace());
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

async fn rules(site: &Site<'_>) -> Vec<PolicyRule> {
    let refused = by(site, &[], &format!("schedule --all {TOLD}")).await.expect_code(1);
    let (_, role) = refused.stderr.split_once("(kubectl apply -f -): ").unwrap();
    let role: Role = serde_json::from_str(role.trim()).unwrap();
    assert_eq!(role.metadata.name.as_deref(), Some("shareddb-schedule"));
    role.rules.unwrap()
}

#[tokio::test]
async fn the_role_is_enough_to_make_change_and_end_a_schedule() {
    let site = Site::new().await;
    let rules = rules(&site).await;
    let schedule = format!("schedule --all {TOLD}");
    let shown = by(&site, &rules, &format!("{schedule} --dry-run")).await.expect_code(0).stdout;
    assert!(shown.ends_with("6 to add, 0 to change, 0 as they are. Nothing was changed (dry run).\n"), "{shown}");
    for line in [&schedule, "schedule --all", "schedule --all --cron @hourly", "schedule --all --verify-cron never"] {
        by(&site, &rules, line).await.expect_code(0);
    }
    assert_eq!(versions(&site).await.len(), SCHEDULE.len() - 1);
    by(&site, &rules, "schedule --all --off").await.expect_code(0);
    assert!(versions(&site).await.is_empty());
}

#[tokio::test]
async fn a_rule_that_is_missing_is_named_before_anything_is_made() {
    let site = Site::new().await;
    let rules = rules(&site).await;
    let mut named = 0;
    for (index, rule) in rules.iter().enumerate() {
        let group = rule.api_groups.as_ref().unwrap()[0].clone();
        for resource in rule.resources.clone().unwrap() {
            for verb in &rule.verbs {
                // A binding to a Role that is not there yet cannot be tried, and Secrets are read where one is named.
                let untried = resource == "rolebindings" && verb != "get" || resource == "secrets";
                if verb == "delete" || untried {
                    continue;
                }
                let mut fewer = rules.clone();
                fewer[index].resources.as_mut().unwrap().retain(|other| *other != resource);
                let verbs: Vec<String> = rule.verbs.iter().filter(|other| *other != verb).cloned().collect();
                fewer.push(PolicyRule { resources: Some(vec![resource.clone()]), verbs, ..rule.clone() });
                fewer.retain(|rule| !rule.resources.as_ref().unwrap().is_empty());
                let refused = by(&site, &fewer, &format!("schedule --all {TOLD} --dry-run")).await.expect_code(1);
                let missing = format!(
                    r#"the rule {{"apiGroups":["{group}"],"resources":["{resource}"],"verbs":["{verb}"]}} is missing"#
                );
                assert!(refused.stderr.contains(&missing), "{missing}: {}", refused.stderr);
                named += 1;
            }
        }
    }
    assert!(named > 12, "{named}");
    assert!(versions(&site).await.is_empty());
}

#[tokio::test]
async fn nobody_gives_the_pods_what_he_does_not_have() {
    let site = Site::new().await;
    let mut rules = rules(&site).await;
    rules.retain(|rule| rule.resources.as_ref().unwrap() != &["secrets"]);
    let refused = by(&site, &rules, &format!("schedule --all {TOLD}")).await.expect_code(1);
    assert!(refused.stderr.contains("not currently held"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("hint: nobody gives an account a right that he does not have"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("\"name\":\"shareddb-schedule\""), "{}", refused.stderr);
    assert!(versions(&site).await.is_empty());
}
