"""Apps in Kubernetes. The suite, which starts the cluster, runs this: nothing here says where one is."""

import asyncio
import os
import secrets
from datetime import datetime, timedelta, timezone

import psycopg
import pytest
from kubernetes import client, config

import shareddb

NAMESPACE = os.environ["SHAREDDB_TEST_NAMESPACE"]


@pytest.fixture(scope="module")
def environment():
    """Whether the server is embedded makes no difference to a `with` block."""
    with shareddb.Environment.load("production", namespace=NAMESPACE) as environment:
        yield environment


@pytest.fixture(scope="module")
def provisioner(environment):
    with environment.connect() as server:
        yield shareddb.Provisioner(server)


@pytest.fixture
def app(provisioner):
    name = f"test-{secrets.token_hex(4)}"
    assert provisioner.create(name).outcome == "created"
    yield name
    assert provisioner.drop(name, confirm=name).outcome == "dropped"
    with pytest.raises(shareddb.NotFoundError):
        provisioner.connection(name)


@pytest.fixture(scope="module")
def apps_api():
    config.load_kube_config(os.environ["KUBECONFIG"])
    return client.AppsV1Api()


def who(login):
    with psycopg.connect(**login.psycopg()) as connection:
        return connection.execute("SELECT session_user, current_database()").fetchone()


def test_an_app_through_the_tunnel(environment, provisioner, app):
    assert (environment.name, environment.path, environment.stop()) == ("production", None, False)
    assert provisioner.create(app).outcome == "unchanged" and not provisioner.plan(app)
    assert app in [each.app.name for each in provisioner.list()]
    login = provisioner.connection(app)
    assert who(login) == (login.user, login.database)
    stored = environment.stored_connection(app)
    read = shareddb.ConnectionConfig.from_secret(f"{app}-db-secret", environment=environment)
    assert stored.url == read.url and (stored.host, stored.port) == (f"postgres-service.{NAMESPACE}.svc.cluster.local", 5432)
    assert login.hostaddr == "127.0.0.1"
    assert login.without_hostaddr().without_connect_timeout().replace(port=5432).url == stored.url
    with pytest.raises(shareddb.RefusedError):
        provisioner.drop(app, confirm="another")


def test_an_address_of_a_tunnel_dies_with_its_server(environment, app):
    with environment.connect() as server:
        login = shareddb.Provisioner(server).connection(app)
        assert who(login) == (login.user, login.database)
    with pytest.raises(psycopg.OperationalError):
        who(login)


def test_a_new_password_and_who_takes_it(provisioner, app, apps_api):
    environ = [{"secretRef": {"name": f"{app}-db-secret"}}]
    pod = {"containers": [{"name": "web", "image": "any", "envFrom": environ}]}
    labels = {"app": app}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    apps_api.create_namespaced_deployment(NAMESPACE, {"metadata": {"name": app}, "spec": spec})
    plan = provisioner.plan_rotate(app, grace=timedelta(hours=1))
    assert plan and [(each.kind, each.name) for each in plan.workloads] == [("deployment", app)]
    before = provisioner.connection(app)
    report = provisioner.rotate(app, grace=timedelta(hours=1), restart=True)
    assert (report.outcome, report.in_use) == ("rotated", 2)
    assert timedelta(minutes=59) < report.old_login_ends - datetime.now(timezone.utc) < timedelta(minutes=61)
    [workload] = report.workloads
    assert (workload.kind, workload.name, workload.delivery, workload.needs_restart) == ("deployment", app, "variables", True)
    assert [each.name for each in report.restarted] == [app]
    after = provisioner.connection(app)
    assert after.user != before.user and {who(before)[1], who(after)[1]} == {after.database}
    [status] = provisioner.status(app).apps
    assert (status.slot, status.generation, status.drift, status.problem) == (2, 2, [], None)
    assert [login.state for login in status.logins] == ["ending", "in use"]
    assert [(each.kind, each.name) for each in status.workloads] == [("deployment", app)]
    apps_api.delete_namespaced_deployment(app, NAMESPACE)


def test_in_a_loop(provisioner, app):
    async def all_at_once():
        return await asyncio.gather(provisioner.create_async(app), asyncio.to_thread(provisioner.status, app))

    report, status = asyncio.run(all_at_once())
    assert report.outcome == "unchanged" and status.apps[0].summary.app.name == app


def test_what_is_not_there():
    with pytest.raises(shareddb.NotFoundError):
        shareddb.Environment.load("production", namespace=f"{NAMESPACE}-absent").connect()
    with pytest.raises(shareddb.Error):
        shareddb.Environment.load("production", namespace=NAMESPACE, context="absent").connect()
