"""Bookings in published slots: classes with several seats, and appointments with one seat."""

from datetime import timedelta
from functools import partial

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings import seats, services
from bookings.models import Booking, Slot
from bookings.slots import services as slots
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookings.tests.test_races import CROWD, DOUBLE_BOOKINGS, SLOWEST
from bookit.tests.crowd import (
    ask,
    at_once,
    close_line,
    deadlocks,
    open_line,
    starting_line,
    tally,
    until_waiting,
)
from bookit.tests.expect import problem
from catalog.models import Service, TimeOff
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
UNKNOWN = "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42"


@pytest.fixture
def user():
    return UserFactory()


@pytest.fixture
def client(api, user):
    return api.as_(user)


@pytest.fixture
def slot():
    """A class of one hour with two seats and a buffer of fifteen minutes after it."""
    return SlotFactory(
        service=ServiceFactory(mode="slots", capacity=2, buffer_after_minutes=15, price="12.00")
    )


def by_start(slot, **more):
    return {
        "service_id": str(slot.service_id),
        "start_time": slot.start_time.isoformat(),
        **more,
    }


class TestBooking:
    def test_a_seat_is_booked_by_the_id_of_the_slot(self, client, slot):
        response = client.post("/bookings", {"slot_id": str(slot.pk)})
        assert response.status_code == 201, response.content
        shown = response.json()
        assert shown["slot_id"] == str(slot.pk)
        assert shown["service_id"] == str(slot.service_id)
        assert (shown["start_time"], shown["end_time"]) == (
            "2999-01-01T10:00:00Z",
            "2999-01-01T11:00:00Z",
        )
        assert (shown["seat"], shown["price"]) == (1, "12.00")
        booking = Booking.objects.get()
        assert booking.blocked == slot.blocked
        assert client.get(f"/bookings/{booking.pk}").json() == shown
        assert client.get("/bookings").json()["results"] == [shown]

    def test_a_seat_is_booked_by_the_service_and_the_start(self, client, slot):
        shown = client.post("/bookings", by_start(slot)).json()
        assert shown["slot_id"] == str(slot.pk)

    def test_a_booking_of_an_open_service_at_the_start_of_a_slot_is_in_the_slot(self, client):
        slot = SlotFactory(service=ServiceFactory(capacity=3), capacity=1)
        assert client.post("/bookings", by_start(slot)).json()["slot_id"] == str(slot.pk)
        problem(client.post("/bookings", by_start(slot)), 409, "slot_full")
        # A booking without a slot cannot overlap the slot.
        later = (slot.start_time + HOUR / 2).isoformat()
        problem(client.post("/bookings", by_start(slot, start_time=later)), 409, "booking_conflict")

    def test_a_body_can_name_a_slot_together_with_its_service_and_times(self, client, slot):
        end_time = slot.end_time.isoformat()
        body = by_start(slot, slot_id=str(slot.pk), end_time=end_time)
        assert client.post("/bookings", body).status_code == 201
        body = {"service_ids": [str(slot.service_id)], "slot_id": str(slot.pk)}
        assert client.post("/bookings", body).status_code == 201

    @pytest.mark.parametrize(
        ("more", "field"),
        [
            ({"start_time": "2999-01-01T10:30:00Z"}, "start_time"),
            ({"end_time": "2999-01-01T10:30:00Z"}, "end_time"),
            ({"service_id": UNKNOWN}, "slot_id"),
            ({"service_ids": [UNKNOWN]}, "slot_id"),
            ({"slot_id": UNKNOWN}, "slot_id"),
            ({"slot_id": "x"}, "slot_id"),
        ],
    )
    def test_a_refusal_names_the_field_that_is_invalid_or_does_not_agree(
        self, client, slot, more, field
    ):
        response = client.post("/bookings", {"slot_id": str(slot.pk), **more})
        problem(response, 400, "validation_error", field)
        assert not Booking.objects.exists()

    def test_a_null_slot_id_is_treated_as_missing(self, client):
        body = {"service_id": str(ServiceFactory().pk), "start_time": TUESDAY.isoformat()}
        assert client.post("/bookings", {**body, "slot_id": None}).status_code == 201
        problem(client.post("/bookings", {"slot_id": None}), 400, "validation_error")

    def test_the_capacity_of_the_slot_replaces_the_capacity_of_the_service(self, client, slot):
        Slot.objects.update(capacity=3)
        Service.objects.update(capacity=1)
        taken = [client.post("/bookings", {"slot_id": str(slot.pk)}).json()["seat"] for _ in "123"]
        assert taken == [1, 2, 3]
        response = client.post("/bookings", {"slot_id": str(slot.pk)})
        assert problem(response, 409, "slot_full")["alternatives"] == []

    def test_a_booking_has_the_length_of_its_slot(self, client, slot):
        Service.objects.update(duration_minutes=30, buffer_after_minutes=0)
        shown = client.post("/bookings", {"slot_id": str(slot.pk)}).json()
        assert shown["end_time"] == "2999-01-01T11:00:00Z"

    def test_a_service_in_slots_mode_is_closed_outside_its_slots(self, client, slot):
        response = client.post("/bookings", by_start(slot, start_time="2999-01-01T12:00:00Z"))
        content = problem(response, 409, "outside_opening_hours")
        assert content["detail"] == "No slot of this service starts at this time."
        assert content["alternatives"][0]["slot_id"] == str(slot.pk)

    def test_a_cancelled_slot_cannot_be_booked(self, client, slot):
        Slot.objects.update(status="cancelled")
        response = client.post("/bookings", {"slot_id": str(slot.pk)})
        content = problem(response, 409, "service_inactive")
        assert content["detail"] == "This slot has been cancelled."
        problem(client.post("/bookings", by_start(slot)), 409, "outside_opening_hours")

    def test_a_slot_that_overlaps_time_off_cannot_be_booked(self, client, slot):
        TimeOff.objects.create(
            calendar=slot.calendar, start_time=TUESDAY + HOUR / 2, end_time=TUESDAY + 9 * HOUR
        )
        problem(client.post("/bookings", {"slot_id": str(slot.pk)}), 409, "outside_opening_hours")

    def test_the_notice_the_horizon_and_the_state_of_a_service_apply_to_its_slots(self, slot, user):
        call = partial(services.create_booking, actor=user, slot_id=slot.pk)
        Service.objects.update(min_notice_minutes=60, max_advance_days=1)
        with pytest.raises(services.ServiceError) as refused:
            call(at=TUESDAY - HOUR / 2)
        assert refused.value.code == "too_soon"
        with pytest.raises(services.ServiceError) as refused:
            call(at=TUESDAY - 25 * HOUR)
        assert refused.value.code == "too_far_ahead"
        with pytest.raises(services.Invalid):
            call(at=TUESDAY + HOUR)
        call(at=TUESDAY - HOUR)
        Service.objects.update(is_active=False)
        with pytest.raises(services.ServiceInactive):
            call(at=TUESDAY - HOUR)

    # Inside the transaction of an ordinary test, a booking would also need queries for a savepoint.
    @pytest.mark.django_db(transaction=True)
    @pytest.mark.one_server("counts statements, and a cluster needs more of them")
    def test_a_booking_in_a_slot_takes_three_queries(self, client, slot):
        for body in ({"slot_id": str(slot.pk)}, by_start(slot)):
            with CaptureQueriesContext(connection) as captured:
                assert client.post("/bookings", body).status_code == 201
            assert len(captured) == 3


class TestMoving:
    def test_a_booking_moves_to_another_slot(self, api, slot):
        booking = BookingFactory(service=slot.service, slot=slot)
        later = SlotFactory(service=slot.service, start_time=TUESDAY + 3 * HOUR)
        owner = api.as_(booking.user)
        for body in ({"slot_id": str(later.pk)}, {"start_time": slot.start_time.isoformat()}):
            response = owner.patch(f"/bookings/{booking.pk}", body)
            assert response.status_code == 200, response.content
            booking.refresh_from_db()
            target = later if "slot_id" in body else slot
            assert (booking.slot, booking.start_time, booking.blocked) == (
                target,
                target.start_time,
                target.blocked,
            )
            assert response.json()["slot_id"] == str(target.pk)

    def test_a_booking_cannot_move_to_a_full_slot(self, api, slot):
        booking = BookingFactory(service=slot.service, slot=slot)
        later = SlotFactory(service=slot.service, start_time=TUESDAY + 3 * HOUR, capacity=1)
        BookingFactory(service=slot.service, slot=later, start_time=later.start_time)
        response = api.as_(booking.user).patch(
            f"/bookings/{booking.pk}", {"slot_id": str(later.pk)}
        )
        problem(response, 409, "slot_full")
        booking.refresh_from_db()
        assert booking.slot == slot

    def test_moving_a_booking_to_its_own_slot_changes_nothing(self, api, slot):
        booking = BookingFactory(service=slot.service, slot=slot)
        owner = api.as_(booking.user)
        shown = owner.get(f"/bookings/{booking.pk}").json()
        assert owner.patch(f"/bookings/{booking.pk}", {"slot_id": str(slot.pk)}).json() == shown
        assert owner.patch(f"/bookings/{booking.pk}", shown).json() == shown
        assert not booking.events.exists()

    def test_a_slot_of_another_service_and_an_unknown_slot_are_refused(self, api, slot):
        booking = BookingFactory(service=slot.service, slot=slot)
        other = SlotFactory(start_time=TUESDAY + 3 * HOUR)
        owner = api.as_(booking.user)
        for slot_id in (str(other.pk), UNKNOWN):
            response = owner.patch(f"/bookings/{booking.pk}", {"slot_id": slot_id})
            problem(response, 400, "validation_error", "slot_id")

    def test_a_slot_and_a_time_must_agree(self, api, slot):
        booking = BookingFactory(service=slot.service, slot=slot)
        later = SlotFactory(service=slot.service, start_time=TUESDAY + 3 * HOUR)
        owner = api.as_(booking.user)
        body = {"slot_id": str(later.pk), "start_time": "2999-01-01T14:00:00Z"}
        problem(owner.patch(f"/bookings/{booking.pk}", body), 400, "validation_error", "start_time")
        body["start_time"] = later.start_time.isoformat()
        assert owner.patch(f"/bookings/{booking.pk}", body).status_code == 200

    def test_slot_and_status_cannot_change_together(self, api, slot):
        booking = BookingFactory(service=slot.service, slot=slot)
        later = SlotFactory(service=slot.service, start_time=TUESDAY + 3 * HOUR)
        body = {"slot_id": str(later.pk), "status": "cancelled"}
        response = api.as_(booking.user).patch(f"/bookings/{booking.pk}", body)
        problem(response, 400, "validation_error", "")

    def test_a_booking_of_an_open_service_can_leave_its_slot(self, api):
        slot = SlotFactory(service=ServiceFactory(capacity=2))
        booking = BookingFactory(service=slot.service, slot=slot)
        later = (TUESDAY + 5 * HOUR).isoformat()
        response = api.as_(booking.user).patch(f"/bookings/{booking.pk}", {"start_time": later})
        assert (response.status_code, response.json()["slot_id"]) == (200, None)


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_one_of_forty_clients_gets_the_last_seat_of_a_class(self):
        crowd = UserFactory.create_batch(CROWD)
        service = ServiceFactory(mode="slots", capacity=5)
        before = deadlocks()
        for day in range(30):
            slot = SlotFactory(service=service, start_time=TUESDAY + timedelta(days=day))
            for seat in range(1, 5):
                BookingFactory(
                    service=service,
                    slot=slot,
                    start_time=slot.start_time,
                    seat=seat,
                    user=crowd[seat],
                )
            outcomes = at_once(
                [
                    partial(
                        services.create_booking,
                        actor=user,
                        slot_id=slot.pk,
                        at=TUESDAY - timedelta(days=1),
                    )
                    for user in crowd
                ]
            )
            assert tally(outcomes) == {None: 1, services.SlotFull: 39}
            assert [outcome.value.seat for outcome in outcomes if outcome.value] == [5]
            assert max(outcome.seconds for outcome in outcomes) < SLOWEST
        assert deadlocks() == before
        assert ask(DOUBLE_BOOKINGS) == 0

    def test_seven_of_forty_clients_that_saw_free_seats_get_the_seven_seats(self):
        crowd = UserFactory.create_batch(CROWD)
        service = ServiceFactory(mode="slots", capacity=7)
        before = deadlocks()
        with starting_line("bookings_booking") as call_together:
            for day in range(6):
                slot = SlotFactory(service=service, start_time=TUESDAY + timedelta(days=day))
                calls = [
                    partial(
                        services.create_booking,
                        actor=user,
                        slot_id=slot.pk,
                        at=TUESDAY - timedelta(days=1),
                    )
                    for user in crowd
                ]
                outcomes = call_together(calls)
                assert tally(outcomes) == {None: 7, services.SlotFull: 33}
        assert deadlocks() == before
        assert ask(DOUBLE_BOOKINGS) == 0

    def test_a_slot_that_is_cancelled_while_people_book_has_no_active_bookings(self):
        admin, crowd = AdminFactory(), UserFactory.create_batch(5)
        service = ServiceFactory(mode="slots", capacity=9)
        before = deadlocks()
        for day in range(40):
            slot = SlotFactory(service=service, start_time=TUESDAY + timedelta(days=day))
            cancelled, *booked = at_once(
                [partial(cancel, slot, admin), *(partial(book, slot, user) for user in crowd)]
            )
            assert cancelled.error is None
            # Earlier bookings are cancelled with the slot, and later bookings are refused.
            for outcome in booked:
                assert outcome.error is None or isinstance(
                    outcome.error, services.SlotFull | services.ServiceInactive
                )
            slot.refresh_from_db()
            assert slot.status == "cancelled"
            assert not slot.bookings.filter(active=True).exists()
        assert deadlocks() == before

    @pytest.mark.one_server("replaces a statement that a cluster does not use")
    def test_without_the_lock_on_the_slot_a_booking_stays_active(self, monkeypatch):
        """Control for the test above: the cancellation does not wait for the booking."""
        unlocked = seats.CREATE_IN_SLOT.replace("FOR SHARE", "")
        monkeypatch.setattr(seats, "CREATE_IN_SLOT", unlocked)
        admin, user, slot = AdminFactory(), UserFactory(), SlotFactory()
        with starting_line("bookings_booking"):
            close_line()

            def cancel_slot():
                until_waiting(1)
                cancel(slot, admin)
                open_line()

            at_once([partial(book, slot, user)], meanwhile=cancel_slot)
        slot.refresh_from_db()
        assert slot.status == "cancelled"
        assert slot.bookings.filter(active=True).exists()


def cancel(slot, actor):
    slots.change_slot(
        slot_id=slot.pk, actor=actor, status="cancelled", at=TUESDAY - timedelta(days=1)
    )


def book(slot, user):
    services.create_booking(actor=user, slot_id=slot.pk, at=TUESDAY - timedelta(days=1))


def test_bookings_in_slots_are_listed_and_changed_like_other_bookings(api, user):
    provider = ProviderFactory()
    slot = SlotFactory(
        service=ServiceFactory(calendar=CalendarFactory(provider=provider), mode="slots")
    )
    booking = services.create_booking(actor=user, slot_id=slot.pk, at=timezone.now())
    assert api.as_(provider).get("/bookings?scope=provider").json()["count"] == 1
    for actor, status in ((provider, "confirmed"), (AdminFactory(), "completed")):
        response = api.as_(actor).patch(f"/bookings/{booking.pk}", {"status": status})
        assert response.json()["status"] == status
