"""Exceptions: one class per outcome under `Error`, each also a built-in where one fits."""

from __future__ import annotations

import builtins


class Error(Exception):
    """What shareddb raises. `str` gives the message with its causes."""

    code: str = "failed"
    """A stable word for programs, such as `name_invalid`."""
    hint: str | None = None
    """What to do about it, when that is known. Tracebacks show it from Python 3.11 on."""
    retryable: bool = False
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


def _show_as_imported() -> None:
    """Has tracebacks name the place that they are imported from."""
    for each in (Error, *Error.__subclasses__()):
        each.__module__ = "shareddb"


_show_as_imported()
