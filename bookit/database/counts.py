"""Counts the rows of lists, or estimates their number if it is large; counts rows in subqueries."""

import json
from collections.abc import Callable
from time import monotonic
from typing import Any

from django.db.models import Count, QuerySet, Subquery
from django.db.models.functions import Coalesce

# If a list has more rows than this, their number is estimated. PostgreSQL takes as long to count
# rows as to read them.
MAX_COUNTED = 10_000
# Counting `MAX_COUNTED` rows of a long list takes longer than reading a page of the list. So a
# process uses an estimate again for this many seconds, instead of counting again.
ESTIMATE_SECONDS = 60
# If a process has this many estimates, it forgets them all before it keeps another.
MAX_ESTIMATES = 1000


class Estimates:
    """The estimates that this process has made recently, by the texts and values of queries."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[int, float]] = {}

    def recent(self, text: str, values: object) -> int | None:
        """Return the estimated number of rows, or None if there is no recent estimate."""
        total, until = self._known.get((text, str(values)), (0, 0.0))
        return total if monotonic() < until else None

    def keep(self, text: str, values: object, total: int) -> None:
        """Keep an estimate for some seconds."""
        if len(self._known) >= MAX_ESTIMATES:
            self._known.clear()
        self._known[text, str(values)] = total, monotonic() + ESTIMATE_SECONDS

    def clear(self) -> None:
        """Forget all estimates."""
        self._known.clear()


estimates = Estimates()


def expected(rows: QuerySet[Any]) -> int:
    """Return the number of rows that PostgreSQL's planner expects, without reading rows."""
    return planned_rows(json.loads(rows.order_by().explain(format="json")))


def planned_rows(plan: list[dict[str, Any]]) -> int:
    """Return the number of rows that the planner expects, from the parsed EXPLAIN (FORMAT JSON)."""
    [explained] = plan
    return int(explained["Plan"]["Plan Rows"])


def bounded_count(count: Callable[[], int], estimate: Callable[[], int]) -> tuple[int, bool]:
    """Return the number of rows, and whether the number is exact.

    `count` stops after `MAX_COUNTED + 1` rows. If it gets that far, the result is the number of
    rows that PostgreSQL's planner estimates, but at least the number that was counted.
    """
    counted = count()
    if counted <= MAX_COUNTED:
        return counted, True
    return max(counted, estimate()), False


def number_of(rows: QuerySet[Any], *, by: str) -> Coalesce:
    """Return an expression for the number of rows that refer to a row of the outer query.

    Args:
        rows: the rows, filtered with `OuterRef`.
        by: the column with which they refer to the row of the outer query.
    """
    counted = rows.order_by().values(by).annotate(number=Count("pk"))
    return Coalesce(Subquery(counted.values("number")), 0)
