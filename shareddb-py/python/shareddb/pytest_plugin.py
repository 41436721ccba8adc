"""Fixtures for tests that need a database: `shareddb_env` and `shareddb_app`.

pytest finds them by itself where `shareddb` is installed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from . import ConnectionConfig, Environment


@pytest.fixture(scope="session")
def shareddb_env() -> Iterator[Environment]:
    """An embedded server for this run of the tests; it is gone with all its data at the end."""
    from . import Environment

    with Environment.throw_away() as environment:
        yield environment


@pytest.fixture
def shareddb_app(shareddb_env: Environment) -> Iterator[ConnectionConfig]:
    """How to log in to a fresh app, which is dropped when the test has ended."""
    from . import Provisioner

    name = f"test-{secrets.token_hex(4)}"
    with shareddb_env.connect() as server:
        provisioner = Provisioner(server)
        provisioner.create(name)
        yield provisioner.connection(name)
        provisioner.drop(name, confirm=name)
