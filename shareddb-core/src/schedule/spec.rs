//! What the caller wants to happen regularly, and what it comes to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cron::Cron;
use super::keep::Keep;
use crate::backup::Recipients;
use crate::deploy::reference::Reference;
use crate::deploy::{Cores, Size};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::names::{AppName, EnvironmentName, NamespaceName, SecretName};

/// A dump, its compressor on every processor and its upload take less.
const LEAST_MEMORY: Size = Size::mebibytes(128);
const LEAST_CPU: Cores = Cores::thousandths(10);
/// Stores that a pod reaches, with the beginning of the variables by which their programs get credentials.
const STORES: [(&str, &str); 3] = [("s3", "AWS_"), ("gs", "GOOGLE_"), ("az", "AZURE_")];

/// What the caller wants to happen regularly. A field left out means "as scheduled, else the default".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScheduleSpec {
    /// Whose backups; every app's that there is at that time, unless one is named.
    pub app: Option<AppName>,
    /// When they are taken; every day at 02:00.
    pub cron: Option<Cron>,
    /// When the newest is proven by restoring it; on Sundays at 04:00.
    pub verify: Option<Proving>,
    /// Which of them stay; one a day for 7 days, one a week for 4 weeks, one a month for 6 months.
    pub keep: Option<Keep>,
    /// The image with the command `shareddb` and PostgreSQL's client programs; the environment's `backup_image`.
    pub image: Option<String>,
    /// Where backups go; the environment's `backups`.
    pub to: Option<String>,
    /// A Secret of the namespace whose keys are the variables that lead to the store; none where the pod's account does.
    pub credentials: Option<SecretName>,
    /// Public keys of age's whose holders alone can read the backups. The whole list.
    pub encrypt_to: Option<Vec<String>>,
    /// The most memory that a run may use, of which half is reserved; 512Mi.
    pub memory: Option<Size>,
    /// The most of the processors that it may use, of which half is reserved; 1.
    pub cpu: Option<Cores>,
}

/// When backups are proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Proving {
    /// Not by this schedule.
    Never,
    /// At these times.
    At(Cron),
}

/// Everything that decides what the objects of a schedule are. Kept with them, so that the next run knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScheduleRecord {
    /// The form of this record.
    pub(crate) version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app: Option<AppName>,
    pub(crate) cron: Cron,
    /// `None` where nobody has said: then it depends on whether the pod could read what it is to prove.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verify: Option<Proving>,
    pub(crate) keep: Keep,
    /// The image and the place, where they are other than the environment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credentials: Option<SecretName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) encrypt_to: Vec<String>,
    pub(crate) memory: Size,
    pub(crate) cpu: Cores,
}

pub(crate) const RECORD_VERSION: u32 = 1;

/// Where the pods of a schedule work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) environment: EnvironmentName,
    pub(crate) namespace: NamespaceName,
    pub(crate) cluster_domain: String,
    /// The URL of the store.
    pub(crate) store: String,
    pub(crate) image: String,
}

impl ScheduleRecord {
    /// The guide's time, for an app or for all.
    pub(crate) fn usual(app: Option<AppName>) -> Result<Self> {
        Ok(Self {
            version: RECORD_VERSION,
            app,
            cron: "0 2 * * *".parse()?,
            verify: None,
            keep: Keep::usual(),
            image: None,
            to: None,
            credentials: None,
            encrypt_to: Vec::new(),
            memory: Size::mebibytes(512),
            cpu: Cores::thousandths(1000),
        })
    }

    /// This schedule as the caller wants it.
    ///
    /// # Errors
    /// `InvalidInput` when it could not run that way.
    pub(crate) fn changed(self, spec: &ScheduleSpec) -> Result<Self> {
        let wanted = Self {
            version: RECORD_VERSION,
            cron: spec.cron.clone().unwrap_or(self.cron),
            verify: spec.verify.clone().or(self.verify),
            keep: spec.keep.unwrap_or(self.keep),
            image: spec.image.clone().or(self.image),
            to: spec.to.clone().or(self.to),
            credentials: spec.credentials.clone().or(self.credentials),
            encrypt_to: spec.encrypt_to.clone().unwrap_or(self.encrypt_to),
            memory: spec.memory.unwrap_or(self.memory),
            cpu: spec.cpu.unwrap_or(self.cpu),
            app: self.app,
        };
        wanted.check()?;
        Ok(wanted)
    }

    fn check(&self) -> Result<()> {
        self.keep.check()?;
        Recipients::keys(self.encrypt_to.iter().map(String::as_str))?;
        if self.memory < LEAST_MEMORY || self.cpu < LEAST_CPU {
            let message = format!("{} of memory and {} of the processors are too little", self.memory, self.cpu);
            return Err(Error::invalid_input("schedule_too_small", message)
                .with_hint(format!("at least {LEAST_MEMORY} and {LEAST_CPU}: --memory, --cpu")));
        }
        if !self.encrypt_to.is_empty() && matches!(self.verify, Some(Proving::At(_))) {
            let message = "encrypted backups cannot be proven in a pod that has no key to them";
            return Err(Error::invalid_input("verify_needs_key", message)
                .with_hint("--verify-cron never; prove them where the key is: shareddb verify --all --identity FILE"));
        }
        Ok(())
    }

    /// When backups are proven, if they are.
    pub(crate) fn proving(&self) -> Result<Option<Cron>> {
        match &self.verify {
            Some(Proving::Never) => Ok(None),
            Some(Proving::At(cron)) => Ok(Some(cron.clone())),
            None if !self.encrypt_to.is_empty() => Ok(None),
            None => "0 4 * * 0".parse().map(Some),
        }
    }

    /// Where its pods work.
    ///
    /// # Errors
    /// `InvalidInput` when the environment is no namespace's, no image is named, or the store is none that a pod reaches.
    pub(crate) fn site(&self, environment: &Environment) -> Result<Site> {
        let namespace = environment.namespace_name()?.clone();
        let placed = match &self.to {
            Some(place) => environment.clone().with_backups(place)?,
            None => environment.clone(),
        };
        let store = placed.backups()?.to_owned();
        vendor(&store)?;
        Ok(Site {
            environment: environment.name().clone(),
            namespace,
            cluster_domain: environment.cluster_domain()?.to_owned(),
            store,
            image: self.image(environment)?,
        })
    }

    fn image(&self, environment: &Environment) -> Result<String> {
        let Some(image) = self.image.as_deref().or_else(|| environment.backup_image()) else {
            let name = environment.name();
            return Err(Error::invalid_input("image_missing", "it is not said in which image backups are taken").with_hint(format!(
                "build one with examples/image/Dockerfile, push it to a registry that the cluster reaches, and name it: --image \
                 REGISTRY/shareddb:TAG, or backup_image = \"…\" under [env.{name}] in shareddb.toml"
            )));
        };
        match Reference::parse(image) {
            Ok(_) => Ok(image.to_owned()),
            Err(reason) => Err(Error::invalid_input("image_invalid", format!("{image:?} is no image: {reason}"))
                .with_hint("write REGISTRY/shareddb:TAG")),
        }
    }
}

/// The beginning of the variables that lead to a store.
///
/// # Errors
/// `InvalidInput` for one that a pod does not reach.
pub(crate) fn vendor(store: &str) -> Result<&'static str> {
    let scheme = store.split_once("://").map_or("", |(scheme, _)| scheme);
    STORES.iter().find(|(known, _)| *known == scheme).map(|(_, vendor)| *vendor).ok_or_else(|| {
        Error::invalid_input("store_in_pod", "backups are to go to a folder, and a pod's folder is gone with the pod")
            .with_hint(
                "name a store that outlives it: --to s3://BUCKET/FOLDER (or gs://, az://), or backups = \"…\" in shareddb.toml",
            )
    })
}

/// The next run of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NextRuns {
    pub(crate) backup: Option<Timestamp>,
    pub(crate) verify: Option<Timestamp>,
}

impl NextRuns {
    pub(crate) fn after(now: Timestamp, record: &ScheduleRecord) -> Result<Self> {
        let verify = record.proving()?.and_then(|cron| cron.next(now));
        Ok(Self { backup: record.cron.next(now), verify })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environments;

    fn stage(file: &str) -> Environment {
        Environments::parse(file, |_| None).unwrap().environment(&"stage".parse().unwrap()).unwrap()
    }

    fn spec(edit: impl FnOnce(&mut ScheduleSpec)) -> ScheduleSpec {
        let mut spec = ScheduleSpec { image: Some("registry.example/shareddb:1".into()), ..ScheduleSpec::default() };
        edit(&mut spec);
        spec
    }

    fn refused(file: &str, edit: impl FnOnce(&mut ScheduleSpec)) -> Error {
        let record = ScheduleRecord::usual(None).unwrap().changed(&spec(edit));
        let error = record.and_then(|record| record.site(&stage(file))).unwrap_err();
        assert!(error.hint().is_some(), "{error:?}");
        error
    }

    const FILE: &str = "[env.stage]\nbackups = 's3://bucket/stage'";
    const KEY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    #[test]
    fn what_is_left_out_stays_as_it_was() {
        let first = spec(|spec| {
            spec.cron = "15 1 * * *".parse().ok();
            spec.keep = "3".parse().ok();
            spec.encrypt_to = Some(vec![KEY.into()]);
        });
        let first = ScheduleRecord::usual("web".parse().ok()).unwrap().changed(&first).unwrap();
        let record: ScheduleRecord = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
        assert_eq!(record.changed(&ScheduleSpec::default()).unwrap(), first);
    }

    #[test]
    fn encrypted_backups_are_proven_where_their_key_is() {
        let usual = ScheduleRecord::usual(None).unwrap();
        assert_eq!(usual.proving().unwrap().unwrap().as_str(), "0 4 * * 0");
        let encrypted = usual.clone().changed(&spec(|spec| spec.encrypt_to = Some(vec![KEY.into()]))).unwrap();
        assert_eq!(encrypted.proving().unwrap(), None);
        assert_eq!(
            encrypted.changed(&spec(|spec| spec.encrypt_to = Some(Vec::new()))).unwrap().proving().unwrap(),
            usual.proving().unwrap()
        );
        let both = |spec: &mut ScheduleSpec| {
            spec.encrypt_to = Some(vec![KEY.into()]);
            spec.verify = Some(Proving::At("@weekly".parse().unwrap()));
        };
        assert_eq!(refused(FILE, both).code(), "verify_needs_key");
    }

    #[test]
    fn what_could_not_run_in_a_pod_is_refused() {
        assert_eq!(refused(FILE, |spec| spec.image = None).code(), "image_missing");
        assert_eq!(refused("", |_| {}).code(), "backups_unset");
        for place in ["file:///var/backups", "backups"] {
            assert_eq!(refused(FILE, |spec| spec.to = Some(place.into())).code(), "store_in_pod", "{place}");
        }
        assert_eq!(refused(FILE, |spec| spec.to = Some("memory://x".into())).code(), "store_url_invalid");
        assert_eq!(refused(FILE, |spec| spec.memory = "64Mi".parse().ok()).code(), "schedule_too_small");
        assert_eq!(refused(FILE, |spec| spec.keep = Some(Keep::By(Default::default()))).code(), "keep_invalid");
        let plain = "[env.stage]\nadmin_url = 'postgresql://a@h/d'\nbackups = 's3://bucket/stage'";
        assert_eq!(refused(plain, |_| {}).code(), "not_deployable");
    }

    #[test]
    fn the_file_says_where_and_in_which_image() {
        let file =
            "[env.stage]\nbackups = 's3://bucket/stage'\nbackup_image = 'own.example/shareddb:2'\nnamespace = 'n'";
        let record = ScheduleRecord::usual(None).unwrap();
        let site = record.site(&stage(file)).unwrap();
        assert_eq!(
            (site.image.as_str(), site.store.as_str(), site.namespace.as_str()),
            ("own.example/shareddb:2", "s3://bucket/stage", "n")
        );
        let other = spec(|spec| spec.to = Some("gs://other".into()));
        let site = record.changed(&other).unwrap().site(&stage(file)).unwrap();
        assert_eq!((site.image.as_str(), site.store.as_str()), ("registry.example/shareddb:1", "gs://other"));
    }
}
