"""Filters of events and deliveries."""

from bookings.events import REPORTED_TYPES
from bookings.models import BookingEvent
from bookings.webhooks.models import Delivery
from bookit.api.filters import CommaSeparatedChoices, FilterSet


class EventFilter(FilterSet):
    """Filters events by type."""

    type = CommaSeparatedChoices(
        choices=[(kind.value, kind.label) for kind in REPORTED_TYPES],
        help_text="One or more values, comma-separated.",
    )

    class Meta:
        model = BookingEvent
        fields: list[str] = []


class DeliveryFilter(FilterSet):
    """Filters deliveries by status."""

    status = CommaSeparatedChoices(
        choices=Delivery.Status.choices, help_text="One or more values, comma-separated."
    )

    class Meta:
        model = Delivery
        fields: list[str] = []
