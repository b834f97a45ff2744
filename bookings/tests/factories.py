"""Factories for slots, bookings, waitlist entries, webhooks and deliveries."""

from datetime import UTC, datetime, timedelta

import factory
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.utils import timezone
from factory.django import DjangoModelFactory

from accounts.tests.factories import AdminFactory, UserFactory
from bookings.booked import remember_calendar
from bookings.events import REPORTED_TYPES
from bookings.models import Booking, Slot
from bookings.waitlist.models import WaitlistEntry
from bookings.webhooks.models import Attempt, Delivery, Webhook
from bookit.database.citus.nodes import is_distributed
from catalog.tests.factories import ServiceFactory

# A Tuesday, far enough in the future for every test to book it.
TUESDAY = datetime(2999, 1, 1, 10, tzinfo=UTC)


class SlotFactory(DjangoModelFactory):
    """A scheduled slot with the duration, buffers and capacity of its service."""

    class Meta:
        model = Slot

    service = factory.SubFactory(ServiceFactory, mode="slots")
    calendar = factory.SelfAttribute("service.calendar")
    capacity = factory.SelfAttribute("service.capacity")
    start_time = TUESDAY
    end_time = factory.LazyAttribute(
        lambda slot: slot.start_time + timedelta(minutes=slot.service.duration_minutes)
    )
    blocked = factory.LazyAttribute(
        lambda slot: DateTimeTZRange(
            slot.start_time - timedelta(minutes=slot.service.buffer_before_minutes),
            slot.end_time + timedelta(minutes=slot.service.buffer_after_minutes),
        )
    )


class BookingFactory(DjangoModelFactory):
    """A pending booking in seat 1, with the duration and buffers of its service, but no history."""

    class Meta:
        model = Booking

    user = factory.SubFactory(UserFactory)
    service = factory.SubFactory(ServiceFactory)
    calendar = factory.SelfAttribute("service.calendar")
    seat = 1
    start_time = TUESDAY
    end_time = factory.LazyAttribute(
        lambda booking: booking.start_time + timedelta(minutes=booking.service.duration_minutes)
    )
    blocked = factory.LazyAttribute(
        lambda booking: DateTimeTZRange(
            booking.start_time - timedelta(minutes=booking.service.buffer_before_minutes),
            booking.end_time + timedelta(minutes=booking.service.buffer_after_minutes),
        )
    )
    status = Booking.Status.PENDING
    hold_expires_at = factory.LazyAttribute(
        lambda booking: TUESDAY if booking.status == Booking.Status.HELD else None
    )
    price = factory.SelfAttribute("service.price")
    currency = factory.SelfAttribute("service.currency")

    @classmethod
    def _create(cls, model_class, *args, **kwargs):
        booking = super()._create(model_class, *args, **kwargs)
        # `remember_calendar` checks this, too, but some tests replace its check.
        if is_distributed():
            remember_calendar(user_id=booking.user_id, calendar_id=booking.calendar_id)
        return booking


class WaitlistEntryFactory(DjangoModelFactory):
    """A user who waits for a seat of a slot."""

    class Meta:
        model = WaitlistEntry

    slot = factory.SubFactory(SlotFactory)
    calendar = factory.SelfAttribute("slot.calendar")
    user = factory.SubFactory(UserFactory)


class WebhookFactory(DjangoModelFactory):
    """A webhook that subscribes to every event."""

    class Meta:
        model = Webhook

    owner = factory.SubFactory(AdminFactory)
    # A public IP address: the check of the URL accepts it, and has no name to resolve.
    url = "https://8.8.8.8/hook"
    events = factory.LazyFunction(lambda: [str(kind) for kind in REPORTED_TYPES])
    secret = "whsec_Tk90IGEgc2VjcmV0LCBidXQgYW4gZXhhbXBsZSE="


class AttemptFactory(DjangoModelFactory):
    """A delivery attempt that got an error as its response."""

    class Meta:
        model = Attempt

    at = factory.LazyFunction(timezone.now)
    duration_ms = 84
    status_code = 500
    response = "No."


class DeliveryFactory(DjangoModelFactory):
    """A message to a webhook, by default a test message, with one failed attempt."""

    class Meta:
        model = Delivery
        skip_postgeneration_save = True

    webhook = factory.SubFactory(WebhookFactory)
    type = "test"
    event = None
    calendar_id = factory.LazyAttribute(lambda row: row.event and row.event.calendar_id)
    next_attempt_at = factory.LazyFunction(timezone.now)

    attempt = factory.RelatedFactory(AttemptFactory, factory_related_name="delivery")
