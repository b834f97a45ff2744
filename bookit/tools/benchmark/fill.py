"""Fills a database with the services, users and bookings of a town, and with services in Lisbon.

The services in Lisbon come after the services of the town, by number and by title. Each service in
Lisbon has its own calendar with opening hours. There are three kinds: diaries, in which free times
are searched; classes, whose slots have many seats; and courses without slots, for which the
benchmark publishes some. Only the diaries have bookings, all of them made by their provider.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from operator import attrgetter
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Model
from django.db.models.expressions import DatabaseDefault
from psycopg.types.json import JsonbDumper
from rest_framework_simplejwt.tokens import AccessToken

from accounts.models import User
from bookings.events import state_of
from bookings.models import Booking, BookingEvent, Occupancy, Slot, blocked_period
from catalog.models import Calendar, OpeningHours, Service

# The number of appointments in each diary. An appointment takes a quarter of an hour, and a day has
# room for 36 appointments. The appointments are spread over `DIARY_DAYS` days from tomorrow on. The
# more gaps there are between appointments, the more work a search has to do.
DIARIES = [0, 2_000, *[100] * 50]
DIARY_DAYS = 62
A_DAY = timedelta(days=1)
QUARTER, QUARTERS_A_DAY = timedelta(minutes=15), 36
OPENS, CLOSES = 9 * 60, 18 * 60
# Each class has one slot an hour from tomorrow on. Together, the slots have more seats than clients
# can book in a minute.
CLASSES, SLOTS_OF_A_CLASS, SEATS_OF_A_SLOT = 20, 50, 100
CLASS_SLOTS = CLASSES * SLOTS_OF_A_CLASS
COURSES = 50
ZONE = "Europe/Lisbon"
# One statement adds at most this number of bookings.
AT_ONCE = 250_000
# The timestamp in the first id, in milliseconds. It is in December 2024.
FIRST_ID = 0x0194_0000_0000

TITLES = [
    ("Haircut", "hair"),
    ("Piano lesson", "music"),
    ("Yoga class", "sport"),
    ("Massage", "health"),
    ("Personal training", "sport"),
    ("Tax advice", "advice"),
    ("Portrait session", "photo"),
]
DESCRIPTION = (
    "Bring what you need and come five minutes early. The price includes everything; ask at the"
    " desk when this is your visit number one. Room {}, second floor."
)


@dataclass(frozen=True)
class Size:
    """The number of services and bookings in the town, and the numbers that follow from them."""

    services: int = 1_000
    bookings: int = 100_000

    @property
    def customers(self) -> int:
        """The number of customers. Each has about fifty bookings: more than a page."""
        return max(self.bookings // 50, 10)

    @property
    def providers(self) -> int:
        """The number of providers, who are numbered after the customers.

        Most have ten calendars. Every fifth has none, except the provider in Lisbon.
        """
        return max(self.services // 10, 1)

    def quiet_services(self, most: int) -> list[int]:
        """Return the numbers of up to `most` services with one seat and a calendar of their own."""
        return [n for n in range(1, self.services + 1) if n % 5 in (1, 2)][:most]

    def diaries(self, appointments: int) -> list[int]:
        """Return the numbers of the diaries with the given number of appointments."""
        return [self.services + n for n, has in enumerate(DIARIES, 1) if has == appointments]

    @property
    def last_diary(self) -> int:
        """The number of the last diary. The classes come after it."""
        return self.services + len(DIARIES)

    @property
    def courses(self) -> list[int]:
        """The numbers of the courses."""
        first = self.last_diary + CLASSES + 1
        return [*range(first, first + COURSES)]

    @property
    def admin(self) -> int:
        """The number of the admin, who is the last user."""
        return self.customers + self.providers + 1

    @property
    def lisbon_provider(self) -> int:
        """The number of the user who provides all services in Lisbon, and few in the town."""
        return self.customers + 1


def key(kind: str, number: int) -> str:
    """Return the id of a row, for example of user 7.

    The id is a UUID of version 7. Its timestamp is one millisecond after the timestamp of the
    previous row. As in production, consecutive ids are therefore close together in an index. Of
    `kind`, only the first letter counts, so kinds whose ids must differ begin with different
    letters.
    """
    digits = f"{FIRST_ID + number:012x}"
    return f"{digits[:8]}-{digits[8:]}-{_ending(kind)}"


def user_email(number: int) -> str:
    """Return the email address of a user."""
    return f"user{number}@example.com"


def access_token(number: int) -> str:
    """Return an access token of a user, which the application in this process accepts."""
    token = AccessToken()
    token["user_id"] = key("user", number)
    return str(token)


def key_sql(kind: str, number: str) -> str:
    """Return an SQL expression for the id that `key` returns. `number` is an expression too."""
    digits = f"lpad(to_hex({FIRST_ID} + {number}), 12, '0')"
    return f"({digits} || '{_ending(kind).replace('-', '')}')::uuid"


def _ending(kind: str) -> str:
    return f"7000-8{ord(kind[0]):03x}-000000000000"


def tomorrow() -> date:
    """Return the first day of the appointments and slots in Lisbon."""
    return datetime.now(UTC).date() + A_DAY


@dataclass
class Town:
    """The rows that `store` inserts. Each public method yields the rows of one table.

    `ADD_BOOKINGS` adds the bookings of the town, and `ADD_EVENTS` adds one event for each booking.

    Args:
        password: the password of every user, already hashed.
    """

    size: Size
    password: str
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    random: Random = field(default_factory=lambda: Random(1))  # noqa: S311 - not a secret
    # `services` fills this dictionary for `appointments` and `slots`.
    services_by_number: dict[int, Service] = field(default_factory=dict)

    def users(self) -> Iterator[User]:
        """Yield the customers, then the providers, then the admin."""
        for n in range(1, self.size.admin + 1):
            role = User.Role.USER if n <= self.size.customers else User.Role.PROVIDER
            yield User(
                id=key("user", n),
                password=self.password,
                name=f"Customer {n}",
                email=user_email(n),
                role=User.Role.ADMIN if n == self.size.admin else role,
                created_at=self.at - timedelta(days=100 + n % 400),
            )

    def calendars(self) -> Iterator[Calendar]:
        """Yield the calendars.

        Every fifth service of the town, except the last service, shares the calendar of the service
        before it.
        """
        for n in range(1, self.size.courses[-1] + 1):
            in_lisbon = n > self.size.services
            if in_lisbon or self._calendar_of(n) == n:
                provider = self.size.customers + 1 + (0 if in_lisbon else n % self.size.providers)
                yield Calendar(
                    id=key("calendar", n),
                    name=f"Room {n}" if in_lisbon else f"Chair {n}",
                    timezone=ZONE if in_lisbon else "UTC",
                    provider_id=key("user", provider),
                    created_at=self.at - timedelta(days=400),
                )

    def opening_hours(self) -> Iterator[OpeningHours]:
        """Yield the opening hours in Lisbon, the same on every day."""
        for n in range(self.size.services + 1, self.size.courses[-1] + 1):
            for weekday in range(7):
                yield OpeningHours(
                    id=key("hours", n * 7 + weekday),
                    calendar_id=key("calendar", n),
                    weekday=weekday,
                    opens=OPENS,
                    closes=CLOSES,
                )

    def services(self) -> Iterator[Service]:
        """Yield the services of the town, then the services in Lisbon."""
        for n in range(1, self.size.courses[-1] + 1):
            in_town = n <= self.size.services
            service = self._town_service(n) if in_town else self._lisbon_service(n)
            service.id = key("service", n)
            service.calendar_id = key("calendar", self._calendar_of(n))
            service.cancellation_notice_minutes = 60
            self.services_by_number[n] = service
            yield service

    def _calendar_of(self, service: int) -> int:
        shares = service % 5 == 0 and service < self.size.services
        return service - 1 if shares else service

    def _town_service(self, n: int) -> Service:
        title, category = TITLES[n % 7]
        return Service(
            title=f"{title} {n}",
            description=DESCRIPTION.format(n % 40),
            category=category,
            price=Decimal(15 + n % 80),
            currency="USD",
            duration_minutes=[30, 45, 60, 90][n % 4],
            capacity={3: 12, 8: 4}.get(n % 10, 1),
            requires_confirmation=n % 2 == 0,
            buffer_after_minutes=(n % 3) * 5,
            rating_sum=n % 40 * 4,
            rating_count=n % 40,
            created_at=self.at - timedelta(days=n % 400),
        )

    def _lisbon_service(self, n: int) -> Service:
        is_diary = n <= self.size.last_diary
        return Service(
            title=f"Zither lesson {n}",
            description="Bring your own.",
            category="music",
            price=Decimal(25),
            currency="EUR",
            duration_minutes=15 if is_diary else 30,
            capacity=1 if is_diary else SEATS_OF_A_SLOT,
            mode=Service.Mode.OPEN if is_diary else Service.Mode.SLOTS,
            requires_confirmation=False,
            created_at=self.at,
        )

    def appointments(self) -> Iterator[Booking]:
        """Yield the appointments in the diaries, in random rather than chronological order."""
        zone = ZoneInfo(ZONE)
        quarters = [
            (self.size.services + diary, nth * DIARY_DAYS * QUARTERS_A_DAY // appointments)
            for diary, appointments in enumerate(DIARIES, 1)
            for nth in range(appointments)
        ]
        self.random.shuffle(quarters)
        for n, (number, quarter) in enumerate(quarters, 1):
            day, nth = divmod(quarter, QUARTERS_A_DAY)
            opens = datetime.combine(tomorrow() + timedelta(days=day), time(OPENS // 60), zone)
            yield booked(
                self.services_by_number[number],
                (opens + nth * QUARTER).astimezone(UTC),
                id=key("appointment", n),
                user_id=key("user", self.size.lisbon_provider),
                created_at=self.at,
                updated_at=self.at,
            )

    def slots(self) -> Iterator[Slot]:
        """Yield the slots of the classes."""
        first = datetime.combine(tomorrow(), time(), UTC)
        for n in range(CLASS_SLOTS):
            hour, nth = divmod(n, CLASSES)
            service = self.services_by_number[self.size.last_diary + 1 + nth]
            start = first + timedelta(hours=hour)
            end = start + timedelta(minutes=service.duration_minutes)
            yield Slot(
                id=key("published slot", n),
                service=service,
                calendar_id=service.calendar_id,
                start_time=start,
                end_time=end,
                blocked=DateTimeTZRange(start, end),
                capacity=service.capacity,
                created_at=self.at,
            )


def booked(service: Service, start: datetime, **fields: Any) -> Booking:
    """Return a booking of a service on its current terms, by default confirmed and in seat 1."""
    end = start + timedelta(minutes=service.duration_minutes)
    before = timedelta(minutes=service.buffer_before_minutes)
    after = timedelta(minutes=service.buffer_after_minutes)
    return Booking(
        **{"seat": 1, "status": Booking.Status.CONFIRMED, **fields},
        service=service,
        calendar_id=service.calendar_id,
        start_time=start,
        end_time=end,
        blocked=blocked_period(start, end, before=before, after=after),
        price=service.price,
        currency=service.currency,
    )


def fill(size: Size, *, password: str) -> None:
    """Fill Django's database, which must be migrated and empty.

    Args:
        password: the password of every user, already hashed.
    """
    town = Town(size, password)
    with transaction.atomic(), indexes_dropped(Booking, Occupancy, BookingEvent):
        for rows in (town.users(), town.calendars(), town.opening_hours(), town.services()):
            store(rows)
        with connection.cursor() as cursor:
            cursor.execute(SEED)
            for first in range(0, size.bookings, AT_ONCE):
                last = min(first + AT_ONCE, size.bookings) - 1
                cursor.execute(ADD_BOOKINGS, _numbers(size, town.at, first, last))
        store(town.appointments())
        store(town.slots())
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE bookings_bookingevent DISABLE TRIGGER USER")
            cursor.execute(ADD_EVENTS)
            cursor.execute("ALTER TABLE bookings_bookingevent ENABLE TRIGGER USER")
    vacuum()


def _numbers(size: Size, at: datetime, first: int, last: int) -> dict[str, Any]:
    """Return the parameters of ADD_BOOKINGS. Seven out of ten bookings are in the past."""
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    # A service has two bookings a day on average; see ADD_BOOKINGS.
    before = timedelta(days=int(size.bookings // size.services // 2 * 0.7))
    return {
        "first": first,
        "last": last,
        "services": size.services,
        "customers": size.customers,
        "at": at,
        "begin": midnight - before,
    }


@contextmanager
def indexes_dropped(*models: type[Model]) -> Iterator[None]:
    """Drop the indexes of some models' tables while a `with` block fills the tables.

    Filling the tables then takes a tenth of the time. At the end, the indexes, the constraints that
    have an index, and the foreign keys from and to the tables are created again, and PostgreSQL
    checks all rows. The block must be inside a transaction.
    """
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        cursor.execute(FAST)
        cursor.execute(INDEXES, {"tables": [model._meta.db_table for model in models]})
        names = [column.name for column in cursor.description]
        found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        for each in reversed(found):
            if each["is_constraint"]:
                cursor.execute(
                    f"ALTER TABLE {each['table_name']} DROP CONSTRAINT {quote(each['name'])}"
                )
            else:
                cursor.execute(f"DROP INDEX {quote(each['name'])}")
        yield
        # PostgreSQL refuses to alter a table while deferred checks of its foreign keys are pending.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for each in found:
            if each["is_constraint"]:
                cursor.execute(
                    f"ALTER TABLE {each['table_name']}"
                    f" ADD CONSTRAINT {quote(each['name'])} {each['definition']}"
                )
            else:
                cursor.execute(each["definition"])


def store(rows: Iterable[Model]) -> None:
    """Insert rows of one model with COPY, which is several times faster than `bulk_create`.

    If the first row leaves a column to the database's default, all rows must do so.
    """
    rows = iter(rows)
    first = next(rows)
    columns = [
        field
        for field in first._meta.concrete_fields
        if not field.generated and not isinstance(getattr(first, field.attname), DatabaseDefault)
    ]
    values = attrgetter(*(field.attname for field in columns))
    quote = connection.ops.quote_name
    names = ", ".join(quote(str(field.column)) for field in columns)
    text = f"COPY {quote(first._meta.db_table)} ({names}) FROM STDIN"
    with connection.cursor() as cursor:
        cursor.adapters.register_dumper(dict, JsonbDumper)
        with cursor.copy(text) as copy:
            for row in chain([first], rows):
                copy.write_row(values(row))


def vacuum() -> None:
    """Vacuum and analyze all tables, so that PostgreSQL plans well."""
    with connection.cursor() as cursor:
        cursor.execute(VACUUM)


# Cleans up all tables, and collects new statistics for the planner.
#
# Parameters: none.
# Columns: none.
VACUUM = "VACUUM (ANALYZE)"

# Lets PostgreSQL use more memory until the end of the transaction, to sort rows and build indexes.
#
# Parameters: none.
# Columns: none.
FAST = """
SET LOCAL maintenance_work_mem = '512MB';
SET LOCAL work_mem = '256MB';
"""

# Finds the indexes and constraints that can be dropped from tables, in the order in which they are
# created again: foreign keys come last, because they need unique constraints. The `conindid` of a
# foreign key is the index of the rows to which it refers.
#
# Parameters: tables text[].
# Columns: table_name text (already quoted, if necessary), name text, definition text,
#     is_constraint boolean, comes_last boolean.
INDEXES = """
SELECT conrelid::regclass::text AS table_name, conname AS name,
    pg_get_constraintdef(oid) AS definition, true AS is_constraint, contype = 'f' AS comes_last
FROM pg_constraint
WHERE contype IN ('p', 'u', 'x') AND conrelid = ANY(%(tables)s::text[]::regclass[])
   OR contype = 'f' AND %(tables)s::text[]::regclass[] && ARRAY[conrelid, confrelid]::regclass[]
UNION ALL
SELECT indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid), false,
    false
FROM pg_index
WHERE indrelid = ANY(%(tables)s::text[]::regclass[])
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f')
ORDER BY comes_last, name
"""

# Seeds the random numbers of ADD_BOOKINGS, so that each run stores the same bookings.
#
# Parameters: none.
# Columns: none.
SEED = "SELECT setseed(0.1)"

# Adds bookings of the services of the town. A service with one seat has four sessions on every
# second day; another service on the same calendar has its sessions on the days between. A service
# with more seats has fewer sessions, but as many bookings as a service with one seat. All seats of
# a session get a booking, except perhaps in a service's last session; some bookings are cancelled.
# `turn` counts the bookings of a service, and `first_turn` is the turn of the first booking of the
# session.
#
# Parameters: first bigint, last bigint, services bigint, customers bigint, at timestamptz,
#     begin timestamptz.
# Columns: none.
ADD_BOOKINGS = f"""
INSERT INTO bookings_booking (
    id, user_id, service_id, calendar_id, seat, start_time, end_time, blocked, status,
    attendee_name, attendee_email, notes, price, currency, metadata, created_at, updated_at
)
SELECT {key_sql("booking", "n")}, {key_sql("user", "(1 + (n + turn) %% %(customers)s::bigint)")},
    service.id, service.calendar_id, 1 + turn - first_turn, start_time, end_time,
    tstzrange(
        start_time - service.buffer_before_minutes * interval '1 minute',
        end_time + service.buffer_after_minutes * interval '1 minute'
    ),
    CASE WHEN start_time < %(at)s::timestamptz
        THEN COALESCE((ARRAY['cancelled', 'no_show'])[1 + floor(random() * 12)], 'completed')
        ELSE COALESCE((ARRAY['cancelled', 'pending'])[1 + floor(random() * 8)], 'confirmed')
    END,
    '', '', CASE WHEN random() < 0.2 THEN 'I may be some minutes late.' ELSE '' END,
    service.price, service.currency, '{{}}', made_at, made_at
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
CROSS JOIN LATERAL (
    SELECT n / %(services)s::bigint AS turn, n %% %(services)s::bigint + 1 AS number
) AS numbered
JOIN catalog_service AS service ON service.id = {key_sql("service", "number")}
CROSS JOIN LATERAL (
    SELECT turn - turn %% service.capacity AS first_turn
) AS session
CROSS JOIN LATERAL (
    SELECT %(begin)s::timestamptz + make_interval(
        days => (2 * (first_turn / 4) + (number %% 5 = 0)::int)::int,
        hours => (ARRAY[9, 11, 14, 16])[1 + first_turn / service.capacity %% 4]
    ) AS start_time
) AS started
CROSS JOIN LATERAL (
    SELECT start_time + service.duration_minutes * interval '1 minute' AS end_time,
        LEAST(start_time, %(at)s::timestamptz)
            - make_interval(hours => 2 + floor(random() * 400)::int) AS made_at
) AS ended
ORDER BY n
"""  # noqa: S608 - only our own expressions are interpolated, no values

# Adds the first event of every booking, in which the booking is pending. The caller has disabled
# the triggers of events, which would look for earlier events and enqueue a job.
#
# Parameters: none.
# Columns: none.
ADD_EVENTS = f"""
INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, actor_id, at, data)
SELECT calendar_id, id, '{BookingEvent.Type.CREATED}', user_id, created_at,
    jsonb_build_object({state_of("booking")}, 'status', '{Booking.Status.PENDING}')
FROM bookings_booking AS booking
"""  # noqa: S608 - only our own names are interpolated, no values

# Disables events. A trigger adds a job when events are written, so this disables that job too.
#
# Parameters: none.
# Columns: none.
DISABLE_EVENTS = """
ALTER TABLE bookings_bookingevent DISABLE TRIGGER USER;
CREATE FUNCTION benchmark_ignore_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$;
CREATE TRIGGER benchmark_ignore_event BEFORE INSERT ON bookings_bookingevent
FOR EACH ROW EXECUTE FUNCTION benchmark_ignore_event();
"""

# Enables events again after DISABLE_EVENTS.
#
# Parameters: none.
# Columns: none.
ENABLE_EVENTS = """
DROP TRIGGER benchmark_ignore_event ON bookings_bookingevent;
DROP FUNCTION benchmark_ignore_event;
ALTER TABLE bookings_bookingevent ENABLE TRIGGER USER;
"""


@contextmanager
def events_disabled() -> Iterator[None]:
    """Let the database write neither events nor the jobs that follow them inside a `with` block."""
    with connection.cursor() as cursor:
        cursor.execute(DISABLE_EVENTS)
        try:
            yield
        finally:
            cursor.execute(ENABLE_EVENTS)


def taken_times(services: list[int]) -> list[tuple[str, str]]:
    """Return up to 1,000 pairs of a service's id and a future time at which it is booked."""
    taken = Booking.objects.filter(
        active=True,
        start_time__gt=datetime.now(UTC) + timedelta(hours=2),
        service__in=[key("service", number) for number in services],
    )
    found = taken.order_by("id").values_list("service_id", "start_time")[:1000]
    return [(str(service), f"{start:%Y-%m-%dT%H:%M:%SZ}") for service, start in found]
