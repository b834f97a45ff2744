"""PostgreSQL itself refuses bad data: most of these tests use SQL and bypass BookIt's code."""

from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from django.apps import apps
from django.db import DatabaseError, DataError, connection, transaction
from django.utils import timezone

from accounts.tests.factories import AdminFactory, UserFactory
from bookings import services
from bookings.models import Booking, BookingEvent
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.errors import CONSTRAINT_ERRORS, database_error_facts
from bookit.errors.problems import status_of
from bookit.tests.crowd import ask, disabled_trigger, run
from bookit.tests.expect import problem
from catalog.models import Service
from catalog.services import update_service
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
ACTIVE = ["held", "pending", "confirmed", "completed", "no_show"]
FREE = ["cancelled", "expired"]
OUR_PACKAGES = ("accounts.", "bookings.", "bookit.", "catalog.", "reviews.")


def insert(service, start=TUESDAY, end=None, **columns):
    """Store a booking with plain SQL."""
    end = end or start + HOUR
    row = {
        "id": uuid4(),
        "user_id": UserFactory().pk,
        "service_id": service.pk,
        "calendar_id": service.calendar_id,
        "seat": 1,
        "start_time": start,
        "end_time": end,
        "status": "pending",
        "attendee_name": "",
        "attendee_email": "",
        "notes": "",
        "price": 25,
        "currency": "USD",
        "blocked": f"[{start},{end})",
        **columns,
    }
    if row["status"] == "held":
        row.setdefault("hold_expires_at", TUESDAY)
    names, places = ", ".join(row), ", ".join(f"%({name})s" for name in row)
    run(f"INSERT INTO bookings_booking ({names}) VALUES ({places})", row)
    return row["id"]


def update(booking_id, **columns):
    """Change a booking with plain SQL."""
    changes = ", ".join(f"{name} = %({name})s" for name in columns)
    count = run(
        f"UPDATE bookings_booking SET {changes} WHERE id = %(id)s", {**columns, "id": booking_id}
    )
    assert count == 1


@contextmanager
def refused_by(constraint):
    """Check that the block raises a database error that names `constraint`."""
    with pytest.raises(DatabaseError) as refused, transaction.atomic():
        yield
    assert database_error_facts(refused.value)[1] == constraint


def names_of_checks_and_exclusions():
    """Return the names of the check and exclusion constraints of BookIt's tables.

    The checks that Django adds to columns that cannot be negative are left out.
    """
    ours = [model for model in apps.get_models() if model.__module__.startswith(OUR_PACKAGES)]
    of_django = {
        f"{model._meta.db_table}_{field.column}_check"
        for model in ours
        for field in model._meta.local_concrete_fields
        if field.db_check(connection)
    }
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint WHERE contype IN ('c', 'x')"
            " AND conrelid = ANY(%s::regclass[])",
            [[model._meta.db_table for model in ours]],
        )
        return {name for (name,) in cursor.fetchall()} - of_django


@pytest.fixture
def service():
    return ServiceFactory(capacity=3)


@pytest.fixture
def neighbour(service):
    """Return another service on the same calendar."""
    return ServiceFactory(calendar=service.calendar)


class TestSeats:
    @pytest.mark.parametrize(
        ("start", "end"),
        [
            (0, 60),
            (-30, 30),
            (30, 90),
            (15, 45),
            (-60, 120),
            (59, 119),
            (-59, 1),
        ],
    )
    def test_overlapping_bookings_of_a_seat_are_refused(self, service, start, end):
        insert(service)
        with refused_by("booking_seat_free"):
            insert(
                service,
                TUESDAY + timedelta(minutes=start),
                TUESDAY + timedelta(minutes=end),
            )

    def test_an_overlap_of_one_microsecond_is_refused(self, service):
        insert(service)
        with refused_by("booking_seat_free"):
            insert(service, TUESDAY + HOUR - timedelta(microseconds=1))

    def test_a_seat_can_be_booked_back_to_back(self, service):
        for hours in (0, 1, -1):
            insert(service, TUESDAY + hours * HOUR)
        assert Booking.objects.count() == 3

    def test_different_seats_can_be_booked_at_the_same_time(self, service):
        for seat in (1, 2, 3):
            insert(service, seat=seat)
        assert Booking.objects.count() == 3

    @pytest.mark.parametrize("status", ACTIVE)
    @pytest.mark.parametrize("other", ACTIVE)
    def test_every_active_state_takes_the_seat(self, service, status, other):
        insert(service, status=status)
        with refused_by("booking_seat_free"):
            insert(service, status=other)

    @pytest.mark.parametrize("status", FREE)
    def test_a_cancelled_or_expired_booking_frees_the_seat(self, service, status):
        insert(service, status=status)
        insert(service, status=status)
        insert(service)

    @pytest.mark.parametrize("status", FREE)
    def test_a_booking_cannot_become_active_again_in_a_taken_seat(self, service, status):
        former = insert(service, status=status)
        insert(service)
        with (
            disabled_trigger("bookings_booking", "booking_transition"),
            refused_by("booking_seat_free"),
        ):
            update(former, status="confirmed")

    def test_a_booking_cannot_be_moved_onto_another_booking(self, service):
        insert(service)
        later = insert(service, TUESDAY + HOUR)
        with refused_by("booking_seat_free"):
            update(
                later,
                start_time=TUESDAY,
                end_time=TUESDAY + HOUR,
                blocked=f"[{TUESDAY},{TUESDAY + HOUR})",
            )

    def test_a_booking_cannot_change_to_a_taken_seat(self, service):
        insert(service)
        second = insert(service, seat=2)
        with refused_by("booking_seat_free"):
            update(second, seat=1)

    def test_buffers_take_the_seat_too(self, service):
        insert(service, blocked=f"[{TUESDAY},{TUESDAY + 1.5 * HOUR})")
        with refused_by("booking_seat_free"):
            insert(service, TUESDAY + HOUR)
        insert(service, TUESDAY + 1.5 * HOUR)

    def test_the_buffers_of_two_bookings_cannot_overlap(self, service):
        insert(service, blocked=f"[{TUESDAY},{TUESDAY + 1.5 * HOUR})")
        start = TUESDAY + 1.5 * HOUR
        with refused_by("booking_seat_free"):
            insert(service, start, blocked=f"[{start - HOUR / 60},{start + HOUR})")

    @pytest.mark.parametrize("seat", [0, -1])
    def test_seat_numbers_start_at_one(self, service, seat):
        with refused_by("booking_seat_positive"):
            insert(service, seat=seat)


class TestCalendars:
    def test_a_calendar_hosts_one_service_at_a_time(self, service, neighbour):
        insert(service)
        with refused_by("booking_calendar_free"):
            insert(neighbour, TUESDAY + HOUR / 2)
        with refused_by("booking_calendar_free"):
            insert(neighbour, TUESDAY - HOUR / 2, seat=2)

    def test_services_of_a_calendar_can_be_booked_back_to_back(self, service, neighbour):
        insert(service)
        insert(neighbour, TUESDAY + HOUR)
        insert(service, TUESDAY + 2 * HOUR)

    def test_different_calendars_can_be_booked_at_the_same_time(self, service):
        insert(service)
        insert(ServiceFactory())

    @pytest.mark.parametrize("status", ACTIVE)
    def test_every_active_state_occupies_the_calendar(self, service, neighbour, status):
        insert(service, status=status)
        with refused_by("booking_calendar_free"):
            insert(neighbour)

    @pytest.mark.parametrize("status", FREE)
    def test_a_cancelled_or_expired_booking_frees_the_calendar(self, service, neighbour, status):
        insert(service, status=status)
        insert(neighbour)

    def test_buffers_occupy_the_calendar_too(self, service, neighbour):
        insert(service, blocked=f"[{TUESDAY - HOUR / 4},{TUESDAY + 1.5 * HOUR})")
        with refused_by("booking_calendar_free"):
            insert(neighbour, TUESDAY + HOUR)
        with refused_by("booking_calendar_free"):
            insert(neighbour, TUESDAY - HOUR)
        insert(neighbour, TUESDAY + 1.5 * HOUR)

    def test_a_booking_must_be_on_the_calendar_of_its_service(self, service, neighbour):
        insert(service)
        with refused_by("booking_service_on_calendar"):
            insert(neighbour, calendar_id=CalendarFactory().pk)

    @pytest.mark.one_server("Citus refuses the change with an error of its own")
    def test_a_booking_cannot_move_to_another_calendar(self, service):
        booking = insert(service)
        with refused_by("booking_service_on_calendar"):
            update(booking, calendar_id=CalendarFactory().pk)

    def test_a_service_with_bookings_cannot_move_to_another_calendar(self, service):
        insert(service, status="cancelled")
        with refused_by("booking_service_on_calendar"):
            run(
                "UPDATE catalog_service SET calendar_id = %s WHERE id = %s",
                [CalendarFactory().pk, service.pk],
            )

    def test_a_service_with_bookings_cannot_be_deleted(self, service):
        insert(service, status="cancelled")
        with refused_by("booking_service_on_calendar"):
            run("DELETE FROM catalog_service WHERE id = %s", [service.pk])

    def test_a_booking_needs_an_existing_service(self, service):
        with refused_by("booking_service_on_calendar"):
            insert(service, service_id=uuid4())


class TestPeriods:
    def test_a_period_cannot_be_empty(self, service):
        with refused_by("booking_period_not_empty"):
            insert(service, TUESDAY, TUESDAY, blocked=f"[{TUESDAY - HOUR},{TUESDAY + HOUR})")

    def test_a_period_cannot_end_before_it_starts(self, service):
        # The end comes before the start, so PostgreSQL cannot build the range that it has to check.
        with pytest.raises(DataError), transaction.atomic():
            insert(service, TUESDAY, TUESDAY - HOUR, blocked=f"[{TUESDAY - HOUR},{TUESDAY + HOUR})")

    @pytest.mark.parametrize(
        "blocked",
        [
            "empty",
            f"[{TUESDAY},{TUESDAY})",
            f"[{TUESDAY},{TUESDAY + HOUR / 2})",
            f"[{TUESDAY + HOUR / 60},{TUESDAY + HOUR})",
            f"({TUESDAY},{TUESDAY + HOUR})",
            f"[{TUESDAY + HOUR},{TUESDAY + 2 * HOUR})",
        ],
    )
    def test_the_blocked_range_must_contain_the_period(self, service, blocked):
        with refused_by("booking_blocked_contains_period"):
            insert(service, blocked=blocked)

    def test_a_booking_cannot_grow_beyond_its_blocked_range(self, service):
        booking = insert(service)
        with refused_by("booking_blocked_contains_period"):
            update(booking, end_time=TUESDAY + 2 * HOUR)


class TestValues:
    @pytest.mark.parametrize("status", ["", "done", "PENDING", " pending"])
    def test_an_unknown_status_is_refused(self, service, status):
        with refused_by("booking_status_known"):
            insert(service, status=status)

    def test_the_active_column_cannot_be_set(self, service):
        booking = insert(service)
        with pytest.raises(DatabaseError, match="active"), transaction.atomic():
            update(booking, active=False)

    def test_a_negative_price_is_refused(self, service):
        with refused_by("booking_price_not_negative"):
            insert(service, price="-0.01")
        insert(service, price=0)

    @pytest.mark.parametrize(
        ("column", "value", "constraint"),
        [
            ("price", "-0.01", "service_price_not_negative"),
            ("duration_minutes", 0, "service_duration_positive"),
            ("capacity", 0, "service_capacity_positive"),
            ("mode", "shut", "service_mode_known"),
            ("currency", "usd", "service_currency_code"),
            ("currency", "US", "service_currency_code"),
        ],
    )
    def test_invalid_values_of_a_service_are_refused(self, service, column, value, constraint):
        with refused_by(constraint):
            run(f"UPDATE catalog_service SET {column} = %s WHERE id = %s", [value, service.pk])

    @pytest.mark.parametrize(
        ("weekday", "opens", "closes", "constraint"),
        [
            (7, 540, 600, "opening_hours_weekday"),
            (0, 600, 600, "opening_hours_span"),
            (0, 600, 540, "opening_hours_span"),
            (0, 540, 1441, "opening_hours_span"),
            (0, 500, 541, "opening_hours_apart"),
        ],
    )
    def test_invalid_opening_hours_are_refused(self, weekday, opens, closes, constraint):
        calendar = CalendarFactory()
        sql = (
            "INSERT INTO catalog_openinghours (id, calendar_id, weekday, opens, closes)"
            " VALUES (%s, %s, %s, %s, %s)"
        )
        run(sql, [uuid4(), calendar.pk, 0, 540, 1440])
        with refused_by(constraint):
            run(sql, [uuid4(), calendar.pk, weekday, opens, closes])
        run(sql, [uuid4(), calendar.pk, 0, 0, 540])


class TestHistory:
    @pytest.fixture
    def event(self, service):
        services.create_booking(
            actor=UserFactory(), service_id=service.pk, start_time=TUESDAY, at=timezone.now()
        )
        return BookingEvent.objects.get()

    @pytest.mark.parametrize(
        "sql",
        [
            "UPDATE bookings_bookingevent SET type = 'booking.confirmed'",
            "UPDATE bookings_bookingevent SET at = at",
            "DELETE FROM bookings_bookingevent",
        ],
    )
    def test_history_cannot_be_rewritten(self, event, sql):
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            run(sql)
        assert list(BookingEvent.objects.values("id", "type", "at")) == [
            {"id": event.pk, "type": event.type, "at": event.at}
        ]

    def test_history_cannot_be_rewritten_through_models(self, event):
        event.type = BookingEvent.Type.DELETED
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            event.save()
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            event.delete()

    def test_history_outlives_its_booking(self, event):
        run("DELETE FROM bookings_booking WHERE id = %s", [event.booking_id])
        assert BookingEvent.objects.filter(booking_id=event.booking_id).exists()


class TestNames:
    """Constraints have explicit names, and violations by concurrent changes are conflicts."""

    def test_every_check_and_exclusion_has_an_explicit_name(self):
        """A new constraint is listed here."""
        assert names_of_checks_and_exclusions() == {
            "booking_blocked_contains_period",
            "booking_calendar_free",
            "booking_hold_expires",
            "booking_language_tag",
            "booking_metadata_fits",
            "booking_period_not_empty",
            "booking_price_not_negative",
            "booking_seat_free",
            "booking_seat_positive",
            "booking_status_known",
            "booking_tally_one_row",
            "calendar_metadata_fits",
            "delivery_names_calendar",
            "delivery_status_known",
            "occupancy_one_at_a_time",
            "opening_hours_apart",
            "opening_hours_span",
            "opening_hours_weekday",
            "profile_picture_https",
            "review_rating_1_to_5",
            "service_capacity_positive",
            "service_currency_code",
            "service_duration_positive",
            "service_metadata_fits",
            "service_mode_known",
            "service_price_not_negative",
            "slot_blocked_contains_period",
            "slot_capacity_positive",
            "slot_period_not_empty",
            "slot_status_known",
            "slots_apart",
            "time_off_not_empty",
            "user_deleted_cannot_sign_in",
            "user_email_ascii",
            "user_email_lower_case",
            "user_metadata_fits",
            "user_role_known",
            "waitlist_status_known",
        }

    @pytest.mark.one_server("alters a table in a way that Citus refuses")
    def test_a_constraint_without_a_name_is_found(self):
        """Control: PostgreSQL names checks as Django does, and adds a number if a name is taken."""
        before = names_of_checks_and_exclusions()
        run("ALTER TABLE bookings_booking ADD CHECK (seat < 1000), ADD CHECK (notes <> 'x')")
        assert names_of_checks_and_exclusions() - before == {
            "bookings_booking_notes_check",
            "bookings_booking_seat_check1",
        }

    @pytest.mark.parametrize(
        ("constraint", "code"),
        [
            ("booking_seat_free", "booking_conflict"),
            ("booking_calendar_free", "booking_conflict"),
            ("booking_service_on_calendar", "service_inactive"),
            ("booking_beside_slots", "booking_conflict"),
            ("booking_in_slot", "service_inactive"),
            ("booking_transition", "invalid_transition"),
            ("slot_beside_bookings", "slot_conflict"),
            ("slots_apart", "slot_conflict"),
            ("slot_service_on_calendar", "service_inactive"),
        ],
    )
    def test_violations_by_concurrent_changes_are_conflicts(self, constraint, code):
        error = CONSTRAINT_ERRORS[constraint]
        assert (error.code, status_of(error)) == (code, 409)

    def test_a_conflict_from_the_database_shows_nothing_of_the_other_booking(self, api, service):
        # A trigger moves the booking into the taken seat, as if the booking had lost a race.
        taken = BookingFactory(service=service)
        run(
            "CREATE FUNCTION force_seat_one() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN NEW.seat := 1; RETURN NEW; END $$"
        )
        run(
            "CREATE TRIGGER force_seat_one BEFORE UPDATE OF status ON bookings_booking"
            " FOR EACH ROW EXECUTE FUNCTION force_seat_one()"
        )
        booking = BookingFactory(service=service, seat=2)
        response = api.as_(AdminFactory()).patch(f"/bookings/{booking.pk}", {"status": "confirmed"})
        problem(response, 409, "booking_conflict")
        assert str(taken.pk).encode() not in response.content
        assert b"2999-01-01" not in response.content

    @pytest.mark.django_db(transaction=True)
    def test_booking_a_service_that_is_being_deleted_is_a_conflict(self, api, service):
        # A trigger deletes the service just before the booking is inserted.
        run(
            "CREATE FUNCTION delete_service() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN DELETE FROM catalog_service; RETURN NEW; END $$"
        )
        run(
            "CREATE TRIGGER delete_service BEFORE INSERT ON bookings_booking"
            " FOR EACH ROW EXECUTE FUNCTION delete_service()"
        )
        try:
            body = {"service_id": str(service.pk), "start_time": TUESDAY.isoformat()}
            problem(api.as_(UserFactory()).post("/bookings", body), 409, "service_inactive")
        finally:
            run("DROP FUNCTION delete_service CASCADE")
        assert not Booking.objects.exists()
        assert not BookingEvent.objects.exists()

    def test_changing_the_calendar_of_a_booked_service_is_a_conflict(self, api, service):
        BookingFactory(service=service)
        response = api.as_(AdminFactory()).patch(
            f"/services/{service.pk}", {"calendar_id": str(CalendarFactory().pk)}
        )
        problem(response, 409, "service_in_use")


@pytest.mark.one_server("reads the statistics of one server")
def test_the_change_from_pending_to_confirmed_updates_no_index(service):
    """PostgreSQL makes a HOT update: it stores a new version of the row and updates no index.

    Cancelling also changes `active`, on which indexes depend, so it is not a HOT update.
    """
    booking = BookingFactory(service=service)
    before = ask("SELECT ctid::text FROM bookings_booking WHERE id = %s", [booking.pk])
    update(booking.pk, status="confirmed")
    assert ask("SELECT ctid::text FROM bookings_booking WHERE id = %s", [booking.pk]) != before
    assert ask("SELECT pg_stat_get_xact_tuples_hot_updated('bookings_booking'::regclass)") == 1
    update(booking.pk, status="cancelled")
    assert ask("SELECT pg_stat_get_xact_tuples_hot_updated('bookings_booking'::regclass)") == 1


def test_a_service_without_bookings_can_move_to_another_calendar():
    service, calendar = ServiceFactory(), CalendarFactory()
    update_service(
        service_id=service.pk, actor=AdminFactory(), changes={"calendar_id": calendar.pk}
    )
    assert Service.objects.get().calendar_id == calendar.pk
