"""Simulates a year of bookings, and measures how much of the database is empty space afterwards.

On each day, customers book, providers confirm, some bookings are moved, cancelled or deleted, the
bookings of 30 days before are completed, and all jobs are deleted. PostgreSQL's own autovacuum
cleans up; it looks for work every second, because a simulated day takes less than a second.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.contrib.auth.hashers import make_password
from django.db import connection, transaction
from django.utils import timezone

from bookings.events import state_of
from bookings.models import BookingEvent
from bookit.runtime import servers
from bookit.runtime.embedded_postgres import running
from bookit.tools.benchmark import fill
from bookit.tools.benchmark.fill import Size, key
from bookit.tools.benchmark.jobs import Say, delete_jobs
from bookit.tools.benchmark.storage import Table, tables

DAYS = 365
# Autovacuum looks for work this often, so that a year of its work fits into minutes.
SETTINGS = {"autovacuum_naptime": "1s"}
# How long autovacuum may work after the last day.
SETTLE_SECONDS = 5
# The tables that are measured. The table of jobs is left out: it is smaller than a megabyte,
# because workers delete jobs at once.
CHURNED = ["bookings_booking", "bookings_occupancy", "bookings_bookingevent"]
# The target: at most this part of a table and its indexes is empty.
MOST_BLOAT = 0.3

# Makes one pending booking of each given service, and writes the events. The caller moves `begin`
# on by two hours a day, so that the bookings do not overlap.
#
# Parameters: services uuid[], begin timestamptz (when the bookings start), at timestamptz.
# Columns: none.
BOOK = f"""
WITH booking AS (
    INSERT INTO bookings_booking (
        id, user_id, service_id, calendar_id, seat, start_time, end_time, blocked, status,
        attendee_name, attendee_email, notes, price, currency, metadata, created_at, updated_at
    )
    SELECT uuid7(), (SELECT id FROM accounts_user ORDER BY id LIMIT 1), id, calendar_id, 1,
        begin, begin + interval '15 minutes',
        tstzrange(begin, begin + interval '15 minutes'), 'pending', '', '', '', price, currency,
        '{{}}', %(at)s::timestamptz, %(at)s::timestamptz
    FROM catalog_service CROSS JOIN (VALUES (%(begin)s::timestamptz)) AS day (begin)
    WHERE id = ANY(%(services)s::uuid[])
    RETURNING *
)
INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, actor_id, at, data)
SELECT calendar_id, id, '{BookingEvent.Type.CREATED}', user_id, created_at,
    jsonb_build_object({state_of("booking")})
FROM booking
"""  # noqa: S608 - only our own names are interpolated, no values

# Changes the status of a part of the bookings of a day, and writes the events.
#
# Parameters: begin timestamptz (when the bookings start), before text (the old status),
#     status text (the new status), part float (the part of the bookings that changes), type text,
#     at timestamptz.
# Columns: none.
CHANGE = f"""
WITH booking AS (
    UPDATE bookings_booking SET status = %(status)s::text
    WHERE start_time = %(begin)s::timestamptz
      AND status = %(before)s::text AND random() < %(part)s::float
    RETURNING *
)
INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, actor_id, at, data)
SELECT calendar_id, id, %(type)s::text, user_id, %(at)s::timestamptz,
    jsonb_build_object({state_of("booking")})
FROM booking
"""  # noqa: S608 - only our own names are interpolated, no values

# Moves a part of the confirmed bookings of a day by an hour. Unlike BookIt, it writes no event.
#
# Parameters: begin timestamptz, part float.
# Columns: none.
MOVE = """
UPDATE bookings_booking SET start_time = start_time + interval '1 hour',
    end_time = end_time + interval '1 hour',
    blocked = tstzrange(start_time + interval '1 hour', end_time + interval '1 hour')
WHERE start_time = %(begin)s::timestamptz
  AND status = 'confirmed' AND random() < %(part)s::float
"""

# Deletes a part of the cancelled bookings of a day. Like MOVE, it writes no event.
#
# Parameters: begin timestamptz, part float.
# Columns: none.
DELETE = """
DELETE FROM bookings_booking
WHERE start_time = %(begin)s::timestamptz
  AND status = 'cancelled' AND random() < %(part)s::float
"""


@dataclass(frozen=True)
class Bloat:
    """The bytes of a table and its indexes before and after a rewrite, and the table's updates."""

    name: str
    used: int
    compact: int
    updates: int
    # Updates that wrote to no index (HOT updates).
    hot_updates: int

    @property
    def part(self) -> float:
        """The part of the table and its indexes that a rewrite frees."""
        return max(0.0, 1 - self.compact / self.used)

    @staticmethod
    def markdown(found: "Sequence[Bloat]") -> Iterator[str]:
        """Yield the lines of a Markdown table, with a row for each database table."""
        yield "| Table | MB after a year | MB written anew | Empty | Updates | Wrote no index |"
        yield "|---|---|---|---|---|---|"
        for each in found:
            hot = f"{each.hot_updates / each.updates:.0%}" if each.updates else ""
            yield (
                f"| `{each.name}` | {each.used / 1e6:.1f} | {each.compact / 1e6:.1f} |"
                f" {each.part:.0%} | {each.updates:,} | {hot} |"
            )


def churn(size: Size, *, days: int, directory: Path, say: Say) -> list[Bloat]:
    """Fill a database, simulate `days` days, and return the bloat of the tables in `CHURNED`.

    Raises:
        EmbeddedPostgresError, ServerError: the simulation cannot continue.
    """
    with running(directory / "postgres-churn", settings=SETTINGS) as url:
        servers.migrate(url)
        with servers.connected_to(url):
            fill.fill(size, password=make_password(None))
            services = [key("service", n) for n in size.quiet_services(size.services)]
            # Later than all bookings that `fill` stores.
            begin = timezone.now().replace(microsecond=0) + timedelta(days=400)
            for day in range(days):
                if day % 73 == 0:  # Five times a year.
                    say(f"Simulating day {day} of {days}.")
                _simulate_day(services, begin, day)
            # Autovacuum may still be at work on the last days.
            time.sleep(SETTLE_SECONDS)
            return measured()


def _simulate_day(services: list[str], begin: datetime, day: int) -> None:
    """Simulate a day. Its bookings start two hours after those of the day before."""
    today = begin + timedelta(hours=2 * day)
    at = timezone.now()
    kind = BookingEvent.Type

    def change(start: datetime, before: str, status: str, part: float, type_: str) -> None:
        values = {"begin": start, "before": before, "status": status, "part": part}
        _run(CHANGE, {**values, "type": type_, "at": at})

    _run(BOOK, {"services": services, "begin": today, "at": at})
    change(today, "pending", "confirmed", 0.8, kind.CONFIRMED)
    change(today, "pending", "cancelled", 1, kind.CANCELLED)
    _run(MOVE, {"begin": today, "part": 0.1})
    change(today, "confirmed", "cancelled", 0.1, kind.CANCELLED)
    _run(DELETE, {"begin": today, "part": 0.2})
    if day >= 30:
        earlier = begin + timedelta(hours=2 * (day - 30))
        # MOVE has moved some of these bookings by an hour.
        for start in (earlier, earlier + timedelta(hours=1)):
            change(start, "confirmed", "completed", 1, kind.COMPLETED)
    delete_jobs()  # Workers delete each job after they have run it.


def _run(statement: str, values: dict[str, Any]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, values)


# Returns how many updates each table has had, and how many of them wrote to no index (HOT updates).
#
# Parameters: tables text[].
# Columns: name text, updates bigint, hot_updates bigint.
UPDATES = """
SELECT relname AS name, n_tup_upd AS updates, n_tup_hot_upd AS hot_updates
FROM pg_stat_user_tables WHERE relname = ANY(%(tables)s::text[])
"""


def measured() -> list[Bloat]:
    """Return the bloat of the tables in `CHURNED`.

    This rewrites the tables. Afterwards, they have only the empty space that `fillfactor` reserves.
    """
    with connection.cursor() as cursor:
        # Without this call, a session reports its latest updates to the statistics with a delay.
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute(UPDATES, {"tables": CHURNED})
        updates = {name: (every, hot) for name, every, hot in cursor.fetchall()}
        before = _sizes(tables(least=0))
        for name in CHURNED:
            cursor.execute(f"VACUUM FULL {connection.ops.quote_name(name)}")
        after = _sizes(tables(least=0))
    return [Bloat(name, before[name], after[name], *updates[name]) for name in CHURNED]


def _sizes(found: list[Table]) -> dict[str, int]:
    return {each.name: each.table_bytes + each.index_bytes for each in found}
