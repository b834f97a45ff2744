"""The requests that are measured, the expected statuses, and the targets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from functools import cached_property, partial
from itertools import count, islice
from math import ceil
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.utils import timezone

from bookit.tools.benchmark import lists
from bookit.tools.benchmark.fill import (
    CLASS_SLOTS,
    DIARY_DAYS,
    ZONE,
    Size,
    key,
    tomorrow,
    user_email,
)
from bookit.tools.benchmark.lists import ListRequest
from bookit.tools.benchmark.load import CONNECTIONS, MAX_REQUESTS_PER_SECOND, raw_request

# The first customers, at most 50, make bookings. As many others only list their bookings, so their
# lists stay the same. At most 200 customers send the requests of the case `login`.
BOOKERS, LOGINS = 50, 200
SERVICES_BOOKED = 200
# The time between the starts of two new bookings of a service. Every service takes less time.
STEP = timedelta(hours=2)
# A series of slots has one slot a day for a year. Up to 44 series of each course start on the same
# day, one every half hour from 02:00 to midnight. In Lisbon, clocks do not change in these hours.
SERIES, SERIES_A_DAY = 366, 44
# The diary of the admin site is measured with this number of calendars.
CALENDARS_SHOWN = 20
# The reports are about the year that ends two weeks from tomorrow, which has most of the bookings.
REPORTS = ["utilisation", "revenue", "customers", "lead_time", "cancellations"]
YEAR, TWO_WEEKS = timedelta(days=365), timedelta(days=14)
# One client publishes far fewer series in a second than this number.
MAX_SERIES_PER_SECOND = 100


@dataclass(frozen=True)
class Case:
    """A kind of request, which is measured on BookIt and, if possible, on `reference.py`.

    Args:
        expected: the expected status of the responses.
        requests: a function that returns the requests for a run of a given number of seconds. They
            are sent again and again, unless the function yields more than can be sent.
        least_ratio: the target for BookIt's rate divided by the reference's rate: at least this
            number. None if the reference is not measured.
        most_spread: the target for p99 divided by p50: at most this number.
        most_ms: the target for p50 in milliseconds: at most this number. It is set only for cases
            in which requests do not wait for each other.
        plain: for the lists in `lists`, the name of the case that requests the same list without
            parameters.
        without_events: whether the database writes neither events nor jobs during a run.
    """

    name: str
    title: str
    expected: int
    requests: Callable[[float], Iterator[bytes]]
    least_ratio: float | None = None
    most_spread: float | None = None
    most_ms: float | None = None
    connections: int = CONNECTIONS
    without_events: bool = False
    plain: str = ""

    @property
    def has_reference(self) -> bool:
        """Whether the reference is measured too."""
        return self.least_ratio is not None


@dataclass(frozen=True)
class Relation:
    """A target: requests of case `name` take at most `most` times as long as those of `other`.

    The time of a request is 1 / rate. Both cases use the same number of connections, so the ratio
    of their times is the ratio of their latencies too.
    """

    name: str
    other: str
    most: float
    # Whether the CPU times of the web workers are compared instead of the times of the requests.
    by_cpu: bool = False


# The target: a list with a filter, an order, a later page or a cursor takes the web workers at most
# this many times the CPU time of the plain list.
MOST_OF_PLAIN = 1.3

RELATIONS = [
    Relation("free-62-2000", "free-7-100", 2),
    Relation("free-7-100", "services", 2),
    Relation("free-50", "free-7-100", 10),
    Relation("create", "create-silent", 1.25),
]


@dataclass
class Cases:
    """The cases for a filled database. Their names are the same for every database.

    Args:
        bookers: the access tokens of the customers who book.
        readers: the access tokens of the customers who list their bookings.
        provider: the access token of the provider in Lisbon.
        taken: pairs of a service's id and a time at which it is booked.
        password: the password of every customer.
        admin: the access token of the admin.
        admin_cookie: the cookie of the admin's session in the admin site.
        first_day: the first day on which `create` books.
    """

    size: Size
    bookers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    provider: str = ""
    taken: list[tuple[str, str]] = field(default_factory=list)
    password: str = ""
    admin: str = ""
    admin_cookie: str = ""
    first_day: datetime = field(default_factory=timezone.now)
    # All runs share these counters, so that no run books or publishes the times of an earlier run.
    number: Iterator[int] = field(default_factory=count, init=False)
    series: Iterator[int] = field(default_factory=count, init=False)

    @cached_property
    def services(self) -> list[int]:
        """The numbers of the services that `create` books."""
        return self.size.quiet_services(SERVICES_BOOKED)

    @property
    def years_later(self) -> datetime:
        """The first day on which pgbench books, which is later than every booking of `create`."""
        return self.first_day + timedelta(days=4000)

    def all(self) -> list[Case]:
        """Return the cases in the order in which they are measured."""
        return [
            Case("service", "service detail", 200, self.show_service, least_ratio=0.4),
            Case(
                "services",
                f"services, 20 of {self.size.services:,}",
                200,
                self.list_services,
                least_ratio=0.4,
            ),
            *(
                self._finding(days, appointments)
                for days in (7, DIARY_DAYS)
                for appointments in (0, 100, 2_000)
            ),
            Case(
                "free-50",
                "free times of 50 services, 7 days",
                200,
                partial(self.find_times, 7, self.size.diaries(100)),
            ),
            Case("bookings", "own bookings, 20", 200, self.list_bookings, least_ratio=0.4),
            *(
                Case(
                    each.name,
                    f"  {each.path}",
                    200,
                    partial(self.list_rows, each),
                    least_ratio=0.4,
                    plain=each.plain,
                )
                for each in lists.requests(self.size)
            ),
            Case(
                "create",
                f"book, spread over {len(self.services)} services",
                201,
                self.create,
                least_ratio=0.5,
                most_spread=5,
            ),
            Case(
                "create-silent",
                "book, without events and jobs",
                201,
                self.create,
                without_events=True,
            ),
            Case(
                "refused", "book a time that is taken", 409, self.book_taken_times, least_ratio=0.5
            ),
            Case("seat", "book a seat in a class", 201, self.take_seat),
            Case(
                "publish",
                f"publish {SERIES} slots, one client",
                201,
                self.publish,
                most_ms=150,
                connections=1,
            ),
            Case("login", "login", 200, self.log_in),
            Case(
                "admin-home",
                "admin site: home, one client",
                200,
                partial(self.open_admin_page, "/admin/"),
                most_ms=150,
                connections=1,
            ),
            Case(
                "admin-bookings",
                "admin site: list of bookings, one client",
                200,
                partial(self.open_admin_page, "/admin/bookings/booking/"),
                connections=1,
            ),
            Case(
                "admin-diary",
                f"admin site: week of {CALENDARS_SHOWN} calendars, one client",
                200,
                self.open_diary,
                most_ms=200,
                connections=1,
            ),
            *(
                Case(
                    f"report-{name}",
                    f"report: {name.replace('_', ' ')} of a year, one client",
                    200,
                    partial(self.report, name),
                    most_ms=1000,
                    connections=1,
                )
                for name in REPORTS
            ),
        ]

    def relations(self) -> list[Relation]:
        """Return the targets for lists with parameters."""
        return [
            Relation(each.name, each.plain, MOST_OF_PLAIN, by_cpu=True)
            for each in lists.requests(self.size)
            if each.name != each.plain
        ]

    def _finding(self, days: int, appointments: int) -> Case:
        return Case(
            f"free-{days}-{appointments}",
            f"free times, {days} days, {appointments:,} booked",
            200,
            partial(self.find_times, days, self.size.diaries(appointments)[:1]),
        )

    def show_service(self, seconds: float) -> Iterator[bytes]:
        """Yield requests for single services."""
        for number in range(1, self.size.services + 1):
            yield raw_request("GET", f"/services/{key('service', number)}")

    def list_rows(self, request: ListRequest, seconds: float) -> Iterator[bytes]:
        """Yield the requests for one of the lists in `lists`."""
        for token in self.readers if request.is_own else [""]:
            yield raw_request("GET", request.path, token=token)

    def list_services(self, seconds: float) -> Iterator[bytes]:
        """Yield the request for the first page of services."""
        yield raw_request("GET", "/services")

    def list_bookings(self, seconds: float) -> Iterator[bytes]:
        """Yield requests of customers for the first page of their bookings."""
        for token in self.readers:
            yield raw_request("GET", "/bookings", token=token)

    def create(self, seconds: float) -> Iterator[bytes]:
        """Yield more booking requests than can be sent, each for a different service or time."""
        wanted = ceil(max(seconds, 1) * MAX_REQUESTS_PER_SECOND)
        for number in islice(self.number, wanted):
            turn, nth = divmod(number, len(self.services))
            service_id = key("service", self.services[nth])
            start_time = f"{self.first_day + turn * STEP:%Y-%m-%dT%H:%M:%SZ}"
            yield self._booking_request(number, service_id=service_id, start_time=start_time)

    def book_taken_times(self, seconds: float) -> Iterator[bytes]:
        """Yield booking requests for times that are already taken."""
        for number, (service_id, start_time) in enumerate(self.taken):
            yield self._booking_request(number, service_id=service_id, start_time=start_time)

    def find_times(self, days: int, services: list[int], seconds: float) -> Iterator[bytes]:
        """Yield the request for the free times of services on the next `days` days."""
        ids = [key("service", number) for number in services]
        last = tomorrow() + timedelta(days=days - 1)
        window = f"from={tomorrow()}&to={last}"
        if len(ids) == 1:
            yield raw_request("GET", f"/services/{ids[0]}/availability?{window}")
        else:
            chosen = "&".join(f"service_id={each}" for each in ids)
            yield raw_request("GET", f"/availability?{chosen}&{window}")

    def take_seat(self, seconds: float) -> Iterator[bytes]:
        """Yield booking requests for seats, one in each slot of the classes."""
        for number in range(CLASS_SLOTS):
            yield self._booking_request(number, slot_id=key("published slot", number))

    def publish(self, seconds: float) -> Iterator[bytes]:
        """Yield more requests than can be sent, each for a series of slots. No slots overlap."""
        wanted = ceil(max(seconds, 1) * MAX_SERIES_PER_SECOND)
        courses = self.size.courses
        first = datetime.combine(tomorrow(), time(2), ZoneInfo(ZONE))
        for number in islice(self.series, wanted):
            turn, course = divmod(number, len(courses))
            year, nth = divmod(turn, SERIES_A_DAY)
            # Calculated in wall-clock time, like the days of a series.
            start_time = first + timedelta(days=year * SERIES, minutes=nth * 30)
            body = {
                "service_id": key("service", courses[course]),
                "start_time": start_time.isoformat(),
                "rrule": f"FREQ=DAILY;COUNT={SERIES}",
            }
            yield raw_request("POST", "/slots", token=self.provider, body=body)

    def log_in(self, seconds: float) -> Iterator[bytes]:
        """Yield logins."""
        for number in range(1, min(LOGINS, self.size.customers) + 1):
            body = {"email": user_email(number), "password": self.password}
            yield raw_request("POST", "/auth/login", body=body)

    def open_admin_page(self, path: str, seconds: float) -> Iterator[bytes]:
        """Yield the request of the admin for a page of the admin site."""
        yield raw_request("GET", path, cookie=self.admin_cookie)

    def open_diary(self, seconds: float) -> Iterator[bytes]:
        """Yield the request for a week of the diary, with the fullest calendars."""
        busy = [*self.size.diaries(2_000), *self.size.diaries(100)][:CALENDARS_SHOWN]
        shown = {
            "calendar": [key("calendar", number) for number in busy],
            "first": tomorrow(),
            "until": tomorrow() + timedelta(days=7),
            "zone": ZONE,
        }
        return self.open_admin_page(f"/admin/diary/sheet/?{urlencode(shown, doseq=True)}", seconds)

    def report(self, name: str, seconds: float) -> Iterator[bytes]:
        """Yield the request for a report on a year."""
        last = tomorrow() + TWO_WEEKS
        yield raw_request("GET", f"/reports/{name}?from={last - YEAR}&to={last}", token=self.admin)

    def _booking_request(self, number: int, **body: str) -> bytes:
        token = self.bookers[number % len(self.bookers)]
        return raw_request("POST", "/bookings", token=token, body=body)


CASE_NAMES = [case.name for case in Cases(Size()).all()]
