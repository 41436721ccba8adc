//! What every [`SecretStore`] has to do, whichever place it keeps Secrets in.

#![allow(clippy::expect_used, reason = "this is a test that several tests share")]

use std::process;
use std::time::SystemTime;

use secrecy::{ExposeSecret, SecretString};
use shareddb_core::{AppName, Error, Result, SecretData, SecretName, SecretStore, SecretVersion, StoredSecret};

/// Runs every case against `store`; names are unique, so that the place may be shared.
///
/// # Panics
/// When the store breaks its contract. Its Secrets stay there then, for a look at them.
pub async fn secret_store(store: &dyn SecretStore) {
    absent(store).await;
    create_never_overwrites(store).await;
    replace_is_compare_and_swap(store).await;
    foreign_keys_survive(store).await;
    a_secret_made_anew_is_another(store).await;
    values_are_kept_to_the_byte(store).await;
    bad_keys_are_refused(store).await;
    one_of_many_creates_wins(store).await;
    one_of_many_replaces_wins(store).await;
}

async fn absent(store: &dyn SecretStore) {
    let name = unique("absent");
    store.check(&name).await.expect("a write that would succeed");
    assert!(store.load(&name).await.expect("no Secret is not an error").is_none());
    let gone = store.replace(&name, &app("one"), &data(&[("DB_HOST", "h")]), &SecretVersion::new("1")).await;
    conflict(gone, "replace of an absent Secret");
    assert!(store.load(&name).await.expect("no Secret").is_none(), "replace made one, or check did");
    store.delete(&name).await.expect("deleting nothing is no error");
    assert!(store.describe(&name).contains(name.as_str()));
}

async fn create_never_overwrites(store: &dyn SecretStore) {
    let name = unique("create");
    let version = store.create(&name, &app("one"), &data(&[("DB_HOST", "first")])).await.expect("create");
    store.check(&name).await.expect("that it exists is not an error");
    let before = present(store, &name).await;
    assert_eq!(before.version, version, "create returns the version that load reads");
    assert_eq!(before.app, Some(app("one")));

    let second = store.create(&name, &app("two"), &data(&[("DB_HOST", "second"), ("DB_PORT", "1")])).await;
    conflict(second, "create of an existing Secret");
    unchanged(&before, &present(store, &name).await);

    store.delete(&name).await.expect("delete");
    assert!(store.load(&name).await.expect("load").is_none());
    store.delete(&name).await.expect("delete again");
}

async fn replace_is_compare_and_swap(store: &dyn SecretStore) {
    let name = unique("replace");
    let first = store.create(&name, &app("one"), &data(&[("DB_HOST", "1")])).await.expect("create");
    let second = store.replace(&name, &app("two"), &data(&[("DB_HOST", "2")]), &first).await.expect("replace");
    assert_ne!(first, second);
    let after = present(store, &name).await;
    assert_eq!((text(&after, "DB_HOST"), &after.app, &after.version), ("2", &Some(app("two")), &second));

    let stale = store.replace(&name, &app("one"), &data(&[("DB_HOST", "3"), ("DB_PORT", "1")]), &first).await;
    conflict(stale, "replace of a stale version");
    unchanged(&after, &present(store, &name).await);

    store.delete(&name).await.expect("delete");
    conflict(store.replace(&name, &app("one"), &data(&[]), &second).await, "replace of a deleted Secret");
    assert!(store.load(&name).await.expect("load").is_none());
}

async fn foreign_keys_survive(store: &dyn SecretStore) {
    let name = unique("foreign");
    let mine = data(&[("DB_HOST", "1"), ("theirs.conf", "kept\n")]);
    let version = store.create(&name, &app("one"), &mine).await.expect("create");
    let version = store.replace(&name, &app("one"), &data(&[("DB_HOST", "2")]), &version).await.expect("replace");
    store.replace(&name, &app("one"), &data(&[("DB_PORT", "3")]), &version).await.expect("replace again");
    let stored = present(store, &name).await;
    let keys = [text(&stored, "DB_HOST"), text(&stored, "DB_PORT"), text(&stored, "theirs.conf")];
    assert_eq!((stored.data.len(), keys), (3, ["2", "3", "kept\n"]));
    store.delete(&name).await.expect("delete");
}

async fn a_secret_made_anew_is_another(store: &dyn SecretStore) {
    let name = unique("anew");
    let same = data(&[("DB_HOST", "1")]);
    let old = store.create(&name, &app("one"), &same).await.expect("create");
    store.delete(&name).await.expect("delete");
    let new = store.create(&name, &app("one"), &same).await.expect("create anew");
    assert_ne!(old, new);
    conflict(store.replace(&name, &app("one"), &same, &old).await, "replace of a former Secret");
    store.delete(&name).await.expect("delete");
}

async fn values_are_kept_to_the_byte(store: &dyn SecretStore) {
    let name = unique("values");
    let long = "x".repeat(100_000);
    let odd = data(&[
        ("empty", ""),
        ("newline", "a\n"),
        ("odd", "'\"\\\0 ä€🦀\r\n\t$HOME"),
        (".dotted", "d"),
        ("long", &long),
    ]);
    store.create(&name, &app("one"), &odd).await.expect("create");
    let stored = present(store, &name).await;
    assert_eq!(exposed(&stored.data), exposed(&odd));
    assert!(!format!("{stored:?}").contains("$HOME"), "Debug shows a value");
    store.delete(&name).await.expect("delete");
}

async fn bad_keys_are_refused(store: &dyn SecretStore) {
    let name = unique("keys");
    for key in ["", ".", "..", "..data", "a/b", "a b", &"k".repeat(254)] {
        let made = store.create(&name, &app("one"), &data(&[(key, "v")])).await;
        assert!(matches!(made, Err(Error::InvalidInput(_))), "key {key:?}: {made:?}");
    }
    assert!(store.load(&name).await.expect("load").is_none());
}

async fn one_of_many_creates_wins(store: &dyn SecretStore) {
    for _ in 0..5 {
        let name = unique("race");
        let apps = contestants();
        let data = apps.each_ref().map(|app| data(&[("DB_HOST", app.as_str()), ("DB_NAME", app.as_str())]));
        let attempt = |n: usize| store.create(&name, &apps[n], &data[n]);
        let (a, b, c, d, e, f, g, h) = tokio::join!(
            attempt(0),
            attempt(1),
            attempt(2),
            attempt(3),
            attempt(4),
            attempt(5),
            attempt(6),
            attempt(7)
        );
        only_winner(store, &name, [a, b, c, d, e, f, g, h]).await;
        store.delete(&name).await.expect("delete");
    }
}

async fn one_of_many_replaces_wins(store: &dyn SecretStore) {
    let name = unique("swap");
    let mut version = store.create(&name, &app("one"), &data(&[("DB_HOST", "0")])).await.expect("create");
    for _ in 0..5 {
        let apps = contestants();
        let data = apps.each_ref().map(|app| data(&[("DB_HOST", app.as_str()), ("DB_NAME", app.as_str())]));
        let attempt = |n: usize| store.replace(&name, &apps[n], &data[n], &version);
        let (a, b, c, d, e, f, g, h) = tokio::join!(
            attempt(0),
            attempt(1),
            attempt(2),
            attempt(3),
            attempt(4),
            attempt(5),
            attempt(6),
            attempt(7)
        );
        version = only_winner(store, &name, [a, b, c, d, e, f, g, h]).await;
    }
    store.delete(&name).await.expect("delete");
}

fn contestants() -> [AppName; 8] {
    std::array::from_fn(|n| app(&format!("app-{n}")))
}

/// What is there is all the winner's; everybody else was told of a conflict.
async fn only_winner(store: &dyn SecretStore, name: &SecretName, results: [Result<SecretVersion>; 8]) -> SecretVersion {
    let mut winners = Vec::new();
    for (n, result) in results.into_iter().enumerate() {
        match result {
            Ok(version) => winners.push((n, version)),
            Err(error) => conflict(Err(error), "a lost race"),
        }
    }
    assert_eq!(winners.len(), 1, "winners: {winners:?}");
    let (n, version) = winners.remove(0);
    let stored = present(store, name).await;
    let winner = format!("app-{n}");
    assert_eq!((text(&stored, "DB_HOST"), text(&stored, "DB_NAME")), (winner.as_str(), winner.as_str()));
    assert_eq!((stored.app, &stored.version), (Some(app(&winner)), &version));
    version
}

async fn present(store: &dyn SecretStore, name: &SecretName) -> StoredSecret {
    store.load(name).await.expect("load").expect("a Secret")
}

fn unchanged(before: &StoredSecret, after: &StoredSecret) {
    assert_eq!(exposed(&before.data), exposed(&after.data));
    assert_eq!((&before.version, &before.app), (&after.version, &after.app));
}

#[track_caller]
fn conflict(result: Result<SecretVersion>, what: &str) {
    let error = result.expect_err(what);
    assert!(matches!(error, Error::Conflict(_)), "{what}: {error:?}");
}

fn exposed(data: &SecretData) -> Vec<(&str, &str)> {
    data.iter().map(|(key, value)| (key.as_str(), value.expose_secret())).collect()
}

fn text<'a>(stored: &'a StoredSecret, key: &str) -> &'a str {
    stored.data.get(key).unwrap_or_else(|| panic!("no key {key}")).expose_secret()
}

fn data(pairs: &[(&str, &str)]) -> SecretData {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), SecretString::from(*value))).collect()
}

fn app(name: &str) -> AppName {
    name.parse().expect("an app's name")
}

fn unique(what: &str) -> SecretName {
    let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |age| age.as_nanos());
    format!("conformance-{what}-{}-{nanos}", process::id()).parse().expect("a Secret's name")
}
