//! The rights that each task asks for, as RBAC has them.

use serde_json::{Value, json};

/// Something that is done with a namespace, and for which a Role is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Reading and writing the Secrets of apps, and reading the admin's.
    Secrets,
    /// Reaching a Service from outside.
    Tunnel,
    /// Looking at a deployed server, and at the schedules of its backups.
    Look,
    /// Deploying a server and waiting for it, with what a look at it takes.
    Deploy,
    /// Finding who takes a Secret, and restarting them.
    Workloads,
    /// Having backups taken regularly.
    #[cfg(feature = "backup")]
    Schedule,
}

/// A right to do these things to these resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Empty for the core API.
    pub(crate) group: &'static str,
    pub(crate) resources: &'static [&'static str],
    pub(crate) verbs: &'static [&'static str],
}

const LOOK: &[Rule] = &[
    Rule { group: "apps", resources: &["deployments"], verbs: &["get"] },
    Rule { group: "", resources: &["services", "persistentvolumeclaims"], verbs: &["get"] },
    Rule { group: "", resources: &["pods", "events"], verbs: &["list"] },
    Rule { group: "discovery.k8s.io", resources: &["endpointslices"], verbs: &["list"] },
    Rule { group: "batch", resources: &["cronjobs"], verbs: &["list"] },
];

const DEPLOY: &[Rule] = &[
    Rule {
        group: "",
        resources: &["serviceaccounts", "configmaps", "persistentvolumeclaims", "services"],
        verbs: &["get", "create", "patch"],
    },
    Rule { group: "", resources: &["secrets"], verbs: &["get", "create", "patch", "update"] },
    Rule { group: "apps", resources: &["deployments"], verbs: &["get", "create", "patch"] },
    Rule { group: "networking.k8s.io", resources: &["networkpolicies"], verbs: &["get", "create", "patch"] },
    Rule { group: "policy", resources: &["poddisruptionbudgets"], verbs: &["get", "create", "patch"] },
    Rule { group: "", resources: &["pods", "events"], verbs: &["list"] },
    Rule { group: "", resources: &["pods/log"], verbs: &["get"] },
];

const WORKLOADS: &[Rule] = &[
    Rule { group: "apps", resources: &["deployments", "statefulsets", "daemonsets"], verbs: &["get", "list", "patch"] },
    Rule { group: "batch", resources: &["cronjobs", "jobs"], verbs: &["list"] },
    Rule { group: "", resources: &["pods"], verbs: &["list"] },
];

/// Nobody gives an account what he does not have: whoever schedules may read the admin's Secret himself.
#[cfg(feature = "backup")]
const SCHEDULE: &[Rule] = &[
    Rule { group: "", resources: &["serviceaccounts", "configmaps"], verbs: &["get", "create", "patch", "delete"] },
    Rule { group: "", resources: &["secrets"], verbs: &["get"] },
    Rule {
        group: "rbac.authorization.k8s.io",
        resources: &["roles", "rolebindings"],
        verbs: &["get", "create", "patch", "delete"],
    },
    Rule { group: "batch", resources: &["cronjobs"], verbs: &["get", "list", "create", "patch", "delete"] },
];

impl Task {
    /// Everything that it asks for, and nothing else.
    pub(crate) const fn rules(self) -> &'static [Rule] {
        match self {
            Self::Secrets => {
                &[Rule { group: "", resources: &["secrets"], verbs: &["get", "create", "update", "delete"] }]
            }
            Self::Tunnel => &[
                Rule { group: "", resources: &["services"], verbs: &["get"] },
                Rule { group: "", resources: &["pods"], verbs: &["list"] },
                // The request is a GET; API servers from 1.35 on want to see it allowed as what it amounts to.
                Rule { group: "", resources: &["pods/portforward"], verbs: &["get", "create"] },
            ],
            Self::Look => LOOK,
            Self::Deploy => DEPLOY,
            Self::Workloads => WORKLOADS,
            #[cfg(feature = "backup")]
            Self::Schedule => SCHEDULE,
        }
    }

    /// A Role with these rules, as one line of JSON. Each task's has a name of its own, so that none takes another's place.
    pub(crate) fn role(self, namespace: &str) -> String {
        let rule = |rule: &Rule| json!({"apiGroups": [rule.group], "resources": rule.resources, "verbs": rule.verbs});
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": self.role_name(), "namespace": namespace},
            "rules": self.rules().iter().map(rule).collect::<Vec<Value>>(),
        })
        .to_string()
    }

    const fn role_name(self) -> &'static str {
        match self {
            Self::Secrets => "shareddb-secrets",
            Self::Tunnel => "shareddb-tunnel",
            Self::Look => "shareddb-look",
            Self::Deploy => "shareddb-deploy",
            Self::Workloads => "shareddb-workloads",
            #[cfg(feature = "backup")]
            Self::Schedule => "shareddb-schedule",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASKS: &[Task] = &[
        Task::Secrets,
        Task::Tunnel,
        Task::Look,
        Task::Deploy,
        Task::Workloads,
        #[cfg(feature = "backup")]
        Task::Schedule,
    ];

    #[test]
    fn a_role_is_one_line_and_has_every_rule() {
        for task in TASKS.iter().copied() {
            let text = task.role("stage");
            assert!(!text.contains('\n'), "{text}");
            let role: k8s_openapi::api::rbac::v1::Role = serde_json::from_str(&text).unwrap();
            assert_eq!(role.metadata.namespace.as_deref(), Some("stage"));
            let rules = role.rules.unwrap();
            assert_eq!(rules.len(), task.rules().len());
            for (found, rule) in rules.iter().zip(task.rules()) {
                assert_eq!(found.api_groups.as_ref().unwrap(), &[rule.group]);
                assert_eq!(found.resources.as_ref().unwrap(), rule.resources);
                assert_eq!(found.verbs, rule.verbs);
            }
        }
        assert_ne!(TASKS[0].role_name(), TASKS[1].role_name());
    }

    #[test]
    fn the_roles_to_apply_are_those() {
        let documents = include_str!("../../../examples/roles.yaml").split("\n---\n");
        let roles: Vec<Value> = documents.take(TASKS.len()).map(|text| serde_saphyr::from_str(text).unwrap()).collect();
        let expected: Vec<Value> = TASKS
            .iter()
            .map(|task| {
                let mut role: Value = serde_json::from_str(&task.role("anywhere")).unwrap();
                role["metadata"].as_object_mut().unwrap().remove("namespace");
                role
            })
            .collect();
        assert_eq!(roles, expected);
    }
}
