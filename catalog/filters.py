"""Filters of calendars, time off and services."""

from typing import Any

from django.db.models import QuerySet
from django_filters import rest_framework as filters
from rest_framework.request import Request

from bookit import money
from bookit.api.filters import (
    PERIOD_FILTERS,
    AnyOfFilter,
    DecimalFilter,
    FilterSet,
    UUIDFilter,
    with_default,
)
from bookit.database.prepared import Bound
from catalog.listing import MAX_RANKED, Listing
from catalog.models import Calendar, Service, TimeOff
from catalog.search import MAX_WORDS, SHORTEST_WORD, Words

PRICE: dict[str, Any] = {
    "max_digits": money.DIGITS,
    "decimal_places": money.DECIMALS,
    "min_value": 0,
}


class CalendarFilter(FilterSet):
    """Filters calendars by provider."""

    provider_id = UUIDFilter(field_name="provider")

    class Meta:
        model = Calendar
        fields: list[str] = []


class TimeOffFilter(FilterSet):
    """Filters time off by period."""

    class Meta:
        model = TimeOff
        fields: list[str] = []


TimeOffFilter.base_filters.update(PERIOD_FILTERS)


class ServiceFilter(FilterSet):
    """Filters services by words, price, activity, provider, calendar, mode and category."""

    q = filters.CharFilter(
        max_length=200,
        help_text=(
            "Words to find in titles and descriptions, in any form (`massages` finds `massage`). "
            f"A service must contain the {MAX_WORDS} longest of these words, and none of the "
            f"{MAX_WORDS} longest words with a minus in front. If no service matches, words of at "
            f"least {SHORTEST_WORD} letters also find words that start with them or differ in one "
            "letter, and the longest word also finds less similar words. Services with the words "
            f"in their titles come first, up to {MAX_RANKED:,} of them."
        ),
    )
    price_min = DecimalFilter(field_name="price", lookup_expr="gte", **PRICE)
    price_max = DecimalFilter(field_name="price", lookup_expr="lte", **PRICE)
    active = with_default(
        "true",
        filters.ChoiceFilter(
            method="by_activity",
            choices=[(name, name) for name in ("true", "false", "any")],
            help_text="Whether the services are active; `true` by default.",
        ),
    )
    provider_id = UUIDFilter(field_name="calendar__provider")
    calendar_id = UUIDFilter(field_name="calendar")
    mode = filters.ChoiceFilter(choices=Service.Mode.choices)
    category = AnyOfFilter(
        max_length=100, help_text="One or more categories (repeat the parameter), ignoring case."
    )

    class Meta:
        model = Service
        fields: list[str] = []

    @classmethod
    def applied(cls, rows: Bound, values: dict[str, Any], request: Request) -> Any:
        """Return the services that pass the filters, as a `Listing` if `q` is not empty."""
        text = values.pop("q", None)
        found = super().applied(rows, values, request)
        return Listing(found, Words.of(text)) if text else found

    def by_activity(self, queryset: Any, name: str, value: str) -> QuerySet[Service]:
        """Return the active services, the inactive ones, or both."""
        return queryset if value == "any" else queryset.filter(is_active=value == "true")
