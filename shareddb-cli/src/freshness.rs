//! How old the backups of apps are, and what to say of those that are too old.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use shareddb_core::{AppName, BackupStore, Environment, Error, Listed, Result};
use tokio::time::timeout;

use crate::args::Status;
use crate::color::Style;
use crate::context::Context;
use crate::moments::{age, short, since};
use crate::table::Cell;
use crate::units;

/// A backup every night, with some slack for none of it.
const BACKUP_AGE: Duration = Duration::from_secs(24 * 3600);
/// A check every week, and a day.
const VERIFIED_AGE: Duration = Duration::from_secs(8 * 24 * 3600);
/// Who asks how a server is does not wait longer for a store.
const PATIENCE: Duration = Duration::from_secs(10);

/// How old backups are, and how old they may be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Freshness {
    store: String,
    apps: BTreeMap<AppName, Newest>,
    #[serde(skip)]
    limits: Option<Limits>,
}

/// When an app's newest backups were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Newest {
    taken: Option<Timestamp>,
    /// Of those that are known to restore.
    verified: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    backup: Duration,
    verified: Duration,
}

impl Newest {
    fn of(listed: &[Listed]) -> Self {
        Self {
            taken: listed.first().map(|backup| backup.id.taken_at()),
            verified: listed.iter().find(|backup| backup.verified().is_some()).map(|backup| backup.id.taken_at()),
        }
    }
}

impl Limits {
    /// On a machine of one's own nobody has to back up anything, unless that is asked for.
    fn of(args: &Status, environment: &Environment) -> Option<Self> {
        let asked = args.backup_age.is_some() || args.verified_age.is_some();
        (asked || environment.local_server().is_none()).then(|| Self {
            backup: args.backup_age.unwrap_or(BACKUP_AGE),
            verified: args.verified_age.unwrap_or(VERIFIED_AGE),
        })
    }
}

/// Asks the environment's store, where it has one. That the store cannot be asked is worth a note and no more.
pub(crate) async fn look(
    args: &Status,
    apps: impl Iterator<Item = AppName>,
    environment: &Environment,
    context: &Context,
) -> Option<Freshness> {
    environment.backups().ok()?;
    let asked = async {
        let store = BackupStore::from_env(environment, None)?;
        let apps = newest(&store, environment, apps).await?;
        Ok::<_, Error>(Freshness { store: store.to_string(), apps, limits: Limits::of(args, environment) })
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(found)) => Some(found),
        Ok(Err(error)) => {
            context.console.note(&format!("the age of backups is not known: {error}"));
            None
        }
        Err(_) => {
            let patience = units::duration(PATIENCE);
            context.console.note(&format!("the age of backups is not known: the store has not answered in {patience}"));
            None
        }
    }
}

async fn newest(
    store: &BackupStore,
    environment: &Environment,
    apps: impl Iterator<Item = AppName>,
) -> Result<BTreeMap<AppName, Newest>> {
    let listings = store.listings(environment.name(), apps).await;
    listings.into_iter().map(|(app, listed)| Ok((app, Newest::of(&listed?)))).collect()
}

impl Freshness {
    /// Where the backups are.
    pub(crate) fn store(&self) -> &str {
        &self.store
    }

    /// The age of an app's newest backup, and that of the newest that is known to restore.
    pub(crate) fn cells(&self, app: &AppName) -> [Cell; 2] {
        let newest = self.apps.get(app).copied().unwrap_or_default();
        let limits = self.limits;
        [
            cell(newest.taken, limits.map(|limits| limits.backup)),
            cell(newest.verified, limits.map(|limits| limits.verified)),
        ]
    }

    /// What is too old of an app's, and the command that mends it.
    pub(crate) fn warnings(&self, app: &AppName, place: &str) -> Vec<String> {
        let Some(limits) = self.limits else { return Vec::new() };
        let newest = self.apps.get(app).copied().unwrap_or_default();
        let command = |verb: &str| format!("shareddb {verb} {app}{place}");
        let backup = match newest.taken {
            None => Some("there is no backup".to_owned()),
            Some(taken) if since(taken) > limits.backup => {
                Some(format!("the newest backup is {} old", short(since(taken))))
            }
            Some(_) => None,
        };
        let verified = match newest.verified {
            // Of what there is not, nothing can be proven.
            _ if newest.taken.is_none() => None,
            None => Some("no backup is known to restore".to_owned()),
            Some(taken) if since(taken) > limits.verified => {
                Some(format!("the newest backup that is known to restore is {} old", short(since(taken))))
            }
            Some(_) => None,
        };
        let with = |text: Option<String>, verb: &str| text.map(|text| format!("{text}: {}", command(verb)));
        [with(backup, "backup"), with(verified, "verify")].into_iter().flatten().collect()
    }
}

fn cell(moment: Option<Timestamp>, limit: Option<Duration>) -> Cell {
    let old = limit.is_some_and(|limit| moment.is_none_or(|moment| since(moment) > limit));
    match (moment, old) {
        (Some(moment), true) => Cell::styled(age(moment), Style::Warn),
        (Some(moment), false) => age(moment).into(),
        (None, true) => Cell::styled(crate::table::NONE, Style::Warn),
        (None, false) => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freshness(taken: Option<&str>, verified: Option<&str>, limits: Option<Limits>) -> Freshness {
        let moment = |text: &str| Timestamp::now().checked_sub(units::parse_duration(text).unwrap()).unwrap();
        let newest = Newest { taken: taken.map(moment), verified: verified.map(moment) };
        Freshness { store: "s3://b".to_owned(), apps: [("a".parse().unwrap(), newest)].into(), limits }
    }

    #[test]
    fn what_is_too_old_is_told_with_its_cure() {
        let limits = Some(Limits { backup: BACKUP_AGE, verified: VERIFIED_AGE });
        for (taken, verified, expected) in [
            (Some("23h"), Some("7d"), &[][..]),
            (None, None, &["there is no backup: shareddb backup a -e p"]),
            (Some("23h"), None, &["no backup is known to restore: shareddb verify a -e p"]),
            (
                Some("3d"),
                Some("9d"),
                &[
                    "the newest backup is 3d old: shareddb backup a -e p",
                    "the newest backup that is known to restore is 9d old: shareddb verify a -e p",
                ],
            ),
        ] {
            let app = "a".parse().unwrap();
            assert_eq!(freshness(taken, verified, limits).warnings(&app, " -e p"), expected);
            assert!(freshness(taken, verified, None).warnings(&app, "").is_empty());
        }
    }
}
