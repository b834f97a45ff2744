"""The requests that are measured, and what is expected of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from math import ceil

from bookit.benchmark import queries
from bookit.benchmark.fill import Size, key
from bookit.benchmark.load import MOST_REQUESTS_PER_SECOND, raw_request
from bookit.benchmark.pgbench import script

# Customers who sign in for the run: the first fifty book, the next fifty look at what they have
# booked, and book nothing, so that their lists stay as they are. `login` is done by any of the 200.
BOOKERS, LOGINS = 50, 200
SERVICES_BOOKED = 200
# So far apart are the starts of a service's new bookings: longer than any service takes.
STEP = timedelta(hours=2)

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
    pgbench: str | None = None

    @property
    def has_reference(self) -> bool:
        """Whether the reference can do it too."""
        return self.least_ratio is not None


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
        taken: list[tuple[str, str]],
        password: str,
    ) -> None:
        self.size = size
        self.bookers, self.readers = bookers, readers
        self.taken = taken
        self.password = password
        self.services = size.quiet_services(SERVICES_BOOKED)
        # Beyond all that the database was filled with.
        self.first_day = datetime.now(UTC).replace(
            hour=0, minute=0, second=0, microsecond=0
        ) + timedelta(days=400)
        self.number = count()

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
            Case("refused", "create, time is taken", 409, self.refused, least_ratio=0.5),
            Case("login", "login", 200, self.log_in),
        ]

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

    def log_in(self, seconds: float) -> Iterator[bytes]:
        """Yield logins."""
        for number in range(1, min(LOGINS, self.size.users) + 1):
            body = {"email": user_email(number), "password": self.password}
            yield raw_request("POST", "/auth/login", body=body)

    def _book(self, number: int, service_id: str, start_time: str) -> bytes:
        token = self.bookers[number % len(self.bookers)]
        body = {"service_id": service_id, "start_time": start_time}
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
            "calendar_id": "benchmark.key('calendar', :service)",
            "capacity": "1",
            "start_time": start,
            "end_time": end,
            "blocked": f"tstzrange({start}, {end})",
            "status": "'pending'",
            "attendee_name": "''",
            "attendee_email": "''",
            "notes": "''",
            "price": "25",
            "currency": "'USD'",
            "created_at": "now()",
            "updated_at": "now()",
        }
        return script(setup, [queries.SIGNED_IN, queries.BOOKABLE, queries.CREATE], values)
