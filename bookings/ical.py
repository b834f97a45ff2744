"""iCalendar (RFC 5545): bookings in the form that calendar programs read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parseaddr
from hashlib import sha256
from urllib.parse import quote
from uuid import UUID

import icalendar
from django.conf import settings
from icalendar.parser import Contentline

from bookings.models import Booking

# Characters that no text may contain, and those that some programs treat as the end of a line.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
# The iCalendar status for each status of a booking.
STATUSES: dict[str, str] = {
    Booking.Status.HELD: "TENTATIVE",
    Booking.Status.PENDING: "TENTATIVE",
    Booking.Status.CONFIRMED: "CONFIRMED",
    Booking.Status.COMPLETED: "CONFIRMED",
    Booking.Status.NO_SHOW: "CONFIRMED",
    Booking.Status.CANCELLED: "CANCELLED",
    Booking.Status.EXPIRED: "CANCELLED",
}


@dataclass(frozen=True)
class Party:
    """The organizer or an attendee: a name, which may be empty, and a mail address."""

    name: str
    email: str


@dataclass(frozen=True)
class Entry:
    """An entry in a calendar. All of its times are written in UTC, so no time zone is described.

    Args:
        uid: stays the same, whatever happens to the entry.
        updated_at: when the entry was last changed.
        status: `TENTATIVE`, `CONFIRMED` or `CANCELLED`.
        sequence: a number that rises with each change. Programs need it if they receive several
            versions of the entry.
    """

    uid: UUID
    start_time: datetime
    end_time: datetime
    updated_at: datetime
    summary: str
    status: str = "CONFIRMED"
    description: str = ""
    sequence: int | None = None
    organizer: Party | None = None
    attendee: Party | None = None


@dataclass(frozen=True)
class CalendarFile:
    """A calendar of some entries. Its text is written only when it is needed.

    Args:
        method: what programs should do with it (RFC 5546): `PUBLISH`, `REQUEST` or `CANCEL`.
        name: the name that programs show.
    """

    entries: Sequence[Entry]
    method: str = ""
    name: str = ""

    @property
    def version(self) -> str:
        """A hash that changes when the text changes. It costs a tenth of writing the text."""
        return sha256(repr(self).encode()).hexdigest()[:32]

    def text(self) -> str:
        """Return the text, exactly as RFC 5545 specifies."""
        calendar = icalendar.Calendar()
        calendar.add("version", "2.0")
        calendar.add("prodid", "-//BookIt//BookIt//EN")
        if self.method:
            calendar.add("method", self.method)
        if self.name:
            calendar.add("x-wr-calname", icalendar.vText(_clean(self.name)))
        if not self.entries:
            # A calendar without a component is not valid, so an empty one describes the zone UTC.
            calendar.add_component(_utc())
        head, end = calendar.to_ical().decode().rsplit("END:", 1)
        return "".join([head, *map(_written, self.entries), "END:", end])


def platform(name: str) -> Party:
    """Return the platform as the organizer `name`, because providers' addresses are private."""
    return Party(name, parseaddr(settings.DEFAULT_FROM_EMAIL)[1])


def _written(entry: Entry) -> str:
    """Return the text of an entry.

    Entries of feeds have no organizer and no attendee, and a feed can have thousands of them. The
    library takes 0.4 ms for each, so this function writes them, with the same text.
    """
    if entry.organizer or entry.attendee:
        return _event(entry).to_ical().decode()
    lines = [
        "BEGIN:VEVENT",
        f"SUMMARY:{_escaped(entry.summary)}",
        f"DTSTART:{_instant(entry.start_time)}",
        f"DTEND:{_instant(entry.end_time)}",
        f"DTSTAMP:{_instant(entry.updated_at)}",
        f"UID:{entry.uid}",
    ]
    if entry.sequence is not None:
        lines.append(f"SEQUENCE:{entry.sequence}")
    if entry.description:
        lines.append(f"DESCRIPTION:{_escaped(entry.description)}")
    lines += [f"STATUS:{entry.status}", "END:VEVENT", ""]
    return "\r\n".join(Contentline(line).to_ical().decode() for line in lines)


def _escaped(text: str) -> str:
    return icalendar.vText(_clean(text)).to_ical().decode()


def _instant(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _event(entry: Entry) -> icalendar.Event:
    event = icalendar.Event()
    event.add("uid", str(entry.uid))
    event.add("dtstamp", entry.updated_at.astimezone(UTC))
    event.add("dtstart", entry.start_time.astimezone(UTC))
    event.add("dtend", entry.end_time.astimezone(UTC))
    event.add("summary", _clean(entry.summary))
    event.add("status", entry.status)
    if entry.sequence is not None:
        event.add("sequence", entry.sequence)
    if entry.description:
        event.add("description", _clean(entry.description))
    if entry.organizer:
        event.add("organizer", _address(entry.organizer))
    if entry.attendee:
        event.add(
            "attendee",
            _address(entry.attendee),
            parameters={"partstat": "ACCEPTED", "rsvp": "FALSE"},
        )
    return event


def _utc() -> icalendar.Timezone:
    standard = icalendar.TimezoneStandard()
    standard.add("dtstart", datetime(1970, 1, 1))  # noqa: DTZ001 - RFC 5545 requires a local time here
    standard.add("tzoffsetfrom", timedelta())
    standard.add("tzoffsetto", timedelta())
    zone = icalendar.Timezone()
    zone.add("tzid", "UTC")
    zone.add_component(standard)
    return zone


def _clean(text: str) -> str:
    r"""Return a text that the library can write: line ends become `\n`, and controls blanks."""
    return CONTROLS.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))


def _address(party: Party) -> icalendar.vCalAddress:
    """Return the address as a value with the name as its parameter. Neither can end the line."""
    address = icalendar.vCalAddress(f"mailto:{quote(party.email, safe='@+')}")
    name = CONTROLS.sub(" ", " ".join(party.name.split()))
    # Quotes cannot be written. Some programs treat a backslash before the colon as its escape.
    name = name.replace('"', "'").replace("\\", "/")
    if name:
        address.params["cn"] = icalendar.vText(name)
    return address
