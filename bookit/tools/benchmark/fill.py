"""Filling a database with a town's services, users and bookings, by SQL alone.

Beside the town, and numbered after it, are services in Lisbon, each on a calendar of its own with
opening hours: diaries, in which free times are looked for; classes with seats; and courses, of
which slots are published. They are the last by title, and no customer has booked them.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import psycopg

# How many appointments of a quarter of an hour the diaries have from tomorrow on, spread over the
# days; there is time for 36 a day. The more gaps between them the more there is to do.
DIARIES = [0, 2_000, *[100] * 50]
DIARY_DAYS = 62
# As many seats as are taken in a minute, in slots each hour from tomorrow on.
CLASSES, SLOTS_OF_A_CLASS, SEATS_OF_A_SLOT = 20, 50, 100
CLASS_SLOTS = CLASSES * SLOTS_OF_A_CLASS
COURSES = 50
ZONE = "Europe/Lisbon"
# Milliseconds, somewhere in 2025.
FIRST_ID = 0x0194_0000_0000


@dataclass(frozen=True)
class Size:
    """How much there is of everything in the town."""

    services: int = 1_000
    bookings: int = 100_000

    @property
    def users(self) -> int:
        """The customers: each has about fifty bookings, so that a page of their own is full."""
        return max(self.bookings // 50, 10)

    @property
    def providers(self) -> int:
        """Those whose time is sold, ten calendars each; numbered after the customers."""
        return max(self.services // 10, 1)

    def quiet_services(self, most: int) -> list[int]:
        """Return the numbers of services with one seat on a calendar of their own."""
        return [n for n in range(1, self.services + 1) if n % 5 in (1, 2)][:most]

    def diaries(self, appointments: int) -> list[int]:
        """Return the numbers of the diaries with that many appointments."""
        return [self.services + n for n, has in enumerate(DIARIES, 1) if has == appointments]

    @property
    def last_diary(self) -> int:
        """The number of the last diary; the classes come after it."""
        return self.services + len(DIARIES)

    @property
    def courses(self) -> list[int]:
        """The numbers of the courses."""
        first = self.last_diary + CLASSES + 1
        return [*range(first, first + COURSES)]

    @property
    def lisbon_provider(self) -> int:
        """The number of the user whose all of that is in Lisbon; one of the town's providers."""
        return self.users + 1


def key(kind: str, number: int) -> str:
    """Return the id of a row, such as `user` 7; `benchmark.key` does the same in SQL.

    Of version 7, a millisecond after that of the row before it: where ids differ says how well
    PostgreSQL can arrange them.
    """
    digits = f"{FIRST_ID + number:012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8{ord(kind[0]):03x}-000000000000"


PREPARE = """
CREATE SCHEMA benchmark;
CREATE FUNCTION benchmark.key(kind text, number bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (
    lpad(to_hex(%(first_id)s + number), 12, '0') || '70008' || lpad(to_hex(ascii(kind)), 3, '0')
    || '000000000000'
)::uuid;
"""

# What bookings are without what follows from them.
NO_EVENTS = """
CREATE OR REPLACE FUNCTION benchmark.nothing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RETURN NULL;
END $$;
CREATE TRIGGER benchmark_nothing BEFORE INSERT ON bookings_bookingevent
FOR EACH ROW EXECUTE FUNCTION benchmark.nothing();
ALTER TABLE bookings_bookingevent DISABLE TRIGGER booking_events_are_followed_up;
"""
EVENTS_AGAIN = """
DROP TRIGGER benchmark_nothing ON bookings_bookingevent;
ALTER TABLE bookings_bookingevent ENABLE TRIGGER booking_events_are_followed_up;
"""

USERS = """
INSERT INTO accounts_user (id, password, name, email, role, timezone, is_active, created_at)
SELECT benchmark.key('user', n), %(password)s, 'Customer ' || n, 'user' || n || '@example.com',
    CASE WHEN n <= %(users)s THEN 'user' ELSE 'provider' END, 'UTC', true,
    now() - make_interval(days => 100 + n %% 400)
FROM generate_series(1, %(users)s + %(providers)s) AS n
"""

# Every fifth service shares the calendar of the one before it.
CALENDARS = """
INSERT INTO catalog_calendar (id, name, timezone, provider_id, created_at)
SELECT benchmark.key('calendar', n), 'Chair ' || n, 'UTC',
    benchmark.key('user', %(users)s + 1 + n %% %(providers)s), now() - interval '400 days'
FROM generate_series(1, %(services)s) AS n WHERE n %% 5 <> 0 OR n = %(services)s
"""

SERVICES = """
INSERT INTO catalog_service (
    id, calendar_id, title, description, category, price, currency, duration_minutes, capacity,
    mode, requires_confirmation, buffer_before_minutes, buffer_after_minutes, min_notice_minutes,
    cancellation_notice_minutes, is_active, rating_sum, rating_count, created_at
)
SELECT benchmark.key('service', n),
    benchmark.key('calendar', CASE WHEN n %% 5 = 0 AND n < %(services)s THEN n - 1 ELSE n END),
    (ARRAY['Haircut', 'Piano lesson', 'Yoga class', 'Massage', 'Personal training', 'Tax advice',
           'Portrait session'])[1 + n %% 7] || ' ' || n,
    'Bring what you need and come five minutes early. The price includes everything; '
    || 'ask at the desk when this is your visit number one. Room ' || n %% 40 || ', second floor.',
    (ARRAY['hair', 'music', 'sport', 'health', 'sport', 'advice', 'photo'])[1 + n %% 7],
    15 + n %% 80, 'USD', (ARRAY[30, 45, 60, 90])[1 + n %% 4],
    CASE n %% 10 WHEN 3 THEN 12 WHEN 8 THEN 4 ELSE 1 END,
    'open', n %% 2 = 0, 0, (n %% 3) * 5, 0, 60, true, n %% 40 * 4, n %% 40,
    now() - make_interval(days => n %% 400)
FROM generate_series(1, %(services)s) AS n
"""

# Four appointments a day, every second day, so that of two services on one calendar each has its
# days; those of a class with many seats are further apart. Seven of ten lie in the past.
BOOKINGS = """
INSERT INTO bookings_booking (
    id, user_id, service_id, calendar_id, seat, start_time, end_time, blocked, status,
    attendee_name, attendee_email, notes, price, currency, created_at, updated_at
)
SELECT benchmark.key('booking', n), benchmark.key('user', 1 + (n + k) %% %(users)s),
    service.id, service.calendar_id, 1 + k - first, start_time, end_time,
    tstzrange(start_time - make_interval(mins => service.buffer_before_minutes),
              end_time + make_interval(mins => service.buffer_after_minutes)),
    CASE WHEN start_time < now()
        THEN CASE dice %% 12 WHEN 0 THEN 'cancelled' WHEN 1 THEN 'no_show' ELSE 'completed' END
        ELSE CASE dice %% 8 WHEN 0 THEN 'cancelled' WHEN 1 THEN 'pending' ELSE 'confirmed' END
    END,
    '', '', CASE WHEN dice %% 5 = 0 THEN 'I may be some minutes late.' ELSE '' END,
    service.price, service.currency, booked_at, booked_at
FROM generate_series(0, %(bookings)s - 1) AS n
CROSS JOIN LATERAL (SELECT n / %(services)s AS k, abs(hashint8(n)::bigint) AS dice) AS nth
JOIN catalog_service AS service ON service.id = benchmark.key('service', 1 + n %% %(services)s)
CROSS JOIN LATERAL (SELECT k - k %% service.capacity AS first) AS session
CROSS JOIN LATERAL (
    SELECT date_trunc('day', now())
        - make_interval(days => (%(bookings)s / %(services)s / 2 * 0.7)::int)
        + make_interval(days => 2 * (first / 4) + (n %% 5 = 4)::int,
                        hours => (ARRAY[9, 11, 14, 16])[1 + first / service.capacity %% 4])
) AS begins (start_time)
CROSS JOIN LATERAL (
    SELECT start_time + make_interval(mins => service.duration_minutes) AS end_time,
        least(start_time, now()) - make_interval(hours => 2 + (dice %% 400)::int) AS booked_at
) AS rest
"""

LISBON_CALENDARS = """
INSERT INTO catalog_calendar (id, name, timezone, provider_id, created_at)
SELECT benchmark.key('calendar', n), 'Room ' || n, %(zone)s,
    benchmark.key('user', %(lisbon_provider)s), now() - interval '400 days'
FROM generate_series(%(services)s + 1, %(last)s) AS n
"""
OPENING_HOURS = """
INSERT INTO catalog_openinghours (id, calendar_id, weekday, opens, closes)
SELECT benchmark.key('hours', n * 7 + weekday), benchmark.key('calendar', n), weekday, 540, 1080
FROM generate_series(%(services)s + 1, %(last)s) AS n, generate_series(0, 6) AS weekday
"""
LISBON_SERVICES = """
INSERT INTO catalog_service (
    id, calendar_id, title, description, category, price, currency, duration_minutes, capacity,
    mode, requires_confirmation, buffer_before_minutes, buffer_after_minutes, min_notice_minutes,
    cancellation_notice_minutes, is_active, rating_sum, rating_count, created_at
)
SELECT benchmark.key('service', n), benchmark.key('calendar', n), 'Zither lesson ' || n,
    'Bring your own.', 'music', 25, 'EUR', CASE WHEN n <= %(last_diary)s THEN 15 ELSE 30 END,
    CASE WHEN n <= %(last_diary)s THEN 1 ELSE %(seats_of_a_slot)s END,
    CASE WHEN n <= %(last_diary)s THEN 'open' ELSE 'slots' END,
    false, 0, 0, 0, 60, true, 0, 0, now()
FROM generate_series(%(services)s + 1, %(last)s) AS n
"""
# In no order, as people book.
APPOINTMENTS = """
INSERT INTO bookings_booking (
    id, user_id, service_id, calendar_id, seat, start_time, end_time, blocked, status,
    attendee_name, attendee_email, notes, price, currency, created_at, updated_at
)
SELECT benchmark.key('appointment', row_number() OVER ()),
    benchmark.key('user', %(lisbon_provider)s), service.id, service.calendar_id, 1,
    start_time, end_time, tstzrange(start_time, end_time), 'confirmed',
    '', '', '', service.price, service.currency, now(), now()
FROM unnest(%(diaries)s::int[]) WITH ORDINALITY AS diary (appointments, number)
JOIN catalog_service AS service ON service.id = benchmark.key('service', %(services)s + number)
CROSS JOIN LATERAL (
    SELECT nth * %(diary_days)s * 36 / appointments AS quarter
    FROM generate_series(0, appointments - 1) AS nth
) AS spread
CROSS JOIN LATERAL (
    SELECT (
        %(tomorrow)s::date + quarter / 36 + time '09:00' + quarter %% 36 * interval '15 minutes'
    ) AT TIME ZONE %(zone)s AS start_time
) AS begins
CROSS JOIN LATERAL (SELECT start_time + interval '15 minutes' AS end_time) AS ends
ORDER BY hashint4(quarter), number
"""
SLOTS = """
INSERT INTO bookings_slot (
    id, service_id, calendar_id, start_time, end_time, blocked, capacity, status, created_at
)
SELECT benchmark.key('published slot', n), service.id, service.calendar_id, start_time, end_time,
    tstzrange(start_time, end_time), service.capacity, 'scheduled', now()
FROM generate_series(0, %(class_slots)s - 1) AS n
JOIN catalog_service AS service
    ON service.id = benchmark.key('service', %(last_diary)s + 1 + n %% %(classes)s)
CROSS JOIN LATERAL (
    SELECT %(tomorrow)s::timestamptz + n / %(classes)s * interval '1 hour' AS start_time
) AS begins
CROSS JOIN LATERAL (SELECT start_time + interval '30 minutes' AS end_time) AS ends
"""

EVENTS = """
INSERT INTO bookings_bookingevent (booking_id, type, actor_id, at, data)
SELECT id, 'booking.created', user_id, created_at, jsonb_build_object(
    'status', 'pending', 'start_time', start_time, 'end_time', end_time, 'seat', seat
) FROM bookings_booking
"""

TOWN = [USERS, CALENDARS, SERVICES, BOOKINGS]
LISBON = [LISBON_CALENDARS, OPENING_HOURS, LISBON_SERVICES, APPOINTMENTS, SLOTS]

# Times at which nobody else gets in, on the services that creating uses too.
TAKEN = """
SELECT service_id::text, to_char(start_time, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') FROM bookings_booking
WHERE active AND start_time > now() + interval '2 hours' AND service_id = ANY(%(services)s)
ORDER BY id LIMIT 1000
"""


def tomorrow() -> date:
    """Return the first day of what is to come in Lisbon."""
    return datetime.now(UTC).date() + timedelta(days=1)


def fill(url: str, size: Size, *, password: str) -> None:
    """Fill the migrated database at `url`; `password` is every user's, hashed already."""
    values = {
        "users": size.users,
        "providers": size.providers,
        "services": size.services,
        "bookings": size.bookings,
        "password": password,
        "zone": ZONE,
        "lisbon_provider": size.lisbon_provider,
        "diaries": DIARIES,
        "diary_days": DIARY_DAYS,
        "last_diary": size.last_diary,
        "classes": CLASSES,
        "class_slots": CLASS_SLOTS,
        "seats_of_a_slot": SEATS_OF_A_SLOT,
        "first_id": FIRST_ID,
        "last": size.courses[-1],
        "tomorrow": tomorrow(),
    }
    with psycopg.connect(url, autocommit=True) as connection:
        with connection.transaction():
            connection.execute("SET LOCAL bookit.follow_up = off")
            for statement in (PREPARE, *TOWN, *LISBON, EVENTS):
                # Values as text in the statement: the planner sees how much there will be.
                psycopg.ClientCursor(connection).execute(statement, values)
        connection.execute("VACUUM (ANALYZE)")


def write_events(url: str, *, written: bool) -> None:
    """Let the database write events and their jobs, or neither."""
    with psycopg.connect(url) as connection:
        connection.execute(EVENTS_AGAIN if written else NO_EVENTS)


def taken_times(url: str, services: list[int]) -> list[tuple[str, str]]:
    """Return services and starts, in the future, that are booked."""
    with psycopg.connect(url) as connection:
        found = connection.execute(TAKEN, {"services": [key("service", n) for n in services]})
        return [(service, start) for service, start in found]
