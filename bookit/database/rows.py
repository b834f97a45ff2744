"""Reads the rows of a statement without the layers of Django's cursors."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

from django.db import connections
from psycopg.rows import BaseRowFactory, tuple_row

from bookit.database import reading

Row = TypeVar("Row")
Parameters = Sequence[Any] | Mapping[str, Any]


@overload
def fetch(
    text: str, parameters: Parameters, *, using: str | None = ...
) -> list[tuple[Any, ...]]: ...


@overload
def fetch(
    text: str, parameters: Parameters, row: BaseRowFactory[Row], *, using: str | None = ...
) -> list[Row]: ...


def fetch(
    text: str, parameters: Parameters, row: Any = tuple_row, *, using: str | None = None
) -> list[Any]:
    """Run one statement on Django's connection, in its transaction, and return the rows.

    Hot paths use `fetch` for every statement, because it saves the layers of Django's cursor. If
    the connection's queries are counted or logged, `fetch` uses Django's cursor, so that no query
    is missed.

    Args:
        row: the row factory, for example `psycopg.rows.namedtuple_row` or `class_row(...)`.
        using: the alias of the database, by default the one from which this thread reads.
    """
    connection: Any = connections[using or reading.alias()]
    if connection.force_debug_cursor or connection.execute_wrappers:
        with connection.cursor() as cursor:
            cursor.execute(text, parameters)
            cursor.cursor.row_factory = row
            return list(cursor.fetchall())
    connection.validate_no_broken_transaction()
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor = connection.connection.cursor(row_factory=row)
        return list(cursor.execute(text, parameters).fetchall())
