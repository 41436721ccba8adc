"""Lists that print as tables, and tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from ._shareddb import AppStatus, AppSummary, Backup

T = TypeVar("T")

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Table(list[T], Generic[T]):
    """A list that prints as a table, and shows as one in notebooks."""

    columns: ClassVar[tuple[str, ...]] = ()

    def row(self, item: T) -> dict[str, Any]:
        """What the columns say of an item."""
        raise NotImplementedError

    def to_dicts(self) -> list[dict[str, Any]]:
        """A dictionary of plain values for each item, as polars and pandas take them."""
        return [self.row(item) for item in self]

    def __repr__(self) -> str:
        if not self:
            return f"<{type(self).__name__}, empty>"
        rows = [self.columns, *(tuple(map(text, row.values())) for row in self.to_dicts())]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return table(self.columns, (row.values() for row in self.to_dicts()))


class AppList(Table["AppSummary"]):
    """Apps, by name."""

    columns = ("NAME", "DATABASE", "SIZE", "CONNS", "STATUS")

    def row(self, item: AppSummary) -> dict[str, Any]:
        return _app(item) | {"status": "dropping" if item.dropping else ""}


class AppStatusList(Table["AppStatus"]):
    """Apps compared with their records, by name."""

    columns = ("NAME", "DATABASE", "SIZE", "CONNS", "STATUS")

    def row(self, item: AppStatus) -> dict[str, Any]:
        if item.summary.dropping:
            status = "dropping"
        elif item.problem:
            status = item.problem
        elif item.drift:
            status = f"differs in {len(item.drift)} steps"
        else:
            status = "ok"
        return _app(item.summary) | {"status": status}


class BackupList(Table["Backup"]):
    """Backups, the newest first."""

    columns = ("ID", "APP", "TAKEN", "SIZE", "ROWS", "VERIFIED", "REASON")

    def row(self, item: Backup) -> dict[str, Any]:
        return {
            "id": item.id,
            "app": item.app,
            "taken_at": item.taken_at,
            "bytes": Bytes(item.bytes) if item.bytes is not None else None,
            "rows": item.rows,
            "verdict": item.verdict,
            "reason": item.reason or "unreadable",
        }


def _app(item: AppSummary) -> dict[str, Any]:
    return {
        "name": item.app.name,
        "database": item.app.database,
        "size": Bytes(item.size) if item.size is not None else None,
        "connections": f"{item.sessions}/{item.app.connections}",
    }


class Bytes(int):
    """A number of bytes that tables show in a larger unit."""

    def shown(self) -> str:
        size, unit = float(self), 0
        while size >= 1024 and unit < len(_UNITS) - 1:
            size, unit = size / 1024, unit + 1
        return f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 10 else f"{size:.1f} {_UNITS[unit]}"


def text(value: object) -> str:
    """A value in a table."""
    if value is None:
        return "-"
    if isinstance(value, Bytes):
        return value.shown()
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.1f} s"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value))
    # What a server has said may hold anything; a table is text on one line.
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value))


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], caption: str = "") -> str:
    """A table for a notebook; nothing in a cell is taken for HTML."""
    head = "".join(f'<th style="text-align: left">{escape(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align: left">{escape(text(cell))}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    title = f'<caption style="text-align: left">{escape(text(caption))}</caption>' if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html(thing: Any) -> str:
    """What a notebook shows of a plan, a report, a status or an explanation."""
    kind = type(thing).__name__
    if kind == "Plan":
        caption = f"app {thing.app.name}" if thing else f"app {thing.app.name}: nothing to do"
        return _steps(caption, thing.steps, thing.notices, thing.gaps)
    if kind == "Report":
        return _steps(f"app {thing.app.name} {thing.outcome}", thing.steps, thing.notices, thing.gaps)
    if kind == "PrunePlan":
        rows = ((each.id, each.taken_at, Bytes(each.bytes), each.reasons or "goes") for each in thing)
        return table(("ID", "TAKEN", "SIZE", "KEPT BY"), rows)
    if kind == "Explanation":
        fields = ((each.name, each.value, each.source, each.rotation, each.shadows) for each in thing)
        return table(("SETTING", "VALUE", "SOURCE", "ROTATES", "SHADOWS"), fields)
    server = thing.server
    caption = f"env {thing.environment}: PostgreSQL {server.version} at {server.endpoint}"
    walls = table(("WALL", "STATE", "DETAIL"), ((wall.name, wall.state, wall.detail) for wall in server.walls), caption)
    return walls + str(thing.apps._repr_html_())


def _steps(caption: str, steps: list[str], notices: list[str], gaps: list[str]) -> str:
    rows = [step.split(" ", 1) for step in steps]
    rows += [["note", notice] for notice in notices] + [["gap", gap] for gap in gaps]
    return table(("", "STEP"), rows, caption)
