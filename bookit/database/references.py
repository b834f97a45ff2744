"""Checks whether other rows restrict the deletion of a row, without loading these rows."""

from django.db.models import RESTRICT, Model, RestrictedError


def is_referenced(row: Model) -> bool:
    """Return whether a foreign key of another row restricts the deletion of `row`."""
    return any(
        relation.related_model._base_manager.filter(**{relation.field.name: row}).exists()
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
