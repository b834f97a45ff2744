"""Exports a list of bookings or slots in the admin site as an iCalendar file."""

from collections.abc import Iterable, Iterator
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from bookings import ical
from bookings.models import Booking, Slot
from bookit.adminsite.exports import Format

# Calendar applications become slow if a file has more entries than this.
MAX_ENTRIES = 5_000


def write_entries(model_admin: Any, request: HttpRequest, rows: Iterable[Any]) -> Iterator[bytes]:
    """Yield an iCalendar file with an entry for each row."""
    name = str(model_admin.opts.verbose_name_plural).capitalize()
    yield ical.CalendarFile([_entry(row) for row in rows], name=name).text().encode()


def _entry(row: Booking | Slot) -> ical.Entry:
    if isinstance(row, Slot):
        return ical.Entry(
            row.pk,
            row.start_time,
            row.end_time,
            row.updated_at,
            summary=row.service.title,
            status="CONFIRMED" if row.status == Slot.Status.SCHEDULED else "CANCELLED",
            description=row.calendar.name,
        )
    attendee = row.attendee()
    contacts = [attendee["attendee_phone"], attendee["attendee_email"]]
    lines = [row.calendar.name, *filter(None, contacts), f"Booking {row.pk}", row.notes]
    return ical.Entry(
        row.pk,
        row.start_time,
        row.end_time,
        row.updated_at,
        summary=f"{row.service.title}: {row.customer()}",
        status=ical.STATUSES[row.status],
        description="\n".join(filter(None, lines)),
    )


#: The format for lists of bookings and slots. The querysets of these lists must load the service,
#: the calendar, and the user of each booking (`select_related`).
ICALENDAR = Format(
    _("Download as iCalendar"), "text/calendar; charset=utf-8", MAX_ENTRIES, write_entries
)
