"""What the plugin for pytest brings, and what the library logs."""

import logging

import shareddb


def test_a_fresh_app(shareddb_app, psql):
    assert psql(shareddb_app, "SELECT current_database()") == shareddb_app.database


def test_the_server_is_the_same_for_all(shareddb_env, environment):
    assert shareddb_env is environment


def test_what_the_library_logs(server, app, tmp_path, caplog):
    manager = shareddb.BackupManager(server, str(tmp_path))
    manager.backup(app)
    (tmp_path / "local" / app / "100%s.stranger").write_text("nobody's")
    with caplog.at_level(logging.WARNING, logger="shareddb"):
        manager.list(app)
    [record] = [record for record in caplog.records if "stranger" in record.getMessage()]
    assert (record.name, record.levelname) == ("shareddb", "WARNING")
    assert "passed over" in record.getMessage() and "100%s.stranger" in record.getMessage()
    caplog.clear()
    with caplog.at_level(logging.ERROR, logger="shareddb"):
        manager.list(app)
    assert not caplog.records
