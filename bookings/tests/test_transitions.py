"""Each endpoint refuses every change of status that `TABLE` does not list.

Providers and admins can make all changes that it lists. Owners can only cancel a booking or book a
hold.
"""

import pytest
from django.db import IntegrityError, transaction

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings.models import Booking, BookingEvent
from bookings.tests.factories import BookingFactory
from bookings.transitions import TRANSITIONS
from bookit.errors import database_error_facts
from bookit.tests.expect import problem
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

STATES = ["held", "pending", "confirmed", "cancelled", "completed", "expired", "no_show"]

# The allowed changes of status, written down a second time, independently of the code.
TABLE = {
    "held": "pending confirmed cancelled expired",
    "pending": "confirmed cancelled expired completed no_show",
    "confirmed": "completed cancelled no_show",
    "cancelled": "",
    "completed": "no_show",
    "expired": "",
    "no_show": "completed",
}

PAIRS = pytest.mark.parametrize(
    ("before", "after"), [(before, after) for before in STATES for after in STATES]
)


@pytest.fixture
def owner():
    return UserFactory()


@pytest.fixture
def provider():
    return ProviderFactory()


@pytest.fixture
def booking_in(owner, provider):
    """Return a function that stores a booking with a status, in place of any earlier booking."""
    calendar = CalendarFactory(provider=provider)

    def make(status):
        # A hold that is set to `pending` would become confirmed if the service did not require
        # confirmation.
        service = ServiceFactory(calendar=calendar, requires_confirmation=True)
        Booking.objects.all().delete()
        return BookingFactory(user=owner, service=service, status=status)

    return make


def test_the_table_equals_the_table_in_the_code():
    assert set(STATES) == set(Booking.Status.values) == set(TABLE)
    assert {state: set(follow.split()) for state, follow in TABLE.items()} == {
        str(state): {str(status) for status in follow} for state, follow in TRANSITIONS.items()
    }


@PAIRS
def test_the_database_refuses_what_the_table_does_not_allow(booking_in, before, after):
    booking = booking_in(before)
    ends = booking.hold_expires_at if after == "held" else None
    change = Booking.objects.filter(pk=booking.pk).update
    if after == before or after in TABLE[before].split():
        assert change(status=after, hold_expires_at=ends) == 1
        return
    with pytest.raises(IntegrityError) as refused, transaction.atomic():
        change(status=after, hold_expires_at=ends)
    assert database_error_facts(refused.value) == ("23514", "booking_transition")
    booking.refresh_from_db()
    assert booking.status == before


@PAIRS
@pytest.mark.parametrize("role", ["provider", "admin"])
def test_providers_and_admins_can_do_what_the_table_allows(
    api, provider, booking_in, before, after, role
):
    actor = provider if role == "provider" else AdminFactory()
    for path in ("/bookings/{}", "/bookings/{}/status"):
        booking = booking_in(before)
        response = api.as_(actor).patch(path.format(booking.pk), {"status": after})
        updated_at = booking.updated_at
        booking.refresh_from_db()
        events = BookingEvent.objects.filter(booking_id=booking.pk)
        if after in TABLE[before].split():
            assert response.status_code == 200, response.content
            assert response.json()["status"] == booking.status == after
            event = events.get()
            # Booking a hold is recorded as the creation of the booking.
            made = before == "held" and after in ("pending", "confirmed")
            expected = "booking.created" if made else f"booking.{after}"
            assert (event.type, event.actor) == (expected, actor)
            assert event.data["status"] == after
            assert event.data["was"] == {"status": before}
            assert event.at == booking.updated_at > updated_at
        else:
            problem(response, 409, "invalid_transition")
            assert (booking.status, booking.updated_at) == (before, updated_at)
            assert not events.exists()


@PAIRS
def test_an_owner_can_only_cancel_a_booking_or_book_a_hold(api, owner, booking_in, before, after):
    booking = booking_in(before)
    response = api.as_(owner).patch(f"/bookings/{booking.pk}", {"status": after})
    booking.refresh_from_db()
    if after == "cancelled" and "cancelled" in TABLE[before].split():
        assert response.status_code == 200
        assert response.json()["status"] == booking.status == "cancelled"
        assert BookingEvent.objects.get().type == "booking.cancelled"
    elif (before, after) == ("held", "pending"):
        assert response.status_code == 200
        assert response.json()["status"] == booking.status == "pending"
        assert BookingEvent.objects.get().type == "booking.created"
    else:
        # An owner who tries to book a hold that has expired, or that somebody has cancelled, for
        # example together with its slot, is told so.
        ended = before in ("expired", "cancelled")
        if after == "cancelled" or (ended and after == "pending"):
            problem(response, 409, "invalid_transition")
        else:
            problem(response, 403, "permission_denied")
        assert booking.status == before
        assert not BookingEvent.objects.exists()


@pytest.mark.parametrize("before", STATES)
def test_strangers_cannot_change_the_status_and_owners_cannot_use_the_status_endpoint(
    api, owner, booking_in, before
):
    booking = booking_in(before)
    elsewhere = CalendarFactory(provider=ProviderFactory())
    for after in STATES:
        refused = [
            api.as_(owner).patch(f"/bookings/{booking.pk}/status", {"status": after}),
            api.as_(UserFactory()).patch(f"/bookings/{booking.pk}", {"status": after}),
            api.as_(elsewhere.provider).patch(f"/bookings/{booking.pk}", {"status": after}),
            api.as_(elsewhere.provider).patch(f"/bookings/{booking.pk}/status", {"status": after}),
        ]
        for response in refused:
            problem(response, 403, "permission_denied")
        problem(api.patch(f"/bookings/{booking.pk}", {"status": after}), 401, "not_authenticated")
    booking.refresh_from_db()
    assert booking.status == before
    assert not BookingEvent.objects.exists()


@pytest.mark.parametrize("after", STATES)
def test_a_provider_who_books_their_own_service_can_do_what_the_table_allows(
    api, provider, booking_in, after
):
    booking = booking_in("pending")
    Booking.objects.update(user=provider)
    response = api.as_(provider).patch(f"/bookings/{booking.pk}", {"status": after})
    is_allowed = after in TABLE["pending"].split()
    assert response.status_code == (200 if is_allowed else 409)
    booking.refresh_from_db()
    assert booking.status == (after if is_allowed else "pending")
