"""PgBouncer in transaction mode, in front of a PostgreSQL on this machine."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bookit.runtime.servers import START_TIMEOUT, ServerError

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
# The first version that keeps prepared statements of clients, and forgets them on DEALLOCATE ALL.
PREPARES_SINCE = (1, 22)
# The number of statements that PgBouncer keeps prepared on a connection to PostgreSQL, which serves
# several clients. On each connection of a client, psycopg keeps at most 100 prepared.
MAX_PREPARED_STATEMENTS = 200
#: The settings of BookIt behind PgBouncer with prepared statements.
SETTINGS = {"DATABASE_POOL_SIZE": "0", "DATABASE_PREPARED_STATEMENTS": "true"}

CONFIG = """
[databases]
bookit = host={host} port={port} dbname={dbname} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
ignore_startup_parameters = options
default_pool_size = {pool_size}
max_client_conn = 500
"""


def version() -> tuple[int, int]:
    """Return the version of PgBouncer, or (0, 0) if it is not installed."""
    if PROGRAM is None:
        return 0, 0
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"PgBouncer (\d+)\.(\d+)", said.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


@contextmanager
def pooling(url: str, directory: Path, *, pool_size: int) -> Iterator[str]:
    """Run PgBouncer in front of the database at `url`; the `with` block gets the URL of PgBouncer.

    Args:
        directory: a folder for the configuration of PgBouncer.
        pool_size: the number of connections from PgBouncer to PostgreSQL.

    Raises:
        ServerError: PgBouncer is not installed, or does not start.
    """
    if PROGRAM is None:
        raise ServerError("PgBouncer is not installed.")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = CONFIG.format(**conninfo_to_dict(url), listen_port=port, pool_size=pool_size)
    if version() >= PREPARES_SINCE:
        text += f"max_prepared_statements = {MAX_PREPARED_STATEMENTS}\n"
    config = directory / "pgbouncer.ini"
    config.write_text(text)
    # PgBouncer refuses to run as root. It reads its file before it becomes another user.
    as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([PROGRAM, "-q", *as_nobody, str(config)])
    pooled = f"postgresql://any@127.0.0.1:{port}/bookit"
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(pooled):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerError("PgBouncer does not start.")
            time.sleep(0.05)
        yield pooled
    finally:
        # From PgBouncer 1.23 on, SIGTERM would wait until all clients have disconnected.
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
