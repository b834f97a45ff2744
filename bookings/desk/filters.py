"""The filters of the list of bookings."""

from typing import Any

from django.contrib.admin import ChoicesFieldListFilter, RelatedFieldListFilter, SimpleListFilter
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from bookings.holds import is_ended_hold
from bookit.adminsite.pages import is_id

# A filter offers at most this many calendars, services or providers, and the one that is chosen.
# The search of the list also finds bookings by the names of calendars and services that the filter
# does not offer.
MAX_CHOICES = 30

# The URL parameter of `EndedHoldsFilter`, and its only value.
_HOLDS, _WITHOUT = "holds", "without"
#: The query of a link to a list without holds that were released or have expired.
WITHOUT_ENDED_HOLDS = {_HOLDS: _WITHOUT}


class EndedHoldsFilter(SimpleListFilter):
    """Leaves out holds that were released or have expired.

    Their status is "cancelled" or "expired" although nothing was ever booked. So the home page does
    not count them, and those of its links that would find them use this filter. The list shows the
    filter only while it is in use.
    """

    title = _("holds")
    parameter_name = _HOLDS

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Return the choice that Django offers beside "All", which is the default."""
        return [(_WITHOUT, _("Without released and expired holds"))]

    def has_output(self) -> bool:
        """Return whether the filter is in use."""
        return self.value() is not None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> Any:
        """Return the bookings; if the filter is in use, without released and expired holds."""
        if self.value() is None:
            return queryset
        if self.value() != _WITHOUT:
            raise IncorrectLookupParameters
        return queryset.filter(~is_ended_hold())


class FewRelatedFilter(RelatedFieldListFilter):
    """Offers only the first rows by name, because a list of all rows could be very long.

    A link from another page may choose a row that is not among them. The filter then offers this
    row, too.
    """

    # Django's choice for rows without a value would use a URL parameter that `StrictAdmin` does not
    # allow.
    include_empty_choice = False

    def field_choices(self, field: Any, request: Any, model_admin: Any) -> list[tuple[Any, Any]]:
        """Return the ids and the names of the rows that the filter offers."""
        model = field.remote_field.model
        rows: Any
        if model is User:
            rows = User.objects.keepers().order_by("name", "id")
        else:
            rows = model._default_manager.order_by(*model._meta.ordering)
        offered = [*rows[:MAX_CHOICES]]
        chosen = {each.strip() for each in self.lookup_val or () if is_id(each)}
        if missing := chosen - {str(row.pk) for row in offered}:
            offered += rows.filter(pk__in=missing)
        return [(row.pk, row.name if model is User else str(row)) for row in offered]

    def has_output(self) -> bool:
        """Return whether the filter offers several rows or is in use. If not, Django ignores it."""
        return bool(self.lookup_val) or super().has_output()


class StatusListFilter(ChoicesFieldListFilter):
    """A filter by statuses that uses the indexes of unfinished bookings and of holds."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the bookings with one of the statuses."""
        rows: Any = super().queryset(request, queryset)
        chosen: Any = self.used_parameters.get(self.lookup_kwarg)
        return rows.with_status(*chosen) if chosen else rows
