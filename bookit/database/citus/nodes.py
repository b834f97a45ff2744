"""The servers of a distributed database."""

from functools import cache

from psycopg.rows import scalar_row

from bookit.database.rows import fetch

# `distribute` sets this setting of the database.
SETTING = "bookit.distributed"

# Tells whether the database is distributed.
#
# Parameters: none.
# Columns: is_distributed boolean.
_IS_DISTRIBUTED = f"SELECT coalesce(current_setting('{SETTING}', true), '') = 'on'"


@cache
def is_distributed() -> bool:
    """Return whether the rows of calendars are spread over several servers.

    A process asks once, because its sessions keep the settings with which they began.
    """
    [found] = fetch(_IS_DISTRIBUTED, {}, scalar_row, using="default")
    return bool(found)


def forget() -> None:
    """Ask again at the next call of `is_distributed`."""
    is_distributed.cache_clear()
