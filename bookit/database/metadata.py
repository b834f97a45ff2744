"""Metadata: texts that integrators attach to a row. BookIt never interprets them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

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

from bookit.errors import CONSTRAINT_ERRORS, Invalid

Instance = TypeVar("Instance", bound=Model)

MAX_KEYS = 50
MAX_KEY_LENGTH = 40
MAX_VALUE_LENGTH = 500
# The longest JSON that these limits allow. A character takes up to six, as in `\u0001`.
MAX_LENGTH = 2 + MAX_KEYS * (6 * (MAX_KEY_LENGTH + MAX_VALUE_LENGTH) + len('"": "", '))

TOO_MANY_KEYS = f"There can be at most {MAX_KEYS} keys."

# Metadata as a client sends it. A null removes the key.
Changes = Mapping[str, str | None]


class MetadataField(JSONField):
    """A column that holds an object of texts, which is empty by default."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"default": dict, "db_default": {}, "editable": False, **options})


class TooManyKeys(Invalid):
    """The metadata would have too many keys."""

    def __init__(self) -> None:
        super().__init__(errors={"metadata": [TOO_MANY_KEYS]})


class Fits(Func):
    """Whether a column holds an object of texts that is not too large.

    The limits are arguments, so `makemigrations` notices when they change.
    """

    output_field = BooleanField()
    # `%s` is the column. PostgreSQL checks the conditions in their order, and most rows are empty.
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
        """Return the condition."""
        text, parameters = compiler.compile(self.source_expressions[0])
        condition = self.template
        for name, limit in self.limits.items():
            condition = condition.replace(name, limit)
        return condition.replace("%s", text), [*parameters] * condition.count("%s")


def metadata_fits(name: str) -> CheckConstraint:
    """Return the constraint that limits the column `metadata`.

    The API checks the limits first. The constraint also covers concurrent changes, which together
    can add too many keys.
    """
    CONSTRAINT_ERRORS.add(name)(TooManyKeys)
    return CheckConstraint(condition=Fits("metadata", keys=MAX_KEYS, length=MAX_LENGTH), name=name)


def stored(changes: Changes | None) -> dict[str, str]:
    """Return the metadata of a new row."""
    return {key: value for key, value in (changes or {}).items() if value is not None}


def merged(changes: Changes) -> Func:
    """Return the expression that merges `changes` into the column `metadata`.

    The merge is a part of the write, so concurrent changes of different keys are all kept.
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


def save_changes(
    instance: Instance,
    changes: Mapping[str, Any],
    *,
    save: Callable[..., None] = Model.save,
) -> None:
    """Store new values of some fields of a row. New metadata is merged into the old.

    Args:
        save: saves the row, with the names of the fields as `update_fields`.
    """
    if not changes:
        return
    for name, value in changes.items():
        setattr(instance, name, merged(value) if name == "metadata" else value)
    save(instance, update_fields=list(changes))
    instance.refresh_from_db(fields=[*({"metadata"} & changes.keys()), "updated_at"])
