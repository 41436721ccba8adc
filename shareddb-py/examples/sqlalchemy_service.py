"""A service on SQLAlchemy, whose credentials may change at any time: its engine follows the mounted Secret.

    SHAREDDB_SECRET_DIR=/etc/my-app/db python sqlalchemy_service.py

Needs sqlalchemy and psycopg. SIGTERM ends it.
"""

from callers import serve
from sqlalchemy import create_engine, text

import shareddb

config = shareddb.ConnectionConfig.from_env().replace(application_name="sqlalchemy service")

# SQLAlchemy's own numbers, fifteen connections and half a minute, are those of an app that has a server to itself.
engine = create_engine(config.sqlalchemy_url(), pool_size=4, max_overflow=0, pool_timeout=5, pool_pre_ping=True)
shareddb.rotation.follow_engine(engine, config)


def request():
    with engine.connect() as connection:
        connection.execute(text("SELECT session_user")).one()


serve(request)
