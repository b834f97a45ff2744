"""Finds rows without knowing their calendar, also if the database is distributed.

An id does not tell on which server its row is. If the database is distributed, all servers are
asked for the calendar of the row first, and the row is then read by its calendar and its id. While
a server does not answer, the rows on all other servers are still found.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from json import loads
from typing import Any
from uuid import UUID

import psycopg
from django.db import OperationalError, connections, transaction
from django.db.models import Model, OuterRef, QuerySet, Value
from django.db.models.expressions import Col, ResolvedOuterRef
from django.db.models.lookups import Exact
from psycopg.rows import dict_row, scalar_row

from bookit.database import reading
from bookit.database.citus.layout import Layout
from bookit.database.citus.nodes import is_distributed, is_server_down
from bookit.database.rows import fetch

logger = logging.getLogger(__name__)

# Finds the calendar of a row by asking each server that has shards. Only one server has the row.
#
# Parameters: command text (calls `calendar_on_server`). The statement needs Citus.
# Columns: calendar_id uuid; null if the server does not answer, or does not have the row.
_ASK_EACH = """
SELECT CASE WHEN success THEN nullif(result, '')::uuid END AS calendar_id
FROM run_command_on_workers(%(command)s)
"""

# Runs a query on each shard of a table. Citus inserts the name of the shard for `%1$s`.
#
# Parameters: tables text[] (one name), command text. The statement needs Citus.
# Columns: rows text (a JSON list); no row for a shard in which the query finds nothing, or whose
#     server does not answer.
_ON_SHARDS = """
SELECT result AS rows
FROM run_command_on_placements((%(tables)s::text[])[1]::regclass, %(command)s)
WHERE success AND result <> ''
"""

# Runs a query on each shard of a table and the shard of another table for the same calendars. Citus
# inserts the names of the two shards for `%1$s` and `%2$s`.
#
# Parameters: tables text[] (two names), command text. The statement needs Citus.
# Columns: as in _ON_SHARDS.
_ON_PAIRS_OF_SHARDS = """
SELECT result AS rows
FROM run_command_on_colocated_placements(
    (%(tables)s::text[])[1]::regclass, (%(tables)s::text[])[2]::regclass, %(command)s
)
WHERE success AND result <> ''
"""


class OuterCalendar(OuterRef):
    """In a subquery, the calendar of the outer query's row.

    If the outer query finds the rows of one calendar and the database is distributed, the subquery
    names that calendar itself, because Citus would otherwise also ask servers without the calendar.
    """

    def __init__(self) -> None:
        super().__init__("calendar")

    def resolve_expression(self, *args: Any, **options: Any) -> Any:
        """Return a reference that is resolved once the outer query is known, as Django does."""
        return _ResolvedOuterCalendar("calendar")


class _ResolvedOuterCalendar(ResolvedOuterRef):
    def resolve_expression(self, query: Any = None, *args: Any, **options: Any) -> Any:
        column: Any = super().resolve_expression(query, *args, **options)
        if is_distributed():
            for each in query.where.children:
                if isinstance(each, Exact) and _is_same(each.lhs, column):
                    value = each.rhs
                    if not hasattr(value, "resolve_expression"):
                        return Value(value, column.output_field)
                    if isinstance(value, Value):
                        return value
        return column


def _is_same(one: Any, other: Col) -> bool:
    return isinstance(one, Col) and (one.alias, one.target) == (other.alias, other.target)


def calendar_of(model: type[Model], pk: Any) -> UUID:
    """Return the id of the calendar of a row.

    Raises:
        DoesNotExist: there is no row with this id.
        OperationalError: a server does not answer, and no other server has the row.
    """
    rows = model._base_manager.values_list("calendar_id", flat=True)
    if not is_distributed():
        found: UUID = rows.get(pk=pk)
        return found
    using = reading.alias()
    try:
        with transaction.atomic(using) if connections[using].in_atomic_block else nullcontext():
            return rows.get(pk=pk)
    except OperationalError:
        # Citus asks all shards in one statement, which fails if one of them cannot be reached.
        command = f"SELECT calendar_on_server('{model._meta.db_table}', '{UUID(str(pk))}')"
        answers = fetch(_ASK_EACH, {"command": command}, dict_row)
        for answer in answers:
            if answer["calendar_id"] is not None:
                return answer["calendar_id"]
        raise


def is_spread(model: type[Model]) -> bool:
    """Return whether the rows of a model are spread over several servers by calendar."""
    return is_distributed() and getattr(model, "layout", None) is Layout.BY_CALENDAR


def by_id(rows: QuerySet[Any], pk: Any) -> QuerySet[Any]:
    """Return the rows with an id: one row, or none.

    Raises:
        DoesNotExist: the model is spread (see `is_spread`), and has no row with this id.
        OperationalError: as in `calendar_of`.
    """
    found = rows.filter(pk=pk)
    if is_spread(rows.model):
        return found.filter(calendar=calendar_of(rows.model, pk))
    return found


def fetch_reachable(
    text: str, values: Mapping[str, Any], *, tables: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows that a query of several calendars finds on all servers that answer.

    If all servers answer, this is one query. Otherwise, it is `fetch_from_shards`. In both cases,
    the rows come from JSON, so ids and times are strings.
    """
    as_json = f"SELECT to_json(found) FROM ({text}) AS found"  # noqa: S608 - our own SQL
    try:
        return fetch(as_json, values, scalar_row)
    except OperationalError as error:
        if not is_server_down(error):
            raise
        logger.warning("the rows of a server that does not answer are left out: %s", error)
        return fetch_from_shards(text, values, tables=tables)


def fetch_from_shards(
    text: str, values: Mapping[str, Any], *, tables: Sequence[str]
) -> list[dict[str, Any]]:
    """Run a query on each shard of a distributed database, and return the rows of all shards.

    Shards on a server that does not answer are left out. A LIMIT applies to each shard. The rows
    come from JSON, so ids and times are strings.

    Args:
        tables: the names of the distributed tables in the query, one or two.
    """
    database: Any = connections[reading.alias()]
    query = psycopg.ClientCursor(database.connection).mogrify(text, values).replace("%", "%%")
    for number, table in enumerate(tables, start=1):
        query = re.sub(rf"\b{table}\b", f"%{number}$s", query)
    command = f"SELECT json_agg(found) FROM ({query}) AS found"  # noqa: S608 - our own SQL
    statement = _ON_SHARDS if len(tables) == 1 else _ON_PAIRS_OF_SHARDS
    answers = fetch(statement, {"tables": [*tables], "command": command}, dict_row)
    return [row for answer in answers for row in loads(answer["rows"])]
