"""The numbers of the reports on bookings. `docs/reports.md` defines each of them.

Each function reads the bookings of a period with one or two statements. The statements group the
bookings, so that a million bookings become a few rows. To group them by month, they find the month
of a time with `width_bucket`, which compares the time with the few instants at which months begin.
Converting each time to the zone of the report would take ten times as long.
"""

from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop
from psycopg.rows import dict_row

from bookings.reports.opentimes import open_times
from bookings.reports.periods import Period
from bookit import money
from bookit.database.citus.nodes import is_distributed
from bookit.database.rows import fetch
from bookit.errors import Invalid
from bookit.languages import grouped
from catalog.models import MAX_MINUTES, Calendar

# A report has at most this many rows.
MAX_ROWS = 20_000
SECONDS_A_MINUTE, SECONDS_AN_HOUR = 60, 3600
# The decimals of a share in the API and in CSV files.
DECIMALS = 4

# The upper limits of the ranges of lead times, in hours, and the names of the ranges, which pages
# translate. The last range has no limit.
LEAD_RANGES = [
    (1, gettext_noop("under 1 hour")),
    (24, gettext_noop("1 to 24 hours")),
    (3 * 24, gettext_noop("1 to 3 days")),
    (7 * 24, gettext_noop("3 to 7 days")),
    (14 * 24, gettext_noop("1 to 2 weeks")),
    (28 * 24, gettext_noop("2 to 4 weeks")),
    (None, gettext_noop("4 weeks or more")),
]

# Bookings that are expected to take place, took place, or should have done so. Holds are left out,
# because nobody has booked yet. Cancelled and expired bookings are left out, too.
BOOKED = "status IN ('pending', 'confirmed', 'completed', 'no_show')"
# The bookings that begin in the period.
BEGINS = "start_time >= %(start)s AND start_time < %(end)s"
MONTH = "width_bucket(start_time, %(months)s::timestamptz[])"
# The bookings that overlap the period. The third condition follows from the others, because no
# booking is longer than MAX_MINUTES. It lets the index on start times leave out older bookings.
OVERLAPS = (
    "start_time < %(end)s AND end_time > %(start)s"
    f" AND start_time >= %(start)s::timestamptz - interval '{MAX_MINUTES} minutes'"
)

# Adds up the durations of the bookings of each calendar, cut off at the ends of the period.
#
# Parameters: start timestamptz, end timestamptz.
# Columns: calendar_id uuid, bookings bigint, crowded boolean (whether some bookings may overlap),
# seconds double precision.
# Invariant: bookings of one seat do not overlap, and a calendar hosts one service at a time, so
# bookings can overlap only if one of them has a seat other than seat 1.
_TAKEN = f"""
SELECT calendar_id, count(*) AS bookings, bool_or(seat > 1) AS crowded,
    sum(date_part('epoch', least(end_time, %(end)s) - greatest(start_time, %(start)s))) AS seconds
FROM bookings_booking WHERE {OVERLAPS} AND {BOOKED} GROUP BY calendar_id
"""  # noqa: S608 - the inserted texts are constants

# Adds up the time in which calendars have at least one booking, cut off at the ends of the period.
#
# Parameters: start timestamptz, end timestamptz, calendars uuid[].
# Columns: calendar_id uuid, seconds double precision.
_TAKEN_AT_LEAST_ONCE = f"""
WITH taken AS (
    SELECT DISTINCT calendar_id, greatest(start_time, %(start)s) AS starts,
        least(end_time, %(end)s) AS ends
    FROM bookings_booking
    WHERE calendar_id = ANY(%(calendars)s::uuid[]) AND {OVERLAPS} AND {BOOKED}
), following AS (
    SELECT calendar_id, starts, ends, max(ends) OVER (
        PARTITION BY calendar_id ORDER BY starts, ends
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS taken_until
    FROM taken
)
SELECT calendar_id, sum(date_part('epoch', ends - greatest(starts, taken_until))) AS seconds
FROM following WHERE taken_until IS NULL OR ends > taken_until GROUP BY calendar_id
"""  # noqa: S608 - the inserted texts are constants

# Adds up the prices of bookings by month, service and currency.
#
# Parameters: start timestamptz, end timestamptz, months timestamptz[] (where each month begins),
# most bigint (the maximum number of rows).
# Columns: month integer (from 1), service_id uuid, service text, currency text, bookings bigint and
# revenue numeric (completed bookings), upcoming bigint and expected numeric (pending and confirmed
# bookings).
_REVENUE = f"""
WITH sums AS (
    SELECT {MONTH} AS month, service_id, currency,
        count(*) FILTER (WHERE status = 'completed') AS bookings,
        coalesce(sum(price) FILTER (WHERE status = 'completed'), 0) AS revenue,
        count(*) FILTER (WHERE status <> 'completed') AS upcoming,
        coalesce(sum(price) FILTER (WHERE status <> 'completed'), 0) AS expected
    FROM bookings_booking
    WHERE {BEGINS} AND status IN ('pending', 'confirmed', 'completed')
    GROUP BY 1, 2, 3
)
SELECT sums.*, service.title AS service
FROM sums JOIN catalog_service AS service ON service.id = service_id
ORDER BY month, service, service_id, currency LIMIT %(most)s
"""  # noqa: S608 - the inserted texts are constants

# Counts customers by the months in which they have bookings.
#
# Parameters: start timestamptz, end timestamptz, months timestamptz[] (where each month begins).
# Columns: months bigint (bit n is set if they have a booking in month n, from 1), known boolean
# (whether they have a booking before the period), people bigint.
# Invariant: a period has at most 38 months, so the bits fit.
_CUSTOMERS = f"""
WITH visits AS (
    SELECT user_id, bit_or(1::bigint << {MONTH}) AS months
    FROM bookings_booking WHERE {BEGINS} AND {BOOKED} GROUP BY user_id
)
SELECT months, EXISTS (
    SELECT 1 FROM bookings_booking AS earlier
    WHERE earlier.user_id = visits.user_id AND earlier.start_time < %(start)s AND {BOOKED}
) AS known, count(*) AS people
FROM visits GROUP BY 1, 2
"""  # noqa: S608 - the inserted texts are constants

# Does the same as _CUSTOMERS if the database is distributed. Citus cannot look up the bookings of a
# user on all servers for each row, so this statement reads all users with earlier bookings at once.
#
# Parameters: as in _CUSTOMERS.
# Columns: as in _CUSTOMERS.
_CUSTOMERS_ON_CLUSTER = f"""
WITH visits AS MATERIALIZED (
    SELECT user_id, bit_or(1::bigint << {MONTH}) AS months
    FROM bookings_booking WHERE {BEGINS} AND {BOOKED} GROUP BY user_id
), earlier AS MATERIALIZED (
    SELECT DISTINCT user_id FROM bookings_booking
    WHERE user_id IN (SELECT user_id FROM visits) AND start_time < %(start)s AND {BOOKED}
)
SELECT months, earlier.user_id IS NOT NULL AS known, count(*) AS people
FROM visits LEFT JOIN earlier USING (user_id) GROUP BY 1, 2
"""  # noqa: S608 - the inserted texts are constants

# Counts bookings by the number of whole hours between their creation and their start. Leaves out
# bookings whose `created_at` is after their start.
#
# Parameters: start timestamptz, end timestamptz.
# Columns: hours integer, bookings bigint, seconds double precision (the sum of all lead times).
_LEAD_TIMES = f"""
WITH leads AS (
    SELECT date_part('epoch', start_time - created_at) AS seconds
    FROM bookings_booking WHERE {BEGINS} AND {BOOKED} AND created_at <= start_time
)
SELECT floor(seconds / {SECONDS_AN_HOUR})::integer AS hours, count(*) AS bookings,
    sum(seconds) AS seconds
FROM leads GROUP BY 1 ORDER BY 1
"""  # noqa: S608 - the inserted texts are constants

# Counts bookings by month and status. Holds that were released before they became bookings have the
# status `cancelled`, too, but nobody had booked, so they are counted as `released`. A released hold
# has exactly one matching event, which the index `event_hold_released` finds.
#
# Parameters: start timestamptz, end timestamptz, months timestamptz[] (where each month begins).
# Columns: month integer (from 1), status text, bookings bigint.
_STATUSES = f"""
SELECT {MONTH} AS month,
    CASE WHEN released.booking_id IS NULL THEN status ELSE 'released' END AS status,
    count(*) AS bookings
FROM bookings_booking AS booking
LEFT JOIN bookings_bookingevent AS released
    ON released.calendar_id = booking.calendar_id AND released.booking_id = booking.id
    AND released.type = 'booking.cancelled' AND released.data #> '{{was,status}}' = '"held"'
WHERE {BEGINS} GROUP BY 1, 2
"""  # noqa: S608 - the inserted texts are constants


@dataclass(frozen=True)
class Figures:
    """The rows of a report, and the totals of the whole period."""

    rows: list[dict[str, Any]]
    totals: dict[str, Any] = field(default_factory=dict)

    def rounded(self) -> "Figures":
        """Return the figures with at most `DECIMALS`, for programs.

        Pages round the exact figures. Rounded twice, 3.448 per cent would become 3.5.
        """
        return Figures([_rounded(row) for row in self.rows], _rounded(self.totals))


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, DECIMALS) if isinstance(value, float) else value
        for name, value in row.items()
    }


def share(part: float, whole: float) -> float | None:
    """Return `part` as a share of `whole`; None if `whole` is 0."""
    return part / whole if whole else None


def utilisation(period: Period) -> Figures:
    """Return the booked share of the open time of each calendar, ordered by name."""
    calendars = [
        *Calendar.objects.order_by("name", "id").values_list("id", "name", "timezone")[
            : MAX_ROWS + 1
        ]
    ]
    if len(calendars) > MAX_ROWS:
        text = _("The report would have more than %(most)s rows, because there are more calendars.")
        raise Invalid.of("to", text % {"most": grouped(MAX_ROWS)})
    taken = {row["calendar_id"]: row for row in fetch(_TAKEN, period.parameters, dict_row)}
    crowded = [each for each, row in taken.items() if row["crowded"]]
    if crowded:
        parameters = {**period.parameters, "calendars": crowded}
        for row in fetch(_TAKEN_AT_LEAST_ONCE, parameters, dict_row):
            taken[row["calendar_id"]]["seconds"] = row["seconds"]
    open_time = open_times(((key, tz) for key, _name, tz in calendars), period)
    rows, bookings, open_seconds, booked_seconds = [], 0, 0.0, 0.0
    for key, name, _tz in calendars:
        seconds = open_time[key].total_seconds()
        booked = taken.get(key, {"bookings": 0, "seconds": 0.0})
        rows.append(
            {
                "calendar_id": key,
                "calendar": name,
                **_used(booked["bookings"], seconds, booked["seconds"]),
            }
        )
        bookings += booked["bookings"]
        open_seconds += seconds
        booked_seconds += booked["seconds"]
    return Figures(rows, _used(bookings, open_seconds, booked_seconds))


def _used(bookings: int, open_seconds: float, booked_seconds: float) -> dict[str, Any]:
    return {
        "bookings": bookings,
        "open_minutes": round(open_seconds / SECONDS_A_MINUTE),
        "booked_minutes": round(booked_seconds / SECONDS_A_MINUTE),
        "utilisation": share(booked_seconds, open_seconds),
    }


def revenue(period: Period) -> Figures:
    """Return the prices of completed bookings and of bookings to come, by month and service."""
    parameters = {**period.parameters, "most": MAX_ROWS + 1}
    found = fetch(_REVENUE, parameters, dict_row)
    if len(found) > MAX_ROWS:
        text = _("The report would have more than %(most)s rows. Choose a shorter period.")
        raise Invalid.of("to", text % {"most": grouped(MAX_ROWS)})
    rows: list[dict[str, Any]] = []
    totals: dict[str, dict[str, Any]] = {}
    for row in found:
        currency = row["currency"]
        total = totals.setdefault(
            currency,
            {"currency": currency, "bookings": 0, "revenue": 0, "upcoming": 0, "expected": 0},
        )
        for name in ("bookings", "revenue", "upcoming", "expected"):
            total[name] += row[name]
        rows.append(
            {
                "month": period.months[row["month"] - 1][0],
                "service_id": row["service_id"],
                "service": row["service"],
                **_in_currency(row),
            }
        )
    return Figures(rows, {"currencies": [_in_currency(totals[each]) for each in sorted(totals)]})


def _in_currency(row: dict[str, Any]) -> dict[str, Any]:
    currency = row["currency"]
    return {
        "currency": currency,
        "bookings": row["bookings"],
        "revenue": money.in_currency(row["revenue"], currency),
        "upcoming": row["upcoming"],
        "expected": money.in_currency(row["expected"], currency),
    }


def customers(period: Period) -> Figures:
    """Return how many customers had bookings in each month, and how many of them were new."""
    # The numbers of customers by the number of the month, from 1. The key 0 is the whole period.
    present: Counter[int] = Counter()
    new: Counter[int] = Counter()
    statement = _CUSTOMERS_ON_CLUSTER if is_distributed() else _CUSTOMERS
    for row in fetch(statement, period.parameters, dict_row):
        visited = [n for n in range(1, len(period.months) + 1) if row["months"] >> n & 1]
        for month in visited:
            present[month] += row["people"]
        present[0] += row["people"]
        if not row["known"]:
            new[visited[0]] += row["people"]
            new[0] += row["people"]

    def counts(month: int) -> dict[str, int]:
        return {
            "customers": present[month],
            "new": new[month],
            "returning": present[month] - new[month],
        }

    rows = [{"month": name, **counts(n)} for n, (name, _begins) in enumerate(period.months, 1)]
    return Figures(rows, counts(0))


def lead_time(period: Period) -> Figures:
    """Return how far in advance bookings were made, in ranges of lead times."""
    found = fetch(_LEAD_TIMES, period.parameters, dict_row)
    total = sum(row["bookings"] for row in found)
    rows, lower = [], 0
    for upper, name in LEAD_RANGES:
        bookings = sum(
            row["bookings"]
            for row in found
            if lower <= row["hours"] and (upper is None or row["hours"] < upper)
        )
        rows.append({"lead_time": name, "bookings": bookings, "share": share(bookings, total)})
        lower = upper or lower
    reached = zip(accumulate(row["bookings"] for row in found), found, strict=True)
    median = next((row["hours"] for up_to, row in reached if 2 * up_to >= total), None)
    seconds = sum(row["seconds"] for row in found)
    average = round(seconds / SECONDS_AN_HOUR / total, 1) if total else None
    return Figures(rows, {"bookings": total, "median_hours": median, "average_hours": average})


def cancellations(period: Period) -> Figures:
    """Return how many bookings of each month were cancelled, or were missed by their customers."""
    months: dict[int, Counter[str]] = {}
    for row in fetch(_STATUSES, period.parameters, dict_row):
        months.setdefault(row["month"], Counter())[row["status"]] = row["bookings"]
    rows = [
        {"month": name, **_lost(months.get(n, Counter()))}
        for n, (name, _begins) in enumerate(period.months, 1)
    ]
    return Figures(rows, _lost(sum(months.values(), Counter())))


def _lost(counts: Counter[str]) -> dict[str, Any]:
    ended = counts["completed"] + counts["no_show"]
    bookings = ended + counts["pending"] + counts["confirmed"] + counts["cancelled"]
    return {
        "bookings": bookings,
        "cancelled": counts["cancelled"],
        "cancellation_rate": share(counts["cancelled"], bookings),
        "no_show": counts["no_show"],
        "no_show_rate": share(counts["no_show"], ended),
        "expired": counts["expired"],
    }
