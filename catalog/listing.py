"""Lists of services that are filtered by words or by free times, at a bounded cost."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from psycopg.rows import namedtuple_row

from bookit.database.rows import fetch
from bookit.errors.refusals import refuse
from bookit.languages import grouped
from catalog.models import Service
from catalog.search import Words

# A search finds and counts up to this many matches.
MAX_FOUND = 10_000
# At most this many services with wanted words in their titles are ranked.
MAX_RANKED = 1000
# To fill a page with services that have a free time, up to this many services are searched.
MAX_LOOKED_AT = 1000
# To estimate the count, at least this many services are searched, or all if there are fewer.
ENOUGH_FOR_COUNT = 200
# Services are searched in batches of this size.
AT_A_TIME = 50
# The option of `ts_rank` that divides by the length: shorter titles with a word rank higher.
BY_LENGTH = 2


@dataclass
class Listing:
    """Services in order, which can be sliced and counted like a queryset.

    Args:
        services: the services that pass the other filters.
        words: the words that a service must be described by.
        keep: takes the ids of some services and returns those that stay in the list, for example
            the ids of services with a free time.
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
        """Return the ids of the services that `keep` returns, from `start` to before `stop`.

        Raises:
            ValidationError: too many services would have to be searched.
        """
        assert self.keep is not None  # noqa: S101 - `__getitem__` has checked it
        candidates = self._ids(0, MAX_LOOKED_AT)
        kept: list[UUID] = []
        seen = 0
        while seen < len(candidates) and (seen < ENOUGH_FOR_COUNT or len(kept) <= stop):
            some = candidates[seen : seen + AT_A_TIME]
            may_stay = self.keep(some)
            kept += [pk for pk in some if pk in may_stay]
            seen += len(some)
        unseen = len(candidates) - seen
        if len(candidates) == MAX_LOOKED_AT:
            self.total = None if self.words is None else self.total
            unseen = self.count() - seen
            if unseen and len(kept) < stop:
                raise refuse(
                    "available_from",
                    _(
                        "At most %(most)s services can be searched for free times at once. "
                        "Narrow the search by q, category, provider_id or price."
                    )
                    % {"most": grouped(MAX_LOOKED_AT)},
                )
        self.total = len(kept) + (unseen * len(kept) // seen if seen else 0)
        self.count_is_exact = not unseen
        return kept[start:stop]

    def _ids(self, start: int, stop: int) -> list[UUID]:
        """Return the ids of the services from `start` to before `stop`."""
        if self.words is None:
            return [*self.services.order_by(*self.order).values_list("pk", flat=True)[start:stop]]
        ids = self._page(self.words, start, stop)
        if not ids and not self.is_corrected and self._count() == 0:
            # No service is described by these words: they are misspelt or unfinished.
            self.is_corrected = True
            self.words = self.words.corrected(self.services.db)
            ids = self._page(self.words, start, stop)
        return ids

    def _page(self, words: Words, start: int, stop: int) -> list[UUID]:
        search = Search(self.services, words)
        ranks = any(_column(term) == "relevance" for term in self.order)
        text = search.page_by_relevance(self.order) if ranks else search.page(self.order)
        bounds = {"limit": stop - start, "offset": start, "stop": stop}
        values = {**search.parameters, **bounds}
        rows: list[Any] = fetch(text, values, namedtuple_row, using=self.services.db)
        if rows:
            self._set_count(rows[0])
        return [row.id for row in rows]

    def _count(self) -> int:
        if self.words is None:
            return self.services.count()
        search = Search(self.services, self.words)
        [row] = fetch(search.count(), search.parameters, namedtuple_row, using=self.services.db)
        return self._set_count(row)

    def _set_count(self, row: Any) -> int:
        self.total, self.count_is_exact = row.total, not row.has_more
        return self.total


class Search:
    """The statements that find services by words.

    The conditions of other filters are the ORM's. All parameters have names:

    - `word_1`, `word_2` and so on, text: the words.
    - `filter_1`, `filter_2` and so on: the values of the other filters.
    - `limit` and `offset`, bigint: the size of the page and the number of services before it.
    - `stop`, bigint: the sum of both.
    """

    def __init__(self, services: QuerySet[Service], words: Words) -> None:
        self.services, self.words = services, words
        # All parameters except `limit`, `offset` and `stop`. Those of the filters are added when a
        # statement is built.
        self.parameters: dict[str, Any] = dict(words.parameters)

    # Finds a page of services, and counts the services of all pages.
    #
    # Parameters: word_*, filter_*, limit, offset.
    # Columns: id uuid; total bigint and has_more boolean, the same in each row. There is no row if
    #     the page is empty.
    # Invariant: `order` ends in the id, so pages do not overlap.
    def page(self, order: Sequence[Any]) -> str:
        """Return the statement for a page of services in some order."""
        columns = [*dict.fromkeys(["id", *map(_column, order)])]
        return f"""
{self._query}, matches AS MATERIALIZED (
{self._matches(columns)}
)
SELECT id, (SELECT count(*) FROM matches) AS total, {self._has_more} AS has_more
FROM matches
ORDER BY {_in_order(order)} LIMIT %(limit)s OFFSET %(offset)s
"""  # noqa: S608 - names of columns, and the ORM's own text

    # Does the same if the relevance is part of the order.
    #
    # Only services that have a wanted word in the title are ranked. All others have the relevance
    # 0, so only the first `stop` of them, by the other terms of the order, can be on the page. If
    # one of these two groups fills the page, the other is neither sorted nor ranked.
    #
    # There is no join. The planner expects few matches from any search, and would choose a nested
    # loop. NOT IN uses a hash table.
    #
    # Parameters: word_*, filter_*, limit, offset, stop.
    # Columns: as above.
    # Invariant: as above.
    def page_by_relevance(self, order: Sequence[Any]) -> str:
        """Return the statement for a page of services in an order that includes the relevance."""
        others_order = [term for term in order if _column(term) != "relevance"]
        columns = [*dict.fromkeys(["id", *map(_column, others_order)])]
        selected = ", ".join(columns)
        titled_suffice = others_suffice = "false"
        if _column(order[0]) == "relevance" and _descends(order[0]):
            titled_suffice = "(SELECT count(*) >= %(stop)s FROM titled)"
        elif _column(order[0]) == "relevance":
            others_suffice = "(SELECT count(*) >= %(stop)s FROM others)"
        return f"""
{self._query}, matches AS MATERIALIZED (
{self._matches(columns)}
), titled AS MATERIALIZED (
    SELECT {selected}, title_words FROM (
{self._matches([*columns, "title_words"], by_title=True)}
    ) AS by_title LIMIT {MAX_RANKED}
), others AS MATERIALIZED (
    SELECT {selected}, 0 AS relevance FROM matches
    WHERE id NOT IN (SELECT id FROM titled) AND NOT {titled_suffice}
    ORDER BY {_in_order(others_order)} LIMIT %(stop)s
), found AS (
    SELECT {selected}, relevance FROM others
    UNION ALL
    SELECT {selected}, ts_rank(title_words, (SELECT any_wanted FROM query), {BY_LENGTH})
    FROM titled WHERE NOT {others_suffice}
)
SELECT id, (SELECT count(*) FROM matches) AS total, {self._has_more} AS has_more
FROM found
ORDER BY {_in_order(order)} LIMIT %(limit)s OFFSET %(offset)s
"""  # noqa: S608 - names of columns, and the ORM's own text

    # Counts the services.
    #
    # Parameters: word_*, filter_*.
    # Columns: total bigint, has_more boolean.
    def count(self) -> str:
        """Return the statement that counts the services."""
        return f"""
{self._query}
SELECT count(*) AS total, {self._has_more} AS has_more FROM (
{self._matches(["id"])}
) AS matches
"""  # noqa: S608 - the ORM's own text

    # The planner must not see the words. If it saw a wanted word that every service contains, it
    # would read all services and their words instead of the index.
    @property
    def _query(self) -> str:
        """The clause that holds the words."""
        return f"""WITH query AS MATERIALIZED (
    SELECT {self.words.query} AS wanted, {self.words.any_wanted} AS any_wanted
)"""

    # The inner query has the name of the table, and the ORM's text reads it instead of the table.
    # The conditions of the inner query use only one index. If there were a condition with another
    # index, the planner could use that index and read the words of every row that it finds there.
    #
    # The inner query selects only the columns that the ORM's text uses: selecting all columns takes
    # a fifth longer.
    def _matches(self, columns: Sequence[str], *, by_title: bool = False) -> str:
        """Return the query that finds services, in any order."""
        filtered = self._filtered(columns)
        used = sorted({*re.findall(r'"catalog_service"\."(\w+)"', filtered)})
        titled = " AND title_words @@ (SELECT any_wanted FROM query)" if by_title else ""
        return f"""    WITH catalog_service AS NOT MATERIALIZED (
        SELECT {", ".join(used)} FROM catalog_service
        WHERE search @@ (SELECT wanted FROM query){titled} LIMIT {MAX_FOUND}
    )
    {filtered}"""  # noqa: S608 - names of columns, and the ORM's own text

    def _filtered(self, columns: Sequence[str]) -> str:
        """Return the ORM's query, with names for its parameters."""
        text, values = self.services.order_by().values(*columns).query.sql_with_params()
        parameters = {f"filter_{number}": value for number, value in enumerate(values, start=1)}
        self.parameters |= parameters
        names = iter(parameters)
        # `%%` is a percent sign.
        return re.sub("%%|%s", lambda at: at[0] if at[0] == "%%" else f"%({next(names)})s", text)

    # Finding out whether there are more matches takes as long as counting, so it is skipped if
    # PostgreSQL estimates that there are at most `MAX_FOUND` services in all.
    @property
    def _has_more(self) -> str:
        """The expression that says whether there are more matches than a search finds."""
        return f"""CASE WHEN (
    SELECT reltuples NOT BETWEEN 1 AND {MAX_FOUND}
    FROM pg_class WHERE oid = 'catalog_service'::regclass
) THEN EXISTS (
    SELECT FROM catalog_service WHERE search @@ (SELECT wanted FROM query) OFFSET {MAX_FOUND}
) ELSE false END"""  # noqa: S608 - a number of ours


def _in_order(order: Sequence[Any]) -> str:
    return ", ".join(
        f"{_column(term)} {'DESC' if _descends(term) else 'ASC'} NULLS LAST" for term in order
    )


def _column(term: Any) -> str:
    return term.lstrip("-") if isinstance(term, str) else term.expression.name


def _descends(term: Any) -> bool:
    return term.startswith("-") if isinstance(term, str) else term.descending
