"""What a call does to the interpreter that makes it: threads, signals, event loops, forks."""

import asyncio
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

import shareddb


@pytest.fixture
def alarm():
    """Has SIGALRM raise KeyboardInterrupt, as SIGINT does. Tells when it came."""
    came = []

    def interrupt(*_):
        came.append(time.monotonic())
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    yield came
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


def run(script, *arguments, **options):
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, **options)


def test_importing_starts_no_thread():
    script = "import shareddb, os; print(len(os.listdir('/proc/self/task')))"
    assert run(script).stdout.strip() == "1"


def interrupted(came, call):
    """For how long a call went on after the signal."""
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(KeyboardInterrupt):
        call()
    return time.monotonic() - came.pop()


def soonest(limit, measure):
    """Whether one of ten comes within the limit, in seconds: a busy machine is late for its own reasons."""
    return any(measure() < limit for _ in range(10))


def test_ctrl_c_ends_a_wait(provisioner, stopped, alarm):
    with stopped():
        assert soonest(0.2, lambda: interrupted(alarm, provisioner.list))
        assert soonest(0.2, lambda: interrupted(alarm, lambda: provisioner.create("never")))
    provisioner.list()


def test_ctrl_c_leaves_no_backup_half_open(server, endpoint, provisioner, app, psql, admin, alarm, eventually):
    config = provisioner.connection(app)
    psql(config, "CREATE TABLE big AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n")
    manager = shareddb.BackupManager(server)
    # Somebody else has the table, so that the dump waits for it.
    command = [endpoint.binaries / "psql", config.conninfo, "-c", "BEGIN; LOCK TABLE big; SELECT pg_sleep(60)"]
    holder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation IS NOT NULL"
        eventually("the table is locked", lambda: psql(config, f"{locks} AND relation = 'big'::regclass") == "1")
        assert soonest(0.2, lambda: interrupted(alarm, lambda: manager.backup(app)))
    finally:
        psql(admin, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{config.user}'")
        holder.wait()
    maintenance = provisioner.app(app).maintenance
    closed = f"SELECT NOT rolcanlogin FROM pg_roles WHERE rolname = '{maintenance}'"
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{maintenance}'"
    eventually("the login is closed again", lambda: psql(admin, closed) == "t")
    eventually("its sessions have ended", lambda: psql(admin, sessions) == "0")
    assert list(manager.list(app)) == []
    backup = manager.backup(app)
    assert backup.rows == 20000


def test_a_process_that_ends_cleans_up_first(environment, app, provisioner, psql, admin, eventually):
    """A Ctrl-C while a backup is taken, and the interpreter ends with it."""
    # Large enough that it is not over before anybody looks whether there was a signal.
    psql(provisioner.connection(app), "CREATE TABLE one AS SELECT generate_series(1, 1000000) AS id")
    script = """if True:
        import os, signal, sys, shareddb
        environment = shareddb.Environment.local(sys.argv[1])
        def listener(event):
            if event.stage == "dumping":
                os.kill(os.getpid(), signal.SIGINT)
        with environment.connect() as server:
            shareddb.BackupManager(server, on_event=listener).backup(sys.argv[2])
    """
    ended = run(script, str(environment.path), app)
    assert ended.returncode in (-signal.SIGINT, 130) and "KeyboardInterrupt" in ended.stderr, ended.stderr
    maintenance = provisioner.app(app).maintenance
    assert psql(admin, f"SELECT NOT rolcanlogin FROM pg_roles WHERE rolname = '{maintenance}'") == "t"


def test_a_handler_that_returns_ends_nothing(provisioner, stopped, endpoint):
    handled = []
    old = signal.signal(signal.SIGALRM, lambda *_: (handled.append(1), os.kill(endpoint.pid, signal.SIGCONT)))
    try:
        with stopped():
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            provisioner.list()
        assert handled == [1]
    finally:
        signal.signal(signal.SIGALRM, old)


def test_other_threads_go_on(provisioner, stopped, endpoint):
    # Nobody but another thread of this interpreter wakes the server up.
    for call in (provisioner.list, lambda: provisioner.create("meanwhile")):
        with stopped():
            waker = threading.Timer(0.2, os.kill, (endpoint.pid, signal.SIGCONT))
            waker.start()
            call()
            waker.join()


def test_only_the_main_thread_is_interrupted(provisioner, stopped, endpoint, alarm):
    """A signal that comes while other threads wait ends the wait of the main one only."""
    listed = []
    with stopped():
        thread = threading.Thread(target=lambda: listed.append(provisioner.list()))
        thread.start()
        assert soonest(1, lambda: interrupted(alarm, provisioner.list))
        time.sleep(0.2)
        assert thread.is_alive() and not listed
    thread.join()
    assert len(listed) == 1


def test_in_a_running_loop(provisioner, app):
    async def directly():
        return provisioner.list()

    async def beside():
        return await asyncio.gather(*(asyncio.to_thread(provisioner.app, app) for _ in range(4)))

    assert app in [each.app.name for each in asyncio.run(directly())]
    assert {each.name for each in asyncio.run(beside())} == {app}


def test_a_coroutine_leaves_the_loop_to_others(provisioner):
    async def both():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.002)

        ticker = asyncio.create_task(tick())
        reports = await asyncio.gather(provisioner.create_async("side-a"), provisioner.create_async("side-b"))
        ticker.cancel()
        return reports, ticks

    reports, ticks = asyncio.run(both())
    assert {report.app.name for report in reports} == {"side-a", "side-b"}
    assert ticks > 5
    assert asyncio.run(provisioner.create_async("side-a")).outcome == "unchanged"


def test_a_coroutine_raises_what_the_call_raises(provisioner):
    for name, error in [("My_App", shareddb.InvalidInputError), (7, TypeError)]:
        with pytest.raises(error):
            asyncio.run(provisioner.create_async(name))


def test_a_cancelled_coroutine_has_cleaned_up(server, provisioner, app, psql, admin):
    psql(provisioner.connection(app), "CREATE TABLE one (id int)")

    async def cancelled():
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        def listener(event):
            if event.stage == "dumping":
                loop.call_soon_threadsafe(begun.set)

        manager = shareddb.BackupManager(server, on_event=listener)
        task = asyncio.create_task(manager.backup_async(app))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return manager

    manager = asyncio.run(cancelled())
    maintenance = provisioner.app(app).maintenance
    assert psql(admin, f"SELECT NOT rolcanlogin FROM pg_roles WHERE rolname = '{maintenance}'") == "t"
    # It may have been there already when it was cancelled; then it is whole.
    assert all(backup.problem is None for backup in manager.list(app))


def test_one_that_was_cancelled_before_its_first_step_begins_nothing(server, provisioner, app):
    told = []
    follower = shareddb.Provisioner(server, on_event=lambda *event: told.append(event))
    manager = shareddb.BackupManager(server, on_event=told.append)

    async def cancelled(coroutine):
        task = asyncio.create_task(coroutine)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for coroutine in (follower.create_async("never-begun"), follower.rotate_async(app), manager.backup_async(app)):
        asyncio.run(cancelled(coroutine))
    time.sleep(0.1)
    assert told == [] and provisioner.plan("never-begun").exists is False
    assert list(manager.list(app)) == []


def test_what_is_thrown_into_a_coroutine_comes_out(provisioner):
    coroutine = provisioner.create_async("never-begun")
    with pytest.raises(ZeroDivisionError):
        coroutine.throw(ZeroDivisionError())
    unused = provisioner.create_async("never-begun")
    unused.close()
    assert provisioner.plan("never-begun").exists is False


def test_a_timeout_of_the_loop_cancels(provisioner, stopped):
    async def late():
        began = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(provisioner.create_async("late"), 0.2)
        return time.monotonic() - began

    with stopped():
        assert soonest(1, lambda: asyncio.run(late()))


def test_what_follows_a_plan(server):
    told = []
    provisioner = shareddb.Provisioner(server, on_event=lambda word, step: told.append((word, step)))
    report = provisioner.create("followed")
    assert [step for word, step in told if word == "done"] == report.steps
    assert {word for word, _ in told} == {"begun", "done"}

    def refuse(word, step):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        shareddb.Provisioner(server, on_event=refuse).create("refused")
    assert provisioner.create("refused").outcome in ("created", "configured")


class Listener:
    """Somebody who has a provisioner and is told of what it does: a cycle."""

    def __init__(self, server):
        self.provisioner = shareddb.Provisioner(server, on_event=self.hear)

    def hear(self, word, step):
        pass


def test_a_cycle_through_a_listener_is_collected(server):
    listener = Listener(server)
    listener.provisioner.list()
    gone = weakref.ref(listener)
    del listener
    gc.collect()
    assert gone() is None


def spawned(path):
    with shareddb.Environment.local(path).connect() as server:
        return len(shareddb.Provisioner(server).list())


def test_a_spawned_process_works(environment, provisioner, app):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(spawned, (environment.path,)) >= 1


def test_a_forked_process_that_begins_itself_works(environment, app):
    script = """if True:
        import os, sys, shareddb
        if os.fork() == 0:
            with shareddb.Environment.local(sys.argv[1]).connect() as server:
                print(len(shareddb.Provisioner(server).list()) > 0, flush=True)
            os._exit(0)
        os.wait()
    """
    assert run(script, str(environment.path)).stdout.strip() == "True"
