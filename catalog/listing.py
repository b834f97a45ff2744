"""Lists of services that are filtered by words or by free times, at a bounded cost."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db.models import F, QuerySet, UUIDField
from django.utils.translation import gettext as _
from psycopg.rows import namedtuple_row

from bookit.api.pagination import MAX_LIMIT
from bookit.database.counts import estimates
from bookit.database.prepared import MAX_KEPT, AnyOf, Bound, Prepared, filled, nullable_fields
from bookit.database.rows import fetch
from bookit.errors.refusals import refuse
from bookit.languages import grouped
from catalog.models import Service
from catalog.search import Words

# A search finds and counts up to this many matches.
MAX_FOUND = 10_000
# At most this many services with wanted words in their titles are ranked.
MAX_RANKED = 1000
# If a search has more than `MAX_FOUND` matches, a page near the start of the list is looked for
# among the first services of the list. A page is near the start if there are at least this many
# counted matches for each row up to the end of the page. At most `MAX_FOUND` matches are counted,
# so a page near the start ends at row 200 at the latest. To find a later page in this way,
# PostgreSQL would have to read many services.
FREQUENT = 50
# At most this many services are read to find a page near the start.
MAX_READ = 10_000
# To fill a page with services that have a free time, up to this many services are searched.
MAX_LOOKED_AT = 1000
# To estimate the count, at least this many services are searched, or all if there are fewer.
ENOUGH_FOR_COUNT = 200
# Services are searched in batches of this size.
AT_A_TIME = 50
# The option of `ts_rank` that divides by the length: shorter titles with a word rank higher.
BY_LENGTH = 2


# The services with the given ids, in any order.
SERVICES = Prepared(
    lambda ids: Service.objects.filter(AnyOf(F("pk"), ids)),
    ids=ArrayField(UUIDField()),
)
# The columns that can be null.
NULLABLE = nullable_fields(Service)


def _only_ids(services: QuerySet[Service]) -> QuerySet[Service, Any]:
    return services.values("id")


@dataclass
class Listing:
    """Services in order, which can be sliced and counted like a queryset.

    Args:
        services: the services that pass the other filters.
        words: the words to find in titles and descriptions.
        keep: takes the ids of some services and returns those that stay in the list, for example
            the ids of services with a free time.
        order: the names of columns, or `relevance` if there are words, with `-` for descending.
    """

    services: Bound
    words: Words | None = None
    keep: Callable[[Sequence[UUID]], Collection[UUID]] | None = None
    order: tuple[str, ...] = ("id",)
    total: int | None = None
    is_corrected: bool = False
    # False if `count` is an estimate.
    count_is_exact: bool = True

    def ordered(self, order: tuple[str, ...]) -> "Listing":
        """Return the services in another order."""
        return replace(self, order=order)

    def __getitem__(self, part: slice) -> list[dict[str, Any]]:
        """Return the rows from `part.start` to before `part.stop`."""
        start, stop = part.start or 0, part.stop
        ids = self._ids(start, stop) if self.keep is None else self._kept(start, stop)
        found = SERVICES(ids=ids).shaped(self.services.query.shape)
        # A slice of `found` needs an end. No page has more rows than this.
        rows = {row["id"]: row for row in found[:MAX_LIMIT]}
        return [rows[pk] for pk in ids if pk in rows]

    def count(self) -> int:
        """Return the number of services, or an estimate if too many would have to be searched.

        If there is a `keep`, read a slice first. Until then, the services that `keep` would remove
        are counted, too.
        """
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
        # One service more than the page needs shows that there is a next page.
        while seen < len(candidates) and (seen < ENOUGH_FOR_COUNT or len(kept) <= stop):
            some = candidates[seen : seen + AT_A_TIME]
            may_stay = self.keep(some)
            kept += [pk for pk in some if pk in may_stay]
            seen += len(some)
        unseen = len(candidates) - seen
        if len(candidates) == MAX_LOOKED_AT:
            if self.words is None:
                self.total = None  # It may be the estimate of an earlier slice.
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
            rows = self.services.shaped(_only_ids).ordered(self.order)[start:stop]
            return [row["id"] for row in rows]
        ids = self._page(self.words, start, stop)
        if not ids and not self.is_corrected and self._count() == 0:
            # No service matches these words, so they may be misspelt or unfinished.
            self.is_corrected = True
            self.words = self.words.corrected()
            ids = self._page(self.words, start, stop)
        return ids

    def _page(self, words: Words, start: int, stop: int) -> list[UUID]:
        search = searching(self.services.query, words.shape)
        values = {**words.parameters, **search.filter_values(self.services.values)}
        bounds = {"limit": stop - start, "offset": start, "stop": stop}
        # Counting is most of the cost of a search with many matches.
        estimate = estimates.recent(search.count, values)
        if estimate is not None:
            self.total, self.count_is_exact = estimate, False
            if first := self._first_page(search, {**values, **bounds}):
                return first
        rows: list[Any] = fetch(
            search.page(self.order),
            {**values, **bounds, "counts": estimate is None},
            namedtuple_row,
        )
        if rows and estimate is None:
            self._set_count(search, values, rows[0])
            if first := self._first_page(search, {**values, **bounds}):
                return first
        return [row.id for row in rows]

    def _first_page(self, search: "Search", values: dict[str, Any]) -> list[UUID]:
        """Return the ids of a page that is found among the first services of the list.

        If many services match, this is faster than sorting up to `MAX_FOUND` matches, and the page
        is chosen from all matches. The result is empty if the count is exact, if the order contains
        the relevance (no index has that order), if the page is too far back, or if too few of the
        first services match.
        """
        is_far_back = values["stop"] * FREQUENT > (self.total or 0)
        if self.count_is_exact or _ranks(self.order) or is_far_back:
            return []
        rows: list[Any] = fetch(search.first_page(self.order), values, namedtuple_row)
        return [row.id for row in rows] if len(rows) == values["limit"] else []

    def _count(self) -> int:
        if self.words is None:
            return self.services.count()
        search = searching(self.services.query, self.words.shape)
        values = {**self.words.parameters, **search.filter_values(self.services.values)}
        [row] = fetch(search.count, values, namedtuple_row)
        return self._set_count(search, values, row)

    def _set_count(self, search: "Search", values: dict[str, Any], row: Any) -> int:
        total: int = row.total
        if row.has_more:
            estimates.keep(search.count, values, total)
        self.total, self.count_is_exact = total, not row.has_more
        return total


@lru_cache(MAX_KEPT)
def searching(services: Prepared[Service], words: Words) -> "Search":
    """Return the statements that find services by words. Searches of the same shape share them."""
    return Search(services, words)


class Search:
    """The statements that find services by words.

    The ORM writes the conditions of the other filters. All parameters have names:

    - `word_1`, `word_2` and so on, text: the words.
    - `filter_1`, `filter_2` and so on: the values of the other filters.
    - `limit` and `offset`, bigint: the size of the page and the number of services before it.
    - `stop`, bigint: the sum of `limit` and `offset`.
    - `counts`, boolean: whether to count the services of all pages.

    Args:
        services: the services that pass the other filters.
        words: the shape of the words, with the names of parameters in place of words.
    """

    def __init__(self, services: Prepared[Service], words: Words) -> None:
        self.services, self.words = services, words
        self._parameters = services.selecting("pk")[1]
        self._texts: dict[tuple[str, tuple[str, ...]], str] = {}

    def filter_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the other filters by the names of the parameters."""
        return {
            f"filter_{number}": value
            for number, value in enumerate(filled(self._parameters, values), start=1)
        }

    def page(self, order: tuple[str, ...]) -> str:
        """Return the statement for a page of services in some order."""
        return self._once(self._ranked_page if _ranks(order) else self._plain_page, order)

    def first_page(self, order: tuple[str, ...]) -> str:
        """Return the statement for a page among the first services in some order."""
        return self._once(self._page_of_first, order)

    def _once(self, write: Callable[[tuple[str, ...]], str], order: tuple[str, ...]) -> str:
        """Return the result of `write` for an order. `write` is called only once for each order."""
        key = write.__name__, order
        if key not in self._texts:
            self._texts[key] = write(order)
        return self._texts[key]

    # Finds a page of services, and counts the services of all pages.
    #
    # Parameters: word_*, filter_*, limit, offset, counts.
    # Columns: id uuid; total bigint and has_more boolean, the same in each row, and null unless
    #     `counts` is true. There is no row if the page is empty.
    # Invariant: `order` ends in the id, so pages do not overlap.
    def _plain_page(self, order: tuple[str, ...]) -> str:
        columns = [*dict.fromkeys(["id", *map(_column, order)])]
        return f"""
{self._query}, found AS MATERIALIZED (
{self._found(columns)}
), matches AS MATERIALIZED (
{self._matches(columns)}
)
SELECT id, {self._counted}
FROM matches
ORDER BY {_in_order(order)} LIMIT %(limit)s OFFSET %(offset)s
"""  # noqa: S608 - names of columns, and the ORM's own text

    # Does the same as `_plain_page` if the relevance is part of the order.
    #
    # Only services that have a wanted word in the title are ranked. All others have the relevance
    # 0, so only the first `stop` of them, by the other terms of the order, can be on the page. If
    # one of these two groups fills the page, the other is neither sorted nor ranked.
    #
    # `matches` is not materialized. If services with the words in the title fill the page, matches
    # are only counted. If `counts` is false too, they are not even read.
    #
    # There is no join. The planner expects few matches from any search, and would choose a nested
    # loop. NOT IN uses a hash table.
    #
    # Parameters: word_*, filter_*, limit, offset, stop, counts.
    # Columns: as in `_plain_page`.
    # Invariant: as in `_plain_page`.
    def _ranked_page(self, order: tuple[str, ...]) -> str:
        others_order = [term for term in order if _column(term) != "relevance"]
        columns = [*dict.fromkeys(["id", *map(_column, others_order)])]
        selected = ", ".join(columns)
        titled_suffice = others_suffice = "false"
        if _column(order[0]) == "relevance" and _descends(order[0]):
            titled_suffice = "(SELECT count(*) >= %(stop)s FROM titled)"
        elif _column(order[0]) == "relevance":
            others_suffice = "(SELECT count(*) >= %(stop)s FROM others)"
        return f"""
{self._query}, found AS MATERIALIZED (
{self._found(columns)}
), matches AS NOT MATERIALIZED (
{self._matches(columns)}
), titled AS MATERIALIZED (
    SELECT {selected}, title_words FROM (
{self._titled([*columns, "title_words"])}
    ) AS by_title LIMIT {MAX_RANKED}
), others AS MATERIALIZED (
    SELECT {selected}, 0 AS relevance FROM matches
    WHERE id NOT IN (SELECT id FROM titled) AND NOT {titled_suffice}
    ORDER BY {_in_order(others_order)} LIMIT %(stop)s
), ranked AS (
    SELECT {selected}, relevance FROM others
    UNION ALL
    SELECT {selected}, ts_rank(title_words, (SELECT any_wanted FROM query), {BY_LENGTH})
    FROM titled WHERE NOT {others_suffice}
)
SELECT id, {self._counted}
FROM ranked
ORDER BY {_in_order(order)} LIMIT %(limit)s OFFSET %(offset)s
"""  # noqa: S608 - names of columns, and the ORM's own text

    # Finds a page among the first services of the list. LIMIT keeps PostgreSQL from using the index
    # of words, which would find all matches and then sort them. Each level has the same order, so
    # that PostgreSQL does not sort, and stops reading when it has filled the page.
    #
    # Parameters: word_*, filter_*, limit, offset.
    # Columns: id uuid.
    # Invariant: as in `_plain_page`. If there are fewer rows than `limit`, the page is not known,
    #     because services further back may match.
    def _page_of_first(self, order: tuple[str, ...]) -> str:
        columns = [*dict.fromkeys(["id", *map(_column, order), "search"])]
        return f"""
{self._query}
SELECT id FROM (
    WITH catalog_service AS NOT MATERIALIZED (
        SELECT {self._used(columns)} FROM catalog_service
        ORDER BY {_in_order(order)} LIMIT {MAX_READ}
    )
    {self._filtered(columns)}
    ORDER BY {_in_order(order)}
) AS first
WHERE search @@ (SELECT wanted FROM query)
ORDER BY {_in_order(order)} LIMIT %(limit)s OFFSET %(offset)s
"""  # noqa: S608 - names of columns, and the ORM's own text

    # Counts the services.
    #
    # Parameters: word_*, filter_*.
    # Columns: total bigint, has_more boolean.
    @cached_property
    def count(self) -> str:
        """The statement that counts the services."""
        return f"""
{self._query}, found AS MATERIALIZED (
{self._found(["id"])}
)
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

    # The conditions of this query use only one index. If there were a condition with another index,
    # the planner could use that index and read the words of every row that it finds there.
    #
    # The query selects only the columns that the ORM's text uses: selecting all columns takes a
    # fifth longer. It finds one row too many, which shows whether there are more.
    def _found(self, columns: Sequence[str]) -> str:
        """Return the query that finds services by words alone, in any order."""
        return f"""    SELECT {self._used(columns)} FROM catalog_service
    WHERE search @@ (SELECT wanted FROM query) LIMIT {MAX_FOUND + 1}"""  # noqa: S608 - our names

    # The CTE has the name of the table, so the ORM's text reads the CTE instead of the table.
    def _matches(self, columns: Sequence[str]) -> str:
        """Return the query that applies the other filters to the services that `found` has."""
        return f"""    WITH catalog_service AS NOT MATERIALIZED (
        SELECT * FROM found LIMIT {MAX_FOUND}
    )
    {self._filtered(columns)}"""  # noqa: S608 - the ORM's own text

    def _titled(self, columns: Sequence[str]) -> str:
        """Return the query that finds services with a wanted word in the title, in any order."""
        found = "" if self.words.is_single else "search @@ (SELECT wanted FROM query) AND "
        return f"""    WITH catalog_service AS NOT MATERIALIZED (
        SELECT {self._used(columns)} FROM catalog_service
        WHERE {found}title_words @@ (SELECT any_wanted FROM query) LIMIT {MAX_FOUND}
    )
    {self._filtered(columns)}"""  # noqa: S608 - names of columns, and the ORM's own text

    def _used(self, columns: Sequence[str]) -> str:
        """Return the names of the columns that the ORM's query reads."""
        used = {*re.findall(r'"catalog_service"\."(\w+)"', self._filtered(columns))}
        return ", ".join(sorted(used))

    def _filtered(self, columns: Sequence[str]) -> str:
        """Return the ORM's query, with names for its parameters."""
        text, parameters = self.services.selecting(*columns)
        names = iter(range(1, len(parameters) + 1))
        # `%%` is a percent sign.
        return re.sub(
            "%%|%s", lambda at: at[0] if at[0] == "%%" else f"%(filter_{next(names)})s", text
        )

    @property
    def _counted(self) -> str:
        """The columns of a page that count the services of all pages."""
        return f"""CASE WHEN %(counts)s::boolean THEN (SELECT count(*) FROM matches) END AS total,
    CASE WHEN %(counts)s::boolean THEN {self._has_more} END AS has_more"""  # noqa: S608 - our names

    @property
    def _has_more(self) -> str:
        """The expression that says whether there are more matches than a search finds."""
        return f"(SELECT count(*) > {MAX_FOUND} FROM found)"  # noqa: S608 - a number of ours


def _in_order(order: Sequence[str]) -> str:
    return ", ".join(
        f"{_column(term)} {'DESC' if _descends(term) else 'ASC'}"
        + (" NULLS LAST" if _column(term) in NULLABLE else "")
        for term in order
    )


def _ranks(order: Sequence[str]) -> bool:
    """Return whether the relevance is part of an order."""
    return any(_column(term) == "relevance" for term in order)


def _column(term: str) -> str:
    return term.lstrip("-")


def _descends(term: str) -> bool:
    return term.startswith("-")
