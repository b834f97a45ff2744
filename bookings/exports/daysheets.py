"""Day sheets: what happens on a calendar on one day, for printing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.dateparse import parse_date
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from bookings.models import Booking, Slot
from bookit.adminsite.extensions import PAGES, Page
from bookit.adminsite.menu import Menu
from bookit.times import day_end, day_start, format_wall_clock, zone
from catalog.models import Calendar

# The maximum number of bookings on a sheet, and of calendars in the list of sheets.
MAX_BOOKINGS, MAX_CALENDARS = 1000, 200
# Days in these years have a sheet. With these limits, the day before and the day after are inside
# the range of `datetime` in any time zone.
YEARS = range(1900, 3000)
# In any zone, a day begins at most EARLIEST before and ends at most LATEST after the day in UTC.
EARLIEST, LATEST = timedelta(hours=14), timedelta(hours=12)


@dataclass
class Appointment:
    """A booking, or a slot with its bookings.

    Args:
        capacity: the number of seats of a slot; 0 for a booking without a slot.
    """

    start: datetime
    end: datetime
    title: str
    bookings: list[Booking] = field(default_factory=list)
    capacity: int = 0


@dataclass(frozen=True)
class DaySheet:
    """A day of a calendar, in the calendar's time zone.

    Args:
        hours: the opening hours that begin on the day; empty if there are none.
        is_always_open: whether the calendar has no opening hours on any day.
        left_out: whether there are more bookings than the sheet shows. Later slots without bookings
            are then left out, too.
    """

    calendar: Calendar
    day: date
    tz: ZoneInfo
    hours: list[str]
    is_always_open: bool
    time_off: list[Any]
    appointments: list[Appointment]
    left_out: bool


def day_sheet(*, calendar: Calendar, day: date) -> DaySheet:
    """Return what happens on a calendar on a day: its hours, its time off, and its appointments."""
    tz = zone(calendar.timezone)
    start, end = day_start(day, tz), day_end(day, tz)
    on_day = Q(start_time__lt=end, end_time__gt=start)
    slots = Slot.objects.filter(on_day, calendar=calendar, status=Slot.Status.SCHEDULED)
    found = {
        slot.pk: Appointment(
            slot.start_time, slot.end_time, slot.service.title, capacity=slot.capacity
        )
        for slot in slots.select_related("service").order_by("start_time", "id")
    }
    bookings = Booking.objects.filter(on_day, calendar=calendar, status__in=Booking.BOOKED)
    rows = [
        *bookings.select_related("service", "user").order_by("start_time", "seat", "id")[
            : MAX_BOOKINGS + 1
        ]
    ]
    for booking in rows[:MAX_BOOKINGS]:
        key = booking.slot_id or booking.pk
        appointment = found.setdefault(
            key, Appointment(booking.start_time, booking.end_time, booking.service.title)
        )
        appointment.bookings.append(booking)
    appointments = [*found.values()]
    if len(rows) > MAX_BOOKINGS:
        # A slot that starts at this time or later may have bookings that are left out. Without any
        # booking on the sheet, it would look free.
        cut = rows[-1].start_time
        appointments = [each for each in appointments if each.bookings or each.start < cut]
    weekly = [*calendar.hours.order_by("opens")]
    hours = [span for span in weekly if span.weekday == day.weekday()]
    return DaySheet(
        calendar,
        day,
        tz,
        hours=[
            f"{format_wall_clock(span.opens)} - {format_wall_clock(span.closes)}" for span in hours
        ],
        is_always_open=not weekly,
        time_off=[*calendar.time_off.filter(on_day).order_by("start_time", "id")],
        appointments=sorted(appointments, key=lambda each: (each.start, each.end)),
        left_out=len(rows) > MAX_BOOKINGS,
    )


def bookings_on(day: date) -> QuerySet[Booking]:
    """Return the bookings on the sheets of a day. Each sheet has the day in its calendar's zone."""
    # `near` can use the index on times; the condition below cannot, because it depends on the zone.
    begin = datetime.combine(day, time.min, UTC)
    near = Booking.objects.ending_after(begin - EARLIEST).filter(
        start_time__lt=begin + LATEST + timedelta(days=1), status__in=Booking.BOOKED
    )
    on_sheet = Q()
    for name in Calendar.objects.order_by().values_list("timezone", flat=True).distinct():
        start, end = day_start(day, zone(name)), day_end(day, zone(name))
        on_sheet |= Q(calendar__timezone=name, start_time__lt=end, end_time__gt=start)
    return near.filter(on_sheet)


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    """Show the calendars that have bookings on a day, with links to their sheets."""
    tz = zone(request.user.timezone)  # type: ignore[union-attr]
    day = _day(request.GET.get("day")) or timezone.now().astimezone(tz).date()
    # On the sheet of a calendar, the form for another day sends its request to this page.
    if chosen := _id(request.GET.get("calendar", "")):
        return HttpResponseRedirect(_address(chosen, day))
    found = (
        bookings_on(day)
        .values("calendar", "calendar__name")
        .annotate(number=Count("pk"))
        .order_by("calendar__name", "calendar")[: MAX_CALENDARS + 1]
    )
    rows = [
        (each["calendar__name"], each["number"], _address(each["calendar"], day)) for each in found
    ]
    return _page(
        request,
        "admin/bookings/day_sheets.html",
        _("Day sheets"),
        day,
        lambda other: f"{reverse('admin:day_sheets')}?day={other.isoformat()}",
        rows=rows[:MAX_CALENDARS],
        left_out=len(rows) > MAX_CALENDARS,
    )


@require_safe
def sheet(request: HttpRequest, calendar_id: UUID, day: str) -> HttpResponse:
    """Show the sheet of a calendar on a day, ready for printing."""
    calendar = Calendar.objects.filter(pk=calendar_id).first()
    parsed = _day(day)
    if calendar is None or parsed is None:
        raise Http404
    user: Any = request.user
    return _page(
        request,
        "admin/bookings/day_sheet.html",
        calendar.name,
        parsed,
        lambda other: _address(calendar.pk, other),
        sheet=day_sheet(calendar=calendar, day=parsed),
        with_reasons=user.may("catalog.view_calendar", calendar.provider_id),
    )


def _page(
    request: HttpRequest,
    template: str,
    title: Any,
    day: date,
    address: Callable[[date], str],
    **context: Any,
) -> HttpResponse:
    """Return a page about a day, with links to the days before and after it.

    Args:
        address: returns the URL of the page about another day.
    """
    one = timedelta(days=1)
    tz = zone(request.user.timezone)  # type: ignore[union-attr]
    return TemplateResponse(
        request,
        template,
        {
            **admin.site.each_context(request),
            "title": title,
            "day": day,
            "today": address(timezone.now().astimezone(tz).date()),
            "before": address(day - one),
            "after": address(day + one),
            **context,
        },
    )


def _day(text: str | None) -> date | None:
    """Return the date that a URL names, or None if it names no date in `YEARS`."""
    try:
        day = parse_date(text or "")
    except ValueError:
        return None
    return day if day and day.year in YEARS else None


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _address(calendar_id: UUID, day: date) -> str:
    return reverse("admin:day_sheet", args=[calendar_id, day.isoformat()])


PAGES.add("day_sheets")(
    Page(
        Menu.DIARY,
        _("Day sheets"),
        "admin:day_sheets",
        "bookings.view_booking",
        urls=[
            path("day-sheets/", index, name="day_sheets"),
            path(
                "day-sheets/<uuid:calendar_id>/<slug:day>/",
                sheet,
                name="day_sheet",
            ),
        ],
    )
)
