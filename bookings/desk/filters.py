"""The filters of the list of bookings."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib.admin import DateFieldListFilter, RelatedFieldListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from bookit.times import day_start, zone

# A filter offers at most this many calendars, services or providers. People find others by
# searching for their names.
MAX_CHOICES = 30


def today_of(request: HttpRequest) -> datetime:
    """Return when today began in the time zone of the signed-in user."""
    tz = zone(request.user.timezone)  # type: ignore[union-attr]
    return day_start(timezone.now().astimezone(tz).date(), tz)


class StartFilter(DateFieldListFilter):
    """Offers periods of starts. By default, the list shows the bookings of today and later.

    A search, and every URL that names a period itself, finds the bookings of all times.
    """

    def __init__(self, field: Any, request: Any, *args: Any, **options: Any) -> None:
        super().__init__(field, request, *args, **options)
        tz = zone(request.user.timezone)
        today = today_of(request)

        def days(number: int) -> datetime:
            return day_start(today.astimezone(tz).date() + timedelta(days=number), tz)

        since, until = self.lookup_kwarg_since, self.lookup_kwarg_until
        is_search = bool(request.GET.get("q"))
        upcoming: Any = {since: today}
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
        self._default_since = None if self.date_params or is_search else today

    def expected_parameters(self) -> list[str | None]:
        """Return the names of the parameters, with the one that stands for all bookings."""
        return [*super().expected_parameters(), f"{self.field_generic}isnull"]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        """Return the bookings of the chosen period."""
        found = super().queryset(request, queryset)
        if self._default_since is None or found is None:
            return found
        return found.filter(**{self.lookup_kwarg_since: self._default_since})


class FewRelatedFilter(RelatedFieldListFilter):
    """Offers the first rows by name, because a list of all of them could be very long."""

    # The link of the empty choice would be none of the parameters that `StrictAdmin` allows.
    include_empty_choice = False

    def field_choices(self, field: Any, request: Any, model_admin: Any) -> list[tuple[Any, Any]]:
        """Return the ids and the names of the rows that the filter offers."""
        model = field.remote_field.model
        rows = model._default_manager.order_by(*model._meta.ordering)
        if model is User:
            rows = User.objects.keepers().order_by("name", "id")
        return [(row.pk, self.name_of(row)) for row in rows[:MAX_CHOICES]]

    def name_of(self, row: Any) -> str:
        """Return the name under which a row is offered."""
        return row.name if isinstance(row, User) else str(row)
