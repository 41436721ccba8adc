"""Credentials change under pools of other libraries, and nobody notices."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import shareddb

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_rotation(app, provisioner, psql):
    before = provisioner.connection(app)
    plan = provisioner.plan_rotate(app)
    assert plan and not plan.workloads
    report = provisioner.rotate(app, grace=timedelta(hours=1))
    assert (report.outcome, str(report)) == ("rotated", f"{app} rotated")
    assert len(report.steps) == len(plan.steps) and any("a new password" in step for step in plan)
    left = report.old_login_ends - datetime.now(timezone.utc)
    assert timedelta(minutes=59) < left < timedelta(minutes=61)
    assert not report.workloads and (report.in_use, report.restarted) == (2, [])
    after = provisioner.connection(app)
    assert after.user != before.user
    for config in (before, after):
        assert psql(config, "SELECT session_user") == config.user
    [status] = provisioner.status(app).apps
    assert (status.generation, sorted(login.state for login in status.logins)) == (2, ["ending", "in use"])
    assert status.logins[0].ends == report.old_login_ends
    with pytest.raises(shareddb.RefusedError) as refused:
        provisioner.rotate(app)
    assert refused.value.code == "login_in_use"
    with pytest.raises(ValueError):
        provisioner.rotate(app, grace=timedelta(days=1000))
    now = asyncio.run(provisioner.rotate_async(app, now=True))
    assert (now.outcome, now.old_login_ends) == ("rotated", None)
    assert provisioner.connection(app).user == before.user
    assert asyncio.run(provisioner.rotate_async(app, now=True)).outcome == "rotated"


class Mount:
    """A Secret in a pod, replaced as kubelet does it: a new folder, a link renamed over the old link, the old folder goes."""

    def __init__(self, folder, config):
        self.folder, self.version = folder, 0
        self.swap(config)

    def swap(self, config):
        version = self.folder / f"..{self.version:010}"
        self.version += 1
        version.mkdir()
        words = {
            "DB_HOST": config.host,
            "DB_PORT": str(config.port),
            "DB_NAME": config.database,
            "DB_USER": config.user,
            "DB_PASSWORD": config.password,
            "pg_service.conf": config.service_section("app"),
        }
        for name, value in words.items():
            (version / name).write_text(value)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(Path("..data") / name)
        link = self.folder / "..data"
        before = link.readlink() if link.is_symlink() else None
        (self.folder / "..data_tmp").symlink_to(version.name)
        (self.folder / "..data_tmp").rename(link)
        if before:
            shutil.rmtree(self.folder / before)


@pytest.fixture
def logins(app, provisioner, eventually):
    """How the app logs in, again and again; before each but the first its password is rotated."""

    def rotated():
        try:
            # Time enough for whoever looks once a second, on a busy machine, too.
            provisioner.rotate(app, grace=timedelta(seconds=8))
        except shareddb.RefusedError as refused:
            assert refused.code == "login_in_use"
            return False
        return True

    def turns():
        yield provisioner.connection(app)
        while True:
            eventually("the login before the last is over", rotated)
            yield provisioner.connection(app)

    return turns()


@pytest.fixture
def mount(tmp_path, logins):
    return Mount(tmp_path, next(logins))


@pytest.fixture
def sessions(psql, admin):
    """How many sessions a login has."""
    return lambda config: int(psql(admin, f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{config.user}'"))


def read(mount):
    return shareddb.ConnectionConfig.from_directory(mount.folder)


@pytest.mark.parametrize("example", ["psycopg_service", "sqlalchemy_service", "asyncpg_service", "django_service"])
def test_a_service_under_load(example, mount, logins, sessions, eventually):
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DB_", "DATABASE_"))}
    variables |= {
        "SHAREDDB_SECRET_DIR": str(mount.folder),
        "PGSERVICEFILE": str(mount.folder / "pg_service.conf"),
        "PGSERVICE": "app",
        "CONN_MAX_AGE": "1",
    }
    command = [sys.executable, str(EXAMPLES / f"{example}.py")]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout.readline() == "serving\n"
            used = read(mount)
            for _ in range(3):
                fresh = next(logins)
                mount.swap(fresh)
                eventually("the new login is used", lambda: sessions(fresh) > 0)
                eventually("the old login is not", lambda: sessions(used) == 0)
                used = fresh
        finally:
            service.terminate()
        said = service.stdout.read().strip()
    calls, failures = said.split(" requests, ")
    assert failures == "0 failures", said
    assert int(calls) > 100, said


def test_a_login_is_looked_for_at_intervals(mount, logins):
    login = shareddb.rotation.Login(read(mount), interval=0)
    assert (login.look(), login.generation) == (False, 0)
    fresh = next(logins)
    mount.swap(fresh)
    assert login.look() and (login.config.user, login.generation) == (fresh.user, 1)
    seldom = shareddb.rotation.Login(read(mount), interval=3600)
    mount.swap(next(logins))
    assert not seldom.look() and seldom.generation == 0


def test_a_secret_that_cannot_be_read_leaves_the_login(mount, caplog):
    config = read(mount)
    login = shareddb.rotation.Login(config, interval=0)
    (mount.folder / "..data" / "DB_USER").unlink()
    (mount.folder / "..data" / "DATABASE_URL").write_text("postgresql://me:m4@rker@h/d")
    assert not login.look() and login.config.url == config.url
    assert "stays as it is" in caplog.text and "rker" not in caplog.text


def test_what_comes_from_variables_stays():
    login = shareddb.rotation.Login(shareddb.ConnectionConfig.from_url("postgresql://me:x@h/d"), interval=0)
    assert not login.look()


def test_a_pool_for_coroutines(mount, logins):
    async def users():
        async with shareddb.rotation.async_pool(read(mount)) as pool:
            async with pool.connection() as connection:
                first = (await (await connection.execute("SELECT session_user")).fetchone())[0]
            fresh = next(logins)
            mount.swap(fresh)
            seen = first
            while seen == first:
                await asyncio.sleep(0.05)
                async with pool.connection() as connection:
                    seen = (await (await connection.execute("SELECT session_user")).fetchone())[0]
            return first, seen, fresh.user

    first, seen, fresh = asyncio.run(asyncio.wait_for(users(), 60))
    assert seen == fresh != first


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_an_engine_for_coroutines(mount, logins, driver):
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    config = read(mount)
    fresh = next(logins)

    async def users():
        engine = create_async_engine(config.sqlalchemy_url(driver=driver), pool_size=2)
        login = shareddb.rotation.follow_engine(engine, config)
        query = text("SELECT session_user")
        async with engine.connect() as connection:
            first = (await connection.execute(query)).scalar()
        mount.swap(fresh)
        while login.generation == 0:
            await asyncio.sleep(0.05)
            async with engine.connect() as connection:
                seen = (await connection.execute(query)).scalar()
        await engine.dispose()
        return first, seen

    first, seen = asyncio.run(asyncio.wait_for(users(), 60))
    assert (first, seen) == (config.user, fresh.user)


@asynccontextmanager
async def of_psycopg(config):
    with shareddb.rotation.pool(config) as pool:

        def ask():
            with pool.connection(timeout=6) as connection:
                return connection.execute("SELECT session_user").fetchone()[0]

        yield lambda: asyncio.to_thread(ask)


@asynccontextmanager
async def of_psycopg_for_coroutines(config):
    async with shareddb.rotation.async_pool(config) as pool:

        async def ask():
            async with pool.connection(timeout=6) as connection:
                return (await (await connection.execute("SELECT session_user")).fetchone())[0]

        yield ask


@asynccontextmanager
async def of_asyncpg(config):
    async with shareddb.rotation.asyncpg_pool(config) as pool:
        yield lambda: pool.fetchval("SELECT session_user")


@asynccontextmanager
async def of_sqlalchemy(config):
    from sqlalchemy import create_engine, text

    engine = create_engine(config.sqlalchemy_url(), pool_pre_ping=True)
    shareddb.rotation.follow_engine(engine, config)

    def ask():
        with engine.connect() as connection:
            return connection.execute(text("SELECT session_user")).scalar()

    yield lambda: asyncio.to_thread(ask)
    engine.dispose()


POOLS = [of_psycopg, of_psycopg_for_coroutines, of_asyncpg, of_sqlalchemy]


@pytest.mark.parametrize("opened", POOLS)
def test_a_pool_whose_login_was_closed_comes_back_with_the_secret(opened, app, provisioner, mount):
    config = read(mount)

    async def lose_and_find():
        async with opened(config) as ask:
            assert await ask() == config.user
            assert provisioner.rotate(app, now=True).outcome == "rotated"
            # Before the pod has the new Secret nobody can help it.
            with pytest.raises(Exception):
                for _ in range(3):
                    await ask()
            mount.swap(provisioner.connection(app))
            deadline = time.monotonic() + 60
            while True:
                try:
                    return await ask()
                except Exception:
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.1)

    assert asyncio.run(lose_and_find()) == provisioner.connection(app).user != config.user


@pytest.mark.parametrize("opened", POOLS)
def test_a_pool_that_was_idle_meanwhile_never_tries_the_old_login(opened, app, provisioner, mount):
    config = read(mount)

    async def wake():
        async with opened(config) as ask:
            assert provisioner.rotate(app, now=True).outcome == "rotated"
            mount.swap(provisioner.connection(app))
            # What was read within the last second counts.
            await asyncio.sleep(1.1)
            return await ask()

    assert asyncio.run(wake()) == provisioner.connection(app).user != config.user


def test_words_of_the_caller_count(mount):
    checked = []
    with read(mount).pool(max_size=2, name="mine", check=lambda connection: checked.append(1)) as pool:
        with pool.connection() as connection:
            assert connection.info.user == read(mount).user
        assert (pool.max_size, pool.name, checked) == (2, "mine", [1])
