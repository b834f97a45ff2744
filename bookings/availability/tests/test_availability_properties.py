"""BookIt offers, accepts and refuses the same times as a plain model, in random cases.

The model reads rows through Django's ORM, and loops over them. It contains no SQL and no
multiranges, and implements the booking rules anew instead of calling BookIt's code.
"""

import random
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.db import IntegrityError, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

from accounts.tests.factories import AdminFactory, UserFactory
from bookings.models import Booking, Occupancy, Slot
from bookings.tests.factories import BookingFactory, SlotFactory, WaitlistEntryFactory
from bookings.tests.test_transitions import STATES
from bookings.waitlist import services as waitlist
from bookings.waitlist.models import WaitlistEntry
from bookit.tests.expect import problem
from catalog.models import Calendar, OpeningHours, Service, TimeOff
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

# The number of random examples for the first property. Each other property gets a third as many.
# After a change to the search or to bookings, run the tests with a thousand.
EXAMPLES = 20

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MINUTES_A_DAY = 24 * 60
ACTIVE = {"held", "pending", "confirmed", "completed", "no_show"}
MAX_HOLDS = 3  # of one user, at the same time
CODES_WITH_ALTERNATIVES = {"booking_conflict", "slot_full", "outside_opening_hours"}

PROPERTY = settings(
    max_examples=EXAMPLES,
    # Function-scoped fixtures are safe, because each example undoes its changes to the database.
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


# --- The model ----------------------------------------------------------------------------------


# Since 1900, no zone has been farther from UTC than this, or changed its clocks twice in 30 hours.
REACH = timedelta(hours=15)


@lru_cache(maxsize=100_000)
def first_instant(zone, day, minutes):
    """Return the first instant at which the clocks in `zone` show the wanted time, or a later time.

    The wanted time is `minutes` after midnight on `day`.
    """
    wanted = datetime.combine(day, time.min, UTC) + minutes * MINUTE
    # Begin with the larger offset: the clocks cannot show the wanted time any earlier.
    around = [(wanted + side).astimezone(zone).utcoffset() for side in (-REACH, REACH)]
    at = wanted - max(around)
    while at.astimezone(zone).replace(tzinfo=UTC) < wanted:
        at += MINUTE
    return at


def days(zone, start, end):
    """Return the dates in `zone` from the date of `start` to the date of `end`."""
    day, last = start.astimezone(zone).date(), end.astimezone(zone).date()
    return [day + number * DAY for number in range((last - day).days + 1)]


class Verdict(NamedTuple):
    """The expected result of a request; `code` is None if the start can be booked."""

    code: str | None
    end: datetime
    slot_id: UUID | None
    seats_left: int = 0


class Model:
    """A calendar at one moment, and the booking rules in their plainest form."""

    def __init__(self, calendar_id, now, around):
        """Read the calendar. The model is valid for times between the two instants `around`."""
        self.now = now
        self.zone = ZoneInfo(Calendar.objects.get(pk=calendar_id).timezone)
        self.services = {row.pk: row for row in Service.objects.filter(calendar=calendar_id)}
        self.time_off = list(TimeOff.objects.filter(calendar=calendar_id))
        self.slots = list(Slot.objects.filter(calendar=calendar_id, status="scheduled"))
        self.taken = [
            row
            for row in Booking.objects.filter(calendar=calendar_id)
            if row.status in ACTIVE and (row.status != "held" or row.hold_expires_at > now)
        ]
        self.queues = {
            slot.pk: [
                entry.user_id
                for entry in slot.waitlist.order_by("created_at", "id")
                if entry.status == "waiting"
            ]
            for slot in self.slots
        }
        hours = list(OpeningHours.objects.filter(calendar=calendar_id))
        week = {(row.weekday, minute) for row in hours for minute in range(row.opens, row.closes)}
        self.always_open = not hours or len(week) == 7 * MINUTES_A_DAY
        self.periods = []
        # Look 16 days beyond `around`: if the calendar is closed for only one hour a week, and the
        # clocks skip that hour, an opening period is two weeks long.
        for day in days(self.zone, around[0] - 16 * DAY, around[1] + 16 * DAY):
            for row in sorted(hours, key=lambda row: row.opens):
                if row.weekday == day.weekday():
                    self._add(
                        first_instant(self.zone, day, row.opens),
                        first_instant(self.zone, day, row.closes),
                    )

    def _add(self, opens, closes):
        if opens == closes:
            return
        if self.periods and self.periods[-1][1] == opens:
            opens, _ = self.periods.pop()
        self.periods.append((opens, closes))

    def is_open(self, start, end):
        if any(off.start_time < end and start < off.end_time for off in self.time_off):
            return False
        return self.always_open or any(
            opens <= start and end <= closes for opens, closes in self.periods
        )

    def candidates(self, service, start, end):
        """Return the starts that could be offered from `start` to `end`, in order."""
        found = {slot.start_time for slot in self.slots if slot.service_id == service.pk}
        if service.mode == "open":
            grids = self.periods
            if self.always_open:
                grids = [
                    (first_instant(self.zone, day, 0), first_instant(self.zone, day + DAY, 0))
                    for day in days(self.zone, start, end)
                ]
            step = (service.step_minutes or service.duration_minutes) * MINUTE
            for opens, closes in grids:
                at = opens
                while at < closes:
                    found.add(at)
                    at += step
        return sorted(at for at in found if start <= at < end)

    def verdict(self, service, start, *, moved=None, user_id=None):
        """Return the expected result of booking `start`, or of moving the booking `moved` there."""
        for slot in self.slots:
            if slot.service_id == service.pk and slot.start_time == start:
                return self.in_slot(slot, moved=moved, user_id=user_id)
        before, after = (
            service.buffer_before_minutes * MINUTE,
            service.buffer_after_minutes * MINUTE,
        )
        end = start + service.duration_minutes * MINUTE
        if moved:
            end = start + (moved.end_time - moved.start_time)
            before = moved.start_time - moved.blocked.lower
            after = moved.blocked.upper - moved.end_time
        code = self.refusal(service, start)
        if not code and (service.mode == "slots" or not self.is_open(start, end)):
            code = "outside_opening_hours"
        if code:
            return Verdict(code, end, None)

        def meets(row):
            return row.blocked.lower < end + after and start - before < row.blocked.upper

        there = [row for row in self.taken if meets(row) and row != moved]
        seats = {row.seat for row in there}
        left = service.capacity - len(seats)
        if (
            any(meets(slot) for slot in self.slots)
            or any(row.service_id != service.pk for row in there)
            or left <= 0
        ):
            return Verdict("booking_conflict", end, None)
        return Verdict(None, end, None, left)

    def in_slot(self, slot, *, moved=None, user_id=None):
        """Return the expected result of booking a scheduled slot, or of moving `moved` into it.

        Users who are ahead on the waitlist count as seats that are taken.
        """
        code = self.refusal(self.services[slot.service_id], slot.start_time)
        if not code and any(
            off.start_time < slot.end_time and slot.start_time < off.end_time
            for off in self.time_off
        ):
            code = "outside_opening_hours"
        seats = {row.seat for row in self.taken if row.slot_id == slot.pk and row != moved}
        queue = self.queues[slot.pk]
        user_id = moved.user_id if moved else user_id
        ahead = queue.index(user_id) if user_id in queue else len(queue)
        left = slot.capacity - len(seats) - ahead
        if not code and left <= 0:
            code = "slot_full"
        return Verdict(code, slot.end_time, slot.pk, 0 if code else left)

    def refusal(self, service, start):
        """Return the code of a refusal, or None, without checking opening hours and taken time."""
        if not service.is_active:
            return "service_inactive"
        if start < self.now:
            return "validation_error"
        if start - self.now < service.min_notice_minutes * MINUTE:
            return "too_soon"
        if service.max_advance_days and start - self.now > service.max_advance_days * DAY:
            return "too_far_ahead"
        return None

    def offered_and_refused(self, service, start, end):
        """Return the offered and the refused times from `start` to `end`, in order."""
        found = [(at, self.verdict(service, at)) for at in self.candidates(service, start, end)]
        return (
            [(at, verdict) for at, verdict in found if not verdict.code],
            [(at, verdict) for at, verdict in found if verdict.code],
        )

    def edges(self, service):
        """Return starts at the limits of the rules: notice, horizon, time off and taken time."""
        length = service.duration_minutes * MINUTE
        before = service.buffer_before_minutes * MINUTE
        after = service.buffer_after_minutes * MINUTE
        edges = [self.now, self.now + service.min_notice_minutes * MINUTE]
        if service.max_advance_days:
            edges.append(self.now + service.max_advance_days * DAY)
        for off in self.time_off:
            edges += [off.start_time - length, off.end_time]
        for row in [*self.taken, *self.slots]:
            edges += [row.blocked.lower - after - length, row.blocked.upper + before]
        return edges

    def nearest(self, service, start, *, moved=None):
        """Return the three nearest free starts within 31 days of `start`, each with its verdict."""
        near = sorted(
            self.candidates(service, start - 31 * DAY, start + 31 * DAY + timedelta.resolution),
            key=lambda at: (abs(at - start), at),
        )
        found = []
        for at in near:
            verdict = self.verdict(service, at, moved=moved)
            # The current start of the moved booking is not an alternative.
            if not verdict.code and not (moved and at == moved.start_time):
                found.append((at, verdict))
        return found[:3]


class TestModel:
    """The model gives the expected results, which are written by hand, on unusual days too."""

    @pytest.mark.parametrize(
        ("zone", "hours", "terms", "window", "starts"),
        [
            pytest.param(
                "Europe/Lisbon",
                [(6, 0, 4 * 60)],
                {},
                ("2031-03-29", "2031-03-31"),
                ["2031-03-30T00:00", "2031-03-30T01:00", "2031-03-30T02:00"],
                id="Lisbon, spring: midnight to four is three hours long",
            ),
            pytest.param(
                "Europe/Lisbon",
                [(6, 90, 3 * 60)],
                {"step_minutes": 30},
                ("2031-03-29", "2031-03-31"),
                ["2031-03-30T01:00"],
                id="Lisbon, spring: an opening in the skipped hour moves to its end",
            ),
            pytest.param(
                "Europe/Lisbon",
                [(6, 0, 75), (6, 105, 3 * 60)],
                {},
                ("2031-03-29", "2031-03-31"),
                ["2031-03-30T00:00", "2031-03-30T01:00"],
                id="Lisbon, spring: a break in the skipped hour has no effect",
            ),
            pytest.param(
                "Europe/Lisbon",
                [(6, 30, 3 * 60)],
                {},
                ("2031-10-25", "2031-10-27"),
                ["2031-10-25T23:30", "2031-10-26T00:30", "2031-10-26T01:30"],
                id="Lisbon, autumn: half past midnight to three is an hour longer",
            ),
            pytest.param(
                "Europe/Lisbon",
                [(6, 60, 90)],
                {"duration_minutes": 30},
                ("2031-10-25", "2031-10-27"),
                ["2031-10-26T00:00"],
                id="Lisbon, autumn: a half hour that occurs twice is open once",
            ),
            pytest.param(
                "Australia/Lord_Howe",
                [(6, 60, 4 * 60)],
                {},
                ("2031-10-04", "2031-10-05"),
                ["2031-10-04T14:30", "2031-10-04T15:30"],
                id="Lord Howe, spring: one to four is half an hour shorter",
            ),
            pytest.param(
                "Australia/Lord_Howe",
                [(6, 60, 150)],
                {},
                ("2031-04-05", "2031-04-06"),
                ["2031-04-05T14:00", "2031-04-05T15:00"],
                id="Lord Howe, autumn: one to half past two is half an hour longer",
            ),
            pytest.param(
                "Pacific/Apia",
                [(3, 22 * 60, MINUTES_A_DAY), (4, 0, MINUTES_A_DAY), (5, 0, 120)],
                {},
                ("2011-12-29", "2011-12-31"),
                ["2011-12-30T08:00", "2011-12-30T09:00", "2011-12-30T10:00", "2011-12-30T11:00"],
                id="Apia: Thursday ends when Saturday begins",
            ),
            pytest.param(
                "America/Havana",
                [],
                {"duration_minutes": 90},
                ("2031-03-10T02:00:00Z", "2031-03-10T06:00:00Z"),
                ["2031-03-10T02:00", "2031-03-10T03:30", "2031-03-10T04:00", "2031-03-10T05:30"],
                id="Havana: the grid of a day of 23 hours begins at one and ends at midnight",
            ),
            pytest.param(
                "Asia/Kathmandu",
                [(0, 9 * 60, 11 * 60)],
                {"step_minutes": 45, "buffer_after_minutes": 60},
                ("2031-03-30", "2031-04-01"),
                ["2031-03-31T03:15", "2031-03-31T04:00"],
                id="Kathmandu: buffers may extend past the opening hours",
            ),
        ],
    )
    def test_the_model_and_the_api_return_the_expected_starts(
        self, api, zone, hours, terms, window, starts
    ):
        service = ServiceFactory(calendar=CalendarFactory(timezone=zone), **terms)
        for weekday, opens, closes in hours:
            OpeningHours.objects.create(
                calendar=service.calendar, weekday=weekday, opens=opens, closes=closes
            )
        expected = [datetime.fromisoformat(f"{start}Z") for start in starts]
        begin, end = (datetime.fromisoformat(text) for text in window)
        if begin.tzinfo is None:
            begin, end = begin.replace(tzinfo=UTC), end.replace(tzinfo=UTC) + DAY
        now = begin - DAY
        with time_machine.travel(now, tick=False):
            offered, _ = Model(service.calendar_id, now, (begin, end)).offered_and_refused(
                service, begin, end
            )
            assert [start for start, _ in offered] == expected
            path = f"/services/{service.pk}/availability"
            shown = api.get(path, {"from": window[0], "to": window[1]}).json()
        assert [datetime.fromisoformat(free["start_time"]) for free in shown["times"]] == expected

    def test_the_first_broken_rule_is_the_reason_for_the_refusal(self):
        service = ServiceFactory(
            capacity=2, buffer_after_minutes=15, min_notice_minutes=60, max_advance_days=1
        )
        now = datetime(2031, 3, 30, 12, tzinfo=UTC)
        TimeOff.objects.create(
            calendar=service.calendar, start_time=now + 180 * MINUTE, end_time=now + 181 * MINUTE
        )
        for seat in (1, 3):
            BookingFactory(service=service, start_time=now + 300 * MINUTE, seat=seat)
        BookingFactory(service=service, start_time=now + 480 * MINUTE, seat=3)
        model = Model(service.calendar_id, now, (now, now))
        codes = {
            minutes: model.verdict(service, now + minutes * MINUTE).code
            for minutes in (-1, 0, 59, 60, 120, 121, 180, 181, 225, 226, 300, 374, 375)
        }
        assert codes == {
            -1: "validation_error",
            0: "too_soon",
            59: "too_soon",
            60: None,
            120: None,
            121: "outside_opening_hours",
            180: "outside_opening_hours",
            181: None,
            225: None,
            226: "booking_conflict",
            300: "booking_conflict",
            374: "booking_conflict",
            375: None,
        }
        assert model.verdict(service, now + 480 * MINUTE).seats_left == 1
        assert model.verdict(service, now + DAY).code is None
        assert model.verdict(service, now + DAY + MINUTE).code == "too_far_ahead"
        service.is_active = False
        assert model.verdict(service, now - MINUTE).code == "service_inactive"


# --- Random calendars and requests --------------------------------------------------------------

# Days on which clocks change, and some ordinary days.
CHANGES = [
    ("UTC", date(2031, 3, 30)),
    ("Europe/Lisbon", date(2031, 3, 30)),
    ("Europe/Lisbon", date(2031, 10, 26)),
    ("America/New_York", date(2031, 3, 9)),
    ("America/New_York", date(2031, 11, 2)),
    ("Australia/Lord_Howe", date(2031, 4, 6)),
    ("Australia/Lord_Howe", date(2031, 10, 5)),
    ("Asia/Kathmandu", date(2031, 3, 30)),
    ("Asia/Kathmandu", date(1986, 1, 1)),  # 15 minutes were skipped.
    ("Pacific/Apia", date(2011, 12, 30)),  # This day was skipped.
    ("Pacific/Apia", date(2012, 4, 1)),
    ("Africa/Casablanca", date(2031, 12, 14)),
    ("Africa/Casablanca", date(2032, 1, 18)),
    ("America/Havana", date(2031, 3, 9)),  # Midnight is skipped.
    ("America/Havana", date(2031, 11, 2)),  # Midnight comes twice.
    ("America/Santiago", date(2031, 4, 6)),
    ("America/Santiago", date(2031, 9, 7)),
    ("America/St_Johns", date(2010, 11, 7)),  # At 0:01, the clocks went back to 23:01.
]
ZONES = sorted({zone for zone, _ in CHANGES})


@dataclass
class Plan:
    """A planned calendar.

    Each item of `hours` is a weekday, and an opening and a closing time in minutes after midnight
    on the clocks of `zone`. The starts of time off, slots and bookings are in minutes after
    midnight UTC on `Window.origin`.
    """

    zone: str
    hours: list[tuple[int, int, int]]
    time_off: list[tuple[int, int]]
    services: list[dict[str, Any]]
    slots: list[dict[str, Any]] = field(default_factory=list)
    bookings: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Window:
    """A request for free times from `start` to `end`, which is made at `now`.

    The times of a `Plan` count from the day `origin`.
    """

    origin: date
    now: datetime
    params: dict[str, str]
    headers: dict[str, str]
    zone: ZoneInfo
    start: datetime
    end: datetime


WHOLE_DAY = [(0, MINUTES_A_DAY)]
# Minutes of a day, most of them near the hours at which clocks change.
CUTS = [0, 15, 30, 60, 75, 90, 105, 120, 135, 150, 165, 180, 240, 540, 720, 1080, 1380, 1425, 1440]


def one_of(*values):
    return st.sampled_from(values)


@st.composite
def day_plans(draw):
    """Draw the opening hours of a day as spans, some of which touch each other."""
    cuts = sorted(draw(st.lists(st.sampled_from(CUTS), min_size=2, max_size=5, unique=True)))
    return [span for span in pairwise(cuts) if draw(st.sampled_from([True, True, False]))]


@st.composite
def weeks(draw):
    """Draw opening hours: none, arbitrary spans, or the whole week, perhaps except one part."""
    kind = draw(
        st.sampled_from(["none", "any", "any", "any", "whole", "except one day", "except a span"])
    )
    if kind == "none":
        return []
    if kind == "any":
        plans = draw(st.lists(day_plans(), min_size=1, max_size=3))
        week = [draw(st.sampled_from([*plans, WHOLE_DAY])) for _ in range(7)]
    else:
        week = [
            draw(st.sampled_from([WHOLE_DAY, WHOLE_DAY, [(0, 90), (90, MINUTES_A_DAY)]]))
            for _ in range(7)
        ]
    if kind == "except one day":
        week[draw(st.integers(0, 6))] = []
    if kind == "except a span":
        closes, opens = sorted(
            draw(st.lists(st.sampled_from(CUTS[1:-1]), min_size=2, max_size=2, unique=True))
        )
        # Most clocks change on a Sunday.
        week[draw(st.sampled_from([6, 6, 5, 0]))] = [(0, closes), (opens, MINUTES_A_DAY)]
    return [(weekday, *span) for weekday, spans in enumerate(week) for span in spans]


BUFFERS = one_of(0, 0, 0, 5, 15, 30, 30, 60, 1500)
SERVICES = st.fixed_dictionaries(
    {
        "mode": one_of("open", "open", "open", "slots"),
        "duration_minutes": one_of(60, 60, 60, 45, 45, 30, 25, 90, 180, 1440, 2000),
        "step_minutes": one_of(None, None, None, 20, 30, 45, 60, 90, 1440, 1500),
        "buffer_before_minutes": BUFFERS,
        "buffer_after_minutes": BUFFERS,
        "capacity": one_of(1, 2, 2, 3),
        "min_notice_minutes": one_of(0, 0, 0, 30, 60, 1440),
        "max_advance_days": one_of(None, None, None, None, 3, 2, 1),
        "is_active": one_of(*[True] * 11, False),
        "requires_confirmation": st.booleans(),
    }
)
# Most starts are on the first day of the window, near each other.
MOMENTS = st.one_of(st.integers(0, 32), st.integers(0, 96), st.integers(-96, 6 * 96)).map(
    lambda quarters: quarters * 15
)
# The length of a slot or booking that was made before the service changed. None if the service did
# not change.
LENGTHS = one_of(None, None, None, None, 15, 50, 120, 1600)
SLOTS = st.fixed_dictionaries(
    {
        "service": one_of(0, 1, 1, 2),
        "start": MOMENTS,
        "length": LENGTHS,
        "capacity": st.integers(1, 3),
        "status": one_of("scheduled", "scheduled", "scheduled", "cancelled"),
        "waiting": one_of(0, 0, 0, 1, 2),
    }
)
BOOKINGS = st.fixed_dictionaries(
    {
        "service": one_of(0, 0, 0, 1, 2),
        "slot": one_of(None, None, None, None, None, 0, 1),
        "start": MOMENTS,
        "length": LENGTHS,
        "seat": one_of(1, 1, 1, 2, 3, 4),
        "status": one_of("pending", "confirmed", "held", "held", *STATES),
        "expires": one_of(-600, 0, 0, 1, 600),  # seconds after the request, if it is a hold
    }
)


def plans(zones, *, services=3, rows=12):
    """Draw a calendar in one of the `zones`."""
    return st.builds(
        Plan,
        zone=zones,
        hours=weeks(),
        time_off=st.lists(st.tuples(MOMENTS, one_of(5, 15, 60, 600, 1440, 2900)), max_size=2),
        services=st.lists(SERVICES, min_size=1, max_size=services),
        slots=st.lists(SLOTS, min_size=rows // 6, max_size=rows // 3),
        bookings=st.lists(BOOKINGS, min_size=rows // 3, max_size=rows),
    )


def crowds(zones):
    """Draw a calendar in one of the `zones`, with many bookings in a few hours."""
    unrestricted = {
        "mode": "open",
        "min_notice_minutes": 0,
        "max_advance_days": None,
        "is_active": True,
    }
    return st.builds(
        Plan,
        zone=zones,
        hours=st.one_of(st.just([]), weeks()),
        time_off=st.lists(st.tuples(MOMENTS, one_of(15, 60)), max_size=1),
        services=st.lists(SERVICES.map(lambda terms: terms | unrestricted), min_size=1, max_size=2),
        slots=st.lists(SLOTS, max_size=2),
        bookings=st.lists(
            BOOKINGS.map(lambda row: row | {"start": row["start"] % 600, "slot": None}),
            min_size=6,
            max_size=16,
        ),
    )


def midnight(day):
    return datetime.combine(day, time.min, UTC)


@st.composite
def windows(draw, change):
    """Draw a request around the date `change`. Its bounds are dates, instants, or left out."""
    begin = change - draw(st.integers(0, 2)) * DAY
    length = draw(one_of(1, 1, 1, 2, 4))
    ago = draw(st.one_of(st.integers(0, 96), st.integers(96, 3 * 96), st.integers(-96, 0)))
    now = midnight(begin) - ago * 15 * MINUTE
    now += draw(one_of(0, 0, 1, 60, 899)) * timedelta(seconds=1)
    params, headers, name = {}, {}, draw(one_of(None, *ZONES))
    if name and draw(st.booleans()):
        headers["Time-Zone"] = name
    elif name:
        params["tz"] = name
    zone = ZoneInfo(name or "UTC")
    start, end = now, None
    kind = draw(one_of("days", "days", "instants", "instants", "instants", "neither"))
    if kind == "days":
        last = begin + (length - 1) * DAY
        params |= {"from": str(begin), "to": str(last)}
        start, end = first_instant(zone, begin, 0), first_instant(zone, last + DAY, 0)
    if kind == "instants":
        start = midnight(begin) + draw(st.integers(-12, 96)) * 5 * MINUTE
        end = start + draw(st.integers(1, length * 96)) * 15 * MINUTE
        params |= {"from": iso(start), "to": iso(end)}
    return Window(begin, now, params, headers, zone, start, end or start + 7 * DAY)


def iso(instant):
    return instant.isoformat().replace("+00:00", "Z")


@st.composite
def cases(draw, **sizes):
    """Draw a request around one of the `CHANGES`, and one or two calendars."""
    zone, change = draw(st.sampled_from(CHANGES))
    window = draw(windows(change))
    planned = [draw(st.one_of(crowds(st.just(zone)), plans(st.just(zone), **sizes)))]
    if draw(one_of(False, False, True)):
        planned.append(draw(plans(one_of(zone, *ZONES), services=1, rows=2)))
    return window, planned


class World:
    """The planned calendars, stored in the database."""

    def __init__(self, api, people, window, planned, clock):
        self.window, self.people, self.clock = window, people, clock
        self.anonymous = api
        self.origin = midnight(window.origin)
        self.calendars = [self.arrange(plan) for plan in planned]
        self.services = list(Service.objects.order_by("id"))

    def arrange(self, plan):
        calendar = CalendarFactory(timezone=plan.zone)
        for weekday, opens, closes in plan.hours:
            OpeningHours.objects.create(
                calendar=calendar, weekday=weekday, opens=opens, closes=closes
            )
        for start, length in plan.time_off:
            TimeOff.objects.create(
                calendar=calendar,
                start_time=self.instant(start),
                end_time=self.instant(start + length),
            )
        services = [ServiceFactory(calendar=calendar, **terms) for terms in plan.services]
        slots = [self.slot(services, **slot) for slot in plan.slots]
        slots = [slot for slot in slots if slot and slot.status == "scheduled"]
        for booking in plan.bookings:
            self.book(services, slots, **booking)
        return calendar

    def instant(self, minutes):
        return self.origin + minutes * MINUTE

    def period(self, service, start, length):
        """Return fields of a slot or booking. A `length` means that the service changed later."""
        start = self.instant(start)
        if length is None:
            return {"service": service, "start_time": start}
        end = start + length * MINUTE
        blocked = DateTimeTZRange(start - 5 * MINUTE, end + 10 * MINUTE)
        return {"service": service, "start_time": start, "end_time": end, "blocked": blocked}

    def slot(self, services, *, service, start, length, waiting, **fields):
        """Store a slot if its time is free, and put users on its waitlist."""
        period = self.period(services[service % len(services)], start, length)
        slot = unless_taken(lambda: SlotFactory(**period, **fields))
        for name in ("first", "second")[: waiting if slot else 0]:
            WaitlistEntryFactory(slot=slot, user=self.people[name])
        return slot

    def book(self, services, slots, *, service, slot, start, length, seat, status, expires):
        """Store a booking if its seat is free."""
        period = self.period(services[service % len(services)], start, length)
        if slot is not None and slots:
            slot = slots[slot % len(slots)]
            period = {
                "slot": slot,
                "service": slot.service,
                "start_time": slot.start_time,
                "end_time": slot.end_time,
                "blocked": slot.blocked,
            }
        if status == "held":
            period["hold_expires_at"] = self.window.now + timedelta(seconds=expires)
        unless_taken(
            lambda: BookingFactory(user=self.people["other"], seat=seat, status=status, **period)
        )

    def model(self, service, *, margin=5 * DAY):
        """Return the model of the calendar of `service`."""
        around = (self.window.start - margin, self.window.end + margin)
        return Model(service.calendar_id, self.window.now, around)

    def as_(self, name):
        """Return a newly signed-in client, because an earlier token may have expired."""
        return self.anonymous.as_(self.people[name])

    def ask(self, client, path, **params):
        return client.get(path, {**self.window.params, **params}, headers=self.window.headers)

    def moment(self, text):
        """Parse an instant of a response, and check that it is written in the request's zone."""
        moment = datetime.fromisoformat(text)
        assert moment.utcoffset() == moment.astimezone(self.window.zone).utcoffset(), text
        return moment


def unless_taken(make):
    """Return the result of `make`, or None if the database refuses it."""
    try:
        with transaction.atomic():
            return make()
    except IntegrityError:
        return None


@pytest.fixture
def people(db):
    names = ("user", "other", "first", "second")
    return {"admin": AdminFactory(), **{name: UserFactory() for name in names}}


@contextmanager
def undone():
    """Roll back all changes that are made in the block."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@contextmanager
def arranged(api, people, case):
    """Yield the world of a case, with the clock frozen at the time of its request."""
    window, planned = case
    with undone(), time_machine.travel(window.now, tick=False) as clock:
        note(f"{window.start} to {window.end}, now {window.now}, {planned}")
        yield World(api, people, window, planned, clock)


def outcome(response):
    """Check the format of a refusal, and return its code. Return None if there is no refusal."""
    if response.status_code in (200, 201, 204):
        return None
    code = response.json()["code"]
    problem(response, 400 if code == "validation_error" else 409, code)
    assert ("alternatives" in response.json()) == (code in CODES_WITH_ALTERNATIVES)
    return code


def book(client, **body):
    """Book, undo the booking, and return the response."""
    with undone():
        return client.post("/bookings", body)


def move(client, booking, **body):
    """Move a booking, undo the move, and return the response."""
    with undone():
        return client.patch(f"/bookings/{booking.pk}", body)


# --- Properties ---------------------------------------------------------------------------------

PLAIN = {
    "mode": "open",
    "duration_minutes": 60,
    "step_minutes": None,
    "buffer_before_minutes": 0,
    "buffer_after_minutes": 0,
    "capacity": 1,
    "min_notice_minutes": 0,
    "max_advance_days": None,
    "is_active": True,
    "requires_confirmation": True,
}


def after_a_long_period(zone, begin, hours):
    """Return a case: a request for one day, whose opening period began more than a week earlier."""
    start, params = midnight(begin), {"from": str(begin), "to": str(begin)}
    window = Window(begin, start - DAY, params, {}, ZoneInfo("UTC"), start, start + DAY)
    return window, [Plan(zone, hours, [], [PLAIN | {"duration_minutes": 1000}])]


@given(case=cases(), seed=st.integers(0, 2**32))
@example(
    # The calendar is closed on Fridays, and the zone skipped Friday, 30 December 2011.
    case=after_a_long_period(
        "Pacific/Apia",
        date(2012, 1, 4),
        [(weekday, 0, MINUTES_A_DAY) for weekday in range(7) if weekday != 4],
    ),
    seed=1,
)
@example(
    # The calendar is closed for half an hour a week, and the clocks skip that half hour.
    case=after_a_long_period(
        "Europe/Lisbon",
        date(2031, 4, 5),
        [
            *[(weekday, 0, MINUTES_A_DAY) for weekday in range(6)],
            (6, 0, 75),
            (6, 105, MINUTES_A_DAY),
        ],
    ),
    seed=1,
)
@PROPERTY
def test_the_search_and_bookings_agree_with_the_model(api, people, case, seed):
    chance = random.Random(seed)
    with arranged(api, people, case) as world:
        if world.window.start >= world.window.end:
            # A day that the zone skipped has no window.
            path = f"/services/{world.services[0].pk}/availability"
            problem(world.ask(world.anonymous, path), 400, "validation_error")
            return
        shown = {}
        for service in world.services:
            model = world.model(service)
            offered, refused = model.offered_and_refused(
                service, world.window.start, world.window.end
            )
            shown[service.pk] = check_search(world, service, offered, refused)
            some = [
                *chance.sample(offered, min(3, len(offered))),
                *chance.sample(refused, min(3, len(refused))),
            ]
            check_bookings(world, service, model, [start for start, _ in some], chance)
        check_search_of_all(world, shown)


def check_search(world, service, offered, refused):
    """Compare the search of one service with the model. Return the response without refusals."""
    response = world.ask(world.as_("admin"), f"/services/{service.pk}/availability", explain="true")
    assert response.status_code == 200, response.content
    shown = response.json()
    assert shown["service_id"] == str(service.pk)
    assert shown["timezone"] == str(world.window.zone)
    assert [
        (
            world.moment(free["start_time"]),
            world.moment(free["end_time"]),
            free["slot_id"],
            free["seats_left"],
        )
        for free in shown["times"]
    ] == [(start, free.end, text(free.slot_id), free.seats_left) for start, free in offered]
    assert [
        (
            world.moment(no["start_time"]),
            world.moment(no["end_time"]),
            no["slot_id"],
            no["code"],
        )
        for no in shown.pop("refused")
    ] == [(start, no.end, text(no.slot_id), no.code) for start, no in refused]
    return shown


def text(uuid):
    return str(uuid) if uuid else None


def check_bookings(world, service, model, starts, chance):
    """Book starts on and off the grid, move bookings to them, and compare with the model."""
    slots = list(Slot.objects.filter(service=service)[:2])
    span = (world.window.end - world.window.start) // MINUTE
    starts = [
        *starts,
        *[slot.start_time for slot in slots],
        *chance.sample(edges := model.edges(service), min(4, len(edges))),
        *[
            world.window.start + chance.randrange(span * unit) * MINUTE / unit
            for unit in (1, 1, 60, 60_000_000)  # whole minutes, seconds, microseconds
        ],
    ]
    for start in starts:
        verdict = model.verdict(service, start)
        body = {"service_id": str(service.pk), "start_time": iso(start)}
        if chance.random() < 0.2:
            body["hold"] = True
        if chance.random() < 0.2:
            body["end_time"] = iso(verdict.end)
        check_booking(book(world.as_("user"), **body), start, verdict)
    for slot in slots:
        # A request can also name the slot by its id. A request for a cancelled slot is refused.
        if slot.status == "scheduled":
            verdict = model.in_slot(slot)
        else:
            code = model.refusal(service, slot.start_time) or "service_inactive"
            verdict = Verdict(code, slot.end_time, slot.pk)
        check_booking(book(world.as_("user"), slot_id=str(slot.pk)), slot.start_time, verdict)
    movable = list(Booking.objects.filter(service=service, status__in=["pending", "confirmed"]))
    for booking in chance.sample(movable, min(2, len(movable))):
        for start in chance.sample(starts, 3):
            if start != booking.start_time:
                response = move(world.as_("admin"), booking, start_time=iso(start))
                check_booking(response, start, model.verdict(service, start, moved=booking))


def check_booking(response, start, verdict):
    """Compare a response with the verdict of the model on `start`."""
    assert outcome(response) == verdict.code, (start, verdict, response.content)
    if not verdict.code:
        booking = response.json()
        assert datetime.fromisoformat(booking["start_time"]) == start
        assert datetime.fromisoformat(booking["end_time"]) == verdict.end
        assert booking["slot_id"] == text(verdict.slot_id)


def check_search_of_all(world, shown):
    """Search all services at once, and compare the results with those of single searches."""
    ids = [str(service.pk) for service in reversed(world.services)]
    response = world.ask(world.anonymous, "/availability", service_id=ids)
    assert response.status_code == 200, response.content
    assert response.json()["results"] == [shown[UUID(each)] for each in ids]
    response = world.anonymous.get(
        "/services",
        {
            "available_from": iso(world.window.start),
            "available_to": iso(world.window.end),
            "active": "any",
        },
    )
    assert response.status_code == 200, response.content
    found = {service["id"] for service in response.json()["results"]}
    assert found == {each for each in ids if shown[UUID(each)]["times"]}


@given(case=cases(services=2), seed=st.integers(0, 2**32))
@settings(PROPERTY, max_examples=EXAMPLES // 3)
def test_alternatives_are_the_nearest_free_times(api, people, case, seed):
    chance = random.Random(seed)
    with arranged(api, people, case) as world:
        for service in world.services:
            model = world.model(service, margin=33 * DAY)
            starts = [
                world.window.now + chance.randrange(60, 3 * 24 * 60) * MINUTE,
                *model.candidates(service, world.window.now, world.window.now + 3 * DAY),
            ]
            starts = [
                at for at in starts if model.verdict(service, at).code in CODES_WITH_ALTERNATIVES
            ]
            movable = Booking.objects.filter(service=service, status__in=["pending", "confirmed"])
            for start in chance.sample(starts, min(4, len(starts))):
                body = {"service_id": str(service.pk), "start_time": iso(start)}
                check_alternatives(
                    model.nearest(service, start),
                    book(world.as_("user"), **body),
                    lambda **body: book(world.as_("user"), **body),
                    service_id=str(service.pk),
                )
                for booking in movable[:1]:
                    check_alternatives(
                        model.nearest(service, start, moved=booking),
                        move(world.as_("admin"), booking, start_time=iso(start)),
                        lambda booking=booking, **body: move(world.as_("admin"), booking, **body),
                    )


def check_alternatives(nearest, response, send, **body):
    """Compare the alternatives of a refusal with the model, and check that they are accepted."""
    # A move can be accepted: its booking keeps its length and buffers, and does not block itself.
    if outcome(response) not in CODES_WITH_ALTERNATIVES:
        return
    alternatives = response.json()["alternatives"]
    assert [
        (
            datetime.fromisoformat(free["start_time"]),
            datetime.fromisoformat(free["end_time"]),
            free["slot_id"],
        )
        for free in alternatives
    ] == [(start, free.end, text(free.slot_id)) for start, free in nearest]
    for free in alternatives:
        accepted = send(**body, start_time=free["start_time"])
        assert outcome(accepted) is None, accepted.content
        assert accepted.json()["slot_id"] == free["slot_id"]


# --- Sequences ----------------------------------------------------------------------------------

EARLY = st.integers(0, 31).map(lambda quarters: quarters * 15)
WHICH = st.integers(0, 7)
WHO = one_of("user", "other", "admin", "first", "second")
HOLD = one_of(False, False, True)
BOOK = st.tuples(st.just("book"), WHICH, EARLY, WHO, HOLD)
MOVE = st.tuples(st.just("move"), WHICH, EARLY)
PUBLISH = st.tuples(st.just("publish"), WHICH, EARLY, st.integers(1, 3))
TERMS = st.fixed_dictionaries(
    {},
    optional={
        "capacity": st.integers(1, 3),
        "duration_minutes": one_of(30, 45, 60),
        "buffer_before_minutes": one_of(0, 15, 60),
        "buffer_after_minutes": one_of(0, 15, 60),
        "mode": one_of("open", "slots"),
        "is_active": one_of(True, True, False),
    },
)
STEPS = st.lists(
    st.one_of(
        BOOK,
        BOOK,
        BOOK,
        st.tuples(st.just("book_slot"), WHICH, WHO, HOLD),
        st.tuples(st.just("book_slot"), WHICH, WHO, HOLD),
        st.tuples(st.just("join"), WHICH, WHO),
        st.tuples(st.just("join"), WHICH, WHO),
        st.tuples(st.just("leave"), WHICH),
        st.tuples(st.just("offer")),
        st.tuples(st.just("book_any"), EARLY, WHO),
        st.tuples(st.just("book_hold"), WHICH),
        MOVE,
        MOVE,
        st.tuples(st.just("move_to_slot"), WHICH, WHICH),
        st.tuples(st.just("enter"), WHICH, st.sampled_from(STATES)),
        st.tuples(st.just("cancel"), WHICH),
        st.tuples(st.just("delete"), WHICH),
        st.tuples(st.just("wait"), one_of(1, 9, 10, 11, 45)),
        PUBLISH,
        PUBLISH,
        st.tuples(st.just("change_slot"), WHICH, one_of("cancelled", 1, 2, 3)),
        st.tuples(st.just("delete_slot"), WHICH),
        st.tuples(st.just("change_service"), WHICH, TERMS),
        st.tuples(st.just("open"), weeks()),
        st.tuples(st.just("take_off"), EARLY, one_of(15, 60, 600)),
    ),
    min_size=10,
    max_size=25,
)
LESSON = PLAIN | {"duration_minutes": 45, "step_minutes": 15}


class Run:
    """A sequence of steps on one calendar.

    The result of a step is compared with the verdict of the model, if the model has one.
    """

    def __init__(self, world):
        self.world = world
        [self.calendar] = world.calendars
        self.now = world.window.now

    @property
    def model(self):
        around = (self.world.window.start, self.world.origin + DAY)
        return Model(self.calendar.pk, self.now, around)

    def service(self, number):
        return Service.objects.order_by("id")[number % 3]

    def row(self, rows, number):
        rows = list(rows.order_by("id"))
        return rows[number % len(rows)] if rows else None

    def booking(self, number):
        return self.row(Booking.objects, number)

    def slot(self, number):
        return self.row(Slot.objects, number)

    def holds(self, who):
        user = self.world.people[who]
        return sum(row.status == "held" and row.user_id == user.pk for row in self.model.taken)

    def check_new(self, response, start, verdict, *, hold, holds):
        if hold and holds >= MAX_HOLDS and verdict.code in (None, "slot_full", "booking_conflict"):
            # If there are two reasons for a refusal, the response may give either reason.
            assert outcome(response) in {"too_many_holds", verdict.code} - {None}
            return
        check_booking(response, start, verdict)
        if not verdict.code:
            assert (response.json()["status"] == "held") == hold

    def book(self, number, start, who, hold):
        service, start = self.service(number), self.world.instant(start)
        user_id = self.world.people[who].pk
        verdict, holds = self.model.verdict(service, start, user_id=user_id), self.holds(who)
        body = {"service_id": str(service.pk), "start_time": iso(start), "hold": hold}
        response = self.world.as_(who).post("/bookings", body)
        self.check_new(response, start, verdict, hold=hold, holds=holds)

    def verdict_in(self, slot, moved=None, user_id=None):
        model = self.model
        if slot.status == "scheduled":
            return model.in_slot(slot, moved=moved, user_id=user_id)
        service = model.services[slot.service_id]
        code = model.refusal(service, slot.start_time) or "service_inactive"
        return Verdict(code, slot.end_time, slot.pk)

    def book_slot(self, number, who, hold):
        if slot := self.slot(number):
            user_id = self.world.people[who].pk
            verdict, holds = self.verdict_in(slot, user_id=user_id), self.holds(who)
            body = {"slot_id": str(slot.pk), "hold": hold}
            response = self.world.as_(who).post("/bookings", body)
            self.check_new(response, slot.start_time, verdict, hold=hold, holds=holds)

    def join(self, number, who):
        """Join a waitlist. A user who is on it already gets the same entry again.

        Others can join only if the slot is full and they have no seat in it.
        """
        if slot := self.slot(number):
            user_id = self.world.people[who].pk
            waits = slot.waitlist.filter(user=user_id, status__in=["waiting", "offered"])
            waiting = [entry.pk for entry in waits if not self.is_over(entry)]
            seated = any(
                row.slot_id == slot.pk and row.user_id == user_id for row in self.model.taken
            )
            expected = self.verdict_in(slot, user_id=user_id).code
            if waiting:
                expected = None
            elif expected == "slot_full":
                expected = "validation_error" if seated else None
            elif expected is None:
                expected = "validation_error" if seated else "slot_not_full"
            response = self.world.as_(who).post(f"/slots/{slot.pk}/waitlist", {})
            code = response.json().get("code")
            assert code == expected, response.content
            assert code or not waiting or response.json()["id"] == str(waiting[0])

    def is_over(self, entry):
        """Return whether the hold offered to this entry has expired."""
        return entry.booking is not None and entry.booking.hold_expires_at <= self.now

    def leave(self, number):
        if entry := self.row(WaitlistEntry.objects, number):
            path = f"/slots/{entry.slot_id}/waitlist/{entry.pk}"
            assert outcome(self.world.as_("admin").delete(path)) is None

    def offer(self):
        """Offer the free seats, as the worker does. Check that nobody who still waits can book."""
        waitlist.offer_seats(at=self.now)
        model = self.model
        for slot in model.slots:
            if queue := model.queues[slot.pk]:
                assert model.in_slot(slot, user_id=queue[0]).code is not None

    def book_any(self, start, who):
        start, model = self.world.instant(start), self.model
        user_id = self.world.people[who].pk
        verdicts = {
            str(service.pk): model.verdict(service, start, user_id=user_id)
            for service in model.services.values()
        }
        body = {"service_ids": list(verdicts), "start_time": iso(start)}
        response = self.world.as_(who).post("/bookings", body)
        code = outcome(response)
        if code:
            assert code in {verdict.code for verdict in verdicts.values()}
            assert all(verdict.code for verdict in verdicts.values())
        else:
            check_booking(response, start, verdicts[response.json()["service_id"]])

    def change(self, number, path="", **body):
        """Change a booking as an admin. Return the row before the change, and the response."""
        booking = self.booking(number)
        if booking is None:
            return None, None
        return booking, self.world.as_("admin").patch(f"/bookings/{booking.pk}{path}", body)

    def book_hold(self, number):
        booking, response = self.change(number, status="pending")
        if booking:
            live = booking.status == "held" and booking.hold_expires_at > self.now
            # All services here require confirmation, which must come before the start.
            assert (outcome(response) is None) == (live and booking.start_time > self.now)

    def move(self, number, start):
        start, model = self.world.instant(start), self.model
        booking, response = self.change(number, start_time=iso(start))
        if booking is None:
            return
        if booking.status not in ("pending", "confirmed"):
            assert outcome(response) == "invalid_transition"
        elif start != booking.start_time:
            service = model.services[booking.service_id]
            check_booking(response, start, model.verdict(service, start, moved=booking))

    def move_to_slot(self, number, other):
        slot, booking = self.slot(other), self.booking(number)
        if slot is None or booking is None:
            return
        verdict = self.verdict_in(slot, moved=booking)
        _, response = self.change(number, slot_id=str(slot.pk))
        if booking.status not in ("pending", "confirmed"):
            assert outcome(response) == "invalid_transition"
        elif booking.service_id != slot.service_id:
            assert outcome(response) == "validation_error"
        elif booking.slot_id != slot.pk:
            check_booking(response, slot.start_time, verdict)

    def enter(self, number, status):
        _, response = self.change(number, "/status", status=status)
        assert response is None or outcome(response) in (None, "invalid_transition")

    def cancel(self, number):
        _, response = self.change(number, status="cancelled")
        assert response is None or outcome(response) in (None, "invalid_transition")

    def delete(self, number):
        if booking := self.booking(number):
            assert outcome(self.world.as_("admin").delete(f"/bookings/{booking.pk}")) is None

    def wait(self, minutes):
        self.now += minutes * MINUTE
        self.world.clock.move_to(self.now)

    def publish(self, number, start, capacity):
        service, start = self.service(number), self.world.instant(start)
        model = self.model
        lower = start - service.buffer_before_minutes * MINUTE
        upper = start + (service.duration_minutes + service.buffer_after_minutes) * MINUTE
        taken = any(
            row.blocked.lower < upper and lower < row.blocked.upper
            for row in [*model.slots, *model.taken]
        )
        response = self.world.as_("admin").post(
            "/slots",
            {"service_id": str(service.pk), "start_time": iso(start), "capacity": capacity},
        )
        expected = "slot_conflict" if taken else None
        if start < self.now:
            expected = "validation_error"
        if not service.is_active:
            expected = "service_inactive"
        assert outcome(response) == expected

    def change_slot(self, number, change):
        if slot := self.slot(number):
            body = {"status": change} if change == "cancelled" else {"capacity": change}
            response = self.world.as_("admin").patch(f"/slots/{slot.pk}", body)
            assert outcome(response) in (None, "slot_conflict", "invalid_transition")

    def delete_slot(self, number):
        if slot := self.slot(number):
            booked = Booking.objects.filter(slot=slot).exists()
            response = self.world.as_("admin").delete(f"/slots/{slot.pk}")
            assert outcome(response) == ("slot_conflict" if booked else None)

    def change_service(self, number, terms):
        response = self.world.as_("admin").patch(f"/services/{self.service(number).pk}", terms)
        assert outcome(response) is None

    def open(self, hours):
        spans = [
            {"weekday": weekday, "opens": wall_clock(opens), "closes": wall_clock(closes)}
            for weekday, opens, closes in hours
        ]
        response = self.world.as_("admin").patch(
            f"/calendars/{self.calendar.pk}", {"opening_hours": spans}
        )
        assert outcome(response) is None

    def take_off(self, start, length):
        response = self.world.as_("admin").post(
            f"/calendars/{self.calendar.pk}/time-off",
            {
                "start_time": iso(self.world.instant(start)),
                "end_time": iso(self.world.instant(start + length)),
            },
        )
        assert outcome(response) is None

    def check(self, number):
        """Check all rows, and compare the free times of one service with the model."""
        check_nothing_is_taken_twice()
        check_occupancy()
        check_queues()
        self.check_offer(self.service(number), self.model)

    def check_offer(self, service, model):
        """Compare the free times of a service with the model, and return them."""
        window = self.world.window
        offered, refused = model.offered_and_refused(service, window.start, window.end)
        check_search(self.world, service, offered, refused)
        return offered

    def check_offers(self):
        """After the last step, check that the first free times of each service are accepted."""
        model = self.model
        for service in model.services.values():
            for start, verdict in self.check_offer(service, model)[:6]:
                body = {"service_id": str(service.pk), "start_time": iso(start)}
                check_booking(book(self.world.as_("user"), **body), start, verdict)


def wall_clock(minutes):
    return f"{minutes // 60:02}:{minutes % 60:02}"


def overlap(one, other):
    return one.blocked.lower < other.blocked.upper and other.blocked.lower < one.blocked.upper


def check_nothing_is_taken_twice():
    """Check that no seat is booked twice, and no calendar hosts two services or slots at once.

    No booking may overlap another slot, or be in a cancelled slot.
    """
    bookings = [row for row in Booking.objects.select_related("slot") if row.status in ACTIVE]
    slots = list(Slot.objects.filter(status="scheduled"))
    for number, one in enumerate(bookings):
        for other in bookings[:number]:
            if overlap(one, other) and one.calendar_id == other.calendar_id:
                assert one.service_id == other.service_id, (
                    "two services share a calendar at the same time"
                )
                assert one.seat != other.seat, "two bookings share a seat at the same time"
        for slot in slots:
            if overlap(one, slot) and one.calendar_id == slot.calendar_id:
                assert one.slot_id == slot.pk, "a booking overlaps a slot that it is not in"
        assert one.slot is None or one.slot in slots, "a booking is in a cancelled slot"
    for number, slot in enumerate(slots):
        for other in slots[:number]:
            assert slot.calendar_id != other.calendar_id or not overlap(slot, other)


def check_occupancy():
    """Compare the stored occupancy with the slots and bookings."""
    derived = {
        (row.pk, row.calendar_id, row.pk, None, row.blocked, None)
        for row in Slot.objects.filter(status="scheduled")
    } | {
        (
            row.pk,
            row.calendar_id,
            row.service_id,
            row.seat,
            row.blocked,
            row.hold_expires_at,
        )
        for row in Booking.objects.filter(slot=None)
        if row.status in ACTIVE
    }
    stored = Occupancy.objects.values_list(
        "id", "calendar_id", "occupant", "seat", "blocked", "expires_at"
    )
    assert set(stored) == derived


def check_queues():
    """Check that no user with a seat is waiting, and that each offer is a hold of its user."""
    for entry in WaitlistEntry.objects.select_related("booking"):
        if entry.status == "waiting":
            seats = Booking.objects.filter(slot=entry.slot_id, user=entry.user_id)
            assert not any(row.status in ACTIVE for row in seats), "a user with a seat is waiting"
        if entry.status == "offered":
            assert (entry.booking.status, entry.booking.user_id) == ("held", entry.user_id)


@st.composite
def beginnings(draw):
    """Draw a request around one of the `CHANGES`, and a calendar without bookings."""
    zone, change = draw(st.sampled_from(CHANGES))
    now = midnight(change) - draw(st.integers(0, 90)) * MINUTE
    start, end = midnight(change) - 2 * 60 * MINUTE, midnight(change) + 14 * 60 * MINUTE
    params = {"from": iso(start), "to": iso(end)}
    window = Window(change, now, params, {}, ZoneInfo("UTC"), start, end)
    services = [LESSON | draw(TERMS) for _ in range(3)]
    return window, [Plan(zone, draw(one_of([], draw(weeks()))), [], services)]


@given(case=beginnings(), steps=STEPS)
@example(
    # A hold whose start has passed cannot be requested any more, although it has not expired.
    case=(
        Window(
            date(2031, 3, 30),
            midnight(date(2031, 3, 30)),
            {"from": "2031-03-30", "to": "2031-03-30"},
            {},
            ZoneInfo("UTC"),
            midnight(date(2031, 3, 30)),
            midnight(date(2031, 3, 31)),
        ),
        [Plan("UTC", [], [], [LESSON] * 3)],
    ),
    steps=[("book", 0, 0, "user", True), ("wait", 1), ("book_hold", 0)],
)
@settings(PROPERTY, max_examples=EXAMPLES // 3)
def test_no_sequence_of_requests_takes_a_seat_twice(api, people, case, steps):
    with arranged(api, people, case) as world:
        run = Run(world)
        for number, (name, *arguments) in enumerate(steps):
            note(f"{run.now}: {name} {arguments}")
            getattr(run, name)(*arguments)
            run.check(number)
        run.check_offers()
