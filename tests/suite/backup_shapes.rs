//! Databases as frameworks and well-known samples make them: backed up, proven, restored, and worked with again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use shareddb_core::{
    App, BackupManager, BackupOptions, ConnectionConfig, Manifest, RestoreOptions, RowDigest, Verdict, VerifyOptions,
};
use shareddb_tests::TestServer;
use shareddb_tests::command::run;
use shareddb_tests::server::{password, session, sql, value};

use crate::backup_faults::memory;

const RAILS: &str = include_str!("../fixtures/rails.sql");
const RENTAL: &str = include_str!("../fixtures/rental.sql");

/// Rows and digests by table.
fn digests(manifest: &Manifest) -> BTreeMap<&str, (u64, RowDigest)> {
    manifest.tables.iter().map(|table| (table.name.as_str(), (table.rows, table.digest))).collect()
}

/// Backs an app up, proves that, breaks what is there, restores it, and looks whether all is as it was.
async fn there_and_back(server: &TestServer, app: &App, config: &ConnectionConfig, breakage: &str) -> Manifest {
    let manager = BackupManager::new(server.server().await, memory());
    let taken = manager.backup(&app.name, &BackupOptions::default()).await.unwrap_or_else(|error| panic!("{error:?}"));
    let checked = manager.verify(&taken.id, &VerifyOptions::default()).await.unwrap();
    assert_eq!((checked.verdict, checked.findings), (Verdict::Passed, vec![]));
    sql(config, config.database(), breakage).await;
    let mut options = RestoreOptions::default();
    options.safety_backup = false;
    let report = manager.restore(&app.name, &options, app.name.as_str()).await.unwrap();
    assert!(report.left_out.iter().all(|left| left.what.contains("SCHEMA - public")), "{:?}", report.left_out);
    let again = manager.backup(&app.name, &BackupOptions::default()).await.unwrap();
    assert_eq!(digests(&taken), digests(&again));
    assert_eq!((&taken.schema_digest, taken.large_objects), (&again.schema_digest, again.large_objects));
    taken
}

async fn made(stem: &str) -> (&'static TestServer, App, ConnectionConfig) {
    let server = TestServer::shared().await;
    let app = server.made(stem).await;
    let config = server.provisioner().await.connection(&app.name).await.unwrap();
    (server, app, config)
}

const MODELS: &str = "\
from django.contrib.auth.models import User
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models


class Tag(models.Model):
    name = models.SlugField(unique=True)


class Note(models.Model):
    class Kind(models.TextChoices):
        SHORT = 'short'
        LONG = 'long'

    author = models.ForeignKey(User, on_delete=models.CASCADE, related_name='notes')
    parent = models.ForeignKey('self', null=True, on_delete=models.CASCADE)
    tags = models.ManyToManyField(Tag)
    kind = models.CharField(max_length=5, choices=Kind.choices)
    key = models.UUIDField(unique=True)
    data = models.JSONField(default=dict)
    words = ArrayField(models.CharField(max_length=20), default=list)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    took = models.DurationField()
    raw = models.BinaryField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [GinIndex(fields=['data']), models.Index(fields=['author', '-at'])]
        constraints = [
            models.CheckConstraint(condition=models.Q(price__gte=0), name='price_not_negative'),
            models.UniqueConstraint(fields=['author', 'kind'], condition=models.Q(parent=None), name='one_root'),
        ]
";

/// What `manage.py` and a project's folder would be, in one file.
const PROJECT: &str = "\
import os, sys
import django
from django.conf import settings

settings.configure(
    SECRET_KEY='for a test', USE_TZ=True, DEFAULT_AUTO_FIELD='django.db.models.BigAutoField',
    INSTALLED_APPS=['django.contrib.admin', 'django.contrib.auth', 'django.contrib.contenttypes', 'django.contrib.messages',
                    'django.contrib.postgres', 'django.contrib.sessions', 'notes'],
    DATABASES={'default': {'ENGINE': 'django.db.backends.postgresql', 'NAME': os.environ['DB_NAME'], 'USER': os.environ['DB_USER'],
                           'PASSWORD': os.environ['DB_PASSWORD'], 'HOST': os.environ['DB_HOST'], 'PORT': os.environ['DB_PORT']}},
    MIDDLEWARE=[], TEMPLATES=[],
)
django.setup()

from datetime import timedelta
from decimal import Decimal
from uuid import UUID
from django.core.management import call_command


def fill():
    call_command('makemigrations', 'notes', verbosity=0)
    call_command('migrate', verbosity=0)
    from django.contrib.auth.models import Group, Permission, User
    from django.contrib.sessions.backends.db import SessionStore
    from notes.models import Note, Tag
    group = Group.objects.create(name='writers')
    group.permissions.set(Permission.objects.filter(codename__endswith='_note'))
    tags = [Tag.objects.create(name=f'tag-{i}') for i in range(5)]
    for i in range(50):
        user = User.objects.create_user(f'user{i}', f'user{i}@example.org', 'pw' if i == 0 else None)
        user.groups.add(group)
        parent = None
        for j in range(4):
            parent = Note.objects.create(
                author=user, parent=parent, kind=('short', 'long')[j % 2], key=UUID(int=i * 10 + j),
                data={'i': i, 'deep': [None, {'j': j}], 'text': 'Größe \\\\ \\t \\n'}, words=[f'w{i}', 'b{}', '\"'],
                price=Decimal(i) / 4, took=timedelta(hours=i, microseconds=j), raw=bytes(range(i)))
            parent.tags.set(tags[: j + 1])
    session = SessionStore()
    session['user'] = 7
    session.create()


def check():
    call_command('makemigrations', 'notes', check=True, dry_run=True, verbosity=0)
    call_command('migrate', check_unapplied=True, verbosity=0)
    from django.contrib.auth import authenticate
    from django.contrib.auth.models import User
    from django.contrib.sessions.models import Session
    from django.db.models import Count, Sum
    from notes.models import Note
    assert authenticate(username='user0', password='pw').has_perm('notes.add_note')
    assert Note.objects.filter(data__deep__1__j=3, tags__name='tag-3', words__contains=['b{}']).count() == 50
    assert Note.objects.aggregate(Sum('price'))['price__sum'] == sum(Decimal(i) / 4 for i in range(50)) * 4
    assert User.objects.annotate(n=Count('notes')).filter(n=4).count() == 50
    assert Session.objects.get().get_decoded() == {'user': 7}
    last = Note.objects.order_by('-pk').first()
    assert bytes(last.raw) == bytes(range(49)) and last.took == timedelta(hours=49, microseconds=3)
    user = User.objects.create_user('new')
    assert user.pk == 51, user.pk
    Note.objects.create(author=user, kind='short', key=UUID(int=9999), price=1, took=timedelta(0), raw=b'')
    user.delete()
    print('it works')


{'fill': fill, 'check': check}[sys.argv[1]]()
";

/// Fetches Django into a folder.
fn fetch_django(folder: &Path) {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--target"]);
    let output = run(pip.arg(folder).args(["django==5.2.8", "psycopg[binary]==3.2.13"]));
    output.expect_code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn djangos_schema_comes_back_and_its_models_work() {
    let (server, app, config) = made("django").await;
    let folder = tempfile::tempdir().unwrap();
    let modules = folder.path().join("modules");
    fetch_django(&modules);
    let project = folder.path().join("project.py");
    fs::write(&project, PROJECT).unwrap();
    fs::create_dir_all(folder.path().join("notes/migrations")).unwrap();
    for package in ["notes", "notes/migrations"] {
        fs::write(folder.path().join(package).join("__init__.py"), "").unwrap();
    }
    fs::write(folder.path().join("notes/models.py"), MODELS).unwrap();
    let django = |job: &str| {
        let mut command = Command::new("python3");
        command.arg(&project).arg(job).current_dir(folder.path()).env("PYTHONPATH", &modules);
        command.env("DB_NAME", config.database()).env("DB_USER", config.user()).env("DB_PASSWORD", password(&config));
        command.env("DB_HOST", config.host()).env("DB_PORT", config.port().to_string());
        run(&mut command).expect_code(0)
    };
    django("fill");
    let breakage =
        "DELETE FROM notes_note_tags; DELETE FROM notes_note; DROP TABLE auth_user CASCADE; TRUNCATE django_migrations";
    let taken = there_and_back(server, &app, &config, breakage).await;
    assert_eq!((taken.tables.len(), digests(&taken)["notes_note"].0), (13, 200));
    assert_eq!(django("check").stdout, "it works\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn rails_schema_comes_back() {
    let (server, app, config) = made("rails").await;
    sql(&config, config.database(), RAILS).await;
    let breakage = "DROP TABLE active_storage_attachments, posts CASCADE; TRUNCATE schema_migrations";
    let taken = there_and_back(server, &app, &config, breakage).await;
    assert_eq!(digests(&taken)["schema_migrations"].0, 4);
    let now = session(&config, config.database()).await;
    // What Active Record asks for first, and a write of each kind.
    let versions = "SELECT string_agg(version, ' ' ORDER BY version) FROM schema_migrations";
    assert_eq!(value(&now, versions).await, "20260101000000 20260102000000 20260103000000 20260104000000");
    let attached = "SELECT count(*)::text FROM posts p JOIN active_storage_attachments a ON a.record_type = 'Post' \
         AND a.record_id = p.id JOIN active_storage_blobs b ON b.id = a.blob_id \
         JOIN action_text_rich_texts t ON t.record_type = 'Post' AND t.record_id = p.id WHERE p.settings @> '{\"draft\": true}'";
    assert_eq!(value(&now, attached).await, "100");
    let insert = "INSERT INTO posts (user_id, title, state, created_at, updated_at) VALUES (1, 'new', 'published', now(), now()) RETURNING id";
    assert_eq!(value(&now, insert).await, "301");
    let twice = now
        .batch_execute("INSERT INTO users (email, created_at, updated_at) VALUES ('USER1@example.org', now(), now())");
    assert_eq!(twice.await.unwrap_err().code().unwrap().code(), "23505");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_rental_comes_back_and_its_triggers_work() {
    let (server, app, config) = made("rental").await;
    sql(&config, config.database(), RENTAL).await;
    let breakage = "DROP VIEW customer_list; DELETE FROM payment; UPDATE film SET title = 'gone'";
    let taken = there_and_back(server, &app, &config, breakage).await;
    assert_eq!(taken.tables.iter().filter(|table| table.name.starts_with("payment_p")).count(), 6);
    let now = session(&config, config.database()).await;
    for (query, expected) in [
        ("SELECT count(*)::text FROM film WHERE fulltext @@ to_tsquery('english', 'dinosaur & academy')", "250"),
        ("SELECT count(*)::text FROM customer_list WHERE notes = 'active'", "180"),
        ("SELECT sum(total_sales)::text FROM rental_by_category", "11976.00"),
        ("SELECT get_customer_balance(1, '2027-01-01')::text", "0.00"),
        ("SELECT count(*)::text FROM payment_p2026_03", "400"),
        ("SELECT group_concat(first_name)::text FROM actor WHERE actor_id < 3", "FIRST1, FIRST2"),
        (
            "INSERT INTO film (title, description, release_year, language_id) VALUES ('A New One', 'Of a Robot', 2026, 1) RETURNING fulltext::text",
            "'new':2 'one':3 'robot':6",
        ),
        ("UPDATE actor SET first_name = 'X' WHERE actor_id = 1 RETURNING (last_update > '2026-02-01')::text", "true"),
        ("SELECT inventory_in_stock(1)::text", "false"),
    ] {
        assert_eq!(value(&now, query).await, expected, "{query}");
    }
    now.batch_execute("REFRESH MATERIALIZED VIEW CONCURRENTLY rental_by_category").await.unwrap();
    let too_early =
        now.batch_execute("INSERT INTO film (title, release_year, language_id) VALUES ('x', 1800, 1)").await;
    assert_eq!(too_early.unwrap_err().code().unwrap().code(), "23514");
}
