"""The number of rows of a list: counted if that is cheap, otherwise estimated."""

from collections.abc import Callable
from typing import Any

# Counting a million rows takes PostgreSQL as long as reading them.
MAX_COUNTED = 10_000


def bounded_count(count: Callable[[], int], explain: Callable[[], Any]) -> tuple[int, bool]:
    """Return how many rows there are, and whether that is exact.

    `count` stops after `MAX_COUNTED + 1` rows. If it finds that many, the number of rows that
    PostgreSQL expects is returned. `explain` returns PostgreSQL's plan for all rows, as JSON.
    """
    counted = count()
    if counted <= MAX_COUNTED:
        return counted, True
    [explained] = explain()
    return max(counted, int(explained["Plan"]["Plan Rows"])), False
