"""Databases for many small applications on one shared PostgreSQL server.

Everything that waits does so without the GIL and can be interrupted with Ctrl-C; what was done until then stays done,
and the same call goes on from there. It may be called from several threads at once, and in an event loop, which stands
still meanwhile: `await asyncio.to_thread(provisioner.create, "my-app")` keeps it going.

A process forked after the first such call gets a `FailedError` with the code `forked` from each of them.
"""

import builtins
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import Literal, final

__all__ = [
    "Adopt",
    "App",
    "AppSummary",
    "ConflictError",
    "ConnectionConfig",
    "Environment",
    "Error",
    "FailedError",
    "InvalidInputError",
    "LocalEndpoint",
    "NotFoundError",
    "PermissionDeniedError",
    "Plan",
    "Provisioner",
    "RefusedError",
    "Report",
    "Server",
    "TimeoutError",
    "ToolFailedError",
    "UnavailableError",
    "__version__",
]

__version__: str

class Error(Exception):
    """What shareddb raises. `str` gives the message with its causes."""

    code: str
    """A stable word for programs, such as `name_invalid`."""
    hint: str | None
    """What to do about it, when that is known. Tracebacks show it from Python 3.11 on."""
    retryable: bool
    """Whether the same call may succeed later with nothing else changed."""

class InvalidInputError(Error, ValueError):
    """The input breaks a rule; nothing was sent anywhere."""

class NotFoundError(Error, LookupError):
    """A named thing does not exist."""

class ConflictError(Error):
    """Something else is where our object should be, or changed under us."""

class PermissionDeniedError(Error, PermissionError):
    """Credentials or rights were not enough."""

class RefusedError(Error):
    """Possible, but declined until the caller says so explicitly."""

class UnavailableError(Error, ConnectionError):
    """A server, file or program that is needed is not there, or not now."""

class TimeoutError(Error, builtins.TimeoutError):
    """It took longer than allowed."""

class ToolFailedError(Error):
    """A program that was run ended with an error."""

class FailedError(Error):
    """Everything else."""

@final
class Environment:
    """One shared server and its place. It holds no connection."""

    @staticmethod
    def local(
        path: str | PathLike[str] | None = None, *, binaries: str | PathLike[str] | None = None
    ) -> Environment:
        """The embedded server that lives in the folder `path`.

        Without `path` it is `$SHAREDDB_HOME/local`; else `/var/lib/shareddb/local` for root; else `shareddb/local`
        under `$XDG_DATA_HOME` or `~/.local/share`; and `SHAREDDB_PG_BIN` names the directory of PostgreSQL's programs.
        `binaries` names it in any case; by default they are searched.
        """

    @staticmethod
    def named(
        name: str | None = None,
        *,
        namespace: str | None = None,
        context: str | None = None,
        kubeconfig: str | PathLike[str] | None = None,
        tunnel: bool = False,
    ) -> Environment:
        """An environment of `shareddb.toml`, or one of `production`, `stage` and `local`, which exist without it.

        Without `name` it is the one that `SHAREDDB_ENV` or the file chooses. The other arguments are for environments
        in Kubernetes. The server is reached through a tunnel of the Kubernetes API where the name of its Service means
        nothing, and with `tunnel` in any case. Raises `NotFoundError` when there is none of that name.
        """

    @property
    def name(self) -> str:
        """The name."""

    @property
    def path(self) -> Path | None:
        """The folder of the embedded server; `None` for another."""

    def deploy(self) -> LocalEndpoint:
        """Start the server, make it the first time. That it runs already is not an error. It outlives this process."""

    def stop(self) -> bool:
        """End the embedded server and keep its data. `False` when it was not running, or is another."""

    def connect(self) -> Server:
        """Find the running server. Nobody logs in yet. A tunnel to it ends with the last that is made from this `Server`.

        Raises `UnavailableError` when it does not run.
        """

@final
class LocalEndpoint:
    """The running embedded server."""

    @property
    def host(self) -> str:
        """The address that the server listens on."""

    @property
    def port(self) -> int:
        """The TCP port on it; the same at every start."""

    @property
    def admin(self) -> str:
        """The superuser's name."""

    @property
    def password_file(self) -> Path:
        """The file of mode 0600 that keeps the superuser's password."""

    @property
    def version(self) -> str:
        """What the server calls its version."""

    @property
    def pid(self) -> int:
        """The server's process."""

    @property
    def binaries(self) -> Path:
        """The directory of the programs that fit this server."""

    @property
    def started(self) -> bool:
        """Whether this call started it."""

    @property
    def created(self) -> bool:
        """Whether this call made the data directory."""

    @property
    def moved(self) -> bool:
        """Whether the home was moved since the server started: until it is stopped and started it cannot read its
        settings anew."""

@final
class Server:
    """An environment's server within reach."""

    @property
    def environment(self) -> str:
        """The environment's name."""

@final
class Provisioner:
    """Provisions the apps of one server. Everything can be done again: what is as it should be is left alone."""

    def __new__(cls, server: Server) -> Provisioner:
        """A provisioner for `server`. Connects to nothing yet."""

    def plan(
        self,
        app: str,
        *,
        database: str | None = None,
        user: str | None = None,
        connections: int | None = None,
        search_path: Iterable[str] | None = None,
        extensions: Iterable[str] | None = None,
        settings: dict[str, str] | None = None,
        allow_overcommit: bool = False,
        secure_server: bool = False,
        adopt: Adopt | None = None,
    ) -> Plan:
        """Decide what `create` would do, and do nothing.

        Raises `ConflictError` when one of the app's names is taken, and `RefusedError` when the server is unfit or
        promised to others.
        """

    def create(
        self,
        app: str,
        *,
        database: str | None = None,
        user: str | None = None,
        connections: int | None = None,
        search_path: Iterable[str] | None = None,
        extensions: Iterable[str] | None = None,
        settings: dict[str, str] | None = None,
        allow_overcommit: bool = False,
        secure_server: bool = False,
        adopt: Adopt | None = None,
    ) -> Report:
        """Make an app what the arguments say: its database, roles, schema, rights, password and Secret.

        An argument left out means "as recorded, else the default". `extensions` and `settings` are the whole list and
        the whole set. Raises as `plan` does.
        """

    def plan_drop(self, app: str) -> Plan:
        """Decide what `drop` would do, and do nothing."""

    def apply(self, plan: Plan) -> Report:
        """Carry out a plan.

        Raises `ConflictError` with the code `plan_stale` when something else would be decided now; nothing was done
        then. That everything is done already is not an error.
        """

    def drop(self, app: str, *, confirm: str) -> Report:
        """Remove an app with its data. `confirm` is the app's name again.

        Raises `RefusedError` when it is another text, and `NotFoundError` when there is no such app.
        """

    def plan_undo_adopt(self, app: str) -> Plan:
        """Decide what `undo_adopt` would do, and do nothing."""

    def undo_adopt(self, app: str) -> Report:
        """Give an adopted app back as it was: its login, password, rights and settings; the Secret stays.

        Raises `RefusedError` when the app was not adopted, or its second login has been issued since.
        """

    def list(self) -> builtins.list[AppSummary]:
        """Every app of the server, by name."""

    def app(self, app: str) -> App:
        """An app as it is recorded. Raises `NotFoundError` when there is none."""

    def connection(self, app: str) -> ConnectionConfig:
        """How an app logs in, as its Secret says. Raises `NotFoundError` when there is no such app or Secret."""

@final
class Plan:
    """What would be done for one app, in order: iterates over lines of text. Falsy when there is nothing to do.

    It holds no secret. `str` gives the lines as the command line shows them.
    """

    @property
    def app(self) -> App:
        """The app as it will be."""

    @property
    def exists(self) -> bool:
        """Whether the app is recorded already."""

    @property
    def steps(self) -> list[str]:
        """The changes, in order; each begins with `+`, `~`, `-`, or `?` for a check."""

    @property
    def notices(self) -> list[str]:
        """What a person should know although nothing will be done about it."""

    @property
    def gaps(self) -> list[str]:
        """What ought to be different and is not for the admin to change, each with the statement that changes it."""

    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Report:
    """What a run has done."""

    @property
    def app(self) -> App:
        """The app, as it is now."""

    @property
    def outcome(self) -> Literal["created", "configured", "unchanged", "dropped", "adopted", "released"]:
        """What became of it."""

    @property
    def steps(self) -> list[str]:
        """The steps that were done."""

    @property
    def proof(self) -> Literal["complete", "incomplete"] | None:
        """What the trial login found. `incomplete`: the password is right, but every session is in use."""

    @property
    def notices(self) -> list[str]:
        """What a person should know."""

    @property
    def gaps(self) -> list[str]:
        """What ought to be different and is not for the admin to change, each with the statement that changes it."""

@final
class Adopt:
    """That an app made by hand is to be taken over, and what the caller consents to."""

    def __new__(
        cls,
        *,
        demote: bool = False,
        keep_memberships: bool = False,
        take_from: Iterable[str] | None = None,
        keep_grants: bool = False,
        allow_connect: Iterable[str] | None = None,
        close_to_others: bool = False,
        accept_name_change: bool = False,
        end_sessions: bool = False,
        drop_foreign_grants: bool = False,
    ) -> Adopt:
        """Each argument answers a finding that would refuse the adoption."""

    def __eq__(self, other: object, /) -> bool: ...

@final
class App:
    """Everything one app owns, by name, and the settings in force for it."""

    @property
    def name(self) -> str:
        """The app's own name."""

    @property
    def environment(self) -> str:
        """The environment it was made in."""

    @property
    def database(self) -> str:
        """The database."""

    @property
    def owner(self) -> str:
        """The role that owns every object of the app and cannot log in."""

    @property
    def logins(self) -> tuple[str, str]:
        """The two logins; rotation uses them in turn."""

    @property
    def maintenance(self) -> str:
        """The login of backups and restores, closed between them."""

    @property
    def schema(self) -> str:
        """The app's schema."""

    @property
    def secret(self) -> str:
        """The Secret that holds the credentials."""

    @property
    def connections(self) -> int:
        """Sessions that each login may have."""

    @property
    def search_path(self) -> list[str]:
        """Schemas searched for unqualified names, in order."""

    @property
    def extensions(self) -> list[str]:
        """Extensions that an admin made for the app."""

    @property
    def settings(self) -> dict[str, str]:
        """Server settings of the app's sessions."""

    def __eq__(self, other: object, /) -> bool: ...

@final
class AppSummary:
    """One app in a list."""

    @property
    def app(self) -> App:
        """The app as recorded."""

    @property
    def size(self) -> int | None:
        """Its database's size in bytes, if there is one."""

    @property
    def sessions(self) -> int:
        """Sessions in its database at this moment."""

    @property
    def dropping(self) -> bool:
        """A drop has begun."""

@final
class ConnectionConfig:
    """Everything needed to log in to one database as one user.

    Neither `str` nor `repr` shows the password. It cannot be pickled, so that the password gets into no file by
    accident.
    """

    @staticmethod
    def from_env() -> ConnectionConfig:
        """Read this process's environment.

        One source supplies everything: `SHAREDDB_SECRET_DIR`, `SERVICE_BINDING_ROOT`, `DATABASE_URL`, `DATABASE_*`,
        `DB_*` or `PG*`, the first of them that is complete.
        """

    @staticmethod
    def from_url(url: str) -> ConnectionConfig:
        """Read a `postgresql://` URL, strictly. No error repeats any piece of it."""

    @staticmethod
    def from_directory(path: str | PathLike[str]) -> ConnectionConfig:
        """Read a directory as Kubernetes mounts a Secret."""

    @property
    def host(self) -> str:
        """The host name, address, or socket directory."""

    @property
    def port(self) -> int:
        """The port."""

    @property
    def database(self) -> str:
        """The database."""

    @property
    def user(self) -> str:
        """The user."""

    def url(self) -> str:
        """A `postgresql://` URL, with the password."""

    def libpq(self) -> str:
        """libpq's keyword string, as psycopg and psql take it, with the password."""

    def environ(self) -> dict[str, str]:
        """libpq's environment variables, `PGHOST` and so on, `PGPASSWORD` among them.

        A child process should inherit no other `PG…` variable: libpq would mix them in.
        """
