"""Reads what a diary shows on some days: bookings, slots, time off and closed hours of calendars.

All times are wall-clock times in one zone, without an offset, because a diary draws each day with
24 hours of the same length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from operator import itemgetter
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from psycopg.rows import dict_row

from accounts.emails import mailbox
from bookings.holds import unexpired_sql
from bookings.models import Booking
from bookit.database.citus.nodes import is_distributed
from bookit.database.rows import fetch
from bookit.database.versions import version_of
from bookit.times import day_start, zone
from catalog.models import Calendar, OpeningHours, TimeOff
from catalog.opening import Opening, Period, Span

# A diary shows at most this many calendars side by side.
MAX_CALENDARS = 20
# A diary shows at most this many days. A month needs up to 42: six whole weeks.
MAX_DAYS = 45
# A diary shows at most this many bookings, this many slots, and this many periods of time off.
# Twenty calendars with ten bookings a day fill a week with 1,400.
MAX_ENTRIES = 2000

Status = Booking.Status
# The statuses of bookings in words. Those of unfinished bookings come first. The legend below the
# diary has the same order, but leaves out the last two, which occupy no time.
STATES: dict[str, Any] = {
    Status.PENDING: _("Pending"),
    Status.CONFIRMED: _("Confirmed"),
    Status.HELD: _("Held"),
    Status.COMPLETED: _("Completed"),
    Status.NO_SHOW: _("No-show"),
    Status.CANCELLED: _("Cancelled"),
    Status.EXPIRED: _("Expired"),
}

# Finds the bookings without a slot that occupy calendars in a period. Each calendar is searched
# separately, because the index on calendar and period cannot search for a list of calendars.
#
# Parameters: calendar_ids uuid[]; from, until timestamptz (the period); at timestamptz (now);
#     most int (the maximum number of rows).
# Columns: id, calendar_id uuid; start_time, end_time, blocked_from, blocked_until timestamptz;
#     status, service, attendee, phone, email text; updated_at timestamptz. Ordered by start_time
#     and id.
BOOKINGS = f"""
SELECT booking.id, booking.calendar_id, booking.start_time, booking.end_time,
    lower(booking.blocked) AS blocked_from, upper(booking.blocked) AS blocked_until,
    booking.status, booking.updated_at, service.title AS service,
    coalesce(nullif(booking.attendee_name, ''), account.name) AS attendee,
    coalesce(nullif(booking.attendee_phone, ''), account.phone) AS phone,
    coalesce(nullif(booking.attendee_email, ''), account.email) AS email
FROM unnest(%(calendar_ids)s::uuid[]) AS calendar (id)
CROSS JOIN LATERAL (
    SELECT * FROM bookings_booking
    WHERE calendar_id = calendar.id AND active AND slot_id IS NULL
      AND blocked && tstzrange(%(from)s::timestamptz, %(until)s::timestamptz)
      AND {unexpired_sql("hold_expires_at")}
    ORDER BY start_time, id
    LIMIT %(most)s
) AS booking
JOIN catalog_service AS service ON service.id = booking.service_id
JOIN accounts_user AS account ON account.id = booking.user_id
ORDER BY booking.start_time, booking.id
LIMIT %(most)s
"""  # noqa: S608 - only our own SQL condition is interpolated, no values

# Finds the scheduled slots of calendars in a period, with the number of their bookings.
#
# Parameters: as in BOOKINGS.
# Columns: id, calendar_id, service_id uuid; start_time, end_time, blocked_from, blocked_until
#     timestamptz; capacity int; service text; taken bigint (the bookings that occupy a seat),
#     pending bigint (how many of them wait to be confirmed). Ordered by start_time and id.
SLOTS = f"""
SELECT slot.id, slot.calendar_id, slot.service_id, slot.start_time, slot.end_time,
    lower(slot.blocked) AS blocked_from, upper(slot.blocked) AS blocked_until,
    slot.capacity, service.title AS service, seats.taken, seats.pending
FROM unnest(%(calendar_ids)s::uuid[]) AS calendar (id)
CROSS JOIN LATERAL (
    SELECT * FROM bookings_slot
    WHERE calendar_id = calendar.id AND status = 'scheduled'
      AND blocked && tstzrange(%(from)s::timestamptz, %(until)s::timestamptz)
    ORDER BY start_time, id
    LIMIT %(most)s
) AS slot
JOIN catalog_service AS service ON service.id = slot.service_id
CROSS JOIN LATERAL (
    SELECT count(*) AS taken, count(*) FILTER (WHERE status = 'pending') AS pending
    FROM bookings_booking
    WHERE calendar_id = calendar.id AND slot_id = slot.id AND active
      AND {unexpired_sql("hold_expires_at")}
) AS seats
ORDER BY slot.start_time, slot.id
LIMIT %(most)s
"""  # noqa: S608 - only our own SQL condition is interpolated, no values

# Do the same as BOOKINGS and SLOTS for one calendar. Used if the database is distributed, because
# Citus refuses the statements above for rows on several servers.
#
# Parameters: as in BOOKINGS, and calendar_id uuid, which is also the only one of calendar_ids.
# Columns: as in BOOKINGS.
BOOKINGS_ON_CALENDAR = BOOKINGS.replace("= calendar.id", "= %(calendar_id)s::uuid")
# Parameters: as in BOOKINGS_ON_CALENDAR.
# Columns: as in SLOTS.
SLOTS_ON_CALENDAR = SLOTS.replace("= calendar.id", "= %(calendar_id)s::uuid")

Entry = dict[str, Any]


@dataclass(frozen=True)
class Sheet:
    """The calendars and days that a diary shows.

    Args:
        until: the day after the last day.
        tz: the zone in which days begin and in which all times are shown.
    """

    calendars: Sequence[Calendar]
    first: date
    until: date
    tz: ZoneInfo

    @property
    def period(self) -> Period:
        """The instants at which the first day begins and the last day ends."""
        return day_start(self.first, self.tz), day_start(self.until, self.tz)


def read(sheet: Sheet, *, at: datetime, with_reasons: set[UUID]) -> dict[str, Any]:
    """Return the content of a sheet, with four queries, or more if the database is distributed.

    The result has the lists `bookings`, `slots`, `off` (time off), `closed` (outside the opening
    hours) and `buffers`. On every day, all calendars are closed before the full hour `opens` and
    after the full hour `closes`. `more` says whether there were too many rows to show.

    Args:
        with_reasons: the ids of the calendars whose time off is shown with its reasons. Reasons are
            not public.
    """
    from_, until = sheet.period
    ids = [calendar.pk for calendar in sheet.calendars]
    parameters = {
        "calendar_ids": ids,
        "from": from_,
        "until": until,
        "at": at,
        "most": MAX_ENTRIES + 1,
    }
    bookings, slots = _bookings_and_slots(parameters)
    off: list[Any] = [
        *TimeOff.objects.filter(calendar__in=ids, start_time__lt=until, end_time__gt=from_)
        .order_by("start_time", "id")
        .values("id", "calendar_id", "start_time", "end_time", "reason")[: MAX_ENTRIES + 1]
    ]
    open_periods = _open_periods(sheet)
    opens, closes = _open_hours(sheet, open_periods)
    return {
        "bookings": [_booking(row, sheet.tz) for row in bookings[:MAX_ENTRIES]],
        "slots": [_slot(row, sheet.tz) for row in slots[:MAX_ENTRIES]],
        "off": [
            {
                **_entry(row, sheet.tz),
                "reason": row["reason"] if row["calendar_id"] in with_reasons else "",
            }
            for row in off[:MAX_ENTRIES]
        ],
        "closed": [
            {"calendar": str(pk), **_span(start, end, sheet.tz)}
            for pk, periods in open_periods.items()
            for start, end in _gaps(periods, from_, until)
        ],
        "buffers": [
            {"calendar": str(row["calendar_id"]), **_span(start, end, sheet.tz)}
            for row in [*bookings[:MAX_ENTRIES], *slots[:MAX_ENTRIES]]
            for start, end in (
                (row["blocked_from"], row["start_time"]),
                (row["end_time"], row["blocked_until"]),
            )
            if start < end
        ],
        "opens": opens,
        "closes": closes,
        "more": any(len(rows) > MAX_ENTRIES for rows in (bookings, slots, off)),
    }


def _bookings_and_slots(parameters: dict[str, Any]) -> list[list[Entry]]:
    """Return the rows of `BOOKINGS`, and the rows of `SLOTS`."""
    if not is_distributed():
        return [fetch(text, parameters, dict_row) for text in (BOOKINGS, SLOTS)]
    found = []
    for text in (BOOKINGS_ON_CALENDAR, SLOTS_ON_CALENDAR):
        rows: list[Entry] = []
        for pk in parameters["calendar_ids"]:
            only = {**parameters, "calendar_ids": [pk], "calendar_id": pk}
            rows += fetch(text, only, dict_row)
        found.append(sorted(rows, key=itemgetter("start_time", "id"))[: parameters["most"]])
    return found


def wall(moment: datetime, tz: ZoneInfo) -> str:
    """Return the wall-clock time of an instant, for example `2026-12-01T10:00:00`."""
    return moment.astimezone(tz).replace(tzinfo=None).isoformat(timespec="seconds")


def _booking(row: Entry, tz: ZoneInfo) -> Entry:
    return {
        **_entry(row, tz),
        # As text, because the diary's script only sends the version back in a form.
        "version": str(version_of(row["updated_at"])),
        "status": row["status"],
        "state": str(STATES[row["status"]]),
        "attendee": row["attendee"] or gettext("a former user"),
        "phone": row["phone"],
        "has_mailbox": bool(mailbox(row["email"])),
        "service": row["service"],
        "movable": row["status"] in Booking.EXPECTED,
    }


def _slot(row: Entry, tz: ZoneInfo) -> Entry:
    names = ("service", "capacity", "taken", "pending")
    shown = {name: row[name] for name in names}
    return {**_entry(row, tz), "service_id": str(row["service_id"]), **shown}


def _entry(row: Entry, tz: ZoneInfo) -> Entry:
    return {
        "id": str(row["id"]),
        "calendar": str(row["calendar_id"]),
        **_span(row["start_time"], row["end_time"], tz),
    }


def _span(start: datetime, end: datetime, tz: ZoneInfo) -> Entry:
    first, last = wall(start, tz), wall(end, tz)
    if last <= first:
        # The clocks go back during the entry. An entry that ends before it begins cannot be drawn.
        last = (datetime.fromisoformat(first) + (end - start)).isoformat(timespec="seconds")
    return {"start": first, "end": last}


def _open_periods(sheet: Sheet) -> dict[UUID, tuple[Period, ...]]:
    """Return the periods in which each calendar is open by its weekly hours, with one query."""
    spans: dict[UUID, list[Span]] = {calendar.pk: [] for calendar in sheet.calendars}
    hours = OpeningHours.objects.filter(calendar__in=spans).order_by("id")
    for pk, *span in hours.values_list("calendar_id", "weekday", "opens", "closes"):
        spans[pk].append(Span(*span))
    return {
        calendar.pk: Opening(zone(calendar.timezone), tuple(spans[calendar.pk])).periods(
            *sheet.period
        )
        for calendar in sheet.calendars
    }


def _gaps(periods: tuple[Period, ...], start: datetime, end: datetime) -> Iterator[Period]:
    """Yield the periods from `start` to `end` that lie outside `periods`, which are in order."""
    for opens, closes in periods:
        if opens >= end:
            break
        if start < opens:
            yield start, opens
        start = max(start, closes)
    if start < end:
        yield start, end


def _open_hours(sheet: Sheet, periods: dict[UUID, tuple[Period, ...]]) -> tuple[int, int]:
    """Return two full hours, such as 9 and 18. All calendars are closed outside these hours."""
    from_, until = sheet.period
    opens, closes = [], []
    for begins, ends in (period for each in periods.values() for period in each):
        if ends <= from_ or begins >= until:
            continue
        if ends - begins >= timedelta(days=1):
            return 0, 24
        first, last = begins.astimezone(sheet.tz), ends.astimezone(sheet.tz)
        is_midnight = last.time() == time.min
        if first.date() != last.date() and not is_midnight:
            return 0, 24
        opens.append(first.hour)
        closes.append(24 if is_midnight else last.hour + (last.minute > 0))
    return (min(opens), max(closes)) if opens else (0, 24)
