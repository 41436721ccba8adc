"""Databases for many small applications on one shared PostgreSQL server.

Everything that waits does so without the GIL and can be interrupted with Ctrl-C; what was done until then stays done,
and the same call goes on from there. It may be called from several threads at once, and in an event loop, which stands
still meanwhile: `await provisioner.create_async("my-app")` keeps it going.

Errors can be pickled, and nothing else can: what other processes need they ask for themselves, or get as
`provisioner.list().to_dicts()`.

A process forked after the first such call gets a `FailedError` with the code `forked` from each of them.

>>> import shareddb
>>> with shareddb.Environment.throw_away() as environment, environment.connect() as server:
...     report = shareddb.Provisioner(server).create("my-app")
>>> report.outcome, report.app.database
('created', 'my_app_db')
"""

from ._errors import (
    ConflictError,
    Error,
    FailedError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RefusedError,
    TimeoutError as TimeoutError,
    ToolFailedError,
    UnavailableError,
)
from . import rotation as rotation
from ._shareddb import (
    Adopt,
    App,
    AppStatus,
    AppSummary,
    Backup,
    BackupEvent,
    BackupManager,
    ConnectionConfig,
    Environment,
    ExplainedField,
    Explanation,
    Judged,
    LocalEndpoint,
    LoginStatus,
    Plan,
    Provisioner,
    PrunePlan,
    Pruned,
    PsqlCommand,
    Report,
    RestoreReport,
    RetentionPolicy,
    Server,
    ServerStatus,
    Status,
    Verification,
    Wall,
    Workload,
    __version__,
)

# `from shareddb import *` leaves the built-in `TimeoutError` where it is.
__all__ = [
    "Adopt",
    "App",
    "AppStatus",
    "AppSummary",
    "Backup",
    "BackupEvent",
    "BackupManager",
    "ConflictError",
    "ConnectionConfig",
    "Environment",
    "Error",
    "ExplainedField",
    "Explanation",
    "FailedError",
    "InvalidInputError",
    "Judged",
    "LocalEndpoint",
    "LoginStatus",
    "NotFoundError",
    "PermissionDeniedError",
    "Plan",
    "Provisioner",
    "PrunePlan",
    "Pruned",
    "PsqlCommand",
    "RefusedError",
    "Report",
    "RestoreReport",
    "RetentionPolicy",
    "Server",
    "ServerStatus",
    "Status",
    "ToolFailedError",
    "UnavailableError",
    "Verification",
    "Wall",
    "Workload",
    "__version__",
]
