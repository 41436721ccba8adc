"""Apps from a plan to a drop, and the embedded server that they are on."""

import re
from types import MappingProxyType

import pytest

import shareddb


def test_an_app_from_plan_to_drop(provisioner, psql):
    plan = provisioner.plan("first", connections=7)
    assert plan
    assert not plan.exists
    assert len(plan) == len(list(plan))
    *lines, summary = str(plan).splitlines()
    assert lines == [f"  {line}" for line in plan]
    assert re.fullmatch(r"\d+ to add, \d+ to change, 0 to remove, 1 to try", summary)
    assert "+ database/first_db, closed at first" in plan

    report = provisioner.create("first", connections=7)
    assert (report.outcome, report.proof) == ("created", "complete")
    assert report.steps == plan.steps
    assert report.app == plan.app
    assert str(report) == "first created"
    app = report.app
    assert (app.name, app.environment, app.secret) == ("first", "local", "first-db-secret")
    assert (app.database, app.owner, app.schema) == ("first_db", "first_db", "first")
    assert (app.logins, app.maintenance) == (("first_user", "first_user_2"), "first_maint")
    assert (app.connections, app.search_path) == (7, ["first", "public"])
    assert (app.extensions, app.settings) == ([], {})

    again = provisioner.create("first")
    assert (again.outcome, again.steps, again.proof) == ("unchanged", [], None)
    nothing = provisioner.plan("first")
    assert not nothing
    assert (str(nothing), list(nothing)) == ("0 to add, 0 to change, 0 to remove", [])
    assert nothing.exists

    configured = provisioner.create("first", connections=8, settings={"work_mem": "8MB"})
    assert configured.outcome == "configured"
    assert provisioner.app("first").settings == {"work_mem": "8MB"}

    listed = {summary.app.name: summary for summary in provisioner.list()}["first"]
    assert listed.size > 0
    assert not listed.dropping

    config = provisioner.connection("first")
    assert psql(config, "SELECT session_user || ' ' || current_user") == "first_user first_db"
    assert psql(config, "SHOW work_mem") == "8MB"

    with pytest.raises(shareddb.NotFoundError) as nothing_to_adopt:
        provisioner.plan("by-hand", adopt=shareddb.Adopt(take_from=["Some Body"], close_to_others=True))
    assert nothing_to_adopt.value.code == "database_not_found"
    assert shareddb.Adopt(demote=True) == shareddb.Adopt(demote=True)
    assert provisioner.create("first", adopt=shareddb.Adopt()).outcome == "unchanged"
    with pytest.raises(shareddb.RefusedError) as not_adopted:
        provisioner.undo_adopt("first")
    assert not_adopted.value.code == "not_adopted"

    with pytest.raises(shareddb.RefusedError) as refused:
        provisioner.drop("first", confirm="other")
    assert refused.value.code == "confirmation_required"
    assert "--confirm first" in refused.value.hint
    with pytest.raises(TypeError):
        provisioner.drop("first")
    assert provisioner.plan_drop("first")
    assert provisioner.drop("first", confirm="first").outcome == "dropped"
    assert "first" not in [summary.app.name for summary in provisioner.list()]
    with pytest.raises(LookupError) as missing:
        provisioner.connection("first")
    assert isinstance(missing.value, shareddb.NotFoundError)
    assert missing.value.code == "app_not_found"


def test_names_of_ones_own_choice(provisioner):
    report = provisioner.create(
        "chosen",
        database="their_data",
        user="their_login",
        search_path=("chosen",),
        extensions={"pg_trgm"},
        settings=MappingProxyType({"statement_timeout": "5s"}),
        allow_overcommit=True,
        secure_server=True,
    )
    app = report.app
    assert (app.database, app.logins[0]) == ("their_data", "their_login")
    assert (app.search_path, app.extensions, app.settings) == (["chosen"], ["pg_trgm"], {"statement_timeout": "5s"})
    with pytest.raises(shareddb.ConflictError) as taken:
        provisioner.create("chosen", database="another")
    assert taken.value.code == "name_recorded"
    assert not taken.value.retryable


def test_a_plan_is_applied_or_stale(provisioner):
    plan = provisioner.plan("planned")
    assert plan == provisioner.plan("planned")
    provisioner.create("planned", connections=3)
    assert provisioner.apply(plan).outcome == "unchanged", "what it asked for is there"
    plan = provisioner.plan("planned", connections=5)
    provisioner.create("planned", connections=5, settings={"work_mem": "8MB"})
    provisioner.create("planned", connections=6)
    with pytest.raises(shareddb.ConflictError) as stale:
        provisioner.apply(plan)
    assert stale.value.code == "plan_stale"
    assert not stale.value.retryable
    assert provisioner.apply(provisioner.plan("planned", connections=4)).outcome == "configured"


@pytest.mark.parametrize(
    "code, app, wishes",
    [
        ("name_invalid", "My_App", {}),
        ("name_invalid", "x'; DROP", {}),
        ("name_invalid", "pg-app", {}),
        ("name_invalid", "wrong", {"database": "Wrong"}),
        ("name_invalid", "wrong", {"user": "wrong-user"}),
        ("name_invalid", "wrong", {"search_path": ["a b"]}),
        ("name_invalid", "wrong", {"settings": {"role": "postgres"}}),
        ("connections_invalid", "wrong", {"connections": 0}),
        ("connections_invalid", "wrong", {"connections": -1}),
        ("connections_invalid", "wrong", {"connections": 100_000}),
        ("connections_invalid", "wrong", {"connections": 2**80}),
    ],
)
def test_wrong_input_reaches_no_server(provisioner, code, app, wishes):
    for call in (provisioner.plan, provisioner.create):
        with pytest.raises(ValueError) as raised:
            call(app, **wishes)
        assert isinstance(raised.value, shareddb.InvalidInputError) and raised.value.code == code
    assert "wrong" not in [summary.app.name for summary in provisioner.list()]


@pytest.mark.parametrize(
    "arguments, wishes",
    [
        ((7,), {}),
        (("wrong",), {"search_path": "public"}),
        (("wrong",), {"extensions": [7]}),
        (("wrong",), {"connections": "7"}),
        (("wrong",), {"settings": ["work_mem"]}),
        (("wrong", "positional"), {}),
        (("wrong",), {"colour": "blue"}),
    ],
)
def test_wrong_types_reach_no_server(provisioner, arguments, wishes):
    for call in (provisioner.plan, provisioner.create):
        with pytest.raises(TypeError) as raised:
            call(*arguments, **wishes)
        assert "enum" not in str(raised.value)
    assert "wrong" not in [summary.app.name for summary in provisioner.list()]


def test_the_stored_password_is_in_no_repr(environment, endpoint, server, provisioner):
    report = provisioner.create("hidden")
    config = provisioner.connection("hidden")
    password = config.environ()["PGPASSWORD"]
    things = [config, server, environment, endpoint, provisioner, report, report.app, *provisioner.list()]
    for thing in [*things, provisioner.plan("hidden", connections=2)]:
        assert password not in str(thing) + repr(thing)
    admin = endpoint.password_file.read_text().strip()
    for thing in things:
        assert admin not in str(thing) + repr(thing)


def test_what_runs_is_left_alone(environment, endpoint):
    again = environment.deploy()
    assert (again.started, again.created, again.pid) == (False, False, endpoint.pid)
    assert not endpoint.created
    assert (environment.name, environment.path) == ("local", endpoint.password_file.parent)
    assert environment.connect().environment == "local"
    assert again.password_file.stat().st_mode & 0o777 == 0o600


def test_no_server(tmp_path):
    absent = shareddb.Environment.local(tmp_path / "absent")
    assert not absent.stop()
    with pytest.raises(ConnectionError) as raised:
        absent.connect()
    assert isinstance(raised.value, shareddb.UnavailableError)
    assert raised.value.retryable


def test_shareddb_home_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREDDB_HOME", str(tmp_path))
    assert shareddb.Environment.local().path == tmp_path / "local"
