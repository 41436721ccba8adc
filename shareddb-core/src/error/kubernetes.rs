//! Errors of the Kubernetes client as outcomes.

use std::error::Error as StdError;

use http_body_util::LengthLimitError;
use kube::client::AuthError;
use kube::config::KubeconfigError;
use kube::core::Status;
use tokio::task::JoinError;

use super::Error;

/// No answer about one object is longer: the API server takes no more than 3 MiB in a request, and 1 MiB in a Secret.
pub(crate) const API_ANSWER_MAX: usize = 8 << 20;

/// A cause of a conflict: somebody else owns the field.
const DISPUTED: &str = "FieldManagerConflict";
/// What RBAC says to somebody who would give more than he has.
const NOT_HELD: &str = "attempting to grant RBAC permissions not currently held";

/// What was asked of the API, for the text of an error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ApiRequest<'a> {
    /// As RBAC calls it: `get`, `create`, `update`, `delete`.
    pub(crate) verb: &'static str,
    /// As RBAC calls it: `secrets`.
    pub(crate) resource: &'static str,
    pub(crate) namespace: &'a str,
    /// The context of the kubeconfig, or what stands for it.
    pub(crate) context: &'a str,
    /// A Role that allows all that is asked for there, as one line for `kubectl apply -f -`.
    pub(crate) role: &'a str,
}

impl Error {
    /// Classifies what the Kubernetes API, or the way to it, says. Of an answer only the Status is kept: a body can
    /// hold a Secret.
    pub(crate) fn from_kube(request: ApiRequest<'_>, source: kube::Error) -> Self {
        let ApiRequest { verb, resource, namespace, context, .. } = request;
        let what = format!("cannot {verb} {resource} in namespace {namespace} (context {context})");
        match source {
            kube::Error::Api(status) => Self::from_status(request, &what, &status),
            kube::Error::Auth(source) => Self::from_client(context, kube::Error::Auth(source)),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::failed("api_answer_unreadable", what),
            kube::Error::Service(source) if source.is::<LengthLimitError>() => Self::failed(
                "api_answer_too_long",
                format!("{what}: the answer is longer than {} MiB, which no Secret is", API_ANSWER_MAX >> 20),
            )
            .with_hint(format!("is it the API server that answers in context {context}? its answer was not used")),
            // Something on the way, such as a proxy, that knows no WebSockets.
            source @ kube::Error::UpgradeConnection(_) => {
                let message = format!("{what}: what answers in context {context} carries no stream");
                Self::failed("api_stream_refused", message)
                    .with_hint("is there a proxy in between that lets no WebSockets through?")
                    .with_source(source)
            }
            source => Self::unavailable("api_unreachable", what)
                .with_hint(format!(
                    "does the API server run, and is {context} the right context? kubectl --context {} version",
                    shell_word(context)
                ))
                .with_source(source),
        }
    }

    /// Classifies a client that cannot be made. What a program for logging in says is not repeated: it is credentials.
    pub(crate) fn from_client(context: &str, source: kube::Error) -> Self {
        let word = shell_word(context);
        let failed = |reason: String| {
            Self::permission_denied("api_login_failed", format!("the login of context {context} does not work{reason}"))
                .with_hint(format!("try it: kubectl --context {word} get namespaces"))
        };
        match source {
            kube::Error::Auth(AuthError::AuthExecRun { out, .. }) => {
                failed(format!(": its program ended with {}", out.status))
            }
            kube::Error::Auth(AuthError::AuthExecStart(source)) => {
                failed(": its program cannot be run".into()).with_source(source)
            }
            kube::Error::Auth(_) => failed(String::new()),
            // Its address may hold a password.
            kube::Error::ProxyProtocolDisabled { .. } | kube::Error::ProxyProtocolUnsupported { .. } => {
                Self::invalid_input(
                    "proxy_unsupported",
                    format!("context {context} is behind a proxy of a kind that is not supported"),
                )
                .with_hint("HTTPS_PROXY and proxy-url can be http://HOST:PORT or https://HOST:PORT")
            }
            source => Self::invalid_input("kubeconfig_invalid", format!("context {context} is of no use: {source}")),
        }
    }

    fn from_status(request: ApiRequest<'_>, what: &str, status: &Status) -> Self {
        let ApiRequest { verb, resource, namespace, context, role } = request;
        let word = shell_word(context);
        let message = match said(status) {
            Some(said) => format!("{what}: {said}"),
            None => format!("{what}: status {}", status.code),
        };
        if status.is_forbidden() && is_a_missing_right(status) {
            let group = status.details.as_ref().map_or("", |details| details.group.as_str());
            let rule = refused_rule(&status.message).unwrap_or_else(|| rule(group, resource, verb));
            return Self::permission_denied("api_forbidden", message).with_hint(format!(
                "the rule {rule} is missing: whoever administers the namespace has to bind this Role to you \
                 (kubectl apply -f -): {role}"
            ));
        }
        if status.is_forbidden() && status.message.contains(NOT_HELD) {
            return Self::permission_denied("api_forbidden", message).with_hint(format!(
                "nobody gives an account a right that he does not have: whoever administers the namespace has to bind this Role \
                 to you (kubectl apply -f -): {role}"
            ));
        }
        match (status.code, status.reason.as_str()) {
            (403, _) => Self::from_admission(namespace, message, status),
            (401, _) => Self::permission_denied("api_login_rejected", message).with_hint(format!(
                "the login of context {context} is not accepted, or no longer: log in to the cluster again"
            )),
            (404, _) if is_about_namespace(status) => Self::not_found("namespace_not_found", message).with_hint(
                format!("make it: kubectl --context {word} create namespace {namespace}; or name another: -n"),
            ),
            (404, _) => Self::not_found("api_not_found", message),
            (409, "AlreadyExists") => Self::conflict("object_exists", message),
            (409, _) => Self::conflict("concurrent_change", message),
            (413, _) | (422, _) => Self::invalid_input("api_invalid", message),
            (408 | 504, _) => Self::timeout("api_timeout", message),
            (429, _) | (500.., _) => Self::unavailable("api_unavailable", message)
                .with_hint("the API server is overloaded or starting: run it again in a moment"),
            _ => Self::failed("api_error", message),
        }
    }

    /// Classifies what the cluster does not admit, though the right to ask for it is there.
    fn from_admission(namespace: &str, message: String, status: &Status) -> Self {
        let mut causes = status.details.iter().flat_map(|details| &details.causes);
        if causes.any(|cause| cause.reason == "NamespaceTerminating") {
            return Self::conflict("object_terminating", message).with_hint(format!(
                "once it is gone, make it again: kubectl wait --for=delete namespace/{namespace} --timeout=5m"
            ));
        }
        if status.message.contains("exceeded quota") {
            return Self::refused("quota_exceeded", message).with_hint(
                "what is used up: kubectl describe quota; ask for less (--memory, --cpu, --storage), or have it raised",
            );
        }
        if status.message.contains("pvc can be resized") {
            return Self::refused("storage_fixed", format!("its storage class does not let a volume grow: {message}")).with_hint(
                "leave --storage out. Whoever administers the cluster can allow it, if the volumes can: allowVolumeExpansion of \
                 the StorageClass",
            );
        }
        Self::refused("api_refused", message)
            .with_hint("a policy of the cluster or the namespace says no: whoever administers it knows which")
    }

    /// Classifies what speaks against a change of an object: fields of somebody else, fields that cannot change, an object
    /// that is no longer as it was. `values`: what a field is and what it is to be, where that may be told.
    pub(crate) fn from_rejection(
        request: ApiRequest<'_>,
        label: &str,
        status: &Status,
        values: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let owned: Vec<(&str, &str)> = causes
            .filter(|cause| cause.reason == DISPUTED)
            .map(|cause| (cause.field.as_str(), owner(&cause.message)))
            .collect();
        if !owned.is_empty() {
            let told = |field| values(field).map(|values| format!(" ({values})")).unwrap_or_default();
            let fields: Vec<String> =
                owned.iter().map(|(field, owner)| format!("{field} belongs to {owner}{}", told(field))).collect();
            let message = format!("{label} is somebody else's in part: {}", fields.join(", "));
            return Self::conflict("field_owned", message).with_hint(
                "nothing of that object was changed; undo there what that program or person has set, or set it there to what it is \
                 to be, and run this again",
            );
        }
        let message = format!("{label} cannot be changed: {}", said(status).unwrap_or_default());
        if status.code == 422 && status.message.contains("immutable") {
            return Self::refused("field_fixed", message)
                .with_hint("that is fixed when the object is made; leave the option out that would change it");
        }
        match status.code {
            422 => Self::invalid_input("api_invalid", message),
            _ => Self::from_status(request, &format!("cannot change {label}"), status),
        }
    }

    /// Classifies what is wrong with a kubeconfig. Its text is not repeated: it holds credentials.
    pub(crate) fn from_kubeconfig(place: &str, source: KubeconfigError) -> Self {
        match source {
            KubeconfigError::ReadConfig(source, path) => {
                Self::from_io(format!("cannot read the kubeconfig {}", path.display()), source)
                    .with_hint("say where it is: --kubeconfig FILE, or KUBECONFIG")
            }
            KubeconfigError::FindPath => Self::not_found("kubeconfig_missing", "there is no kubeconfig")
                .with_hint("say where it is: --kubeconfig FILE, or KUBECONFIG"),
            KubeconfigError::CurrentContextNotSet => {
                Self::invalid_input("context_missing", format!("{place} has no current context"))
                    .with_hint("choose one: --context NAME, or kubectl config use-context NAME")
            }
            KubeconfigError::Parse(_) | KubeconfigError::ParseCertificates(_) => {
                Self::invalid_input("kubeconfig_invalid", format!("{place} cannot be understood"))
                    .with_hint("kubectl config view says what is wrong with it")
            }
            source => Self::invalid_input("kubeconfig_invalid", format!("{place} is of no use: {source}")),
        }
    }
}

/// Whether somebody else owns a field that would change.
pub(crate) fn is_disputed(status: &Status) -> bool {
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == DISPUTED)
}

/// What an API server says.
fn said(status: &Status) -> Option<String> {
    (!status.message.is_empty()).then(|| shortened(&status.message))
}

/// What somebody else says, a whole page at most.
pub(crate) fn shortened(text: &str) -> String {
    const SHOWN: usize = 400;
    text.trim().chars().take(SHOWN).collect()
}

/// What has cut a port-forward, unless that was we ourselves.
pub(crate) fn cut_by(source: &(dyn StdError + 'static)) -> Option<String> {
    let ours = source.source().is_some_and(|source| source.is::<JoinError>());
    (!ours).then(|| shortened(&source.to_string()))
}

/// The rule that would allow what RBAC has refused, as it stands in a Role. The API server names it between quotes.
fn refused_rule(message: &str) -> Option<String> {
    let (_, request) = message.split_once(" cannot ")?;
    let (verb, rest) = request.split_once(" resource \"")?;
    let (resource, rest) = rest.split_once("\" in API group \"")?;
    let (group, _) = rest.split_once('"')?;
    Some(rule(group, resource, verb))
}

fn rule(group: &str, resource: &str, verb: &str) -> String {
    format!(r#"{{"apiGroups":["{group}"],"resources":["{resource}"],"verbs":["{verb}"]}}"#)
}

/// Who owns a field: `conflict with "kubectl-edit" using apps/v1`.
fn owner(message: &str) -> &str {
    message.split('"').nth(1).unwrap_or("another program")
}

/// One word of a shell, for a command that somebody is to type.
pub(crate) fn shell_word(text: &str) -> String {
    let bare = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:/@".contains(c));
    if bare { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// RBAC says `forbidden` of what nobody allowed; admission plugins say so of what they refuse, and no Role cures that. Of a
/// stream that may be asked for and not be made the API server gives no reason at all.
fn is_a_missing_right(status: &Status) -> bool {
    let message = status.message.trim_end();
    message.contains(" cannot ") && message.contains(" resource ") || message.ends_with(" is forbidden:")
}

fn is_about_namespace(status: &Status) -> bool {
    status.details.as_ref().is_some_and(|details| details.kind == "namespaces")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_rule_that_is_missing() {
        let message = "pods \"p-1\" is forbidden: User \"u\" cannot create resource \"pods/portforward\" in API group \"\" in \
                       the namespace \"stage\"";
        let rule = r#"{"apiGroups":[""],"resources":["pods/portforward"],"verbs":["create"]}"#;
        assert_eq!(refused_rule(message).unwrap(), rule);
        let message =
            "User \"u\" cannot patch resource \"deployments\" in API group \"apps\" in the namespace \"stage\"";
        assert!(refused_rule(message).unwrap().starts_with(r#"{"apiGroups":["apps"],"resources":["deployments"]"#));
        assert_eq!(refused_rule("exceeded quota: cannot create more"), None);
    }

    #[test]
    fn what_others_say_has_an_end() {
        assert_eq!(shortened(&"x".repeat(4000)).len(), 400);
        assert_eq!(shortened(" lost \n"), "lost");
    }
}
