"""Checks whether other rows restrict the deletion of a row, without loading these rows."""

from typing import Any

from django.db.models import RESTRICT, Model, RestrictedError

from bookit.database.citus.lookups import is_spread


def is_referenced(row: Any) -> bool:
    """Return whether a foreign key of another row restricts the deletion of `row`."""
    # Rows that refer to a row of a calendar are on the same calendar, so only its server is asked.
    same = {"calendar": row.calendar_id} if is_spread(type(row)) else {}
    return any(
        relation.related_model._base_manager.filter(**{relation.field.name: row}, **same).exists()
        for relation in row._meta.related_objects
        if relation.on_delete is RESTRICT
    )


def delete_unreferenced(row: Model) -> None:
    """Delete a row, unless other rows restrict its deletion.

    `Model.delete()` loads all rows that refer to the row before it refuses to delete it. A service,
    for example, can have a million bookings.

    Raises:
        RestrictedError: a foreign key of another row restricts the deletion.
    """
    if is_referenced(row):
        raise RestrictedError(f"Other rows refer to {row!r}.", set())
    row.delete()
