"""The stub against the built module, type checkers against the stub, the examples in docstrings against life."""

import ast
import builtins
import doctest
import inspect
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import shareddb
from shareddb import _shareddb

PACKAGE = Path(shareddb.__file__).parent
STUB = ast.parse((PACKAGE / "_shareddb.pyi").read_text())
CLASSES = [node for node in STUB.body if isinstance(node, ast.ClassDef)]
PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def check(module, *arguments, folder):
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_stub_is_that_of_the_module(tmp_path):
    check("mypy.stubtest", "shareddb", "--ignore-disjoint-bases", f"--mypy-config-file={PROJECT}", folder=tmp_path)


def test_the_package_is_typed(tmp_path):
    check("mypy", f"--config-file={PROJECT}", "-p", "shareddb", folder=tmp_path)


SCRIPT = """
import asyncio
from datetime import timedelta
from typing import assert_type

import shareddb

def main(config: shareddb.ConnectionConfig) -> None:
    environment = shareddb.Environment.load("stage", file="shareddb.toml")
    with environment.connect() as server:
        provisioner = shareddb.Provisioner(server, lock_patience=timedelta(seconds=5))
        plan = provisioner.plan("my-app", extensions={"pg_trgm"})
        for line in plan:
            assert_type(line, str)
        if plan:
            assert_type(provisioner.apply(plan), shareddb.Report)
        for summary in provisioner.list():
            assert_type(summary, shareddb.AppSummary)
        for app in provisioner.status().apps:
            assert_type(app.drift, list[str])
        manager = shareddb.BackupManager(server, on_event=lambda event: event.stage)
        backup = manager.backup("my-app")
        assert_type(manager.verify(backup).passed, bool)
        manager.restore("my-app", backup.taken_at, confirm="my-app")
        for judged in manager.plan_prune("my-app", shareddb.RetentionPolicy(daily=7, yearly="all")):
            assert_type(judged.stays, bool)

    async def twin() -> shareddb.Report:
        return await provisioner.create_async("my-app")

    assert_type(asyncio.run(twin()), shareddb.Report)
    with config.pool() as pool, pool.connection() as connection:
        connection.execute("SELECT 1")
    try:
        environment.connect()
    except shareddb.NotFoundError as error:
        assert_type(error.hint, str | None)
"""


def test_a_callers_program_is_typed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    check("mypy", "--strict", "--python-version=3.11", "script.py", folder=tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "extraPaths": [str(PACKAGE.parent), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]})
    )
    check("basedpyright", "--level=error", "script.py", folder=tmp_path)


def test_wrong_programs_are_found(tmp_path):
    (tmp_path / "script.py").write_text('import shareddb\nshareddb.ConnectionConfig("h", "1", "d", "u").replace(host="x")\n')
    for module in ("mypy", "basedpyright"):
        with pytest.raises(AssertionError):
            check(module, "script.py", folder=tmp_path)


def opening(docstring):
    """The first words of it, up to the first pause: what people see of it in a list."""
    return re.split(r"[.,;:](?:\s|$)", " ".join((docstring or "").split()), maxsplit=1)[0]


@pytest.mark.parametrize("described", CLASSES, ids=lambda each: each.name)
def test_the_module_says_what_the_stub_says(described):
    real = getattr(shareddb, described.name)
    members = [node for node in described.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    assert {node.name for node in members} == {name for name in vars(real) if not name.startswith("_")}
    both = {member.name: (getattr(real, member.name).__doc__, ast.get_docstring(member)) for member in members}
    both[described.name] = real.__doc__, ast.get_docstring(described)
    for name, (compiled, read) in both.items():
        assert opening(compiled) and opening(compiled) == opening(read), name


def test_a_star_leaves_what_is_built_in():
    names = {}
    exec("from shareddb import *", names)
    assert "Environment" in names and not set(names) & set(vars(builtins)) - {"__name__", "__doc__", "__builtins__"}


def test_all_is_all():
    assert sorted(shareddb.__all__) == shareddb.__all__
    assert {each.name for each in CLASSES} == {name for name, each in vars(_shareddb).items() if inspect.isclass(each)}
    assert {each.name for each in CLASSES} <= set(shareddb.__all__)
    assert (PACKAGE / "py.typed").exists()


def examples():
    """Every docstring that has an example: those of the stub, which is the one that people read, and of the modules."""
    finder, parser = doctest.DocTestFinder(recurse=False), doctest.DocTestParser()
    for node in ast.walk(STUB):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ">>>" in (ast.get_docstring(node) or ""):
            yield parser.get_doctest(ast.get_docstring(node), {}, node.name, "_shareddb.pyi", node.lineno)
    for module in (shareddb, shareddb.rotation):
        things = [module, *(each for each in vars(module).values() if isinstance(each, types.FunctionType))]
        for thing in things:
            yield from (test for test in finder.find(thing, module=module) if test.examples)


@pytest.mark.parametrize("example", list(examples()), ids=lambda each: each.name)
def test_an_example_does_what_it_says(example):
    example.globs = {"shareddb": shareddb}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said = []
    runner.run(example, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


def test_there_are_examples():
    assert len(list(examples())) >= 5
