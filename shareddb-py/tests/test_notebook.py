"""A kernel of IPython's, in whose event loop cells run."""

import os
import signal
import threading

import nbformat
import pytest
from nbclient import NotebookClient

import shareddb


@pytest.fixture
def cell(environment, tmp_path, monkeypatch):
    """Runs a cell in a kernel of this test's own. Gives its last output."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = nbformat.v4.new_notebook()
    client = NotebookClient(notebook, timeout=60, allow_errors=True, kernel_name="python3")

    def run(text):
        notebook.cells.append(nbformat.v4.new_code_cell(text))
        client.execute_cell(notebook.cells[-1], len(notebook.cells) - 1)
        outputs = notebook.cells[-1].outputs
        return outputs[-1] if outputs else None

    with client.setup_kernel():
        begin = f"""
            import os, shareddb
            server = shareddb.Environment.local({str(environment.path)!r}).connect()
            provisioner = shareddb.Provisioner(server)
        """
        assert run(f"if True:{begin}") is None
        yield run


def test_cells(cell, app):
    made = cell('provisioner.create("from-a-cell")')
    assert "<table>" in made.data["text/html"] and "app from-a-cell created" in made.data["text/html"]
    listed = cell("provisioner.list()")
    assert f"<td" in listed.data["text/html"] and app in listed.data["text/html"]
    assert listed.data["text/plain"].splitlines()[0].split()[0] == "NAME"
    status = cell(f'provisioner.status("{app}")')
    assert "<caption" in status.data["text/html"] and app in status.data["text/html"]
    awaited = cell('(await provisioner.create_async("from-a-cell")).outcome')
    assert awaited.data["text/plain"] == "'unchanged'"
    refused = cell('provisioner.drop("from-a-cell", confirm="another")')
    assert refused.ename == "RefusedError"
    assert cell('print(provisioner.drop("from-a-cell", confirm="from-a-cell"))').text == "from-a-cell dropped\n"


def test_a_cell_that_is_interrupted(cell, stopped):
    kernel = int(cell("os.getpid()").data["text/plain"])
    with stopped():
        timer = threading.Timer(0.5, os.kill, (kernel, signal.SIGINT))
        timer.start()
        assert cell("provisioner.list()").ename == "KeyboardInterrupt"
        timer.join()
    assert isinstance(shareddb.__version__, str) and "text/html" in cell("provisioner.list()").data
