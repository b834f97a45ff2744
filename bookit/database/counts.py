"""The number of rows of a list: counted if that is cheap, otherwise estimated."""

from collections.abc import Callable
from typing import Any

# At most this many rows are counted. PostgreSQL takes as long to count rows as to read them.
MAX_COUNTED = 10_000


def bounded_count(count: Callable[[], int], explain: Callable[[], Any]) -> tuple[int, bool]:
    """Return the number of rows, and whether the number is exact.

    `count` stops after `MAX_COUNTED + 1` rows. If there are more than `MAX_COUNTED`, the result is
    the number of rows that PostgreSQL's planner estimates. `explain` returns the plan as JSON.
    """
    counted = count()
    if counted <= MAX_COUNTED:
        return counted, True
    [explained] = explain()
    return max(counted, int(explained["Plan"]["Plan Rows"])), False
