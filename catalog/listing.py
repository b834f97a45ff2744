"""Lists of services that are filtered by words or by free times, at a bounded cost."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import QuerySet

from bookit.exceptions import refuse
from catalog.models import Service
from catalog.search import Words

# A search finds and counts up to this many matches.
MOST_FOUND = 10_000
# At most this many services with wanted words in their titles are ranked.
MOST_RANKED = 1000
# To fill a page with services that have a free time, the calendars of up to this many are searched.
MOST_LOOKED_AT = 1000
# At least this many services are searched (if there are as many), to estimate the count.
ENOUGH_FOR_COUNT = 200
# Services are searched in batches of this size.
AT_A_TIME = 50
# The option of `ts_rank` that divides by the length: shorter titles with a word rank higher.
BY_LENGTH = 2

# The subquery has the name of the table and holds no other condition. With a second condition, the
# planner could use the index of that one, and read the words of every row that it finds there.
MATCHES = """
WITH catalog_service AS NOT MATERIALIZED (
    SELECT * FROM catalog_service WHERE search @@ {query} LIMIT {most}
)
{filtered}
"""
# There is no join here: the planner expects few matches from any search, and would choose a nested
# loop. NOT IN uses a hash table.
RANKED = """
WITH matches AS MATERIALIZED ({matches}), ranked AS MATERIALIZED (
    SELECT {columns}, ts_rank(title_words, {rank}, {by_length}) AS relevance
    FROM matches WHERE title_words @@ {rank} LIMIT {most_ranked}
), found AS (
    SELECT {columns}, relevance FROM ranked
    UNION ALL
    SELECT {columns}, 0 FROM matches WHERE id NOT IN (SELECT id FROM ranked)
)
"""
FOUND = "WITH matches AS MATERIALIZED ({matches}), found AS (SELECT * FROM matches)"
PAGE = """
SELECT id, (SELECT count(*) FROM matches) FROM found ORDER BY {order} LIMIT %s OFFSET %s
"""
COUNT = "SELECT count(*) FROM ({matches}) AS found"


@dataclass
class Listing:
    """Services in order, which can be sliced and counted like a queryset.

    Args:
        services: the services that pass the other filters.
        words: the words that a service must be described by.
        keep: takes the ids of some services and returns those that stay in the list, such as the
            ids of services with a free time.
        shape: turns services into the rows that are shown.
    """

    services: QuerySet[Service]
    words: Words | None = None
    keep: Callable[[Sequence[UUID]], Collection[UUID]] | None = None
    shape: Callable[[QuerySet[Service]], Any] = lambda rows: rows.values()
    order: tuple[Any, ...] = ("id",)
    total: int | None = None
    is_corrected: bool = False
    # False if `count` is an estimate.
    count_is_exact: bool = True

    def order_by(self, *terms: Any) -> "Listing":
        """Return the services in another order."""
        return replace(self, order=terms)

    def __getitem__(self, part: slice) -> list[dict[str, Any]]:
        """Return the rows from `part.start` to before `part.stop`."""
        start, stop = part.start or 0, part.stop
        ids = self._ids(start, stop) if self.keep is None else self._kept(start, stop)
        rows = {row["id"]: row for row in self.shape(Service.objects.filter(pk__in=ids))}
        return [rows[pk] for pk in ids if pk in rows]

    def count(self) -> int:
        """Return the number of services, or an estimate if too many would have to be searched."""
        if self.total is None:
            self.total = self._count()
        return self.total

    def _kept(self, start: int, stop: int) -> list[UUID]:
        """Return the ids of the services that `keep` lets stay, from `start` to before `stop`.

        Raises:
            ValidationError: too many services would have to be searched.
        """
        assert self.keep is not None  # noqa: S101 - `__getitem__` has checked it
        candidates = self._ids(0, MOST_LOOKED_AT)
        kept: list[UUID] = []
        seen = 0
        while seen < len(candidates) and (seen < ENOUGH_FOR_COUNT or len(kept) <= stop):
            some = candidates[seen : seen + AT_A_TIME]
            may_stay = self.keep(some)
            kept += [pk for pk in some if pk in may_stay]
            seen += len(some)
        unseen = len(candidates) - seen
        if len(candidates) == MOST_LOOKED_AT:
            self.total = None if self.words is None else self.total
            unseen = self.count() - seen
            if unseen and len(kept) < stop:
                raise refuse(
                    "available_from",
                    f"Only {MOST_LOOKED_AT:,} services at a time are searched for free times. "
                    "Narrow the search by q, category, provider_id or price.",
                )
        self.total = len(kept) + (unseen * len(kept) // seen if seen else 0)
        self.count_is_exact = not unseen
        return kept[start:stop]

    def _ids(self, start: int, stop: int) -> list[UUID]:
        """Return the ids of the services from `start` to before `stop`."""
        if self.words is None:
            return [*self.services.order_by(*self.order).values_list("pk", flat=True)[start:stop]]
        ids = self._page(start, stop)
        if not ids and not self.is_corrected and self._count() == 0:
            # No service is described by these words: they are misspelt or unfinished.
            self.is_corrected = True
            self.words = self.words.corrected(self.services.db)
            ids = self._page(start, stop)
        return ids

    def _page(self, start: int, stop: int) -> list[UUID]:
        names = [_column(term) for term in self.order]
        columns = [*dict.fromkeys(["id", *(name for name in names if name != "relevance")])]
        if "relevance" in names:
            head, values = self._ranked(columns)
        else:
            text, values = self._matches(columns)
            head = FOUND.format(matches=text)
        order = ", ".join(
            f"{name} {'DESC' if _descends(term) else 'ASC'} NULLS LAST"
            for name, term in zip(names, self.order, strict=True)
        )
        page = PAGE.format(order=order)
        rows = self._fetch(f"{head} {page}", (*values, stop - start, start))
        if rows:
            self.total = rows[0][1]
            self.count_is_exact = self.total < MOST_FOUND
        return [row[0] for row in rows]

    def _count(self) -> int:
        if self.words is None:
            return self.services.count()
        text, values = self._matches(["id"])
        return int(self._fetch(COUNT.format(matches=text), values)[0][0])

    def _matches(self, columns: list[str]) -> tuple[str, tuple[Any, ...]]:
        """Return the statement that finds the services in any order, and its values."""
        assert self.words is not None  # noqa: S101 - only called for a search by words
        query, wanted = self.words.query().as_sql(None, None)
        filtered, values = self.services.order_by().values(*columns).query.sql_with_params()
        text = MATCHES.format(query=query, most=MOST_FOUND, filtered=filtered)
        return text, (*wanted, *values)

    def _ranked(self, columns: list[str]) -> tuple[str, tuple[Any, ...]]:
        """Return the statement whose `found` holds the ranked matches, and its values."""
        assert self.words is not None  # noqa: S101 - only called for a search by words
        rank, ranked = self.words.rank().as_sql(None, None)
        text, values = self._matches([*columns, "title_words"])
        head = RANKED.format(
            matches=text,
            columns=", ".join(columns),
            rank=rank,
            by_length=BY_LENGTH,
            most_ranked=MOST_RANKED,
        )
        return head, (*values, *ranked, *ranked)

    def _fetch(self, text: str, values: tuple[Any, ...]) -> list[Any]:
        connection: Any = connections[self.services.db]
        return connection.fetch(text, values)


def _column(term: Any) -> str:
    return term.lstrip("-") if isinstance(term, str) else term.expression.name


def _descends(term: Any) -> bool:
    return term.startswith("-") if isinstance(term, str) else term.descending
