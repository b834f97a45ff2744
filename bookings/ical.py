"""iCalendar (RFC 5545): bookings as calendar programs read them.

Lines are written here. The library that makes an object of every value takes thirty times as long,
for the largest feed a second; the tests read with it what is written here.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parseaddr
from urllib.parse import quote
from uuid import UUID

from django.conf import settings

from bookings.models import Booking

# Octets of a line, without its end.
LONGEST_LINE = 75
# What no text may hold, and what some programs take for the end of a line.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
# What calendar programs know of states.
STATUSES: dict[str, str] = {
    Booking.Status.HELD: "TENTATIVE",
    Booking.Status.PENDING: "TENTATIVE",
    Booking.Status.CONFIRMED: "CONFIRMED",
    Booking.Status.COMPLETED: "CONFIRMED",
    Booking.Status.NO_SHOW: "CONFIRMED",
    Booking.Status.CANCELLED: "CANCELLED",
    Booking.Status.EXPIRED: "CANCELLED",
}
# A calendar without any component is not valid: an empty one says that its times are in UTC.
NOTHING = (
    "BEGIN:VTIMEZONE",
    "TZID:UTC",
    "BEGIN:STANDARD",
    "DTSTART:19700101T000000",
    "TZOFFSETFROM:+0000",
    "TZOFFSETTO:+0000",
    "END:STANDARD",
    "END:VTIMEZONE",
)


@dataclass(frozen=True)
class Party:
    """Who calls or comes: a name and a mail address."""

    name: str
    email: str


@dataclass(frozen=True)
class Entry:
    """Something in a calendar. All of its times are written in UTC, so no zone has to be described.

    Args:
        uid: for ever the same, whatever happens to it.
        updated_at: since when it is as it is.
        status: `TENTATIVE`, `CONFIRMED` or `CANCELLED`.
        sequence: higher with each change, where programs compare what they get.
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


def calendar(entries: Iterable[Entry], *, method: str = "", name: str = "") -> str:
    """Return a calendar of `entries`, to the letter of RFC 5545.

    Args:
        method: what to do with it (RFC 5546): `PUBLISH`, `REQUEST` or `CANCEL`.
        name: what programs call it.
    """
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//BookIt//BookIt//EN"]
    if method:
        lines.append(f"METHOD:{method}")
    if name:
        lines.append(_fold(f"X-WR-CALNAME:{_text(name)}"))
    first = len(lines)
    for entry in entries:
        lines += _lines(entry)
    if len(lines) == first:
        lines += NOTHING
    return "\r\n".join([*lines, "END:VCALENDAR", ""])


def platform(name: str) -> Party:
    """Return who calls for `name`: the platform, for providers' addresses are their own."""
    return Party(name, parseaddr(settings.DEFAULT_FROM_EMAIL)[1])


def _lines(entry: Entry) -> Iterator[str]:
    yield "BEGIN:VEVENT"
    yield f"UID:{entry.uid}"
    yield f"DTSTAMP:{_instant(entry.updated_at)}"
    yield f"DTSTART:{_instant(entry.start_time)}"
    yield f"DTEND:{_instant(entry.end_time)}"
    yield _fold(f"SUMMARY:{_text(entry.summary)}")
    yield f"STATUS:{entry.status}"
    if entry.sequence is not None:
        yield f"SEQUENCE:{entry.sequence}"
    if entry.description:
        yield _fold(f"DESCRIPTION:{_text(entry.description)}")
    if entry.organizer:
        yield _fold(f"ORGANIZER;CN={_party(entry.organizer)}")
    if entry.attendee:
        yield _fold(f"ATTENDEE;PARTSTAT=ACCEPTED;RSVP=FALSE;CN={_party(entry.attendee)}")
    yield "END:VEVENT"


def _instant(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _text(text: str) -> str:
    r"""Return a value of type TEXT: its line ends become `\n`."""
    text = text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")
    text = text.replace("\r\n", "\\n").replace("\n", "\\n").replace("\r", "\\n")
    return CONTROLS.sub(" ", text)


def _party(party: Party) -> str:
    """Return a name as a parameter, and the address as the value: neither can end the line."""
    name = CONTROLS.sub(" ", " ".join(party.name.split())).replace('"', "'")
    return f'"{name}":mailto:{quote(party.email, safe="@+")}'


def _fold(line: str) -> str:
    """Break a long line between characters; what goes on begins with a blank, which counts."""
    octets = line.encode()
    if len(octets) <= LONGEST_LINE:
        return line
    parts, start, room = [], 0, LONGEST_LINE
    while len(octets) - start > room:
        end = start + room
        while octets[end] & 0b1100_0000 == 0b1000_0000:
            end -= 1
        parts.append(octets[start:end])
        start, room = end, LONGEST_LINE - 1
    return b"\r\n ".join([*parts, octets[start:]]).decode()
