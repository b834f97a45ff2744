"""Lists of services that are filtered by words or by free times, at a bounded cost."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from bookit.database.rows import fetch
from bookit.errors.refusals import refuse
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

# The subquery has the name of the table and holds only conditions of one index. With another one,
# the planner could use the index of that, and read the words of every row that it finds there.
MATCHES = """
WITH catalog_service AS NOT MATERIALIZED (
    SELECT * FROM catalog_service WHERE {conditions} LIMIT {most}
)
{filtered}
"""
DESCRIBED = "search @@ {query}"
TITLED = "search @@ {query} AND title_words @@ {rank}"
# There is no join here: the planner expects few matches from any search, and would choose a nested
# loop. NOT IN uses a hash table.
RANKED = """
ranked AS MATERIALIZED (
    SELECT {columns}, ts_rank(title_words, {rank}, {by_length}) AS relevance
    FROM ({titled}) AS titled LIMIT {most_ranked}
), found AS (
    SELECT {columns}, relevance FROM ranked
    UNION ALL
    SELECT {columns}, 0 FROM matches
    WHERE id NOT IN (SELECT id FROM ranked) AND NOT {is_full}
)
"""
# If ranked services fill the page, the others are counted but not read.
IS_FULL = "(SELECT count(*) >= %s FROM ranked)"
PAGE = """
WITH matches AS MATERIALIZED ({matches}), {found}
SELECT id, {count}, {has_more} FROM found ORDER BY {order} LIMIT %s OFFSET %s
"""
COUNT = "(SELECT count(*) FROM ({matches}) AS counted)"
COUNT_OF_PAGE = "CASE WHEN {is_full} THEN {count} ELSE (SELECT count(*) FROM matches) END"
# Whether there are more matches than a search finds. To learn it takes as long as to count them, so
# it is not asked where there are not as many services.
HAS_MORE = """
CASE WHEN (
    SELECT reltuples NOT BETWEEN 1 AND {most}
    FROM pg_class WHERE oid = 'catalog_service'::regclass
) THEN EXISTS (SELECT FROM catalog_service WHERE {conditions} OFFSET {most}) ELSE false END
"""

# A part of a statement, and its values.
Part = tuple[str, tuple[Any, ...]]


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
                    f"At most {MOST_LOOKED_AT:,} services can be searched for free times at once. "
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
        matches, values = self._matches(columns)
        is_full: Part = ("false", ())
        found: Part = ("found AS (SELECT * FROM matches)", ())
        if "relevance" in names:
            if names[0] == "relevance" and _descends(self.order[0]):
                is_full = (IS_FULL, (stop,))
            found = self._ranked(columns, is_full)
        count, counted = self._counting()
        has_more, asked = self._has_more()
        text = PAGE.format(
            matches=matches,
            found=found[0],
            count=COUNT_OF_PAGE.format(is_full=is_full[0], count=count),
            has_more=has_more,
            order=", ".join(
                f"{name} {'DESC' if _descends(term) else 'ASC'} NULLS LAST"
                for name, term in zip(names, self.order, strict=True)
            ),
        )
        values += (*found[1], *is_full[1], *counted, *asked, stop - start, start)
        rows = self._fetch(text, values)
        if rows:
            self._set_count(*rows[0][1:])
        return [row[0] for row in rows]

    def _count(self) -> int:
        if self.words is None:
            return self.services.count()
        count, counted = self._counting()
        has_more, asked = self._has_more()
        [row] = self._fetch(f"SELECT {count}, {has_more}", (*counted, *asked))
        return self._set_count(*row)

    def _set_count(self, total: int, has_more: bool) -> int:
        self.total, self.count_is_exact = total, not has_more
        return total

    def _counting(self) -> Part:
        """Return the expression that counts the matches."""
        matches, values = self._matches(["id"])
        return COUNT.format(matches=matches), values

    def _has_more(self) -> Part:
        """Return the expression that tells whether there are more matches than a search finds."""
        conditions, values = self._conditions(DESCRIBED)
        return HAS_MORE.format(conditions=conditions, most=MOST_FOUND), values

    def _conditions(self, template: str) -> Part:
        """Return the conditions that the index of words answers."""
        assert self.words is not None  # noqa: S101 - only called for a search by words
        query, wanted = self.words.query().as_sql(None, None)
        if template == DESCRIBED:
            return template.format(query=query), (*wanted,)
        rank, ranked = self.words.rank().as_sql(None, None)
        return template.format(query=query, rank=rank), (*wanted, *ranked)

    def _matches(self, columns: list[str], template: str = DESCRIBED) -> Part:
        """Return the statement that finds services in any order."""
        conditions, wanted = self._conditions(template)
        filtered, values = self.services.order_by().values(*columns).query.sql_with_params()
        text = MATCHES.format(conditions=conditions, most=MOST_FOUND, filtered=filtered)
        return text, (*wanted, *values)

    def _ranked(self, columns: list[str], is_full: Part) -> Part:
        """Return the clauses whose `found` holds the matches with their relevance."""
        assert self.words is not None  # noqa: S101 - only called for a search by words
        rank, ranked = self.words.rank().as_sql(None, None)
        titled, values = self._matches([*columns, "title_words"], TITLED)
        text = RANKED.format(
            columns=", ".join(columns),
            rank=rank,
            by_length=BY_LENGTH,
            titled=titled,
            most_ranked=MOST_RANKED,
            is_full=is_full[0],
        )
        return text, (*ranked, *values, *is_full[1])

    def _fetch(self, text: str, values: tuple[Any, ...]) -> list[Any]:
        return fetch(text, values, using=self.services.db)


def _column(term: Any) -> str:
    return term.lstrip("-") if isinstance(term, str) else term.expression.name


def _descends(term: Any) -> bool:
    return term.startswith("-") if isinstance(term, str) else term.descending
