"""List filters that do not read a whole table to show their choices."""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib.admin import AllValuesFieldListFilter
from django.db import connection

# A filter offers at most this many values: more would not help anybody to choose.
MOST_VALUES = 100

# Uses the index of a column to jump from each value to the next.
_VALUES = """
WITH RECURSIVE found AS (
    (SELECT {column} AS value FROM {table} ORDER BY {column} LIMIT 1)
    UNION ALL
    SELECT (SELECT {column} FROM {table} WHERE {column} > value ORDER BY {column} LIMIT 1)
    FROM found WHERE value IS NOT NULL
)
SELECT value FROM found WHERE value IS NOT NULL LIMIT %s
"""


class IndexedValues(AllValuesFieldListFilter):
    """Offers the first `MOST_VALUES` values of a column that has an index."""

    def __init__(self, field: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(field, *args, **kwargs)
        quote = connection.ops.quote_name
        text = _VALUES.format(column=quote(field.column), table=quote(field.model._meta.db_table))
        with connection.cursor() as cursor:
            cursor.execute(text, [MOST_VALUES])
            self.lookup_choices: Any = [value for (value,) in cursor.fetchall()]


def one_of(values: Callable[[], Iterable[str]]) -> type[AllValuesFieldListFilter]:
    """Return a filter that offers values that are known to the code."""

    class KnownValues(AllValuesFieldListFilter):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.lookup_choices: Any = sorted(values())

    return KnownValues
