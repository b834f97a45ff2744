"""The cards about bookings on the home page of the admin site."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import groupby
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from psycopg.rows import namedtuple_row

from bookings import services
from bookings.desk.changes import change_as_shown
from bookings.desk.filters import WITHOUT_ENDED_HOLDS
from bookings.diary.reading import STATES
from bookings.holds import announced_sql, is_ended_hold
from bookings.models import Booking
from bookit.adminsite import words
from bookit.adminsite.extensions import HOME_CARDS, Glance, HomeCard
from bookit.adminsite.links import list_of, page_of
from bookit.adminsite.refusals import REFUSALS, message_of
from bookit.database.citus.lookups import by_id
from bookit.database.citus.nodes import is_distributed
from bookit.database.counts import expected
from bookit.database.rows import fetch
from bookit.database.versions import version_of
from bookit.times import day_start, zone
from catalog.models import Service

Status = Booking.Status
# The card of the next hours: how far it looks ahead, its maximum number of lines, and the maximum
# number of bookings that it reads. It reads more bookings than lines, because a class is one line.
AHEAD = timedelta(hours=24)
MAX_LINES, MAX_NEXT = 8, 80
# The maximum number of unconfirmed bookings that are shown, and the number up to which they are
# counted.
MAX_WAITING, MAX_COUNTED = 6, 100
# The card of the last days compares this many days with as many days before them. It uses the
# first number for which PostgreSQL expects to read at most `MAX_READ` bookings, or else the last
# number.
DAYS = [30, 7, 1]
# Reading this many bookings takes about 250 ms.
MAX_READ = 250_000
MAX_SERVICES, MAX_CURRENCIES = 5, 3
# The statuses that the numbers of the comparison count. `MADE` leaves out "held" and "expired".
# Released holds are not counted either: their status is "cancelled", but `_RECENT` returns them as
# "released".
MADE = [*Booking.BOOKED, Status.CANCELLED]
ENDED = [Status.COMPLETED, Status.NO_SHOW]
EARNING = [Status.CONFIRMED, Status.COMPLETED]

# Fragments of the statements below.
_COUNTS = """count(*) AS bookings, sum(price) AS price, count(*) FILTER (
            WHERE start_time >= %(middle)s::timestamptz AND status = ANY(%(booked)s::text[])
        ) AS recent"""
# PostgreSQL must not convert the times to the zone of the user: it may know other rules for a zone
# than Python, and takes names such as CET for an abbreviation, which has no summer time.
_IN_PERIOD = f"""(
        SELECT width_bucket(start_time, %(days)s::timestamptz[]) AS day,
            start_time, currency, service_id, price,
            CASE WHEN status = 'cancelled' AND EXISTS (
                SELECT 1 FROM bookings_bookingevent AS event
                WHERE event.calendar_id = bookings_booking.calendar_id
                  AND event.booking_id = bookings_booking.id AND NOT {announced_sql("event")}
            ) THEN 'released' ELSE status END AS status
        FROM bookings_booking
        WHERE start_time >= %(begin)s::timestamptz AND start_time < %(end)s::timestamptz
    ) AS booking"""  # noqa: S608 - the inserted text is a constant
_SETS = "GROUPING SETS ((day, status, currency), (service_id))"
_DAYS_AND_SERVICES = """busiest AS (
    SELECT service_id, recent FROM grouped WHERE service_id IS NOT NULL AND recent > 0
    ORDER BY recent DESC, service_id LIMIT %(most)s::bigint
)
SELECT day, status, currency, NULL::uuid AS service_id, NULL AS title, bookings, price
FROM grouped WHERE day IS NOT NULL
UNION ALL
SELECT NULL, NULL, NULL, service.id, service.title, recent, NULL
FROM busiest JOIN catalog_service AS service ON service.id = service_id
"""

# Counts the bookings of a period by day, status and currency, and the bookings of its later part by
# service. One scan of the bookings gives both counts. Holds that were released have the status
# "released" here.
#
# Parameters: begin, middle and end timestamptz (the period from begin to end; its later part begins
# at middle), days timestamptz[] (where each day begins), booked text[] (the statuses that count for
# a service), most bigint (the maximum number of services).
# Columns: day integer (from 1), status text, currency text (null in the rows of services, all
# three), service_id uuid, title text (null in the rows of days, both), bookings bigint, price
# numeric (the sum; null in the rows of services).
_RECENT = f"""
WITH grouped AS (
    SELECT day, status, currency, service_id, {_COUNTS}
    FROM {_IN_PERIOD}
    GROUP BY {_SETS}
), {_DAYS_AND_SERVICES}"""  # noqa: S608 - the inserted texts are constants

# Does the same as _RECENT if the database is distributed. Citus refuses GROUPING SETS for rows on
# several servers. Therefore, each server groups its bookings, and the coordinator groups the sums.
#
# Parameters: as in _RECENT.
# Columns: as in _RECENT.
_RECENT_ON_CLUSTER = f"""
WITH counted AS (
    SELECT day, status, currency, service_id, {_COUNTS}
    FROM {_IN_PERIOD}
    GROUP BY day, status, currency, service_id
), grouped AS (
    SELECT day, status, currency, service_id, sum(bookings)::bigint AS bookings,
        sum(price) AS price, sum(recent)::bigint AS recent
    FROM counted GROUP BY {_SETS}
), {_DAYS_AND_SERVICES}"""  # noqa: S608 - the inserted texts are constants


def _between(begin: datetime, end: datetime, **filters: object) -> str:
    """Return the address of the list of the bookings that start in a period."""
    return list_of(Booking, start_time__gte=begin, start_time__lt=end, **filters)


# --- today ------------------------------------------------------------------------------------


def read_today(glance: Glance) -> dict[str, Any]:
    """Return how many bookings of today are in each status, without holds that have ended."""
    begin, end = glance.days(glance.today, glance.today)
    today = Booking.objects.filter(~is_ended_hold(), start_time__gte=begin, start_time__lt=end)
    counts = dict(today.order_by().values_list("status").annotate(bookings=Count("pk")))
    return {
        "total": sum(counts.values()),
        "url": _between(begin, end, **WITHOUT_ENDED_HOLDS),
        "states": [
            {
                "status": status,
                "label": label,
                "count": counts.get(status, 0),
                "url": _between(begin, end, status__exact=status, **WITHOUT_ENDED_HOLDS),
            }
            for status, label in STATES.items()
            # These statuses are shown even if no booking has them.
            if counts.get(status) or status in Booking.EXPECTED
        ],
    }


def read_next(glance: Glance) -> dict[str, Any]:
    """Return the bookings that take place now or in the next hours. A class is one line.

    Bookings that began more than `AHEAD` ago are left out, so that an index finds the rows.
    """
    until = glance.at + AHEAD
    rows = [
        *Booking.objects.filter(
            unfinished=True,
            status__in=Booking.EXPECTED,
            start_time__gte=glance.at - AHEAD,
            start_time__lt=until,
            end_time__gt=glance.at,
        )
        .select_related("service", "calendar", "user")
        # The bookings of a class stay together, even if other classes begin at the same time.
        .order_by("start_time", Coalesce("slot_id", "id"), "id")[:MAX_NEXT]
    ]
    groups = groupby(rows, key=lambda row: row.slot_id or row.pk)
    lines = [_line([*group], glance) for _key, group in groups]
    is_cut = len(rows) == MAX_NEXT
    if is_cut:
        # The last class may have more bookings than were read, so it is left out. If it is the only
        # line, the line says so.
        lines = lines[:-1] or [{**lines[0], "who": _("%s people or more") % MAX_NEXT}]
    return {
        "lines": lines[:MAX_LINES],
        "more": len(lines) > MAX_LINES or is_cut,
        "url": _between(glance.at, until, status__in=",".join(Booking.EXPECTED)),
    }


def _line(bookings: list[Booking], glance: Glance) -> dict[str, Any]:
    """Return the line of a booking, or of several bookings in the same slot."""
    first = bookings[0]
    people = len(bookings)
    line = {**_when(first, glance), "title": first.service.title, "calendar": first.calendar.name}
    if people == 1:
        return {
            **line,
            "who": first.customer(),
            "status": first.status,
            "label": STATES[first.status],
            "url": page_of(first),
        }
    who = ngettext("%(people)s person", "%(people)s people", people) % {"people": people}
    # Without a filter by start, the list begins with today, but the class may have begun yesterday.
    url = list_of(
        Booking,
        slot__id__exact=first.slot_id,
        status__in=",".join(Booking.EXPECTED),
        start_time__isnull=False,
    )
    return {**line, "who": who, "url": url}


def _when(booking: Booking, glance: Glance) -> dict[str, Any]:
    """Return when a booking takes place, in the zone of its calendar."""
    local = zone(booking.calendar.timezone)
    starts = booking.start_time.astimezone(local)
    return {
        "hours": words.hours(booking.start_time, booking.end_time, local),
        "day": _day(starts.date(), glance),
        "zone": words.foreign_zone(booking.start_time, local, glance.zone),
        "is_now": booking.start_time <= glance.at < booking.end_time,
    }


def _day(of: date, glance: Glance) -> str:
    """Return a date in words; empty for today."""
    if of == glance.today:
        return ""
    return _("Tomorrow") if of == glance.today + timedelta(days=1) else words.day(of)


# --- bookings that wait for somebody to confirm them ------------------------------------------


def read_waiting(glance: Glance) -> dict[str, Any]:
    """Return the upcoming bookings that wait to be confirmed, earliest first."""
    rows = [
        *Booking.objects.filter(unfinished=True, status=Status.PENDING, start_time__gte=glance.at)
        .select_related("service", "calendar", "user")
        .order_by("start_time", "id")[: MAX_COUNTED + 1]
    ]
    return {
        "count": f"{MAX_COUNTED}+" if len(rows) > MAX_COUNTED else len(rows),
        "lines": [
            {**_line([row], glance), "id": row.pk, "version": version_of(row.updated_at)}
            for row in rows[:MAX_WAITING]
        ],
        "more": len(rows) > MAX_WAITING,
        "url": list_of(Booking, start_time__gte=glance.at, status__exact=Status.PENDING),
        "may_confirm": glance.user.may("bookings.change_booking"),
    }


def confirm(request: HttpRequest, at: datetime) -> None:
    """Confirm the booking that the form names, and show a message with the result.

    The booking stays as it is if somebody has changed it since the page was opened.
    """
    try:
        booking = _confirm(request, at)
    except REFUSALS as error:
        messages.error(request, message_of(error))
        return
    said = {
        "title": booking.service.title,
        "name": booking.customer(),
        "moment": words.moment(booking.start_time, zone(booking.calendar.timezone)),
    }
    messages.success(request, _("Confirmed: %(title)s for %(name)s, %(moment)s.") % said)


def _confirm(request: HttpRequest, at: datetime) -> Booking:
    pk = forms.UUIDField().clean(request.POST.get("booking", ""))
    booking = by_id(Booking.objects.all(), pk).get()
    return change_as_shown(
        booking,
        partial(
            services.change_status,
            booking_id=pk,
            status=Status.CONFIRMED,
            actor=request.user,  # type: ignore[arg-type]
            at=at,
        ),
        is_as_shown=request.POST.get(f"version-{pk}") == str(version_of(booking.updated_at)),
    )


# --- the last 30 or 7 days, or today ----------------------------------------------------------


def read_recent(glance: Glance) -> dict[str, Any]:
    """Return the numbers of the last days, including today, and of as many days before them."""
    last, span = glance.today, _days_to_compare(glance)
    first, earliest = (last - timedelta(days=times * span - 1) for times in (1, 2))
    now, before = glance.days(first, last), glance.days(earliest, first - timedelta(days=1))
    starts = [day_start(earliest + timedelta(days=n), glance.zone) for n in range(2 * span)]
    rows: list[Any] = fetch(
        _RECENT_ON_CLUSTER if is_distributed() else _RECENT,
        {
            "begin": before[0],
            "middle": now[0],
            "end": now[1],
            "days": starts,
            "booked": [*map(str, Booking.BOOKED)],
            "most": MAX_SERVICES,
        },
        namedtuple_row,
    )
    days = [row for row in rows if row.service_id is None]
    recent = [row for row in days if row.day > span]
    older = [row for row in days if row.day <= span]

    def compared(
        label: str,
        statuses: list[Booking.Status],
        *,
        among: list[Booking.Status] | None = None,
        **filters: Any,
    ) -> dict[str, Any]:
        counts = [_count(part, statuses) for part in (recent, older)]
        filters["status__in"] = ",".join(statuses)
        return {
            "label": label,
            "now": number_format(counts[0], force_grouping=True),
            "share": words.share(counts[0], _count(recent, among)) if among else "",
            **_before(counts, number_format(counts[1], force_grouping=True), span),
            "url": _between(*now, **filters),
            "before_url": _between(*before, **filters),
        }

    return {
        "days": span,
        "numbers": [
            *_earned(recent, older, now, before, span),
            compared(_("Bookings"), Booking.BOOKED),
            compared(_("Cancelled"), [Status.CANCELLED], among=MADE, **WITHOUT_ENDED_HOLDS),
            compared(_("No-shows"), [Status.NO_SHOW], among=ENDED),
        ],
        "chart": _chart(recent, first, span, glance),
        "services": _busiest([row for row in rows if row.service_id], now),
    }


def _days_to_compare(glance: Glance) -> int:
    """Return the number of days to compare; see `DAYS`."""
    for days in DAYS[:-1]:
        begin, end = glance.days(glance.today - timedelta(days=2 * days - 1), glance.today)
        if expected(Booking.objects.filter(start_time__gte=begin, start_time__lt=end)) <= MAX_READ:
            return days
    return DAYS[-1]


def _before(numbers: Sequence[Decimal | int], written: str, days: int) -> dict[str, str]:
    """Return the earlier number in words, and by how much the number has changed since."""
    now, before = numbers
    if not before:
        none = ngettext(
            "none in the previous %(days)s day", "none in the previous %(days)s days", days
        )
        return {"change": "", "before": none % {"days": days}}
    text = ngettext(
        "%(number)s in the previous %(days)s day", "%(number)s in the previous %(days)s days", days
    ) % {"number": written, "days": days}
    return {"change": words.change(now, before), "before": text}


def _count(rows: Iterable[Any], statuses: list[Booking.Status]) -> int:
    return sum(row.bookings for row in rows if row.status in statuses)


def _earned(
    recent: list[Any], older: list[Any], now: tuple[Any, Any], before: tuple[Any, Any], days: int
) -> list[dict[str, Any]]:
    """Return the revenue in up to `MAX_CURRENCIES` currencies, the largest first.

    Revenue is the sum of the prices of confirmed and completed bookings.
    """
    sums: dict[str, list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0)])
    for part, rows in enumerate((recent, older)):
        for row in rows:
            if row.status in EARNING and row.price:
                sums[row.currency][part] += row.price
    largest = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))[:MAX_CURRENCIES]
    return [
        {
            "label": _("Revenue"),
            "now": words.price(pair[0], currency),
            **_before(pair, words.price(pair[1], currency), days),
            "url": _between(*now, status__in=",".join(EARNING), currency__exact=currency),
            "before_url": _between(*before, status__in=",".join(EARNING), currency__exact=currency),
        }
        for currency, pair in largest
    ]


def _chart(rows: list[Any], first: date, days: int, glance: Glance) -> dict[str, Any]:
    """Return the bars of a chart of the number of bookings per day.

    The chart is 100 high, and each day is 20 wide. The template draws bars with a width of 14.
    """
    # `_RECENT` numbers the days from 1, and the first `days` of them are before `first`.
    counts: Counter[int] = Counter()
    for row in rows:
        if row.status in Booking.BOOKED:
            counts[row.day - days - 1] += row.bookings
    most = max(counts.values(), default=0)
    bars = []
    for place in range(days):
        day = first + timedelta(days=place)
        height = round(counts[place] * 100 / most, 1) if most else 0
        bars.append(
            {
                "day": words.day(day),
                "count": counts[place],
                "x": place * 20 + 3,
                "y": round(100 - height, 1),
                "height": height,
                "url": _between(*glance.days(day, day), status__in=",".join(Booking.BOOKED)),
            }
        )
    return {"bars": bars, "most": most, "width": days * 20}


def _busiest(rows: list[Any], now: tuple[datetime, datetime]) -> list[dict[str, Any]]:
    most = max((row.bookings for row in rows), default=0)
    return [
        {
            "title": row.title,
            "url": page_of(Service(pk=row.service_id)),
            "count": row.bookings,
            "width": round(row.bookings * 100 / most, 1),
            "list": _between(
                *now, service__id__exact=row.service_id, status__in=",".join(Booking.BOOKED)
            ),
        }
        for row in sorted(rows, key=lambda row: (-row.bookings, row.service_id))
    ]


VIEW, CHANGE = "bookings.view_booking", "bookings.change_booking"
HERE = "admin/home/"

HOME_CARDS.add("today")(HomeCard(10, f"{HERE}today.html", read_today, VIEW, wide=True))
HOME_CARDS.add("next")(HomeCard(20, f"{HERE}next.html", read_next, VIEW))
HOME_CARDS.add("waiting")(
    HomeCard(30, f"{HERE}waiting.html", read_waiting, VIEW, act=confirm, act_permission=CHANGE)
)
# This card names no permission, so only admins see it: revenue is not for all staff who take
# bookings.
HOME_CARDS.add("recent")(HomeCard(60, f"{HERE}recent.html", read_recent, wide=True))
