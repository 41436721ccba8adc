"""What the Python package costs, measured beside the library, the command and a script by hand.

`cargo bench -p shareddb-tests --bench python` starts the servers and runs each part of this; its head says more.

    python measure.py calls --home FOLDER
    python measure.py imports
    python measure.py creates --apps N --file FILE --namespace NAME --port PORT --admin PASSWORD_FILE --command PROGRAM
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import by_hand
import psycopg
from kubernetes import client, config

import shareddb

URL = "postgresql://me:s3cret@db.example:5432/my_app_db?sslmode=require&application_name=worker"


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def line(what, seconds, unit="s"):
    factor = {"ms": 1e3, "s": 1}[unit]
    print(f"{what:<48} {seconds * factor:9.2f} {unit}", flush=True)


def calls(home):
    """Seconds of each call, medians, as JSON. The library does the same beside it."""
    environment = shareddb.Environment.local(home)

    def median(times, work):
        return statistics.median(timed(work) for _ in range(times))

    with environment.connect() as server:
        provisioner = shareddb.Provisioner(server)
        provisioner.app("measured-0")
        took = {
            "ConnectionConfig.from_url": median(400, lambda: shareddb.ConnectionConfig.from_url(URL)),
            "environment.stored_connection": median(200, lambda: environment.stored_connection("measured-0")),
            "provisioner.app": median(20, lambda: provisioner.app("measured-0")),
        }
    print(json.dumps(took))


def imports():
    """Beside an interpreter that imports nothing; the quickest of ten."""

    def run(script):
        return min(timed(lambda: subprocess.run([sys.executable, "-c", script], check=True)) for _ in range(10))

    nothing = run("pass")
    for module in ("shareddb", "psycopg", "kubernetes"):
        line(f"import {module}", run(f"import {module}") - nothing, "ms")


def creates(options):
    """Apps made in each way, in turn, so that a busy moment of the machine meets all of them."""
    config.load_kube_config(os.environ["KUBECONFIG"])
    secrets_api = client.CoreV1Api()
    words = {"host": "127.0.0.1", "port": options.port, "user": "postgres", "password": options.admin.read_text().strip()}
    conninfo = psycopg.conninfo.make_conninfo(**words)

    def publish(name, values):
        secrets_api.create_namespaced_secret(options.namespace, {"metadata": {"name": name}, "stringData": values})

    environment = shareddb.Environment.load("bench", file=options.file)
    command = [options.command, "create", "--allow-overcommit", "-q", "-e", "bench"]

    def by_command(app):
        subprocess.run([*command, app], check=True, cwd=options.file.parent, stdout=subprocess.DEVNULL)

    with environment.connect() as server, psycopg.connect(conninfo, dbname="postgres", autocommit=True) as admin:
        provisioner = shareddb.Provisioner(server)
        provisioner.create("warm", allow_overcommit=True)
        ways = {
            "creates from Python": lambda n: provisioner.create(f"python-{n}", allow_overcommit=True),
            "creates by the command, in a loop": lambda n: by_command(f"command-{n}"),
            "by hand, psycopg and the client of Kubernetes": lambda n: by_hand.create(
                admin, conninfo, words["host"], options.port, f"hand-{n}", publish
            ),
            "creates from Python of apps that are there": lambda n: provisioner.create(f"python-{n}"),
            "creates by the command of apps that are there": lambda n: by_command(f"command-{n}"),
        }
        took = dict.fromkeys(ways, 0.0)
        for n in range(options.apps):
            for way, work in ways.items():
                took[way] += timed(lambda: work(n))
    for way, seconds in took.items():
        line(f"{options.apps} {way}", seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("calls").add_argument("--home", required=True)
    verbs.add_parser("imports")
    made = verbs.add_parser("creates")
    for name, kind in (("apps", int), ("file", Path), ("namespace", str), ("port", int), ("admin", Path), ("command", str)):
        made.add_argument(f"--{name}", type=kind, required=True)
    options = parser.parse_args()
    match options.verb:
        case "calls":
            calls(options.home)
        case "imports":
            imports()
        case "creates":
            creates(options)


main()
