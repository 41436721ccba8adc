"""Every outcome of the library is an exception of its own, met in life."""

import builtins
import os
import pickle
import signal

import pytest

import shareddb

BUILTINS = {
    shareddb.InvalidInputError: ValueError,
    shareddb.NotFoundError: LookupError,
    shareddb.ConflictError: Exception,
    shareddb.PermissionDeniedError: PermissionError,
    shareddb.RefusedError: Exception,
    shareddb.UnavailableError: ConnectionError,
    shareddb.TimeoutError: TimeoutError,
    shareddb.ToolFailedError: Exception,
    shareddb.FailedError: Exception,
}


@pytest.mark.parametrize("ours, builtin", BUILTINS.items(), ids=lambda each: each.__name__)
def test_the_tree(ours, builtin):
    assert issubclass(ours, shareddb.Error) and issubclass(ours, builtin)
    assert (ours.__module__, ours.code, ours.hint, ours.retryable) == ("shareddb", "failed", None, False)
    assert ours.__doc__ and str(ours("a message")) == "a message"
    assert getattr(shareddb, ours.__name__) is ours
    assert (ours.__name__ in shareddb.__all__) != hasattr(builtins, ours.__name__)


def test_the_tree_is_whole():
    assert set(shareddb.Error.__subclasses__()) == set(BUILTINS)


def raised(call, kind, code):
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert type(error) is kind and error.code == code
    assert error.retryable == (kind in (shareddb.UnavailableError, shareddb.TimeoutError))
    assert error.__cause__ is None and (error.hint is None) == (not hasattr(error, "__notes__"))
    return error


def test_invalid_input(provisioner):
    error = raised(lambda: provisioner.plan("My_App"), shareddb.InvalidInputError, "name_invalid")
    assert "My_App" in str(error)


def test_not_found(provisioner):
    error = raised(lambda: provisioner.app("absent"), shareddb.NotFoundError, "app_not_found")
    assert error.__notes__ == [f"hint: {error.hint}"]
    came = pickle.loads(pickle.dumps(error))
    assert type(came) is shareddb.NotFoundError
    assert (str(came), came.code, came.hint, came.retryable) == (str(error), error.code, error.hint, False)


def test_what_else_cannot_be_pickled(environment, server, provisioner, app):
    plan = provisioner.plan(app, connections=3)
    for thing in (environment, server, provisioner, plan, plan.app, provisioner.list()[0], provisioner.connection(app)):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    assert pickle.loads(pickle.dumps(provisioner.list().to_dicts()))


def test_conflict(provisioner, app):
    raised(lambda: provisioner.create(app, database="another"), shareddb.ConflictError, "name_recorded")


def test_the_cause_is_in_the_message(tmp_path):
    (tmp_path / "DB_HOST").symlink_to("DB_HOST")
    error = raised(lambda: shareddb.ConnectionConfig.from_directory(tmp_path), shareddb.FailedError, "io")
    assert "cannot read" in str(error) and "symbolic links" in str(error)


def test_permission_denied(tmp_path, endpoint):
    file = tmp_path / "shareddb.toml"
    file.write_text(f"""
        [env.wrong]
        admin_url = "postgresql://{endpoint.admin}@{endpoint.host}:{endpoint.port}/postgres"
        admin_password_file = "password"
        store = "dir:secrets"
    """)
    (tmp_path / "password").write_text("not-it")
    (tmp_path / "password").chmod(0o600)
    with shareddb.Environment.load("wrong", file=file).connect() as server:
        provisioner = shareddb.Provisioner(server)
        error = raised(provisioner.list, shareddb.PermissionDeniedError, "password_rejected")
    assert isinstance(error, OSError) and "not-it" not in str(error)


def test_refused(provisioner, app):
    error = raised(lambda: provisioner.drop(app, confirm="other"), shareddb.RefusedError, "confirmation_required")
    assert f"--confirm {app}" in error.hint


def test_unavailable(tmp_path):
    absent = shareddb.Environment.local(tmp_path / "absent")
    raised(absent.connect, shareddb.UnavailableError, "server_not_running")


def test_timeout(provisioner, stopped):
    with stopped(), pytest.raises(TimeoutError) as caught:
        provisioner.list()
    assert type(caught.value) is shareddb.TimeoutError and caught.value.retryable


def test_tool_failed(server, app, endpoint, tmp_path):
    for program in ("pg_dump", "pg_restore"):
        path = tmp_path / program
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {endpoint.binaries / program} "$@"\necho broken >&2\nexit 3\n')
        path.chmod(0o755)
    manager = shareddb.BackupManager(server, binaries=tmp_path)
    error = raised(lambda: manager.backup(app), shareddb.ToolFailedError, "tool_failed")
    assert "broken" in str(error)


def test_failed(provisioner):
    provisioner.list()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # What is said here no test sees: only the pipe leads out.
        try:
            signal.alarm(10)
            provisioner.list()
            said = "no error"
        except shareddb.Error as error:
            said = f"{type(error).__name__} {error.code}: {error.hint}"
        except BaseException as error:
            said = repr(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said.startswith("FailedError forked: ") and "spawn" in said
    provisioner.list()
