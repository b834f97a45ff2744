"""Detects that the database has moved to another PostgreSQL server, and adapts the positions to it.

A position is the id of the transaction that wrote a row. Each server counts its own transactions.
"""

from json import loads
from typing import NamedTuple

from django.db import connection, transaction
from psycopg.rows import scalar_row

from bookit.database.citus.nodes import OLDEST_OPEN
from bookit.database.rows import fetch
from bookit.deadlines import no_time_limit_in_transaction
from bookit.restores.extensions import POSITIONS
from bookit.restores.models import Server

#: Lower than every position.
LOWEST = -(2**62)

# Reads the identifier of this server. Every role may call this function of PostgreSQL.
#
# Parameters: none.
# Columns: identifier bigint.
_IDENTIFIER = "SELECT system_identifier AS identifier FROM pg_control_system()"

# Assigns an id to this transaction, and returns it. All later transactions have higher ids.
#
# Parameters: none.
# Columns: position bigint.
_POSITION = "SELECT pg_current_xact_id()::text::bigint AS position"

# Reads the oldest open transaction, and the servers that have held the database.
#
# Parameters: none.
# Columns: position bigint (the id of the oldest open transaction), moves text (JSON: id, boundary
# and shift of each server, oldest first).
_HORIZON = f"""
SELECT {OLDEST_OPEN}::bigint AS position, (
    SELECT coalesce(jsonb_agg(jsonb_build_array(id, boundary, shift) ORDER BY id), '[]')::text
    FROM bookit_server
) AS moves
"""  # noqa: S608 - the inserted text is a constant


class Step(NamedTuple):
    """The unread rows of a step. `bookit.api.pagination.EventPagination` says what a step is.

    Args:
        low: the first position.
        high: the position before which the step ends, or 0 if its end is not known yet.
        last: the id of the last row that was read in this step, or None if no row was read.
        server: the id of the `Server` whose transaction ids are the positions.
    """

    low: int
    high: int
    last: str | None
    server: int


class Horizon(NamedTuple):
    """The oldest open transaction, and the moves to the servers that have held the database.

    No more rows can appear below `position`.

    Args:
        position: the id of the oldest open transaction or, if none is open, the next id.
        moves: the id, the boundary and the shift of each `Server`, oldest first.
    """

    position: int
    moves: list[tuple[int, int | None, int]]

    @property
    def server(self) -> int:
        """Return the id of the server that holds the database, or 0 if none is recorded."""
        return self.moves[-1][0] if self.moves else 0

    def translate(self, step: Step) -> Step:
        """Return what is left of a step, with positions of this server.

        A step that began on this server is returned as it is.

        The reader may have read rows that were written after the backup, and are therefore lost.
        Such rows were at the boundary or above it, and the new server writes its rows there. So the
        reader goes back to the boundary.
        """
        for server, boundary, shift in self.moves:
            if server <= step.server or boundary is None:
                continue
            low, high, last = step[:3]
            if low >= boundary:
                low, high, last = boundary, 0, None
            step = Step(low - shift, min(high, boundary) - shift if high else 0, last, server)
        return step


def horizon(*, using: str) -> Horizon:
    """Return the horizon of the database at this moment."""
    [(position, moves)] = fetch(_HORIZON, {}, using=using)
    return Horizon(position, loads(moves))


def is_migrated() -> bool:
    """Return whether the table of servers exists."""
    return Server._meta.db_table in connection.introspection.table_names()


@transaction.atomic
def notice_new_server() -> bool:
    """If the database has moved to this server, move all positions, and return True.

    Nothing else may write positions during the move. Therefore only `restore` and `migrate` call
    this function. After a restore with another program, `migrate` must run before web and worker
    processes start.
    """
    with connection.cursor() as cursor:
        # `restore` and `migrate` may run at the same time.
        cursor.execute("LOCK TABLE bookit_server IN SHARE ROW EXCLUSIVE MODE")
    [identifier] = fetch(_IDENTIFIER, {}, scalar_row)
    previous = Server.objects.order_by("id").last()
    if previous is None:
        Server.objects.create(identifier=identifier)
        return False
    if previous.identifier == identifier:
        return False
    [current] = fetch(_POSITION, {}, scalar_row)
    last = [found for each in POSITIONS.values() if (found := each.last()) is not None]
    boundary = max(last, default=current - 1) + 1
    shift = max(0, boundary - current)
    # STATEMENT_TIMEOUT_MS is meant for requests. Moving many positions takes longer.
    with no_time_limit_in_transaction():
        for each in POSITIONS.values():
            each.move(boundary, shift)
    Server.objects.create(identifier=identifier, boundary=boundary, shift=shift)
    return True
