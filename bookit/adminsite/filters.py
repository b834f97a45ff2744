"""List filters that do not read a whole table to show their choices."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.admin import AllValuesFieldListFilter, DateFieldListFilter, FieldListFilter
from django.core.exceptions import ValidationError
from django.db.models import DateTimeField, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from bookit.adminsite import words
from bookit.times import day_start, zone


def one_of(values: Callable[[], Iterable[str]]) -> type[AllValuesFieldListFilter]:
    """Return the class of a filter that offers the values that `values` returns."""

    class KnownValues(AllValuesFieldListFilter):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.lookup_choices: Any = sorted(values())

    return KnownValues


def is_set(title: Any, *, yes: Any, no: Any) -> type[FieldListFilter]:
    """Return the class of a filter that asks whether a column has a value.

    Args:
        yes: the words for rows with a value.
        no: the words for rows without a value.
    """

    class IsSet(FieldListFilter):
        def __init__(self, field: Any, request: Any, *args: Any, **options: Any) -> None:
            super().__init__(field, request, *args, **options)
            self.title = title

        def expected_parameters(self) -> list[str | None]:
            return [f"{self.field_path}__isnull"]

        def choices(self, changelist: Any) -> Any:
            [name] = self.expected_parameters()
            chosen = self.used_parameters.get(str(name))
            current = chosen[-1] if isinstance(chosen, list) else chosen
            for value, text in ((None, _("All")), (False, yes), (True, no)):
                yield {
                    "selected": current == value,
                    "query_string": changelist.get_query_string({name: value}),
                    "display": text,
                }

    return IsSet


def upcoming_first(request: HttpRequest) -> list[str]:
    """Return the order of a list with an `UpcomingFilter` for `start_time`.

    A list begins with the latest row if it shows all rows, the results of a search, or rows up to
    an end without a beginning ("Before today"). All other lists begin with the earliest row.
    """
    chosen = request.GET
    is_past = "start_time__lt" in chosen and "start_time__gte" not in chosen
    is_any = chosen.get("q") or "start_time__isnull" in chosen
    return ["-start_time", "-id"] if is_past or is_any else ["start_time", "id"]


class UpcomingFilter(DateFieldListFilter):
    """Filters rows by the day on which they start. By default, the list shows today and later.

    A search finds rows of any day, unless the URL also names a period.
    """

    # Because this is True, `admin/filter.html` names the selected choice even if it is the first,
    # and an empty list says "Nothing matches." instead of "There is nothing here yet."
    is_narrow_by_default = True

    def __init__(self, field: Any, request: Any, *args: Any, **options: Any) -> None:
        super().__init__(field, request, *args, **options)
        tz = zone(request.user.timezone)
        date = timezone.now().astimezone(tz).date()

        def days(number: int) -> datetime:
            return day_start(date + timedelta(days=number), tz)

        today = days(0)
        since, until = self.lookup_kwarg_since, self.lookup_kwarg_until
        is_search = bool(request.GET.get("q"))
        upcoming: Any = {since: today}
        # This is true for every row. Without a condition, the list would show today and later.
        everything: Any = {f"{self.field_generic}isnull": False}
        self.title = _("day")
        self.links: Any = (
            (_("Today and later"), upcoming if is_search else {}),
            (_("Today"), {since: today, until: days(1)}),
            (_("Tomorrow"), {since: days(1), until: days(2)}),
            (_("Next 7 days"), {since: today, until: days(7)}),
            (_("Last 30 days"), {since: days(-30), until: days(1)}),
            (_("Before today"), {until: today}),
            (_("All"), {} if is_search else everything),
        )
        known = [{key: str(value) for key, value in link.items()} for _text, link in self.links]
        if self.date_params and self.date_params not in known:
            self.links += self._linked(tz)
        self._default_since = None if self.date_params or is_search else today

    def _linked(self, tz: Any) -> tuple[Any, ...]:
        """Return a choice for the period that a link of another page has set.

        Return no choice if the URL lacks one end of the period, or if an end is not a time.
        """
        ends = [
            self.date_params.get(name)
            for name in (self.lookup_kwarg_since, self.lookup_kwarg_until)
        ]
        try:
            first, last = (DateTimeField().to_python(each) for each in ends)
        except ValidationError:
            return ()
        if first is None or last is None:
            return ()
        text = words.stretch(first, last, tz)
        return ((text, dict(self.date_params)),)

    def expected_parameters(self) -> list[str | None]:
        """Return the names of the parameters, including the parameter that selects all rows."""
        return [*super().expected_parameters(), f"{self.field_generic}isnull"]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        """Return the rows of the chosen period."""
        found = super().queryset(request, queryset)
        if self._default_since is None or found is None:
            return found
        return found.filter(**{self.lookup_kwarg_since: self._default_since})
