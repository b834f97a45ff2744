"""The endpoints for slots: slots are published, found, changed, cancelled and deleted."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings.models import Booking, BookingEvent, Slot
from bookings.tests.factories import BookingFactory, SlotFactory
from bookit.tests.expect import problem
from catalog.models import OpeningHours, Service, TimeOff
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LISBON = ZoneInfo("Europe/Lisbon")
# A slot must start in the next ten years, so `bookings.tests.factories.TUESDAY` is too late.
SOON = (timezone.now() + 30 * DAY).replace(hour=10, minute=0, second=0, microsecond=0)


@pytest.fixture
def provider():
    return ProviderFactory()


@pytest.fixture
def client(api, provider):
    """An API client of the provider."""
    return api.as_(provider)


@pytest.fixture
def at(api, provider):
    """Return a function that travels to another time and yields a client of the provider."""

    @contextmanager
    def travel(moment):
        with time_machine.travel(moment, tick=False):
            yield api.as_(provider)

    return travel


@pytest.fixture
def service(provider):
    """A service of one hour with three seats, on a calendar in Lisbon."""
    calendar = CalendarFactory(provider=provider, timezone="Europe/Lisbon")
    return ServiceFactory(calendar=calendar, capacity=3)


def book(slot, seat=1, **fields):
    """Store a booking in a slot."""
    return BookingFactory(
        slot=slot,
        service=slot.service,
        calendar=slot.calendar,
        start_time=slot.start_time,
        end_time=slot.end_time,
        blocked=slot.blocked,
        seat=seat,
        **fields,
    )


def hold(slot, seat=1, *, left):
    """Store a hold in a slot. The hold expires `left` from now."""
    ends = timezone.now() + left
    return book(slot, seat, status=Booking.Status.HELD, hold_expires_at=ends)


def publish(client, service, start_time=SOON, **fields):
    content = {"service_id": str(service.pk), "start_time": start_time.isoformat(), **fields}
    return client.post("/slots", content)


def found(api, **parameters):
    """Return the ids of the slots that a search finds."""
    response = api.get("/slots", parameters)
    assert response.status_code == 200, response.content
    return [row["id"] for row in response.json()["results"]]


def ids(*slots):
    return [str(slot.pk) for slot in slots]


class TestPublishing:
    def test_a_slot_is_published(self, client, service):
        response = publish(client, service)
        assert response.status_code == 201
        slot = response.json()
        assert response["Location"] == f"http://testserver/slots/{slot['id']}"
        assert client.get(response["Location"]).json() == slot
        assert datetime.fromisoformat(slot.pop("created_at")) <= timezone.now()
        assert datetime.fromisoformat(slot.pop("updated_at")) <= timezone.now()
        assert slot == {
            "id": str(Slot.objects.get().pk),
            "service_id": str(service.pk),
            "calendar_id": str(service.calendar_id),
            "start_time": f"{SOON:%Y-%m-%dT%H:%M:%SZ}",
            "end_time": f"{SOON + HOUR:%Y-%m-%dT%H:%M:%SZ}",
            "capacity": 3,
            "seats_left": 3,
            "status": "scheduled",
        }

    def test_a_slot_can_have_more_or_fewer_seats_than_its_service(self, client, service):
        for number, capacity in enumerate([1, 1000]):
            slot = publish(client, service, SOON + number * DAY, capacity=capacity).json()
            assert (slot["capacity"], slot["seats_left"]) == (capacity, capacity)

    @pytest.mark.parametrize("capacity", [0, -1, 1001, "many", None])
    def test_a_slot_has_from_one_to_a_thousand_seats(self, client, service, capacity):
        response = publish(client, service, capacity=capacity)
        problem(response, 400, "validation_error", "capacity")

    def test_a_slot_also_blocks_the_buffers_of_its_service(self, client, service):
        Service.objects.update(buffer_before_minutes=10, buffer_after_minutes=20)
        publish(client, service)
        blocked = Slot.objects.get().blocked
        assert (SOON - blocked.lower, blocked.upper - SOON) == (HOUR / 6, HOUR * 4 / 3)

    @pytest.mark.parametrize("mode", ["open", "slots"])
    def test_a_slot_is_published_in_either_mode_regardless_of_opening_hours_and_time_off(
        self, client, service, mode
    ):
        Service.objects.update(mode=mode)
        OpeningHours.objects.create(
            calendar=service.calendar, weekday=(SOON.weekday() + 1) % 7, opens=540, closes=600
        )
        TimeOff.objects.create(
            calendar=service.calendar, start_time=SOON - HOUR, end_time=SOON + HOUR
        )
        assert publish(client, service).status_code == 201

    def test_a_slot_can_start_now_but_not_in_the_past(self, at, service):
        with at(SOON) as client:
            problem(
                publish(client, service, SOON - timedelta(seconds=1)),
                *(400, "validation_error", "start_time"),
            )
            assert publish(client, service, SOON).status_code == 201

    def test_a_slot_must_start_in_the_next_3660_days(self, at, service):
        with at(SOON) as client:
            problem(
                publish(client, service, SOON + 3661 * DAY),
                *(400, "validation_error", "start_time"),
            )
            assert publish(client, service, SOON + 3660 * DAY).status_code == 201

    def test_a_slot_needs_an_existing_service(self, client, service):
        service.delete()
        problem(publish(client, service), 400, "validation_error", "service_id")

    def test_a_slot_of_an_inactive_service_is_refused(self, client, service):
        Service.objects.update(is_active=False)
        problem(publish(client, service), 409, "service_inactive")

    def test_admins_publish_on_all_calendars_and_providers_only_on_their_own(self, api, service):
        problem(publish(api.as_(ProviderFactory()), service), 403, "permission_denied")
        assert publish(api.as_(AdminFactory()), service).status_code == 201

    def test_a_slot_can_be_read_and_published_again_as_a_new_slot(self, client, service):
        first = publish(client, service).json()
        client.patch(f"/slots/{first['id']}", {"status": "cancelled"})
        copied = client.get(f"/slots/{first['id']}").json()
        response = client.post("/slots", copied)
        assert response.status_code == 201
        assert response.json()["id"] != first["id"]
        assert response.json()["status"] == "scheduled"


class TestSeries:
    def test_the_response_to_a_series_is_the_list_at_its_location(self, client, service):
        publish(client, service, SOON - DAY)
        response = publish(client, service, rrule="FREQ=DAILY;COUNT=3", capacity=5)
        assert response.status_code == 201
        content = response.json()
        assert list(content) == ["count", "next", "previous", "results"]
        assert (content["count"], content["next"], content["previous"]) == (3, None, None)
        assert {(slot["capacity"], slot["seats_left"]) for slot in content["results"]} == {(5, 5)}
        starts = [datetime.fromisoformat(slot["start_time"]) for slot in content["results"]]
        assert starts == sorted(starts)
        assert client.get(response["Location"]).json() == content

    def test_the_location_of_a_series_is_a_search_for_its_slots(self, client, service):
        response = publish(client, service, rrule="FREQ=DAILY;COUNT=2")
        parts = urlsplit(response["Location"])
        assert (parts.scheme, parts.netloc, parts.path) == ("http", "testserver", "/slots")
        assert parse_qs(parts.query, strict_parsing=True) == {
            "service_id": [str(service.pk)],
            "from": [f"{SOON:%Y-%m-%dT%H:%M:%SZ}"],
            "to": [f"{Slot.objects.last().end_time:%Y-%m-%dT%H:%M:%SZ}"],
        }
        assert ":" not in parts.query  # The times are percent-encoded.

    def test_a_series_of_one_slot_is_a_list(self, client, service):
        assert publish(client, service, rrule="FREQ=DAILY;COUNT=1").json()["count"] == 1

    def test_a_series_keeps_the_wall_clock_time_of_its_calendar(self, at, service):
        with at(datetime(2026, 10, 1, tzinfo=UTC)) as client:
            response = publish(
                client,
                service,
                datetime(2026, 10, 18, 18, tzinfo=LISBON),
                rrule="FREQ=WEEKLY;UNTIL=20261101",
            )
        assert [slot["start_time"] for slot in response.json()["results"]] == [
            "2026-10-18T17:00:00Z",
            "2026-10-25T18:00:00Z",
            "2026-11-01T18:00:00Z",
        ]

    def test_a_series_has_at_most_366_slots(self, client, service):
        response = publish(client, service, rrule="FREQ=DAILY;COUNT=366")
        assert response.json()["count"] == len(response.json()["results"]) == 366
        Slot.objects.all().delete()
        content = problem(
            publish(client, service, rrule="FREQ=DAILY;COUNT=367"),
            *(400, "validation_error", "rrule"),
        )
        assert "366" in content["errors"][0]["message"]

    @pytest.mark.parametrize(
        "rrule",
        [
            "FREQ=DAILY",
            "FREQ=HOURLY;COUNT=2",
            "FREQ=YEARLY;COUNT=30",
            "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30;COUNT=2",
            "FREQ=DAILY;UNTIL=20000101",
            "nonsense",
            "",
            None,
            3,
            "FREQ=DAILY;COUNT=2;BYDAY=" + "MO," * 200,
            "x" * 500_000,
        ],
    )
    def test_a_rule_that_gives_no_series_is_refused(self, client, service, rrule):
        problem(publish(client, service, rrule=rrule), 400, "validation_error", "rrule")
        assert not Slot.objects.exists()

    def test_a_start_that_does_not_match_the_rule_is_explained(self, client, service):
        other = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"][(SOON.weekday() + 1) % 7]
        content = problem(
            publish(client, service, rrule=f"FREQ=WEEKLY;COUNT=2;BYDAY={other}"),
            *(400, "validation_error", "rrule"),
        )
        assert "start_time" in content["errors"][0]["message"]

    def test_a_long_series_takes_the_same_number_of_queries_as_one_slot(self, client, service):
        counts = []
        for number, rrule in enumerate(["FREQ=DAILY;COUNT=1", "FREQ=DAILY;COUNT=366"]):
            with CaptureQueriesContext(connection) as captured:
                publish(client, service, SOON + number * 2 * HOUR, rrule=rrule)
            counts.append(len(captured))
        # Read the account, the owner of the service, and the service. Lock the calendar, close
        # holds, check for clashes, and insert. Read the slots. Begin and release two savepoints.
        assert counts == [12, 12]


class TestConflicts:
    def refusal(self, response):
        return problem(response, 409, "slot_conflict")["detail"]

    def test_a_refusal_names_the_first_start_that_clashes_and_no_slot_is_created(self, at, service):
        with at(datetime(2026, 10, 1, tzinfo=UTC)) as client:
            start = datetime(2026, 10, 20, 18, tzinfo=LISBON)
            for days in (7, 14):
                publish(client, service, start + days * DAY)
            response = publish(client, service, start, rrule="FREQ=WEEKLY;COUNT=4")
        assert self.refusal(response) == (
            "The slot at 2026-10-27T18:00:00+00:00 overlaps another slot or booking of the"
            " calendar. No slot was created."
        )
        assert Slot.objects.count() == 2

    def test_the_start_is_named_in_the_zone_of_the_calendar(self, at, service):
        with at(datetime(2026, 10, 1, tzinfo=UTC)) as client:
            start = datetime(2026, 10, 20, 18, tzinfo=LISBON)
            publish(client, service, start)
            response = publish(client, service, start.astimezone(UTC))
        assert self.refusal(response).startswith("The slot at 2026-10-20T18:00:00+01:00 overlaps")

    @pytest.mark.parametrize("minutes", [-59, 0, 59])
    def test_a_slot_cannot_overlap_a_slot_of_any_service_of_its_calendar(
        self, client, service, minutes
    ):
        other = ServiceFactory(calendar=service.calendar)
        publish(client, service)
        self.refusal(publish(client, other, SOON + timedelta(minutes=minutes)))
        self.refusal(publish(client, service, SOON + timedelta(minutes=minutes)))

    def test_back_to_back_slots_are_accepted(self, client, service):
        for hours in (0, 1, -1):
            assert publish(client, service, SOON + hours * HOUR).status_code == 201

    def test_a_slot_cannot_overlap_the_buffer_of_another_slot(self, client, service):
        Service.objects.update(buffer_after_minutes=15)
        publish(client, service)
        self.refusal(publish(client, service, SOON + HOUR))
        assert publish(client, service, SOON + HOUR * 1.25).status_code == 201

    def test_slots_of_different_calendars_can_overlap(self, api, client, service):
        publish(client, service)
        response = publish(api.as_(AdminFactory()), ServiceFactory(capacity=2))
        assert response.status_code == 201

    def test_a_series_whose_slots_overlap_each_other_is_refused(self, at, service):
        Service.objects.update(duration_minutes=25 * 60)
        with at(datetime(2026, 10, 1, tzinfo=UTC)) as client:
            start = datetime(2026, 10, 20, 18, tzinfo=LISBON)
            response = publish(client, service, start, rrule="FREQ=DAILY;COUNT=3")
        assert self.refusal(response) == (
            "The slot at 2026-10-21T18:00:00+01:00 overlaps the previous slot of the series. "
            "No slot was created."
        )
        assert not Slot.objects.exists()

    def test_a_refusal_names_the_first_clash_even_if_the_series_also_overlaps_itself(
        self, client, service
    ):
        Service.objects.update(duration_minutes=25 * 60)
        publish(client, service)
        assert "another slot or booking" in self.refusal(
            publish(client, service, rrule="FREQ=DAILY;COUNT=3")
        )

    @pytest.mark.parametrize("status", ["pending", "confirmed", "completed", "no_show"])
    def test_a_slot_cannot_overlap_a_booking_without_a_slot(self, client, service, status):
        BookingFactory(service=service, start_time=SOON, status=status)
        self.refusal(publish(client, service, SOON + HOUR / 2))
        self.refusal(publish(client, ServiceFactory(calendar=service.calendar), SOON - HOUR / 2))
        assert publish(client, service, SOON + HOUR).status_code == 201

    @pytest.mark.parametrize("status", ["cancelled", "expired"])
    def test_an_inactive_booking_does_not_block_a_slot(self, client, service, status):
        BookingFactory(service=service, start_time=SOON, status=status)
        assert publish(client, service).status_code == 201

    def test_a_cancelled_slot_does_not_block_a_slot(self, client, service):
        SlotFactory(service=service, start_time=SOON, status="cancelled")
        assert publish(client, service).status_code == 201

    def test_a_live_hold_blocks_a_slot_and_an_expired_hold_does_not(self, client, service):
        held = BookingFactory(
            service=service,
            start_time=SOON,
            status="held",
            hold_expires_at=timezone.now() + HOUR,
        )
        self.refusal(publish(client, service))
        Booking.objects.update(hold_expires_at=timezone.now() - HOUR)
        assert publish(client, service).status_code == 201
        held.refresh_from_db()
        assert (held.status, held.hold_expires_at) == ("expired", None)
        assert BookingEvent.objects.get().type == "booking.expired"


class TestFinding:
    @pytest.fixture
    def slot(self, service):
        return SlotFactory(service=service, start_time=SOON)

    def test_anybody_can_read_slots(self, api, slot):
        row = api.get(f"/slots/{slot.pk}").json()
        assert (row["id"], row["seats_left"]) == (str(slot.pk), 3)
        assert api.get("/slots").json() == {
            "count": 1,
            "next": None,
            "previous": None,
            "results": [row],
        }

    def test_an_unknown_slot_is_not_found(self, api, slot):
        problem(api.get(f"/slots/{slot.service_id}"), 404, "not_found")

    def test_slots_are_ordered_by_start_by_default(self, api, service):
        later, sooner = (SlotFactory(service=service, start_time=SOON + n * HOUR) for n in (2, 1))
        assert found(api) == ids(sooner, later)
        assert found(api, ordering="-start_time") == ids(later, sooner)
        assert found(api, ordering="created_at") == ids(later, sooner)
        problem(api.get("/slots?ordering=capacity"), 400, "validation_error", "ordering")

    def test_slots_are_found_by_service_calendar_and_provider(self, api, provider, slot):
        other = SlotFactory(start_time=SOON)
        assert found(api, service_id=slot.service_id) == ids(slot)
        assert found(api, calendar_id=other.calendar_id) == ids(other)
        assert found(api, provider_id=provider.pk) == ids(slot)
        assert found(api, provider_id=UserFactory().pk) == []

    def test_slots_are_found_by_status(self, api, service, slot):
        cancelled = SlotFactory(service=service, start_time=SOON, status="cancelled")
        assert found(api, status="cancelled") == ids(cancelled)
        assert found(api, status="scheduled") == ids(slot)
        problem(api.get("/slots?status=held"), 400, "validation_error", "status")

    def test_slots_are_found_by_the_day_of_their_start_in_the_requests_zone(self, api, service):
        midnight = SOON.replace(hour=0)
        before, after = (
            SlotFactory(service=service, start_time=midnight + n * HOUR) for n in (-0.5, 0.5)
        )
        day = f"{midnight:%Y-%m-%d}"
        assert found(api, date=day) == ids(after)
        # The day begins nine hours earlier in Tokyo than in UTC, and ten hours later in Honolulu.
        assert found(api, date=day, tz="Asia/Tokyo") == ids(before, after)
        assert found(api, date=day, tz="Pacific/Honolulu") == []

    @pytest.mark.parametrize(
        "day", ["today", "2026-12-01T10:00:00Z", "2026-13-01", "2026-1-1", "\uff12026-01-01", "5"]
    )
    def test_the_date_parameter_must_be_a_date(self, api, day):
        response = api.get("/slots", {"date": day})
        problem(response, 400, "validation_error", "date")
        if day != "2026-13-01":  # The message for this text says that the date does not exist.
            [error] = response.json()["errors"]
            assert error["message"] == "Must be a date, for example 2026-12-01."

    def test_slots_are_found_by_a_period_that_they_overlap(self, api, slot):
        def meets(begin, end):
            return found(api, **{"from": begin.isoformat(), "to": end.isoformat()}) == ids(slot)

        assert meets(SOON + HOUR / 2, SOON + DAY)
        assert meets(SOON - DAY, SOON + HOUR / 2)
        assert not meets(SOON + HOUR, SOON + DAY)
        assert not meets(SOON - DAY, SOON)
        day = f"{SOON:%Y-%m-%d}"
        assert found(api, **{"from": day, "to": day}) == ids(slot)

    def test_seats_left_does_not_include_taken_seats(self, api, service, slot):
        book(slot, 1, status="confirmed")
        book(slot, 2, status="cancelled")
        assert api.get(f"/slots/{slot.pk}").json()["seats_left"] == 2
        hold(slot, 2, left=HOUR)
        hold(slot, 3, left=-HOUR)
        assert api.get(f"/slots/{slot.pk}").json()["seats_left"] == 1
        # The number is not negative if more seats are taken than the slot has.
        book(slot, 4)
        book(slot, 5)
        assert api.get("/slots").json()["results"][0]["seats_left"] == 0

    def test_a_cancelled_slot_has_no_seats_left(self, api, service):
        SlotFactory(service=service, start_time=SOON, status="cancelled")
        assert api.get("/slots").json()["results"][0]["seats_left"] == 0


def add_time_off_at_the_end(slot):
    TimeOff.objects.create(
        calendar=slot.calendar, start_time=slot.end_time - HOUR / 60, end_time=slot.end_time + DAY
    )


def add_time_off_before(slot):
    TimeOff.objects.create(
        calendar=slot.calendar, start_time=slot.start_time - DAY, end_time=slot.start_time
    )


def change_service(**fields):
    return lambda slot: Service.objects.filter(pk=slot.service_id).update(**fields)


def fill(slot):
    for seat in range(slot.capacity):
        book(slot, seat + 1)


AVAILABLE = {
    "unchanged": lambda slot: None,
    "with a seat left": lambda slot: (book(slot), book(slot, 2)),
    "directly after time off": add_time_off_before,
    "full, with a hold that has expired": lambda slot: (
        book(slot),
        book(slot, 2),
        hold(slot, 3, left=-HOUR),
    ),
    "within notice and horizon": change_service(
        min_notice_minutes=29 * 24 * 60, max_advance_days=31
    ),
}
NOT_AVAILABLE = {
    "full": fill,
    "partly in time off": add_time_off_at_the_end,
    "of an inactive service": change_service(is_active=False),
    "cancelled": lambda slot: Slot.objects.filter(pk=slot.pk).update(status="cancelled"),
    "sooner than the notice": change_service(min_notice_minutes=31 * 24 * 60),
    "beyond the horizon": change_service(max_advance_days=28),
    "full because of a hold": lambda slot: (book(slot), book(slot, 2), hold(slot, 3, left=HOUR)),
}


class TestAvailable:
    @pytest.mark.parametrize("state", AVAILABLE)
    def test_a_slot_that_can_be_booked_is_available(self, api, service, state):
        slot = SlotFactory(service=service, start_time=SOON)
        AVAILABLE[state](slot)
        assert found(api, available="true") == ids(slot)
        assert found(api, available="false") == []

    @pytest.mark.parametrize("state", NOT_AVAILABLE)
    def test_a_slot_that_cannot_be_booked_is_not_available(self, api, service, state):
        slot = SlotFactory(service=service, start_time=SOON)
        NOT_AVAILABLE[state](slot)
        assert found(api, available="true") == []
        assert found(api, available="false") == ids(slot)

    def test_a_slot_that_has_started_is_not_available(self, api, service):
        past = SlotFactory(service=service, start_time=timezone.now() - HOUR / 60)
        coming = SlotFactory(service=service, start_time=timezone.now() + HOUR)
        assert found(api, available="true") == ids(coming)
        assert found(api, available="false") == ids(past)

    def test_available_must_be_true_or_false(self, api):
        problem(api.get("/slots?available=maybe"), 400, "validation_error", "available")


class TestCapacity:
    @pytest.fixture
    def slot(self, service):
        return SlotFactory(service=service, start_time=SOON)

    def test_the_capacity_is_raised_and_lowered(self, client, slot):
        for capacity in (5, 1, 1000):
            response = client.patch(f"/slots/{slot.pk}", {"capacity": capacity})
            assert response.status_code == 200
            assert response.json()["capacity"] == response.json()["seats_left"] == capacity

    def test_the_capacity_cannot_be_below_the_number_of_taken_seats(self, client, slot):
        book(slot, 1)
        book(slot, 3)
        content = problem(client.patch(f"/slots/{slot.pk}", {"capacity": 1}), 409, "slot_conflict")
        assert content["detail"] == "2 seats are taken. The capacity cannot be lower than that."
        # Seat 3 stays taken, because only the number of taken seats matters.
        assert client.patch(f"/slots/{slot.pk}", {"capacity": 2}).json()["seats_left"] == 0

    def test_cancelled_bookings_and_expired_holds_do_not_count_as_taken_seats(self, client, slot):
        book(slot, 1)
        book(slot, 2, status="cancelled")
        hold(slot, 3, left=-HOUR)
        response = client.patch(f"/slots/{slot.pk}", {"capacity": 1})
        assert response.json()["seats_left"] == 0

    def test_a_live_hold_counts_as_a_taken_seat(self, client, slot):
        book(slot, 1)
        hold(slot, 2, left=HOUR)
        problem(client.patch(f"/slots/{slot.pk}", {"capacity": 1}), 409, "slot_conflict")

    @pytest.mark.parametrize("capacity", [0, -1, 1001, None, "x"])
    def test_the_capacity_must_be_from_one_to_a_thousand(self, client, slot, capacity):
        response = client.patch(f"/slots/{slot.pk}", {"capacity": capacity})
        problem(response, 400, "validation_error", "capacity")

    def test_a_slot_can_be_sent_back_as_it_was_read_and_its_start_is_ignored(self, client, slot):
        book(slot, 1)
        row = client.get(f"/slots/{slot.pk}").json()
        assert client.patch(f"/slots/{slot.pk}", row).json() == row
        assert client.patch(f"/slots/{slot.pk}", {}).json() == row
        moved = {**row, "start_time": f"{SOON + DAY:%Y-%m-%dT%H:%M:%SZ}", "capacity": 7}
        changed = client.patch(f"/slots/{slot.pk}", moved).json()
        assert changed["updated_at"] > row["updated_at"]
        assert changed == {
            **row,
            "capacity": 7,
            "seats_left": 6,
            "updated_at": changed["updated_at"],
        }


class TestCancelling:
    @pytest.fixture
    def slot(self, service):
        return SlotFactory(service=service, start_time=SOON, capacity=100)

    def cancel(self, client, slot, **fields):
        return client.patch(f"/slots/{slot.pk}", {"status": "cancelled", **fields})

    def test_a_slot_is_cancelled_with_its_bookings(self, client, provider, slot):
        book(slot, 1)
        book(slot, 2, status="confirmed")
        hold(slot, 3, left=HOUR)
        book(slot, 4, status="cancelled")
        response = self.cancel(client, slot)
        assert response.status_code == 200
        assert (response.json()["status"], response.json()["seats_left"]) == ("cancelled", 0)
        assert {(each.status, each.hold_expires_at) for each in Booking.objects.all()} == {
            ("cancelled", None)
        }
        events = {event.data["was"]["status"]: event for event in BookingEvent.objects.all()}
        assert events.keys() == {"pending", "confirmed", "held"}
        assert BookingEvent.objects.count() == 3
        pending = events["pending"]
        assert (pending.type, pending.actor) == ("booking.cancelled", provider)
        assert pending.data == {
            "status": "cancelled",
            "start_time": slot.start_time.isoformat(),
            "end_time": slot.end_time.isoformat(),
            "seat": 1,
            "slot_id": str(slot.pk),
            "hold_expires_at": None,
            "was": {"status": "pending"},
            "reason": "The slot was cancelled.",
        }
        booking = Booking.objects.get(seat=1)
        assert booking.updated_at == pending.at

    def test_a_booking_cancelled_with_its_slot_has_an_event_like_other_cancelled_bookings(
        self, client, provider, slot
    ):
        here = book(slot)
        there = book(SlotFactory(service__calendar=CalendarFactory(provider=provider)))
        self.cancel(client, slot)
        client.patch(f"/bookings/{there.pk}/status", {"status": "cancelled", "reason": "Ill"})
        first, second = here.events.get(), there.events.get()
        assert first.type == second.type
        assert {name: type(value) for name, value in first.data.items()} == {
            name: type(value) for name, value in second.data.items()
        }

    def test_cancelling_a_slot_expires_a_hold_whose_time_is_over(self, client, slot):
        booking = hold(slot, left=-HOUR)
        self.cancel(client, slot)
        booking.refresh_from_db()
        assert booking.status == "expired"
        assert BookingEvent.objects.get().type == "booking.expired"

    def test_the_time_of_a_cancelled_slot_is_free(self, client, service, slot):
        problem(publish(client, service), 409, "slot_conflict")
        self.cancel(client, slot)
        assert publish(client, service).status_code == 201

    def test_cancelling_a_slot_does_not_affect_other_slots_and_their_bookings(
        self, client, service, slot
    ):
        later = SlotFactory(service=service, start_time=SOON + HOUR)
        booking = book(later)
        self.cancel(client, slot)
        booking.refresh_from_db()
        assert booking.status == "pending"
        assert found(client, status="scheduled") == ids(later)

    def test_cancelling_a_slot_twice_changes_nothing(self, client, slot):
        book(slot)
        first = self.cancel(client, slot)
        second = self.cancel(client, slot)
        assert second.status_code == 200
        assert second.json() == first.json()
        assert BookingEvent.objects.count() == 1

    def test_a_cancelled_slot_cannot_be_scheduled_again(self, client, slot):
        self.cancel(client, slot)
        response = client.patch(f"/slots/{slot.pk}", {"status": "scheduled"})
        assert "Publish a new slot" in problem(response, 409, "invalid_transition")["detail"]

    @pytest.mark.parametrize("status", ["completed", "no_show"])
    def test_a_slot_with_completed_or_no_show_bookings_cannot_be_cancelled(
        self, client, slot, status
    ):
        book(slot, 1)
        book(slot, 2, status=status)
        problem(self.cancel(client, slot), 409, "invalid_transition")
        assert sorted(Booking.objects.values_list("status", flat=True)) == sorted(
            ["pending", status]
        )
        assert not BookingEvent.objects.exists()
        assert client.get(f"/slots/{slot.pk}").json()["status"] == "scheduled"

    def test_a_slot_can_be_cancelled_until_it_ends(self, at, slot):
        with at(slot.end_time) as client:
            problem(self.cancel(client, slot), 409, "invalid_transition")
        with at(slot.end_time - timedelta(seconds=1)) as client:
            assert self.cancel(client, slot).status_code == 200

    def test_a_refused_cancellation_does_not_change_the_capacity(self, client, slot):
        book(slot, 1, status="completed")
        problem(self.cancel(client, slot, capacity=5), 409, "invalid_transition")
        assert client.get(f"/slots/{slot.pk}").json()["capacity"] == 100

    def test_capacity_and_status_change_together(self, client, slot):
        row = self.cancel(client, slot, capacity=5).json()
        assert (row["capacity"], row["status"]) == (5, "cancelled")

    def test_an_invalid_status_is_refused(self, client, slot):
        for status in ("full", "", None, "SCHEDULED"):
            response = client.patch(f"/slots/{slot.pk}", {"status": status})
            problem(response, 400, "validation_error", "status")

    @pytest.mark.one_server("counts statements, and a cluster needs more of them")
    def test_cancelling_a_slot_takes_the_same_number_of_queries_for_any_number_of_bookings(
        self, client, service
    ):
        counts = []
        for number, bookings in enumerate((1, 60)):
            slot = SlotFactory(service=service, start_time=SOON + number * DAY, capacity=100)
            for seat in range(bookings):
                book(slot, seat + 1)
            with CaptureQueriesContext(connection) as captured:
                assert self.cancel(client, slot).status_code == 200
            counts.append(len(captured))
        # Read the account and the owner of the slot. Look up the calendar, and lock it and the
        # slot. Close holds, cancel the bookings, check that none is active, cancel the slot, and
        # end its waitlist. Read the slot. Begin and release a savepoint.
        assert counts == [13, 13]


class TestDeleting:
    @pytest.fixture
    def slot(self, service):
        return SlotFactory(service=service, start_time=SOON)

    def test_a_slot_is_deleted_and_its_time_is_free(self, client, service, slot):
        response = client.delete(f"/slots/{slot.pk}")
        assert (response.status_code, response.content) == (204, b"")
        problem(client.get(f"/slots/{slot.pk}"), 404, "not_found")
        assert publish(client, service).status_code == 201

    @pytest.mark.parametrize("status", [*Booking.Status.values])
    def test_a_slot_with_bookings_of_any_status_cannot_be_deleted(self, client, slot, status):
        ends = timezone.now() - HOUR if status == "held" else None
        book(slot, status=status, hold_expires_at=ends)
        content = problem(client.delete(f"/slots/{slot.pk}"), 409, "slot_conflict")
        assert "Cancel it instead of deleting it" in content["detail"]
        assert Slot.objects.exists()

    def test_an_unknown_slot_cannot_be_changed_or_deleted(self, client, slot):
        path = f"/slots/{slot.service_id}"
        problem(client.delete(path), 404, "not_found")
        problem(client.patch(path, {"capacity": 2}), 404, "not_found")

    def test_another_provider_cannot_change_or_delete_a_slot(self, api, slot):
        other = api.as_(ProviderFactory())
        problem(other.delete(f"/slots/{slot.pk}"), 403, "permission_denied")
        problem(other.patch(f"/slots/{slot.pk}", {"capacity": 9}), 403, "permission_denied")
        slot.refresh_from_db()
        assert slot.capacity == 3


class TestServicesWithSlots:
    """A service with slots cannot be deleted or moved. Other changes do not affect its slots."""

    @pytest.fixture(params=["scheduled", "cancelled"])
    def slot(self, request, service):
        return SlotFactory(service=service, start_time=SOON, status=request.param)

    def test_a_service_with_slots_cannot_be_deleted(self, client, slot):
        content = problem(client.delete(f"/services/{slot.service_id}"), 409, "service_in_use")
        assert "slots" in content["detail"]

    def test_a_calendar_with_slots_cannot_be_deleted(self, client, slot):
        problem(client.delete(f"/calendars/{slot.calendar_id}"), 409, "service_in_use")

    def test_a_service_with_slots_cannot_move_to_another_calendar(self, client, provider, slot):
        other = CalendarFactory(provider=provider)
        response = client.patch(f"/services/{slot.service_id}", {"calendar_id": str(other.pk)})
        assert "slots" in problem(response, 409, "service_in_use")["detail"]

    def test_a_service_whose_slots_are_deleted_can_be_moved_and_deleted(
        self, client, provider, slot
    ):
        other = CalendarFactory(provider=provider)
        client.delete(f"/slots/{slot.pk}")
        path = f"/services/{slot.service_id}"
        assert client.patch(path, {"calendar_id": str(other.pk)}).status_code == 200
        assert client.delete(path).status_code == 204

    def test_a_change_of_a_service_does_not_change_its_slots(self, client, service, slot):
        before = client.get(f"/slots/{slot.pk}").json()
        changes = {"duration_minutes": 15, "capacity": 9, "buffer_after_minutes": 60}
        assert client.patch(f"/services/{service.pk}", changes).status_code == 200
        assert client.get(f"/slots/{slot.pk}").json() == before


LISTS = [
    "",
    "?available=true",
    "?available=false",
    "?date={day}&status=scheduled",
    "?provider_id={provider}&from={day}",
    "?service_id={service}&calendar_id={calendar}&ordering=-created_at",
]


@pytest.mark.parametrize("query", LISTS)
def test_a_list_of_one_page_takes_one_query_and_a_longer_list_two(api, service, query):
    path = "/slots" + query.format(
        day=f"{SOON:%Y-%m-%d}",
        provider=service.calendar.provider_id,
        service=service.pk,
        calendar=service.calendar_id,
    )
    for number in range(25):
        slot = SlotFactory(service=service, start_time=SOON + number * HOUR)
        book(slot)
        SlotFactory(service=service, start_time=slot.start_time, status="cancelled")
    for limit, expected in ((100, 1), (1, 2)):
        with CaptureQueriesContext(connection) as captured:
            response = api.get(f"{path}{'&' if query else '?'}limit={limit}")
        assert response.json()["count"] > 5
        assert len(captured) == expected, captured.captured_queries


@pytest.mark.one_server("counts statements, and a cluster needs more of them")
def test_reading_one_slot_takes_one_query(api, service):
    slot = SlotFactory(service=service, start_time=SOON)
    with CaptureQueriesContext(connection) as captured:
        api.get(f"/slots/{slot.pk}")
    assert len(captured) == 1
