"""Reads the rows of a statement with psycopg's row factories."""

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

    Args:
        row: the row factory, for example `psycopg.rows.namedtuple_row` or `class_row(...)`.
        using: the alias of the database, by default the one from which this thread reads.
    """
    with connections[using or reading.alias()].cursor() as cursor:
        cursor.execute(text, parameters)
        # Django's cursor passes everything on to psycopg's cursor, but not an assignment.
        cursor.cursor.row_factory = row
        return cursor.fetchall()
