"""Filling a database with a town's services, users and bookings, by SQL alone."""

from dataclasses import dataclass

import psycopg


@dataclass(frozen=True)
class Size:
    """How much there is of everything."""

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


def key(kind: str, number: int) -> str:
    """Return the id of a row, such as `user` 7; `benchmark.key` does the same in SQL."""
    return f"01940000-0000-7000-8{ord(kind[0]):03x}-{number:012x}"


PREPARE = """
CREATE SCHEMA benchmark;
CREATE FUNCTION benchmark.key(kind text, number bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (
    '01940000-0000-7000-8' || lpad(to_hex(ascii(kind)), 3, '0')
    || '-' || lpad(to_hex(number), 12, '0')
)::uuid;
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

EVENTS = """
INSERT INTO bookings_bookingevent (booking_id, type, actor_id, at, data)
SELECT id, 'booking.created', user_id, created_at, jsonb_build_object(
    'status', 'pending', 'start_time', start_time, 'end_time', end_time, 'seat', seat
) FROM bookings_booking
"""

# Times at which nobody else gets in, on the services that creating uses too.
TAKEN = """
SELECT service_id::text, to_char(start_time, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') FROM bookings_booking
WHERE active AND start_time > now() + interval '2 hours' AND service_id = ANY(%(services)s)
ORDER BY id LIMIT 1000
"""


def fill(url: str, size: Size, *, password: str) -> None:
    """Fill the migrated database at `url`; `password` is every user's, hashed already."""
    values = {
        "users": size.users,
        "providers": size.providers,
        "services": size.services,
        "bookings": size.bookings,
        "password": password,
    }
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(PREPARE)
        with connection.transaction():
            for statement in (USERS, CALENDARS, SERVICES, BOOKINGS, EVENTS):
                # Values as text in the statement: the planner sees how much there will be.
                psycopg.ClientCursor(connection).execute(statement, values)
        connection.execute("VACUUM (ANALYZE)")


def taken_times(url: str, services: list[int]) -> list[tuple[str, str]]:
    """Return services and starts, in the future, that are booked."""
    with psycopg.connect(url) as connection:
        found = connection.execute(TAKEN, {"services": [key("service", n) for n in services]})
        return [(service, start) for service, start in found]
