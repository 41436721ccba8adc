"""The module against a real embedded server. Needs `shareddb.abi3.so` on PYTHONPATH and PostgreSQL's programs."""

import ast
import asyncio
import atexit
import copy
import inspect
import os
import pickle
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

import shareddb

home: Path
environment: shareddb.Environment
endpoint: shareddb.LocalEndpoint
provisioner: shareddb.Provisioner


def setUpModule():
    global home, environment, endpoint, provisioner
    home = Path(tempfile.mkdtemp(prefix="shareddb-py-"))
    # As root the server runs as another user, who must get through.
    home.chmod(0o711)
    environment = shareddb.Environment.local(home / "local")
    # Also when a second Ctrl-C keeps unittest from cleaning up.
    atexit.register(remove)
    endpoint = environment.deploy()
    provisioner = shareddb.Provisioner(environment.connect())


def tearDownModule():
    remove()


def remove():
    environment.stop()
    shutil.rmtree(home, ignore_errors=True)


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
        self.assertEqual(str(plan), "\n".join(f"  {line}" for line in plan))
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


class Local(unittest.TestCase):
    def test_what_runs_is_left_alone(self):
        again = environment.deploy()
        self.assertEqual((again.started, again.created, again.pid), (False, False, endpoint.pid))
        self.assertTrue(endpoint.created)
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


class Connections(unittest.TestCase):
    def test_the_password_shows_only_when_asked_for(self):
        config = shareddb.ConnectionConfig.from_url("postgresql://me:s3cret@db.example/my_app_db")
        self.assertEqual((config.host, config.port), ("db.example", 5432))
        self.assertEqual((config.database, config.user), ("my_app_db", "me"))
        self.assertEqual(repr(config), "<ConnectionConfig my_app_db at db.example:5432 as me>")
        for shown in (str(config), repr(config), f"{config}"):
            self.assertNotIn("s3cret", shown)
        for keep in (pickle.dumps, copy.deepcopy):
            with self.assertRaises(TypeError):
                keep(config)
        self.assertEqual(config.environ()["PGPASSWORD"], "s3cret")
        self.assertEqual(config.url, "postgresql://me:s3cret@db.example:5432/my_app_db")
        self.assertIn("password='s3cret'", config.conninfo)

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

    def test_sources(self):
        provisioner.create("sources")
        config = provisioner.connection("sources")
        mounted = shareddb.ConnectionConfig.from_directory(home / "local/secrets/sources-db-secret")
        self.assertEqual((mounted.database, mounted.user), ("sources_db", "sources_user"))
        self.assertEqual(mounted.environ()["PGPASSWORD"], config.environ()["PGPASSWORD"])
        self.assertEqual(str(mounted), str(config))
        old = dict(os.environ)
        try:
            for name in list(os.environ):
                if name.startswith(("DB_", "DATABASE_", "PG", "SERVICE_BINDING", "SHAREDDB_")):
                    del os.environ[name]
            os.environ.update(config.environ())
            self.assertEqual(shareddb.ConnectionConfig.from_env().url, config.url)
        finally:
            os.environ.clear()
            os.environ.update(old)

    def test_faults_do_not_repeat_the_input(self):
        with self.assertRaises(ValueError) as raised:
            shareddb.ConnectionConfig.from_url("postgresql://me:s3@cret@db.example/my_app_db")
        self.assertNotIn("cret", str(raised.exception))
        with self.assertRaises(shareddb.NotFoundError) as raised:
            shareddb.ConnectionConfig.from_directory(home / "absent")
        self.assertIn("No such file", str(raised.exception), "the message tells the cause")


class Exceptions(unittest.TestCase):
    def test_the_tree(self):
        builtins = {
            shareddb.InvalidInputError: ValueError,
            shareddb.NotFoundError: LookupError,
            shareddb.PermissionDeniedError: PermissionError,
            shareddb.UnavailableError: ConnectionError,
            shareddb.TimeoutError: TimeoutError,
            shareddb.ConflictError: Exception,
            shareddb.RefusedError: Exception,
            shareddb.ToolFailedError: Exception,
            shareddb.FailedError: Exception,
        }
        for ours, builtin in builtins.items():
            with self.subTest(ours.__name__):
                self.assertTrue(issubclass(ours, shareddb.Error) and issubclass(ours, builtin))
                self.assertEqual((ours.__module__, ours.code, ours.hint), ("shareddb", "failed", None))
                self.assertTrue(ours.__doc__)
                self.assertEqual(str(ours("a message")), "a message")
                self.assertIn(ours.__name__, shareddb.__all__)

    def test_the_stub_names_what_is_there(self):
        stub = ast.parse(Path(__file__).parents[1].joinpath("shareddb.pyi").read_text())
        assigned = [node for node in stub.body if isinstance(node, ast.Assign)]
        names = [ast.literal_eval(node.value) for node in assigned if node.targets[0].id == "__all__"]
        self.assertEqual(names, [sorted(shareddb.__all__)])
        for described in [node for node in stub.body if isinstance(node, ast.ClassDef)]:
            real = getattr(shareddb, described.name)
            for member in [node for node in described.body if isinstance(node, ast.FunctionDef)]:
                with self.subTest(f"{described.name}.{member.name}"):
                    self.assertTrue(hasattr(real, member.name))
                    if ast.get_docstring(member):
                        self.assertTrue(getattr(real, member.name).__doc__)
            stubbed = {node.name for node in described.body if isinstance(node, ast.FunctionDef)}
            public = {name for name in vars(real) if not name.startswith("_")}
            if not issubclass(real, Exception):
                self.assertEqual(public, {name for name in stubbed if not name.startswith("_")}, described.name)

    def test_they_travel_between_processes(self):
        with self.assertRaises(shareddb.Error) as raised:
            provisioner.app("absent")
        came = pickle.loads(pickle.dumps(raised.exception))
        self.assertIs(type(came), shareddb.NotFoundError)
        self.assertEqual((str(came), came.code), (str(raised.exception), "app_not_found"))
        self.assertEqual((came.hint, came.retryable), (raised.exception.hint, False))
        self.assertEqual(raised.exception.__notes__, [f"hint: {came.hint}"])


class StoppedServer:
    """A server that takes connections and answers nothing, as long as the block lasts."""

    def __enter__(self):
        os.kill(endpoint.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        os.kill(endpoint.pid, signal.SIGCONT)


class Waiting(unittest.TestCase):
    def test_ctrl_c_ends_the_wait(self):
        def interrupt(*_):
            raise KeyboardInterrupt

        old = signal.signal(signal.SIGALRM, interrupt)
        try:
            with StoppedServer():
                began = time.monotonic()
                with self.assertRaises(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, 0.2)
                    provisioner.list()
                self.assertLess(time.monotonic() - began, 2)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        provisioner.list()

    def test_a_handler_that_returns_does_not(self):
        handled = []
        old = signal.signal(signal.SIGALRM, lambda *_: (handled.append(1), os.kill(endpoint.pid, signal.SIGCONT)))
        try:
            with StoppedServer():
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                provisioner.list()
            self.assertEqual(handled, [1])
        finally:
            signal.signal(signal.SIGALRM, old)

    def test_other_threads_go_on(self):
        # Nobody but another thread of this interpreter wakes the server up.
        with StoppedServer():
            waker = threading.Timer(0.2, os.kill, (endpoint.pid, signal.SIGCONT))
            waker.start()
            provisioner.list()
            waker.join()

    def test_silence_is_a_timeout(self):
        with StoppedServer(), self.assertRaises(TimeoutError) as raised:
            provisioner.list()
        self.assertIsInstance(raised.exception, shareddb.TimeoutError)
        self.assertTrue(raised.exception.retryable)

    def test_in_a_running_event_loop(self):
        async def both():
            return await asyncio.gather(asyncio.to_thread(provisioner.list), asyncio.to_thread(provisioner.list))

        async def directly():
            return provisioner.list()

        names = [[summary.app.name for summary in apps] for apps in asyncio.run(both())]
        self.assertEqual(names[0], names[1])
        self.assertIsNotNone(asyncio.run(directly()))

    def test_a_forked_child_is_told(self):
        provisioner.list()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                provisioner.list()
                said = "no error"
            except shareddb.Error as error:
                said = f"{error.code}: {error.hint}"
            except BaseException as error:
                said = repr(error)
            os.write(writer, said.encode())
            os._exit(0)
        os.close(writer)
        with open(reader) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        self.assertRegex(said, "^forked: .*spawn")
        provisioner.list()


if __name__ == "__main__":
    unittest.main()
