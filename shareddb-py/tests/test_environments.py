"""Environments and servers: where they come from, and blocks that they are used in."""

import subprocess
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


def test_a_folder_without_programs_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    absent = tmp_path / "absent"
    with pytest.raises(shareddb.Error):
        with shareddb.Environment.throw_away(binaries=absent):
            pass
    assert list(tmp_path.iterdir()) == []


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


def test_the_command_and_the_module_see_the_same(environment, app, endpoint):
    """Beside the library there is one place where things are kept: the server."""
    query = "SELECT count(*) FROM pg_database WHERE datname = '{}'"
    config = environment.stored_connection(app)
    out = subprocess.run(
        [endpoint.binaries / "psql", config.url, "-Atc", query.format(config.database)], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "1"
