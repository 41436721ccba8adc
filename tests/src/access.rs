//! Identities that may do little.

use std::path::PathBuf;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::Client;
use kube::api::{Api, PostParams};

use crate::cluster::Cluster;
use crate::kubeconfig::Credential;
use crate::server::unique;
use crate::token::Account;
use crate::watch::eventually;

const RBAC: &str = "rbac.authorization.k8s.io";

/// The right to do this to these resources of the core API.
pub fn rule(resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(owned(&[""])),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

impl Cluster {
    /// The file of a new user with exactly these rights, in this namespace only; its context has the user's name.
    pub async fn restricted(&self, namespace: &str, rules: &[PolicyRule]) -> PathBuf {
        let user = unique("user").to_string();
        let subject =
            Subject { api_group: Some(RBAC.to_owned()), kind: "User".to_owned(), name: user.clone(), namespace: None };
        bind(&self.client().await, namespace, rules, subject, &user).await;
        let identity = self.authority().client(&user, None);
        self.kubeconfig_of(&user, namespace, Credential::Certificate(identity))
    }

    /// Makes a service account with exactly these rights, in its namespace only.
    pub async fn service_account(&self, namespace: &str, name: &str, rules: &[PolicyRule]) {
        let client = self.client().await;
        let mut account = ServiceAccount::default();
        account.metadata.name = Some(name.to_owned());
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        accounts.create(&PostParams::default(), &account).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let subject = Subject {
            api_group: None,
            kind: "ServiceAccount".to_owned(),
            name: name.to_owned(),
            namespace: Some(namespace.to_owned()),
        };
        bind(&client, namespace, rules, subject, &format!("system:serviceaccount:{namespace}:{name}")).await;
    }

    /// A token of a service account that ends so many seconds from now; one of a negative number has ended. API servers
    /// let the clocks differ by a minute.
    pub async fn token(&self, namespace: &str, account: &str, seconds: i64) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await, namespace);
        let found = accounts.get(account).await.unwrap_or_else(|error| panic!("{account}: {error}"));
        let uid = found.metadata.uid.expect("it was made");
        self.tokens().token(&Account { namespace, name: account, uid: &uid }, seconds)
    }
}

/// Gives rights to a subject, whom the authorizer knows as `user`, and waits until they count: it hears of them a
/// moment later.
async fn bind(client: &Client, namespace: &str, rules: &[PolicyRule], subject: Subject, user: &str) {
    let name = unique("role").to_string();
    let mut role = Role { rules: Some(rules.to_vec()), ..Role::default() };
    role.metadata.name = Some(name.clone());
    let role_ref = RoleRef { api_group: RBAC.to_owned(), kind: "Role".to_owned(), name: name.clone() };
    let mut binding = RoleBinding { role_ref, subjects: Some(vec![subject]), ..RoleBinding::default() };
    binding.metadata.name = Some(name);
    let (roles, bindings) = (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
    let params = PostParams::default();
    roles.create(&params, &role).await.unwrap_or_else(|error| panic!("a role in {namespace}: {error}"));
    bindings.create(&params, &binding).await.unwrap_or_else(|error| panic!("a binding in {namespace}: {error}"));
    let Some(question) = rules.iter().find_map(|rule| question(namespace, rule)) else { return };
    let spec = SubjectAccessReviewSpec {
        user: Some(user.to_owned()),
        resource_attributes: Some(question),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    eventually("the rights count", async || {
        let answer = reviews.create(&params, &review).await.expect("the admin may ask");
        answer.status.is_some_and(|status| status.allowed)
    })
    .await;
}

/// Something that a rule allows.
fn question(namespace: &str, rule: &PolicyRule) -> Option<ResourceAttributes> {
    let first = |words: &Option<Vec<String>>| words.as_ref().and_then(|words| words.first().cloned());
    let resource = first(&rule.resources)?;
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, subresource)) => (resource.to_owned(), Some(subresource.to_owned())),
        None => (resource, None),
    };
    Some(ResourceAttributes {
        namespace: Some(namespace.to_owned()),
        group: first(&rule.api_groups),
        resource: Some(resource),
        subresource,
        name: first(&rule.resource_names),
        verb: rule.verbs.first().cloned(),
        ..ResourceAttributes::default()
    })
}
