"""Backups: taken, listed, proven, restored, taken back, pruned."""

import asyncio
from datetime import datetime, timedelta, timezone

import pytest

import shareddb


@pytest.fixture
def manager(server):
    return shareddb.BackupManager(server)


@pytest.fixture
def filled(app, provisioner, psql):
    """An app with three rows."""
    psql(provisioner.connection(app), "CREATE TABLE note (id int); INSERT INTO note VALUES (1), (2), (3)")
    return app


def rows(psql, provisioner, app):
    return psql(provisioner.connection(app), "SELECT count(*) FROM note")


def test_from_a_backup_to_the_state_before(manager, filled, provisioner, psql, environment):
    assert manager.url == environment.backups
    before = datetime.now(timezone.utc)
    backup = manager.backup(filled, keep_until=before + timedelta(days=1))
    assert (backup.app, backup.rows, backup.reason, backup.encrypted) == (filled, 3, "manual", False)
    assert backup.tables == {(filled.replace("-", "_"), "note"): 3}
    assert before - timedelta(seconds=2) < backup.taken_at < datetime.now(timezone.utc)
    assert backup.keep_until.replace(microsecond=0) == (before + timedelta(days=1)).replace(microsecond=0)
    assert backup.took > timedelta(0) and backup.bytes > 0 and backup.problem is None
    assert str(backup) == backup.id and backup.id.startswith(f"{filled}-20")

    check = manager.verify(backup)
    assert (check.id, check.verdict, check.passed) == (backup.id, "passed", True)
    assert (check.findings, check.left_out) == ([], [])
    assert manager.verify(backup.id, quick=True).verdict == "read"
    [listed] = manager.list(filled)
    assert (listed.id, listed.verdict, listed.rows, listed.held) == (backup.id, "passed", 3, False)
    assert backup.id in {each.id for each in manager.list()}

    psql(provisioner.connection(filled), "DELETE FROM note")
    with pytest.raises(shareddb.RefusedError) as refused:
        manager.restore(filled, backup, confirm="other")
    assert refused.value.code == "confirmation_required"
    report = manager.restore(filled, backup, confirm=filled)
    assert (report.backup.id, report.rows, report.tables, report.left_out) == (backup.id, 3, 1, [])
    assert report.safety.rows == 0 and report.safety.reason == "before-restore"
    assert report.safety.keep_until - report.safety.taken_at == timedelta(days=7)
    assert rows(psql, provisioner, filled) == "3"
    assert manager.undo(filled, confirm=filled) != report.kept
    assert rows(psql, provisioner, filled) == "0"
    again = manager.restore(filled, backup.taken_at, confirm=filled, safety_backup=False)
    assert (again.backup.id, again.safety) == (backup.id, None)
    assert rows(psql, provisioner, filled) == "3"


def test_the_last_backup(manager, filled, provisioner, psql, admin):
    config = provisioner.connection(filled)
    backup = manager.last_backup(filled)
    assert (backup.rows, backup.reason) == (3, "before-drop")
    assert timedelta(days=89) < backup.keep_until - backup.taken_at < timedelta(days=91)
    assert psql(admin, f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{config.user}'") == "f"
    provisioner.drop(filled, confirm=filled)
    provisioner.create(filled)
    assert manager.restore(filled, confirm=filled, safety_backup=False).backup.id == backup.id
    assert rows(psql, provisioner, filled) == "3"


def test_pruning(manager, filled, eventually):
    kept = manager.backup(filled, keep_until=datetime(2100, 1, 1, tzinfo=timezone.utc))
    taken = [kept]
    for _ in range(2):
        second = taken[-1].taken_at + timedelta(seconds=1)
        eventually("the clock has moved on", lambda: datetime.now(timezone.utc) > second)
        taken.append(manager.backup(filled))
    policy = shareddb.RetentionPolicy(last=1)
    plan = manager.plan_prune(filled, policy)
    assert plan and len(plan) == 3
    assert plan.doomed == [taken[1].id] and plan.freed == taken[1].bytes
    assert [judged.stays for judged in plan] == [True, False, True]
    assert str(plan).splitlines()[1] == f"- {taken[1].id}"
    assert "until" in " ".join(plan.backups[2].reasons)
    assert plan == manager.plan_prune(filled, policy)
    pruned = manager.prune(filled, plan)
    assert (pruned.deleted, pruned.bytes, pruned.spared, pruned.retained) == ([taken[1].id], taken[1].bytes, [], [])
    nothing = manager.plan_prune(filled, policy)
    assert not nothing and len(nothing) == 2
    assert manager.prune(filled, nothing).deleted == []
    with pytest.raises(ValueError):
        manager.plan_prune(filled, shareddb.RetentionPolicy())
    with pytest.raises(ValueError):
        shareddb.RetentionPolicy(last="many")
    with pytest.raises(TypeError):
        shareddb.RetentionPolicy(last=1.5)


def test_another_store_and_keys(server, filled, tmp_path):
    manager = shareddb.BackupManager(server, str(tmp_path / "elsewhere"))
    key = tmp_path / "key"
    # Made for this test; they open nothing else.
    key.write_text("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n")
    public = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
    backup = manager.backup(filled, encrypt_to=[public])
    assert backup.encrypted
    with pytest.raises(shareddb.Error) as closed:
        manager.verify(backup)
    assert "private key" in str(closed.value)
    assert manager.verify(backup, identity=key).passed
    assert manager.verify(backup, identity=[key]).passed
    assert filled not in {each.app for each in shareddb.BackupManager(server).list()}
    with pytest.raises(ValueError):
        manager.backup(filled, encrypt_to=["age1nobody"])
    with pytest.raises(ValueError):
        shareddb.BackupManager(server, "s3:half")


def test_progress_is_told(server, filled):
    events = []
    shareddb.BackupManager(server, on_event=events.append).backup(filled)
    assert {event.app for event in events} == {filled}
    begun = [event.stage for event in events if event.stage and event.bytes is None]
    assert list(dict.fromkeys(begun)) == ["waiting", "counting", "dumping"]
    moved = [event for event in events if event.bytes is not None]
    assert moved and all(event.stage == "dumping" for event in moved)


def test_what_a_listener_raises_ends_the_run(server, filled, provisioner, psql, admin):
    def listener(event):
        if event.stage == "dumping":
            raise RuntimeError("enough")

    manager = shareddb.BackupManager(server, on_event=listener)
    with pytest.raises(RuntimeError, match="enough"):
        manager.backup(filled)
    assert list(manager.list(filled)) == []
    maintenance = provisioner.app(filled).maintenance
    assert psql(admin, f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{maintenance}'") == "f"
    assert shareddb.BackupManager(server).backup(filled).rows == 3


def test_a_listener_cannot_call_back(server, filled, provisioner):
    said = []

    def listener(event):
        try:
            provisioner.list()
        except shareddb.FailedError as error:
            said.append(error.code)

    shareddb.BackupManager(server, on_event=listener).backup(filled)
    assert said and set(said) == {"called_from_callback"}


def test_in_a_coroutine(manager, filled, psql, provisioner):
    async def all_of_it():
        backup = await manager.backup_async(filled)
        check = await manager.verify_async(backup)
        report = await manager.restore_async(filled, backup.id, confirm=filled)
        return backup, check, report

    backup, check, report = asyncio.run(all_of_it())
    assert check.passed and report.backup.id == backup.id
    assert rows(psql, provisioner, filled) == "3"


def test_arguments_are_checked_before_anything_is_done(manager):
    for call, error in [
        (lambda: manager.backup("My App"), ValueError),
        (lambda: manager.backup("my-app", reason="boredom"), ValueError),
        (lambda: manager.backup("my-app", keep_until=datetime(2030, 1, 1)), TypeError),
        (lambda: manager.backup("my-app", yield_after=5), TypeError),
        (lambda: manager.backup("my-app", "manual"), TypeError),
        (lambda: manager.verify("no-backup"), ValueError),
        (lambda: manager.verify(7), TypeError),
        (lambda: manager.restore("my-app", confirm="my-app", other_roles="some"), ValueError),
        (lambda: manager.restore("my-app"), TypeError),
        (lambda: manager.verify("my-app-20261122T020056Z", identity="/nowhere"), shareddb.NotFoundError),
        (lambda: manager.backup("absent"), LookupError),
    ]:
        with pytest.raises(error) as raised:
            call()
        assert "extract" not in str(raised.value)
    with pytest.raises(TypeError, match="timezone"):
        manager.backup("my-app", keep_until=datetime(2030, 1, 1))
    with pytest.raises(TypeError, match="a backup, the name of one, or a time, not int"):
        manager.verify(7)
