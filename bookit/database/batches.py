"""Deletes many rows without holding many locks or loading many rows at a time."""

from typing import Any

from django.db import connection, transaction
from django.db.models import CASCADE, Model, QuerySet

# Rows of one transaction. It takes some 50 ms, so nobody waits long for a row that is locked.
BATCH = 1000


def delete_in_batches(rows: QuerySet[Any], *, by: str, skip_locked: bool = True) -> int:
    """Delete rows, with those that refer to them, and return how many there were.

    Each batch is a transaction of its own, so what is deleted stays deleted if a later batch fails.

    Args:
        by: the indexed column in whose order they are deleted. Each batch begins where the one
            before ended, and so passes over the index entries of rows that are gone already.
        skip_locked: whether to leave out rows that somebody has locked; otherwise it waits.
    """
    deleted, last = 0, None
    while True:
        left = rows if last is None else rows.filter(**{f"{by}__gte": last})
        with transaction.atomic():
            # Locked first: a row that refers to one of them cannot appear in between.
            locked = left.select_for_update(skip_locked=skip_locked).order_by(by, "pk")
            batch = [*locked.values_list("pk", by)[:BATCH]]
            _delete(rows.model, [pk for pk, _ in batch])
        deleted += len(batch)
        if len(batch) < BATCH:
            return deleted
        last = batch[-1][1]


def _delete(model: type[Model], pks: list[Any]) -> None:
    """Delete rows by an array of keys: one parameter, where the ORM takes one for each key."""
    columns: list[tuple[str, Any]] = [
        (relation.related_model._meta.db_table, relation.field.column)
        for relation in model._meta.related_objects
        if relation.on_delete is CASCADE
    ]
    columns.append((model._meta.db_table, model._meta.pk.column))
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        for table, column in columns:
            cursor.execute(f"DELETE FROM {quote(table)} WHERE {quote(column)} = ANY(%s)", [pks])  # noqa: S608 - names of our own
