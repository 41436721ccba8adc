//! What is loaded beside an app's database, to take its place.

use async_trait::async_trait;

use super::event::BackupEvent;
use super::job::Job;
use super::scratch::Scratch;
use super::selection::LeftOut;
use crate::error::Result;

/// Something that can be loaded into a scratch database.
#[async_trait]
pub(super) trait Incoming: Sync {
    /// What the app's schema is called in it.
    fn schema<'a>(&'a self, job: &'a Job<'_>) -> &'a str;

    /// Makes a scratch database and loads it there. What is left is the scratch, whole, or nothing.
    async fn load_in<'j>(&self, job: &'j Job<'j>, order: &Order) -> Result<(Scratch<'j>, Made)>;
}

/// In which order it is loaded.
pub(super) enum Order {
    /// As it stands.
    Once,
    /// In three parts: functions, tables, and the rest, in which functions have this search path as soon as they are there and until
    /// all is loaded. For those that find their own names by it only.
    WithPath(Vec<String>),
}

/// What is known of a load beside its scratch database.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) left_out: Vec<LeftOut>,
    pub(super) remarks: Vec<String>,
    pub(super) tables: u64,
    pub(super) rows: u64,
}

/// A dump is loaded without a search path, so that nobody's objects are taken for others.
const WITH_PATH: &str = "functions that indexes, checks or views use find their own names by the search path only, and had \
     one while this was loaded: give it to them for good, ALTER FUNCTION … SET search_path = …";

/// Loads it as it stands, and where functions miss their search path, with that.
pub(super) async fn load<'j>(incoming: &dyn Incoming, job: &'j Job<'j>) -> Result<(Scratch<'j>, Made)> {
    match incoming.load_in(job, &Order::Once).await {
        Err(error) if error.code() == "names_unqualified" => {
            job.tell(BackupEvent::Noticed(WITH_PATH));
            let path = search_path(job, incoming.schema(job));
            let (scratch, mut made) = incoming.load_in(job, &Order::WithPath(path)).await?;
            made.remarks.push(WITH_PATH.to_owned());
            Ok((scratch, made))
        }
        loaded => loaded,
    }
}

/// The app's, with the schema as it is called in the dump.
pub(super) fn search_path(job: &Job<'_>, schema: &str) -> Vec<String> {
    let own = job.app.schema.as_str();
    let path = job.app.effective_search_path().into_iter();
    path.map(|name| if name == own { schema.to_owned() } else { name }).collect()
}
