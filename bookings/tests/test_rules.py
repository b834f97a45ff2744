"""Services limit bookings by a minimum notice, a booking horizon and a cancellation notice."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings import services
from bookings.availability import terms
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.errors import Invalid
from bookit.tests.expect import problem
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.fixture
def user():
    return UserFactory()


@pytest.fixture
def provider():
    return ProviderFactory()


@pytest.fixture
def service(provider):
    return ServiceFactory(
        calendar=CalendarFactory(provider=provider),
        min_notice_minutes=120,
        max_advance_days=30,
        cancellation_notice_minutes=24 * 60,
    )


@pytest.fixture
def booking(service, user):
    return BookingFactory(service=service, user=user)


def book(service, user, *, at):
    return services.create_booking(
        actor=user, service_id=service.pk, start_time=TUESDAY, at=at
    ).start_time


def move(booking, actor, *, to, at):
    return services.reschedule_booking(
        booking_id=booking.pk, actor=actor, start_time=to, at=at
    ).start_time


class TestNotice:
    def test_a_booking_within_the_minimum_notice_is_refused(self, service, user):
        with pytest.raises(terms.TooSoon, match="at least 120 minutes in advance"):
            book(service, user, at=TUESDAY - 2 * HOUR + SECOND)
        assert book(service, user, at=TUESDAY - 2 * HOUR) == TUESDAY

    def test_nobody_can_move_a_booking_to_a_start_within_the_minimum_notice(
        self, service, booking, user
    ):
        for actor in (user, service.calendar.provider, AdminFactory()):
            at = TUESDAY - 3 * DAY
            with pytest.raises(terms.TooSoon):
                move(booking, actor, to=at + 2 * HOUR - SECOND, at=at)
            assert move(booking, actor, to=at + 2 * HOUR, at=at) == at + 2 * HOUR
            move(booking, service.calendar.provider, to=TUESDAY, at=at)

    def test_a_past_start_is_invalid_rather_than_too_soon(self, service, user):
        with pytest.raises(Invalid):
            book(service, user, at=TUESDAY + SECOND)


class TestHorizon:
    def test_a_booking_beyond_the_horizon_is_refused(self, service, user):
        with pytest.raises(terms.TooFarAhead, match="at most 30 days in advance"):
            book(service, user, at=TUESDAY - 30 * DAY - SECOND)
        assert book(service, user, at=TUESDAY - 30 * DAY) == TUESDAY

    def test_a_booking_cannot_be_moved_beyond_the_horizon(self, booking, user):
        at = TUESDAY - 3 * DAY
        with pytest.raises(terms.TooFarAhead):
            move(booking, user, to=at + 30 * DAY + SECOND, at=at)
        assert move(booking, user, to=at + 30 * DAY, at=at) == at + 30 * DAY

    def test_a_service_without_a_horizon_can_be_booked_centuries_ahead(self, user):
        assert book(ServiceFactory(), user, at=timezone.now()) == TUESDAY


def cancel(booking, actor, at):
    services.cancel_booking(booking_id=booking.pk, actor=actor, at=at)


def postpone(booking, actor, at):
    move(booking, actor, to=TUESDAY + DAY, at=at)


def delete(booking, actor, at):
    services.delete_booking(booking_id=booking.pk, actor=actor, at=at)


class TestCancellationNotice:
    @pytest.mark.parametrize("change", [cancel, postpone, delete])
    @pytest.mark.parametrize("status", ["pending", "confirmed"])
    def test_an_owner_can_cancel_move_or_delete_only_with_enough_notice(
        self, booking, user, change, status
    ):
        Booking.objects.filter(pk=booking.pk).update(status=status)
        before = Booking.objects.values().get()
        with pytest.raises(services.CancellationTooLate):
            change(booking, user, TUESDAY - DAY + SECOND)
        assert Booking.objects.values().get() == before
        change(booking, user, TUESDAY - DAY)
        assert Booking.objects.values().first() != before

    @pytest.mark.parametrize("change", [cancel, postpone])
    def test_the_cancellation_notice_does_not_limit_providers_and_admins(
        self, service, user, change
    ):
        for actor in (service.calendar.provider, AdminFactory()):
            booking = BookingFactory(service=service, user=user)
            change(booking, actor, TUESDAY - 3 * HOUR)
            assert Booking.objects.exclude(start_time=TUESDAY, status="pending").exists()
            booking.delete()

    def test_without_a_notice_an_owner_can_cancel_until_the_start(self, user):
        booking = BookingFactory(user=user)
        with pytest.raises(services.CancellationTooLate):
            cancel(booking, user, TUESDAY + SECOND)
        cancel(booking, user, TUESDAY)

    def test_cancelling_a_completed_booking_is_an_invalid_transition(self, booking, user):
        Booking.objects.update(status="completed")
        with pytest.raises(services.InvalidTransition):
            cancel(booking, user, TUESDAY + 2 * DAY)

    def test_an_owner_can_delete_a_cancelled_booking_within_the_notice(self, booking, user):
        Booking.objects.update(status="cancelled")
        delete(booking, user, TUESDAY - HOUR)
        assert not Booking.objects.exists()


def test_each_rule_has_its_error_code(api, service, user):
    client = api.as_(user)
    soon = timezone.now() + HOUR

    def body(start):
        return {"service_id": str(service.pk), "start_time": start.isoformat()}

    problem(client.post("/bookings", body(soon)), 409, "too_soon")
    problem(client.post("/bookings", body(soon + 40 * DAY)), 409, "too_far_ahead")
    near = BookingFactory(service=service, user=user, start_time=soon)
    response = client.patch(f"/bookings/{near.pk}", {"status": "cancelled"})
    problem(response, 409, "cancellation_too_late")
    later = {"start_time": (soon + 2 * DAY).isoformat()}
    problem(client.patch(f"/bookings/{near.pk}", later), 409, "cancellation_too_late")
    problem(client.delete(f"/bookings/{near.pk}"), 409, "cancellation_too_late")
