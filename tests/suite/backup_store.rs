//! Backups in a real object store: what is said to be there is there, whatever requests are lost.

use hyper::{Method, StatusCode};
use serde_json::json;
use shareddb_core::{BackupId, BackupStore, Error, Identities, Manifest, PackOptions, Shelf, Stored, Unpack};
use shareddb_tests::ObjectServer;
use shareddb_tests::object_server::Fault;
use shareddb_tests::proxy::Loss;

const ID: &str = "my-app-20261122T020056Z";

fn id(text: &str) -> BackupId {
    text.parse().unwrap()
}

fn shelf(store: &BackupStore) -> Shelf {
    store.shelf(&"production".parse().unwrap(), &"my-app".parse().unwrap())
}

fn at(server: &ObjectServer) -> Shelf {
    shelf(&BackupStore::open(&server.url(), server.settings()).unwrap())
}

/// Bytes that hardly compress, so that there are several parts.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_le_bytes()
    };
    std::iter::repeat_with(word).take(length / 8).flatten().collect()
}

fn manifest(id: &BackupId, data: &Stored) -> Manifest {
    let document = json!({
        "apiVersion": "shareddb/v1", "kind": "Backup", "id": id, "app": id.app(), "environment": "production",
        "takenAt": id.taken_at(), "tookSeconds": 1.0, "reason": "manual", "shareddb": "0.1.0",
        "server": {"version": "15.18", "systemIdentifier": "7", "client": "15.18", "archive": "1.14", "encoding": "UTF8",
            "collate": "C", "ctype": "C", "provider": "libc", "icuLocale": null, "collationVersion": null},
        "database": {"name": "my_app_db", "owner": "my_app_db", "schema": "my_app", "bytes": 1},
        "data": data, "rowDigest": "copy-text/v1", "schemaDigest": "", "tables": [], "sequences": [], "largeObjects": 0,
        "extensions": [], "roles": [], "settings": [], "notIncluded": [], "warnings": [], "attempts": 1, "keep": null,
    });
    serde_json::from_value(document).unwrap()
}

async fn upload(shelf: &Shelf, id: &BackupId, content: &[u8]) -> Result<Stored, Error> {
    let mut pack = shelf.pack(id, PackOptions::default()).await?;
    for piece in content.chunks(1 << 16) {
        pack.write(piece.to_vec().into()).await?;
    }
    pack.finish().await
}

async fn back_up(shelf: &Shelf, id: &BackupId, content: &[u8]) -> Result<Manifest, Error> {
    let manifest = manifest(id, &upload(shelf, id, content).await?);
    shelf.publish(&manifest).await?;
    Ok(manifest)
}

async fn content(shelf: &Shelf, manifest: &Manifest) -> Result<Vec<u8>, Error> {
    let mut unpack = Unpack::start(shelf.read(manifest).await?, manifest, &Identities::none()).await?;
    let mut content = Vec::new();
    while let Some(bytes) = unpack.next().await? {
        content.extend_from_slice(&bytes);
    }
    Ok(content)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_in_comes_out() {
    let server = ObjectServer::start().await;
    let shelf = at(&server);
    assert!(shelf.list().await.unwrap().is_empty());
    let written = noise(40 << 20);
    let manifest = back_up(&shelf, &id(ID), &written).await.unwrap();
    assert!(manifest.data.bytes > 32 << 20, "three parts");
    let listed = shelf.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].bytes), (1, Some(manifest.data.bytes)));
    assert_eq!(shelf.manifest(&id(ID)).await.unwrap(), manifest);
    assert!(content(&shelf, &manifest).await.unwrap() == written);
    let hold = shelf.hold(&id(ID), "a test", None).await.unwrap();
    assert!(shelf.list().await.unwrap()[0].held(id(ID).taken_at()));
    hold.release().await.unwrap();
    assert!(back_up(&shelf, &id(ID), b"x").await.unwrap_err().code() == "backup_exists");
    shelf.delete(&id(ID)).await.unwrap();
    assert_eq!(objects(&server), ["shareddb-backups.json"]);
}

/// Names of what lies on the server's disk, parts of unfinished objects among them, without what it keeps for itself: facts
/// about objects, and what it was writing when a connection was cut.
fn objects(server: &ObjectServer) -> Vec<String> {
    let own =
        |name: &str| name.ends_with("metadata.json") || name.ends_with("internal.json") || name.starts_with(".tmp.");
    server.files().into_iter().filter(|name| !own(name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_or_refused_for_a_moment_is_done_again() {
    use Fault::{Answer, Lose};
    let busy = Answer(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
    let internal = Answer(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    let server = ObjectServer::start().await;
    let shelf = at(&server);
    let written = noise(17 << 20);
    for (second, (method, word, times, fault)) in [
        (Method::PUT, "partNumber", 2, busy),
        (Method::PUT, "partNumber", 2, internal),
        (Method::PUT, "partNumber=1", 1, Lose(Loss::Request)),
        (Method::PUT, "partNumber=2", 1, Lose(Loss::Answer)),
        (Method::POST, "uploads", 1, busy),
        (Method::POST, "uploadId", 1, busy),
        (Method::POST, "uploadId", 1, Lose(Loss::Answer)),
        (Method::PUT, "manifest.json", 1, busy),
        (Method::PUT, "manifest.json", 1, Lose(Loss::Request)),
        (Method::PUT, "manifest.json", 1, Lose(Loss::Answer)),
        (Method::HEAD, "dump.zst", 1, busy),
    ]
    .into_iter()
    .enumerate()
    {
        let id = id(&format!("my-app-20261122T0200{second:02}Z"));
        server.breaks(method.clone(), word, times, fault);
        let done = back_up(&shelf, &id, &written).await;
        assert_eq!(server.heals(), times, "{method} {word} {fault:?}");
        let manifest = done.unwrap_or_else(|error| panic!("{method} {word} {fault:?}: {error:?}"));
        server.breaks(Method::GET, "dump.zst", 1, Lose(Loss::Answer));
        assert!(content(&shelf, &manifest).await.unwrap() == written, "{method} {word} {fault:?}");
        assert_eq!(server.heals(), 1);
        shelf.delete(&id).await.unwrap();
    }
    assert_eq!(objects(&server), ["shareddb-backups.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_leaves_nothing() {
    let denied = Fault::Answer(StatusCode::FORBIDDEN, "AccessDenied");
    let server = ObjectServer::start().await;
    let shelf = at(&server);
    let written = noise(33 << 20);
    for (method, word) in [
        (Method::POST, "uploads"),
        (Method::PUT, "partNumber=1"),
        (Method::PUT, "partNumber=2"),
        (Method::POST, "uploadId"),
    ] {
        server.breaks(method.clone(), word, usize::MAX, denied);
        let error = back_up(&shelf, &id(ID), &written).await.unwrap_err();
        assert!(matches!(error, Error::PermissionDenied(_)), "{method} {word}: {error:?}");
        assert!(error.to_string().contains("AccessDenied"), "{error}");
        assert!(!format!("{error:?}").contains(server.secret()), "{error:?}");
        server.heals();
        assert!(shelf.list().await.unwrap().is_empty(), "{method} {word}");
        assert_eq!(objects(&server), ["shareddb-backups.json"], "{method} {word}");
    }
    // The dump is there and its manifest is not: no backup, and it can be taken back.
    let stored = upload(&shelf, &id(ID), &written).await.unwrap();
    server.breaks(Method::PUT, "manifest.json", usize::MAX, denied);
    assert_eq!(shelf.publish(&manifest(&id(ID), &stored)).await.unwrap_err().code(), "store_denied");
    server.heals();
    assert!(shelf.list().await.unwrap().is_empty());
    shelf.discard(&id(ID), &stored.object).await.unwrap();
    assert_eq!(objects(&server), ["shareddb-backups.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_no_conditions_is_served_as_well_as_it_can_be() {
    let server = ObjectServer::start().await;
    server.forget_conditions();
    let shelf = at(&server);
    let first = back_up(&shelf, &id(ID), b"first").await.unwrap();
    assert_eq!(back_up(&shelf, &id(ID), b"second").await.unwrap_err().code(), "backup_exists");
    assert_eq!(content(&shelf, &first).await.unwrap(), b"first");
    // And one that says that it cannot.
    let server = ObjectServer::start().await;
    let mut settings = server.settings();
    settings.push(("AWS_CONDITIONAL_PUT".to_owned(), "disabled".to_owned()));
    let shelf = self::shelf(&BackupStore::open(&server.url(), settings).unwrap());
    let first = back_up(&shelf, &id(ID), b"first").await.unwrap();
    assert_eq!(content(&shelf, &first).await.unwrap(), b"first");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_way_has_its_words() {
    let server = ObjectServer::start().await;
    let with = |name: &str, value: &str| {
        let mut settings = server.settings();
        settings.retain(|(known, _)| known != name);
        settings.push((name.to_owned(), value.to_owned()));
        settings
    };
    for (url, settings, code) in [
        (server.url(), with("AWS_SECRET_ACCESS_KEY", "m4rker-wrong"), "store_denied"),
        (server.url(), with("AWS_ALLOW_HTTP", "false"), "store_not_encrypted"),
    ] {
        let shelf = shelf(&BackupStore::open(&url, settings).unwrap());
        let error = shelf.pack(&id(ID), PackOptions::default()).await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        assert!(error.hint().is_some() && !format!("{error:?}").contains("m4rker"), "{error:?}");
    }
    server.breaks(Method::GET, "list-type", 1, Fault::Answer(StatusCode::FORBIDDEN, "AccessDenied"));
    assert_eq!(at(&server).list().await.unwrap_err().code(), "store_denied");
    assert_eq!(server.heals(), 1);
    // This server asks for its bucket when it lists.
    let nowhere = shelf(&BackupStore::open("s3://nowhere/x", server.settings()).unwrap());
    assert_eq!(nowhere.list().await.unwrap_err().code(), "bucket_not_found");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = with("AWS_ENDPOINT_URL", &format!("http://{nobody}"));
    let error = shelf(&BackupStore::open(&server.url(), settings).unwrap()).list().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)) && error.code() == "store_unreachable", "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_and_a_bucket_hold_the_same() {
    let server = ObjectServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let on_disk = shelf(&BackupStore::open(&format!("file://{}", folder.path().display()), []).unwrap());
    let written = noise(1 << 20);
    let first = back_up(&at(&server), &id(ID), &written).await.unwrap();
    let second = back_up(&on_disk, &id(ID), &written).await.unwrap();
    assert_eq!(first.data.sha256, second.data.sha256);
    let file = folder.path().join("production/my-app").join(&second.data.object);
    assert_eq!(std::fs::metadata(file).unwrap().len(), second.data.bytes);
    assert!(content(&on_disk, &second).await.unwrap() == written);
}
