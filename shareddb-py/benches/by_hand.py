"""The script that people write today: an app's database by psycopg, its Secret by `publish`.

Kept to compare with: it makes a role, a database, a schema and a Secret. It proves nothing, repairs nothing, records nothing,
has one login and hence no rotation, leaves the databases of others open, and when it is killed somebody tidies up by hand.
"""

import secrets

import psycopg
from psycopg import sql


def create(admin, conninfo, host, port, app, publish):
    """Makes an app. `admin` is a session of the admin's, and `conninfo` how to make more; `publish` is given the name of the
    Secret and the values in it."""
    name, password = app.replace("-", "_"), secrets.token_urlsafe(24)
    database, user = f"{name}_db", f"{name}_user"
    words = {"database": sql.Identifier(database), "user": sql.Identifier(user), "schema": sql.Identifier(name)}
    admin.execute(sql.SQL("CREATE ROLE {user} LOGIN PASSWORD {password}").format(**words, password=sql.Literal(password)))
    admin.execute(sql.SQL("CREATE DATABASE {database} OWNER {user}").format(**words))
    admin.execute(sql.SQL("REVOKE ALL ON DATABASE {database} FROM PUBLIC").format(**words))
    admin.execute(sql.SQL("ALTER ROLE {user} SET search_path = {schema}").format(**words))
    with psycopg.connect(conninfo, dbname=database, autocommit=True) as inside:
        inside.execute(sql.SQL("CREATE SCHEMA {schema} AUTHORIZATION {user}").format(**words))
    url = f"postgresql://{user}:{password}@{host}:{port}/{database}"
    values = {
        "DB_HOST": host,
        "DB_PORT": str(port),
        "DB_NAME": database,
        "DB_USER": user,
        "DB_PASSWORD": password,
        "DATABASE_URL": url,
    }
    publish(f"{app}-db-secret", values)
