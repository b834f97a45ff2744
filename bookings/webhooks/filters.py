"""Filters of events and deliveries."""

from bookings.models import BookingEvent
from bookings.webhooks.models import Delivery
from bookings.webhooks.serializers import EVENT_CHOICES
from bookit.api.filters import CommaSeparatedChoices, FilterSet


class EventFilter(FilterSet):
    """Filters events by type."""

    type = CommaSeparatedChoices(
        choices=EVENT_CHOICES, help_text="One or more values, comma-separated."
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
