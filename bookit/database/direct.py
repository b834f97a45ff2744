"""The check of `DATABASE_DIRECT_URL`, which bypasses a pooler."""

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from psycopg.rows import scalar_row

from bookit.database.rows import fetch

# Identifies the database of this session. Every role may call `pg_control_system`.
#
# Parameters: none.
# Columns: place text (the identifier of the server, and the id of the database on this server).
_PLACE = """
SELECT system_identifier || '/' || pg_database.oid AS place
FROM pg_control_system(), pg_database WHERE datname = current_database()
"""


def check_direct_url() -> None:
    """Check that `DATABASE_DIRECT_URL`, if it is set, leads to the database of `DATABASE_URL`.

    Otherwise, a restore would replace the data of another database, and a worker would run its
    jobs.

    Raises:
        ImproperlyConfigured: the URL leads to another database, or cannot be used.
    """
    url = settings.DATABASE_DIRECT_URL
    if not url:
        return
    try:
        with psycopg.connect(url, connect_timeout=2, row_factory=scalar_row) as direct:
            place = direct.execute(_PLACE).fetchone()
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        raise ImproperlyConfigured(f"DATABASE_DIRECT_URL: {reason}") from None
    if [place] != fetch(_PLACE, {}, scalar_row):
        raise ImproperlyConfigured(
            "DATABASE_DIRECT_URL leads to another database than DATABASE_URL."
        )
