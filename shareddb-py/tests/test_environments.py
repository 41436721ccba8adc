"""Environments and servers: where they come from, and blocks that they are used in."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import shareddb


def test_the_file_that_is_named_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SHAREDDB_HOME", raising=False)
    file = tmp_path / "mine.toml"
    file.write_text("""
        default = "shop"
        [env.shop]
        admin_url = "postgresql://postgres@127.0.0.1:1/postgres"
        store = "dir:secrets"
        backups = "backups"
    """)
    shop = shareddb.Environment.load(file=file)
    assert (shop.name, shop.path, shop.backups) == ("shop", None, f"file://{tmp_path}/backups")
    assert shareddb.Environment.load("stage", file=str(file)).name == "stage"
    with pytest.raises(shareddb.NotFoundError) as unknown:
        shareddb.Environment.load("shop")
    assert unknown.value.code == "env_unknown"
    with pytest.raises(LookupError):
        shareddb.Environment.load(file=tmp_path / "absent.toml")
    file.rename(tmp_path / "shareddb.toml")
    assert shareddb.Environment.load().name == "shop"
    monkeypatch.setenv("SHAREDDB_ENV", "local")
    assert shareddb.Environment.load().name == "local"
    with pytest.raises(TypeError):
        shareddb.Environment.load("shop", tmp_path)


def test_a_server_for_one_block(eventually):
    with shareddb.Environment.throw_away() as environment:
        folder = environment.path.parent
        pid = environment.deploy().pid
        with environment:
            assert environment.deploy().pid == pid, "an inner block starts nothing"
        assert environment.deploy().pid == pid, "and ends nothing"
        with environment.connect() as server:
            assert list(shareddb.Provisioner(server).list()) == []
    assert not folder.exists()
    eventually("the server's process is over", lambda: not Path(f"/proc/{pid}").exists())


def test_data_stay_where_a_folder_was_named(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    for parent in [folder, *folder.parents]:
        if parent.stat().st_uid == folder.stat().st_uid and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o111)
    with shareddb.Environment.local(folder / "local") as environment:
        with environment.connect() as server:
            shareddb.Provisioner(server).create("stays")
    with pytest.raises(shareddb.UnavailableError):
        environment.connect()
    with environment, environment.connect() as server:
        assert [each.app.name for each in shareddb.Provisioner(server).list()] == ["stays"]
        environment.stop()
    assert environment.stored_connection("stays").database == "stays_db"
    with pytest.raises(LookupError):
        environment.stored_connection("absent")


def test_what_raises_in_a_block_comes_through():
    with pytest.raises(ZeroDivisionError):
        with shareddb.Environment.throw_away() as environment:
            1 / 0
    assert not environment.path.parent.exists()


def alive(pid):
    """A zombie, which somebody has yet to look at, is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def temporary(tmp_path_factory, monkeypatch):
    """A folder for temporary files of this test's own, through which the server's account gets."""
    folder = tmp_path_factory.mktemp("temporary")
    for parent in [folder, *folder.parents]:
        if parent.stat().st_uid == folder.stat().st_uid and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o111)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_nothing_is_there_before_a_block(temporary):
    environment = shareddb.Environment.throw_away()
    assert list(temporary.iterdir()) == [] and environment.path.parent.parent == temporary
    assert not environment.stop()
    with pytest.raises(shareddb.UnavailableError):
        environment.connect()
    assert list(temporary.iterdir()) == []


def test_a_folder_without_programs_leaves_nothing_behind(temporary):
    absent = shareddb.Environment.throw_away(binaries=temporary / "absent")
    with pytest.raises(shareddb.Error):
        with absent:
            pass
    with pytest.raises(shareddb.Error):
        absent.deploy()
    assert list(temporary.iterdir()) == []


def test_what_was_started_before_the_block_goes_with_it(temporary, eventually):
    environment = shareddb.Environment.throw_away()
    pid = environment.deploy().pid
    with environment, environment:
        assert environment.deploy().pid == pid
        (environment.path / "mark").touch()
    assert list(temporary.iterdir()) == []
    eventually("the server's process is over", lambda: not alive(pid))
    with environment:
        assert environment.deploy().pid and not (environment.path / "mark").exists(), "a later block begins anew"
    assert list(temporary.iterdir()) == []


def test_a_server_that_cannot_be_stopped_goes_as_well(temporary):
    with shareddb.Environment.throw_away() as environment:
        pid = environment.deploy().pid
        # A home that others may write to is not worked in.
        environment.path.chmod(0o777)
        with pytest.raises(shareddb.PermissionDeniedError):
            environment.stop()
    assert list(temporary.iterdir()) == []
    os.kill(pid, signal.SIGQUIT)


BLOCK = """if True:
    import os, signal, sys, tempfile, threading, time, shareddb
    tempfile.tempdir, delay = sys.argv[1], float(sys.argv[2])
    def interrupt():
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGINT)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with shareddb.Environment.throw_away() as environment:
            print("entered", flush=True)
            time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5])
def test_ctrl_c_leaves_no_server_behind(temporary, delay, eventually):
    done = subprocess.run([sys.executable, "-c", BLOCK, temporary, str(delay)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.endswith("interrupted\n"), done
    assert list(temporary.iterdir()) == []
    working = f"{temporary}/".encode()
    eventually("nobody works there", lambda: not any(working in line for line in commands()))


def commands():
    """The command lines of all processes."""
    for entry in Path("/proc").iterdir():
        try:
            yield (entry / "cmdline").read_bytes()
        except OSError:
            pass


def test_a_block_leaves_a_server_alone_that_is_not_embedded(tmp_path, endpoint):
    file = tmp_path / "shareddb.toml"
    file.write_text(f"""
        [env.shop]
        admin_url = "postgresql://{endpoint.admin}@{endpoint.host}:{endpoint.port}/postgres"
        admin_password_file = "{endpoint.password_file}"
        store = "dir:secrets"
    """)
    with shareddb.Environment.load("shop", file=file) as environment, environment.connect() as server:
        assert environment.name == "shop"
        shareddb.Provisioner(server).list()
    with environment:
        pass
    with environment.connect() as server:
        shareddb.Provisioner(server).list()
    with pytest.raises(shareddb.Error) as refused:
        environment.deploy()
    assert refused.value.code == "not_embedded"


def test_a_closed_server(environment):
    with environment.connect() as server:
        provisioner, manager = shareddb.Provisioner(server), shareddb.BackupManager(server)
        provisioner.list()
        assert not server.closed
    assert server.closed and "closed" in repr(server)
    server.close()
    for call in (provisioner.list, lambda: manager.backup("any"), lambda: provisioner.plan("any")):
        with pytest.raises(shareddb.InvalidInputError) as closed:
            call()
        assert closed.value.code == "server_closed"


def test_the_command_and_the_module_see_the_same(environment, provisioner, app, command):
    listed = [(each.app.name, each.app.database) for each in provisioner.list()]
    told = [line.split()[:2] for line in command("list").stdout.splitlines()[1:]]
    assert told == [list(each) for each in listed] and app in dict(listed)
    plan = provisioner.plan("planned-twice", connections=3, settings={"work_mem": "8MB"})
    dry = command("create", "planned-twice", "--connections", "3", "--set", "work_mem=8MB", "--dry-run").stdout
    assert plan and str(plan) in dry
    made = command("create", "planned-twice", "--connections", "3", "--set", "work_mem=8MB")
    assert made.stdout == "app/planned-twice created\n"
    assert not provisioner.plan("planned-twice")
    assert command("env", "planned-twice", "--format", "url").stdout.strip() == provisioner.connection("planned-twice").url
