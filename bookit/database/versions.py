"""The version of a row: the time of its last change, which the database maintains.

The column `version` of calendars is something else.

A client that has read a row can ask BookIt to change the row only if nobody has changed it in the
meantime (`If-Match`, RFC 9110, section 13.1.1). The comparison is part of the write itself:
`expect` stores the expected version for the transaction, and the table's trigger compares it with
the version of the row.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.db import connection, transaction

from bookit.database.citus.nodes import is_distributed
from bookit.database.constraints import Trigger
from bookit.database.retries import retried
from bookit.errors import database_error_facts

Result = TypeVar("Result")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The PostgreSQL setting that contains the id and the expected version of a row. It lasts until the
# transaction ends.
SETTING = "bookit.expected_version"
# The constraint name in the errors that the trigger raises.
CONSTRAINT = "expected_version"


def version_of(updated_at: datetime) -> int:
    """Return the version of a row: the microseconds from 1970 to the last change of the row."""
    return (updated_at - EPOCH) // timedelta(microseconds=1)


def expect(pk: UUID, updated_at: datetime) -> None:
    """Let the caller's transaction change a row only if the row has not changed since `updated_at`.

    The first change of the row compares the versions. If they differ, it raises an
    `IntegrityError` that names `CONSTRAINT`. Later changes in the same transaction do not compare
    the versions again.
    """
    expected = f"{pk} {version_of(updated_at)}"
    with connection.cursor() as cursor:
        if is_distributed():
            # Citus sends SET LOCAL to the server of the row, but not `set_config`. SET takes no
            # parameters. The values are an id and a number, so the text can contain them.
            cursor.execute(f"SET LOCAL {SETTING} = '{expected}'")
        else:
            cursor.execute("SELECT set_config(%s, %s, true)", [SETTING, expected])


@retried
@transaction.atomic
def if_unchanged(row: Any, change: Callable[[], Result]) -> Result:
    """Call a function that changes a row that was read before.

    If the row has changed since it was read, the first change of the row is refused, and
    everything that the function has done in the database is rolled back.

    Raises:
        IntegrityError: the row has changed; see `is_outdated`.
    """
    expect(row.pk, row.updated_at)
    return change()


def is_outdated(error: Exception) -> bool:
    """Return whether a change was refused because the row had changed; see `expect`."""
    return database_error_facts(error)[1] == CONSTRAINT


def updated_at_trigger(prefix: str, columns: Sequence[str] = ()) -> Trigger:
    """Return a trigger for a table with the columns `id` and `updated_at`.

    The trigger increases `updated_at` at each change, unless the change itself increases it.
    `updated_at` never decreases. The trigger also compares the version that `expect` has
    stored with the version of the row.

    Args:
        prefix: the prefix of the names of the function and of its triggers.
        columns: if given, only changes to these columns increase `updated_at`.
    """
    olds, news = (", ".join(f"{row}.{name}" for name in columns) for row in ("OLD", "NEW"))
    changed = f"({olds}) IS DISTINCT FROM ({news})" if columns else "true"
    is_compared = f"current_setting('{SETTING}', true) <> ''"
    return Trigger(
        name=f"{prefix}_updated_at",
        body=f"""
DECLARE
    expected text := current_setting('{SETTING}', true);
BEGIN
    IF starts_with(expected, OLD.id || ' ') THEN
        PERFORM set_config('{SETTING}', '', true);
        IF expected <> OLD.id || ' ' || (extract(epoch FROM OLD.updated_at) * 1000000)::bigint THEN
            RAISE EXCEPTION 'the row has changed'
            USING ERRCODE = 'check_violation', CONSTRAINT = '{CONSTRAINT}';
        END IF;
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    IF NEW.updated_at <= OLD.updated_at THEN
        NEW.updated_at := CASE WHEN {changed}
            THEN greatest(now(), OLD.updated_at + interval '1 microsecond') ELSE OLD.updated_at END;
    END IF;
    RETURN NEW;
END
""",
        triggers={
            f"{prefix}_updated_at": f"""
                BEFORE UPDATE ON {{table}} FOR EACH ROW WHEN (
                    NEW.updated_at <= OLD.updated_at OR {is_compared}
                )
            """,
            f"{prefix}_deleted_version": f"""
                BEFORE DELETE ON {{table}} FOR EACH ROW WHEN ({is_compared})
            """,
        },
    )
