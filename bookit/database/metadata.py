"""Metadata: keys and values that integrators attach to a row. BookIt never interprets them."""

from collections.abc import Mapping
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db.models import (
    BooleanField,
    CheckConstraint,
    F,
    Func,
    JSONField,
    Model,
    TextField,
    Value,
)
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from bookit.errors import CONSTRAINT_ERRORS, Invalid

MAX_KEYS = 50
MAX_KEY_LENGTH = 40
MAX_VALUE_LENGTH = 500
# No JSON that these limits allow is longer than this. JSON can need six characters for one
# character of a key or a value, for example `\u0001`.
MAX_LENGTH = 2 + MAX_KEYS * (6 * (MAX_KEY_LENGTH + MAX_VALUE_LENGTH) + len('"": "", '))

TOO_MANY_KEYS = format_lazy(_("There can be at most {most} keys."), most=MAX_KEYS)

# The metadata that a client sends. A null removes its key.
Changes = Mapping[str, str | None]


class MetadataField(JSONField):
    """A column that holds a JSON object of strings. By default, the object is empty."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"default": dict, "db_default": {}, "editable": False, **options})


class TooManyKeys(Invalid):
    """The metadata would have too many keys."""

    def __init__(self) -> None:
        super().__init__(errors={"metadata": [str(TOO_MANY_KEYS)]})


class Fits(Func):
    """The condition that a column holds a JSON object of strings that is not too large.

    The limits are arguments, so `makemigrations` notices when they change.
    """

    output_field = BooleanField()
    # `%s` is the column. PostgreSQL checks the parts of the condition from left to right, and only
    # the first part for rows without metadata, as most are.
    template = """(%s = '{}'::jsonb OR (
        jsonb_typeof(%s) = 'object'
        AND jsonb_array_length(jsonb_path_query_array(%s, '$.keyvalue()')) <= {keys}
        AND NOT jsonb_path_exists(%s, 'strict $.* ? (@.type() != "string")')
        AND length(%s::text) <= {length}
    ))"""

    def __init__(self, column: str, *, keys: int, length: int) -> None:
        super().__init__(column)
        self.limits = {"{keys}": str(keys), "{length}": str(length)}

    def as_sql(  # type: ignore[override]
        self, compiler: Any, connection: Any, **options: Any
    ) -> tuple[str, list[Any]]:
        """Return the condition and its parameters."""
        text, parameters = compiler.compile(self.source_expressions[0])
        condition = self.template
        for name, limit in self.limits.items():
            condition = condition.replace(name, limit)
        return condition.replace("%s", text), [*parameters] * condition.count("%s")


def metadata_fits(name: str) -> CheckConstraint:
    """Return the constraint that limits the column `metadata`; register `TooManyKeys` as its error.

    The API checks the limits first. The constraint also covers concurrent changes, which together
    can add too many keys.
    """
    CONSTRAINT_ERRORS.add(name)(TooManyKeys)
    return CheckConstraint(condition=Fits("metadata", keys=MAX_KEYS, length=MAX_LENGTH), name=name)


def stored(changes: Changes | None) -> dict[str, str]:
    """Return the metadata of a new row: `changes` without the nulls."""
    return {key: value for key, value in (changes or {}).items() if value is not None}


def merged(changes: Changes) -> Func:
    """Return the expression that merges `changes` into the column `metadata`.

    PostgreSQL merges as part of the UPDATE, so concurrent changes of different keys are all kept.
    """
    removed = [key for key, value in changes.items() if value is None]
    added = Func(
        F("metadata"),
        Value(stored(changes), output_field=JSONField()),
        template="(%(expressions)s)",
        arg_joiner=" || ",
    )
    return Func(
        added,
        Value(removed, output_field=ArrayField(TextField())),
        template="(%(expressions)s)",
        arg_joiner=" - ",
        output_field=JSONField(),
    )


def save_changes(instance: Model, changes: Mapping[str, Any]) -> None:
    """Save new values of some fields of a row. New metadata is merged into the old metadata."""
    if not changes:
        return
    for name, value in changes.items():
        setattr(instance, name, merged(value) if name == "metadata" else value)
    instance.save(update_fields=list(changes))
    instance.refresh_from_db(fields=[*({"metadata"} & changes.keys()), "updated_at"])
