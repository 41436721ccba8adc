"""A service on asyncpg, whose credentials may change at any time: its pool follows the mounted Secret.

    SHAREDDB_SECRET_DIR=/etc/my-app/db python asyncpg_service.py

Needs asyncpg. SIGTERM ends it.
"""

import asyncio

from callers import serve_async

import shareddb

config = shareddb.ConnectionConfig.from_env().replace(application_name="asyncpg service")


async def main():
    async with shareddb.rotation.asyncpg_pool(config, max_size=4) as pool:

        async def request():
            await pool.fetchval("SELECT session_user")

        await serve_async(request)


asyncio.run(main())
