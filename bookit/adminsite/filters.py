"""Filters of lists that do not read a whole table to show what can be chosen."""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib.admin import AllValuesFieldListFilter
from django.db import connection

# More values than this of a column do not help anybody to choose.
MOST_VALUES = 100

# Jumps through the index of a column from each value to the next.
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
    """Offers the values of a column that has an index, the first `MOST_VALUES` of them."""

    def __init__(self, field: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(field, *args, **kwargs)
        quote = connection.ops.quote_name
        text = _VALUES.format(column=quote(field.column), table=quote(field.model._meta.db_table))
        with connection.cursor() as cursor:
            cursor.execute(text, [MOST_VALUES])
            self.lookup_choices: Any = [value for (value,) in cursor.fetchall()]


def one_of(values: Callable[[], Iterable[str]]) -> type[AllValuesFieldListFilter]:
    """Return a filter that offers values which the code knows."""

    class KnownValues(AllValuesFieldListFilter):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.lookup_choices: Any = sorted(values())

    return KnownValues
