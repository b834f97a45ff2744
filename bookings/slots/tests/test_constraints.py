"""Slots and bookings cannot overlap, even if plain SQL bypasses the application."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import DatabaseError, transaction

from bookings.models import Occupancy
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookings.tests.test_constraints import ACTIVE, FREE, HOUR, insert, refused_by, update
from bookit.errors import CONSTRAINT_ERRORS, database_error_facts
from bookit.errors.problems import status_of
from bookit.tests.crowd import ask, disabled_trigger, run
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db


def publish(service, start=TUESDAY, end=None, **columns):
    """Store a slot with plain SQL."""
    end = end or start + HOUR
    row = {
        "id": uuid4(),
        "service_id": service.pk,
        "calendar_id": service.calendar_id,
        "start_time": start,
        "end_time": end,
        "blocked": f"[{start},{end})",
        "capacity": 3,
        "status": "scheduled",
        **columns,
    }
    names, places = ", ".join(row), ", ".join(f"%({name})s" for name in row)
    run(f"INSERT INTO bookings_slot ({names}) VALUES ({places})", row)
    return row["id"]


def change(slot_id, **columns):
    """Change a slot with plain SQL."""
    changes = ", ".join(f"{name} = %({name})s" for name in columns)
    count = run(f"UPDATE bookings_slot SET {changes} WHERE id = %(id)s", {**columns, "id": slot_id})
    assert count == 1


def to(start):
    """Return the columns of a period of one hour from `start`."""
    end = start + HOUR
    return {"start_time": start, "end_time": end, "blocked": f"[{start},{end})"}


@pytest.fixture
def service():
    return ServiceFactory(capacity=3)


@pytest.fixture
def neighbour(service):
    """Another service on the same calendar."""
    return ServiceFactory(calendar=service.calendar)


OVERLAPS = [(0, 60), (-30, 30), (30, 90), (15, 45), (-60, 120), (59, 119), (-59, 1)]


def minutes(number):
    return TUESDAY + timedelta(minutes=number)


class TestSlotsAndSlots:
    @pytest.mark.parametrize(("start", "end"), OVERLAPS)
    def test_two_slots_of_a_calendar_cannot_overlap(self, service, neighbour, start, end):
        publish(service)
        for other in (service, neighbour):
            with refused_by("slots_apart"):
                publish(other, minutes(start), minutes(end))

    def test_back_to_back_periods_are_accepted(self, service, neighbour):
        publish(service)
        publish(neighbour, TUESDAY + HOUR)
        publish(service, TUESDAY - HOUR)

    def test_the_buffer_of_a_slot_cannot_overlap_another_slot(self, service):
        publish(service, blocked=f"[{TUESDAY},{TUESDAY + 1.5 * HOUR})")
        with refused_by("slots_apart"):
            publish(service, TUESDAY + HOUR)

    def test_a_slot_cannot_move_over_another_slot(self, service):
        publish(service)
        later = publish(service, TUESDAY + HOUR)
        with refused_by("slots_apart"):
            change(later, **to(TUESDAY + HOUR / 2))

    def test_cancelled_slots_do_not_block_slots(self, service):
        for _ in range(2):
            publish(service, status="cancelled")
        publish(service)

    def test_a_cancelled_slot_cannot_be_scheduled_again_over_another_slot(self, service):
        former = publish(service, status="cancelled")
        publish(service)
        with refused_by("slots_apart"):
            change(former, status="scheduled")


class TestSlotsAndBookings:
    @pytest.mark.parametrize("status", ACTIVE)
    @pytest.mark.parametrize(("start", "end"), OVERLAPS)
    def test_a_slot_cannot_be_published_over_a_booking(
        self, service, neighbour, status, start, end
    ):
        insert(service, status=status)
        for other in (service, neighbour):
            with refused_by("slot_beside_bookings"):
                publish(other, minutes(start), minutes(end))

    @pytest.mark.parametrize("status", ACTIVE)
    @pytest.mark.parametrize(("start", "end"), OVERLAPS)
    def test_a_booking_cannot_be_made_over_a_slot(self, service, neighbour, status, start, end):
        publish(service)
        for other in (service, neighbour):
            with refused_by("booking_beside_slots"):
                insert(other, minutes(start), minutes(end), status=status)

    def test_back_to_back_periods_are_accepted(self, service, neighbour):
        publish(service)
        insert(neighbour, TUESDAY + HOUR)
        insert(service, TUESDAY - HOUR)
        publish(neighbour, TUESDAY + 2 * HOUR)

    def test_the_buffers_of_slots_and_of_bookings_are_kept_free(self, service):
        publish(service, blocked=f"[{TUESDAY},{TUESDAY + 1.5 * HOUR})")
        with refused_by("booking_beside_slots"):
            insert(service, TUESDAY + HOUR)
        insert(service, TUESDAY - HOUR, blocked=f"[{TUESDAY - 2 * HOUR},{TUESDAY})")
        with refused_by("slot_beside_bookings"):
            publish(service, TUESDAY - 2 * HOUR)

    def test_a_slot_does_not_block_other_calendars(self, service):
        publish(service)
        insert(ServiceFactory())

    @pytest.mark.parametrize("status", FREE)
    def test_an_inactive_booking_and_a_slot_can_overlap(self, service, status):
        insert(service, status=status)
        publish(service)
        insert(service, status=status)

    @pytest.mark.parametrize("status", FREE)
    def test_an_inactive_booking_cannot_become_active_over_a_slot(self, service, status):
        former = insert(service, status=status)
        publish(service)
        with (
            disabled_trigger("bookings_booking", "booking_transition"),
            refused_by("booking_beside_slots"),
        ):
            update(former, status="confirmed")

    def test_a_booking_cannot_move_over_a_slot(self, service):
        publish(service)
        booking = insert(service, TUESDAY + 5 * HOUR)
        with refused_by("booking_beside_slots"):
            update(booking, **to(TUESDAY + HOUR / 2))

    def test_a_slot_cannot_move_over_a_booking(self, service):
        slot = publish(service)
        insert(service, TUESDAY + 5 * HOUR)
        with refused_by("slot_beside_bookings"):
            change(slot, **to(TUESDAY + 4.5 * HOUR))

    def test_moving_a_booking_frees_its_time(self, service):
        booking = insert(service)
        update(booking, **to(TUESDAY + 5 * HOUR))
        publish(service)

    def test_cancelling_or_deleting_a_booking_frees_its_time(self, service):
        update(insert(service), status="cancelled")
        publish(service)
        booking = insert(service, TUESDAY + HOUR)
        run("DELETE FROM bookings_booking WHERE id = %s", [booking])
        publish(service, TUESDAY + HOUR)

    def test_cancelling_or_deleting_a_slot_frees_its_time(self, service):
        change(publish(service), status="cancelled")
        insert(service)
        slot = publish(service, TUESDAY + HOUR)
        run("DELETE FROM bookings_slot WHERE id = %s", [slot])
        insert(service, TUESDAY + HOUR)

    def test_a_cancelled_slot_cannot_be_scheduled_again_over_a_booking(self, service):
        former = publish(service, status="cancelled")
        insert(service)
        with refused_by("slot_beside_bookings"):
            change(former, status="scheduled")

    def test_bookings_of_one_service_can_overlap_on_different_seats(self, service):
        for seat in (1, 2, 3):
            insert(service, seat=seat)
        assert Occupancy.objects.count() == 3


class TestBookingsInSlots:
    @pytest.fixture
    def slot(self, service):
        return SlotFactory(service=service)

    def test_bookings_in_a_slot_add_no_rows_to_the_occupancy(self, service, slot):
        for seat in (1, 2, 3):
            insert(service, seat=seat, slot_id=slot.pk)
        # Only the slot occupies the time.
        assert [each.pk for each in Occupancy.objects.all()] == [slot.pk]

    def test_a_seat_of_a_slot_cannot_be_booked_twice(self, service, slot):
        insert(service, slot_id=slot.pk)
        with refused_by("booking_seat_free"):
            insert(service, slot_id=slot.pk)

    @pytest.mark.parametrize(
        "columns",
        [
            {"start": TUESDAY + HOUR / 4, "end": TUESDAY + HOUR},
            {"end": TUESDAY + HOUR / 2},
            {"blocked": f"[{TUESDAY},{TUESDAY + 2 * HOUR})"},
        ],
        ids=["start", "end", "buffers"],
    )
    def test_a_booking_must_have_the_times_and_buffers_of_its_slot(self, service, slot, columns):
        with refused_by("booking_in_slot"):
            insert(service, slot_id=slot.pk, **columns)

    def test_a_booking_must_have_the_service_of_its_slot(self, neighbour, slot):
        with refused_by("booking_in_slot"):
            insert(neighbour, slot_id=slot.pk)

    def test_a_booking_that_moves_to_another_time_must_leave_its_slot(self, service, slot):
        booking = insert(service, slot_id=slot.pk)
        with refused_by("booking_in_slot"):
            update(booking, **to(TUESDAY + 5 * HOUR))
        update(booking, slot_id=None, **to(TUESDAY + 5 * HOUR))
        assert Occupancy.objects.filter(pk=booking).exists()

    def test_a_booking_that_leaves_its_slot_must_move_to_another_time(self, service, slot):
        booking = insert(service, slot_id=slot.pk)
        with refused_by("booking_beside_slots"):
            update(booking, slot_id=None)

    def test_a_slot_with_bookings_cannot_move(self, service, slot):
        insert(service, slot_id=slot.pk, status="cancelled")
        with refused_by("booking_in_slot"):
            change(slot.pk, **to(TUESDAY + 5 * HOUR))

    def test_a_slot_with_bookings_cannot_be_deleted(self, service, slot):
        insert(service, slot_id=slot.pk, status="cancelled")
        with refused_by("booking_in_slot"):
            run("DELETE FROM bookings_slot WHERE id = %s", [slot.pk])

    def test_a_booking_that_moves_into_a_slot_leaves_the_occupancy(self, service):
        booking = insert(service, TUESDAY + 5 * HOUR)
        slot = publish(service)
        update(booking, slot_id=slot, **to(TUESDAY))
        assert [each.pk for each in Occupancy.objects.all()] == [slot]

    def test_a_booking_cannot_name_an_unknown_slot(self, service):
        with refused_by("booking_in_slot"):
            insert(service, slot_id=uuid4())


class TestSlots:
    def test_a_slot_must_be_on_the_calendar_of_its_service(self, service):
        with refused_by("slot_service_on_calendar"):
            publish(service, calendar_id=CalendarFactory().pk)

    def test_a_slot_cannot_name_an_unknown_service(self, service):
        with refused_by("slot_service_on_calendar"):
            publish(service, service_id=uuid4())

    def test_a_service_with_slots_can_be_neither_moved_nor_deleted(self, service):
        publish(service, status="cancelled")
        with refused_by("slot_service_on_calendar"):
            run("UPDATE catalog_service SET calendar_id = %s", [CalendarFactory().pk])
        with refused_by("slot_service_on_calendar"):
            run("DELETE FROM catalog_service")

    def test_a_slot_cannot_end_when_it_starts(self, service):
        around = f"[{TUESDAY - HOUR},{TUESDAY + HOUR})"
        with refused_by("slot_period_not_empty"):
            publish(service, TUESDAY, TUESDAY, blocked=around)

    def test_a_slot_must_block_its_whole_period(self, service):
        with refused_by("slot_blocked_contains_period"):
            publish(service, blocked=f"[{TUESDAY},{TUESDAY + HOUR / 2})")

    def test_a_slot_must_have_at_least_one_seat_and_a_known_status(self, service):
        with refused_by("slot_capacity_positive"):
            publish(service, capacity=0)
        with refused_by("slot_status_known"):
            publish(service, status="full")


class TestOccupancy:
    @pytest.fixture
    def slot(self, service):
        return publish(service)

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM bookings_occupancy",
            "UPDATE bookings_occupancy SET blocked = tstzrange(now(), now() + '1 hour')",
            """INSERT INTO bookings_occupancy (id, calendar_id, occupant, blocked)
            SELECT gen_random_uuid(), calendar_id, id, tstzrange(now(), now() + '1 hour')
            FROM bookings_slot""",
        ],
    )
    def test_occupancy_cannot_be_written_directly(self, slot, sql):
        refused = pytest.raises(DatabaseError, match="change the slot or the booking")
        with refused, transaction.atomic():
            run(sql)
        assert Occupancy.objects.get().pk == slot

    def test_occupancy_contains_only_scheduled_slots_and_active_bookings_outside_slots(
        self, service, slot
    ):
        booking = BookingFactory(service=service, start_time=TUESDAY + HOUR, seat=2)
        BookingFactory(service=service, start_time=TUESDAY + 2 * HOUR, status="cancelled")
        publish(service, TUESDAY + 3 * HOUR, status="cancelled")
        insert(service, slot_id=slot)
        rows = Occupancy.objects.order_by("blocked").values_list("pk", "occupant", "seat")
        assert list(rows) == [(slot, slot, None), (booking.pk, service.pk, 2)]

    def test_the_index_of_the_occupancy_starts_with_the_calendar_and_the_period(self):
        # If the occupant came before the period, a search would read every row of the calendar,
        # because each slot is a separate occupant.
        assert "(calendar_id WITH =, blocked WITH &&, occupant WITH <>)" in ask(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conname = 'occupancy_one_at_a_time'"
        )


@pytest.mark.parametrize(
    ("constraint", "code"),
    [
        ("slots_apart", "slot_conflict"),
        ("slot_beside_bookings", "slot_conflict"),
        ("slot_service_on_calendar", "service_inactive"),
    ],
)
def test_a_violated_constraint_is_reported_as_a_conflict(constraint, code):
    error = CONSTRAINT_ERRORS[constraint]
    assert (error.code, status_of(error)) == (code, 409)


def test_a_refusal_by_a_trigger_names_a_constraint(service):
    publish(service)
    with pytest.raises(DatabaseError) as refused, transaction.atomic():
        insert(service)
    assert database_error_facts(refused.value) == ("23P01", "booking_beside_slots")
