"""The requests that are measured, and what is expected of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import partial
from itertools import count, islice
from math import ceil
from zoneinfo import ZoneInfo

from bookit.tools.benchmark import queries
from bookit.tools.benchmark.fill import CLASS_SLOTS, DIARY_DAYS, ZONE, Size, key, tomorrow
from bookit.tools.benchmark.load import CONNECTIONS, MOST_REQUESTS_PER_SECOND, raw_request
from bookit.tools.benchmark.pgbench import script

# Customers who sign in for the run: the first fifty book, the next fifty look at what they have
# booked, and book nothing, so that their lists stay as they are. `login` is done by any of the 200.
BOOKERS, LOGINS = 50, 200
SERVICES_BOOKED = 200
# So far apart are the starts of a service's new bookings: longer than any service takes.
STEP = timedelta(hours=2)
# A course is published for a year, as many times a day as there are half hours between two and
# midnight, when no clock changes.
SERIES, SERIES_A_DAY = 366, 44
# Far more than can be published one after the other.
MOST_SERIES_PER_SECOND = 100

# Their ids, as pgbench makes them from its variables.
A_SERVICE, A_USER = "benchmark.key('service', :service)", "benchmark.key('user', :user)"


@dataclass(frozen=True)
class Case:
    """A kind of request, measured against BookIt and, where there is one, the reference.

    `least_ratio` is the target: BookIt's rate as a part of the reference's.
    """

    name: str
    title: str
    expected: int
    # From the seconds of a run to its requests; different ones each time where they must be.
    requests: Callable[[float], Iterator[bytes]]
    least_ratio: float | None = None
    # The target of p99 as a multiple of p50.
    most_spread: float | None = None
    # The target of p50, where the load leaves no request waiting for others.
    most_ms: float | None = None
    pgbench: str | None = None
    connections: int = CONNECTIONS
    # Measured while the database writes neither events nor jobs.
    silent: bool = False

    @property
    def has_reference(self) -> bool:
        """Whether the reference can do it too."""
        return self.least_ratio is not None


@dataclass(frozen=True)
class Relation:
    """A target between two cases: a request of `name` takes `most` times one of `other`, at most.

    What a request takes is 1 / rate: both are measured with as many connections, so that this is
    the time of an answer as well as what it costs.
    """

    name: str
    other: str
    most: float


RELATIONS = [
    Relation("free-62-2000", "free-7-100", 2),
    Relation("free-7-100", "services", 2),
    Relation("free-50", "free-7-100", 10),
    Relation("create", "create-silent", 1.25),
]


def user_email(number: int) -> str:
    """Return the mail address of the customer of that number."""
    return f"user{number}@example.com"


class Cases:
    """The cases for a filled database, with the tokens of those who ask."""

    def __init__(
        self,
        size: Size,
        *,
        bookers: list[str],
        readers: list[str],
        provider: str,
        taken: list[tuple[str, str]],
        password: str,
    ) -> None:
        self.size = size
        self.bookers, self.readers, self.provider = bookers, readers, provider
        self.taken = taken
        self.password = password
        self.services = size.quiet_services(SERVICES_BOOKED)
        # Beyond all that the database was filled with.
        self.first_day = datetime.now(UTC).replace(
            hour=0, minute=0, second=0, microsecond=0
        ) + timedelta(days=400)
        self.number = count()
        self.series = count()

    def all(self) -> list[Case]:
        """Return the cases in the order of measuring."""
        any_service = f"\\set service random(1, {self.size.services})"
        any_user = f"\\set user random(1, {self.size.users})"
        values = {"service_id": A_SERVICE, "user_id": A_USER}
        return [
            Case(
                "service",
                "service detail",
                200,
                self.show_service,
                least_ratio=0.4,
                pgbench=script([any_service], [queries.SERVICE], values),
            ),
            Case(
                "services",
                f"services, 20 of {self.size.services:,}",
                200,
                self.list_services,
                least_ratio=0.4,
                pgbench=script([], [queries.SERVICES, queries.SERVICES_COUNT], {}),
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
            Case(
                "bookings",
                "own bookings, 20",
                200,
                self.list_bookings,
                least_ratio=0.4,
                pgbench=script(
                    [any_user],
                    [queries.SIGNED_IN, queries.BOOKINGS, queries.BOOKINGS_COUNT],
                    values,
                ),
            ),
            Case(
                "create",
                f"create, {len(self.services)} services",
                201,
                self.create,
                least_ratio=0.5,
                most_spread=5,
                pgbench=self._creating(any_user),
            ),
            Case("create-silent", "create, no events and jobs", 201, self.create, silent=True),
            Case("refused", "create, time is taken", 409, self.refused, least_ratio=0.5),
            Case("seat", "create, seat in a class", 201, self.take_seat),
            Case(
                "publish",
                f"publish {SERIES} slots, one client",
                201,
                self.publish,
                most_ms=150,
                connections=1,
            ),
            Case("login", "login", 200, self.log_in),
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

    def list_services(self, seconds: float) -> Iterator[bytes]:
        """Yield the request for the first page of services."""
        yield raw_request("GET", "/services")

    def list_bookings(self, seconds: float) -> Iterator[bytes]:
        """Yield requests for the first page of one's bookings."""
        for token in self.readers:
            yield raw_request("GET", "/bookings", token=token)

    def create(self, seconds: float) -> Iterator[bytes]:
        """Yield bookings of times that nobody else has asked for, more than can be sent."""
        wanted = ceil(max(seconds, 1) * MOST_REQUESTS_PER_SECOND)
        for number in islice(self.number, wanted):
            turn, nth = divmod(number, len(self.services))
            service_id = key("service", self.services[nth])
            start_time = f"{self.first_day + turn * STEP:%Y-%m-%dT%H:%M:%SZ}"
            yield self._book(number, service_id, start_time)

    def refused(self, seconds: float) -> Iterator[bytes]:
        """Yield bookings of times that are taken."""
        for number, (service_id, start_time) in enumerate(self.taken):
            yield self._book(number, service_id, start_time)

    def find_times(self, days: int, services: list[int], seconds: float) -> Iterator[bytes]:
        """Yield the request for the free times of these services from tomorrow on."""
        ids = [key("service", number) for number in services]
        last = tomorrow() + timedelta(days=days - 1)
        window = f"from={tomorrow()}&to={last}"
        if len(ids) == 1:
            yield raw_request("GET", f"/services/{ids[0]}/availability?{window}")
        else:
            asked = "&".join(f"service_id={each}" for each in ids)
            yield raw_request("GET", f"/availability?{asked}&{window}")

    def take_seat(self, seconds: float) -> Iterator[bytes]:
        """Yield bookings of seats in the slots of classes, of both of which there are many."""
        for number in range(CLASS_SLOTS):
            yield self._booking(number, {"slot_id": key("published slot", number)})

    def publish(self, seconds: float) -> Iterator[bytes]:
        """Yield series of slots that have not been asked for before, more than can be sent."""
        wanted = ceil(max(seconds, 1) * MOST_SERIES_PER_SECOND)
        courses = self.size.courses
        first = datetime.combine(tomorrow(), time(2), ZoneInfo(ZONE))
        for number in islice(self.series, wanted):
            turn, course = divmod(number, len(courses))
            year, nth = divmod(turn, SERIES_A_DAY)
            # By the wall clock, as the days of a series follow each other.
            start_time = first + timedelta(days=year * SERIES, minutes=nth * 30)
            body = {
                "service_id": key("service", courses[course]),
                "start_time": start_time.isoformat(),
                "rrule": f"FREQ=DAILY;COUNT={SERIES}",
            }
            yield raw_request("POST", "/slots", token=self.provider, body=body)

    def log_in(self, seconds: float) -> Iterator[bytes]:
        """Yield logins."""
        for number in range(1, min(LOGINS, self.size.users) + 1):
            body = {"email": user_email(number), "password": self.password}
            yield raw_request("POST", "/auth/login", body=body)

    def _book(self, number: int, service_id: str, start_time: str) -> bytes:
        return self._booking(number, {"service_id": service_id, "start_time": start_time})

    def _booking(self, number: int, body: dict[str, str]) -> bytes:
        token = self.bookers[number % len(self.bookers)]
        return raw_request("POST", "/bookings", token=token, body=body)

    def _creating(self, any_user: str) -> str:
        """Return the script that books as `create` does, years later, so that nothing collides."""
        first_day = self.first_day + timedelta(days=4000)
        start = f"(timestamptz '{first_day:%Y-%m-%d} UTC' + :turn * interval '2 hours')"
        end = f"({start} + interval '30 minutes')"
        # As in `Size.quiet_services`: 1, 2, 6, 7, 11, 12 ...
        service = "\\set service 5 * ((:number % {0}) / 2) + 1 + :number % {0} % 2"
        setup = [
            any_user,
            "\\set bookings :bookings + 1",
            "\\set number :bookings * 16 + :client_id",
            service.format(len(self.services)),
            f"\\set turn :number / {len(self.services)}",
        ]
        values = {
            "id": "benchmark.key('new booking', :number)",
            "user_id": A_USER,
            "service_id": A_SERVICE,
            "service_ids": f"ARRAY[{A_SERVICE}]",
            "calendar_id": "benchmark.key('calendar', :service)",
            "slot_id": "NULL",
            "occupant": A_SERVICE,
            "capacity": "1",
            # Nothing changes calendars during a run, so it need not come from the terms.
            "version": "(SELECT version FROM catalog_calendar"
            " WHERE id = benchmark.key('calendar', :service))",
            "start_time": start,
            "end_time": end,
            "blocked_from": start,
            "blocked_until": end,
            "status": "'pending'",
            "attendee_name": "''",
            "attendee_email": "''",
            "notes": "''",
            "price": "25",
            "currency": "'USD'",
            "hold_expires_at": "NULL",
            "event": "'booking.created'",
            "actor_id": A_USER,
            "at": "now()",
        }
        statements = [queries.SIGNED_IN, queries.TERMS_AT_START, queries.CREATE]
        return script(setup, statements, values)
