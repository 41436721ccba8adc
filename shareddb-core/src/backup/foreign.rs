//! Loading a dump that was made elsewhere. Nothing is known of it but what it says, and nothing it says is trusted: it is loaded
//! by a login that may do nothing but what the app's owner may, into a database that is thrown away if it fails.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::dump_file::{DumpFile, DumpForm};
use super::event::{BackupEvent, Stage};
use super::incoming::{self, Incoming, Made, Order};
use super::job::Job;
use super::live::{self, Live};
use super::load::Loader;
use super::options::OtherRoles;
use super::scratch::Scratch;
use super::script_load;
use super::selection::{LoadList, Target, roles_named};
use super::statement::{self, MissingRoles, ScriptTarget};
use super::toc::Toc;
use super::{dump, prerequisites};
use crate::app::EXTENSION_SCHEMA;
use crate::error::{Error, Result};
use crate::postgres::census::{Reader, TableFact};
use crate::postgres::copies::Locale;
use crate::postgres::sql::identifiers;
use crate::postgres::{renaming, requirements};

/// What a database takes for each byte of a dump that is not compressed, about: indexes come on top of rows.
const GROWTH: u64 = 2;
/// How much longer an archive is when it is not compressed, about.
const PACKED: u64 = 4;

/// A dump that was looked at.
pub(super) struct Foreign<'a> {
    file: &'a DumpFile,
    what: What,
    /// Extensions that the admin makes first, with their schemas.
    extensions: Vec<(String, String)>,
    locale: Locale,
    bytes: u64,
}

enum What {
    Script(ScriptTarget),
    Archive(Box<Toc>, Target),
}

impl<'a> Foreign<'a> {
    /// Reads it as far as it takes to know whether the server has what it needs: a script to its end.
    ///
    /// # Errors
    /// `Refused`, with what to do.
    pub(super) async fn check(job: &Job<'_>, file: &'a DumpFile, others: OtherRoles) -> Result<Self> {
        job.tell(BackupEvent::Began(Stage::Checking));
        let live = Live::read(job).await?;
        match file.form() {
            DumpForm::Script => Self::script(job, file, others, live).await,
            DumpForm::Custom | DumpForm::Tar | DumpForm::Directory => Self::archive(job, file, others, live).await,
        }
    }

    async fn script(job: &Job<'_>, file: &'a DumpFile, others: OtherRoles, live: Live) -> Result<Self> {
        let own = job.app.roles().map(ToString::to_string);
        let roles = match others {
            OtherRoles::LeaveOut => own.collect(),
            OtherRoles::Require | OtherRoles::Existing => {
                let all = requirements::roles(job.admin()).await?.into_iter();
                all.filter(|role| !live.others.contains(role)).collect()
            }
        };
        let mut target = ScriptTarget {
            owner: job.app.owner.to_string(),
            roles,
            others: live.others.clone(),
            missing_roles: if others == OtherRoles::Require { MissingRoles::Refuse } else { MissingRoles::Skip },
            ..ScriptTarget::default()
        };
        let foresight = script_load::foresee(job, file, &target).await?;
        let extensions = live.by_admin(job, foresight.extensions).await?;
        target.extensions = extensions.iter().map(|(name, _)| name.clone()).collect();
        target.schemas = live::schemas(&extensions);
        target.held = [EXTENSION_SCHEMA.to_owned()].into();
        let bytes = foresight.bytes;
        prerequisites::check_space(job, bytes.saturating_mul(GROWTH)).await?;
        Ok(Self { file, what: What::Script(target), extensions, locale: live.locale, bytes })
    }

    async fn archive(job: &Job<'_>, file: &'a DumpFile, others: OtherRoles, live: Live) -> Result<Self> {
        let major = prerequisites::client_fits(job)?;
        let (toc, is_compressed) = file.toc().await?;
        readable(&toc, major, file)?;
        let named = toc.entries().iter().filter(|entry| entry.kind == "EXTENSION");
        let named =
            named.map(|entry| statement::extension(&entry.definition).unwrap_or_else(|| (entry.tag.clone(), None)));
        let extensions = live.by_admin(job, named.collect()).await?;
        let mut roles = prerequisites::roles_there(job, &roles_named(&toc).into_keys().collect(), others).await?;
        roles.retain(|role| !live.others.contains(role));
        let is_packed = is_compressed || !file.is_plain();
        let bytes = file.bytes().saturating_mul(if is_packed { PACKED } else { 1 });
        prerequisites::check_space(job, bytes.saturating_mul(GROWTH)).await?;
        let target = Target {
            owner: None,
            loader: job.app.owner.to_string(),
            extensions: extensions.iter().map(|(name, _)| name.clone()).collect(),
            schemas: live::schemas(&extensions),
            held: [EXTENSION_SCHEMA.to_owned()].into(),
            roles,
            ..Target::default()
        };
        Ok(Self { file, what: What::Archive(Box::new(toc), target), extensions, locale: live.locale, bytes })
    }

    /// Schemas for extensions that are not the admin's alone: what else is in them there is the app's.
    fn chosen(&self) -> Vec<&str> {
        let named = self.extensions.iter().map(|(_, schema)| schema.as_str());
        named.filter(|schema| !["public", "pg_catalog", EXTENSION_SCHEMA].contains(schema)).collect()
    }

    async fn fill(&self, job: &Job<'_>, scratch: &Scratch<'_>, order: &Order) -> Result<Made> {
        let mut made = match &self.what {
            What::Script(target) => self.run(job, scratch, target, order).await?,
            What::Archive(toc, target) => self.restore(job, scratch, toc, target, order).await?,
        };
        let loader = Loader { job, scratch };
        let path = incoming::search_path(job, job.app.schema.as_str());
        made.remarks.extend(loader.settle(&path).await?);
        renaming::make_schema(&scratch.loading().await?.connect().await?, job.app.schema.as_str()).await?;
        job.tell(BackupEvent::Began(Stage::Comparing));
        let session = dump::reading(job, scratch.name()).await?;
        let reader = Reader(&session);
        reader.freeze(std::iter::empty()).await?;
        let mut unfit = reader.foreign(job.app.owner.as_str()).await?;
        unfit.extend(reader.unsound().await?);
        if !unfit.is_empty() {
            let message = format!("what was loaded is not all sound, or not all the app's: {}", unfit.join(", "));
            return Err(Error::failed("load_unfit", message));
        }
        let tables = reader.tables().await?;
        made.tables = tables.len() as u64;
        made.remarks.extend(beyond(job, &tables, &path));
        made.rows = reader.counts(&tables, &path).await?.into_iter().sum();
        Ok(made)
    }

    async fn run(&self, job: &Job<'_>, scratch: &Scratch<'_>, target: &ScriptTarget, order: &Order) -> Result<Made> {
        let (mut config, mut target) = (scratch.loading().await?, target.clone());
        if let Order::WithPath(path) = order {
            config = config.with_option("search_path", identifiers(path));
            target.keeps_search_path = true;
        }
        let session = config.connect().await?;
        let pins = match order {
            Order::Once => None,
            Order::WithPath(path) => Some(Loader { job, scratch }.pins(path).await?),
        };
        let skipped = script_load::run(job, &session, pins, self.file, &target, self.bytes).await?;
        let told = skipped.into_iter().filter(|(why, _)| !statement::ROUTINE.contains(&why.as_str()));
        let remark = |(why, count)| format!("statements that were not run, as {why}: {count}");
        Ok(Made { remarks: told.map(remark).collect(), ..Made::default() })
    }

    async fn restore(
        &self,
        job: &Job<'_>,
        scratch: &Scratch<'_>,
        toc: &Toc,
        target: &Target,
        order: &Order,
    ) -> Result<Made> {
        job.tell(BackupEvent::Began(Stage::Loading));
        let members = members(job, scratch.name()).await?;
        let list = LoadList::of(toc, &Target { members, ..target.clone() });
        let loader = Loader { job, scratch };
        match order {
            Order::Once => self.pass(&loader, &list.whole()).await?,
            Order::WithPath(path) => {
                let [functions, tables, late] = list.passes();
                let mut pins = loader.pins(path).await?;
                for early in [functions, tables] {
                    self.pass(&loader, &early).await?;
                    pins.give().await?;
                }
                self.pass(&loader, &late).await?;
                pins.take().await?;
            }
        }
        loader.say(&list).await?;
        Ok(Made { left_out: list.left_out().to_vec(), ..Made::default() })
    }

    async fn pass(&self, loader: &Loader<'_>, list: &str) -> Result<()> {
        if self.file.is_plain() {
            return loader.load_path(self.file.path(), list).await;
        }
        let mut bytes = 0;
        let mut see = |chunk: &bytes::Bytes| {
            bytes += chunk.len() as u64;
            loader.job.tell(BackupEvent::Moved { stage: Stage::Loading, bytes, total: None, table: None });
            Ok(())
        };
        loader.pass(list, Vec::new(), &mut self.file.read(), &mut see).await
    }
}

#[async_trait]
impl Incoming for Foreign<'_> {
    fn schema<'a>(&'a self, job: &'a Job<'_>) -> &'a str {
        job.app.schema.as_str()
    }

    async fn load_in<'j>(&self, job: &'j Job<'j>, order: &Order) -> Result<(Scratch<'j>, Made)> {
        let scratch = Scratch::create(job, &self.file.name(), &self.locale, &self.extensions).await?;
        let filled = match scratch.hand_over(&self.chosen()).await {
            Ok(()) => self.fill(job, &scratch, order).await,
            Err(error) => Err(error),
        };
        scratch.if_filled(filled).await
    }
}

/// What is loaded and the app does not find.
fn beyond(job: &Job<'_>, tables: &[TableFact], path: &[String]) -> Option<String> {
    if tables.is_empty() {
        return Some("there is no table in it".to_owned());
    }
    let schemas: BTreeSet<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let beyond: Vec<&str> = schemas.into_iter().filter(|schema| !path.iter().any(|on| on == schema)).collect();
    let name = &job.app.name;
    let wider = beyond.iter().copied().chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join(",");
    (!beyond.is_empty()).then(|| {
        format!(
            "tables in {} are found by their full names only; to have them on the search path: shareddb create {name} -e {} --search-path {wider}",
            beyond.join(", "),
            job.server.environment()
        )
    })
}

/// Tables of extensions that the admin made: their rows are the admin's.
async fn members(job: &Job<'_>, database: &str) -> Result<BTreeMap<(String, String), String>> {
    let session = dump::reading(job, database).await?;
    let tables = Reader(&session).tables().await?;
    let members = tables.into_iter().filter_map(|table| Some(((table.schema, table.name), table.extension?)));
    Ok(members.collect())
}

/// pg_restore reads what its own version writes, and what older ones do.
fn readable(toc: &Toc, major: u32, file: &DumpFile) -> Result<()> {
    let newest = match major {
        ..=15 => 14,
        16 => 15,
        _ => 16,
    };
    if toc.version.minor <= newest {
        return Ok(());
    }
    let message = format!("the archive was written by pg_dump {}, and this server is {major}", toc.dump_version);
    Err(Error::refused("archive_newer", message).with_hint(format!(
        "restore it on a server of that version; or write it as SQL, pg_restore --file=dump.sql {}, and restore that",
        file.name()
    )))
}
