"""A service on Django, whose credentials may change at any time: libpq reads the mounted service file anew with each
connection, and Django makes a new one every minute.

    PGSERVICEFILE=/etc/my-app/db/pg_service.conf PGSERVICE=my-app python django_service.py

Needs django and psycopg. SIGTERM ends it.
"""

import os

import django
from callers import serve
from django.conf import settings
from django.db import close_old_connections, connection

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "OPTIONS": {"service": os.environ["PGSERVICE"], "application_name": "django service"},
            "CONN_MAX_AGE": int(os.environ.get("CONN_MAX_AGE", "60")),
            "CONN_HEALTH_CHECKS": True,
        }
    }
)
django.setup()


def request():
    # Django does so itself before each request that comes through HTTP.
    close_old_connections()
    with connection.cursor() as cursor:
        cursor.execute("SELECT session_user")
        cursor.fetchone()


serve(request)
