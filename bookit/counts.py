"""How many rows a list has: counted while that is cheap, else estimated."""

from collections.abc import Callable
from typing import Any

# To count a million rows takes PostgreSQL as long as to read them.
MOST_COUNTED = 10_000


def bounded_count(count: Callable[[], int], explain: Callable[[], Any]) -> tuple[int, bool]:
    """Return how many rows there are, and whether that is exact.

    `count` stops after `MOST_COUNTED + 1` rows. Where it has found that many, what PostgreSQL
    expects is the answer: `explain` returns its plan for all the rows, as JSON.
    """
    counted = count()
    if counted <= MOST_COUNTED:
        return counted, True
    [explained] = explain()
    return max(counted, int(explained["Plan"]["Plan Rows"])), False
