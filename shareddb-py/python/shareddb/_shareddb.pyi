"""The compiled half of `shareddb`: import its names from there."""

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, final

from psycopg import Connection
from psycopg_pool import ConnectionPool

from ._tables import AppList, AppStatusList, BackupList

__all__ = [
    "Adopt",
    "App",
    "AppStatus",
    "AppSummary",
    "Backup",
    "BackupEvent",
    "BackupManager",
    "ConnectionConfig",
    "Environment",
    "ExplainedField",
    "Explanation",
    "Judged",
    "LocalEndpoint",
    "LoginStatus",
    "Plan",
    "Provisioner",
    "PrunePlan",
    "Pruned",
    "PsqlCommand",
    "Report",
    "RestoreReport",
    "RetentionPolicy",
    "Server",
    "ServerStatus",
    "Status",
    "Verification",
    "Wall",
    "Workload",
    "__version__",
]

__version__: str

_Paths = str | PathLike[str] | Iterable[str | PathLike[str]]
_SslMode = Literal["disable", "require", "verify-ca", "verify-full"]

@final
class Environment:
    """One shared server and its place. It holds no connection.

    In a `with` block the embedded server runs: what the block has started ends with it, and its data stay. Another server
    is left alone by the block.
    """

    @staticmethod
    def load(
        name: str | None = None,
        *,
        file: str | PathLike[str] | None = None,
        namespace: str | None = None,
        context: str | None = None,
        kubeconfig: str | PathLike[str] | None = None,
        tunnel: bool = False,
    ) -> Environment:
        """An environment of `shareddb.toml`, or one of `production`, `stage` and `local`, which exist without it.

        Without `name` it is the one that `SHAREDDB_ENV` or the file chooses. `file` is read in the place of the file
        that is looked for: `shareddb.toml` in the working directory or above it, else in the user's settings. The other
        arguments are for environments in Kubernetes. The server is reached through a tunnel of the Kubernetes API where
        the name of its Service means nothing, and with `tunnel` in any case. Raises `NotFoundError` when there is none
        of that name.
        """

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
    def throw_away(*, binaries: str | PathLike[str] | None = None) -> Environment:
        """An embedded server for one `with` block: it is made in a folder for temporary files, and gone with all its
        data at the end.

        That is the end of the last block that uses it, whoever has started it. When a block cannot begin, nothing of it
        stays either; after a Ctrl-C it goes in the background, and the interpreter waits for that before it ends.

        >>> with shareddb.Environment.throw_away() as environment:
        ...     environment.name
        'local'
        """

    @property
    def name(self) -> str:
        """The name."""

    @property
    def path(self) -> Path | None:
        """The folder of the embedded server; `None` for another."""

    @property
    def backups(self) -> str | None:
        """The URL of the store with its backups; `None` where nobody has said it."""

    def deploy(self) -> LocalEndpoint:
        """Start the server, make it the first time. That it runs already is not an error. It outlives this process."""

    def stop(self) -> bool:
        """End the embedded server and keep its data. `False` when it was not running, or is another."""

    def connect(self) -> Server:
        """Find the running server. Nobody logs in yet. A tunnel to it ends when the `Server` is closed, or with the
        last object that was made from it; the address of a tunnel, which a `ConnectionConfig` has as its `hostaddr`, leads
        nowhere from then on.

        Raises `UnavailableError` when it does not run.
        """

    def stored_connection(self, app: str) -> ConnectionConfig:
        """How an app logs in from where it runs, as its Secret says. The server need not run. From here there may be
        another way: `Provisioner.connection`.

        Raises `NotFoundError` when there is no Secret of that app.
        """

    def __enter__(self) -> Environment: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

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
    """An environment's server within reach. A `with` block closes it at its end."""

    @property
    def environment(self) -> str:
        """The environment's name."""

    @property
    def closed(self) -> bool:
        """Whether it was closed."""

    def close(self) -> None:
        """Let go of the server: a tunnel to it ends, once no call needs it any more. Done again, it does nothing.

        What was made from this `Server` raises `InvalidInputError` with the code `server_closed` from then on.
        """

    def __enter__(self) -> Server: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

@final
class Provisioner:
    """Provisions the apps of one server. Everything can be done again: what is as it should be is left alone.

    A coroutine that nobody awaits does nothing, and nothing warns of it.
    """

    def __new__(
        cls,
        server: Server,
        *,
        on_event: Callable[[Literal["begun", "done"], str], object] | None = None,
        lock_patience: timedelta | None = None,
    ) -> Provisioner:
        """A provisioner for `server`. Connects to nothing yet.

        `on_event` is called with `begun` or `done` and a step while a plan is carried out; what it raises ends that.
        It is called on a thread of the library, also after a Ctrl-C has ended the call, until what that began is over;
        and it cannot call shareddb itself. `lock_patience` is how long a run waits while another one works on the same
        app; a minute when nothing was said.
        """

    def plan(
        self,
        app: str,
        *,
        database: str | None = None,
        user: str | None = None,
        connections: int | None = None,
        search_path: Iterable[str] | None = None,
        extensions: Iterable[str] | None = None,
        settings: Mapping[str, str] | None = None,
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
        settings: Mapping[str, str] | None = None,
        allow_overcommit: bool = False,
        secure_server: bool = False,
        adopt: Adopt | None = None,
    ) -> Report:
        """Make an app what the arguments say: its database, roles, schema, rights, password and Secret.

        An argument left out means "as recorded, else the default". `extensions` and `settings` are the whole list and
        the whole set. Raises as `plan` does.
        """

    def create_async(
        self,
        app: str,
        *,
        database: str | None = None,
        user: str | None = None,
        connections: int | None = None,
        search_path: Iterable[str] | None = None,
        extensions: Iterable[str] | None = None,
        settings: Mapping[str, str] | None = None,
        allow_overcommit: bool = False,
        secure_server: bool = False,
        adopt: Adopt | None = None,
    ) -> Coroutine[Any, Any, Report]:
        """`create` for a coroutine. Cancelled, it ends where it is; the same call goes on from there."""

    def plan_drop(self, app: str) -> Plan:
        """Decide what `drop` would do, and do nothing."""

    def apply(self, plan: Plan) -> Report:
        """Carry out a plan.

        Raises `ConflictError` with the code `plan_stale` when something else would be decided now; nothing was done
        then. That everything is done already is not an error.
        """

    def drop(self, app: str, *, confirm: str) -> Report:
        """Remove an app with its data. `confirm` is the app's name again.

        No backup is taken: `BackupManager.last_backup` takes one that lacks nothing. Raises `RefusedError` when it is another text, and `NotFoundError` when there is no such app.
        """

    def plan_rotate(
        self,
        app: str,
        *,
        grace: timedelta | None = None,
        now: bool = False,
        restart: bool = False,
    ) -> Plan:
        """Decide what `rotate` would do, and do nothing."""

    def rotate(
        self,
        app: str,
        *,
        grace: timedelta | None = None,
        now: bool = False,
        restart: bool = False,
    ) -> Report:
        """Give an app a new password without a failed query: its other login gets one, the Secret comes to name it, and
        the login before it goes on working until the `grace` is over, a week.

        With `now` the old login is closed and its sessions are ended as soon as the Secret has the new one. With
        `restart` workloads that take the password from their variables are restarted. Raises `RefusedError` when the
        other login still works, with who uses it, or sessions of its last turn fill it, and `NotFoundError` when there
        is no such app.
        """

    def rotate_async(
        self,
        app: str,
        *,
        grace: timedelta | None = None,
        now: bool = False,
        restart: bool = False,
    ) -> Coroutine[Any, Any, Report]:
        """`rotate` for a coroutine. Cancelled, it ends where it is, and the Secret works; the same call goes on from
        there."""

    def plan_undo_adopt(self, app: str) -> Plan:
        """Decide what `undo_adopt` would do, and do nothing."""

    def undo_adopt(self, app: str) -> Report:
        """Give an adopted app back as it was: its login, password, rights and settings; the Secret stays.

        Raises `RefusedError` when the app was not adopted, or its second login has been issued since.
        """

    def list(self) -> AppList:
        """Every app of the server, by name: a list that prints as a table."""

    def status(self, app: str | None = None) -> Status:
        """The server, and all its apps or one of them, each compared with its record.

        Raises `NotFoundError` when the one app does not exist. An app that is not in order is not an error: see
        `AppStatus.drift` and `AppStatus.problem`.
        """

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
    def workloads(self) -> list[Workload] | None:
        """What takes its Secret; `None` where it cannot be told, and where nobody asks: only a rotation does."""

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
    def _repr_html_(self) -> str: ...

@final
class Report:
    """What a run has done."""

    @property
    def app(self) -> App:
        """The app, as it is now."""

    @property
    def outcome(self) -> Literal["created", "configured", "unchanged", "dropped", "adopted", "released", "rotated"]:
        """What became of it."""

    @property
    def steps(self) -> list[str]:
        """The steps that were done."""

    @property
    def proof(self) -> Literal["complete", "incomplete"] | None:
        """What the trial login found. `incomplete`: the password is right, but every session is in use."""

    @property
    def old_login_ends(self) -> datetime | None:
        """Until when the login works that the Secret named before, by the server's clock; where a rotation has given it
        an end."""

    @property
    def in_use(self) -> Literal[1, 2] | None:
        """Which login the Secret names now, where there is one."""

    @property
    def workloads(self) -> list[Workload] | None:
        """What takes its Secret, as it was before; `None` where it cannot be told, and where nobody asks: only a
        rotation does."""

    @property
    def restarted(self) -> list[Workload]:
        """Those of them that were restarted."""

    @property
    def notices(self) -> list[str]:
        """What a person should know."""

    @property
    def gaps(self) -> list[str]:
        """What ought to be different and is not for the admin to change, each with the statement that changes it."""

    def _repr_html_(self) -> str: ...

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
class Status:
    """The server and its apps."""

    @property
    def environment(self) -> str:
        """The environment."""

    @property
    def server(self) -> ServerStatus:
        """The server."""

    @property
    def apps(self) -> AppStatusList:
        """The apps, by name."""

    def _repr_html_(self) -> str: ...

@final
class ServerStatus:
    """The server."""

    @property
    def version(self) -> str:
        """Its version, such as `15.18`."""

    @property
    def endpoint(self) -> str:
        """Where it is, for people."""

    @property
    def max_connections(self) -> int:
        """Sessions it can hold."""

    @property
    def promised(self) -> int:
        """Sessions promised to apps."""

    @property
    def capacity(self) -> int:
        """Sessions that may be promised."""

    @property
    def walls(self) -> list[Wall]:
        """What keeps apps apart."""

    @property
    def notices(self) -> list[str]:
        """What a person should know."""

@final
class Wall:
    """One of the walls between apps."""

    @property
    def name(self) -> str:
        """What it consists in."""

    @property
    def state(self) -> str:
        """Whether it stands: `stands`, `missing`, or `unknown` where the admin may not see it."""

    @property
    def detail(self) -> str:
        """What is missing, and the cure."""

    @property
    def gaps(self) -> list[str]:
        """What is not for the admin to change, or not without being told to, each with the statement that changes
        it."""

@final
class AppStatus:
    """One app in detail."""

    @property
    def summary(self) -> AppSummary:
        """What a list says of it."""

    @property
    def state(self) -> str:
        """How it is, in a word or two: `OK`, `DRIFT 2`, `PROBLEM`, `GAPS 1`, `NO DATABASE` or `dropping`."""

    @property
    def slot(self) -> int | None:
        """Which login the Secret names, 1 or 2; `None` when the Secret is not in order."""

    @property
    def generation(self) -> int | None:
        """The number of the password in the Secret, where that says so: how many the app has had."""

    @property
    def password_since(self) -> datetime | None:
        """Since when the Secret has this password, where it says so."""

    @property
    def logins(self) -> list[LoginStatus]:
        """Its two logins; empty where they cannot be read."""

    @property
    def clients(self) -> list[str]:
        """Who is logged in as the app, by what each calls itself."""

    @property
    def workloads(self) -> list[Workload] | None:
        """What takes the Secret; looked for where one app is asked about, and `None` where it cannot be told."""

    @property
    def drift(self) -> list[str]:
        """What `create` would do: empty when all is as recorded."""

    @property
    def problem_code(self) -> str | None:
        """The stable word of what would stop `create`, if something would."""

    @property
    def problem(self) -> str | None:
        """What would stop `create`, and what to do about it, if something would."""

    @property
    def notices(self) -> list[str]:
        """What a person should know."""

    @property
    def gaps(self) -> list[str]:
        """What ought to be different and is not for the admin to change, each with the statement that changes it."""

@final
class LoginStatus:
    """One of an app's logins."""

    @property
    def role(self) -> str:
        """The role."""

    @property
    def state(self) -> str:
        """What it is good for: `in use`, `ending`, `open`, `ended` or `closed`."""

    @property
    def ends(self) -> datetime | None:
        """When its password ends or has ended, by the server's clock."""

    @property
    def sessions(self) -> int:
        """Its sessions at this moment."""

@final
class Workload:
    """Something that runs, or is to run, with the values of an app's Secret."""

    @property
    def kind(self) -> str:
        """What it is, as kubectl writes it: `deployment`, `statefulset`, `daemonset`, `cronjob`, `job` or `pod`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def delivery(self) -> str:
        """How it takes the values: `files`, which follow the Secret, one `file` that does not, or `variables`."""

    @property
    def needs_restart(self) -> bool:
        """Whether new values only get there by a restart."""

    @property
    def reloaded(self) -> bool:
        """Whether it asks Stakater's Reloader to restart it when the Secret changes."""

    @property
    def pods(self) -> list[str]:
        """The names of its pods that have the values, or will have them once they start."""

@final
class BackupManager:
    """Backs up the apps of one server, proves and restores what was backed up.

    Each call works under the app's lock, with a login that is open for as long and may enter nothing but the app's
    database. One that is interrupted leaves nothing behind. A coroutine that nobody awaits does nothing, and nothing warns
    of it.
    """

    def __new__(
        cls,
        server: Server,
        url: str | None = None,
        *,
        on_event: Callable[[BackupEvent], object] | None = None,
        lock_patience: timedelta | None = None,
        budget: timedelta | None = None,
        binaries: str | PathLike[str] | None = None,
    ) -> BackupManager:
        """A manager of the backups of `server` in the store at `url`: a folder, `s3://…`, `gs://…` or `az://…`.

        By default it is the store of the environment. Credentials of stores are read from the environment variables of
        their vendors' programs. Connects to nothing yet. `on_event` is called with each `BackupEvent`, which may be
        often; what it raises ends the run, and it cannot call shareddb itself. It is called on a thread of the library,
        also after a Ctrl-C has ended the call, until what that began is taken back. `lock_patience` is how long a run
        waits while another one works on the same app, a minute; `budget` how long it may take, an hour. `binaries` is
        the directory of `pg_dump` and `pg_restore`; by default they are searched.
        """

    @property
    def url(self) -> str:
        """The place of the backups."""

    def backup(
        self,
        app: str,
        *,
        reason: Literal["manual", "schedule", "before-restore", "before-drop", "import"] = "manual",
        encrypt_to: Iterable[str] | None = None,
        yield_after: timedelta | None = None,
        keep_until: datetime | None = None,
    ) -> Backup:
        """Take a backup of an app. It exists when this returns, and not before.

        `reason` is `manual`, `schedule`, `before-restore`, `before-drop` or `import`. `encrypt_to` are public keys of
        age's. `yield_after` is how long somebody may wait for a lock that the dump holds before it gives way, a minute;
        zero is for ever. Until `keep_until` no policy deletes it. Raises `NotFoundError` when there is no such app, and
        `TimeoutError` when tables stay locked.
        """

    def backup_async(
        self,
        app: str,
        *,
        reason: Literal["manual", "schedule", "before-restore", "before-drop", "import"] = "manual",
        encrypt_to: Iterable[str] | None = None,
        yield_after: timedelta | None = None,
        keep_until: datetime | None = None,
    ) -> Coroutine[Any, Any, Backup]:
        """`backup` for a coroutine. Cancelled, it leaves nothing behind."""

    def last_backup(
        self,
        app: str,
        *,
        encrypt_to: Iterable[str] | None = None,
        yield_after: timedelta | None = None,
        keep_until: datetime | None = None,
    ) -> Backup:
        """Take the backup without which nobody should drop an app.

        Its logins are closed first and stay closed, so that nothing is written that the backup has not; they are open again
        where it could not be taken. Kept for 90 days, unless `keep_until` says otherwise.
        """

    def list(self, app: str | None = None) -> BackupList:
        """The backups of an app, or of every app one after another; of each the newest first. The list prints as a table."""

    def verify(
        self,
        backup: Backup | str,
        *,
        quick: bool = False,
        identity: _Paths | None = None,
    ) -> Verification:
        """Prove a backup: load it into a database of its own and compare every row with what was dumped.

        With `quick` it is only read to its end. `identity` is a file with age's private keys, or several. A backup that
        fails is no error. Raises `NotFoundError` when there is no such backup.
        """

    def verify_async(
        self,
        backup: Backup | str,
        *,
        quick: bool = False,
        identity: _Paths | None = None,
    ) -> Coroutine[Any, Any, Verification]:
        """`verify` for a coroutine. Cancelled, it leaves nothing behind."""

    def restore(
        self,
        app: str,
        backup: Backup | str | datetime | None = None,
        *,
        confirm: str,
        safety_backup: bool = True,
        other_roles: Literal["require", "existing", "leave-out"] | None = None,
        identity: _Paths | None = None,
    ) -> RestoreReport:
        """Put a backup in the place of an app's database. What was there is kept for `undo`.

        `backup` is one, or its name, or a time for the newest that there was then; by default the newest. Those of
        what restores have replaced are taken by their names only.
        `confirm` is the app's name again. What is there now is backed up first and that is kept for 7 days, unless
        `safety_backup` is false.
        `other_roles` says what becomes of rights for roles other than the app's: `require`, `existing` or `leave-out`.
        Raises `RefusedError` when `confirm` is another text, and `NotFoundError` when there is no such backup. The
        app's database is as it was then.
        """

    def restore_async(
        self,
        app: str,
        backup: Backup | str | datetime | None = None,
        *,
        confirm: str,
        safety_backup: bool = True,
        other_roles: Literal["require", "existing", "leave-out"] | None = None,
        identity: _Paths | None = None,
    ) -> Coroutine[Any, Any, RestoreReport]:
        """`restore` for a coroutine. Cancelled, the app's database is as it was."""

    def undo(self, app: str, *, confirm: str) -> str:
        """Take back the last restore. Returns the name by which the restored database is kept.

        `confirm` is the app's name again. Raises `NotFoundError` when nothing was kept.
        """

    def plan_prune(self, app: str, policy: RetentionPolicy) -> PrunePlan:
        """Decide which backups of an app a policy gives up, and delete nothing.

        Days, weeks and so on are those of UTC. Raises `InvalidInputError` for a policy that keeps nothing.
        """

    def prune(self, app: str, plan: PrunePlan) -> Pruned:
        """Delete what a plan gives up, and what old runs have left in the store. Holds are looked at again before
        each."""

@final
class Backup:
    """A backup of an app."""

    @property
    def id(self) -> str:
        """Its name, such as `my-app-20261122T020056Z`."""

    @property
    def app(self) -> str:
        """Whose backup it is."""

    @property
    def taken_at(self) -> datetime:
        """When it was taken, by the server's clock."""

    @property
    def verdict(self) -> str | None:
        """What the last check that restored it has found, `passed` or `failed`."""

    @property
    def checked_at(self) -> datetime | None:
        """When that check ended."""

    @property
    def held(self) -> bool:
        """Whether somebody keeps prunes away from it."""

    @property
    def problem(self) -> str | None:
        """Why nothing more is known of it, where its manifest cannot be read: all that follows is `None` then."""

    @property
    def bytes(self) -> int | None:
        """The size of its dump in the store."""

    @property
    def database_bytes(self) -> int | None:
        """The size of the database on the server."""

    @property
    def rows(self) -> int | None:
        """How many rows it has."""

    @property
    def tables(self) -> dict[tuple[str, str], int] | None:
        """How many rows each table has, by schema and name."""

    @property
    def took(self) -> timedelta | None:
        """How long it took."""

    @property
    def reason(self) -> str | None:
        """What it was taken for: `manual`, `schedule`, `before-restore`, `before-drop`, `import` or `other`."""

    @property
    def server(self) -> str | None:
        """The version of the server."""

    @property
    def encrypted(self) -> bool | None:
        """Whether it opens with a key only."""

    @property
    def keep_until(self) -> datetime | None:
        """Until when no policy deletes it."""

    @property
    def not_included(self) -> list[str] | None:
        """What is in the database and not in the backup."""

    @property
    def warnings(self) -> list[str] | None:
        """What should be known before it is relied on."""

@final
class BackupEvent:
    """Something that happened while a backup was taken, checked or restored."""

    @property
    def app(self) -> str:
        """The app."""

    @property
    def stage(self) -> str | None:
        """What is being done, in one word; `None` for a notice."""

    @property
    def bytes(self) -> int | None:
        """Bytes of rows so far; `None` when the stage begins."""

    @property
    def total(self) -> int | None:
        """Bytes in all, where they can be guessed."""

    @property
    def table(self) -> str | None:
        """The table that is on its way."""

    @property
    def notice(self) -> str | None:
        """Something to know that is no failure."""

@final
class Verification:
    """What a check of a backup has found."""

    @property
    def id(self) -> str:
        """Which backup was checked."""

    @property
    def at(self) -> datetime:
        """When the check ended."""

    @property
    def verdict(self) -> str:
        """What was found: `passed`, `read` when it was only read to its end, or `failed`."""

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""

    @property
    def took(self) -> timedelta:
        """How long it took."""

    @property
    def findings(self) -> list[str]:
        """What was wrong, a sentence each."""

    @property
    def left_out(self) -> list[str]:
        """What of it a restore leaves out, and why."""

    def _repr_html_(self) -> str: ...

@final
class RestoreReport:
    """What a restore did."""

    @property
    def backup(self) -> Backup | None:
        """The backup that was restored."""

    @property
    def tables(self) -> int:
        """How many tables there are now."""

    @property
    def rows(self) -> int:
        """How many rows they have."""

    @property
    def safety(self) -> Backup | None:
        """The backup of what was there before, unless it was not wanted."""

    @property
    def kept(self) -> str:
        """The database that was replaced, under the name that it is kept by: `undo` puts it back."""

    @property
    def left_out(self) -> list[str]:
        """What of the backup was not loaded, and why."""

    @property
    def remarks(self) -> list[str]:
        """What should be known beside that."""

    def _repr_html_(self) -> str: ...

@final
class RetentionPolicy:
    """How many backups stay, by each rule: a number, `"all"`, or `None`. A backup stays if any rule keeps it.

    >>> shareddb.RetentionPolicy(daily=7, weekly=4, yearly="all")
    RetentionPolicy(daily=7, weekly=4, yearly='all')
    """

    def __new__(
        cls,
        *,
        last: int | Literal["all"] | None = None,
        hourly: int | Literal["all"] | None = None,
        daily: int | Literal["all"] | None = None,
        weekly: int | Literal["all"] | None = None,
        monthly: int | Literal["all"] | None = None,
        yearly: int | Literal["all"] | None = None,
    ) -> RetentionPolicy:
        """`last`: so many of the newest. The others: the newest of each hour, day, week (Monday to Sunday), month or
        year, for so many that have one."""

    def __eq__(self, other: object, /) -> bool: ...

@final
class PrunePlan:
    """What a prune will do: iterates over all backups, the newest first. Falsy when every one of them stays."""

    @property
    def backups(self) -> list[Judged]:
        """Every backup, the newest first, with what is decided about it."""

    @property
    def doomed(self) -> list[str]:
        """Those that go, the oldest first."""

    @property
    def freed(self) -> int:
        """How many bytes their dumps take."""

    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __iter__(self) -> Iterator[Judged]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def _repr_html_(self) -> str: ...

@final
class Judged:
    """What is decided about a backup."""

    @property
    def id(self) -> str:
        """The backup's name."""

    @property
    def taken_at(self) -> datetime:
        """When it was taken."""

    @property
    def bytes(self) -> int:
        """The size of its dump."""

    @property
    def stays(self) -> bool:
        """Whether it stays."""

    @property
    def reasons(self) -> list[str]:
        """Why it stays; none: it goes."""

@final
class Pruned:
    """What a prune has done."""

    @property
    def deleted(self) -> list[str]:
        """Backups that are gone."""

    @property
    def bytes(self) -> int:
        """How many bytes their dumps took."""

    @property
    def spared(self) -> list[str]:
        """Backups that somebody has begun to hold since the plan was made, and stay."""

    @property
    def retained(self) -> list[tuple[str, str]]:
        """Backups that the store does not let go, with what it says."""

    @property
    def orphans(self) -> list[str]:
        """Objects of no backup that are gone."""

    def _repr_html_(self) -> str: ...

@final
class ConnectionConfig:
    """Everything needed to log in to one database as one user.

    Neither `str` nor `repr` shows the password. It cannot be pickled, so that the password gets into no file by
    accident. The address that a tunnel has put into `hostaddr` dies with the `Server` of that tunnel:
    `without_hostaddr` gives what is good for longer.

    >>> config = shareddb.ConnectionConfig.from_url("postgresql://me:secret@db.example/my_app_db?sslmode=require")
    >>> config
    <ConnectionConfig my_app_db at db.example:5432 as me>
    >>> config.sqlalchemy_url(driver="asyncpg").partition("?")[0]
    'postgresql+asyncpg://me:secret@db.example:5432/my_app_db'
    """

    def __new__(
        cls,
        host: str,
        port: int,
        database: str,
        user: str,
        *,
        password: str | None = None,
        hostaddr: str | None = None,
        sslmode: _SslMode | None = None,
        sslrootcert: str | PathLike[str] | None = None,
        application_name: str | None = None,
        connect_timeout: timedelta | None = None,
        options: Mapping[str, str] | None = None,
    ) -> ConnectionConfig:
        """The four things without which there is no connection, and whatever else there is to say.

        `host` is a host name, an IP address, or the absolute path of a socket directory. `options` are server settings
        for the whole session. Nothing but words of a known set is checked here; a conversion does.
        """

    @staticmethod
    def from_env() -> ConnectionConfig:
        """Read this process's environment.

        One source supplies everything: `SHAREDDB_SECRET_DIR`, `SERVICE_BINDING_ROOT`, `DATABASE_URL`, `DATABASE_*`,
        `DB_*` or `PG*`, the first of them that is complete.
        """

    @staticmethod
    def infer(*, url: str | None = None, directory: str | PathLike[str] | None = None) -> ConnectionConfig:
        """Find out where a program was told its database: this URL or this folder, or else its environment.

        What is said outright counts alone. Of both a URL and a folder the folder counts; they have to name the same database.
        """

    @staticmethod
    def from_vars(variables: Mapping[str, str]) -> ConnectionConfig:
        """Read variables as `from_env` does, from a mapping, such as `os.environ`."""

    @staticmethod
    def from_url(url: str) -> ConnectionConfig:
        """Read a `postgresql://` URL, strictly. No error repeats any piece of it."""

    @staticmethod
    def from_directory(path: str | PathLike[str]) -> ConnectionConfig:
        """Read a directory as Kubernetes mounts a Secret."""

    @staticmethod
    def from_secret(name: str, *, environment: Environment) -> ConnectionConfig:
        """Read a Secret where an environment keeps it: the Kubernetes API, or a folder beside the embedded server.

        Raises `NotFoundError` when there is no such Secret.
        """

    def replace(
        self,
        *,
        port: int | None = None,
        database: str | None = None,
        user: str | None = None,
        password: str | None = None,
        hostaddr: str | None = None,
        sslmode: _SslMode | None = None,
        sslrootcert: str | PathLike[str] | None = None,
        application_name: str | None = None,
        connect_timeout: timedelta | None = None,
        options: Mapping[str, str] | None = None,
    ) -> ConnectionConfig:
        """The same with other words in some places; `options` are added.

        >>> config = shareddb.ConnectionConfig("db.example", 5432, "my_app_db", "me")
        >>> config.replace(application_name="worker").psycopg()["application_name"]
        'worker'
        """

    def without_hostaddr(self) -> ConnectionConfig:
        """The same without an address: the host name is looked up again."""

    def without_connect_timeout(self) -> ConnectionConfig:
        """The same without a limit for logins, which not every driver has a word for: it is 5 seconds again."""

    @property
    def host(self) -> str:
        """The host name, address, or socket directory."""

    @property
    def hostaddr(self) -> str | None:
        """The address that stands in for looking up the host."""

    @property
    def port(self) -> int:
        """The port."""

    @property
    def database(self) -> str:
        """The database."""

    @property
    def user(self) -> str:
        """The user."""

    @property
    def password(self) -> str | None:
        """The password."""

    @property
    def sslmode(self) -> _SslMode:
        """How far the connection is encrypted, in libpq's word."""

    @property
    def sslrootcert(self) -> Path | None:
        """The file with the certificate that the server's must descend from, where there is a file."""

    def root_certificate(self) -> str | None:
        """That certificate itself, as PEM; `None` where none was named.

        A Secret that was read through the Kubernetes API has it without a file, which drivers need: write it to one and
        name that with `replace(sslrootcert=…)`. Raises as reading the file does.
        """

    @property
    def application_name(self) -> str | None:
        """The name shown in the server's activity view."""

    @property
    def connect_timeout(self) -> timedelta:
        """How long a login may take."""

    @property
    def source_directory(self) -> Path | None:
        """The folder that the login was read from, a mounted Secret, which has the next password once there is one."""

    @property
    def url(self) -> str:
        """A `postgresql://` URL, with the password."""

    @property
    def conninfo(self) -> str:
        """libpq's keyword string, as psycopg and psql take it, with the password."""

    def renewed(self) -> ConnectionConfig | None:
        """The same connection with the login that is by now in the folder that it was read from.

        Name, address, limit and options stay where they were set here. `None` when that is the login it has, and where it came from no folder.
        """

    def explain(self) -> Explanation:
        """Where each setting came from, what it shadows, and whether it can change while this process runs."""

    def psycopg(self) -> dict[str, Any]:
        """Keyword arguments for `psycopg.connect`, the password among them."""

    def asyncpg(self) -> dict[str, Any]:
        """Keyword arguments for asyncpg's `connect` and `create_pool`, the password among them.

        Raises `InvalidInputError` for what asyncpg has no word for.
        """

    def django(self) -> dict[str, Any]:
        """An entry of Django's `DATABASES`, with the password.

        For a password that changes, `"OPTIONS": {"service": …}` with `PGSERVICEFILE` at the mounted `pg_service.conf`
        does more: it is read anew with each connection.
        """

    def sqlalchemy_url(self, *, driver: Literal["psycopg", "psycopg2", "asyncpg"] = "psycopg") -> str:
        """A URL for SQLAlchemy's `create_engine`, with the password."""

    def environ(self) -> dict[str, str]:
        """libpq's environment variables, `PGHOST` and so on, `PGPASSWORD` among them.

        A child process should inherit no other `PG…` variable: libpq would mix them in.
        """

    def service_section(self, name: str) -> str:
        """A section of libpq's service file, with the password."""

    def pgpass(self) -> str:
        """A line of libpq's password file, with the password. Such a file has to be closed to everybody else."""

    def jdbc(self) -> dict[str, str]:
        """`url`, `user` and `password` for the PostgreSQL JDBC driver, as Spark takes them.

        Raises `InvalidInputError` for what that driver has no word for.
        """

    def psql(self) -> PsqlCommand:
        """How to start psql, with the password in its environment."""

    def export(self, form: Literal["dotenv", "shell", "json"]) -> str:
        """libpq's environment variables as text, with the password: for a `.env` file, a shell, or what reads JSON."""

    def pool(self, **options: Any) -> ConnectionPool[Connection[Any]]:
        """A pool of psycopg_pool's that follows the mounted Secret: see `shareddb.rotation.pool`."""

@final
class PsqlCommand:
    """How to start psql. `str` is the command line for a shell, without the password."""

    @property
    def arguments(self) -> list[str]:
        """The arguments after `psql`, without the password."""

    @property
    def environment(self) -> dict[str, str]:
        """What psql needs in its environment: `PGPASSWORD`. It should inherit no other `PG…` variable."""

    def exports(self) -> str:
        """The same as lines for a shell, with the password."""

@final
class Explanation:
    """Where each setting came from: iterates over them. Prints as a table; no secret is in it."""

    @property
    def fields(self) -> list[ExplainedField]:
        """Everything that was said, and host, port, database, user, password and sslmode in any case."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[ExplainedField]: ...
    def __getitem__(self, name: str, /) -> ExplainedField:
        """The field of this name. Raises `KeyError` when nothing was said of it."""

    def _repr_html_(self) -> str: ...

@final
class ExplainedField:
    """One setting."""

    @property
    def name(self) -> str:
        """libpq's keyword."""

    @property
    def value(self) -> str | None:
        """What counts. Of a password only a fingerprint, by which two processes can be compared."""

    @property
    def source(self) -> str:
        """What it was called where it was found: a variable, a key of a Secret; `code` or `default`."""

    @property
    def shadows(self) -> list[str]:
        """What names it as well and does not count, each with `same`, `differs` or `unusable`."""

    @property
    def rotation(self) -> Literal["no", "delayed", "at once"]:
        """Whether a new value reaches a process that runs already: `no`, `delayed` or `at once`."""
