"""Settings of connections: sources, conversions, explanations."""

import copy
import json
import os
import pickle
import traceback
from collections import ChainMap, defaultdict
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

import pytest

import shareddb
from shareddb import ConnectionConfig

URL = "postgresql://me:s3cret@db.example/my_app_db"


def test_every_word_arrives(tmp_path):
    root = tmp_path / "ca.crt"
    root.write_text("-----BEGIN CERTIFICATE-----\n")
    config = ConnectionConfig(
        "db.example",
        6432,
        "my_app_db",
        "me",
        password="s3cret",
        hostaddr="127.0.0.1",
        sslmode="verify-full",
        sslrootcert=root,
        application_name="worker",
        connect_timeout=timedelta(seconds=3),
        options={"statement_timeout": "5s"},
    )
    assert (config.host, config.port, config.database, config.user) == ("db.example", 6432, "my_app_db", "me")
    assert (config.password, config.hostaddr, config.sslmode) == ("s3cret", "127.0.0.1", "verify-full")
    assert (config.application_name, config.connect_timeout) == ("worker", timedelta(seconds=3))
    words = config.psycopg()
    assert words == {
        "host": "db.example",
        "hostaddr": "127.0.0.1",
        "port": 6432,
        "dbname": "my_app_db",
        "user": "me",
        "password": "s3cret",
        "sslmode": "verify-full",
        "sslrootcert": str(root),
        "application_name": "worker",
        "connect_timeout": "3",
        "options": "-c statement_timeout=5s",
    }
    changed = config.replace(database="other_db", user="you", password="0ther", port=5433, options={"work_mem": "1MB"})
    assert (changed.database, changed.user, changed.password, changed.port) == ("other_db", "you", "0ther", 5433)
    assert changed.psycopg()["options"] == "-c statement_timeout=5s -c work_mem=1MB"
    assert config.database == "my_app_db", "the first is as it was"
    for wrong in ({"sslmode": "prefer"}, {"hostaddr": "db.example"}):
        with pytest.raises(shareddb.InvalidInputError):
            config.replace(**wrong)
    with pytest.raises(TypeError):
        ConnectionConfig("h", 1, "d", "u", "positional")
    with pytest.raises(TypeError):
        config.replace(host="elsewhere")


def test_what_is_said_outright_counts(tmp_path, monkeypatch):
    for name, value in {"DB_HOST": "db.example", "DB_NAME": "my_app_db", "DB_USER": "you", "DB_PASSWORD": "new"}.items():
        (tmp_path / name).write_text(value)
    monkeypatch.setenv("DATABASE_URL", "postgresql://env:x@elsewhere/d")
    infer = ConnectionConfig.infer
    assert (infer(url=URL).user, infer(directory=tmp_path).user, infer().user) == ("me", "you", "env")
    assert infer(url=URL, directory=tmp_path).user == "you"
    with pytest.raises(shareddb.InvalidInputError):
        infer(url="postgresql://me:x@elsewhere/d", directory=tmp_path)


def test_conversions():
    config = ConnectionConfig.from_url(f"{URL}?sslmode=require&application_name=worker")
    assert config.url == "postgresql://me:s3cret@db.example:5432/my_app_db?sslmode=require&application_name=worker"
    assert "password='s3cret'" in config.conninfo
    assert config.environ()["PGPASSWORD"] == "s3cret"
    assert config.sqlalchemy_url().startswith("postgresql+psycopg://me:s3cret@db.example:5432/my_app_db?")
    assert config.sqlalchemy_url(driver="psycopg2").startswith("postgresql+psycopg2://")
    assert config.sqlalchemy_url(driver="asyncpg").startswith("postgresql+asyncpg://")
    with pytest.raises(ValueError) as unknown:
        config.sqlalchemy_url(driver="pg8000")
    assert "psycopg2" in unknown.value.hint
    assert config.asyncpg() == {
        "host": "db.example",
        "port": 5432,
        "database": "my_app_db",
        "user": "me",
        "password": "s3cret",
        "ssl": "require",
        "server_settings": {"application_name": "worker"},
    }
    assert config.django() == {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "db.example",
        "PORT": 5432,
        "NAME": "my_app_db",
        "USER": "me",
        "PASSWORD": "s3cret",
        "OPTIONS": {"sslmode": "require", "application_name": "worker"},
    }
    assert config.service_section("mine").startswith("[mine]\n")
    assert config.pgpass() == "db.example:5432:my_app_db:me:s3cret\n"
    jdbc = "jdbc:postgresql://db.example:5432/my_app_db?sslmode=require&ApplicationName=worker"
    assert config.jdbc() == {"url": jdbc, "user": "me", "password": "s3cret"}
    assert "PGPASSWORD=s3cret\n" in config.export("dotenv")
    assert "export PGPASSWORD='s3cret'\n" in config.export("shell")
    assert json.loads(config.export("json")) == config.environ()
    with pytest.raises(shareddb.InvalidInputError):
        config.export("yaml")
    command = config.psql()
    assert command.environment == {"PGPASSWORD": "s3cret"} and command.exports() == "export PGPASSWORD='s3cret'\n"
    assert command.arguments[0].startswith("host='db.example'") and str(command).startswith("psql 'host=")
    assert "s3cret" not in f"{command} {command!r} {command.arguments}"
    with pytest.raises(shareddb.InvalidInputError) as inexpressible:
        config.replace(hostaddr="127.0.0.1").asyncpg()
    assert "hostaddr" in str(inexpressible.value)


def test_what_was_said_can_be_taken_back():
    plain = ConnectionConfig.from_url(URL)
    config = plain.replace(hostaddr="127.0.0.1", connect_timeout=timedelta(seconds=3))
    assert config.without_hostaddr().hostaddr is None and config.hostaddr == "127.0.0.1"
    assert config.without_connect_timeout().connect_timeout == timedelta(seconds=5)
    assert config.without_hostaddr().without_connect_timeout().url == plain.url


def test_the_root_certificate(tmp_path):
    plain, root = ConnectionConfig.from_url(URL), tmp_path / "root.crt"
    assert (plain.sslrootcert, plain.root_certificate()) == (None, None)
    named = plain.replace(sslmode="verify-full", sslrootcert=root)
    assert named.sslrootcert == root
    with pytest.raises(shareddb.Error):
        named.root_certificate()
    root.write_text("-----BEGIN CERTIFICATE-----\n")
    assert named.root_certificate() == root.read_text()


class Variables(Mapping):
    """A mapping that is no dict and tells what it was asked for."""

    def __init__(self, values):
        self.values_, self.asked = values, set()

    def __getitem__(self, name):
        self.asked.add(name)
        return self.values_[name]

    def __iter__(self):
        return iter(self.values_)

    def __len__(self):
        return len(self.values_)


def test_variables_are_any_mapping(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("DB_", "DATABASE_", "PG", "SERVICE_BINDING", "SHAREDDB_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", URL)
    assert ConnectionConfig.from_vars(os.environ).url == ConnectionConfig.from_env().url
    words = {"DATABASE_URL": URL}
    mappings = [words, MappingProxyType(words), ChainMap({}, words), Variables(words), defaultdict(str, words)]
    assert {ConnectionConfig.from_vars(each).database for each in mappings} == {"my_app_db"}
    assert set(mappings[-1]) == {"DATABASE_URL"}, "asking makes nothing up"
    assert ConnectionConfig.from_vars({"DATABASE_URL": URL, "UNRELATED": 7}).database == "my_app_db"
    for wrong, told in ([URL], "list"), (None, "NoneType"), ({"DATABASE_URL": 7}, "DATABASE_URL: expected a str, not int"):
        with pytest.raises(TypeError, match=told):
            ConnectionConfig.from_vars(wrong)

    class Broken(Variables):
        def __getitem__(self, name):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ConnectionConfig.from_vars(Broken(words))


def test_options_are_any_mapping():
    config = ConnectionConfig("h", 1, "d", "u", options=MappingProxyType({"work_mem": "1MB"}))
    assert config.psycopg()["options"] == "-c work_mem=1MB"
    for wrong in (["work_mem"], {"work_mem": 1}, {1: "work_mem"}):
        with pytest.raises(TypeError):
            config.replace(options=wrong)


@pytest.mark.parametrize("port", [-1, 65_536, 70_000, 2**80, -(2**80)])
def test_a_port_that_cannot_be_one(port):
    for call in (lambda: ConnectionConfig("h", port, "d", "u"), lambda: ConnectionConfig.from_url(URL).replace(port=port)):
        with pytest.raises(shareddb.InvalidInputError) as raised:
            call()
        assert raised.value.code == "connection_invalid" and "port" in str(raised.value)


def test_a_port_of_another_type():
    for port in ("5432", 5432.0, None):
        with pytest.raises(TypeError, match=f"expected an int, not {type(port).__name__}"):
            ConnectionConfig("h", port, "d", "u")


def test_sources(environment, provisioner, app, monkeypatch, tmp_path):
    config = provisioner.connection(app)
    folder = environment.path / "secrets" / f"{app}-db-secret"
    mounted = ConnectionConfig.from_directory(folder)
    asked = ConnectionConfig.from_secret(f"{app}-db-secret", environment=environment)
    stored = environment.stored_connection(app)
    assert {each.url for each in (config, mounted, asked, stored)} == {config.url}
    assert mounted.source_directory == folder and config.source_directory is None
    assert ConnectionConfig.from_vars(config.environ()).url == config.url
    assert ConnectionConfig.from_vars({"DATABASE_URL": URL}).database == "my_app_db"
    for name in list(os.environ):
        if name.startswith(("DB_", "DATABASE_", "PG", "SERVICE_BINDING", "SHAREDDB_")):
            monkeypatch.delenv(name)
    with pytest.raises(shareddb.InvalidInputError):
        ConnectionConfig.from_env()
    monkeypatch.setenv("SHAREDDB_SECRET_DIR", str(folder))
    assert ConnectionConfig.from_env().url == config.url
    with pytest.raises(LookupError):
        ConnectionConfig.from_secret("absent-db-secret", environment=environment)
    with pytest.raises(LookupError):
        ConnectionConfig.from_directory(tmp_path / "absent")


def test_a_new_login_in_the_folder_is_found(tmp_path):
    words = {"DB_HOST": "h", "DB_PORT": "1", "DB_NAME": "d", "DB_USER": "u", "DB_PASSWORD": "one"}
    for name, value in words.items():
        (tmp_path / name).write_text(value)
    config = ConnectionConfig.from_directory(tmp_path).replace(application_name="worker")
    assert config.renewed() is None
    (tmp_path / "DB_USER").write_text("u_2")
    renewed = config.renewed()
    assert (renewed.user, renewed.application_name) == ("u_2", "worker")
    assert ConnectionConfig.from_url(URL).renewed() is None


def test_an_explanation():
    both = {"DATABASE_URL": URL, "PGHOST": "db.example", "PGDATABASE": "my_app_db", "PGUSER": "you", "PGPASSWORD": "x"}
    explanation = ConnectionConfig.from_vars(both).explain()
    user = explanation["user"]
    assert (user.name, user.value, user.source, user.rotation) == ("user", "me", "DATABASE_URL", "no")
    assert user.shadows == ["PGUSER (differs)"]
    assert explanation["password"].value.startswith("fingerprint ")
    assert [field.name for field in explanation] == [field.name for field in explanation.fields]
    assert len(explanation) == len(explanation.fields)
    with pytest.raises(KeyError):
        explanation["colour"]
    assert str(explanation).splitlines()[0].split() == ["SETTING", "VALUE", "SOURCE", "ROTATES", "SHADOWS"]
    assert "s3cret" not in str(explanation) + repr(explanation) + explanation._repr_html_()


def test_no_secret_is_shown():
    config = ConnectionConfig.from_url(URL)
    for shown in (str(config), repr(config), f"{config}", f"{config!r}", repr([config]), repr(config.explain()[("password")])):
        assert "s3cret" not in shown
    for keep in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError) as refused:
            keep(config)
        assert "s3cret" not in str(refused.value)
    assert not hasattr(config, "__dict__")


@pytest.mark.parametrize(
    "call",
    [
        lambda: ConnectionConfig.from_url("postgresql://me:s3@cret@db.example/my_app_db"),
        lambda: ConnectionConfig.from_vars({"DATABASE_URL": "postgresql://me:s3@cret@db.example/x"}),
        lambda: ConnectionConfig("bad host s3", 1, "d", "u", password="s3cret").url,
        lambda: ConnectionConfig("h", 1, "d", "u", password="s3cret\0").conninfo,
        lambda: ConnectionConfig("h", 1, "d", "u", password="s3cret", options={"a b": "c"}).psycopg(),
        lambda: ConnectionConfig("h", 70_000, "d", "u", password="s3cret"),
    ],
)
def test_no_traceback_shows_one(call):
    with pytest.raises(Exception) as raised:
        call()
    error = raised.value
    lines = traceback.format_exception_only(type(error), error)
    assert "cret" not in "".join(lines) + repr(error) + str(getattr(error, "hint", ""))
