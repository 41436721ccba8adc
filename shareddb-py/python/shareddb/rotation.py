"""Pools of other libraries that follow the mounted Secret, so that nobody notices when credentials change.

Each reads its login again from the folder that a `ConnectionConfig` came from, at most once a second, when a connection is
asked for and when one is opened. Connections of the old login are replaced as they come back; none is taken from whoever has it. From
environment variables no process learns of a change: there the helpers make pools that do not follow.

Django needs no code: `"OPTIONS": {"service": "my-app"}` in an entry of `DATABASES`, with `PGSERVICEFILE` at the mounted
`pg_service.conf`, is read anew with each connection.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ._errors import Error
from ._shareddb import ConnectionConfig

if TYPE_CHECKING:
    import asyncpg
    from psycopg import AsyncConnection, Connection
    from psycopg_pool import AsyncConnectionPool, ConnectionPool
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Login", "async_pool", "asyncpg_pool", "follow_engine", "pool"]

_log = logging.getLogger("shareddb")

# As few as many small apps on one server can afford, and as short-lived as a change of credentials wants them.
_SIZE = 4
_IDLE = 60.0
_DEFAULTS = {"min_size": 0, "max_size": _SIZE, "timeout": 5.0, "max_idle": _IDLE, "max_lifetime": 1800.0}
# After so long without success psycopg_pool begins anew, at once; before, it waits twice as long after each try.
_DEFAULTS["reconnect_timeout"] = 5.0


class Login:
    """A login that is read again from the folder that it came from."""

    def __init__(self, config: ConnectionConfig, *, interval: float = 1.0) -> None:
        self._config = config
        self._interval = interval
        self._generation = 0
        self._lock = threading.Lock()
        self._looked = time.monotonic()

    @property
    def config(self) -> ConnectionConfig:
        """The login as it was last read."""
        return self._config

    @property
    def generation(self) -> int:
        """How often it has changed."""
        return self._generation

    def look(self) -> bool:
        """Read it again, at most once per interval. Whether it has changed.

        What cannot be read, such as a Secret that is just being made, leaves the login as it is.
        """
        if time.monotonic() - self._looked < self._interval:
            return False
        with self._lock:
            if time.monotonic() - self._looked < self._interval:
                return False
            self._looked = time.monotonic()
            try:
                renewed = self._config.renewed()
            except Error as error:
                _log.warning("the login stays as it is: %s", error)
                return False
            if renewed is None:
                return False
            self._config = renewed
            self._generation += 1
            _log.info("new login: %s", renewed)
            return True

    def newest(self) -> Login:
        """This, after a look."""
        self.look()
        return self


def pool(
    config: ConnectionConfig, *, check: Callable[[Connection[Any]], None] | None = None, **options: Any
) -> ConnectionPool[Connection[Any]]:
    """A pool of psycopg_pool's that follows the mounted Secret. The options are those of `psycopg_pool.ConnectionPool`.

    Unless they say otherwise: four connections at most and none that nobody needs, five seconds for one of them to become
    free, a minute idle, half an hour of life. Each is looked at before it is handed out. It is open.
    """
    from psycopg_pool import ConnectionPool

    login = Login(config)
    drained = 0

    def checked(connection: Connection[Any]) -> None:
        nonlocal drained
        if login.newest().generation != drained:
            drained = login.generation
            made.drain()
        (check or ConnectionPool.check_connection)(connection)

    def conninfo() -> str:
        return login.newest().config.conninfo

    words: dict[str, Any] = _DEFAULTS | {"open": True} | options
    made: ConnectionPool[Connection[Any]] = ConnectionPool(conninfo, check=checked, **words)
    return made


def async_pool(
    config: ConnectionConfig, *, check: Callable[[AsyncConnection[Any]], Awaitable[None]] | None = None, **options: Any
) -> AsyncConnectionPool[AsyncConnection[Any]]:
    """The same for coroutines. It is not open yet: `async with shareddb.rotation.async_pool(config) as pool`."""
    from psycopg_pool import AsyncConnectionPool

    login = Login(config)
    drained = 0

    async def checked(connection: AsyncConnection[Any]) -> None:
        nonlocal drained
        if login.newest().generation != drained:
            drained = login.generation
            await made.drain()
        await (check or AsyncConnectionPool.check_connection)(connection)

    async def conninfo() -> str:
        return login.newest().config.conninfo

    words: dict[str, Any] = _DEFAULTS | {"open": False} | options
    made: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(conninfo, check=checked, **words)
    return made


def asyncpg_pool(config: ConnectionConfig, **options: Any) -> asyncpg.Pool[Any]:
    """A pool of asyncpg's that follows the mounted Secret. The options are those of `asyncpg.create_pool`.

    Unless they say otherwise: four connections at most and none that nobody needs, and a minute idle. `await` it, or use
    it in an `async with` block.
    """
    import asyncpg

    login = Login(config)
    expired = 0
    setup = options.pop("setup", None)

    async def connect(*_: Any, **manners: Any) -> asyncpg.Connection[Any]:
        # The pool's own words come first: its classes and its loop.
        made: asyncpg.Connection[Any] = await asyncpg.connect(**login.newest().config.asyncpg() | manners)
        return made

    async def set_up(connection: Any) -> None:
        nonlocal expired
        if login.newest().generation != expired:
            expired = login.generation
            await made.expire_connections()
        if setup is not None:
            await setup(connection)

    defaults: dict[str, Any] = {"min_size": 0, "max_size": _SIZE, "max_inactive_connection_lifetime": _IDLE}
    made: asyncpg.Pool[Any] = asyncpg.create_pool(connect=connect, setup=set_up, **defaults | options)
    return made


def follow_engine(engine: Engine | AsyncEngine, config: ConnectionConfig) -> Login:
    """Have an engine of SQLAlchemy's follow the mounted Secret.

    New connections log in as `config` says by now, whatever the engine's URL says. Old ones are replaced when they are asked
    for. Drivers are psycopg, psycopg2 and asyncpg.

    >>> from sqlalchemy import create_engine
    >>> config = shareddb.ConnectionConfig("db.example", 5432, "my_app_db", "me", password="secret")
    >>> engine = create_engine(config.sqlalchemy_url(), pool_size=4, max_overflow=0, pool_timeout=5, pool_pre_ping=True)
    >>> login = shareddb.rotation.follow_engine(engine, config)
    """
    from sqlalchemy import Engine, event, exc

    # Events are those of the engine within.
    target = engine if isinstance(engine, Engine) else engine.sync_engine
    login = Login(config)

    def do_connect(_dialect: Any, record: Any, _arguments: list[Any], parameters: dict[str, Any]) -> None:
        record.info["shareddb"] = login.newest().generation
        words = login.config.asyncpg() if target.driver == "asyncpg" else login.config.psycopg()
        # What is SQLAlchemy's own, such as async_fallback, stays.
        parameters.update(words)

    def checkout(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info.get("shareddb", 0) != login.newest().generation:
            raise exc.DisconnectionError("the login has changed")

    event.listen(target, "do_connect", do_connect)
    event.listen(target, "checkout", checkout)
    return login
