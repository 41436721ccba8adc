//! What the server is to be, or why not.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::deploy::heritage;
use crate::deploy::image::{Flavour, Image, MAJORS};
use crate::deploy::manifests::{ADMIN_SECRET, AUTHORITY_SECRET, CERTIFICATE_SECRET, CLAIM, CONFIGURATION, DEPLOYMENT};
use crate::deploy::observed::{AdminSecret, Observed, asked, read_record};
use crate::deploy::reference::{Reference, Telling};
use crate::deploy::spec::{RECORD_VERSION, ServerRecord, ServerSpec};
use crate::error::{Error, Result};

/// Decides.
///
/// # Errors
/// `Refused` when it would lose data or take what is somebody else's, `InvalidInput` when no server could run that way.
pub(crate) fn decide(spec: &ServerSpec, observed: &Observed) -> Result<ServerRecord> {
    let kept = kept(spec, observed)?;
    let mut record = match (&kept, &observed.claim) {
        (Some(kept), Some(claim)) => grown(kept.clone(), claim),
        (Some(kept), None) => kept.clone(),
        (None, _) => ServerRecord::guide()?,
    };
    if let Some(kept) = &kept {
        check_image(&kept.image, spec.image.as_ref().unwrap_or(&kept.image))?;
    }
    let standing = record.clone();
    record = record.changed(spec)?;
    match &observed.admin {
        AdminSecret::Complete { user } => check_user(&record, user.as_deref())?,
        AdminSecret::Incomplete if observed.claim.is_none() => {
            return Err(Error::refused(
                "admin_secret_incomplete",
                format!("secret/{ADMIN_SECRET} has no key password"),
            )
            .with_hint("put the admin's password there, or delete the Secret: a new one is made then"));
        }
        AdminSecret::Incomplete | AdminSecret::Absent => {}
    }
    if record.tls && observed.authority.is_none() && observed.certificate.is_some() {
        let message =
            format!("secret/{AUTHORITY_SECRET}, which vouches for the server's certificate, is gone or incomplete");
        return Err(Error::refused("authority_missing", message).with_hint(format!(
            "put it back. Without it, a new one locks out every app until its next `shareddb create`: kubectl delete \
             secret/{CERTIFICATE_SECRET}, and run this again"
        )));
    }
    if let Some(claim) = &observed.claim {
        check_claim(&record, &standing, claim, spec)?;
        check_admin(&record, observed)?;
    } else if observed.deployment.is_some() || record.adopted.is_some() {
        let claim = record.adopted.as_ref().map_or(CLAIM, |adopted| &adopted.claim);
        return Err(Error::refused(
            "claim_lost",
            format!("there was a server with claim {claim}, and there is no such claim: its data are lost"),
        )
        .with_hint(format!(
            "bring the claim back from what keeps your volumes. To begin with nothing instead: kubectl delete \
                 --ignore-not-found deployment/{DEPLOYMENT} configmap/{CONFIGURATION} secret/{ADMIN_SECRET}, and run this again"
        )));
    }
    Ok(record)
}

/// What is recorded of the server, or found of it where it is taken over. `None` when there is no server yet.
fn kept(spec: &ServerSpec, observed: &Observed) -> Result<Option<ServerRecord>> {
    if let Some(text) = observed.record() {
        return match read_record(text) {
            Some(record) if record.version <= RECORD_VERSION => Ok(Some(record)),
            _ => Err(Error::refused("record_unknown", format!("the record on deployment/{DEPLOYMENT} cannot be read"))
                .with_hint("a newer shareddb has deployed this server: use that one")),
        };
    }
    match (&observed.deployment, &observed.claim) {
        (None, None) if observed.strangers.is_empty() => Ok(None),
        (None, None) => {
            let owners = observed.strangers.join(", ");
            let message = format!("there is another server in the namespace, whose pods the Service would lead to as well: {owners}");
            Err(Error::refused("server_foreign", message).with_hint(
                "its pods are labelled app=postgres: name another namespace (-n), or move its apps away and delete it",
            ))
        }
        (None, Some(_)) => Err(Error::refused(
            "claim_foreign",
            format!("there is a claim {CLAIM} that shareddb has not made, so that nobody knows which server wrote its data"),
        )
        .with_hint(format!(
            "if nothing in it is needed: kubectl delete pvc {CLAIM}; else bring its server back, and take that over: --adopt"
        ))),
        (Some(deployment), _) => match &observed.found {
            Some(found) => taken_over(spec, found).map(Some),
            None => {
                let claims = heritage::claims(deployment).join(", ");
                let claims = if claims.is_empty() { "no claim".to_owned() } else { format!("claim {claims}") };
                let message = format!("there is a deployment/{DEPLOYMENT} that shareddb has not made, with {claims}");
                Err(Error::refused("deployment_foreign", message).with_hint(
                    "take it over, with its claim, image and data directory: --adopt; what would change: --adopt --dry-run",
                ))
            }
        },
    }
}

fn taken_over(spec: &ServerSpec, found: &heritage::Found) -> Result<ServerRecord> {
    let image = taken_image(spec, found)?;
    let guide = ServerRecord::guide()?;
    Ok(ServerRecord {
        image,
        memory: found.size.memory.unwrap_or(guide.memory),
        cpu: found.size.cpu.unwrap_or(guide.cpu),
        connections: found.size.connections.unwrap_or(guide.connections),
        adopted: Some(found.heritage.clone()),
        ..guide
    })
}

/// The image of a server that is taken over: its own, or one that does for it, where its own does not say enough.
fn taken_image(spec: &ServerSpec, found: &heritage::Found) -> Result<Image> {
    // Another one in its place is judged as for a server of ours.
    if let Some(image) = &found.image {
        return Ok(image.clone());
    }
    let reference = &found.reference;
    let parsed = Reference::parse(reference).ok();
    let Telling { major, flavour } = parsed.map_or(Telling { major: None, flavour: None }, |it| it.telling());
    if let Some(major) = major.filter(|major| !MAJORS.contains(major)) {
        let (oldest, newest) = (MAJORS.start(), MAJORS.end());
        let message = format!(
            "deployment/{DEPLOYMENT} runs PostgreSQL {major} ({reference}), and {oldest} to {newest} can be deployed"
        );
        return Err(Error::refused("adopt_unclear", message).with_hint(
            "no image of another version reads its data: deploy a second environment, and move the apps there with a dump each",
        ));
    }
    let Some(wanted) = &spec.image else { return Err(unsaid(reference, parsed, major, flavour)) };
    if let Some(major) = major {
        check_major(major, wanted)?;
    }
    match flavour {
        Some(flavour) => check_flavour(flavour, wanted)?,
        None if Reference::parse(wanted.as_str()).ok().map(|it| it.repository) == parsed.map(|it| it.repository) => {}
        None => {
            let message = format!(
                "{reference} does not say what it stands on, so that nobody knows whether {wanted} has its C library"
            );
            return Err(Error::refused("flavour_fixed", message)
                .with_hint("name an image of the same repository: with another C library, indexes break"));
        }
    }
    Ok(wanted.clone())
}

/// An image whose reference does not say which PostgreSQL it has, or on what it stands; and what to name in its place.
fn unsaid(reference: &str, parsed: Option<Reference<'_>>, major: Option<u32>, flavour: Option<Flavour>) -> Error {
    let what = if major.is_some() { "what it stands on" } else { "its version of PostgreSQL" };
    let message = format!("image {reference:?} of deployment/{DEPLOYMENT} does not say {what}");
    let repository = parsed.map_or("postgres", |it| it.repository);
    let tag = |flavour| {
        let major = major.map_or("15".to_owned(), |major| major.to_string());
        if flavour == Flavour::Alpine { format!("{major}-alpine") } else { format!("{major}-bookworm") }
    };
    let look = "kubectl exec deployment/postgres -- sh -c 'postgres --version; cat /etc/os-release'";
    Error::refused("adopt_unclear", message).with_hint(match flavour {
        Some(flavour) => format!(
            "say which it is (kubectl exec deployment/postgres -- postgres --version): --image {repository}:{}, or one with the same \
             extensions",
            tag(flavour)
        ),
        None => format!(
            "name one of exactly the same repository whose tag says both ({look}), such as --image {repository}:{} or {repository}:{}; \
             if there is none, move its apps with a dump each",
            tag(Flavour::Alpine),
            tag(Flavour::Debian)
        ),
    })
}

/// A claim that somebody has made larger stays so.
fn grown(record: ServerRecord, claim: &PersistentVolumeClaim) -> ServerRecord {
    let asked = asked(claim).unwrap_or(record.storage);
    // Of a server that is taken over, nothing else says how large it is.
    let storage = if record.adopted.is_some() { asked } else { record.storage.max(asked) };
    ServerRecord { storage, ..record }
}

fn check_image(kept: &Image, wanted: &Image) -> Result<()> {
    check_major(kept.major(), wanted)?;
    check_flavour(kept.flavour(), wanted)
}

fn check_major(from: u32, wanted: &Image) -> Result<()> {
    let to = wanted.major();
    if from == to {
        return Ok(());
    }
    Err(Error::refused("major_fixed", format!("the data are of PostgreSQL {from}, which {wanted} does not read")).with_hint(
        format!(
            "for PostgreSQL {to}, deploy a second environment and move the apps there; within {from}, any minor version will do"
        ),
    ))
}

fn check_flavour(from: Flavour, wanted: &Image) -> Result<()> {
    let to = wanted.flavour();
    if from == to {
        return Ok(());
    }
    let message = format!(
        "the data were written on {from}, and {wanted} stands on {to}: they sort text differently, which breaks indexes"
    );
    Err(Error::refused("flavour_fixed", message)
        .with_hint(format!("name an image of PostgreSQL that stands on {from}")))
}

fn check_claim(
    record: &ServerRecord,
    standing: &ServerRecord,
    claim: &PersistentVolumeClaim,
    spec: &ServerSpec,
) -> Result<()> {
    let name = claim.metadata.name.as_deref().unwrap_or(CLAIM);
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(Error::refused(
            "claim_terminating",
            format!("claim {name} is being deleted, and goes with its last pod"),
        )
        .with_hint("back the data up now: once the pod ends, they are gone"));
    }
    if record.storage < standing.storage {
        return Err(Error::refused(
            "storage_shrinks",
            format!("claim {name} has {}, and no volume becomes smaller, as to {}", standing.storage, record.storage),
        )
        .with_hint(format!("leave --storage out, or name {} or more", standing.storage)));
    }
    let is_bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    if record.storage > standing.storage && !is_bound {
        let (is, wanted) = (standing.storage, record.storage);
        return Err(Error::refused(
            "storage_fixed",
            format!("claim {name} of {is} cannot become {wanted} now: it has no volume yet, and until then it is fixed"),
        )
        .with_hint(format!(
            "leave --storage out until the server runs. If it never has: kubectl delete deployment/{DEPLOYMENT} pvc/{name} \
             secret/{ADMIN_SECRET}, and run this again"
        )));
    }
    let fixed = |what: &str, is: &str, wanted: &str| {
        Error::refused("claim_fixed", format!("the {what} of claim {name} is {is}, and cannot become {wanted}")).with_hint(
            "that is fixed when a claim is made: leave the option out, or deploy a second environment and move the apps there",
        )
    };
    let details = claim.spec.as_ref();
    if let Some(wanted) = &spec.storage_class {
        let is = details.and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
        if is != wanted {
            return Err(fixed("storage class", if is.is_empty() { "that of no class" } else { is }, wanted));
        }
    }
    if let Some(wanted) = spec.access_mode {
        let is = details.and_then(|spec| spec.access_modes.clone()).unwrap_or_default();
        if !is.iter().any(|mode| mode == wanted.as_str()) {
            return Err(fixed("access mode", &is.join(", "), wanted.as_str()));
        }
    }
    Ok(())
}

/// The password is in the data, and nobody knows it any more.
fn check_admin(record: &ServerRecord, observed: &Observed) -> Result<()> {
    let finds_it = observed.found.as_ref().is_some_and(|found| !found.password.is_empty());
    let what = match &observed.admin {
        AdminSecret::Complete { .. } => return Ok(()),
        AdminSecret::Absent if finds_it || observed.is_untouched() => return Ok(()),
        AdminSecret::Absent => "there is no",
        AdminSecret::Incomplete => "there is no password in",
    };
    let admin = record.admin();
    Err(Error::refused(
        "admin_secret_missing",
        format!("the server has data, and {what} secret/{ADMIN_SECRET} with its admin's password; a new one would not open it"),
    )
    .with_hint(format!(
        "put it back: kubectl create secret generic {ADMIN_SECRET} --from-literal=username={admin} --from-file=password=FILE. If \
         nobody has it, set one in the pod first: kubectl exec -it deployment/{DEPLOYMENT} -- psql -U {admin} -d postgres -c \
         '\\password'"
    )))
}

fn check_user(record: &ServerRecord, user: Option<&str>) -> Result<()> {
    let admin = record.admin();
    match user.filter(|user| *user != admin) {
        None => Ok(()),
        Some(user) => {
            let message = format!("secret/{ADMIN_SECRET} is about {user:?}, and the admin of the server is {admin:?}");
            Err(Error::refused("admin_secret_other", message)
                .with_hint(format!("put {admin:?} and its password into it: keys username and password")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::{Value, json};

    use crate::deploy::certificates::Pair;
    use crate::deploy::manifests::{RECORD, manifests, recorded};
    use crate::names::NamespaceName;

    fn namespace() -> NamespaceName {
        "stage".parse().unwrap()
    }

    /// What there is after a deploy of this server.
    fn deployed(record: &ServerRecord) -> Observed {
        let objects = manifests(record, &namespace(), None);
        let of = |kind: &str| -> Value {
            objects.iter().find(|object| object.kind.name == kind).map(|object| object.content.clone()).unwrap()
        };
        let (mut deployment, mut claim) = (of("Deployment"), of("PersistentVolumeClaim"));
        for object in [&mut deployment, &mut claim] {
            object["metadata"]["managedFields"] = json!([{"manager": "shareddb", "operation": "Apply"}]);
        }
        claim["status"] = json!({"phase": "Bound"});
        Observed {
            deployment: serde_json::from_value(deployment).unwrap(),
            claim: serde_json::from_value(claim).unwrap(),
            admin: AdminSecret::Complete { user: Some("postgres".to_owned()) },
            ..Observed::default()
        }
    }

    fn foreign() -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "postgres"},
            "spec": {"selector": {"matchLabels": {"app": "postgres"}}, "template": {"spec": {
                "containers": [{"name": "postgres", "image": "postgres:16",
                    "env": [{"name": "POSTGRES_PASSWORD", "value": "x"}],
                    "volumeMounts": [{"name": "d", "mountPath": "/var/lib/postgresql/data"}]}],
                "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "mine"}}]
            }}}
        }))
        .unwrap()
    }

    fn guide() -> ServerRecord {
        ServerRecord::guide().unwrap()
    }

    #[test]
    fn nothing_there_is_the_guides_server() {
        assert_eq!(decide(&ServerSpec::default(), &Observed::default()).unwrap(), guide());
    }

    #[test]
    fn what_is_deployed_stays_unless_said_otherwise() {
        let spec = ServerSpec { storage: "20Gi".parse().ok(), connections: Some(50), ..ServerSpec::default() };
        let record = decide(&spec, &deployed(&guide())).unwrap();
        assert_eq!(decide(&ServerSpec::default(), &deployed(&record)).unwrap(), record);
        // The Deployment was deleted by hand: its claim remembers.
        let observed = Observed { deployment: None, ..deployed(&record) };
        assert_eq!(decide(&ServerSpec::default(), &observed).unwrap(), record);
    }

    #[test]
    fn a_claim_that_somebody_made_larger_stays_so() {
        let mut observed = deployed(&guide());
        let requests = json!({"storage": "30Gi"});
        let claim = observed.claim.as_mut().unwrap();
        claim.spec.as_mut().unwrap().resources.as_mut().unwrap().requests = serde_json::from_value(requests).unwrap();
        assert_eq!(decide(&ServerSpec::default(), &observed).unwrap().storage.to_string(), "30Gi");
        let spec = ServerSpec { storage: "20Gi".parse().ok(), ..ServerSpec::default() };
        assert_eq!(decide(&spec, &observed).unwrap_err().code(), "storage_shrinks");
    }

    #[test]
    fn what_would_lose_data_is_refused() {
        let refused = |spec: ServerSpec, observed: Observed| {
            let error = decide(&spec, &observed).unwrap_err();
            assert!(matches!(error, Error::Refused(_)) && error.hint().is_some(), "{error:?}");
            error.code()
        };
        let image = |text: &str| ServerSpec { image: text.parse().ok(), ..ServerSpec::default() };
        assert_eq!(refused(image("postgres:16-alpine"), deployed(&guide())), "major_fixed");
        assert_eq!(refused(image("postgres:15"), deployed(&guide())), "flavour_fixed");
        assert!(decide(&image("mirror.example/postgres:15.9-alpine"), &deployed(&guide())).is_ok());
        let storage = ServerSpec { storage: "5Gi".parse().ok(), ..ServerSpec::default() };
        assert_eq!(refused(storage, deployed(&guide())), "storage_shrinks");
        let class = ServerSpec { storage_class: Some("fast".into()), ..ServerSpec::default() };
        assert_eq!(refused(class, deployed(&guide())), "claim_fixed");
        let mode = ServerSpec {
            access_mode: Some(crate::deploy::spec::AccessMode::ReadWriteOncePod),
            ..ServerSpec::default()
        };
        assert_eq!(refused(mode, deployed(&guide())), "claim_fixed");
        let without = |admin| Observed { admin, ..deployed(&guide()) };
        assert_eq!(refused(ServerSpec::default(), without(AdminSecret::Absent)), "admin_secret_missing");
        assert_eq!(refused(ServerSpec::default(), without(AdminSecret::Incomplete)), "admin_secret_missing");
        let other = AdminSecret::Complete { user: Some("root".into()) };
        assert_eq!(refused(ServerSpec::default(), without(other)), "admin_secret_other");
        let half = Observed { admin: AdminSecret::Incomplete, ..Observed::default() };
        assert_eq!(refused(ServerSpec::default(), half), "admin_secret_incomplete");
        let certificate = || Some(Pair { certificate: String::new(), key: String::new().into() });
        let tls = || ServerSpec { tls: Some(true), ..ServerSpec::default() };
        let lost = Observed { certificate: certificate(), ..deployed(&guide()) };
        assert_eq!(refused(tls(), lost), "authority_missing");
        let whole = Observed { certificate: certificate(), authority: certificate(), ..deployed(&guide()) };
        assert!(decide(&tls(), &whole).is_ok());
        let strangers = Observed { strangers: vec!["statefulset/postgres".into()], ..Observed::default() };
        assert_eq!(refused(ServerSpec::default(), strangers), "server_foreign");
        assert_eq!(refused(ServerSpec::default(), Observed { claim: None, ..deployed(&guide()) }), "claim_lost");
    }

    #[test]
    fn a_server_that_never_ran_has_no_password_to_lose() {
        let applied = |status: Value, revision: &str| {
            let mut observed = Observed { admin: AdminSecret::Absent, ..deployed(&guide()) };
            let deployment = observed.deployment.as_mut().unwrap();
            deployment.metadata.managed_fields = None;
            deployment.status = serde_json::from_value(status).unwrap();
            let annotations = deployment.metadata.annotations.as_mut().unwrap();
            annotations.insert("deployment.kubernetes.io/revision".into(), revision.into());
            observed.claim.as_mut().unwrap().metadata.managed_fields = None;
            decide(&ServerSpec::default(), &observed).is_ok()
        };
        let condition = |kind: &str, status: &str, reason: &str| json!({"conditions": [{"type": kind, "status": status, "reason": reason}]});
        let waits = condition("Available", "False", "MinimumReplicasUnavailable");
        assert!(applied(json!({}), "1") && applied(waits.clone(), "1"));
        assert!(!applied(waits, "2"), "an earlier revision may have run");
        assert!(!applied(condition("Available", "True", "MinimumReplicasAvailable"), "1"));
        assert!(!applied(condition("Progressing", "True", "NewReplicaSetAvailable"), "1"));
    }

    #[test]
    fn a_volume_that_is_not_there_yet_does_not_grow() {
        let mut observed = deployed(&guide());
        observed.claim.as_mut().unwrap().status = None;
        let storage = ServerSpec { storage: "20Gi".parse().ok(), ..ServerSpec::default() };
        assert_eq!(decide(&storage, &observed).unwrap_err().code(), "storage_fixed");
        assert!(decide(&storage, &deployed(&guide())).is_ok());
    }

    #[test]
    fn what_somebody_else_made_is_refused_or_taken_over() {
        let observed = || Observed { deployment: Some(foreign()), ..Observed::default() };
        let error = decide(&ServerSpec::default(), &observed()).unwrap_err();
        assert_eq!(error.code(), "deployment_foreign");
        assert!(error.to_string().contains("claim mine"), "{error}");

        let claim = json!({"metadata": {"name": "mine"}, "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "3Gi"}}}});
        let found = heritage::found(&foreign()).unwrap();
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        let observed = Observed { claim: Some(claim), found: Some(found), ..observed() };
        let spec = ServerSpec { adopt: true, ..ServerSpec::default() };
        let record = decide(&spec, &observed).unwrap();
        assert_eq!((record.image.as_str(), record.storage.to_string()), ("postgres:16", "3Gi".to_owned()));
        assert!(!record.is_ours());
        // The claim stays as it is written, until somebody says how large it is to be.
        let asks = |record: &ServerRecord| {
            let objects = manifests(record, &namespace(), None);
            let claim = objects.iter().find(|object| object.kind.name == "PersistentVolumeClaim").unwrap();
            (claim.name.clone(), claim.content["spec"].clone())
        };
        assert_eq!(asks(&record), ("mine".to_owned(), json!({})));
        let larger = ServerSpec { storage: "5Gi".parse().ok(), ..spec.clone() };
        let bound = |mut claim: PersistentVolumeClaim| {
            claim.status = serde_json::from_value(json!({"phase": "Bound"})).unwrap();
            claim
        };
        let grown = Observed {
            deployment: observed.deployment.clone(),
            claim: observed.claim.clone().map(bound),
            found: observed.found.clone(),
            ..Observed::default()
        };
        let larger = decide(&larger, &grown).unwrap();
        assert_eq!(asks(&larger).1, json!({"resources": {"requests": {"storage": "5Gi"}}}));
        // A server that was taken over and lost its Deployment is known by its settings.
        let settings = json!({"metadata": {"name": "postgres-config", "annotations": {RECORD: recorded(&record)}}});
        let lost = Observed { configuration: serde_json::from_value(settings).unwrap(), ..Observed::default() };
        assert_eq!(decide(&ServerSpec::default(), &lost).unwrap_err().code(), "claim_lost");
        let mut unclear = heritage::found(&foreign()).unwrap();
        (unclear.image, unclear.reference) = (None, "postgres:alpine".to_owned());
        let unclear = Observed { found: Some(unclear), deployment: observed.deployment.clone(), ..Observed::default() };
        let named = |image: &str| {
            decide(&ServerSpec { image: image.parse().ok(), ..spec.clone() }, &unclear).unwrap_err().code()
        };
        assert_eq!(
            decide(&spec, &unclear).unwrap_err().hint().map(|hint| hint.contains("postgres:15-alpine")),
            Some(true)
        );
        assert_eq!((named("postgres:15"), named("postgres:15-alpine")), ("flavour_fixed", "claim_lost"));
        let spec = ServerSpec { image: "postgres:17".parse().ok(), ..spec };
        assert_eq!(decide(&spec, &observed).unwrap_err().code(), "major_fixed");
    }

    #[test]
    fn a_server_that_is_too_small_as_somebody_made_it_is_told_as_his() {
        let mut found = heritage::found(&foreign()).unwrap();
        found.size.memory = "64Mi".parse().ok();
        let claim = json!({"metadata": {"name": "mine"}, "spec": {"resources": {"requests": {"storage": "100Mi"}}}});
        let observed = Observed {
            deployment: Some(foreign()),
            found: Some(found),
            claim: serde_json::from_value(claim).unwrap(),
            ..Observed::default()
        };
        let spec = ServerSpec { adopt: true, ..ServerSpec::default() };
        let error = decide(&spec, &observed).unwrap_err();
        assert_eq!(error.code(), "server_too_small");
        assert!(error.to_string().contains("64Mi, the limit that its container has"), "{error}");
        assert!(error.hint().unwrap().contains("--memory"), "{error:?}");
        // Its claim is as small as it is.
        decide(&ServerSpec { memory: "512Mi".parse().ok(), ..spec }, &observed).unwrap();
    }

    #[test]
    fn an_image_that_does_not_say_enough_is_not_guessed_at() {
        let adopt = |runs: &str, wanted: &str| {
            let mut found = heritage::found(&foreign()).unwrap();
            (found.image, found.reference) = (None, runs.to_owned());
            let observed = Observed { found: Some(found), deployment: Some(foreign()), ..Observed::default() };
            let spec = ServerSpec { adopt: true, image: wanted.parse().ok(), ..ServerSpec::default() };
            let error = decide(&spec, &observed).unwrap_err();
            (error.code(), format!("{error}\n{}", error.hint().unwrap_or_default()))
        };
        for wanted in ["", "postgres:15"] {
            for (runs, major) in [("postgres:13", "13"), ("postgres:9.6-alpine", "9")] {
                let (code, told) = adopt(runs, wanted);
                assert_eq!(code, "adopt_unclear");
                assert!(told.contains(&format!("runs PostgreSQL {major} ")) && !told.contains("--image"), "{told}");
            }
        }
        let (code, told) = adopt("timescale/timescaledb:2.11.2-pg15", "");
        assert_eq!(code, "adopt_unclear");
        assert!(told.contains("timescale/timescaledb:15-alpine") && !told.contains(" postgres:15"), "{told}");
        let of = |wanted: &str| adopt("timescale/timescaledb:2.11.2-pg15", wanted).0;
        assert_eq!(of("postgres:15"), "flavour_fixed");
        assert_eq!(of("postgres:15-alpine"), "flavour_fixed");
        assert_eq!(of("timescale/timescaledb:16-alpine"), "major_fixed");
        assert_eq!(of("timescale/timescaledb:15-alpine"), "claim_lost", "that one will do");
        assert_eq!(adopt("postgres:latest", "postgres:15-alpine").0, "flavour_fixed");
        assert_eq!(adopt("postgres:latest", "postgres:15").0, "claim_lost");
        assert_eq!(adopt("postgres", "elsewhere/postgres:15").0, "flavour_fixed");
    }

    #[test]
    fn a_record_from_the_future_is_not_guessed_at() {
        let mut observed = deployed(&guide());
        let annotations = observed.deployment.as_mut().unwrap().metadata.annotations.as_mut().unwrap();
        annotations.insert(RECORD.into(), recorded(&guide()).replace("\"version\":1", "\"version\":2"));
        assert_eq!(decide(&ServerSpec::default(), &observed).unwrap_err().code(), "record_unknown");
        let claim_only = Observed { deployment: None, ..deployed(&guide()) };
        let mut claim_only = claim_only;
        claim_only.claim.as_mut().unwrap().metadata.annotations = None;
        assert_eq!(decide(&ServerSpec::default(), &claim_only).unwrap_err().code(), "claim_foreign");
    }
}
