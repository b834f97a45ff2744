"""Deletes many rows without holding many locks or loading many rows at a time."""

from typing import Any

from django.db import connection, transaction
from django.db.models import CASCADE, Model, QuerySet
from psycopg import sql

# The number of rows that one transaction deletes. A transaction takes about 50 ms, so nobody waits
# long for a locked row.
BATCH = 1000

# Deletes the rows of `{table}` whose `{column}` is one of the given keys.
#
# Parameters: keys, an array of the column's type. `{table}` and `{column}` become quoted names.
# Columns: none.
_DELETE = sql.SQL("DELETE FROM {table} WHERE {column} = ANY(%(keys)s)")


def delete_in_batches(rows: QuerySet[Any], *, by: str, skip_locked: bool = True) -> int:
    """Delete `rows` and the rows that refer to them with CASCADE, only one level deep.

    Return how many of `rows` were deleted, without the rows that refer to them.

    Each batch is a transaction of its own, so a batch stays deleted if a later batch fails.

    Args:
        by: the indexed column that orders the batches. Each batch begins where the previous batch
            ended, so it does not read the index entries of rows that are already deleted.
        skip_locked: whether to leave out rows that another transaction has locked, instead of
            waiting for them.
    """
    deleted, last = 0, None
    while True:
        remaining = rows if last is None else rows.filter(**{f"{by}__gte": last})
        with transaction.atomic():
            # Lock the rows first, so that no new row can refer to them.
            locked = remaining.select_for_update(skip_locked=skip_locked).order_by(by, "pk")
            batch = [*locked.values_list("pk", by)[:BATCH]]
            _delete(rows.model, [pk for pk, _ in batch])
        deleted += len(batch)
        if len(batch) < BATCH:
            return deleted
        last = batch[-1][1]


def _delete(model: type[Model], pks: list[Any]) -> None:
    """Delete the rows with these keys, and the rows that refer to them with CASCADE.

    Each statement has one parameter, an array. The ORM would send a parameter for each key.
    """
    columns: list[tuple[str, Any]] = [
        (relation.related_model._meta.db_table, relation.field.column)
        for relation in model._meta.related_objects
        if relation.on_delete is CASCADE
    ]
    columns.append((model._meta.db_table, model._meta.pk.column))
    with connection.cursor() as cursor:
        for table, column in columns:
            statement = _DELETE.format(table=sql.Identifier(table), column=sql.Identifier(column))
            cursor.execute(statement, {"keys": pks})
