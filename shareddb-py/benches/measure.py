"""What the Python package costs, and 100 apps made in several ways.

    python measure.py [--command PATH] [--apps 100]

On a throw-away server of its own, whose Secrets are files. Needs psycopg; with `--command` the program `shareddb` is measured, too.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import by_hand
import psycopg

import shareddb


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def line(what, seconds, unit="ms"):
    factor = {"ms": 1e3, "µs": 1e6, "s": 1}[unit]
    print(f"{what:56} {seconds * factor:10.1f} {unit}", flush=True)


def imports():
    def run(script):
        return min(timed(lambda: subprocess.run([sys.executable, "-c", script], check=True)) for _ in range(10))

    nothing = run("pass")
    line("import shareddb", run("import shareddb") - nothing)
    line("import psycopg", run("import psycopg") - nothing)


def calls(provisioner, admin):
    """A call that asks the server something, and the least that any client needs for that: a login and a query."""
    app = provisioner.create("measured").app.name
    line("provisioner.app(…), median of 200", statistics.median(timed(lambda: provisioner.app(app)) for _ in range(200)))

    def query():
        with psycopg.connect(admin.conninfo) as connection:
            connection.execute("SELECT 1").fetchone()

    line("psycopg: connect and SELECT 1, median of 200", statistics.median(timed(query) for _ in range(200)))
    url = admin.url
    rounds = 10_000

    def read():
        for _ in range(rounds):
            shareddb.ConnectionConfig.from_url(url)

    line("ConnectionConfig.from_url", timed(read) / rounds, "µs")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--command", type=Path)
    parser.add_argument("--apps", type=int, default=100)
    options = parser.parse_args()
    imports()
    with shareddb.Environment.throw_away() as environment, environment.connect() as server:
        endpoint = environment.deploy()
        password = endpoint.password_file.read_text().strip()
        admin = shareddb.ConnectionConfig(endpoint.host, endpoint.port, "postgres", endpoint.admin, password=password)
        provisioner = shareddb.Provisioner(server)
        calls(provisioner, admin)
        count = options.apps
        seconds = timed(lambda: [provisioner.create(f"one-{n}", allow_overcommit=True) for n in range(count)])
        line(f"{count} creates from Python", seconds, "s")
        seconds = timed(lambda: [provisioner.create(f"one-{n}") for n in range(count)])
        line(f"{count} creates of apps that are there", seconds, "s")
        if options.command:
            variables = os.environ | {"SHAREDDB_HOME": str(environment.path.parent)}
            command = [str(options.command), "create", "--allow-overcommit", "-q"]

            def loop(word):
                for n in range(count):
                    subprocess.run([*command, f"{word}-{n}"], check=True, env=variables, stdout=subprocess.DEVNULL)

            line(f"{count} creates by the command, in a loop", timed(lambda: loop("two")), "s")
            line(f"{count} creates by the command of apps that are there", timed(lambda: loop("two")), "s")
        folder = environment.path.parent / "by-hand"
        folder.mkdir()

        def publish(name, values):
            (folder / name).write_text(repr(values))

        with psycopg.connect(admin.conninfo, autocommit=True) as connection:

            def by_hand_all():
                for n in range(count):
                    by_hand.create(connection, admin.conninfo, admin.host, admin.port, f"hand-{n}", publish)

            line(f"{count} by hand, with psycopg and files", timed(by_hand_all), "s")


main()
