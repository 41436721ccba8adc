"""What people see: lists as tables, plans, notebooks."""

from html.parser import HTMLParser

import shareddb
from shareddb._tables import Bytes, table, text


class Cells(HTMLParser):
    """The cells of a table, read as a browser reads them."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.open, self.tags = [], False, set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.open = False

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data


def test_a_list_of_apps(provisioner, app):
    apps = provisioner.list()
    assert isinstance(apps, list)
    lines = repr(apps).splitlines()
    assert lines[0].split() == ["NAME", "DATABASE", "SIZE", "SESSIONS", "LIMIT"]
    assert len(lines) == len(apps) + 1
    [line] = [line for line in lines if line.startswith(f"{app} ")]
    assert line.split()[1] == apps[[each.app.name for each in apps].index(app)].app.database
    [entry] = [entry for entry in apps.to_dicts() if entry["name"] == app]
    assert entry["bytes"] > 1_000_000 and (entry["sessions"], entry["limit"]) == (0, 10)
    rows = Cells(apps._repr_html_()).rows
    assert len(rows) == len(apps) + 1 and app in [row[0] for row in rows]
    assert repr(type(apps)()) == "<AppList, empty>"


def test_some_of_a_list(provisioner, app):
    apps = provisioner.list()
    some = apps[:1]
    assert type(some) is type(apps) and repr(some).splitlines()[0].split() == ["NAME", "DATABASE", "SIZE", "SESSIONS", "LIMIT"]
    assert len(Cells(some._repr_html_()).rows) == 2
    assert apps[0].app.name == some[0].app.name and list(apps[:0]) == []


def test_a_list_of_backups(server, app):
    manager = shareddb.BackupManager(server)
    backup = manager.backup(app)
    listed = manager.list(app)
    assert repr(listed).splitlines()[1].startswith(backup.id)
    assert Cells(listed._repr_html_()).rows[1][:2] == [backup.id, app]
    assert listed.to_dicts()[0]["bytes"] == backup.bytes


def test_a_status(provisioner, app):
    status = provisioner.status(app)
    [one] = status.apps
    assert (one.summary.app.name, one.slot, one.drift, one.problem, one.problem_code) == (app, 1, [], None, None)
    assert [(login.state, login.sessions, login.ends) for login in one.logins] == [("in use", 0, None), ("closed", 0, None)]
    assert (one.generation, one.clients, one.workloads) == (1, [], None)
    server = status.server
    assert server.version and server.max_connections > 0 and 0 < server.promised <= server.capacity
    assert all(wall.state == "stands" for wall in server.walls), [wall.detail for wall in server.walls]
    assert (one.state, repr(status.apps).splitlines()[1].split()[-1]) == ("OK", "OK")
    head, *lines = str(status).splitlines()
    assert head == f"env local: PostgreSQL {server.version} at {server.endpoint}" and lines[-1].endswith("OK")
    html = status._repr_html_()
    assert {"table", "caption", "tr", "td"} <= Cells(html).tags and app in html
    assert len(provisioner.status().apps) == len(provisioner.list())


def test_what_is_not_well_is_told(provisioner, app, psql, admin):
    name = provisioner.app(app)
    psql(admin, f"ALTER ROLE {name.owner} CONNECTION LIMIT 7")
    [one] = provisioner.status(app).apps
    assert one.drift and one.state == "DRIFT 1"
    psql(admin, f"DROP DATABASE {name.database}")
    [one] = provisioner.status(app).apps
    assert one.state == "NO DATABASE"


def test_reports_of_backups(server, app):
    manager = shareddb.BackupManager(server)
    backup = manager.backup(app)
    assert backup.id in manager.verify(backup)._repr_html_()
    report = manager.restore(app, backup, confirm=app)
    cells = dict(Cells(report._repr_html_()).rows[1:])
    assert (cells["backup"], cells["what was there is kept as"]) == (backup.id, report.kept)
    pruned = manager.prune(app, manager.plan_prune(app, shareddb.RetentionPolicy(last=1)))
    assert "0 deleted, 0 B" in pruned._repr_html_()


def test_plans_and_reports(provisioner):
    plan = provisioner.plan("to-be-shown")
    steps = [row for row in Cells(plan._repr_html_()).rows[1:] if row[0] in "+~-?"]
    assert [" ".join(row) for row in steps] == plan.steps
    report = provisioner.create("to-be-shown")
    assert "created" in report._repr_html_()
    assert "nothing to do" in provisioner.plan("to-be-shown")._repr_html_()


def test_nothing_in_a_cell_is_markup():
    hostile = "<script>alert(1)</script>&\x1b[31m"
    html = table(["A"], [[hostile]], hostile)
    assert "<script" not in html and "\x1b" not in html
    assert Cells(html).rows[1] == ["<script>alert(1)</script>&\N{REPLACEMENT CHARACTER}[31m"]


def test_values_as_text():
    assert [text(value) for value in (None, Bytes(0), Bytes(1023), Bytes(1536), Bytes(10 << 20), [1, "a"])] == [
        "-",
        "0 B",
        "1023 B",
        "1.5 KiB",
        "10 MiB",
        "1, a",
    ]
