"""What the tests stand on: one embedded server, on which each test has apps of its own."""

import os
import secrets
import signal
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest

import shareddb


# What was started in the background ignores SIGINT, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def environment(shareddb_env):
    return shareddb_env


@pytest.fixture(scope="session")
def endpoint(environment):
    return environment.deploy()


@pytest.fixture(scope="session")
def server(environment):
    with environment.connect() as server:
        yield server


@pytest.fixture(scope="session")
def provisioner(server):
    return shareddb.Provisioner(server)


@pytest.fixture
def app(provisioner):
    """The name of a fresh app, which makes room for others when the test has ended."""
    name = f"test-{secrets.token_hex(4)}"
    provisioner.create(name)
    yield name
    with suppress(shareddb.NotFoundError):
        provisioner.drop(name, confirm=name)


@pytest.fixture(scope="session")
def psql(endpoint):
    """Runs a query as whoever a config names."""

    def run(config, query):
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return subprocess.run(
            [endpoint.binaries / "psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", query],
            env=variables | config.environ(),
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    return run


@pytest.fixture(scope="session")
def admin(endpoint):
    """How the superuser logs in."""
    password = endpoint.password_file.read_text().strip()
    return shareddb.ConnectionConfig(endpoint.host, endpoint.port, "postgres", endpoint.admin, password=password)


@pytest.fixture(scope="session")
def command(environment):
    """Runs the command `shareddb`, which `SHAREDDB_COMMAND` names, on the same server."""
    program = os.environ.get("SHAREDDB_COMMAND")
    if program is None:
        pytest.skip("SHAREDDB_COMMAND does not say where the command is")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DB_", "DATABASE_"))}
    variables |= {"SHAREDDB_HOME": str(environment.path.parent), "NO_COLOR": "1"}

    def run(*arguments):
        return subprocess.run([program, *arguments], env=variables, check=True, capture_output=True, text=True)

    return run


@pytest.fixture
def stopped(endpoint):
    """A server that takes connections and answers nothing, as long as the block lasts."""

    @contextmanager
    def block():
        os.kill(endpoint.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(endpoint.pid, signal.SIGCONT)

    return block


def eventually(what, done, seconds=60.0):
    """Waits until `done()` holds."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session", name="eventually")
def eventually_fixture():
    return eventually
