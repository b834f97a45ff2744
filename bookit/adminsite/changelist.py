"""Lists of rows, filtered and ordered by the parameters of their URLs."""

from collections.abc import Iterator
from datetime import MAXYEAR, datetime
from functools import cached_property, partial
from itertools import chain, pairwise
from typing import Any

from dateutil.relativedelta import relativedelta
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.core.exceptions import ValidationError
from django.core.paginator import Page, Paginator
from django.db import DataError
from django.db.models import DateTimeField, Max, Min, QuerySet, Value
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest
from django.utils import timezone
from django.utils.text import capfirst

from bookit.database.counts import MAX_COUNTED, bounded_count, expected
from bookit.languages import grouped

# At most this many years, months or days are looked up one at a time. If a list spans more, all of
# its rows are read.
MAX_PERIODS = 100


class SenselessList(Exception):
    """The URL of a list has parameters that no list can satisfy."""


class StrictChangeList(ChangeList):
    """A list that raises `SenselessList` for URLs with an invalid filter or a missing page.

    Django redirects some of these URLs to `?e=1`, which explains nothing. For some URLs, Django
    shows a page that blames the database. For the rest, Django raises exceptions, some of them
    while it renders the page. Django ignores an invalid order, and this class does too.
    """

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(request, *args, **kwargs)
        except (
            IncorrectLookupParameters,
            ValidationError,
            ValueError,
            OverflowError,
            DataError,
        ) as error:
            raise SenselessList from error

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        """Return the rows. Unless a search finds few of them, the date hierarchy uses `periods`.

        A search can set `request.finds_few`. It is True if the search finds so few rows that
        reading all of them is cheap, and False if it finds too many to count.
        """
        rows = super().get_queryset(request, exclude_parameters)
        finds_few = getattr(request, "finds_few", None)
        if finds_few:
            return rows
        rows.is_too_long = finds_few is False  # type: ignore[attr-defined]
        # The template tag of the date hierarchy calls this method.
        rows.datetimes = partial(periods, rows)  # type: ignore[assignment]
        return rows

    def get_filters(self, request: HttpRequest) -> Any:
        """Return the filters. Refuse a month without a year, and a day without a month."""
        if self.date_hierarchy:
            year, month, day = (
                self.params.get(f"{self.date_hierarchy}__{part}")
                for part in ("year", "month", "day")
            )
            if (month and not year) or (day and not month):
                raise SenselessList
        specs, has_filters, rest, may_have_duplicates, is_filtered = super().get_filters(request)
        self.conditions = [*self._in_words(rest)]
        is_filtered = is_filtered or bool(self.conditions)
        return specs, has_filters, rest, may_have_duplicates, is_filtered

    @property
    def url_without_search(self) -> str:
        """The URL of this list with the same filters and the same order, but without the search."""
        # `remove` would also remove every other parameter whose name begins with "q".
        return self.get_query_string({SEARCH_VAR: None})

    @property
    def may_hide_rows(self) -> bool:
        """Whether a search or a filter narrows the list, perhaps by default."""
        return bool(
            self.query
            or self.has_active_filters
            or any(getattr(spec, "is_narrow_by_default", False) for spec in self.filter_specs)
        )

    def _in_words(self, parameters: dict[str, Any]) -> Iterator[str]:
        """Yield, in words, the conditions of the URL that no filter of the list shows.

        Links on other pages set these conditions.
        """
        for path in parameters:
            name, _separator, lookup = path.partition(LOOKUP_SEP)
            if name == self.date_hierarchy:
                continue
            field: Any = self.opts.get_field(name)
            label = capfirst(field.verbose_name)
            # Yield only the label: the value is an id or, for `isnull`, a boolean.
            if field.is_relation or lookup == "isnull":
                yield label
                continue
            # A value of `in` is a list, because Django has split it at the commas.
            values = chain.from_iterable(
                [each] if isinstance(each, str) else each for each in parameters[path]
            )
            labels = dict(field.flatchoices)
            yield f"{label}: {', '.join(str(labels.get(each, each)) for each in values)}"


class BoundedPaginator(Paginator):
    """A paginator that counts up to 10,000 rows; a larger number of rows is estimated.

    It has no pages beyond the first 10,000 rows, because PostgreSQL would have to read all rows
    before such a page. People find other rows by filters and searches.
    """

    most = MAX_COUNTED

    @property
    def number(self) -> str:
        """The number of rows as text, for example `12,450`."""
        return grouped(self.count)

    @property
    def most_shown(self) -> str:
        """The number of rows that all pages together can show, as text."""
        return grouped(self.most)

    @property
    def count(self) -> int:
        """The number of rows."""
        return self._counted[0]

    @property
    def is_exact(self) -> bool:
        """Whether the rows were counted. Otherwise, their number is an estimate."""
        return self._counted[1]

    @cached_property
    def num_pages(self) -> int:
        """The number of pages."""
        return super().num_pages if self.is_exact else self.most // self.per_page

    def page(self, number: int | str) -> Page[Any]:
        """Return a page. Its rows are found first, and then joined with rows of other tables.

        Otherwise, PostgreSQL would also join the rows of all earlier pages, only to skip them.
        """
        page = super().page(number)
        every: Any = self.object_list
        if page.number > 1 and isinstance(page.object_list, QuerySet):
            page.object_list = every.filter(pk__in=page.object_list.values("pk"))
        return page

    @cached_property
    def _counted(self) -> tuple[int, bool]:
        rows: Any = self.object_list
        if not isinstance(rows, QuerySet):
            return len(rows), True
        # If True, the search has already found more than `MAX_COUNTED` rows; see `found_in`.
        is_too_long = getattr(rows, "is_too_long", False)
        rows = rows.order_by()
        return bounded_count(
            (lambda: MAX_COUNTED + 1) if is_too_long else rows[: MAX_COUNTED + 1].count,
            lambda: expected(rows),
        )


def periods(rows: QuerySet[Any], field: str, kind: str) -> list[datetime]:
    """Return the beginnings of the years, months or days that have rows, in order.

    `QuerySet.datetimes` reads all rows. This function looks for one row in each period, through the
    index, unless there are more than `MAX_PERIODS` periods.

    Args:
        kind: "year", "month" or "day".
    """
    ends = rows.aggregate(first=Min(field), last=Max(field))
    if ends["first"] is None:
        return []
    first, last = (timezone.localtime(ends[name]) for name in ("first", "last"))
    begin = first.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind != "day":
        begin = begin.replace(day=1, month=1 if kind == "year" else begin.month)
    step = {f"{kind}s": 1}
    begins = [begin]
    while begins[-1] <= last:
        if len(begins) > MAX_PERIODS or begins[-1].year == MAXYEAR:
            return [*QuerySet.datetimes(rows, field, kind)]  # type: ignore[arg-type]
        begins.append(begins[-1] + relativedelta(**step))
    found = [
        rows.filter(**{f"{field}__gte": begin, f"{field}__lt": end})
        .annotate(period=Value(begin, output_field=DateTimeField()))
        # Without an order, PostgreSQL would read rows of other periods until it finds a row of
        # this period.
        .order_by(field)
        .values_list("period", flat=True)[:1]
        for begin, end in pairwise(begins)
    ]
    # Without this `order_by`, Django 6.1 orders by columns that are not selected.
    rest = found[0].union(*found[1:], all=True).order_by() if len(found) > 1 else found[0]
    # PostgreSQL returns times in UTC. In UTC, a month in Berlin begins on the last day of the month
    # before.
    return sorted(timezone.localtime(each) for each in rest)
