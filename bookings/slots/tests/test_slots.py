"""Slots over HTTP: publishing one or a series, finding, changing, cancelling and deleting them."""

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
# A slot must start in the next ten years.
SOON = (timezone.now() + 30 * DAY).replace(hour=10, minute=0, second=0, microsecond=0)


@pytest.fixture
def provider():
    return ProviderFactory()


@pytest.fixture
def client(api, provider):
    """The provider's client."""
    return api.as_(provider)


@pytest.fixture
def at(api, provider):
    """Travel to another time, with a client of the provider."""

    @contextmanager
    def travel(moment):
        with time_machine.travel(moment, tick=False):
            yield api.as_(provider)

    return travel


@pytest.fixture
def service(provider):
    """An hour with three seats, in Lisbon."""
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
        **{"hold_expires_at": None, **fields},
    )


def hold(slot, seat=1, *, left):
    """Store a hold in a slot that expires `left` from now."""
    ends = timezone.now() + left
    return book(slot, seat, status=Booking.Status.HELD, hold_expires_at=ends)


def publish(client, service, start_time=SOON, **fields):
    content = {"service_id": str(service.pk), "start_time": start_time.isoformat(), **fields}
    return client.post("/slots", content)


def found(api, **parameters):
    """Return the ids of the slots that a search finds."""
    answer = api.get("/slots", parameters)
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def ids(*slots):
    return [str(slot.pk) for slot in slots]


class TestPublishing:
    def test_a_slot_is_published(self, client, service):
        answer = publish(client, service)
        assert answer.status_code == 201
        slot = answer.json()
        assert answer["Location"] == f"http://testserver/slots/{slot['id']}"
        assert client.get(answer["Location"]).json() == slot
        assert datetime.fromisoformat(slot.pop("created_at")) <= timezone.now()
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

    def test_a_slot_may_seat_more_or_fewer_than_its_service(self, client, service):
        for number, capacity in enumerate([1, 1000]):
            slot = publish(client, service, SOON + number * DAY, capacity=capacity).json()
            assert (slot["capacity"], slot["seats_left"]) == (capacity, capacity)

    @pytest.mark.parametrize("capacity", [0, -1, 1001, "many", None])
    def test_a_slot_seats_from_one_to_a_thousand(self, client, service, capacity):
        answer = publish(client, service, capacity=capacity)
        problem(answer, 400, "validation_error", "capacity")

    def test_a_slot_keeps_the_buffers_of_its_service_free(self, client, service):
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

    def test_a_slot_can_start_now_but_not_before(self, at, service):
        with at(SOON) as client:
            problem(
                publish(client, service, SOON - timedelta(seconds=1)),
                *(400, "validation_error", "start_time"),
            )
            assert publish(client, service, SOON).status_code == 201

    def test_a_slot_is_in_the_next_ten_years(self, at, service):
        with at(SOON) as client:
            problem(
                publish(client, service, SOON + 3661 * DAY),
                *(400, "validation_error", "start_time"),
            )
            assert publish(client, service, SOON + 3660 * DAY).status_code == 201

    def test_a_slot_needs_an_existing_service(self, client, service):
        service.delete()
        problem(publish(client, service), 400, "validation_error", "service_id")

    def test_an_inactive_service_gets_no_slots(self, client, service):
        Service.objects.update(is_active=False)
        problem(publish(client, service), 409, "service_inactive")

    def test_admins_publish_on_every_calendar_and_providers_on_their_own(self, api, service):
        problem(publish(api.as_(ProviderFactory()), service), 403, "permission_denied")
        assert publish(api.as_(AdminFactory()), service).status_code == 201

    def test_a_slot_can_be_copied_from_one_that_was_read(self, client, service):
        first = publish(client, service).json()
        client.patch(f"/slots/{first['id']}", {"status": "cancelled"})
        copied = client.get(f"/slots/{first['id']}").json()
        answer = client.post("/slots", copied)
        assert answer.status_code == 201
        assert answer.json()["id"] != first["id"]
        assert answer.json()["status"] == "scheduled"


class TestSeries:
    def test_the_response_to_a_series_is_the_list_at_its_location(self, client, service):
        publish(client, service, SOON - DAY)
        answer = publish(client, service, rrule="FREQ=DAILY;COUNT=3", capacity=5)
        assert answer.status_code == 201
        content = answer.json()
        assert list(content) == ["count", "next", "previous", "results"]
        assert (content["count"], content["next"], content["previous"]) == (3, None, None)
        assert {(slot["capacity"], slot["seats_left"]) for slot in content["results"]} == {(5, 5)}
        starts = [datetime.fromisoformat(slot["start_time"]) for slot in content["results"]]
        assert starts == sorted(starts)
        assert client.get(answer["Location"]).json() == content

    def test_the_location_of_a_series_is_a_search_for_its_slots(self, client, service):
        answer = publish(client, service, rrule="FREQ=DAILY;COUNT=2")
        parts = urlsplit(answer["Location"])
        assert (parts.scheme, parts.netloc, parts.path) == ("http", "testserver", "/slots")
        assert parse_qs(parts.query, strict_parsing=True) == {
            "service_id": [str(service.pk)],
            "from": [f"{SOON:%Y-%m-%dT%H:%M:%SZ}"],
            "to": [f"{Slot.objects.last().end_time:%Y-%m-%dT%H:%M:%SZ}"],
        }
        assert ":" not in parts.query

    def test_a_series_of_one_slot_is_a_list(self, client, service):
        assert publish(client, service, rrule="FREQ=DAILY;COUNT=1").json()["count"] == 1

    def test_a_series_keeps_the_wall_clock_time_of_its_calendar(self, at, service):
        with at(datetime(2026, 10, 1, tzinfo=UTC)) as client:
            answer = publish(
                client,
                service,
                datetime(2026, 10, 18, 18, tzinfo=LISBON),
                rrule="FREQ=WEEKLY;UNTIL=20261101",
            )
        assert [slot["start_time"] for slot in answer.json()["results"]] == [
            "2026-10-18T17:00:00Z",
            "2026-10-25T18:00:00Z",
            "2026-11-01T18:00:00Z",
        ]

    def test_a_series_has_at_most_366_slots(self, client, service):
        answer = publish(client, service, rrule="FREQ=DAILY;COUNT=366")
        assert answer.json()["count"] == len(answer.json()["results"]) == 366
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
    def test_a_rule_that_makes_no_series_is_refused(self, client, service, rrule):
        problem(publish(client, service, rrule=rrule), 400, "validation_error", "rrule")
        assert not Slot.objects.exists()

    def test_a_start_that_does_not_match_the_rule_is_explained(self, client, service):
        other = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"][(SOON.weekday() + 1) % 7]
        content = problem(
            publish(client, service, rrule=f"FREQ=WEEKLY;COUNT=2;BYDAY={other}"),
            *(400, "validation_error", "rrule"),
        )
        assert "start_time" in content["errors"][0]["message"]

    def test_a_series_takes_as_many_queries_as_a_slot(self, client, service):
        counts = []
        for number, rrule in enumerate(["FREQ=DAILY;COUNT=1", "FREQ=DAILY;COUNT=366"]):
            with CaptureQueriesContext(connection) as captured:
                publish(client, service, SOON + number * 2 * HOUR, rrule=rrule)
            counts.append(len(captured))
        # Account; owner of the service; service; lock the calendar, close holds, check, insert;
        # read. Two savepoints.
        assert counts == [12, 12]


class TestConflicts:
    def refusal(self, answer):
        return problem(answer, 409, "slot_conflict")["detail"]

    def test_a_refusal_names_the_first_start_that_clashes_and_no_slot_is_created(self, at, service):
        with at(datetime(2026, 10, 1, tzinfo=UTC)) as client:
            start = datetime(2026, 10, 20, 18, tzinfo=LISBON)
            for days in (7, 14):
                publish(client, service, start + days * DAY)
            answer = publish(client, service, start, rrule="FREQ=WEEKLY;COUNT=4")
        assert self.refusal(answer) == (
            "The slot at 2026-10-27T18:00:00+00:00 overlaps another slot or booking of the"
            " calendar. No slot was created."
        )
        assert Slot.objects.count() == 2

    def test_the_start_is_named_in_the_zone_of_the_calendar(self, at, service):
        with at(datetime(2026, 10, 1, tzinfo=UTC)) as client:
            start = datetime(2026, 10, 20, 18, tzinfo=LISBON)
            publish(client, service, start)
            answer = publish(client, service, start.astimezone(UTC))
        assert self.refusal(answer).startswith("The slot at 2026-10-20T18:00:00+01:00 overlaps")

    @pytest.mark.parametrize("minutes", [-59, 0, 59])
    def test_a_slot_does_not_overlap_another_of_any_service(self, client, service, minutes):
        other = ServiceFactory(calendar=service.calendar)
        publish(client, service)
        self.refusal(publish(client, other, SOON + timedelta(minutes=minutes)))
        self.refusal(publish(client, service, SOON + timedelta(minutes=minutes)))

    def test_slots_follow_each_other_back_to_back(self, client, service):
        for hours in (0, 1, -1):
            assert publish(client, service, SOON + hours * HOUR).status_code == 201

    def test_buffers_cannot_overlap(self, client, service):
        Service.objects.update(buffer_after_minutes=15)
        publish(client, service)
        self.refusal(publish(client, service, SOON + HOUR))
        assert publish(client, service, SOON + HOUR * 1.25).status_code == 201

    def test_slots_of_different_calendars_can_overlap(self, api, client, service):
        publish(client, service)
        answer = publish(api.as_(AdminFactory()), ServiceFactory(capacity=2))
        assert answer.status_code == 201

    def test_a_series_whose_slots_overlap_each_other_is_refused(self, at, service):
        Service.objects.update(duration_minutes=25 * 60)
        with at(datetime(2026, 10, 1, tzinfo=UTC)) as client:
            start = datetime(2026, 10, 20, 18, tzinfo=LISBON)
            answer = publish(client, service, start, rrule="FREQ=DAILY;COUNT=3")
        assert self.refusal(answer) == (
            "The slot at 2026-10-21T18:00:00+01:00 overlaps the previous slot of the series. "
            "No slot was created."
        )
        assert not Slot.objects.exists()

    def test_the_first_of_two_kinds_of_clashes_is_named(self, client, service):
        Service.objects.update(duration_minutes=25 * 60)
        start = SOON.replace(hour=12)
        publish(client, service, start)
        assert "another slot or booking" in self.refusal(
            publish(client, service, start, rrule="FREQ=DAILY;COUNT=3")
        )

    @pytest.mark.parametrize("status", ["pending", "confirmed", "completed", "no_show"])
    def test_a_slot_does_not_overlap_an_open_booking(self, client, service, status):
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

    def test_anybody_reads_slots(self, api, slot):
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
        last, first = (
            SlotFactory(service=service, start_time=midnight + n * HOUR) for n in (-0.5, 0.5)
        )
        day = f"{midnight:%Y-%m-%d}"
        assert found(api, date=day) == ids(first)
        # The day began nine hours earlier in Tokyo, and begins ten hours later in Honolulu.
        assert found(api, date=day, tz="Asia/Tokyo") == ids(last, first)
        assert found(api, date=day, tz="Pacific/Honolulu") == []

    @pytest.mark.parametrize(
        "day", ["today", "2026-12-01T10:00:00Z", "2026-13-01", "2026-1-1", "\uff12026-01-01", "5"]
    )
    def test_the_date_must_be_a_date(self, api, day):
        problem(api.get("/slots", {"date": day}), 400, "validation_error", "date")

    def test_slots_are_found_by_a_period_that_they_overlap(self, api, slot):
        def meets(begin, end):
            return found(api, **{"from": begin.isoformat(), "to": end.isoformat()}) == ids(slot)

        assert meets(SOON + HOUR / 2, SOON + DAY)
        assert meets(SOON - DAY, SOON + HOUR / 2)
        assert not meets(SOON + HOUR, SOON + DAY)
        assert not meets(SOON - DAY, SOON)
        day = f"{SOON:%Y-%m-%d}"
        assert found(api, **{"from": day, "to": day}) == ids(slot)

    def test_taken_seats_are_not_left(self, api, service, slot):
        book(slot, 1, status="confirmed")
        book(slot, 2, status="cancelled")
        assert api.get(f"/slots/{slot.pk}").json()["seats_left"] == 2
        hold(slot, 2, left=HOUR)
        hold(slot, 3, left=-HOUR)
        assert api.get(f"/slots/{slot.pk}").json()["seats_left"] == 1
        book(slot, 4)
        book(slot, 5)
        assert api.get("/slots").json()["results"][0]["seats_left"] == 0

    def test_a_cancelled_slot_has_no_seats_left(self, api, service):
        SlotFactory(service=service, start_time=SOON, status="cancelled")
        assert api.get("/slots").json()["results"][0]["seats_left"] == 0


def off(slot):
    TimeOff.objects.create(
        calendar=slot.calendar, start_time=slot.end_time - HOUR / 60, end_time=slot.end_time + DAY
    )


def off_before(slot):
    TimeOff.objects.create(
        calendar=slot.calendar, start_time=slot.start_time - DAY, end_time=slot.start_time
    )


def change_service(**fields):
    return lambda slot: Service.objects.filter(pk=slot.service_id).update(**fields)


def full(slot):
    for seat in range(slot.capacity):
        book(slot, seat + 1)


AVAILABLE = {
    "as it is": lambda slot: None,
    "with a seat left": lambda slot: (book(slot), book(slot, 2)),
    "behind time off": off_before,
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
    "full": full,
    "in time off": off,
    "of a service that is not active": change_service(is_active=False),
    "cancelled": lambda slot: Slot.objects.filter(pk=slot.pk).update(status="cancelled"),
    "sooner than the notice": change_service(min_notice_minutes=31 * 24 * 60),
    "beyond the horizon": change_service(max_advance_days=28),
    "full with a hold": lambda slot: (book(slot), book(slot, 2), hold(slot, 3, left=HOUR)),
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
            answer = client.patch(f"/slots/{slot.pk}", {"capacity": capacity})
            assert answer.status_code == 200
            assert answer.json()["capacity"] == answer.json()["seats_left"] == capacity

    def test_the_capacity_cannot_be_below_the_number_of_taken_seats(self, client, slot):
        book(slot, 1)
        book(slot, 3)
        content = problem(client.patch(f"/slots/{slot.pk}", {"capacity": 1}), 409, "slot_conflict")
        assert content["detail"] == "2 seats are taken. The capacity cannot be lower than that."
        # It does not matter which seats they are.
        assert client.patch(f"/slots/{slot.pk}", {"capacity": 2}).json()["seats_left"] == 0

    def test_cancelled_bookings_and_expired_holds_do_not_count(self, client, slot):
        book(slot, 1)
        book(slot, 2, status="cancelled")
        hold(slot, 3, left=-HOUR)
        answer = client.patch(f"/slots/{slot.pk}", {"capacity": 1})
        assert answer.json()["seats_left"] == 0

    def test_a_live_hold_counts(self, client, slot):
        book(slot, 1)
        hold(slot, 2, left=HOUR)
        problem(client.patch(f"/slots/{slot.pk}", {"capacity": 1}), 409, "slot_conflict")

    @pytest.mark.parametrize("capacity", [0, -1, 1001, None, "x"])
    def test_a_capacity_is_from_one_to_a_thousand(self, client, slot, capacity):
        answer = client.patch(f"/slots/{slot.pk}", {"capacity": capacity})
        problem(answer, 400, "validation_error", "capacity")

    def test_a_slot_can_be_sent_back_as_it_was_read(self, client, slot):
        book(slot, 1)
        row = client.get(f"/slots/{slot.pk}").json()
        assert client.patch(f"/slots/{slot.pk}", row).json() == row
        assert client.patch(f"/slots/{slot.pk}", {}).json() == row
        moved = {**row, "start_time": f"{SOON + DAY:%Y-%m-%dT%H:%M:%SZ}", "capacity": 7}
        assert client.patch(f"/slots/{slot.pk}", moved).json() == {
            **row,
            "capacity": 7,
            "seats_left": 6,
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
        answer = self.cancel(client, slot)
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["seats_left"]) == ("cancelled", 0)
        assert {(each.status, each.hold_expires_at) for each in Booking.objects.all()} == {
            ("cancelled", None)
        }
        events = {
            event.data["was"]["status"]: event for event in BookingEvent.objects.order_by("id")
        }
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

    def test_a_booking_cancelled_with_its_slot_has_the_same_history_as_any_other(
        self, client, slot
    ):
        here = book(slot)
        there = book(SlotFactory(service__calendar=CalendarFactory()))
        self.cancel(client, slot)
        there.calendar.provider = slot.calendar.provider
        there.calendar.save()
        client.patch(f"/bookings/{there.pk}/status", {"status": "cancelled", "reason": "Ill"})
        first, second = here.events.get(), there.events.get()
        assert first.type == second.type
        assert {name: type(value) for name, value in first.data.items()} == {
            name: type(value) for name, value in second.data.items()
        }

    def test_an_expired_hold_expires_instead_of_being_cancelled(self, client, slot):
        booking = hold(slot, left=-HOUR)
        self.cancel(client, slot)
        booking.refresh_from_db()
        assert booking.status == "expired"
        assert BookingEvent.objects.get().type == "booking.expired"

    def test_the_time_of_a_cancelled_slot_is_free(self, client, service, slot):
        problem(publish(client, service), 409, "slot_conflict")
        self.cancel(client, slot)
        assert publish(client, service).status_code == 201

    def test_other_slots_and_their_bookings_stay(self, client, service, slot):
        next_one = SlotFactory(service=service, start_time=SOON + HOUR)
        booking = book(next_one)
        self.cancel(client, slot)
        booking.refresh_from_db()
        assert booking.status == "pending"
        assert found(client, status="scheduled") == ids(next_one)

    def test_cancelling_a_slot_twice_changes_nothing(self, client, slot):
        book(slot)
        first = self.cancel(client, slot)
        second = self.cancel(client, slot)
        assert second.status_code == 200
        assert second.json() == first.json()
        assert BookingEvent.objects.count() == 1

    def test_a_cancelled_slot_cannot_be_scheduled_again(self, client, slot):
        self.cancel(client, slot)
        answer = client.patch(f"/slots/{slot.pk}", {"status": "scheduled"})
        assert "Publish a new slot" in problem(answer, 409, "invalid_transition")["detail"]

    @pytest.mark.parametrize("status", ["completed", "no_show"])
    def test_a_slot_with_completed_or_no_show_bookings_is_not_cancelled(self, client, slot, status):
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

    def test_other_statuses_are_refused(self, client, slot):
        for status in ("full", "", None, "SCHEDULED"):
            answer = client.patch(f"/slots/{slot.pk}", {"status": status})
            problem(answer, 400, "validation_error", "status")

    def test_a_full_slot_is_cancelled_with_as_many_queries_as_a_slot_with_one_booking(
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
        # Account; owner of the slot; lock calendar and slot; close holds, cancel bookings, check
        # that none is left, cancel the slot, end its waitlist; read. Begin and commit.
        assert counts == [12, 12]


class TestDeleting:
    @pytest.fixture
    def slot(self, service):
        return SlotFactory(service=service, start_time=SOON)

    def test_a_slot_is_deleted_and_its_time_is_free(self, client, service, slot):
        answer = client.delete(f"/slots/{slot.pk}")
        assert (answer.status_code, answer.content) == (204, b"")
        problem(client.get(f"/slots/{slot.pk}"), 404, "not_found")
        assert publish(client, service).status_code == 201

    @pytest.mark.parametrize("status", [*Booking.Status.values])
    def test_a_slot_with_bookings_of_any_status_is_not_deleted(self, client, slot, status):
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


class TestTheirServices:
    """Services with slots cannot move or be deleted."""

    @pytest.fixture(params=["scheduled", "cancelled"])
    def slot(self, request, service):
        return SlotFactory(service=service, start_time=SOON, status=request.param)

    def test_a_service_with_slots_is_not_deleted(self, client, slot):
        content = problem(client.delete(f"/services/{slot.service_id}"), 409, "service_in_use")
        assert "slots" in content["detail"]

    def test_a_calendar_with_slots_is_not_deleted(self, client, slot):
        problem(client.delete(f"/calendars/{slot.calendar_id}"), 409, "service_in_use")

    def test_a_service_with_slots_does_not_move(self, client, provider, slot):
        other = CalendarFactory(provider=provider)
        answer = client.patch(f"/services/{slot.service_id}", {"calendar_id": str(other.pk)})
        assert "slots" in problem(answer, 409, "service_in_use")["detail"]

    def test_a_service_whose_slots_are_deleted_can_move(self, client, provider, slot):
        other = CalendarFactory(provider=provider)
        client.delete(f"/slots/{slot.pk}")
        path = f"/services/{slot.service_id}"
        assert client.patch(path, {"calendar_id": str(other.pk)}).status_code == 200
        assert client.delete(path).status_code == 204

    def test_slots_do_not_change_with_their_service(self, client, service, slot):
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
def test_a_list_takes_one_query_and_one_more_to_count(api, service, query):
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
            answer = api.get(f"{path}{'&' if query else '?'}limit={limit}")
        assert answer.json()["count"] > 5
        assert len(captured) == expected, captured.captured_queries


def test_one_slot_takes_one_query(api, service):
    slot = SlotFactory(service=service, start_time=SOON)
    with CaptureQueriesContext(connection) as captured:
        api.get(f"/slots/{slot.pk}")
    assert len(captured) == 1
