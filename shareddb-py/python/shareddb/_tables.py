"""Lists that print as tables, and tables for notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar, Generic, SupportsIndex, TypeVar, overload

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._shareddb import (
        AppStatus,
        AppSummary,
        Backup,
        Explanation,
        Plan,
        PrunePlan,
        Pruned,
        Report,
        RestoreReport,
        Status,
        Verification,
    )

T = TypeVar("T")

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Table(list[T], Generic[T]):
    """A list that prints as a table, and shows as one in notebooks."""

    columns: ClassVar[tuple[str, ...]] = ()

    def row(self, item: T) -> dict[str, Any]:
        """What the columns say of an item."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: SupportsIndex, /) -> T: ...

    @overload
    def __getitem__(self, index: slice, /) -> Self: ...

    def __getitem__(self, index: SupportsIndex | slice, /) -> T | Self:
        """An item, or for a slice a table of some."""
        if isinstance(index, slice):
            return type(self)(super().__getitem__(index))
        return super().__getitem__(index)

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

    columns = ("NAME", "DATABASE", "SIZE", "SESSIONS", "LIMIT")

    def row(self, item: AppSummary) -> dict[str, Any]:
        return {
            "name": item.app.name,
            "database": item.app.database,
            "bytes": Bytes(item.size) if item.size is not None else None,
            "sessions": item.sessions,
            "limit": item.app.connections,
        }


class AppStatusList(Table["AppStatus"]):
    """Apps compared with their records, by name."""

    columns = (*AppList.columns, "STATUS")

    def row(self, item: AppStatus) -> dict[str, Any]:
        return AppList().row(item.summary) | {"status": item.state}


class BackupList(Table["Backup"]):
    """Backups, of each app the newest first."""

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
    if not caption:
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    title = f'<caption style="text-align: left; white-space: nowrap">{escape(text(caption))}</caption>'
    # What the caption says may be all there is.
    table_head = f"<thead><tr>{head}</tr></thead>" if body else ""
    return f"<table>{title}{table_head}<tbody>{body}</tbody></table>"


def html(thing: Any) -> str:
    """What a notebook shows of a plan, a report, a status or an explanation."""
    return _PAGES[type(thing).__name__](thing)


def _plan(plan: Plan) -> str:
    return _steps(f"app {plan.app.name}" if plan else f"app {plan.app.name}: nothing to do", plan, [])


def _report(report: Report) -> str:
    rows: list[tuple[str, object]] = []
    if report.old_login_ends is not None:
        rows.append(("old login ends", report.old_login_ends))
    for workload in report.workloads or []:
        # A workload that is equal to none of these is another view of the same.
        done = any(str(each) == str(workload) for each in report.restarted)
        state = "restarted" if done else "needs a restart" if workload.needs_restart else "follows"
        rows.append((state, str(workload)))
    return _steps(f"app {report.app.name} {report.outcome}", report, rows)


def _steps(caption: str, of: Plan | Report, more: Iterable[tuple[str, object]]) -> str:
    rows: list[Iterable[object]] = [step.split(" ", 1) for step in of.steps]
    rows += more
    rows += [("note", notice) for notice in of.notices] + [("gap", gap) for gap in of.gaps]
    return table(("", "STEP"), rows, caption)


def _prune_plan(plan: PrunePlan) -> str:
    rows = ((each.id, each.taken_at, Bytes(each.bytes), each.reasons or "goes") for each in plan)
    return table(("ID", "TAKEN", "SIZE", "KEPT BY"), rows)


def _pruned(pruned: Pruned) -> str:
    rows: list[tuple[object, object]] = [(each, "deleted") for each in pruned.deleted]
    rows += [(each, "spared: it is held") for each in pruned.spared]
    rows += [(each, f"stays: {why}") for each, why in pruned.retained]
    rows += [(each, "deleted: of no backup") for each in pruned.orphans]
    return table(("ID", ""), rows, f"{len(pruned.deleted)} deleted, {Bytes(pruned.bytes).shown()}")


def _restore_report(report: RestoreReport) -> str:
    rows: list[tuple[str, object]] = [
        ("backup", report.backup),
        ("tables", report.tables),
        ("rows", report.rows),
        ("backup of what was there", report.safety),
        ("what was there is kept as", report.kept),
    ]
    rows += [("not restored", each) for each in report.left_out] + [("note", each) for each in report.remarks]
    return table(("", ""), rows, "restored")


def _verification(verification: Verification) -> str:
    found = [[each] for each in verification.findings]
    return table(("FINDING",), found, f"{verification.id}: {verification.verdict} in {text(verification.took)}")


def _explanation(explanation: Explanation) -> str:
    fields = ((each.name, each.value, each.source, each.rotation, each.shadows) for each in explanation)
    return table(("SETTING", "VALUE", "SOURCE", "ROTATES", "SHADOWS"), fields)


def _status(status: Status) -> str:
    rows = [(wall.name, wall.state, wall.detail) for wall in status.server.walls]
    rows += [("note", "", notice) for notice in status.server.notices]
    return table(("WALL", "STATE", "DETAIL"), rows, _head(status)) + str(status.apps._repr_html_())


def status_text(status: Status) -> str:
    """What `print` shows of a status: what ought to be different about the server, and the apps."""
    server = status.server
    walls = [f"wall {wall.name} is {wall.state}: {wall.detail}" for wall in server.walls if wall.state != "stands"]
    return "\n".join([_head(status), *map(text, [*server.notices, *walls]), repr(status.apps)])


def _head(status: Status) -> str:
    return f"env {status.environment}: PostgreSQL {status.server.version} at {status.server.endpoint}"


_PAGES: dict[str, Callable[[Any], str]] = {
    "Plan": _plan,
    "Report": _report,
    "PrunePlan": _prune_plan,
    "Pruned": _pruned,
    "RestoreReport": _restore_report,
    "Verification": _verification,
    "Explanation": _explanation,
    "Status": _status,
}
