"""Apps from a plan to a drop, and the embedded server that they are on."""

import inspect
import os
import subprocess
import unittest
from pathlib import Path

import pytest

import shareddb

home: Path
environment: shareddb.Environment
endpoint: shareddb.LocalEndpoint
provisioner: shareddb.Provisioner


@pytest.fixture(scope="module", autouse=True)
def own_server():
    """A server that nobody else uses."""
    global home, environment, endpoint, provisioner
    with shareddb.Environment.throw_away() as environment:
        home = environment.path.parent
        # It runs by now; the first start is what is told.
        endpoint = environment.deploy()
        with environment.connect() as server:
            provisioner = shareddb.Provisioner(server)
            yield


def psql(config, query):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return subprocess.run(
        [endpoint.binaries / "psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", query],
        env=variables | config.environ(),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


class Provisioning(unittest.TestCase):
    def test_an_app_from_plan_to_drop(self):
        plan = provisioner.plan("first", connections=7)
        self.assertTrue(plan)
        self.assertFalse(plan.exists)
        self.assertEqual(len(plan), len(list(plan)))
        lines = str(plan).splitlines()
        self.assertEqual(lines[:-1], [f"  {line}" for line in plan])
        self.assertRegex(lines[-1], r"^\d+ to add, \d+ to change, 0 to remove, 1 to try$")
        self.assertIn("+ database/first_db, closed at first", plan)

        report = provisioner.create("first", connections=7)
        self.assertEqual((report.outcome, report.proof), ("created", "complete"))
        self.assertEqual(report.steps, plan.steps)
        self.assertEqual(report.app, plan.app)
        self.assertEqual(str(report), "first created")
        app = report.app
        self.assertEqual((app.name, app.environment, app.secret), ("first", "local", "first-db-secret"))
        self.assertEqual((app.database, app.owner, app.schema), ("first_db", "first_db", "first"))
        self.assertEqual((app.logins, app.maintenance), (("first_user", "first_user_2"), "first_maint"))
        self.assertEqual((app.connections, app.search_path), (7, ["first", "public"]))
        self.assertEqual((app.extensions, app.settings), ([], {}))

        again = provisioner.create("first")
        self.assertEqual((again.outcome, again.steps, again.proof), ("unchanged", [], None))
        nothing = provisioner.plan("first")
        self.assertFalse(nothing)
        self.assertEqual((str(nothing), list(nothing)), ("", []))
        self.assertTrue(nothing.exists)

        configured = provisioner.create("first", connections=8, settings={"work_mem": "8MB"})
        self.assertEqual(configured.outcome, "configured")
        self.assertEqual(provisioner.app("first").settings, {"work_mem": "8MB"})

        listed = {summary.app.name: summary for summary in provisioner.list()}["first"]
        self.assertGreater(listed.size, 0)
        self.assertFalse(listed.dropping)

        config = provisioner.connection("first")
        self.assertEqual(psql(config, "SELECT session_user || ' ' || current_user"), "first_user first_db")
        self.assertEqual(psql(config, "SHOW work_mem"), "8MB")

        with self.assertRaises(shareddb.NotFoundError) as nothing_to_adopt:
            provisioner.plan("by-hand", adopt=shareddb.Adopt(take_from=["Some Body"], close_to_others=True))
        self.assertEqual(nothing_to_adopt.exception.code, "database_not_found")
        self.assertEqual(shareddb.Adopt(demote=True), shareddb.Adopt(demote=True))
        self.assertEqual(provisioner.create("first", adopt=shareddb.Adopt()).outcome, "unchanged")
        with self.assertRaises(shareddb.RefusedError) as not_adopted:
            provisioner.undo_adopt("first")
        self.assertEqual(not_adopted.exception.code, "not_adopted")

        with self.assertRaises(shareddb.RefusedError) as refused:
            provisioner.drop("first", confirm="other")
        self.assertEqual(refused.exception.code, "confirmation_required")
        self.assertIn("--confirm first", refused.exception.hint)
        with self.assertRaises(TypeError):
            provisioner.drop("first")
        self.assertTrue(provisioner.plan_drop("first"))
        self.assertEqual(provisioner.drop("first", confirm="first").outcome, "dropped")
        self.assertNotIn("first", [summary.app.name for summary in provisioner.list()])
        with self.assertRaises(LookupError) as missing:
            provisioner.connection("first")
        self.assertIsInstance(missing.exception, shareddb.NotFoundError)
        self.assertEqual(missing.exception.code, "app_not_found")

    def test_names_of_ones_own_choice(self):
        report = provisioner.create(
            "chosen",
            database="their_data",
            user="their_login",
            search_path=("chosen",),
            extensions={"pg_trgm"},
            settings={"statement_timeout": "5s"},
            allow_overcommit=True,
            secure_server=True,
        )
        app = report.app
        self.assertEqual((app.database, app.logins[0]), ("their_data", "their_login"))
        self.assertEqual((app.search_path, app.extensions), (["chosen"], ["pg_trgm"]))
        with self.assertRaises(shareddb.ConflictError) as taken:
            provisioner.create("chosen", database="another")
        self.assertEqual(taken.exception.code, "name_recorded")
        self.assertFalse(taken.exception.retryable)

    def test_a_plan_is_applied_or_stale(self):
        plan = provisioner.plan("planned")
        self.assertEqual(plan, provisioner.plan("planned"))
        provisioner.create("planned", connections=3)
        self.assertEqual(provisioner.apply(plan).outcome, "unchanged", "what it asked for is there")
        plan = provisioner.plan("planned", connections=5)
        provisioner.create("planned", connections=5, settings={"work_mem": "8MB"})
        provisioner.create("planned", connections=6)
        with self.assertRaises(shareddb.ConflictError) as stale:
            provisioner.apply(plan)
        self.assertEqual(stale.exception.code, "plan_stale")
        self.assertFalse(stale.exception.retryable)
        self.assertEqual(provisioner.apply(provisioner.plan("planned", connections=4)).outcome, "configured")

    def test_wrong_input_reaches_no_server(self):
        wrong = [
            ("name_invalid", lambda: provisioner.plan("My_App")),
            ("name_invalid", lambda: provisioner.create("x'; DROP")),
            ("name_invalid", lambda: provisioner.create("pg-app")),
            ("name_invalid", lambda: provisioner.create("wrong", database="Wrong")),
            ("name_invalid", lambda: provisioner.create("wrong", user="wrong-user")),
            ("name_invalid", lambda: provisioner.create("wrong", search_path=["a b"])),
            ("name_invalid", lambda: provisioner.create("wrong", settings={"role": "postgres"})),
            ("connections_invalid", lambda: provisioner.create("wrong", connections=0)),
            ("connections_invalid", lambda: provisioner.create("wrong", connections=-1)),
            ("connections_invalid", lambda: provisioner.create("wrong", connections=100_000)),
        ]
        for code, call in wrong:
            with self.subTest(inspect.getsource(call).strip()):
                with self.assertRaises(ValueError) as raised:
                    call()
                self.assertIsInstance(raised.exception, shareddb.InvalidInputError)
                self.assertEqual(raised.exception.code, code)
        for call in [
            lambda: provisioner.plan(7),
            lambda: provisioner.plan("wrong", search_path="public"),
            lambda: provisioner.plan("wrong", extensions=[7]),
            lambda: provisioner.plan("wrong", "positional"),
            lambda: provisioner.plan("wrong", colour="blue"),
        ]:
            with self.subTest(inspect.getsource(call).strip()), self.assertRaises(TypeError):
                call()
        self.assertNotIn("wrong", [summary.app.name for summary in provisioner.list()])

    def test_the_stored_password_is_in_no_repr(self):
        report = provisioner.create("hidden")
        config = provisioner.connection("hidden")
        password = config.environ()["PGPASSWORD"]
        server = environment.connect()
        things = [config, server, environment, endpoint, provisioner, report, report.app, *provisioner.list()]
        for thing in [*things, provisioner.plan("hidden", connections=2)]:
            self.assertNotIn(password, str(thing) + repr(thing))
        admin = endpoint.password_file.read_text().strip()
        for thing in things:
            self.assertNotIn(admin, str(thing) + repr(thing))


class Local(unittest.TestCase):
    def test_what_runs_is_left_alone(self):
        again = environment.deploy()
        self.assertEqual((again.started, again.created, again.pid), (False, False, endpoint.pid))
        self.assertFalse(endpoint.created)
        self.assertEqual((environment.name, environment.path), ("local", home / "local"))
        self.assertEqual(environment.connect().environment, "local")
        self.assertEqual(again.password_file.stat().st_mode & 0o777, 0o600)

    def test_no_server(self):
        absent = shareddb.Environment.local(home / "absent")
        self.assertFalse(absent.stop())
        with self.assertRaises(ConnectionError) as raised:
            absent.connect()
        self.assertIsInstance(raised.exception, shareddb.UnavailableError)
        self.assertTrue(raised.exception.retryable)

    def test_shareddb_home_is_read(self):
        old = os.environ.get("SHAREDDB_HOME")
        os.environ["SHAREDDB_HOME"] = str(home)
        try:
            self.assertEqual(shareddb.Environment.local().path, home / "local")
        finally:
            if old is None:
                del os.environ["SHAREDDB_HOME"]
            else:
                os.environ["SHAREDDB_HOME"] = old
