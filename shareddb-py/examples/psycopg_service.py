"""A service on psycopg, whose credentials may change at any time: its pool follows the mounted Secret.

    SHAREDDB_SECRET_DIR=/etc/my-app/db python psycopg_service.py

Needs psycopg and psycopg_pool. SIGTERM ends it.
"""

from callers import serve

import shareddb

config = shareddb.ConnectionConfig.from_env().replace(application_name="psycopg service")

with config.pool(max_size=4) as pool:

    def request():
        with pool.connection() as connection:
            connection.execute("SELECT session_user").fetchone()

    serve(request)
