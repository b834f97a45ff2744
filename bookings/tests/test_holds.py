"""A hold keeps a seat for a user who has not booked it yet."""

from datetime import timedelta
from functools import partial

import pytest
import time_machine
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings import seats, services
from bookings.models import Booking, BookingEvent
from bookings.slots import services as slots
from bookings.tests.factories import TUESDAY, SlotFactory
from bookit.tests.crowd import at_once, deadlocks, starting_line, tally
from bookit.tests.expect import problem
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

TEN_MINUTES = timedelta(minutes=10)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NOW = TUESDAY - timedelta(days=1)


@pytest.fixture
def user():
    return UserFactory()


@pytest.fixture
def service():
    return ServiceFactory()


def book(service, user, *, at=NOW, hours=0, **more):
    return services.create_booking(
        actor=user,
        service_id=service.pk,
        start_time=TUESDAY + hours * HOUR,
        at=at,
        **more,
    )


def body(service, hours=0, **more):
    start_time = TUESDAY + hours * HOUR
    return {"service_id": str(service.pk), "start_time": start_time.isoformat(), **more}


class TestHolding:
    def test_a_hold_keeps_the_seat_for_ten_minutes(self, api, user, service):
        before = timezone.now()
        response = api.as_(user).post("/bookings", body(service, hold=True))
        assert response.status_code == 201
        booking = Booking.objects.get()
        assert response.json()["status"] == booking.status == "held"
        assert booking.hold_expires_at == booking.created_at + TEN_MINUTES
        assert before <= booking.created_at <= timezone.now()
        problem(api.as_(UserFactory()).post("/bookings", body(service)), 409, "booking_conflict")
        times = api.get(f"/services/{service.pk}/availability?from=2999-01-01&to=2999-01-01")
        starts = [time["start_time"] for time in times.json()["times"]]
        assert "2999-01-01T10:00:00Z" not in starts
        assert "2999-01-01T11:00:00Z" in starts

    def test_a_hold_is_the_first_event_in_the_history(self, user, service):
        booking = book(service, user, hold=True)
        event = BookingEvent.objects.get()
        assert (event.booking_id, event.type, event.actor) == (booking.pk, "booking.held", user)
        assert event.data["status"] == "held"

    def test_the_hold_time_is_a_setting(self, settings, user, service):
        settings.HOLD_TIME = timedelta(minutes=3)
        assert book(service, user, hold=True).hold_expires_at == NOW + timedelta(minutes=3)

    def test_holds_follow_the_rules_for_bookings(self, user):
        with pytest.raises(services.OutsideOpeningHours):
            book(ServiceFactory(mode="slots"), user, hold=True)
        with pytest.raises(services.ServiceInactive):
            book(ServiceFactory(is_active=False), user, hold=True)

    def test_a_seat_in_a_slot_can_be_held(self, user):
        slot = SlotFactory(capacity=1)
        held = services.create_booking(actor=user, slot_id=slot.pk, at=NOW, hold=True)
        assert (held.status, held.slot_id) == ("held", slot.pk)
        with pytest.raises(services.SlotFull):
            services.create_booking(actor=user, slot_id=slot.pk, at=NOW + TEN_MINUTES - SECOND)
        assert services.create_booking(actor=user, slot_id=slot.pk, at=NOW + TEN_MINUTES).seat == 1


class TestBookHold:
    @pytest.mark.parametrize(
        ("needs_confirmation", "status"), [(True, "pending"), (False, "confirmed")]
    )
    def test_the_owner_can_turn_a_hold_into_a_booking(self, api, user, needs_confirmation, status):
        service = ServiceFactory(requires_confirmation=needs_confirmation)
        client = api.as_(user)
        held = client.post("/bookings", body(service, hold=True)).json()
        response = client.patch(f"/bookings/{held['id']}", {"status": "pending"})
        assert response.status_code == 200
        assert response.json()["status"] == status
        assert response.json()["hold_expires_at"] is None
        assert response.json()["seat"] == held["seat"]
        event = BookingEvent.objects.last()
        assert (event.type, event.actor, event.data["status"]) == ("booking.created", user, status)

    def test_the_provider_and_admins_can_book_a_hold_but_strangers_cannot(self, api, user):
        provider = ProviderFactory()
        service = ServiceFactory(calendar=CalendarFactory(provider=provider))
        for hours, actor in enumerate((provider, AdminFactory())):
            held = book(service, user, at=timezone.now(), hours=hours, hold=True)
            url = f"/bookings/{held.pk}"
            stranger = api.as_(UserFactory()).patch(url, {"status": "pending"})
            problem(stranger, 403, "permission_denied")
            response = api.as_(actor).patch(url, {"status": "pending"})
            assert response.json()["status"] == "pending"

    def test_a_hold_can_be_booked_only_before_it_expires(self, user, service):
        held = book(service, user, hold=True)
        late = partial(services.book_hold, booking_id=held.pk, actor=user, at=NOW + TEN_MINUTES)
        with pytest.raises(services.InvalidTransition, match="expired"):
            late()
        assert Booking.objects.get().status == "held"
        services.book_hold(booking_id=held.pk, actor=user, at=NOW + TEN_MINUTES - SECOND)
        assert Booking.objects.get().status == "pending"

    def test_a_hold_whose_start_has_passed_cannot_become_pending(self, user, service):
        """The booking would expire within a minute."""
        held = book(service, user, at=TUESDAY - 5 * MINUTE, hold=True)
        for at in (TUESDAY, TUESDAY + MINUTE):
            with pytest.raises(services.InvalidTransition, match="its start has passed"):
                services.book_hold(booking_id=held.pk, actor=user, at=at)
        assert Booking.objects.get().status == "held"
        services.change_status(
            booking_id=held.pk, status="confirmed", actor=AdminFactory(), at=TUESDAY + MINUTE
        )
        assert Booking.objects.get().status == "confirmed"

    def test_a_hold_that_needs_no_confirmation_can_be_booked_until_it_expires(self, user):
        service = ServiceFactory(requires_confirmation=False)
        held = book(service, user, at=TUESDAY - 5 * MINUTE, hold=True)
        services.book_hold(booking_id=held.pk, actor=user, at=TUESDAY + 5 * MINUTE - SECOND)
        assert Booking.objects.get().status == "confirmed"

    def test_an_expired_hold_cannot_be_confirmed(self, user, service):
        held = book(service, user, hold=True)
        with pytest.raises(services.InvalidTransition, match="expired"):
            services.change_status(
                booking_id=held.pk, status="confirmed", actor=AdminFactory(), at=NOW + TEN_MINUTES
            )

    def test_an_owner_cannot_set_a_confirmed_booking_to_pending(self, api, user, service):
        booking = book(service, user, at=timezone.now())
        services.change_status(
            booking_id=booking.pk, status="confirmed", actor=AdminFactory(), at=timezone.now()
        )
        response = api.as_(user).patch(f"/bookings/{booking.pk}", {"status": "pending"})
        problem(response, 403, "permission_denied")

    def test_a_hold_can_be_cancelled(self, user, service):
        held = book(service, user, hold=True)
        services.cancel_booking(booking_id=held.pk, actor=user, at=NOW)
        assert Booking.objects.get().status == "cancelled"
        assert Booking.objects.get().hold_expires_at is None
        book(service, UserFactory())


class TestExpiry:
    def test_a_hold_blocks_its_seat_until_it_expires(self, user, service):
        held = book(service, user, hold=True)
        other = UserFactory()
        with pytest.raises(services.BookingConflict):
            book(service, other, at=NOW + TEN_MINUTES - SECOND)
        booking = book(service, other, at=NOW + TEN_MINUTES)
        assert (booking.user, booking.seat, booking.status) == (other, 1, "pending")
        held.refresh_from_db()
        assert (held.status, held.hold_expires_at) == ("expired", None)
        event = BookingEvent.objects.filter(booking_id=held.pk).last()
        assert (event.type, event.actor, event.at) == (
            "booking.expired",
            None,
            NOW + TEN_MINUTES,
        )
        assert event.data["was"] == {"status": "held"}

    def test_an_expired_hold_does_not_block_another_service_on_the_calendar(self, user, service):
        book(service, user, hold=True)
        neighbour = ServiceFactory(calendar=service.calendar)
        with pytest.raises(services.BookingConflict):
            book(neighbour, user)
        assert book(neighbour, user, at=NOW + TEN_MINUTES).pk

    def test_a_booking_can_be_moved_to_the_time_of_an_expired_hold(self, user, service):
        book(service, user, hold=True)
        booking = book(service, user, hours=5)
        call = partial(
            services.reschedule_booking, booking_id=booking.pk, actor=user, start_time=TUESDAY
        )
        with pytest.raises(services.BookingConflict):
            call(at=NOW)
        assert call(at=NOW + TEN_MINUTES).start_time == TUESDAY

    def test_a_booking_ends_only_the_expired_hold_that_it_overlaps(self, user, service):
        elsewhere = ServiceFactory()
        book(elsewhere, user, hold=True)
        book(service, user, hours=3, hold=True)
        book(service, user, hold=True)
        book(service, UserFactory(), at=NOW + TEN_MINUTES)
        statuses = Booking.objects.values_list("status", flat=True)
        assert sorted(statuses) == ["expired", "held", "held", "pending"]

    def test_a_time_is_offered_again_once_its_hold_has_expired(self, api, user, service):
        book(service, user, hold=True)
        url = f"/services/{service.pk}/availability?from=2999-01-01&to=2999-01-01"

        def starts(at):
            with time_machine.travel(at, tick=False):
                return [time["start_time"] for time in api.get(url).json()["times"]]

        assert "2999-01-01T10:00:00Z" not in starts(NOW + TEN_MINUTES - SECOND)
        assert "2999-01-01T10:00:00Z" in starts(NOW + TEN_MINUTES)


class TestLimit:
    def test_a_user_can_have_at_most_three_holds(self, api, user, service):
        client = api.as_(user)
        for hours in range(3):
            assert client.post("/bookings", body(service, hours, hold=True)).status_code == 201
        problem(client.post("/bookings", body(service, 3, hold=True)), 409, "too_many_holds")
        assert client.post("/bookings", body(service, 4)).status_code == 201
        assert (
            api.as_(UserFactory()).post("/bookings", body(service, 5, hold=True)).status_code == 201
        )

    def test_expired_holds_do_not_count_against_the_limit(self, user, service):
        for hours in range(3):
            book(service, user, hours=hours, hold=True)
        with pytest.raises(services.TooManyHolds):
            book(service, user, hours=3, hold=True, at=NOW + TEN_MINUTES - SECOND)
        book(service, user, hours=3, hold=True, at=NOW + TEN_MINUTES)

    def test_holds_that_an_admin_places_for_a_user_count_for_that_user_only(self, user, service):
        admin = AdminFactory()
        for hours in range(3):
            assert book(service, admin, hours=hours, hold=True, user_id=user.pk).user_id == user.pk
        with pytest.raises(services.TooManyHolds):
            book(service, user, hours=3, hold=True)
        # The admin can still place a hold of their own.
        assert book(service, admin, hours=3, hold=True).user_id == admin.pk


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_only_three_of_ten_concurrent_holds_are_placed(self):
        user, service = UserFactory(), ServiceFactory()
        for day in range(1, 6):
            # The holds that were placed an hour earlier have expired.
            at = NOW + day * HOUR
            calls = [
                partial(book, service, user, at=at, hours=24 * day + hours, hold=True)
                for hours in range(10)
            ]
            assert tally(at_once(calls)) == {None: 3, services.TooManyHolds: 7}

    @pytest.mark.one_server("a cluster takes another lock")
    def test_all_ten_holds_are_placed_without_the_lock_on_the_user(self, monkeypatch):
        """Control for the test above: holds do not lock the user's row."""
        monkeypatch.setattr(QuerySet, "select_for_update", lambda queryset, **options: queryset)
        user, service = UserFactory(), ServiceFactory()
        with starting_line("bookings_booking") as set_off:
            calls = [partial(book, service, user, hours=hours, hold=True) for hours in range(10)]
            assert tally(set_off(calls))[None] == 10

    @pytest.mark.one_server("counts deadlocks, which a cluster resolves by repeating a booking")
    def test_one_of_twenty_concurrent_bookings_gets_the_seat_of_an_expired_hold(self):
        user, service, crowd = UserFactory(), ServiceFactory(), UserFactory.create_batch(20)
        before = deadlocks()
        for hours in range(20):
            book(service, user, hours=hours, hold=True)
            calls = [
                partial(book, service, each, at=NOW + TEN_MINUTES, hours=hours) for each in crowd
            ]
            assert tally(at_once(calls)) == {None: 1, services.BookingConflict: 19}
        assert deadlocks() == before
        events = BookingEvent.objects.filter(type="booking.expired")
        assert events.count() == Booking.objects.filter(status="expired").count() == 20

    @pytest.mark.parametrize(
        ("hold", "is_any"),
        [(False, False), (True, False), (False, True)],
        ids=["a booking", "a hold", "one of two services"],
    )
    def test_a_slot_can_be_changed_while_a_booking_behind_an_expired_hold_locks_its_calendar(
        self, monkeypatch, hold, is_any
    ):
        """If the booking kept its lock on the slot, it would deadlock with the change."""
        admin, user, other = AdminFactory(), UserFactory(), UserFactory()
        course, second = ServiceFactory(mode="slots"), ServiceFactory()
        slot = SlotFactory(service=course)
        book(course, other, hold=True)
        # Because of this booking, `second` is tried after `course`.
        book(second, other, hours=1)
        lock, changes = seats.lock_to_book, []

        def lock_after_a_change(calendar_id):
            change = partial(slots.change_slot, slot_id=slot.pk, actor=admin, at=NOW, capacity=2)
            changes.extend(at_once([change]))  # on another connection
            lock(calendar_id)

        monkeypatch.setattr(seats, "lock_to_book", lock_after_a_change)
        ids = {"service_ids": [course.pk, second.pk]} if is_any else {"service_id": course.pk}
        # A request with an Idempotency-Key is one transaction.
        with transaction.atomic():
            booked = services.create_booking(
                actor=user, start_time=TUESDAY, at=NOW + TEN_MINUTES, hold=hold, **ids
            )
        assert booked.slot_id == slot.pk
        assert [change.error for change in changes] == [None]

    def test_a_hold_is_either_booked_or_expired(self):
        owner, other, service = UserFactory(), UserFactory(), ServiceFactory()
        for hours in range(30):
            held = book(service, owner, hours=hours, hold=True)
            # The owner's request reaches a web server whose clock is a second behind, so there the
            # hold has not expired.
            booked, taken = at_once(
                [
                    partial(
                        services.book_hold,
                        booking_id=held.pk,
                        actor=owner,
                        at=NOW + TEN_MINUTES - SECOND,
                    ),
                    partial(book, service, other, at=NOW + TEN_MINUTES, hours=hours),
                ]
            )
            held.refresh_from_db()
            if booked.error is None:
                assert held.status == "pending"
                assert isinstance(taken.error, services.BookingConflict)
            else:
                assert held.status == "expired"
                assert isinstance(booked.error, services.InvalidTransition)
                assert taken.value.status == "pending"
